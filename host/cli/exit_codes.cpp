#include "cli/exit_codes.hpp"

#include <cstdio>

namespace luge::cli {

int exit_code_of(Code code) {
  switch (code) {
    case Code::ok: return kOk;
    case Code::invalid: return kUsage;
    case Code::not_found: return kNotFound;
    case Code::exists:
    case Code::fenced:
    case Code::stale:
    case Code::closed_session:
    case Code::conflict:
    case Code::wrong_unit:
    case Code::forged:
    case Code::not_permitted:
    case Code::expired:
    case Code::wrong_version: return kRefused;
    case Code::unavailable:
    case Code::timed_out:
    case Code::degraded: return kUnavailable;
    default: return kFailed;
  }
}

Code code_of_name(std::string_view name) {
  for (int c = 0; c <= static_cast<int>(Code::expired); ++c)
    if (code_name(static_cast<Code>(c)) == name) return static_cast<Code>(c);
  return Code::internal;
}

int complain(const Status& status) {
  std::fprintf(stderr, "luge: %s\n", status.text().c_str());
  return exit_code_of(status.code());
}

}  // namespace luge::cli
