#include "card/inquiry.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "io/descriptor.hpp"

namespace luge::card {
namespace {

bool address_of(sockaddr_un& a, const std::string& path) {
  if (path.size() >= sizeof a.sun_path) return false;
  a.sun_family = AF_UNIX;
  std::memcpy(a.sun_path, path.c_str(), path.size() + 1);
  return true;
}

Status no_answer(const std::string& path) {
  if (errno == EAGAIN || errno == EWOULDBLOCK) return Status(Code::timed_out, "the card's host does not answer: " + path);
  return Status(Code::not_found, "the card's host cannot be asked: " + path + ": " + std::strerror(errno));
}

}  // namespace

Result<Said> inquire(const CardOptions& o, std::chrono::milliseconds limit) {
  const std::string name = "card" + std::to_string(o.device) + ".ask", path = o.directory + "/" + name;
  // By way of the directory's descriptor: a socket's name is short, and a unit may lie deep.
  io::Descriptor directory(::open(o.directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  io::Descriptor socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  sockaddr_un a{};
  if (directory.get() < 0 || socket.get() < 0 || !address_of(a, "/proc/self/fd/" + std::to_string(directory.get()) + "/" + name)) return no_answer(path);
  const timeval t{limit.count() / 1000, limit.count() % 1000 * 1000};
  ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
  ::setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
  if (::connect(socket.get(), reinterpret_cast<sockaddr*>(&a), sizeof a) != 0) return no_answer(path);
  Said said;
  auto hear = [&](auto& m, Say say) {
    const ssize_t n = ::recv(socket.get(), &m, sizeof m, 0);
    if (n < 0) return no_answer(path);
    if (n != sizeof m || m.header.say != say) return Status(Code::wrong_version, "the card's host is of another version, or has just given the card up");
    return Status();
  };
  if (Status s = hear(said.hello, Say::hello); !s.ok()) return s;
  if (Status s = hear(said.firmware, Say::firmware); !s.ok()) return s;
  said.hello.text[sizeof said.hello.text - 1] = 0;
  return said;
}

Inquiries::Inquiries(const std::string& path) : path_(path) {
  if (path.empty()) return;
  fd_ = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  sockaddr_un a{};
  ::unlink(path.c_str());  // of one that was killed
  const bool listens = fd_ >= 0 && address_of(a, path) && ::bind(fd_, reinterpret_cast<sockaddr*>(&a), sizeof a) == 0 && ::chmod(path.c_str(), 0600) == 0 && ::listen(fd_, 4) == 0;
  if (listens) return;
  std::fprintf(stderr, "nobody can ask of the card: %s: %s\n", path.c_str(), std::strerror(errno));
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

Inquiries::~Inquiries() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(path_.c_str());
}

int Inquiries::next() { return ::accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK); }

// Two packets of less than any socket's buffer: whoever does not read them loses them.
void Inquiries::give(int caller, const Said& said) {
  (void)::send(caller, &said.hello, sizeof said.hello, MSG_NOSIGNAL);
  (void)::send(caller, &said.firmware, sizeof said.firmware, MSG_NOSIGNAL);
  ::close(caller);
}

}  // namespace luge::card
