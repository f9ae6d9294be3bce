// What NBD has beyond reads and writes, byte for byte: structured replies, block status, several exports at one address,
// and an address that is served over TLS only (nbd_peers_test.cpp has real TLS clients).
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

constexpr std::uint32_t kSize = 4 << 20;
enum : std::uint16_t { read_ = 0, write_ = 1, trim_ = 4, status_ = 7 };
enum : std::uint16_t { kNone = 0, kData = 1, kHole = 2, kStatus = 5, kError = 0x8001 };

struct Bench {
  explicit Bench(bool read_only = false) : sim(1) {
    logging::setup("test", "off");
    attach = sim.add_node("attach", [this, read_only](io::World& w) { return server = std::make_shared<MemoryServer>(w, "nbd", kSize, read_only); });
    node = sim.add_node("client");
  }
  void run(io::Task<void> (*body)(Bench&, io::World&)) { sim.run(node, body(*this, sim.world(node)), 300s); }
  std::string disk_text(std::size_t at, std::size_t bytes) { return {reinterpret_cast<const char*>(server->target.bytes().data()) + at, bytes}; }

  sim::Simulation sim;
  sim::Node attach = 0, node = 0;
  std::shared_ptr<MemoryServer> server;
};

std::string meta(std::string_view name, std::vector<std::string> queries) {
  Wire w;
  w.put(static_cast<std::uint32_t>(name.size())).put(name).put(static_cast<std::uint32_t>(queries.size()));
  for (const std::string& q : queries) w.put(static_cast<std::uint32_t>(q.size())).put(q);
  return w.text;
}

io::Task<void> greet(RawClient& c) {
  bool ok = co_await c.connect("unix:nbd");
  EXPECT_TRUE(ok);
  co_await c.receive(18);
  co_await c.send(Wire().put(std::uint32_t{3}).text);
}

// The type of the answer to an option that has one.
io::Task<std::uint32_t> ask(RawClient& c, std::string bytes) {
  co_await c.send(bytes);
  co_return co_await c.option_reply();
}

io::Task<void> enter(RawClient& c, std::string name = "disk") {
  co_await c.send(option(7, go(name)));
  std::uint32_t type;
  do type = co_await c.option_reply();
  while (type == nbd::kInfo);
  EXPECT_EQ(type, nbd::kAck);
}

io::Task<void> open_with(RawClient& c, bool allocation) {
  co_await greet(c);
  std::uint32_t type = co_await ask(c, option(8, ""));
  EXPECT_EQ(type, nbd::kAck);
  if (allocation) {
    type = co_await ask(c, option(10, meta("disk", {"base:allocation"})));
    EXPECT_EQ(type, nbd::kMetaContext);
    type = co_await c.option_reply();
    EXPECT_EQ(type, nbd::kAck);
  }
  co_await enter(c);
}

struct Chunk {
  std::uint16_t flags = 0, type = 0xffff;
  std::uint64_t cookie = 0;
  std::string body;
  bool done() const { return (flags & 1) != 0; }
};
io::Task<Chunk> chunk(RawClient& c) {
  std::string h = co_await c.receive(20);
  if (h.size() != 20) co_return Chunk{};
  EXPECT_EQ(number(h.substr(0, 4)), nbd::kChunkMagic);
  Chunk r{static_cast<std::uint16_t>(number(h.substr(4, 2))), static_cast<std::uint16_t>(number(h.substr(6, 2))), number(h.substr(8, 8)), {}};
  r.body = co_await c.receive(number(h.substr(16, 4)));
  co_return r;
}

// A whole reply to a read, put together as a client would; "" after an error.
io::Task<std::string> read_back(RawClient& c, std::uint64_t offset, std::uint32_t length, std::uint16_t flags, std::set<std::uint16_t>& types) {
  co_await c.send(request(read_, 77, offset, length, flags));
  std::string all(length, '?');
  std::size_t got = 0;
  while (true) {
    Chunk k = co_await chunk(c);
    EXPECT_EQ(k.cookie, 77u);
    types.insert(k.type);
    if (k.type == kData) {
      std::uint64_t at = number(k.body.substr(0, 8)) - offset;
      all.replace(at, k.body.size() - 8, k.body.substr(8));
      got += k.body.size() - 8;
    } else if (k.type == kHole) {
      std::uint64_t at = number(k.body.substr(0, 8)) - offset, n = number(k.body.substr(8, 4));
      all.replace(at, n, std::string(n, '\0'));
      got += n;
    } else if (k.type != kNone) {
      co_return "";
    }
    if (k.done()) break;
  }
  EXPECT_EQ(got, length);
  co_return all;
}

// The memory target answers stretches without data with the shared zeros, as a volume does.
TEST(NbdStructured, ReadsComeInChunksAndHolesAreTold) {
  Bench b;
  for (std::size_t i = 1 << 20; i < 2 << 20; ++i) b.server->target.bytes()[i] = static_cast<std::byte>(i * 31 + i / 4096);
  b.run([](Bench& b, io::World& w) -> io::Task<void> {
    b.server->target.sparse = true;
    RawClient c(w);
    co_await open_with(c, false);
    std::set<std::uint16_t> types;
    for (auto [offset, length] : {std::pair<std::uint64_t, std::uint32_t>{(1 << 20) - 8192, 16384}, {1 << 20, 4096}, {0, 1 << 20}, {5000, 3}, {0, 3 << 20}}) {
      types.clear();
      std::string got = co_await read_back(c, offset, length, 0, types);
      EXPECT_TRUE(got == b.disk_text(offset, length)) << offset << " " << length;
    }
    EXPECT_EQ(types, (std::set<std::uint16_t>{kData, kHole})) << "of the last, which spans both";
    types.clear();
    std::string got = co_await read_back(c, 0, 3 << 20, nbd::flag_dont_fragment, types);
    EXPECT_TRUE(got == b.disk_text(0, 3 << 20));
    EXPECT_EQ(types, std::set<std::uint16_t>{kData});
    co_await c.send(request(read_, 5, 0, 0));
    Chunk empty = co_await chunk(c);
    EXPECT_TRUE(empty.done() && empty.type == kNone);
  });
}

// Requirement: B-08
TEST(NbdStructured, AnErrorOfAReadIsAChunk) {
  Bench b;
  b.run([](Bench& b, io::World& w) -> io::Task<void> {
    RawClient c(w);
    co_await open_with(c, true);
    for (std::uint16_t type : {read_, status_})
      for (auto [offset, length] : {std::pair<std::uint64_t, std::uint32_t>{kSize, 4096}, {kSize - 1, 2}, {~std::uint64_t{0}, 1}}) {
        co_await c.send(request(type, 6, offset, length));
        Chunk k = co_await chunk(c);
        EXPECT_EQ(k.type, kError);
        EXPECT_TRUE(k.done());
        EXPECT_EQ(k.cookie, 6u);
        EXPECT_EQ(number(k.body.substr(0, 4)), nbd::einval);
        EXPECT_EQ(number(k.body.substr(4, 2)) + 6, k.body.size());
      }
    co_await c.send(request(status_, 6, 0, 0));
    Chunk k = co_await chunk(c);
    EXPECT_EQ(k.type, kError);
    std::set<std::uint16_t> types;
    std::string got = co_await read_back(c, 0, 4096, 0, types);
    EXPECT_TRUE(got == b.disk_text(0, 4096));
  });
}

struct Extent {
  std::uint32_t bytes;
  std::uint32_t state;
  bool operator==(const Extent&) const = default;
};
io::Task<std::vector<Extent>> extents(RawClient& c, std::uint64_t offset, std::uint32_t length, std::uint16_t flags = 0) {
  co_await c.send(request(status_, 8, offset, length, flags));
  Chunk k = co_await chunk(c);
  EXPECT_EQ(k.type, kStatus);
  EXPECT_TRUE(k.done());
  std::vector<Extent> all;
  if (k.type != kStatus) co_return all;
  EXPECT_EQ(number(k.body.substr(0, 4)), nbd::kAllocationId);
  for (std::size_t at = 4; at < k.body.size(); at += 8)
    all.push_back({static_cast<std::uint32_t>(number(k.body.substr(at, 4))), static_cast<std::uint32_t>(number(k.body.substr(at + 4, 4)))});
  co_return all;
}

TEST(NbdStructured, BlockStatusTellsWhereDataIs) {
  Bench b;
  std::memset(b.server->target.bytes().data() + 8192, 'd', 12288);
  b.run([](Bench&, io::World& w) -> io::Task<void> {
    RawClient c(w);
    co_await open_with(c, true);
    enum : std::uint32_t { data = 0, hole = 3 };
    auto got = co_await extents(c, 0, kSize);
    EXPECT_EQ(got, (std::vector<Extent>{{8192, hole}, {12288, data}, {kSize - 20480, hole}}));
    got = co_await extents(c, 8000, 1000);
    EXPECT_EQ(got, (std::vector<Extent>{{192, hole}, {808, data}}));
    got = co_await extents(c, 8192, 100);
    EXPECT_EQ(got, (std::vector<Extent>{{100, data}}));
    got = co_await extents(c, 0, kSize, nbd::flag_request_one);
    EXPECT_EQ(got, (std::vector<Extent>{{8192, hole}}));
    co_await c.send(request(trim_, 1, 8192, 4096));
    auto r = co_await c.reply();
    EXPECT_EQ(r.error, 0u);
    got = co_await extents(c, 0, 20480);
    EXPECT_EQ(got, (std::vector<Extent>{{12288, hole}, {8192, data}}));
  });
}

TEST(NbdStructured, MetadataContextsAreAgreedUponOrNotThere) {
  Bench b;
  b.run([](Bench&, io::World& w) -> io::Task<void> {
    RawClient c(w);
    co_await greet(c);
    for (std::uint32_t which : {9u, 10u}) {
      std::uint32_t type = co_await ask(c, option(which, meta("disk", {"base:allocation"})));
      EXPECT_EQ(type, nbd::kErrInvalid) << "without structured replies";
    }
    std::uint32_t type = co_await ask(c, option(8, "x"));
    EXPECT_EQ(type, nbd::kErrInvalid);
    type = co_await ask(c, option(8, ""));
    EXPECT_EQ(type, nbd::kAck);
    struct Case {
      std::uint32_t option;
      std::string body;
      std::uint32_t answer;  // the first
    };
    std::string cut = meta("disk", {"base:allocation"});
    cut.pop_back();
    for (const Case& k : {Case{9, meta("disk", {}), nbd::kMetaContext}, Case{9, meta("disk", {"base:"}), nbd::kMetaContext}, Case{9, meta("", {"base:allocation"}), nbd::kMetaContext},
                          Case{9, meta("disk", {"qemu:"}), nbd::kAck}, Case{10, meta("disk", {}), nbd::kAck}, Case{10, meta("disk", {"base:"}), nbd::kAck},
                          Case{10, meta("disk", {"qemu:dirty-bitmap:x", "base:allocation"}), nbd::kMetaContext}, Case{10, meta("none", {"base:allocation"}), nbd::kErrUnknown},
                          Case{10, cut, nbd::kErrInvalid}, Case{10, meta("disk", {"x"}) + "y", nbd::kErrInvalid}, Case{10, Wire().put(~std::uint32_t{0}).text, nbd::kErrInvalid},
                          Case{10, Wire().put(std::uint32_t{4}).put("disk").put(~std::uint32_t{0}).text, nbd::kErrInvalid}}) {
      type = co_await ask(c, option(k.option, k.body));
      EXPECT_EQ(type, k.answer) << k.option << " with " << k.body.size() << " bytes";
      if (type == nbd::kMetaContext) {
        type = co_await c.option_reply();
        EXPECT_EQ(type, nbd::kAck);
      }
    }
    // The last SET was wrong: nothing is agreed upon.
    co_await enter(c);
    co_await c.send(request(status_, 8, 0, 4096));
    Chunk k = co_await chunk(c);
    EXPECT_EQ(k.type, kError);
  });
}

TEST(NbdStructured, OneAddressServesSeveralExports) {
  Bench b;
  b.run([](Bench& b, io::World& w) -> io::Task<void> {
    io::World& there = b.sim.world(b.attach);
    testing::MemoryTarget second(there, kSize / 2);
    std::memset(second.bytes().data(), '2', second.bytes().size());
    auto e = std::make_shared<NbdExport>();
    e->info = {"zweite", kSize / 2, false};
    e->target = &second;
    b.server->portal->exports["zweite"] = e;
    RawClient c(w);
    co_await greet(c);
    co_await c.send(option(3, ""));
    for (std::uint32_t expected : {nbd::kServer, nbd::kServer, nbd::kAck}) {
      std::uint32_t type = co_await c.option_reply();
      EXPECT_EQ(type, expected);
    }
    std::uint32_t type = co_await ask(c, option(7, go("")));
    EXPECT_EQ(type, nbd::kErrUnknown) << "no name means the only one, and there are two";
    type = co_await ask(c, option(8, ""));
    EXPECT_EQ(type, nbd::kAck);
    type = co_await ask(c, option(10, meta("disk", {"base:allocation"})));
    EXPECT_EQ(type, nbd::kMetaContext);
    co_await c.option_reply();
    co_await enter(c, "zweite");
    std::set<std::uint16_t> types;
    std::string got = co_await read_back(c, 0, 4096, 0, types);
    EXPECT_TRUE(got == std::string(4096, '2'));
    co_await c.send(request(status_, 8, 0, 4096));
    Chunk k = co_await chunk(c);
    EXPECT_EQ(k.type, kError) << "the context was agreed upon for the other one";
    EXPECT_EQ(e->stats.connections, 1u);
    EXPECT_EQ(b.server->served->stats.connections, 0u);
    c.stream->close();
    co_await w.sleep(1s);
  });
}

/// A certificate of its own making; empty if there is no openssl program.
TlsFiles self_signed(const io::testing::TemporaryDirectory& dir) {
  std::string command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost -keyout " + (dir / "key.pem") + " -out " +
                        (dir / "certificate.pem") + " >/dev/null 2>&1";
  if (std::system(command.c_str()) != 0) return {};
  return {dir / "certificate.pem", dir / "key.pem", ""};
}

// Requirement: B-12 switch=no-tls-demand
TEST(NbdStructured, AnAddressWithTlsAnswersNothingWithoutIt) {
  static TlsFiles files;
  io::testing::TemporaryDirectory dir;
  files = self_signed(dir);
  if (!files.any()) GTEST_SKIP() << "openssl is not installed";
  Bench b;
  b.run([](Bench& b, io::World& w) -> io::Task<void> {
    auto context = TlsContext::load(files);
    EXPECT_TRUE(context.ok()) << context.status().text();
    b.server->portal->tls = *context;
    RawClient c(w);
    co_await greet(c);
    for (const std::string& o : {option(3, ""), option(6, go("disk")), option(7, go("disk")), option(8, ""), option(9, meta("disk", {})), option(10, meta("disk", {"base:allocation"})), option(99, "abc")}) {
      std::uint32_t type = co_await ask(c, o);
      EXPECT_EQ(type, nbd::kErrTlsRequired);
    }
    RawClient by_name(w);
    co_await greet(by_name);
    co_await by_name.send(option(1, "disk"));
    std::string rest = co_await by_name.receive(1);
    EXPECT_TRUE(rest.empty());
    // Slipped in behind STARTTLS by somebody between: must not be taken for the client's word.
    RawClient cheat(w);
    co_await greet(cheat);
    co_await cheat.send(option(5, "") + option(7, go("disk")));
    std::uint32_t type = co_await cheat.option_reply();
    EXPECT_EQ(type, nbd::kAck);
    rest = co_await cheat.receive(1);
    EXPECT_TRUE(rest.empty());
    // No TLS where TLS should be.
    RawClient garbage(w);
    co_await greet(garbage);
    type = co_await ask(garbage, option(5, ""));
    EXPECT_EQ(type, nbd::kAck);
    co_await garbage.send(std::string(500, 'g'));
    std::string said;
    do said = co_await garbage.receive(1);
    while (!said.empty());
    // And silence there ends like any other silence in a handshake.
    RawClient silent(w);
    co_await greet(silent);
    type = co_await ask(silent, option(5, ""));
    EXPECT_EQ(type, nbd::kAck);
    io::Time begin = w.now();
    do said = co_await silent.receive(1);
    while (!said.empty());
    EXPECT_LE(w.now() - begin, kNegotiationTime + 1s);
  });
}

TEST(NbdStructured, WrongCertificatesAreSaid) {
  io::testing::TemporaryDirectory dir, other;
  TlsFiles good = self_signed(dir), bad = self_signed(other);
  if (!good.any()) GTEST_SKIP() << "openssl is not installed";
  EXPECT_TRUE(TlsContext::load(good).ok());
  for (auto [files, word] : {std::pair<TlsFiles, std::string>{{good.certificate, "", ""}, "--tls-key"}, {{"", good.key, ""}, "--tls-certificate"},
                             {{good.certificate, bad.key, ""}, "key"}, {{dir / "nothing", good.key, ""}, "nothing"}, {{good.certificate, dir / "nothing", ""}, "nothing"},
                             {{good.certificate, good.key, dir / "nothing"}, "nothing"}, {{good.key, good.key, ""}, "key.pem"}}) {
    auto context = TlsContext::load(files);
    ASSERT_FALSE(context.ok());
    EXPECT_EQ(context.code(), Code::invalid);
    EXPECT_NE(context.status().text().find(word), std::string::npos) << context.status().text();
  }
}

}  // namespace
}  // namespace luge::attach
