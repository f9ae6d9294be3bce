#include "cli/process.hpp"

#include <fcntl.h>
#include <linux/close_range.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace luge::cli {

namespace fs = std::filesystem;
namespace json = boost::json;

std::optional<unsigned long long> start_time_of(pid_t pid) {
  std::ifstream in("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  if (!std::getline(in, line)) return {};
  // "PID (NAME) STATE ..."; the name may hold anything, so count from its closing parenthesis.
  std::size_t close = line.rfind(')');
  if (close == std::string::npos) return {};
  std::istringstream fields(line.substr(close + 1));
  std::string field;
  constexpr int kState = 3, kStartTime = 22;
  for (int i = kState; fields >> field; ++i) {
    if (i == kState && (field == "Z" || field == "X")) return {};
    if (i == kStartTime) return std::strtoull(field.c_str(), nullptr, 10);
  }
  return {};
}

bool runs(const ProcessId& p, const std::string& program) {
  if (p.pid <= 0 || start_time_of(p.pid) != p.start_time) return false;
  std::error_code error;
  std::string exe = fs::read_symlink("/proc/" + std::to_string(p.pid) + "/exe", error).string();
  if (error) return false;
  constexpr std::string_view kDeleted = " (deleted)";  // the program was built anew meanwhile
  if (exe.ends_with(kDeleted)) exe.resize(exe.size() - kDeleted.size());
  return fs::path(exe).filename() == fs::path(program).filename();
}

Result<ProcessId> start_detached(const std::string& program, const std::vector<std::string>& arguments,
                                 const std::string& log) {
  if (::access(program.c_str(), X_OK) != 0)
    return Status(Code::not_found, program + ": no such program; build it, or name its directory with --bin");
  std::vector<char*> argv{const_cast<char*>(program.c_str())};
  for (const std::string& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
  argv.push_back(nullptr);
  int out = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  int null = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  int done[2] = {-1, -1};  // closes when the program runs; carries errno when it does not
  if (out < 0 || null < 0 || ::pipe2(done, O_CLOEXEC) != 0) {
    Status s(Code::io_error, log + ": " + std::strerror(errno));
    if (out >= 0) ::close(out);
    if (null >= 0) ::close(null);
    return s;
  }
  pid_t pid = ::fork();
  if (pid == 0) {
    ::setsid();
    ::dup2(null, 0);
    ::dup2(out, 1);
    ::dup2(out, 2);
    ::close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
    ::execv(program.c_str(), argv.data());
    int error = errno;
    if (::write(done[1], &error, sizeof error) < 0) ::_exit(126);
    ::_exit(127);
  }
  ::close(out);
  ::close(null);
  ::close(done[1]);
  int error = pid < 0 ? errno : 0;
  if (pid > 0 && ::read(done[0], &error, sizeof error) <= 0) error = 0;
  ::close(done[0]);
  if (error != 0) return Status(Code::io_error, program + ": cannot be started: " + std::strerror(error));
  return ProcessId{pid, start_time_of(pid).value_or(0)};
}

std::optional<ProcessId> read_pid_file(const std::string& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  boost::system::error_code error;
  json::value v = json::parse(text.str(), error);
  if (error || !v.is_object()) return {};
  const json::value* pid = v.get_object().if_contains("pid");
  const json::value* start = v.get_object().if_contains("start_time");
  if (!pid || !pid->is_int64() || pid->get_int64() <= 0 || !start || !start->is_number()) return {};
  auto ticks = start->to_number<unsigned long long>(error);
  if (error) return {};
  return ProcessId{static_cast<pid_t>(pid->get_int64()), ticks};
}

Status write_pid_file(const std::string& path, const ProcessId& p) {
  std::string next = path + ".new";
  {
    std::ofstream out(next, std::ios::trunc);
    out << json::serialize(json::object{{"pid", p.pid}, {"start_time", p.start_time}}) << "\n";
    if (!out.flush()) return Status(Code::io_error, next + ": cannot be written");
  }
  std::error_code error;
  fs::rename(next, path, error);
  return error ? Status(Code::io_error, path + ": " + error.message()) : Status();
}

}  // namespace luge::cli
