#include "card/process.hpp"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <vector>

#include "base/logging.hpp"
#include "card/environment.hpp"
#include "card/messages.hpp"
#include "image/card_store.hpp"

extern char** environ;

namespace luge::card {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kLastWords = 400;

struct Descriptor {
  explicit Descriptor(int n) : fd(n) {}
  Descriptor(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
  int fd;
};

std::vector<char*> pointers(std::vector<std::string>& strings) {
  std::vector<char*> p;
  for (std::string& s : strings) p.push_back(s.data());
  p.push_back(nullptr);
  return p;
}

}  // namespace

Result<std::unique_ptr<Process>> Process::start(const CardOptions& o, Fault& fault) {
  fault = Fault::no_runtime;
  const std::string program = card_program(o);
  if (!fs::exists(program)) return Status(Code::not_found, "there is no card program " + program + " (is libxrt-dev installed? it is built with it)");
  auto wanted = card_environment(o);
  if (!wanted.ok()) {
    if (wanted.code() == Code::invalid) fault = Fault::none;
    return wanted.status();
  }
  std::map<std::string, std::string> env;
  for (char** e = environ; *e != nullptr; ++e)
    if (const char* equals = std::strchr(*e, '=')) env[std::string(*e, static_cast<std::size_t>(equals - *e))] = equals + 1;
  for (auto& [k, v] : *wanted) env[k] = v;
  std::unique_ptr<Process> p(new Process());
  p->directory_ = o.directory;
  if (o.directory.empty()) {
    const char* tmp = std::getenv("TMPDIR");
    p->directory_ = std::string(tmp && *tmp ? tmp : "/tmp") + "/luge-card-XXXXXX";
    if (::mkdtemp(p->directory_.data()) == nullptr) return Status(Code::io_error, "cannot make " + p->directory_ + ": " + std::strerror(errno));
    p->own_directory_ = true;
  } else {
    std::error_code e;
    p->directory_ = fs::absolute(o.directory);
    fs::create_directories(p->directory_, e);
  }
  const std::string card = p->directory_ + "/card" + std::to_string(o.device), run = card + ".run";
  Descriptor lock(::open((card + ".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (lock.fd < 0) return Status(Code::io_error, "cannot open " + card + ".lock: " + std::strerror(errno));
  // Whoever looks whether the card is in use locks it for a moment: that is not a host.
  int locked = ::flock(lock.fd, LOCK_EX | LOCK_NB);
  for (int tries = 0; locked != 0 && tries < 5; ++tries) ::usleep(1000), locked = ::flock(lock.fd, LOCK_EX | LOCK_NB);
  if (locked != 0) {
    fault = Fault::in_use;
    return Status(Code::exists, "another host has the card: " + card + ".lock is locked");
  }
  // A card with slots boots what its records say.
  std::string xclbin = o.xclbin;
  p->device_ = o.device;
  if (auto store = image::CardStore::open(p->directory_, o.device); store.ok()) {
    auto boot = store->boot();
    if (!boot.ok()) return boot.status();
    p->slot_ = boot->slot;
    if (!boot->xclbin.empty()) xclbin = boot->xclbin;
    if (!boot->firmware.empty()) env["LUGE_CARD_FIRMWARE"] = boot->firmware;
    env["LUGE_CARD_SLOT"] = std::to_string(boot->slot);
    logging::info("card {} boots slot {}, version {}{}", o.device, image::slot_name(boot->slot), boot->version, boot->fell_back ? ": it fell back to it" : "");
  } else if (store.code() != Code::not_found) {
    return store.status();
  }
  if (o.kind == "hw" && xclbin.empty()) {
    fault = Fault::none;
    return Status(Code::invalid, "card hw: name the xclbin to load, or give the card slots (luge card create)");
  }
  // What an earlier one left that was killed.
  std::error_code e;
  fs::remove_all(run, e);
  fs::create_directories(run, e);
  p->log_ = card + ".log";
  env["SDACCEL_EM_RUN_DIR"] = run;
  std::vector<std::string> arguments{program, "--device", std::to_string(o.device), "--pool-bytes", std::to_string(o.pool_bytes),
                                     "--ask", "../card" + std::to_string(o.device) + ".ask"};  // of `run`, where it is started
  if (!xclbin.empty()) arguments.insert(arguments.end(), {"--xclbin", fs::absolute(xclbin).string()});
  if (!o.memory.empty()) arguments.insert(arguments.end(), {"--memory", o.memory});
  std::vector<std::string> environment;
  for (auto& [k, v] : env) environment.push_back(k + "=" + v);

  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) return Status(Code::io_error, std::string("socketpair: ") + std::strerror(errno));
  ::fcntl(pair[0], F_SETFL, O_NONBLOCK);
  p->socket_ = pair[0];
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawnattr_init(&attributes);
  sigset_t none, usual;
  ::sigemptyset(&none);
  ::sigfillset(&usual);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setsigdefault(&attributes, &usual);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  // Both first out of the way of the numbers that they shall have.
  const int high_socket = ::fcntl(pair[1], F_DUPFD_CLOEXEC, 10), high_lock = ::fcntl(lock.fd, F_DUPFD_CLOEXEC, 10);
  Descriptor close_socket(high_socket), close_lock(high_lock);
  ::posix_spawn_file_actions_adddup2(&actions, high_socket, kCardSocket);
  ::posix_spawn_file_actions_adddup2(&actions, high_lock, kCardLock);
  ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_addopen(&actions, 2, p->log_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  ::posix_spawn_file_actions_adddup2(&actions, 2, 1);
  ::posix_spawn_file_actions_addchdir_np(&actions, run.c_str());
  int error = ::posix_spawn(&p->pid_, program.c_str(), &actions, &attributes, pointers(arguments).data(), pointers(environment).data());
  ::posix_spawn_file_actions_destroy(&actions);
  ::posix_spawnattr_destroy(&attributes);
  ::close(pair[1]);
  if (error != 0) {
    p->reaped_ = true;
    return Status(Code::not_found, "cannot start " + program + ": " + std::strerror(error));
  }
  fault = Fault::none;
  return p;
}

bool Process::ended(int& status) {
  if (!reaped_ && ::waitpid(pid_, &status_, WNOHANG) == pid_) reaped_ = true;
  status = status_;
  return reaped_;
}

void Process::close(int milliseconds) {
  if (socket_ >= 0) ::close(socket_);
  socket_ = -1;
  int status;
  for (int i = 0; i < milliseconds && !ended(status); i += 2) ::usleep(2000);
}

void Process::came_up() {
  if (slot_ == fw::kNoSlot) return;
  auto store = image::CardStore::open(directory_, device_);
  if (Status s = store.ok() ? store->mark_good(slot_) : store.status(); !s.ok()) logging::warn("card {}: {}", device_, s.to_string());
}

Process::~Process() {
  if (socket_ >= 0) ::close(socket_);
  if (pid_ > 0) {
    ::kill(-pid_, SIGKILL);  // the simulator, too, also when it is stopped
    if (!reaped_) ::waitpid(pid_, &status_, 0);
  }
  std::error_code ignored;
  if (own_directory_) fs::remove_all(directory_, ignored);
}

std::string Process::last_words() const {
  std::ifstream f(log_, std::ios::binary | std::ios::ate);
  if (!f) return "";
  auto size = static_cast<std::size_t>(f.tellg()), n = std::min(size, kLastWords);
  f.seekg(static_cast<std::streamoff>(size - n));
  std::string text(n, '\0');
  f.read(text.data(), static_cast<std::streamsize>(n));
  while (!text.empty() && (text.back() == '\n' || text.back() == '\0')) text.pop_back();
  for (char& c : text) if (c == '\n') c = ';';
  return text;
}

}  // namespace luge::card
