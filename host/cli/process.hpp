// Processes that `luge unit` has started, and telling them from others that may have got the same pid since.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "base/status.hpp"

namespace luge::cli {

/// A pid with its start time (in ticks since boot, /proc/PID/stat): together they name one process only.
struct ProcessId {
  pid_t pid = 0;
  unsigned long long start_time = 0;
};

/// Start time of a process that runs (a zombie does not).
std::optional<unsigned long long> start_time_of(pid_t pid);
/// It runs, is the same process, and its program is called as `program`.
bool runs(const ProcessId& p, const std::string& program);

/// Starts a program detached from this one (own session, no input, output appended to `log`).
Result<ProcessId> start_detached(const std::string& program, const std::vector<std::string>& arguments,
                                 const std::string& log);

/// One line {"pid":..,"start_time":..}. Absent, torn or foreign content: nothing.
std::optional<ProcessId> read_pid_file(const std::string& path);
Status write_pid_file(const std::string& path, const ProcessId& p);

}  // namespace luge::cli
