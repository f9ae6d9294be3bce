// Client of an NBD server (the NBD project's doc/proto.md): fixed newstyle handshake, simple replies, one request at a time.
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstring>

#include "io/descriptor.hpp"
#include "vmstate/block_file.hpp"

namespace luge::vmstate {
namespace {

constexpr std::uint64_t kInitMagic = 0x4e42444d41474943, kOptionMagic = 0x49484156454f5054, kOptionReplyMagic = 0x0003e889045565a9;
constexpr std::uint32_t kRequestMagic = 0x25609513, kReplyMagic = 0x67446698;
constexpr std::uint32_t kGo = 7, kAck = 1, kInfo = 3, kErrorBit = 1u << 31;
constexpr std::uint16_t kRead = 0, kWrite = 1, kDisconnect = 2, kFlush = 3, kInfoExport = 0;
constexpr std::uint16_t kFixedNewstyle = 1, kNoZeroes = 2, kReadOnly = 2;
constexpr std::size_t kMostBytes = 1u << 20;  // of a request; every server takes as many
constexpr int kSilence = 60;                  // seconds
constexpr const char* kScheme = "nbd+unix:///";

template <class T>
T swapped(T v) {
  if constexpr (sizeof(T) == 1) return v;
  else if constexpr (sizeof(T) == 2) return __builtin_bswap16(v);
  else if constexpr (sizeof(T) == 4) return __builtin_bswap32(v);
  else return __builtin_bswap64(v);
}

// Big-endian, as on the wire.
class Message {
 public:
  template <class T>
  Message& put(T v) {
    v = swapped(v);
    bytes_.append(reinterpret_cast<const char*>(&v), sizeof v);
    return *this;
  }
  Message& text(std::string_view s) {
    bytes_ += s;
    return *this;
  }
  Bytes bytes() const { return as_bytes(bytes_); }

 private:
  std::string bytes_;
};

struct Place {
  std::string export_name, socket;
};

Result<Place> parse(const std::string& uri) {
  Place p;
  const std::size_t question = uri.find("?socket=");
  if (!is_nbd(uri) || question == std::string::npos) return Status(Code::invalid, uri + ": the address of an NBD export is nbd+unix:///EXPORT?socket=PATH");
  p.export_name = uri.substr(std::strlen(kScheme), question - std::strlen(kScheme)), p.socket = uri.substr(question + 8);
  if (p.socket.empty() || p.socket.size() >= sizeof(sockaddr_un::sun_path)) return Status(Code::invalid, uri + ": no path of a socket, or too long for one");
  return p;
}

class NbdDisk final : public BlockFile {
 public:
  NbdDisk(std::string uri, io::Descriptor socket) : uri_(std::move(uri)), socket_(std::move(socket)) {}
  ~NbdDisk() override {
    if (bytes_ != 0) (void)send(request(kDisconnect, 0, 0).bytes());
  }
  const std::string& name() const override { return uri_; }
  std::uint64_t bytes() const override { return bytes_; }

  Status read(std::uint64_t offset, std::span<std::byte> into) override {
    for (; !into.empty(); into = into.subspan(std::min(into.size(), kMostBytes))) {
      const std::size_t n = std::min(into.size(), kMostBytes);
      if (Status s = send(request(kRead, offset, n).bytes()); !s.ok()) return s;
      if (Status s = answer(); !s.ok()) return s;
      if (Status s = receive(into.first(n)); !s.ok()) return s;
      offset += n;
    }
    return Status();
  }
  Status write(std::uint64_t offset, Bytes from) override {
    for (; !from.empty(); from = from.subspan(std::min(from.size(), kMostBytes))) {
      const std::size_t n = std::min(from.size(), kMostBytes);
      if (Status s = send(request(kWrite, offset, n).bytes()); !s.ok()) return s;
      if (Status s = send(from.first(n)); !s.ok()) return s;
      if (Status s = answer(); !s.ok()) return s;
      offset += n;
    }
    return Status();
  }
  Status flush() override {
    if (Status s = send(request(kFlush, 0, 0).bytes()); !s.ok()) return s;
    return answer();
  }

  Status shake_hands(const std::string& export_name) {
    std::byte greeting[18];
    if (Status s = receive(greeting); !s.ok()) return s;
    if (get<std::uint64_t>(greeting) != kInitMagic || get<std::uint64_t>(greeting + 8) != kOptionMagic || (get<std::uint16_t>(greeting + 16) & kFixedNewstyle) == 0)
      return wrong("not an NBD server with the fixed newstyle handshake");
    const std::uint16_t no_zeroes = get<std::uint16_t>(greeting + 16) & kNoZeroes;
    Message go;
    go.put<std::uint32_t>(kFixedNewstyle | no_zeroes).put(kOptionMagic).put(kGo).put(static_cast<std::uint32_t>(export_name.size() + 6));
    go.put(static_cast<std::uint32_t>(export_name.size())).text(export_name).put(std::uint16_t{0});
    if (Status s = send(go.bytes()); !s.ok()) return s;
    for (std::uint32_t type = 0; type != kAck;)
      if (Status s = option_reply(type, export_name); !s.ok()) return s;
    return bytes_ != 0 ? Status() : wrong("an export without a size");
  }

 private:
  Status option_reply(std::uint32_t& type, const std::string& export_name) {
    std::byte head[20], body[65536];
    if (Status s = receive(head); !s.ok()) return s;
    type = get<std::uint32_t>(head + 12);
    const auto length = get<std::uint32_t>(head + 16);
    if (get<std::uint64_t>(head) != kOptionReplyMagic || length > sizeof body) return wrong("an answer that isn't NBD's");
    if (Status s = receive(std::span(body, length)); !s.ok()) return s;
    if ((type & kErrorBit) != 0) return wrong(("no export '" + export_name + "'").c_str());
    if (type != kInfo || length < 12 || get<std::uint16_t>(body) != kInfoExport) return Status();
    bytes_ = get<std::uint64_t>(body + 2);
    return (get<std::uint16_t>(body + 10) & kReadOnly) == 0 ? Status() : wrong("the export is read-only");
  }
  Message request(std::uint16_t type, std::uint64_t offset, std::size_t bytes) {
    Message m;
    m.put(kRequestMagic).put(std::uint16_t{0}).put(type).put(++cookie_).put(offset).put(static_cast<std::uint32_t>(bytes));
    return m;
  }
  Status answer() {
    std::byte head[16];
    if (Status s = receive(head); !s.ok()) return s;
    if (get<std::uint32_t>(head) != kReplyMagic || get<std::uint64_t>(head + 8) != cookie_) return wrong("an answer to what wasn't asked");
    const auto error = get<std::uint32_t>(head + 4);
    return error == 0 ? Status() : Status(Code::io_error, uri_ + ": " + std::strerror(static_cast<int>(error)));
  }
  Status send(Bytes b) {
    while (!b.empty()) {
      const ssize_t n = ::send(socket_.get(), b.data(), b.size(), MSG_NOSIGNAL);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return wrong(std::strerror(errno));
      b = b.subspan(static_cast<std::size_t>(n));
    }
    return Status();
  }
  Status receive(std::span<std::byte> b) {
    while (!b.empty()) {
      const ssize_t n = ::recv(socket_.get(), b.data(), b.size(), 0);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return wrong(n == 0 ? "the server has ended the connection" : errno == EAGAIN ? "no answer" : std::strerror(errno));
      b = b.subspan(static_cast<std::size_t>(n));
    }
    return Status();
  }
  // Whatever was under way can't be followed any further.
  Status wrong(const char* what) {
    ::shutdown(socket_.get(), SHUT_RDWR);
    return Status(Code::unavailable, uri_ + ": " + what);
  }
  template <class T>
  static T get(const std::byte* from) {
    T v;
    std::memcpy(&v, from, sizeof v);
    return swapped(v);
  }
  const std::string uri_;
  io::Descriptor socket_;
  std::uint64_t bytes_ = 0, cookie_ = 0;
};

}  // namespace

bool is_nbd(const std::string& uri) { return uri.starts_with(kScheme); }

Result<std::unique_ptr<BlockFile>> open_nbd(const std::string& uri) {
  auto place = parse(uri);
  if (!place.ok()) return place.status();
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, place->socket.data(), place->socket.size());
  io::Descriptor fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const timeval limit{kSilence, 0};
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) return Status(Code::unavailable, uri + ": " + std::strerror(errno));
  auto disk = std::make_unique<NbdDisk>(uri, std::move(fd));
  if (Status s = disk->shake_hands(place->export_name); !s.ok()) return s;
  return std::unique_ptr<BlockFile>(std::move(disk));
}

}  // namespace luge::vmstate
