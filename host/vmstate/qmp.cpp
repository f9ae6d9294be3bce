#include "vmstate/qmp.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <thread>

#include "base/logging.hpp"

namespace luge::vmstate {
namespace {

namespace json = boost::json;
using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

constexpr std::size_t kMostLine = 4u << 20;
constexpr std::size_t kMostState = 32u << 20;
constexpr auto kStateLimit = 30s;
constexpr timeval kTakenLimit{10, 0};  // that a monitor which others have may let us wait

Result<int> unix_socket(const std::string& path, bool listen) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return Status(Code::invalid, path + ": too long for the name of a socket");
  std::memcpy(address.sun_path, path.data(), path.size());
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listen) ::unlink(path.c_str());
  if (fd >= 0 && !listen) ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &kTakenLimit, sizeof kTakenLimit);
  const auto* a = reinterpret_cast<sockaddr*>(&address);
  if (fd >= 0 && (listen ? ::bind(fd, a, sizeof address) == 0 && ::listen(fd, 1) == 0 : ::connect(fd, a, sizeof address) == 0)) return fd;
  const bool nobody = !listen && fd >= 0 && (errno == ENOENT || errno == ECONNREFUSED);
  Status why(nobody ? Code::not_found : Code::unavailable, path + ": " + std::strerror(errno));
  if (fd >= 0) ::close(fd);
  return why;
}

bool readable(int fd, Clock::time_point deadline) {
  while (true) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    pollfd p{fd, POLLIN, 0};
    const int n = ::poll(&p, 1, left < 0 ? 0 : static_cast<int>(left) + 1);
    if (n >= 0 || errno != EINTR) return n > 0;
  }
}

}  // namespace

Result<std::unique_ptr<Qmp>> Qmp::open(const std::string& path, std::chrono::milliseconds patience) {
  const auto deadline = Clock::now() + patience;
  auto fd = unix_socket(path, false);
  while (!fd.ok() && fd.code() != Code::invalid && Clock::now() < deadline) {  // QEMU may just be starting
    std::this_thread::sleep_for(20ms);
    fd = unix_socket(path, false);
  }
  if (!fd.ok()) return fd.status().with("QEMU's monitor");
  ucred who{};
  socklen_t length = sizeof who;
  ::getsockopt(*fd, SOL_SOCKET, SO_PEERCRED, &who, &length);
  std::unique_ptr<Qmp> q(new Qmp(path, *fd, who.pid));
  auto greeting = q->next(Clock::now() + 10s);
  if (!greeting.ok()) return greeting.status();
  if (!greeting->contains("QMP")) return Status(Code::wrong_version, path + ": not a QMP monitor (-qmp unix:PATH,server=on,wait=off)");
  auto ready = q->run("qmp_capabilities");
  if (!ready.ok()) return ready.status();
  return q;
}

Qmp::~Qmp() { ::close(fd_); }

Result<json::object> Qmp::next(Clock::time_point deadline) {
  while (true) {
    if (std::size_t end = heard_.find('\n'); end != std::string::npos) {
      boost::system::error_code e;
      json::value v = json::parse(std::string_view(heard_).substr(0, end), e);
      heard_.erase(0, end + 1);
      if (e || !v.is_object()) return Status(Code::corrupt, path_ + ": QEMU's monitor said what is no JSON object");
      return std::move(v.as_object());
    }
    if (heard_.size() > kMostLine) return Status(Code::corrupt, path_ + ": a line of QEMU's monitor has no end");
    if (!readable(fd_, deadline)) return Status(Code::timed_out, path_ + ": QEMU doesn't answer");
    char part[16384];
    const ssize_t n = ::read(fd_, part, sizeof part);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return Status(Code::unavailable, path_ + ": QEMU has gone");
    heard_.append(part, static_cast<std::size_t>(n));
  }
}

Result<json::value> Qmp::run(std::string_view command, json::object arguments, std::chrono::milliseconds limit) {
  const std::int64_t id = ++last_id_;
  json::object request{{"execute", command}, {"id", id}};
  if (!arguments.empty()) request["arguments"] = std::move(arguments);
  const std::string line = json::serialize(request) + "\n";
  for (std::size_t sent = 0; sent < line.size();) {
    const ssize_t n = ::send(fd_, line.data() + sent, line.size() - sent, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return Status(Code::unavailable, path_ + ": QEMU has gone");
    sent += static_cast<std::size_t>(n);
  }
  const auto deadline = Clock::now() + limit;
  while (true) {
    auto answer = next(deadline);
    if (!answer.ok()) return answer.status();
    if (const json::value* whose = answer->if_contains("id"); whose && *whose != json::value(id)) continue;  // of one that was not waited for
    if (auto it = answer->find("return"); it != answer->end()) return it->value();
    if (auto it = answer->find("error"); it != answer->end()) {
      const json::value* text = it->value().is_object() ? it->value().as_object().if_contains("desc") : nullptr;
      return Status(Code::invalid, "QEMU: " + std::string(command) + ": " + (text && text->is_string() ? std::string(text->as_string()) : "refused"));
    }
  }  // anything else is an event
}

namespace {
std::string_view word_of(const json::value& v) {
  const json::value* word = v.is_object() ? v.as_object().if_contains("status") : nullptr;
  return word && word->is_string() ? std::string_view(word->as_string()) : "";
}
}  // namespace

Result<std::string> qemu_status(Qmp& qmp) {
  auto now = qmp.run("query-status");
  if (!now.ok()) return now.status();
  if (word_of(*now).empty()) return Status(Code::corrupt, "QEMU doesn't say whether the machine runs");
  return std::string(word_of(*now));
}

QemuMachine::QemuMachine(Qmp& qmp, std::string name, std::string directory) : qmp_(qmp), directory_(std::move(directory)), notes_(directory_) {
  note_.machine = std::move(name), note_.qmp = qmp.path(), note_.process = qmp.pid(), note_.started = started(qmp.pid());
}

// The note comes before the pause: whatever is paused by us can be found by whoever comes after us.
Result<bool> QemuMachine::pause(bool goes_on) {
  auto is = qemu_status(qmp_);
  if (!is.ok()) return is.status();
  if (*is == "postmigrate") return Status(Code::conflict, "the machine stands still since its state was saved last, and QEMU doesn't save it twice: let it run first (`cont` in its monitor)");
  const bool ran = *is == "running";
  note_.kind = PauseNote::Kind::goes_on;
  if (ran && goes_on)
    if (Status s = notes_.write(note_); !s.ok()) return s;
  if (Status s = qmp_.run("stop").status(); !s.ok()) {
    if (ran) (void)resume();  // whether it stands still isn't known
    return s;
  }
  return ran;
}

Status QemuMachine::resume() {
  Status s = qmp_.run("cont").status();
  if (s.ok()) notes_.remove(note_.machine);
  return s;
}

Status QemuMachine::hand_over() {
  note_.kind = PauseNote::Kind::handing_over;
  return notes_.write(note_);
}

namespace {

Status leave_memory_out(Qmp& qmp, bool on) {
  return qmp.run("migrate-set-capabilities", {{"capabilities", json::array{json::object{{"capability", "x-ignore-shared"}, {"state", on}}}}}).status();
}

// While it lives, QEMU's migrations leave shared memory out. Left on, a person's own saving or migration would lack the memory, without a word.
class WithoutMemory {
 public:
  explicit WithoutMemory(Qmp& qmp) : qmp_(qmp), status_(leave_memory_out(qmp, true)) {}
  ~WithoutMemory() {
    if (!status_.ok()) return;
    if (Status s = leave_memory_out(qmp_, false); !s.ok()) logging::error("QEMU's own migrations leave the memory out from now on: {}", s.text());
  }
  WithoutMemory(const WithoutMemory&) = delete;
  const Status& status() const { return status_; }

 private:
  Qmp& qmp_;
  const Status status_;
};

// A saving that has not come to its end goes on otherwise, and keeps its capabilities.
void cancel_saving(Qmp& qmp) {
  if (!qmp.run("migrate_cancel").ok()) return;
  for (const auto deadline = Clock::now() + 2s; Clock::now() < deadline; std::this_thread::sleep_for(10ms)) {
    auto info = qmp.run("query-migrate");
    if (!info.ok()) return;
    const std::string_view word = word_of(*info);
    if (word.empty() || word == "none" || word == "completed" || word == "failed" || word == "cancelled") return;
  }
}

}  // namespace

// The state is small, and goes at once.
Status QemuMachine::prepare() {
  if (bandwidth_ >= 0) return Status();
  auto now = qmp_.run("query-migrate-parameters");
  if (!now.ok()) return now.status();
  const json::value* v = now->is_object() ? now->as_object().if_contains("max-bandwidth") : nullptr;
  if (Status s = qmp_.run("migrate-set-parameters", {{"max-bandwidth", std::int64_t{1} << 40}}).status(); !s.ok()) return s;
  bandwidth_ = v && v->is_number() ? v->to_number<std::int64_t>() : 0;
  return Status();
}

void QemuMachine::release() {
  if (bandwidth_ > 0)
    if (Status s = qmp_.run("migrate-set-parameters", {{"max-bandwidth", bandwidth_}}).status(); !s.ok()) logging::debug("QEMU's max-bandwidth stays as it is: {}", s.text());
  bandwidth_ = -1;
}

void QemuMachine::memory_belongs(Qmp& qmp) {
  if (Status s = leave_memory_out(qmp, false); !s.ok()) logging::error("QEMU's own migrations leave the memory out: {}", s.text());
}

Result<std::string> QemuMachine::device_state() {
  if (Status s = prepare(); !s.ok()) return s;
  const WithoutMemory without(qmp_);
  if (!without.status().ok()) return without.status();
  auto state = save();
  if (!state.ok()) cancel_saving(qmp_);
  return state;
}

// QEMU's own migration of a stopped machine whose memory it leaves out.
Result<std::string> QemuMachine::save() {
  const std::string path = directory_ + "/state-" + std::to_string(::getpid()) + "-" + std::to_string(qmp_.pid()) + ".sock";
  auto listener = unix_socket(path, true);
  if (!listener.ok()) return listener.status();
  auto begun = qmp_.run("migrate", {{"uri", "unix:" + path}});
  const auto deadline = Clock::now() + kStateLimit;
  int fd = -1;
  if (begun.ok() && readable(*listener, deadline)) fd = ::accept4(*listener, nullptr, nullptr, SOCK_CLOEXEC);
  ::close(*listener);
  ::unlink(path.c_str());
  if (!begun.ok()) return begun.status();
  if (fd < 0) return Status(Code::timed_out, "QEMU doesn't save its devices");
  std::string state;
  Status status;
  while (state.size() < kMostState) {
    const std::size_t at = state.size();
    if (!readable(fd, deadline)) {
      status = Status(Code::timed_out, "QEMU doesn't save its devices to the end");
      break;
    }
    state.resize(at + 65536);
    const ssize_t n = ::read(fd, state.data() + at, 65536);
    state.resize(at + (n > 0 ? static_cast<std::size_t>(n) : 0));
    if (n == 0) break;
    if (n < 0 && errno != EINTR) {
      status = Status(Code::io_error, std::string("QEMU's device state: ") + std::strerror(errno));
      break;
    }
  }
  ::close(fd);
  if (!status.ok()) return status;
  while (Clock::now() < deadline) {
    auto info = qmp_.run("query-migrate");
    if (!info.ok()) return info.status();
    const std::string_view word = word_of(*info);
    if (word == "completed") return state;
    if (word == "failed" || word == "cancelled") return Status(Code::io_error, "QEMU could not save its devices: migration " + std::string(word));
    std::this_thread::sleep_for(500us);
  }
  return Status(Code::timed_out, "QEMU doesn't end saving its devices");
}

// QEMU listens, we send.
Status QemuMachine::load(Qmp& qmp, const std::string& state, const std::string& directory) {
  const WithoutMemory without(qmp);
  if (!without.status().ok()) return without.status();
  const std::string path = directory + "/incoming.sock";
  ::unlink(path.c_str());
  if (auto begun = qmp.run("migrate-incoming", {{"uri", "unix:" + path}}); !begun.ok()) return begun.status();
  auto fd = unix_socket(path, false);
  if (!fd.ok()) return fd.status();
  timeval limit{30, 0};
  ::setsockopt(*fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  for (std::size_t sent = 0; sent < state.size();) {
    const ssize_t n = ::send(*fd, state.data() + sent, state.size() - sent, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      ::close(*fd);
      return Status(Code::io_error, std::string("QEMU doesn't take the device state: ") + std::strerror(errno));
    }
    sent += static_cast<std::size_t>(n);
  }
  ::close(*fd);
  ::unlink(path.c_str());
  const auto deadline = Clock::now() + kStateLimit;
  while (Clock::now() < deadline) {
    auto info = qmp.run("query-status");
    if (!info.ok()) return info.status();
    const std::string_view word = word_of(*info);
    if (word == "paused" || word == "running" || word == "prelaunch" || word == "postmigrate") return Status();
    std::this_thread::sleep_for(300us);
  }
  return Status(Code::timed_out, "QEMU doesn't take the device state");
}

}  // namespace luge::vmstate
