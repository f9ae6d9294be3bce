#include "attach/unix_listener.hpp"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>

namespace luge::attach {

Result<io::Descriptor> listen_unix(const std::string& path, int type) {
  sockaddr_un a{};
  a.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof a.sun_path) return Status(Code::invalid, path + ": the path of a socket has 1 to " + std::to_string(sizeof a.sun_path - 1) + " bytes");
  std::memcpy(a.sun_path, path.data(), path.size());
  {
    io::Descriptor probe(::socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    int e = ::connect(probe.get(), reinterpret_cast<sockaddr*>(&a), sizeof a) == 0 ? 0 : errno;
    if (e == 0 || e == EAGAIN || e == EINPROGRESS) return Status(Code::exists, path + ": another process is listening there");
    struct stat st {};
    if (e == ECONNREFUSED && ::lstat(path.c_str(), &st) == 0 && S_ISSOCK(st.st_mode)) ::unlink(path.c_str());
  }
  io::Descriptor fd(::socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  mode_t mask = ::umask(0077);
  int failed = !fd || ::bind(fd.get(), reinterpret_cast<sockaddr*>(&a), sizeof a) != 0 || ::listen(fd.get(), 16) != 0;
  int e = errno;
  ::umask(mask);
  if (failed) return Status(Code::io_error, path + ": " + std::strerror(e));
  return fd;
}

}  // namespace luge::attach
