// What the exit code of `luge` means; listed in --help. Scripts rely on it.
#pragma once

#include <string_view>

#include "base/status.hpp"

namespace luge::cli {

enum ExitCode : int {
  kOk = 0,
  kFailed = 1,
  kUsage = 2,
  kNotFound = 4,
  kRefused = 5,
  kUnavailable = 6,
};

int exit_code_of(Code code);
/// The code that code_name() calls `name`; internal if there is none.
Code code_of_name(std::string_view name);
/// "luge: TEXT" to standard error; the exit code.
int complain(const Status& status);

}  // namespace luge::cli
