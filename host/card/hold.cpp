#include "card/hold.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

namespace luge::card {
namespace {

std::string name_of(const CardOptions& o, const char* what) { return o.directory + "/card" + std::to_string(o.device) + what; }

bool locked(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) return false;
  const bool busy = ::flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  ::close(fd);
  return busy;
}

}  // namespace

bool card_held(const CardOptions& o) { return !o.directory.empty() && locked(name_of(o, ".hold")); }
bool card_in_use(const CardOptions& o) { return !o.directory.empty() && locked(name_of(o, ".lock")); }

io::Task<Result<std::unique_ptr<Hold>>> Hold::take(io::World& world, const CardOptions& o, io::Duration limit) {
  if (o.directory.empty()) co_return Status(Code::invalid, "only a card with a directory can be held");
  std::error_code e;
  std::filesystem::create_directories(o.directory, e);
  std::unique_ptr<Hold> hold(new Hold());
  const std::string path = name_of(o, ".hold");
  hold->fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (hold->fd_ < 0) co_return Status(Code::io_error, "cannot open " + path + ": " + std::strerror(errno));
  // Whoever looks whether it is held locks it for a moment: that is not a holder.
  for (int tries = 0; ::flock(hold->fd_, LOCK_EX | LOCK_NB) != 0; ++tries) {
    if (tries == 20) co_return Status(Code::exists, "somebody else holds the card: " + path + " is locked");
    co_await world.sleep(std::chrono::milliseconds(10));
  }
  hold->drained_ = card_in_use(o);
  for (const io::Time end = world.now() + limit; card_in_use(o); co_await world.sleep(std::chrono::milliseconds(50)))
    if (world.now() >= end) co_return Status(Code::timed_out, "the host of the card did not give it up: " + name_of(o, ".lock") + " is locked");
  co_return hold;
}

Hold::~Hold() {
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace luge::card
