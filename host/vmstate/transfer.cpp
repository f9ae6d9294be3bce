#include "vmstate/transfer.hpp"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>

#include "base/crc32c.hpp"
#include "switches/switches.hpp"
#include "vmstate/checkpoint_format.hpp"
#include "vmstate/store.hpp"

namespace luge::vmstate {
namespace {

constexpr std::chrono::minutes kLongestWork{5};  // of a receiver that says that it goes on
constexpr timeval kMigrationSilence{180, 0};  // quieting the device and saving its state take less

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;
};

Result<SocketAddress> parse(const std::string& address) {
  SocketAddress a;
  if (address.starts_with("unix:")) {
    const std::string path = address.substr(5);
    auto& un = reinterpret_cast<sockaddr_un&>(a.storage);
    if (path.empty() || path.size() >= sizeof un.sun_path) return Status(Code::invalid, address + ": no path, or too long for a socket");
    un.sun_family = AF_UNIX;
    std::memcpy(un.sun_path, path.data(), path.size());
    a.length = sizeof un;
    return a;
  }
  const std::size_t colon = address.rfind(':');
  if (!address.starts_with("tcp:") || colon <= 4) return Status(Code::invalid, address + ": an address is unix:PATH or tcp:HOST:PORT");
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  const std::string host = address.substr(4, colon - 4), port = address.substr(colon + 1);
  if (int e = ::getaddrinfo(host.c_str(), port.c_str(), &hints, &found); e != 0) return Status(Code::invalid, address + ": " + ::gai_strerror(e));
  std::memcpy(&a.storage, found->ai_addr, found->ai_addrlen);
  a.length = found->ai_addrlen;
  ::freeaddrinfo(found);
  return a;
}

bool is_loopback(const SocketAddress& a) {
  if (a.storage.ss_family == AF_UNIX) return true;
  if (a.storage.ss_family == AF_INET) return (ntohl(reinterpret_cast<const sockaddr_in&>(a.storage).sin_addr.s_addr) >> 24) == 127;
  return a.storage.ss_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6&>(a.storage).sin6_addr);
}

void limit_silence(int fd, std::chrono::seconds silence) {
  timeval limit{silence.count(), 0};
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

void set_up(int fd, int family) {
  limit_silence(fd, kSilence);
  const int one = 1;
  if (family != AF_UNIX) ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

// After half a minute or so without an answer of the peer's kernel. Only of TCP; elsewhere it does nothing.
void notice_lost_host(int fd) {
  const int on = 1, idle = 20, every = 5, count = 4;
  const unsigned unanswered_ms = 40'000;
  ::setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &every, sizeof every);
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
  ::setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unanswered_ms, sizeof unanswered_ms);
}

bool send_all(int fd, std::vector<iovec> parts) {
  for (std::size_t i = 0; i < parts.size();) {
    msghdr h{};
    h.msg_iov = parts.data() + i, h.msg_iovlen = std::min<std::size_t>(parts.size() - i, 64);
    ssize_t n = ::sendmsg(fd, &h, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    for (; i < parts.size() && static_cast<std::size_t>(n) >= parts[i].iov_len; ++i) n -= static_cast<ssize_t>(parts[i].iov_len);
    if (i < parts.size()) parts[i].iov_base = static_cast<char*>(parts[i].iov_base) + n, parts[i].iov_len -= static_cast<std::size_t>(n);
  }
  return true;
}

// False: the peer is gone, or silent for kSilence (errno EAGAIN).
bool receive_all(int fd, void* to, std::size_t n) {
  for (auto* p = static_cast<char*>(to); n != 0;) {
    const ssize_t r = ::recv(fd, p, n, 0);
    if (r < 0 && errno == EINTR) continue;
    if (r == 0) errno = ECONNRESET;
    if (r <= 0) return false;
    p += r, n -= static_cast<std::size_t>(r);
  }
  return true;
}

Bytes bytes_of(const void* p, std::size_t n) { return {static_cast<const std::byte*>(p), n}; }

// `raw` isn't in the CRC: pages have their own.
bool send_frame(int fd, Transfer kind, Bytes a, Bytes b = {}, Bytes raw = {}) {
  TransferHeader h;
  h.kind = kind, h.bytes = static_cast<std::uint32_t>(a.size() + b.size() + raw.size()), h.crc = crc32c(b, crc32c(a));
  std::vector<iovec> parts{{&h, sizeof h}};
  for (Bytes part : {a, b, raw})
    if (!part.empty()) parts.push_back({const_cast<std::byte*>(part.data()), part.size()});
  return send_all(fd, std::move(parts));
}

struct Answer {
  std::uint16_t code = 0, reserved = 0;
  std::uint32_t reserved1 = 0;
  std::uint64_t number = 0;
};
static_assert(sizeof(Answer) == 16);

}  // namespace

Result<int> connect_to(const std::string& address) {
  auto a = parse(address);
  if (!a.ok()) return a.status();
  const int fd = ::socket(a->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd >= 0) set_up(fd, a->storage.ss_family);
  if (fd >= 0 && ::connect(fd, reinterpret_cast<sockaddr*>(&a->storage), a->length) == 0) return fd;
  Status why(Code::unavailable, address + ": " + std::strerror(errno));
  if (fd >= 0) ::close(fd);
  return why;
}

Result<int> listen_at(const std::string& address, bool anywhere, std::string& bound) {
  auto a = parse(address);
  if (!a.ok()) return a.status();
  if (!anywhere && !is_loopback(*a)) return Status(Code::invalid, address + ": not a loopback address: what arrives there isn't encrypted (--insecure-listen allows it)");
  const int fd = ::socket(a->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
  if (a->storage.ss_family == AF_UNIX) ::unlink(address.c_str() + 5);
  else if (fd >= 0) ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  const mode_t mask = ::umask(0077);
  const bool good = fd >= 0 && ::bind(fd, reinterpret_cast<sockaddr*>(&a->storage), a->length) == 0 && ::listen(fd, 16) == 0;
  ::umask(mask);
  if (!good) {
    Status why(Code::unavailable, address + ": " + std::strerror(errno));
    if (fd >= 0) ::close(fd);
    return why;
  }
  bound = address;
  if (a->storage.ss_family != AF_UNIX) {
    a->length = sizeof a->storage;
    ::getsockname(fd, reinterpret_cast<sockaddr*>(&a->storage), &a->length);
    bound = address.substr(0, address.rfind(':') + 1) + std::to_string(ntohs(reinterpret_cast<sockaddr_in&>(a->storage).sin_port));
  }
  return fd;
}

// ---- sender ----

RemoteTarget::~RemoteTarget() {
  if (fd_ >= 0) ::close(fd_);
}

Status RemoteTarget::connect() {
  if (fd_ >= 0) return Status();
  auto fd = connect_to(address_);
  if (!fd.ok()) return fd.status();
  fd_ = *fd;
  limit_silence(fd_, silence_);
  return Status();
}

Status RemoteTarget::lost(const char* where) {
  Status why(Code::unavailable, address_ + ": " + where + ": " + (errno == EAGAIN ? "no answer" : std::strerror(errno)));
  ::close(fd_);
  fd_ = -1;
  return why;
}

Result<std::uint64_t> RemoteTarget::answer() {
  TransferHeader h;
  const auto deadline = std::chrono::steady_clock::now() + kLongestWork;
  do {
    errno = ETIMEDOUT;
    if (std::chrono::steady_clock::now() > deadline) return lost("it works without an end");
    if (!receive_all(fd_, &h, sizeof h)) return lost("waiting for an answer");
  } while (h.magic == kTransferMagic && h.version == kTransferVersion && h.kind == Transfer::working && h.bytes == 0);
  if (h.magic != kTransferMagic || h.version != kTransferVersion || h.kind != Transfer::answer || h.bytes < sizeof(Answer) || h.bytes > 65536) {
    errno = EPROTO;
    return lost("an answer that isn't known");
  }
  std::vector<std::byte> body(h.bytes);
  if (!receive_all(fd_, body.data(), body.size())) return lost("waiting for an answer");
  if (crc32c(body) != h.crc) return errno = EBADMSG, lost("a damaged answer");
  Answer a;
  std::memcpy(&a, body.data(), sizeof a);
  if (a.code != 0) return Status(static_cast<Code>(a.code), address_ + ": " + std::string(reinterpret_cast<char*>(body.data()) + sizeof a, body.size() - sizeof a));
  return a.number;
}

Result<std::uint64_t> RemoteTarget::newest(const std::string& machine) {
  if (Status s = connect(); !s.ok()) return s;
  if (!send_frame(fd_, Transfer::newest, as_bytes(machine))) return lost("asking for the newest checkpoint");
  return answer();
}

Status RemoteTarget::begin(const Begin& b) {
  if (Status s = connect(); !s.ok()) return s;
  BeginFrame f;
  f.sequence = b.sequence, f.parent = b.parent, f.memory_pages = b.shape.memory_pages, f.disk_pages = b.shape.disk_pages, f.live = live_ ? 1 : 0;
  std::memcpy(f.machine, b.machine.data(), std::min(b.machine.size(), sizeof f.machine - 1));
  if (!send_frame(fd_, Transfer::begin, bytes_of(&f, sizeof f))) return lost("beginning");
  return answer().status();
}

Status RemoteTarget::put(const PageBatch& batch) {
  if (fd_ < 0) return Status(Code::unavailable, address_ + ": the connection was lost");
  std::vector<PageFrame> pages;
  pages.reserve(batch.entries.size());
  for (const auto& e : batch.entries) pages.push_back({e.page, e.crc, e.zero ? 1u : 0u});
  const std::uint64_t count = pages.size();
  return send_frame(fd_, Transfer::pages, bytes_of(&count, sizeof count), std::as_bytes(std::span(pages)), batch.content) ? Status() : lost("sending pages");
}

Status RemoteTarget::commit(const std::string& device_state, const std::string& description) {
  if (fd_ < 0) return Status(Code::unavailable, address_ + ": the connection was lost");
  const std::uint64_t bytes = device_state.size();
  std::vector<std::byte> head(sizeof bytes + device_state.size());
  std::memcpy(head.data(), &bytes, sizeof bytes);
  std::memcpy(head.data() + sizeof bytes, device_state.data(), device_state.size());
  // From here on the other side may have it, whatever we hear.
  const bool sent = send_frame(fd_, Transfer::commit, head, as_bytes(description));
  auto heard = sent ? answer() : Result<std::uint64_t>(lost("committing"));
  if (!heard.ok() && fd_ < 0) return Status(Code::timed_out, heard.status().text() + "; whether it was committed isn't known");
  return heard.status();
}

void RemoteTarget::abandon() {
  if (fd_ >= 0 && !send_frame(fd_, Transfer::abandon, {})) (void)lost("abandoning");
}

// ---- receiver ----

namespace {

class Receiver {
 public:
  Receiver(int fd, const std::function<Result<std::unique_ptr<Target>>(const std::string&, bool)>& make, std::chrono::milliseconds working_every)
      : fd_(fd), make_(make), working_every_(working_every) {}
  ~Receiver() {
    if (open_) target_->abandon();
  }

  // False: it ends, with `status`.
  bool one(Status& status) {
    TransferHeader h;
    if (!receive_all(fd_, &h, sizeof h)) return false;
    if (h.magic != kTransferMagic) return status = Status(Code::corrupt, "no frame"), false;
    if (h.version != kTransferVersion) return status = Status(Code::wrong_version, "frames of version " + std::to_string(h.version)), false;
    if (h.bytes > kMostFrame) return status = Status(Code::corrupt, "a frame of " + std::to_string(h.bytes) + " bytes"), false;
    if (!receive_body(h.bytes)) return false;
    const std::size_t summed = h.kind == Transfer::pages ? page_head() : body_.size();
    if (summed > body_.size() || crc32c(Bytes(body_).first(summed)) != h.crc) return status = Status(Code::corrupt, "a damaged frame"), false;
    return perform(h.kind, status);
  }

 private:
  // Memory only as bytes come: a header that promises many costs whoever sends it nothing.
  bool receive_body(std::size_t bytes) {
    body_.resize(std::min(bytes, body_.size()));
    for (std::size_t had = 0; had < bytes;) {
      const std::size_t part = std::min(bytes - had, std::max<std::size_t>(body_.size() - had, 1 << 20));
      body_.resize(std::max(body_.size(), had + part));
      if (!receive_all(fd_, body_.data() + had, part)) return false;
      had += part;
    }
    return true;
  }
  std::size_t page_head() const {
    std::uint64_t count = 0;
    if (body_.size() < sizeof count) return ~std::size_t{0};
    std::memcpy(&count, body_.data(), sizeof count);
    return count > body_.size() / sizeof(PageFrame) ? ~std::size_t{0} : sizeof count + count * sizeof(PageFrame);
  }
  bool reply(const Status& s, std::uint64_t number = 0) {
    Answer a;
    a.code = static_cast<std::uint16_t>(s.code()), a.number = number;
    std::vector<std::byte> body(sizeof a + s.text().size());
    std::memcpy(body.data(), &a, sizeof a);
    std::memcpy(body.data() + sizeof a, s.text().data(), s.text().size());
    return send_frame(fd_, Transfer::answer, body);
  }
  Result<Target*> target_for(const std::string& machine, bool live) {
    if (Status s = check_machine_name(machine); !s.ok()) return s;
    if (target_ && machine == machine_ && live == live_) return target_.get();
    auto made = make_(machine, live);
    if (!made.ok()) return made.status();
    target_ = std::move(*made), machine_ = machine, live_ = live;
    return target_.get();
  }
  bool perform(Transfer kind, Status& status) {
    switch (kind) {
      case Transfer::newest: {
        auto t = target_for(std::string(reinterpret_cast<char*>(body_.data()), body_.size()), false);
        if (!t.ok()) return reply(t.status());
        auto n = (*t)->newest(machine_);
        return reply(n.status(), n.ok() ? *n : 0);
      }
      case Transfer::begin: return begin(status);
      case Transfer::pages:
        if (wrong_.ok()) wrong_ = pages();
        return true;
      case Transfer::commit: return reply(commit());
      case Transfer::abandon:
        if (open_) target_->abandon();
        open_ = false;
        return true;
      default: return status = Status(Code::corrupt, "a frame of the unknown kind " + std::to_string(static_cast<int>(kind))), false;
    }
  }
  bool begin(Status& status) {
    BeginFrame f;
    if (body_.size() != sizeof f) return status = Status(Code::corrupt, "a damaged frame"), false;
    std::memcpy(&f, body_.data(), sizeof f);
    f.machine[sizeof f.machine - 1] = 0;
    if (f.memory_pages == 0 || f.memory_pages > kMostPages || f.disk_pages > kMostPages) return reply(Status(Code::invalid, "a machine of " + std::to_string(f.memory_pages) + " pages"));
    if (open_) target_->abandon();
    open_ = false, wrong_ = Status();
    auto t = target_for(f.machine, f.live != 0);
    if (!t.ok()) return reply(t.status());
    // One that went without a word isn't to keep others from sending the machine.
    if (live_) ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &kMigrationSilence, sizeof kMigrationSilence);
    shape_ = {f.memory_pages, f.disk_pages};
    Status s = (*t)->begin({machine_, f.sequence, f.parent, shape_});
    open_ = s.ok();
    return reply(s);
  }
  Status pages() {
    if (!open_) return Status(Code::invalid, "pages of no checkpoint");
    const std::size_t head = page_head();
    batch_.clear();
    const std::byte* from = body_.data() + head;
    std::size_t left = body_.size() - head;
    for (std::size_t at = sizeof(std::uint64_t); at < head; at += sizeof(PageFrame)) {
      PageFrame f;
      std::memcpy(&f, body_.data() + at, sizeof f);
      if (f.page >= shape_.pages() || f.zero > 1) return Status(Code::corrupt, "a page that the machine hasn't");
      if (f.zero == 0) {
        if (left < kPage) return Status(Code::corrupt, "fewer pages than were announced");
        if (!broken(Switch::page_checksums_unchecked) && crc32c({from, kPage}) != f.crc) return Status(Code::corrupt, "page " + std::to_string(f.page) + " was damaged on its way");
        from += kPage, left -= kPage;
      }
      batch_.entries.push_back({f.page, f.crc, f.zero != 0});
    }
    batch_.content.assign(static_cast<const std::byte*>(body_.data() + head), from);
    return left == 0 ? target_->put(batch_) : Status(Code::corrupt, "more pages than were announced");
  }
  Status commit() {
    if (!open_) return Status(Code::invalid, "a commit of no checkpoint");
    std::uint64_t bytes = 0;
    if (body_.size() >= sizeof bytes) std::memcpy(&bytes, body_.data(), sizeof bytes);
    if (body_.size() < sizeof bytes || bytes > body_.size() - sizeof bytes) return Status(Code::corrupt, "a damaged commit");
    const auto* text = reinterpret_cast<const char*>(body_.data()) + sizeof bytes;
    Status s = wrong_;
    if (s.ok()) s = commit(std::string(text, bytes), std::string(text + bytes, body_.size() - sizeof bytes - bytes));
    if (!s.ok()) target_->abandon();
    open_ = false;
    return s;
  }
  // A disk may need minutes to have it all, and a sender that hears nothing counts us as gone.
  Status commit(const std::string& state, const std::string& description) {
    std::mutex mutex;
    std::condition_variable end;
    bool ended = false;
    std::thread speaking([&] {
      std::unique_lock lock(mutex);
      while (!end.wait_for(lock, working_every_, [&] { return ended; }))
        if (!send_frame(fd_, Transfer::working, {})) return;
    });
    Status s = target_->commit(state, description);
    {
      std::lock_guard lock(mutex);
      ended = true;
    }
    end.notify_all();
    speaking.join();
    return s;
  }

  const int fd_;
  const std::function<Result<std::unique_ptr<Target>>(const std::string&, bool)>& make_;
  const std::chrono::milliseconds working_every_;
  std::unique_ptr<Target> target_;
  std::string machine_;
  bool live_ = false, open_ = false;
  Shape shape_;
  Status wrong_;
  std::vector<std::byte> body_;
  PageBatch batch_;
};

}  // namespace

Status serve_transfer(int fd, const std::function<Result<std::unique_ptr<Target>>(const std::string& machine, bool live)>& make, std::chrono::milliseconds working_every) {
  // A standby's source may have nothing to say for long.
  timeval none{0, 0}, limit{kSilence.count(), 0};
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof none);
  ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  notice_lost_host(fd);
  Receiver r(fd, make, working_every);
  Status status;
  while (r.one(status)) {}
  return status;
}

}  // namespace luge::vmstate
