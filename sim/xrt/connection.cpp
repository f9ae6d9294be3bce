#include "sim/xrt/connection.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "sim/xrt/message.hpp"

namespace luge::xrt_sim {
namespace {
constexpr std::size_t kCallHeader = 14, kReplyHeader = 9;
constexpr std::uint64_t kLongest = 1ull << 30;

bool address_of(sockaddr_un& a, const std::string& prefix) {
  const char *user = std::getenv("USER"), *id = std::getenv("EMULATION_SOCKETID");
  if (!user || !id) return false;
  std::string path = std::string("/tmp/") + user + "/" + prefix + id;
  if (path.size() >= sizeof a.sun_path) return false;
  a.sun_family = AF_UNIX;
  std::memcpy(a.sun_path, path.c_str(), path.size() + 1);
  return true;
}
}  // namespace

bool Connection::open(int seconds) {
  sockaddr_un a{};
  if (!address_of(a, "")) return false;
  for (int tries = 0; tries < seconds * 100; ++tries) {
    fd_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd_ >= 0 && ::connect(fd_, reinterpret_cast<sockaddr*>(&a), sizeof a) == 0) {
      int size = 2 << 20;
      ::setsockopt(fd_, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
      ::unlink(a.sun_path);  // its name has served; a host that is killed would leave it
      return true;
    }
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
    ::usleep(10000);
  }
  return false;
}

Connection::~Connection() {
  if (fd_ >= 0) ::close(fd_);
  if (back_ >= 0) ::close(back_);
}

void Connection::try_back_channel() {
  sockaddr_un a{};
  if (back_ >= 0 || !address_of(a, "D2X_unix_sock_")) return;
  int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return;
  if (::connect(fd, reinterpret_cast<sockaddr*>(&a), sizeof a) == 0) {
    back_ = fd;
    ::unlink(a.sun_path);  // nobody else does
  } else {
    ::close(fd);
  }
}

void Connection::dismiss_back_channel() {
  for (int tries = 0; back_ < 0 && tries < 20; ++tries) {
    try_back_channel();
    if (back_ < 0) ::usleep(10000);
  }
  char last[kCallHeader] = {0x09, 0, 0, 0, 0, 0, 0, 0, 0, 0x15, 1, 0, 0, 0};
  if (back_ >= 0) (void)::send(back_, last, sizeof last, MSG_NOSIGNAL);
}

bool Connection::read_all(char* to, std::size_t n) {
  while (n > 0) {
    ssize_t r = ::recv(fd_, to, n, MSG_WAITALL);
    if (r < 0 && errno == EINTR) continue;
    if (r <= 0) return false;
    to += r, n -= static_cast<std::size_t>(r);
  }
  return true;
}

Connection::Got Connection::receive(Call& call, int wait_ms) {
  pollfd p{fd_, POLLIN, 0};
  int ready = ::poll(&p, 1, wait_ms);
  if (ready == 0 || (ready < 0 && errno == EINTR)) return Got::nothing;
  char h[kCallHeader];
  if (!read_all(h, sizeof h)) return Got::closed;
  std::uint64_t size;
  std::memcpy(&size, h + 1, 8);
  std::memcpy(&call.number, h + 10, 4);
  if (h[0] != 0x09 || h[9] != 0x15 || size > kLongest) throw BadMessage("no header of a call");
  call.body.resize(size);
  return read_all(call.body.data(), size) ? Got::call : Got::closed;
}

bool Connection::reply(const std::string& body) {
  char h[kReplyHeader] = {0x09};
  std::uint64_t size = body.size();
  std::memcpy(h + 1, &size, 8);
  iovec v[2] = {{h, sizeof h}, {const_cast<char*>(body.data()), body.size()}};
  msghdr m{};
  m.msg_iov = v, m.msg_iovlen = 2;
  for (std::size_t left = sizeof h + size; left > 0;) {
    ssize_t r = ::sendmsg(fd_, &m, MSG_NOSIGNAL);
    if (r < 0 && errno == EINTR) continue;
    if (r <= 0) return false;
    left -= static_cast<std::size_t>(r);
    for (auto n = static_cast<std::size_t>(r); n > 0;) {
      std::size_t part = n < m.msg_iov->iov_len ? n : m.msg_iov->iov_len;
      m.msg_iov->iov_base = static_cast<char*>(m.msg_iov->iov_base) + part;
      m.msg_iov->iov_len -= part, n -= part;
      if (m.msg_iov->iov_len == 0 && m.msg_iovlen > 1) ++m.msg_iov, --m.msg_iovlen;
    }
  }
  return true;
}

}  // namespace luge::xrt_sim
