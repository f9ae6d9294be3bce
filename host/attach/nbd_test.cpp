// The NBD server against a client that keeps to the protocol only when the test says so.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include "attach/nbd_testing.hpp"

namespace luge::attach {
namespace {

using namespace std::chrono_literals;
using testing::go;
using testing::MemoryServer;
using testing::number;
using testing::option;
using testing::RawClient;
using testing::request;
using testing::Wire;

constexpr std::uint32_t kSize = 8 << 20;

enum : std::uint16_t { read_ = 0, write_ = 1, disconnect_ = 2, flush_ = 3, trim_ = 4, zeroes_ = 6 };

/// Runs `body(world, server)` against a fresh server.
void with_server(io::Task<void> (*body)(io::World&, MemoryServer&), bool read_only = false) {
  io::testing::TemporaryDirectory dir;
  io::testing::run([&](io::World& world) -> io::Task<void> {
    auto server = std::make_shared<MemoryServer>(world, dir / "nbd.sock", kSize, read_only);
    co_await body(world, *server);
    server->listener->close();
    for (auto& w : server->connections)
      if (auto c = w.lock()) c->close();
    for (int i = 0; i < 200 && world.tasks() > 1; ++i) co_await world.sleep(5ms);
  });
}

TEST(Nbd, WritesReadsTrimsAndZeroes) {
  with_server([](io::World& w, MemoryServer& s) -> io::Task<void> {
    RawClient c(w);
    EXPECT_TRUE(co_await c.open(s.address));
    for (auto [offset, length] : {std::pair(0u, 4096u), {4096u, 65536u}, {5001u, 3u}, {8191u, 8194u}, {0u, 1u << 20}}) {
      std::string data(length, '\0');
      for (std::size_t i = 0; i < length; ++i) data[i] = static_cast<char>(i * 13 + offset);
      EXPECT_TRUE(co_await c.send(request(write_, 1, offset, length) + data + request(flush_, 2, 0, 0)));
      for (int i = 0; i < 2; ++i) {
        auto r = co_await c.reply();
        EXPECT_TRUE(r.open);
        EXPECT_EQ(r.error, 0u);
      }
      EXPECT_TRUE(co_await c.send(request(read_, 3, offset, length)));
      auto r = co_await c.reply();
      EXPECT_EQ(r.cookie, 3u);
      std::string back = co_await c.receive(length);
      EXPECT_TRUE(back == data) << offset << " " << length;
    }
    EXPECT_TRUE(co_await c.send(request(trim_, 4, 100, 5000) + request(zeroes_, 5, 8192, 4096)));
    for (int i = 0; i < 2; ++i) {
      auto r = co_await c.reply();
      EXPECT_EQ(r.error, 0u);
    }
    EXPECT_EQ(s.target.bytes()[100], std::byte{0});
    EXPECT_EQ(s.target.bytes()[99], static_cast<std::byte>(99 * 13));
    // A good-bye is answered by the end, after the answers.
    EXPECT_TRUE(co_await c.send(request(read_, 6, 0, 4096) + request(disconnect_, 0, 0, 0)));
    std::string rest = co_await c.receive(16 + 4096 + 1);
    EXPECT_EQ(rest.size(), 16u + 4096u);
  });
}

TEST(Nbd, RefusesWithoutLosingTheThread) {
  with_server([](io::World& w, MemoryServer& s) -> io::Task<void> {
    RawClient c(w);
    EXPECT_TRUE(co_await c.open(s.address));
    struct Case {
      std::uint16_t type;
      std::uint64_t offset;
      std::uint32_t length;
      std::uint32_t error;
    };
    for (Case k : {Case{read_, kSize, 4096, nbd::einval}, Case{read_, ~0ull - 10, 4096, nbd::einval},
                   Case{read_, 0, kSize + 1, nbd::einval}, Case{read_, 0, ~0u, nbd::einval},
                   Case{write_, kSize - 100, 4096, nbd::enospc}, Case{write_, ~0ull, 100, nbd::enospc},
                   Case{trim_, kSize, 1, nbd::einval}, Case{zeroes_, kSize - 1, 2, nbd::enospc},
                   Case{77, 0, 0, nbd::einval}}) {
      std::string payload(k.type == write_ ? k.length : 0, 'x');
      EXPECT_TRUE(co_await c.send(request(k.type, 9, k.offset, k.length) + payload));
      auto r = co_await c.reply();
      EXPECT_TRUE(r.open) << k.type << " " << k.offset;
      EXPECT_EQ(r.error, k.error) << k.type << " " << k.offset << " " << k.length;
      EXPECT_EQ(r.cookie, 9u);
    }
  });
}

TEST(Nbd, ReadOnlyMeansIt) {
  with_server([](io::World& w, MemoryServer& s) -> io::Task<void> {
    RawClient c(w);
    EXPECT_TRUE(co_await c.open(s.address));
    EXPECT_TRUE(co_await c.send(request(write_, 1, 0, 4096) + std::string(4096, 'x') + request(trim_, 2, 0, 4096)));
    for (int i = 0; i < 2; ++i) {
      auto r = co_await c.reply();
      EXPECT_EQ(r.error, nbd::eperm);
    }
    EXPECT_EQ(s.target.bytes()[0], std::byte{0});
  }, true);
}

// Requirement: B-08
TEST(Nbd, ClosesOnWhatIsNoRequest) {
  with_server([](io::World& w, MemoryServer& s) -> io::Task<void> {
    for (std::string bad : {std::string(28, 'z'), request(write_, 1, 0, (32u << 20) + 1), std::string("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")}) {
      RawClient c(w);
      EXPECT_TRUE(co_await c.open(s.address));
      EXPECT_TRUE(co_await c.send(bad));
      auto r = co_await c.reply();
      EXPECT_FALSE(r.open);
    }
  });
}

TEST(Nbd, HandshakeRefusesAndGoesOn) {
  with_server([](io::World& w, MemoryServer& s) -> io::Task<void> {
    RawClient c(w);
    EXPECT_TRUE(co_await c.connect(s.address));
    std::string greeting = co_await c.receive(18);
    EXPECT_EQ(greeting.substr(0, 16), "NBDMAGICIHAVEOPT");
    EXPECT_TRUE(co_await c.send(Wire().put(std::uint32_t{3}).text));
    struct Case {
      std::string sent;
      std::uint32_t type;
    };
    std::string long_name = Wire().put(std::uint32_t{1000}).put("disk").put(std::uint16_t{0}).text;
    std::string wishes = Wire().put(std::uint32_t{4}).put("disk").put(std::uint16_t{9}).text;
    for (const Case& k : {Case{option(5, ""), nbd::kErrUnsupported}, Case{option(11, ""), nbd::kErrUnsupported},
                          Case{option(4711, "abc"), nbd::kErrUnsupported}, Case{option(7, go("none")), nbd::kErrUnknown},
                          Case{option(7, ""), nbd::kErrInvalid}, Case{option(6, "abc"), nbd::kErrInvalid},
                          Case{option(7, long_name), nbd::kErrInvalid}, Case{option(7, wishes), nbd::kErrInvalid},
                          Case{option(3, "x"), nbd::kErrInvalid}}) {
      EXPECT_TRUE(co_await c.send(k.sent));
      std::uint32_t type = co_await c.option_reply();
      EXPECT_EQ(type, k.type);
    }
    EXPECT_TRUE(co_await c.send(option(3, "") + option(7, go(""))));
    std::vector<std::uint32_t> types;
    for (int i = 0; i < 5; ++i) {
      std::uint32_t type = co_await c.option_reply();
      types.push_back(type);
    }
    EXPECT_EQ(types, (std::vector<std::uint32_t>{nbd::kServer, nbd::kAck, nbd::kInfo, nbd::kInfo, nbd::kAck}));
    EXPECT_TRUE(co_await c.send(request(read_, 1, 0, 512)));
    auto r = co_await c.reply();
    EXPECT_TRUE(r.open);
  });
}

TEST(Nbd, HandshakeClosesOnGarbage) {
  with_server([](io::World& w, MemoryServer& s) -> io::Task<void> {
    std::string flags = Wire().put(std::uint32_t{3}).text;
    std::string absurd = Wire().put(nbd::kOptionMagic).put(std::uint32_t{7}).put(~std::uint32_t{0}).text;
    for (std::string bad : {flags + std::string(64, 'g'), flags + absurd, flags + option(1, "none")}) {
      RawClient c(w);
      EXPECT_TRUE(co_await c.connect(s.address));
      std::string greeting = co_await c.receive(18);
      bool sent = co_await c.send(bad);
      EXPECT_TRUE(sent);
      std::string rest = co_await c.receive(1);
      EXPECT_TRUE(rest.empty());
    }
  });
}

TEST(Nbd, EveryCutOfAGoodConversationIsSurvived) {
  with_server([](io::World& w, MemoryServer& s) -> io::Task<void> {
    std::string good = Wire().put(std::uint32_t{3}).text + option(3, "") + option(7, go("disk")) + request(write_, 1, 1000, 5000) +
                       std::string(5000, 'y') + request(read_, 2, 0, 8192);
    for (std::size_t cut = 0; cut < good.size(); cut += cut < 140 ? 1 : 997) {
      RawClient c(w);
      EXPECT_TRUE(co_await c.connect(s.address));
      bool sent = co_await c.send(good.substr(0, cut));
      EXPECT_TRUE(sent);
      c.stream->close();
    }
    RawClient c(w);
    EXPECT_TRUE(co_await c.open(s.address));
  });
}

TEST(Nbd, AThousandSilentClientsHurtNobody) {
  rlimit limit;
  ::getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, 8192);
  ::setrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur < 2100) GTEST_SKIP() << "too few file descriptors";
  with_server([](io::World& w, MemoryServer& s) -> io::Task<void> {
    std::vector<std::unique_ptr<RawClient>> silent;
    for (int i = 0; i < 1000; ++i) {
      auto c = std::make_unique<RawClient>(w);
      EXPECT_TRUE(co_await c->connect(s.address));
      if (i % 2 == 0) {
        bool sent = co_await c->send(Wire().put(std::uint32_t{3}).text + option(7, go("disk")).substr(0, 20));
        EXPECT_TRUE(sent);
      }
      silent.push_back(std::move(c));
    }
    RawClient c(w);
    EXPECT_TRUE(co_await c.open(s.address));
    EXPECT_TRUE(co_await c.send(request(read_, 1, 0, 4096)));
    auto r = co_await c.reply();
    EXPECT_TRUE(r.open);
  });
}

// Payload held for one client is bounded, whether its requests wait at the target or their answers in the socket.
TEST(Nbd, AClientThatNeverReadsIsNotReadEither) {
  with_server([](io::World& w, MemoryServer& s) -> io::Task<void> {
    RawClient c(w);
    EXPECT_TRUE(co_await c.open(s.address));
    std::string many;
    for (int i = 0; i < 300; ++i) many += request(read_, i, 0, 1 << 20);
    EXPECT_TRUE(co_await c.send(many));
    co_await w.sleep(500ms);
    EXPECT_LE(s.target.asked, 100u << 20);
    std::size_t answers = 0;
    for (; answers < 300; ++answers) {
      auto r = co_await c.reply();
      if (!r.open) break;
      std::string data = co_await c.receive(1 << 20);
      if (data.size() != 1 << 20) break;
    }
    EXPECT_EQ(answers, 300u);
  });
}

TEST(Nbd, ADeadClientsRequestsEndQuietly) {
  with_server([](io::World& w, MemoryServer& s) -> io::Task<void> {
    s.target.holding = true;
    RawClient c(w);
    EXPECT_TRUE(co_await c.open(s.address));
    EXPECT_TRUE(co_await c.send(request(write_, 1, 0, 4096) + std::string(4096, 'w') + request(read_, 2, 0, 4096)));
    co_await w.sleep(50ms);
    c.stream->close();
    co_await w.sleep(50ms);
    s.target.release();
    co_await w.sleep(50ms);
    EXPECT_EQ(s.target.bytes()[0], std::byte{'w'});
    EXPECT_EQ(s.portal->connections, 0u);
  });
}

}  // namespace
}  // namespace luge::attach
