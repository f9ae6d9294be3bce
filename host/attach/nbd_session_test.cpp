// Whole NBD conversations over simulated streams, which deliver in pieces and late: what the server says, byte for byte,
// and what it does with a client that breaks the protocol. nbd_test.cpp has the same server on real sockets.
#include <gtest/gtest.h>

#include <set>

#include "attach/nbd_testing.hpp"
#include "base/logging.hpp"
#include "sim/cluster/simulation.hpp"

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

constexpr std::uint32_t kSize = 1 << 20;
enum : std::uint16_t { read_ = 0, write_ = 1, disconnect_ = 2, flush_ = 3, trim_ = 4, cache_ = 5, zeroes_ = 6 };

struct Bench {
  explicit Bench(std::uint64_t seed = 1, bool read_only = false) : sim(seed) {
    logging::setup("test", "off");
    attach = sim.add_node("attach", [this, read_only](io::World& w) {
      return server = std::make_shared<MemoryServer>(w, "nbd", kSize, read_only);
    });
    node = sim.add_node("client");
  }
  void run(io::Task<void> (*body)(Bench&, io::World&)) { sim.run(node, body(*this, sim.world(node)), 300s); }
  std::vector<std::byte>& disk() { return server->target.bytes(); }
  std::string disk_text(std::size_t at, std::size_t bytes) { return {reinterpret_cast<const char*>(disk().data()) + at, bytes}; }
  void fill(char c) { std::memset(disk().data(), c, disk().size()); }

  sim::Simulation sim;
  sim::Node attach = 0, node = 0;
  std::shared_ptr<MemoryServer> server;
};

std::string flags(std::uint32_t f) { return Wire().put(f).text; }

/// Connected, greeted, and the client's flags sent.
io::Task<void> greet(RawClient& c, std::uint32_t client_flags = 3) {
  bool ok = co_await c.connect("unix:nbd");
  EXPECT_TRUE(ok);
  std::string greeting = co_await c.receive(18);
  EXPECT_EQ(greeting, std::string("NBDMAGICIHAVEOPT\0\3", 18));
  ok = co_await c.send(flags(client_flags));
  EXPECT_TRUE(ok);
}

struct OptionReply {
  std::uint32_t option = 0, type = 0;
  std::string data;
};
io::Task<OptionReply> option_reply(RawClient& c) {
  std::string h = co_await c.receive(20);
  EXPECT_EQ(h.size(), 20u);
  if (h.size() != 20) co_return OptionReply{};
  EXPECT_EQ(number(h.substr(0, 8)), nbd::kOptionReplyMagic);
  OptionReply r{static_cast<std::uint32_t>(number(h.substr(8, 4))), static_cast<std::uint32_t>(number(h.substr(12, 4))), {}};
  r.data = co_await c.receive(number(h.substr(16, 4)));
  co_return r;
}

io::Task<bool> closed(RawClient& c) {
  std::string rest = co_await c.receive(1);
  co_return rest.empty();
}

/// The connection is in step: a read is answered with what the disk holds.
io::Task<void> in_step(Bench& b, RawClient& c) {
  bool sent = co_await c.send(request(read_, 0xfeed, 512, 1024));
  EXPECT_TRUE(sent);
  auto r = co_await c.reply();
  EXPECT_TRUE(r.open);
  EXPECT_EQ(r.error, 0u);
  EXPECT_EQ(r.cookie, 0xfeedu);
  std::string data = co_await c.receive(1024);
  EXPECT_TRUE(data == b.disk_text(512, 1024));
}

// has_flags, flush, FUA, trim, write-zeroes, multi-conn, fast zeroes; read-only on top
constexpr std::uint16_t kFlags = 1 | 4 | 8 | 32 | 64 | 256 | 2048;

TEST(NbdSession, GoSaysWhatTheExportIs) {
  for (bool read_only : {false, true}) {
    Bench b(1, read_only);
    b.fill('g');
    b.run([](Bench& b, io::World& w) -> io::Task<void> {
      RawClient c(w);
      co_await greet(c);
      std::string asked = Wire().put(std::uint32_t{4}).put("disk").put(std::uint16_t{2}).put(std::uint16_t{1}).put(std::uint16_t{3}).text;
      for (std::uint32_t opt : {6u, 7u}) {  // INFO, then GO: the same, but only GO begins transmission
        co_await c.send(option(opt, asked));
        std::set<std::uint64_t> items;
        while (true) {
          OptionReply r = co_await option_reply(c);
          EXPECT_EQ(r.option, opt);
          if (r.type != nbd::kInfo) {
            EXPECT_EQ(r.type, nbd::kAck);
            EXPECT_TRUE(r.data.empty());
            break;
          }
          std::uint64_t item = number(r.data.substr(0, 2));
          EXPECT_TRUE(items.insert(item).second);
          if (item == 0) {
            EXPECT_EQ(r.data.size(), 12u);
            EXPECT_EQ(number(r.data.substr(2, 8)), kSize);
            EXPECT_EQ(number(r.data.substr(10, 2)), b.server->served->info.read_only ? kFlags | 2u : kFlags);
          } else if (item == 1) {
            EXPECT_EQ(r.data.substr(2), "disk");
          } else if (item == 3) {
            EXPECT_EQ(r.data.size(), 14u);
            EXPECT_EQ(number(r.data.substr(6, 4)), 4096u);
            EXPECT_EQ(number(r.data.substr(10, 4)), nbd::kMaxRequestBytes);
          }
        }
        EXPECT_EQ(items, (std::set<std::uint64_t>{0, 1, 3}));
      }
      co_await in_step(b, c);
    });
  }
}

TEST(NbdSession, ExportNameBeginsTransmissionWithOrWithoutItsZeroes) {
  Bench b;
  b.fill('e');
  b.run([](Bench& b, io::World& w) -> io::Task<void> {
    for (std::uint32_t client_flags : {0u, 1u, 3u}) {
      RawClient c(w);
      co_await greet(c, client_flags);
      co_await c.send(option(1, "disk"));
      std::size_t zeroes = client_flags & 2 ? 0 : 124;
      std::string answer = co_await c.receive(10 + zeroes);
      EXPECT_EQ(number(answer.substr(0, 8)), kSize);
      EXPECT_EQ(number(answer.substr(8, 2)), kFlags);
      EXPECT_TRUE(answer.substr(10) == std::string(zeroes, '\0'));
      co_await in_step(b, c);
    }
  });
}

TEST(NbdSession, ListAndAbort) {
  Bench b;
  b.run([](Bench&, io::World& w) -> io::Task<void> {
    RawClient c(w);
    co_await greet(c);
    co_await c.send(option(3, ""));
    OptionReply r = co_await option_reply(c);
    EXPECT_EQ(r.type, nbd::kServer);
    EXPECT_EQ(r.data, Wire().put(std::uint32_t{4}).put("disk").text);
    r = co_await option_reply(c);
    EXPECT_EQ(r.type, nbd::kAck);
    co_await c.send(option(2, ""));
    r = co_await option_reply(c);
    EXPECT_EQ(r.option, 2u);
    EXPECT_EQ(r.type, nbd::kAck);
    bool end = co_await closed(c);
    EXPECT_TRUE(end);
  });
}

TEST(NbdSession, UnknownOptionsAreRefusedWithTheirDataSkipped) {
  Bench b;
  b.run([](Bench& b, io::World& w) -> io::Task<void> {
    RawClient c(w);
    co_await greet(c);
    // Data that looks like another option must not be taken for one.
    std::string bait;
    while (bait.size() + 64 < nbd::kMaxOptionBytes) bait += option(2, "");
    for (std::uint32_t opt : {0u, 4u, 5u, 11u, 12u, 0x80000001u, ~0u}) {
      co_await c.send(option(opt, bait));
      OptionReply r = co_await option_reply(c);
      EXPECT_EQ(r.option, opt);
      EXPECT_EQ(r.type, nbd::kErrUnsupported);
    }
    co_await c.send(option(7, go("disk")));
    OptionReply r;
    do {
      r = co_await option_reply(c);
    } while (r.type == nbd::kInfo);
    EXPECT_EQ(r.type, nbd::kAck);
    co_await in_step(b, c);
  });
}

// Requirement: B-08
TEST(NbdSession, FlagsAndMagicThatAreUnknownEndTheConnection) {
  Bench b;
  b.run([](Bench& b, io::World& w) -> io::Task<void> {
    std::string wrong_magic = option(7, go("disk"));
    wrong_magic[7] ^= 1;
    std::string too_long = Wire().put(nbd::kOptionMagic).put(std::uint32_t{7}).put(nbd::kMaxOptionBytes + 1).text;
    for (const std::string& bad : {flags(4 | 3), flags(0x80000000), flags(3) + wrong_magic, flags(3) + too_long,
                                   flags(3) + option(1, "other"), flags(3) + option(1, "disk ")}) {
      RawClient c(w);
      bool ok = co_await c.connect("unix:nbd");
      EXPECT_TRUE(ok);
      co_await c.receive(18);
      co_await c.send(bad + std::string(bad.size() == 4 ? option(7, go("disk")) : ""));
      bool end = co_await closed(c);
      EXPECT_TRUE(end) << "sent " << bad.size() << " bytes";
    }
    b.fill('m');
    RawClient c(w);
    bool ok = co_await c.open("unix:nbd");
    EXPECT_TRUE(ok);
    std::string bad = request(write_, 1, 0, 4096);
    bad[0] ^= 1;
    co_await c.send(bad + std::string(4096, 'x') + request(write_, 2, 0, 4096) + std::string(4096, 'x'));
    bool end = co_await closed(c);
    EXPECT_TRUE(end);
    EXPECT_EQ(b.disk()[0], std::byte{'m'}) << "nothing behind a lost thread is obeyed";
  });
}

// The payload of a refused write is made of writes that would be accepted.
io::Task<void> refused_writes(Bench& b, io::World& w, std::uint32_t error) {
  RawClient c(w);
  bool ok = co_await c.open("unix:nbd");
  EXPECT_TRUE(ok);
  std::string bait;
  while (bait.size() < 200'000) bait += request(write_, 66, 0, 1) + "!";
  auto length = static_cast<std::uint32_t>(bait.size());
  for (std::uint64_t offset : {std::uint64_t{kSize} - length + 1, std::uint64_t{kSize}, ~std::uint64_t{0}, ~std::uint64_t{0} - length + 1}) {
    co_await c.send(request(write_, 5, offset, length) + bait);
    auto r = co_await c.reply();
    EXPECT_TRUE(r.open);
    EXPECT_EQ(r.error, error);
    EXPECT_EQ(r.cookie, 5u);
  }
  co_await in_step(b, c);
  EXPECT_TRUE(b.disk_text(0, kSize) == std::string(kSize, 'r'));
}

TEST(NbdSession, ARefusedWriteIsReadPast) {
  Bench b;
  b.fill('r');
  b.run([](Bench& b, io::World& w) { return refused_writes(b, w, nbd::enospc); });
}

TEST(NbdSession, AReadOnlyExportChangesNothing) {
  Bench b(1, true);
  b.fill('r');
  b.run([](Bench& b, io::World& w) -> io::Task<void> {
    co_await refused_writes(b, w, nbd::eperm);
    RawClient c(w);
    bool ok = co_await c.open("unix:nbd");
    EXPECT_TRUE(ok);
    co_await c.send(request(trim_, 1, 0, 4096) + request(zeroes_, 2, 0, 4096) + request(write_, 3, 0, 512) + std::string(512, 'x'));
    for (int i = 0; i < 3; ++i) {
      auto r = co_await c.reply();
      EXPECT_EQ(r.error, nbd::eperm);
    }
    co_await c.send(request(flush_, 4, 0, 0));
    auto r = co_await c.reply();
    EXPECT_EQ(r.error, 0u);
    co_await in_step(b, c);
    EXPECT_TRUE(b.disk_text(0, kSize) == std::string(kSize, 'r'));
  });
}

// Requirement: B-08
TEST(NbdSession, OutOfRangeIsAnErrorAndNoMore) {
  Bench b;
  b.fill('o');
  b.run([](Bench& b, io::World& w) -> io::Task<void> {
    RawClient c(w);
    bool ok = co_await c.open("unix:nbd");
    EXPECT_TRUE(ok);
    for (std::uint16_t type : {read_, trim_, zeroes_, cache_})
      for (auto [offset, length] : {std::pair<std::uint64_t, std::uint32_t>{kSize, 1}, {kSize - 1, 2}, {0, kSize + 1}, {0, ~0u},
                                    {~std::uint64_t{0}, 1}, {~std::uint64_t{0} - 4095, 4096}, {std::uint64_t{1} << 63, 4096}}) {
        co_await c.send(request(type, 8, offset, length));
        auto r = co_await c.reply();
        EXPECT_TRUE(r.open);
        EXPECT_NE(r.error, 0u) << type << " " << offset << " " << length;
      }
    for (std::uint16_t type : {std::uint16_t{7}, std::uint16_t{256}, std::uint16_t{65535}}) {
      co_await c.send(request(type, 9, 0, 4096));
      auto r = co_await c.reply();
      EXPECT_EQ(r.error, nbd::einval) << type;
    }
    co_await in_step(b, c);
    EXPECT_TRUE(b.disk_text(0, kSize) == std::string(kSize, 'o'));
  });
}

// FUA goes with every command, NO_HOLE with write-zeroes. Whatever else is set asks for something that would not be done.
// Requirement: B-08
TEST(NbdSession, UnknownCommandFlagsAreRefused) {
  Bench b;
  b.fill('f');
  b.run([](Bench& b, io::World& w) -> io::Task<void> {
    RawClient c(w);
    bool ok = co_await c.open("unix:nbd");
    EXPECT_TRUE(ok);
    for (std::uint16_t type : {read_, write_, flush_, trim_, cache_, zeroes_})
      for (int bit = 0; bit < 16; ++bit) {
        auto flag = static_cast<std::uint16_t>(1 << bit);
        bool known = bit == 0 || ((bit == 1 || bit == 4) && type == zeroes_);
        std::uint32_t length = type == flush_ ? 0 : 512;
        // The payload would be obeyed as a write if it were not read past.
        std::string payload = type == write_ ? request(write_, 66, 0, 1) + "!" : "";
        payload.resize(type == write_ ? length : 0, 'p');
        co_await c.send(request(type, 5, type == flush_ ? 0 : 4096, length, flag) + payload);
        auto r = co_await c.reply();
        EXPECT_TRUE(r.open);
        EXPECT_EQ(r.cookie, 5u);
        EXPECT_EQ(r.error, known ? 0u : nbd::einval) << type << " with bit " << bit;
        if (type == read_ && known) co_await c.receive(length);
      }
    co_await in_step(b, c);
    EXPECT_EQ(b.disk()[0], std::byte{'f'});
  });
}

// Left open by the protocol; qemu-nbd does nothing and says so. An end-of-disk offset is inside, one beyond is not.
TEST(NbdSession, NothingIsDoneForALengthOfZero) {
  Bench b;
  b.fill('z');
  b.server->target.holding = true;  // whoever asks the volume is not answered
  b.run([](Bench& b, io::World& w) -> io::Task<void> {
    RawClient c(w);
    bool ok = co_await c.open("unix:nbd");
    EXPECT_TRUE(ok);
    for (std::uint16_t type : {read_, write_, trim_, cache_, zeroes_})
      for (std::uint64_t offset : {std::uint64_t{0}, std::uint64_t{5000}, std::uint64_t{kSize}, std::uint64_t{kSize} + 1, ~std::uint64_t{0}}) {
        co_await c.send(request(type, 4, offset, 0));
        auto r = co_await c.reply();
        EXPECT_TRUE(r.open);
        EXPECT_EQ(r.error, offset <= kSize ? 0u : type == write_ || type == zeroes_ ? nbd::enospc : nbd::einval) << type << " at " << offset;
      }
    b.server->target.release();
    co_await in_step(b, c);
    EXPECT_TRUE(b.disk_text(0, kSize) == std::string(kSize, 'z'));
  });
}

TEST(NbdSession, AHandshakeHasALimit) {
  Bench b;
  b.run([](Bench& b, io::World& w) -> io::Task<void> {
    std::string whole = flags(3) + option(3, "") + option(7, go("disk"));
    for (std::size_t cut = 0; cut < whole.size(); cut += 5) {
      RawClient c(w);
      bool ok = co_await c.connect("unix:nbd");
      EXPECT_TRUE(ok);
      io::Time begin = w.now();
      co_await c.send(whole.substr(0, cut));
      std::string said;
      do said = co_await c.receive(1);
      while (!said.empty());
      EXPECT_GE(w.now() - begin, kNegotiationTime - 100ms) << "cut at " << cut;
      EXPECT_LE(w.now() - begin, kNegotiationTime + 1s) << "cut at " << cut;
    }
    // A drip of options does not prolong it.
    RawClient drip(w);
    co_await greet(drip);
    io::Time begin = w.now();
    bool open = true;
    while (open && w.now() - begin < 60s) {
      co_await drip.send(option(8, ""));
      std::string r = co_await drip.receive(20);
      open = r.size() == 20;
      co_await w.sleep(500ms);
    }
    EXPECT_LE(w.now() - begin, kNegotiationTime + 1s);
    // Who is through may be silent for as long as he likes.
    RawClient c(w);
    bool ok = co_await c.open("unix:nbd");
    EXPECT_TRUE(ok);
    co_await w.sleep(5 * kNegotiationTime);
    co_await in_step(b, c);
    EXPECT_EQ(b.server->portal->connections, 1u);
  });
}

TEST(NbdSession, OnlySoManyMayBeInTheirHandshake) {
  Bench b;
  b.run([](Bench& b, io::World& w) -> io::Task<void> {
    RawClient first(w);
    bool ok = co_await first.open("unix:nbd");
    EXPECT_TRUE(ok);
    std::vector<std::unique_ptr<RawClient>> silent;
    for (std::size_t i = 0; i < 5 * kMaxNegotiating; ++i) {
      silent.push_back(std::make_unique<RawClient>(w));
      ok = co_await silent.back()->connect("unix:nbd");
      EXPECT_TRUE(ok);
    }
    co_await w.sleep(100ms);
    EXPECT_EQ(b.server->portal->connections, 1 + kMaxNegotiating);
    EXPECT_EQ(b.server->portal->negotiating.size(), kMaxNegotiating);
    RawClient honest(w);
    ok = co_await honest.open("unix:nbd");
    EXPECT_TRUE(ok);
    co_await in_step(b, honest);
    co_await in_step(b, first);
    co_await w.sleep(kNegotiationTime + 1s);
    EXPECT_EQ(b.server->portal->connections, 2u);
    EXPECT_TRUE(b.server->portal->negotiating.empty());
  });
}

TEST(NbdSession, AWriteBeyondTheLimitEndsTheConnection) {
  Bench b;
  b.fill('w');
  b.run([](Bench& b, io::World& w) -> io::Task<void> {
    for (std::uint32_t length : {nbd::kMaxRequestBytes + 1, ~0u}) {
      RawClient c(w);
      bool ok = co_await c.open("unix:nbd");
      EXPECT_TRUE(ok);
      co_await c.send(request(write_, 1, 0, length) + std::string(4096, 'x'));
      bool end = co_await closed(c);
      EXPECT_TRUE(end);
    }
    EXPECT_EQ(b.disk()[0], std::byte{'w'});
  });
}

TEST(NbdSession, AWriteCutShortIsNotDone) {
  for (std::size_t cut : {0u, 1u, 27u, 28u, 29u, 28u + 4096u, 28u + 100'000u - 1}) {
    Bench b(1 + cut);
    b.fill('c');
    std::size_t sent = cut;
    auto body = [](Bench& b, io::World& w, std::size_t cut) -> io::Task<void> {
      RawClient c(w);
      bool ok = co_await c.open("unix:nbd");
      EXPECT_TRUE(ok);
      co_await c.send((request(write_, 1, 0, 100'000) + std::string(100'000, 'x')).substr(0, cut));
      c.stream->close();
      co_await w.sleep(1s);
      EXPECT_TRUE(b.disk_text(0, kSize) == std::string(kSize, 'c')) << "cut at " << cut;
      EXPECT_EQ(b.server->portal->connections, 0u);
    };
    b.sim.run(b.node, body(b, b.sim.world(b.node), sent), 60s);
  }
}

// Both the handshake and the requests, in one packet and byte by byte.
TEST(NbdSession, PacketsDoNotMatter) {
  for (std::size_t piece : {std::size_t{1}, std::size_t{7}, std::size_t{1} << 20}) {
    Bench b(piece);
    auto body = [](Bench& b, io::World& w, std::size_t piece) -> io::Task<void> {
      RawClient c(w);
      bool ok = co_await c.connect("unix:nbd");
      EXPECT_TRUE(ok);
      std::string a(3000, 'a'), z(5000, 'z');
      std::string all = flags(3) + option(7, go("disk")) + request(write_, 1, 10, 3000) + a + request(write_, 2, 20'000, 5000) + z +
                        request(flush_, 3, 0, 0) + request(disconnect_, 0, 0, 0);
      for (std::size_t i = 0; i < all.size(); i += piece) co_await c.send(all.substr(i, piece));
      co_await c.receive(18 + 20 + 12 + 20 + 14 + 20);
      std::set<std::uint64_t> answered;
      for (auto r = co_await c.reply(); r.open; r = co_await c.reply()) {
        EXPECT_EQ(r.error, 0u);
        answered.insert(r.cookie);
      }
      EXPECT_EQ(answered, (std::set<std::uint64_t>{1, 2, 3})) << "in pieces of " << piece;
      EXPECT_TRUE(b.disk_text(10, 3000) == a);
      EXPECT_TRUE(b.disk_text(20'000, 5000) == z);
    };
    b.sim.run(b.node, body(b, b.sim.world(b.node), piece), 60s);
  }
}

TEST(NbdSession, TwoHundredSilentConnectionsHurtNobody) {
  Bench b;
  b.run([](Bench& b, io::World& w) -> io::Task<void> {
    std::vector<std::unique_ptr<RawClient>> silent;
    std::string whole = flags(3) + option(7, go("disk")) + request(write_, 1, 0, 4096) + std::string(4000, 'x');
    for (std::size_t i = 0; i < 200; ++i) {  // each falls silent somewhere else
      silent.push_back(std::make_unique<RawClient>(w));
      bool ok = co_await silent.back()->connect("unix:nbd");
      EXPECT_TRUE(ok);
      co_await silent.back()->send(whole.substr(0, i < 100 ? i : whole.size() - i));
    }
    co_await w.sleep(1s);
    RawClient c(w);
    io::Time start = w.now();
    bool ok = co_await c.open("unix:nbd");
    EXPECT_TRUE(ok);
    for (int i = 0; i < 100; ++i) co_await in_step(b, c);
    EXPECT_LT(w.now() - start, 1s);
    EXPECT_EQ(b.server->portal->connections, 201u);
    EXPECT_EQ(b.disk()[0], std::byte{0});
  });
}

// Answers everything with one status.
class Refusing final : public client::BlockTarget {
 public:
  explicit Refusing(io::World& w) : world_(w) {}
  Status status;
  std::uint64_t size_bytes() const override { return kSize; }
  void write(std::uint64_t, Buffer, std::uint32_t, Done done) override { later(std::move(done)); }
  void trim(std::uint64_t, std::uint32_t, Done done) override { later(std::move(done)); }
  void zero(std::uint64_t, std::uint32_t, Done done) override { later(std::move(done)); }
  void read(std::uint64_t, std::uint32_t, ReadDone done) override {
    world_.post([done, s = status] { done(s, {}); });
  }
  void map(std::uint64_t, std::uint32_t, MapDone done) override {
    world_.post([done, s = status] { done(s, {}); });
  }

 private:
  void later(Done done) {
    world_.post([done, s = status] { done(s); });
  }
  io::World& world_;
};

TEST(NbdSession, AnErrorOfTheVolumeIsAnErrorOfTheRequest) {
  Bench b;
  b.run([](Bench& b, io::World& w) -> io::Task<void> {
    Refusing target(b.sim.world(b.attach));
    RawClient c(w);
    bool ok = co_await c.open("unix:nbd");
    EXPECT_TRUE(ok);
    b.server->served->target = &target;
    for (auto [code, error] : {std::pair<Code, std::uint32_t>{Code::no_space, nbd::enospc}, {Code::closed_session, nbd::eshutdown},
                               {Code::corrupt, nbd::eio}, {Code::timed_out, nbd::eio}, {Code::fenced, nbd::eio}, {Code::unavailable, nbd::eio}}) {
      target.status = Status(code, "so it is");
      co_await c.send(request(write_, 1, 0, 10) + std::string(10, 'x') + request(read_, 2, 0, 4096) + request(trim_, 3, 0, 1) + request(zeroes_, 4, 0, 1));
      std::set<std::uint64_t> cookies;
      for (int i = 0; i < 4; ++i) {
        auto r = co_await c.reply();  // an error of a read carries no bytes: the next reply follows at once
        EXPECT_EQ(r.error, error) << code_name(code);
        cookies.insert(r.cookie);
      }
      EXPECT_EQ(cookies.size(), 4u);
    }
    b.server->served->target = &b.server->target;
    co_await in_step(b, c);
    EXPECT_EQ(b.server->served->stats.errors, 24u);
  });
}

TEST(NbdSession, ManyAtOnceKeepTheirCookiesAndBytes) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    Bench b(seed);
    for (std::size_t i = 0; i < kSize; ++i) b.disk()[i] = static_cast<std::byte>(i * 7 + i / 251 + seed);
    b.run([](Bench& b, io::World& w) -> io::Task<void> {
      RawClient c(w);
      bool ok = co_await c.open("unix:nbd");
      EXPECT_TRUE(ok);
      std::map<std::uint64_t, std::pair<std::uint32_t, std::uint32_t>> asked;
      std::string all;
      for (std::uint64_t cookie = 100; cookie < 160; ++cookie) {
        auto length = static_cast<std::uint32_t>(1 + w.random_below(50'000));
        auto offset = static_cast<std::uint32_t>(w.random_below(kSize - length));
        asked[cookie] = {offset, length};
        all += request(read_, cookie, offset, length);
      }
      co_await c.send(all);
      while (!asked.empty()) {
        auto r = co_await c.reply();
        auto it = asked.find(r.cookie);
        EXPECT_TRUE(it != asked.end());
        if (it == asked.end()) co_return;
        std::string data = co_await c.receive(it->second.second);
        EXPECT_TRUE(data == b.disk_text(it->second.first, it->second.second)) << it->second.first << " " << it->second.second;
        asked.erase(it);
      }
    });
  }
}

// What was taken is answered, what comes later is not done, however busy the client is.
TEST(NbdSession, ADrainAnswersWhatIsOpenAndTakesNoMore) {
  Bench b;
  b.fill('d');
  b.server->target.holding = true;
  b.run([](Bench& b, io::World& w) -> io::Task<void> {
    RawClient c(w), idle(w);
    bool ok = co_await c.open("unix:nbd");
    EXPECT_TRUE(ok);
    ok = co_await idle.open("unix:nbd");
    EXPECT_TRUE(ok);
    co_await c.send(request(write_, 1, 0, 100) + std::string(100, 'x') + request(read_, 2, 8192, 4096));
    co_await w.sleep(50ms);
    io::World& server = b.sim.world(b.attach);
    int drained = 0;
    for (auto& weak : b.server->connections)
      if (auto connection = weak.lock())
        server.spawn("drain", [](std::shared_ptr<NbdConnection> n, int& drained) -> io::Task<void> {
          co_await n->drain(n);
          ++drained;
        }(connection, drained));
    co_await w.sleep(50ms);
    EXPECT_EQ(drained, 1) << "the idle one at once";
    bool end = co_await closed(idle);
    EXPECT_TRUE(end);
    co_await c.send(request(trim_, 5, 400, 100) + request(write_, 3, 200, 100) + std::string(100, 'y') + request(write_, 4, 300, 100) + std::string(100, 'z'));
    co_await w.sleep(50ms);
    b.server->target.release();
    std::set<std::uint64_t> answered;
    for (auto r = co_await c.reply(); r.open; r = co_await c.reply()) {
      EXPECT_EQ(r.error, 0u);
      answered.insert(r.cookie);
      if (r.cookie == 2) co_await c.receive(4096);
    }
    EXPECT_EQ(answered, (std::set<std::uint64_t>{1, 2}));
    EXPECT_EQ(drained, 2);
    EXPECT_TRUE(b.disk_text(0, 100) == std::string(100, 'x'));
    EXPECT_TRUE(b.disk_text(200, 300) == std::string(300, 'd'));
  });
}

// The host of a client goes dark while its requests are open: nothing of the connection stays once they are answered.
TEST(NbdSession, AClientWithoutPowerIsForgotten) {
  Bench b;
  b.server->target.holding = true;
  b.run([](Bench&, io::World& w) -> io::Task<void> {
    auto c = std::make_shared<RawClient>(w);
    bool ok = co_await c->open("unix:nbd");
    EXPECT_TRUE(ok);
    co_await c->send(request(read_, 1, 0, 65536) + request(write_, 2, 0, 4096) + std::string(4096, 'p'));
    w.spawn("hold", [](std::shared_ptr<RawClient> c) -> io::Task<void> { co_await c->reply(); }(c));
    co_await w.sleep(100ms);
  });
  EXPECT_EQ(b.server->portal->connections, 1u);
  b.sim.crash(b.node, sim::Crash::power);
  b.server->target.release();
  b.sim.run_for(60s);
  EXPECT_EQ(b.server->portal->connections, 0u);
  EXPECT_EQ(b.disk()[0], std::byte{'p'}) << "what was taken is done";
  b.sim.restart(b.node);
  b.run([](Bench& b, io::World& w) -> io::Task<void> {
    RawClient c(w);
    bool ok = co_await c.open("unix:nbd");
    EXPECT_TRUE(ok);
    co_await in_step(b, c);
  });
}

}  // namespace
}  // namespace luge::attach
