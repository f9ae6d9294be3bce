#include "io/real_network.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cerrno>
#include <climits>
#include <cstring>
#include <utility>

#include "io/descriptor.hpp"

namespace luge::io {
namespace {

namespace asio = boost::asio;
using asio::posix::stream_descriptor;
using boost::system::error_code;

constexpr std::size_t kParts = 256;        // of one sendmsg
constexpr int kInlineTurns = 16;           // successes without a wait before others get their turn

std::string error_text(int e) { return std::strerror(e); }

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;
  std::string unix_path;
  Descriptor directory;  // keeps /proc/self/fd/N of a long unix path valid
  bool is_unix() const { return storage.ss_family == AF_UNIX; }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

bool is_loopback(const SocketAddress& a) {
  if (a.is_unix()) return true;
  if (a.storage.ss_family == AF_INET)
    return ntohl(reinterpret_cast<const sockaddr_in&>(a.storage).sin_addr.s_addr) >> 24 == 127;
  return IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6&>(a.storage).sin6_addr);
}

std::string to_text(const SocketAddress& a) {
  if (a.is_unix()) return "unix:" + a.unix_path;
  char host[INET6_ADDRSTRLEN] = "?";
  if (a.storage.ss_family == AF_INET) {
    auto& in = reinterpret_cast<const sockaddr_in&>(a.storage);
    ::inet_ntop(AF_INET, &in.sin_addr, host, sizeof host);
    return "tcp:" + std::string(host) + ":" + std::to_string(ntohs(in.sin_port));
  }
  auto& in = reinterpret_cast<const sockaddr_in6&>(a.storage);
  ::inet_ntop(AF_INET6, &in.sin6_addr, host, sizeof host);
  return "tcp:[" + std::string(host) + "]:" + std::to_string(ntohs(in.sin6_port));
}

// sun_path holds 107 characters. A longer path is named through its directory, opened: /proc/self/fd/N/NAME.
Result<SocketAddress> unix_address(const std::string& path) {
  SocketAddress a;
  auto& un = reinterpret_cast<sockaddr_un&>(a.storage);
  un.sun_family = AF_UNIX;
  a.unix_path = path;
  std::string name = path;
  if (path.empty() || path.find('\0') != std::string::npos)
    return Status(Code::invalid, "'unix:" + path + "' is not a socket address: the path is empty or has a NUL");
  if (path.size() >= sizeof un.sun_path) {
    std::size_t slash = path.rfind('/');
    std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
    a.directory = Descriptor(::open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (a.directory.get() < 0)
      return Status(errno == ENOENT ? Code::not_found : Code::io_error, "unix:" + path + ": cannot open its directory: " + error_text(errno));
    name = "/proc/self/fd/" + std::to_string(a.directory.get()) + "/" +
           (slash == std::string::npos ? path : path.substr(slash + 1));
    if (name.size() >= sizeof un.sun_path)
      return Status(Code::invalid, "unix:" + path + ": the name of the socket is too long");
  }
  std::memcpy(un.sun_path, name.c_str(), name.size() + 1);
  a.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size() + 1);
  return a;
}

struct HostPort {
  std::string host;
  std::uint16_t port = 0;
};

// "HOST:PORT" or "[V6]:PORT".
Result<HostPort> split_host_port(const std::string& text) {
  Status bad(Code::invalid, "'tcp:" + text + "' is not an address of the form tcp:HOST:PORT");
  std::size_t colon = text.rfind(':');
  if (colon == std::string::npos || colon == 0) return bad;
  HostPort hp;
  hp.host = text.substr(0, colon);
  if (hp.host.front() == '[') {
    if (hp.host.back() != ']') return bad;
    hp.host = hp.host.substr(1, hp.host.size() - 2);
  }
  std::string port = text.substr(colon + 1);
  if (port.empty() || port.size() > 5 || port.find_first_not_of("0123456789") != std::string::npos) return bad;
  unsigned long n = std::stoul(port);
  if (n > 65535 || hp.host.empty()) return bad;
  hp.port = static_cast<std::uint16_t>(n);
  return hp;
}

std::optional<SocketAddress> numeric_address(const HostPort& hp) {
  SocketAddress a;
  const std::string host = hp.host == "localhost" ? "127.0.0.1" : hp.host;
  auto& in4 = reinterpret_cast<sockaddr_in&>(a.storage);
  auto& in6 = reinterpret_cast<sockaddr_in6&>(a.storage);
  if (::inet_pton(AF_INET, host.c_str(), &in4.sin_addr) == 1) {
    in4.sin_family = AF_INET;
    in4.sin_port = htons(hp.port);
    a.length = sizeof in4;
    return a;
  }
  if (::inet_pton(AF_INET6, host.c_str(), &in6.sin6_addr) == 1) {
    in6.sin6_family = AF_INET6;
    in6.sin6_port = htons(hp.port);
    a.length = sizeof in6;
    return a;
  }
  return std::nullopt;
}

int open_socket(const SocketAddress& a) {
  return ::socket(a.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

// Keep-alive ends a connection whose other machine is gone without a word; a process that merely does nothing keeps its own, for its
// kernel answers.
void set_options(int fd, const SocketAddress& a) {
  if (a.is_unix()) return;
  int one = 1, idle = 5, interval = 1, probes = 3;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  ::setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
}

// Who connects does so again at once when a connection ends. After a cut a new one is there sooner than the kernel sends again over the
// old one, whose pauses double. Not for connections that were accepted: an NBD client that is stopped for a while may keep its own.
void give_up_early(int fd, const SocketAddress& a) {
  unsigned milliseconds = 1500;
  if (!a.is_unix()) ::setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &milliseconds, sizeof milliseconds);
}

// A socket that waits for readiness; what both streams and listeners are made of.
class Socket : public RealWorld::Interruptible {
 public:
  Socket(RealWorld& world, int fd) : Interruptible(world), world_(world), descriptor_(world.context(), fd) {}
  ~Socket() override { close(); }

  int fd() { return descriptor_.native_handle(); }
  bool open() const { return open_; }

  // Returns also when the socket has been closed meanwhile. Throws Stopped.
  Task<void> ready(stream_descriptor::wait_type what) {
    check_running();
    co_await suspended<error_code>([&](Resume<error_code> resume) { descriptor_.async_wait(what, resume); });
    check_running();
  }
  // Bytes that come in while it waits, 0 at the end of the stream, -errno. The reactor reads: to be told of readiness it
  // would have to be asked anew each time, by a system call. Returns also when the socket has been closed meanwhile. Throws Stopped.
  Task<ssize_t> read_later(MutableBytes into, MutableBytes then) {
    check_running();
    struct Outcome {
      error_code error;
      std::size_t bytes = 0;
    };
    std::array<asio::mutable_buffer, 2> to{asio::mutable_buffer(into.data(), into.size()), asio::mutable_buffer(then.data(), then.size())};
    Outcome out = co_await suspended<Outcome>([&](Resume<Outcome> resume) {
      descriptor_.async_read_some(to, [resume](const error_code& e, std::size_t n) { resume({e, n}); });
    });
    check_running();
    if (out.error == asio::error::eof) co_return 0;
    if (out.error == asio::error::operation_aborted) co_return -EINTR;
    co_return out.error ? -out.error.value() : static_cast<ssize_t>(out.bytes);
  }
  Task<void> let_others_run() {
    co_await suspended<bool>([&](Resume<bool> resume) { asio::post(world_.context(), [resume] { resume(true); }); });
    check_running();
  }
  void check_running() {
    if (world_.stopped()) throw Stopped{};
  }
  void close() {
    if (!std::exchange(open_, false)) return;
    ::shutdown(fd(), SHUT_RDWR);
    error_code ignored;
    descriptor_.close(ignored);
  }
  void interrupt() override {
    error_code ignored;
    if (open_) descriptor_.cancel(ignored);
  }

 private:
  RealWorld& world_;
  stream_descriptor descriptor_;
  bool open_ = true;
};

bool would_block(int e) { return e == EAGAIN || e == EWOULDBLOCK; }

class RealStream final : public Stream {
 public:
  RealStream(RealWorld& world, int fd, std::string peer) : socket_(world, fd), peer_(std::move(peer)) {}

  Task<std::size_t> read_some(MutableBytes into) override { return read_some(into, {}); }

  Task<std::size_t> read_some(MutableBytes into, MutableBytes then) override {
    socket_.check_running();
    while (socket_.open()) {
      if (!drained_ && ++reads_ % kInlineTurns == 0) {
        co_await socket_.let_others_run();
        if (!socket_.open()) break;
      }
      ssize_t n = drained_ ? co_await socket_.read_later(into, then) : receive(into, then);
      if (!socket_.open()) break;
      // Less than asked for: the socket is empty, the next call goes straight to the reactor.
      drained_ = n < static_cast<ssize_t>(into.size() + then.size());
      if (n >= 0) co_return static_cast<std::size_t>(n);
      if (!passes(-n)) break;
    }
    co_return 0;
  }

  Task<bool> write_all(std::span<const Bytes> parts) override {
    socket_.check_running();
    std::size_t skip = 0;  // bytes of parts.front() that are sent
    while (true) {
      while (!parts.empty() && skip >= parts.front().size()) {
        skip -= parts.front().size();
        parts = parts.subspan(1);
      }
      if (parts.empty()) co_return true;
      if (!socket_.open()) co_return false;
      ssize_t n = send_some(parts, skip);
      if (n >= 0) {
        skip += static_cast<std::size_t>(n);
        if (++writes_ % kInlineTurns == 0) co_await socket_.let_others_run();
      } else if (would_block(errno)) {
        co_await socket_.ready(stream_descriptor::wait_write);
      } else if (errno != EINTR) {
        co_return false;
      }
    }
  }

  void close() override { socket_.close(); }
  std::string peer() const override { return peer_; }

 private:
  // As read_later(), without waiting.
  ssize_t receive(MutableBytes into, MutableBytes then) {
    iovec vec[] = {{into.data(), into.size()}, {then.data(), then.size()}};
    msghdr message{};
    message.msg_iov = vec;
    message.msg_iovlen = 2;
    ssize_t n = then.empty() ? ::recv(socket_.fd(), into.data(), into.size(), 0) : ::recvmsg(socket_.fd(), &message, 0);
    return n < 0 ? -errno : n;
  }
  static bool passes(ssize_t error) { return error == EINTR || would_block(static_cast<int>(error)); }
  ssize_t send_some(std::span<const Bytes> parts, std::size_t skip) {
    iovec vec[kParts];
    std::size_t count = 0;
    for (Bytes p : parts.first(std::min(parts.size(), kParts))) {
      p = p.subspan(std::exchange(skip, 0));
      vec[count++] = {const_cast<std::byte*>(p.data()), p.size()};
    }
    msghdr message{};
    message.msg_iov = vec;
    message.msg_iovlen = count;
    return ::sendmsg(socket_.fd(), &message, MSG_NOSIGNAL);
  }

  Socket socket_;
  std::string peer_;
  bool drained_ = false;
  unsigned reads_ = 0, writes_ = 0;
};

class RealListener final : public Listener {
 public:
  RealListener(RealWorld& world, int fd, std::string address, std::string unix_path)
      : world_(world), socket_(world, fd), address_(std::move(address)), unix_path_(std::move(unix_path)) {
    struct stat s;
    if (!unix_path_.empty() && ::stat(unix_path_.c_str(), &s) == 0) inode_ = s.st_ino;
  }
  ~RealListener() override { close(); }

  Task<std::unique_ptr<Stream>> accept() override {
    socket_.check_running();
    while (socket_.open()) {
      SocketAddress peer;
      peer.length = sizeof peer.storage;
      int fd = ::accept4(socket_.fd(), reinterpret_cast<sockaddr*>(&peer.storage), &peer.length,
                         SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd >= 0) {
        if (!unix_path_.empty()) co_return std::make_unique<RealStream>(world_, fd, address_ + " (client)");
        set_options(fd, peer);
        co_return std::make_unique<RealStream>(world_, fd, to_text(peer));
      }
      if (would_block(errno)) {
        co_await socket_.ready(stream_descriptor::wait_read);
      } else if (errno != EINTR && errno != ECONNABORTED) {
        // Out of descriptors, mostly: the connection waits in the backlog.
        co_await world_.sleep(std::chrono::milliseconds(100));
      }
    }
    co_return nullptr;
  }

  std::string address() const override { return address_; }

  void close() override {
    if (!socket_.open()) return;
    socket_.close();
    struct stat s;  // remove our own socket only, not that of a successor
    if (!unix_path_.empty() && ::stat(unix_path_.c_str(), &s) == 0 && s.st_ino == inode_)
      ::unlink(unix_path_.c_str());
  }

 private:
  RealWorld& world_;
  Socket socket_;
  std::string address_;
  std::string unix_path_;
  ino_t inode_ = 0;
};

// Removes a socket that a dead process left behind. exists: somebody listens on it, or it is no socket.
Status clear_stale_socket(const SocketAddress& a) {
  struct stat s;
  if (::lstat(a.unix_path.c_str(), &s) != 0) return Status();
  if (!S_ISSOCK(s.st_mode)) return Status(Code::exists, to_text(a) + ": a file that is not a socket is in the way");
  Descriptor probe(open_socket(a));
  if (probe.get() < 0) return Status(Code::io_error, "socket: " + error_text(errno));
  if (::connect(probe.get(), a.get(), a.length) == 0 || errno == EAGAIN)
    return Status(Code::exists, to_text(a) + ": address in use: another process listens there");
  if (errno != ECONNREFUSED) return Status(Code::exists, to_text(a) + ": " + error_text(errno));
  if (::unlink(a.unix_path.c_str()) != 0)
    return Status(Code::io_error, to_text(a) + ": cannot remove the stale socket: " + error_text(errno));
  return Status();
}

class RealNetwork final : public Network {
 public:
  explicit RealNetwork(RealWorld& world) : world_(world) {}

  Result<std::unique_ptr<Listener>> listen(const std::string& address, bool encrypted) override {
    SocketAddress a;
    if (address.starts_with("unix:")) {
      auto r = unix_address(address.substr(5));
      if (!r.ok()) return r.status();
      a = std::move(*r);
      if (Status s = clear_stale_socket(a); !s.ok()) return s;
    } else if (address.starts_with("tcp:")) {
      auto hp = split_host_port(address.substr(4));
      if (!hp.ok()) return hp.status();
      auto n = numeric_address(*hp);
      if (!n) return Status(Code::invalid, address + ": to listen, give a numeric address or localhost");
      a = std::move(*n);
      if (!encrypted && !world_.options().insecure_listen && !is_loopback(a))
        return Status(Code::invalid, address + " is not a loopback address; traffic is neither encrypted nor "
                                     "authenticated. Give --insecure-listen if the network is trusted");
    } else {
      return bad_scheme(address);
    }
    Descriptor fd(open_socket(a));
    if (fd.get() < 0) return Status(Code::io_error, address + ": socket: " + error_text(errno));
    int one = 1;
    if (!a.is_unix()) ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (::bind(fd.get(), a.get(), a.length) != 0 || ::listen(fd.get(), SOMAXCONN) != 0)
      return Status(errno == EADDRINUSE ? Code::exists : Code::io_error,
                    address + ": " + (errno == EADDRINUSE ? "address in use" : error_text(errno)));
    std::string name = address;
    if (!a.is_unix()) {
      a.length = sizeof a.storage;
      ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&a.storage), &a.length);
      name = to_text(a);
    }
    return std::unique_ptr<Listener>(std::make_unique<RealListener>(world_, fd.release(), name, a.unix_path));
  }

  Task<Result<std::unique_ptr<Stream>>> connect(std::string address, Duration timeout) override {
    if (world_.stopped()) throw Stopped{};
    Time deadline = world_.now() + timeout;
    Result<SocketAddress> a = co_await resolve(address, deadline);
    if (!a.ok()) co_return a.status();
    while (true) {
      Descriptor fd(open_socket(*a));
      if (fd.get() < 0) co_return Status(Code::io_error, address + ": socket: " + error_text(errno));
      int e = ::connect(fd.get(), a->get(), a->length) == 0 ? 0 : errno;
      // A unix listener whose backlog is full says EAGAIN at once instead of queueing.
      if (e == EAGAIN && a->is_unix() && world_.now() < deadline) {
        co_await world_.sleep(std::chrono::milliseconds(5));
        continue;
      }
      if (e == EAGAIN) e = ETIMEDOUT;
      if (e == EINPROGRESS || e == EINTR) e = co_await finish_connect(fd.get(), deadline);
      if (e == 0 && connected_to_itself(fd.get())) co_return Status(Code::unavailable, address + ": nobody listens there");
      if (e == 0) {
        set_options(fd.get(), *a);
        give_up_early(fd.get(), *a);
        co_return std::unique_ptr<Stream>(std::make_unique<RealStream>(world_, fd.release(), address));
      }
      co_return Status(e == ETIMEDOUT ? Code::timed_out : Code::unavailable, address + ": " + error_text(e));
    }
  }

 private:
  static Status bad_scheme(const std::string& address) {
    return Status(Code::invalid, "'" + address + "' is not an address: it starts with neither unix: nor tcp:");
  }

  // TCP on one machine may give a caller the very port that it calls. It would hear itself, and whoever belongs there could not listen.
  static bool connected_to_itself(int fd) {
    sockaddr_storage own{}, other{};
    socklen_t own_length = sizeof own, other_length = sizeof other;
    if (::getsockname(fd, reinterpret_cast<sockaddr*>(&own), &own_length) != 0 || own.ss_family == AF_UNIX) return false;
    return ::getpeername(fd, reinterpret_cast<sockaddr*>(&other), &other_length) == 0 && own_length == other_length && std::memcmp(&own, &other, own_length) == 0;
  }

  // 0 or the errno. Waits on a copy of the descriptor, so that the caller keeps its own.
  Task<int> finish_connect(int fd, Time deadline) {
    int copy = ::fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (copy < 0) co_return errno;
    stream_descriptor waiter(world_.context(), copy);
    auto cancel = std::make_shared<Cancel>(world_, [&] { error_code ignored; waiter.cancel(ignored); });
    asio::steady_timer timer(world_.context(), std::max<Duration>(deadline - world_.now(), Duration(0)));
    interrupt_at_end(timer, cancel);
    error_code e = co_await suspended<error_code>([&](Resume<error_code> resume) { waiter.async_wait(stream_descriptor::wait_write, resume); });
    if (world_.stopped()) throw Stopped{};
    if (e) co_return ETIMEDOUT;
    int error = 0;
    socklen_t length = sizeof error;
    ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
    co_return error;
  }

  Task<Result<SocketAddress>> resolve(const std::string& address, Time deadline) {
    if (address.starts_with("unix:")) co_return unix_address(address.substr(5));
    if (!address.starts_with("tcp:")) co_return bad_scheme(address);
    auto hp = split_host_port(address.substr(4));
    if (!hp.ok()) co_return hp.status();
    if (auto n = numeric_address(*hp)) co_return std::move(*n);
    asio::ip::tcp::resolver resolver(world_.context());
    auto cancel = std::make_shared<Cancel>(world_, [&] { resolver.cancel(); });
    asio::steady_timer timer(world_.context(), std::max<Duration>(deadline - world_.now(), Duration(0)));
    interrupt_at_end(timer, cancel);
    using Found = asio::ip::tcp::resolver::results_type;
    auto [e, found] = co_await suspended<std::pair<error_code, Found>>([&](auto resume) {
      resolver.async_resolve(hp->host, std::to_string(hp->port), [resume](error_code error, Found f) { resume({error, std::move(f)}); });
    });
    if (world_.stopped()) throw Stopped{};
    if (e || found.empty())
      co_return Status(Code::unavailable, address + ": cannot resolve the host name: " + e.message());
    SocketAddress a;
    auto endpoint = found.begin()->endpoint();
    std::memcpy(&a.storage, endpoint.data(), endpoint.size());
    a.length = static_cast<socklen_t>(endpoint.size());
    co_return std::move(a);
  }

  class Cancel final : public RealWorld::Interruptible {
   public:
    Cancel(RealWorld& world, std::function<void()> f) : Interruptible(world), f_(std::move(f)) {}
    void interrupt() override { f_(); }

   private:
    std::function<void()> f_;
  };

  // A timer that has fired can't be taken back: its handler may run when the coroutine has gone on, and ended.
  static void interrupt_at_end(asio::steady_timer& timer, const std::shared_ptr<Cancel>& cancel) {
    timer.async_wait([weak = std::weak_ptr<Cancel>(cancel)](const error_code& e) {
      if (auto c = e ? nullptr : weak.lock()) c->interrupt();
    });
  }

  RealWorld& world_;
};

}  // namespace

std::unique_ptr<Network> make_real_network(RealWorld& world) { return std::make_unique<RealNetwork>(world); }

}  // namespace luge::io
