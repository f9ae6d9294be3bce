// Test only: an NBD server on a unix socket over memory, and a raw client that says what it is told to.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "attach/nbd_connection.hpp"
#include "io/testing.hpp"

namespace luge::attach::testing {

/// Answers from the loop, later; reads come in two parts, so that gathering is exercised.
class MemoryTarget final : public client::BlockTarget {
 public:
  MemoryTarget(io::World& world, std::size_t bytes) : world_(world), bytes_(bytes) {}
  std::vector<std::byte>& bytes() { return bytes_; }
  std::uint64_t asked = 0;  ///< bytes of reads begun
  bool sparse = false;      ///< reads give whole MiB of zeros as the shared zeros
  bool holding = false;     ///< answers wait for release()
  void release() {
    holding = false;
    for (auto& f : std::exchange(held_, {})) f();
  }

  std::uint64_t size_bytes() const override { return bytes_.size(); }
  void write(std::uint64_t offset, Buffer image, std::uint32_t length, Done done) override {
    later([this, offset, image, length, done] {
      LUGE_CHECK(reinterpret_cast<std::uintptr_t>(image.data()) % kBlockBytes == 0);
      LUGE_CHECK(image.size() == touched_blocks(offset, length) * kBlockBytes);
      std::memcpy(bytes_.data() + offset, image.data() + offset % kBlockBytes, length);
      done(Status());
    });
  }
  void read(std::uint64_t offset, std::uint32_t length, ReadDone done) override {
    asked += length;
    later([this, offset, length, done] {
      if (sparse) return done_sparse(offset, length, done);
      std::uint32_t first = length / 2;
      Buffer parts[2] = {Buffer::copy_of({bytes_.data() + offset, first}),
                         Buffer::copy_of({bytes_.data() + offset + first, length - first})};
      done(Status(), parts);
    });
  }
  void trim(std::uint64_t offset, std::uint32_t length, Done done) override { zero(offset, length, std::move(done)); }
  void map(std::uint64_t offset, std::uint32_t length, MapDone done) override {
    later([this, offset, length, done] {
      std::vector<MapRun> runs;
      for (std::uint64_t at = offset, end = offset + length; at < end;) {
        std::uint64_t block = at / kBlockBytes * kBlockBytes, stop = std::min(end, block + kBlockBytes);
        bool data = std::any_of(bytes_.begin() + block, bytes_.begin() + std::min<std::uint64_t>(block + kBlockBytes, bytes_.size()), [](std::byte b) { return b != std::byte{0}; });
        if (runs.empty() || runs.back().data != data) runs.push_back({0, data});
        runs.back().bytes += stop - at;
        at = stop;
      }
      done(Status(), runs);
    });
  }
  void zero(std::uint64_t offset, std::uint32_t length, Done done) override {
    later([this, offset, length, done] {
      std::memset(bytes_.data() + offset, 0, length);
      done(Status());
    });
  }

 private:
  void done_sparse(std::uint64_t offset, std::uint32_t length, const ReadDone& done) {
    std::vector<Buffer> parts;
    for (std::uint64_t at = offset, end = offset + length; at < end;) {
      std::uint64_t stop = std::min(end, (at / (1 << 20) + 1) * (1 << 20));
      Buffer b = Buffer::copy_of({bytes_.data() + at, stop - at});
      bool zero = std::all_of(b.bytes().begin(), b.bytes().end(), [](std::byte x) { return x == std::byte{0}; });
      parts.push_back(zero ? client::shared_zeros(stop - at) : b);
      at = stop;
    }
    done(Status(), parts);
  }
  void later(std::function<void()> f) {
    if (holding) held_.push_back(std::move(f));
    else world_.post(std::move(f));
  }
  io::World& world_;
  std::vector<std::byte> bytes_;
  std::vector<std::function<void()>> held_;
};

struct MemoryServer {
  /// `place`: a socket's path, or an address.
  MemoryServer(io::World& w, std::string place, std::size_t bytes, bool read_only = false, TlsFiles tls = {})
      : world(w), target(w, bytes), address(place.starts_with("tcp:") ? place : "unix:" + place), served(std::make_shared<NbdExport>()),
        portal(std::make_shared<NbdPortal>()) {
    served->info = {"disk", bytes, read_only};
    served->target = &target;
    portal->address = address;
    portal->exports["disk"] = served;
    if (tls.any()) {
      auto context = TlsContext::load(tls);
      EXPECT_TRUE(context.ok()) << context.status().to_string();
      portal->tls = *context;
    }
    auto l = world.network().listen(address, tls.any());
    EXPECT_TRUE(l.ok()) << l.status().to_string();
    listener = std::move(*l);
    address = listener->address();
    world.spawn("accept", accept());
  }
  io::Task<void> accept() {
    while (auto stream = co_await listener->accept()) {
      auto c = std::make_shared<NbdConnection>(world, std::move(stream), portal);
      connections.push_back(c);
      world.spawn("nbd", c->serve(c));
    }
  }
  io::World& world;
  MemoryTarget target;
  std::string address;
  std::shared_ptr<NbdExport> served;
  std::shared_ptr<NbdPortal> portal;
  std::unique_ptr<io::Listener> listener;
  std::vector<std::weak_ptr<NbdConnection>> connections;
};

/// Big-endian bytes.
class Wire {
 public:
  template <class T>
    requires std::is_integral_v<T>
  Wire& put(T v) {
    for (std::size_t i = sizeof(T); i-- != 0;) text += static_cast<char>(static_cast<std::uint64_t>(v) >> (8 * i));
    return *this;
  }
  Wire& put(std::string_view s) {
    text += s;
    return *this;
  }
  std::string text;
};

inline std::uint64_t number(std::string_view s) {
  std::uint64_t v = 0;
  for (char c : s) v = v << 8 | static_cast<unsigned char>(c);
  return v;
}

inline std::string option(std::uint32_t number, std::string_view data) {
  Wire w;
  w.put(nbd::kOptionMagic).put(number).put(static_cast<std::uint32_t>(data.size())).put(data);
  return w.text;
}

inline std::string go(std::string_view name) {
  Wire w;
  w.put(static_cast<std::uint32_t>(name.size())).put(name).put(std::uint16_t{0});
  return w.text;
}

inline std::string request(std::uint16_t type, std::uint64_t cookie, std::uint64_t offset, std::uint32_t length, std::uint16_t flags = 0) {
  Wire w;
  w.put(nbd::kRequestMagic).put(flags).put(type).put(cookie).put(offset).put(length);
  return w.text;
}

class RawClient {
 public:
  explicit RawClient(io::World& world) : world_(world) {}
  io::Task<bool> connect(std::string address) {
    auto s = co_await world_.network().connect(address, std::chrono::seconds(5));
    if (!s.ok()) co_return false;
    stream = std::move(*s);
    co_return true;
  }
  io::Task<bool> send(std::string bytes) {
    Bytes part = as_bytes(bytes);
    co_return co_await stream->write_all({&part, 1});
  }
  /// Fewer bytes: the server has closed the connection.
  io::Task<std::string> receive(std::size_t bytes) {
    std::string s(bytes, '\0');
    std::size_t got = 0;
    while (got < bytes) {
      std::size_t n = co_await stream->read_some({reinterpret_cast<std::byte*>(s.data()) + got, bytes - got});
      if (n == 0) break;
      got += n;
    }
    s.resize(got);
    co_return s;
  }
  /// Type of the next reply to an option; its data is skipped. 0: closed.
  io::Task<std::uint32_t> option_reply() {
    std::string h = co_await receive(20);
    if (h.size() != 20) co_return 0;
    std::string data = co_await receive(number(h.substr(16, 4)));
    co_return static_cast<std::uint32_t>(number(h.substr(12, 4)));
  }
  /// Through the handshake into transmission.
  io::Task<bool> open(std::string address) {
    bool ok = co_await connect(address);
    if (!ok) co_return false;
    std::string greeting = co_await receive(18);
    ok = co_await send(Wire().put(std::uint32_t{3}).text + option(7, go("disk")));
    while (ok) {
      std::uint32_t type = co_await option_reply();
      if (type == nbd::kAck) co_return true;
      ok = type == nbd::kInfo;
    }
    co_return false;
  }
  struct Reply {
    bool open = false;
    std::uint32_t error = 0;
    std::uint64_t cookie = 0;
  };
  io::Task<Reply> reply() {
    std::string h = co_await receive(16);
    if (h.size() != 16) co_return Reply{};
    EXPECT_EQ(number(h.substr(0, 4)), nbd::kReplyMagic);
    co_return Reply{true, static_cast<std::uint32_t>(number(h.substr(4, 4))), number(h.substr(8, 8))};
  }
  std::unique_ptr<io::Stream> stream;

 private:
  io::World& world_;
};

}  // namespace luge::attach::testing
