#include "sim/cluster/simulation.hpp"

#include <gtest/gtest.h>

#include <array>

#include "base/crc32c.hpp"

namespace luge::sim {
namespace {

using io::Task;

std::vector<std::byte> pattern(std::size_t bytes, unsigned char value) {
  return std::vector<std::byte>(bytes, std::byte{value});
}

Task<void> sleeper(io::World& w, Duration d, int id, std::vector<int>& order) {
  co_await w.sleep(d);
  order.push_back(id);
}

TEST(Simulation, TimersFireInOrderOfTime) {
  Simulation sim(1);
  Node a = sim.add_node("a");
  std::vector<int> order;
  for (int ms : {30, 10, 20, 10}) sim.world(a).spawn("s", sleeper(sim.world(a), ms * 1ms, ms, order));
  sim.run_for(25ms);
  EXPECT_EQ(order, (std::vector<int>{10, 10, 20}));
  sim.run_for(1h);
  EXPECT_EQ(order.size(), 4u);
  EXPECT_EQ(sim.now(), 25ms + 1h);
}

TEST(Simulation, LoopAroundYieldDoesNotStopTime) {
  Simulation sim(1);
  Node a = sim.add_node("a");
  sim.run(a, [](io::World& w) -> Task<void> {
    io::Time end = w.now() + 1ms;
    while (w.now() < end) co_await w.yield();
  }(sim.world(a)));
}

TEST(Simulation, ClockOffsetAndRate) {
  Simulation sim(1);
  Node a = sim.add_node("a");
  sim.set_clock(a, 5s, 1.01);
  io::Time before = sim.world(a).now();
  Duration t = sim.now();
  sim.run(a, [](io::World& w) -> Task<void> { co_await w.sleep(101s); }(sim.world(a)));
  EXPECT_NEAR(static_cast<double>((sim.now() - t).count()), 100e9, 1e6);
  EXPECT_GE(sim.world(a).now() - before, 101s);
}

// An echo server that counts, and a client that talks to it: enough chance and I/O for a trace.
struct Echo {
  explicit Echo(io::World& w) : world(w) {
    listener = std::move(*w.network().listen("tcp:echo:1"));
    w.spawn("accept", accept());
  }
  Task<void> accept() {
    while (auto s = co_await listener->accept()) {
      std::shared_ptr<io::Stream> shared = std::move(s);
      world.spawn("serve", serve(shared));
    }
  }
  Task<void> serve(std::shared_ptr<io::Stream> s) {
    std::array<std::byte, 1000> b;
    while (std::size_t n = co_await s->read_some(b)) {
      Bytes part(b.data(), n);
      bool ok = co_await s->write_all({&part, 1});
      if (!ok) break;
    }
  }
  io::World& world;
  std::unique_ptr<io::Listener> listener;
};

Task<void> talk(io::World& w, std::size_t bytes, bool& all) {
  auto s = co_await w.network().connect("tcp:echo:1", 1s);
  if (!s.ok()) co_return;
  std::vector<std::byte> out(bytes), in(bytes);
  for (auto& b : out) b = static_cast<std::byte>(w.random());
  std::array<Bytes, 2> parts{Bytes(out).first(bytes / 3), Bytes(out).subspan(bytes / 3)};
  bool ok = co_await (*s)->write_all(parts);
  std::size_t have = 0;
  while (ok && have < bytes) {
    std::size_t n = co_await (*s)->read_some(MutableBytes(in).subspan(have));
    if (n == 0) co_return;
    have += n;
  }
  all = ok && in == out;
}

Simulation::Boot echo_boot() {
  return [](io::World& w) { return std::make_shared<Echo>(w); };
}

TEST(Network, BytesArriveInOrder) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    Simulation sim(seed);
    sim.add_node("server", echo_boot());
    Node c = sim.add_node("client");
    bool all = false;
    sim.run(c, talk(sim.world(c), 100'000, all));
    EXPECT_TRUE(all);
  }
}

std::uint64_t trace_of(std::uint64_t seed) {
  Simulation sim(seed);
  Node s = sim.add_node("server", echo_boot());
  Node c = sim.add_node("client");
  bool all = false;
  for (int i = 0; i < 10; ++i) sim.world(c).spawn("talk", talk(sim.world(c), 10'000 + i, all));
  sim.after(3ms, [&] { sim.crash(s, Crash::power); });
  sim.after(5ms, [&] { sim.restart(s); });
  sim.run_for(30s);
  sim.note(sim.world(c).random());
  return sim.trace_hash();
}

TEST(Simulation, SameSeedSameTrace) {
  EXPECT_EQ(trace_of(7), trace_of(7));
  EXPECT_NE(trace_of(7), trace_of(8));
}

TEST(Network, NobodyListensIsRefusedAndACutTimesOut) {
  Simulation sim(3);
  Node s = sim.add_node("server", echo_boot());
  Node c = sim.add_node("client");
  auto connect = [&](Code& code) -> void {
    sim.run(c, [](io::World& w, Code& out) -> Task<void> {
      auto r = co_await w.network().connect("tcp:echo:1", 500ms);
      out = r.code();
    }(sim.world(c), code));
  };
  Code code = Code::internal;
  connect(code);
  EXPECT_EQ(code, Code::ok);
  sim.fabric().cut(s, c);
  connect(code);
  EXPECT_EQ(code, Code::timed_out);
  sim.fabric().heal_all();
  sim.crash(s, Crash::power);
  connect(code);
  EXPECT_EQ(code, Code::timed_out);
  sim.restart(s);
  connect(code);
  EXPECT_EQ(code, Code::ok);
}

struct Reader {
  std::string got;
  bool ended = false;
  bool write_failed = false;
  Duration ended_at{0};
};

// Connects, sends "hello", then reads until the end. Every 100 ms it sends another byte.
Task<void> chat(io::World& w, Simulation& sim, Reader& r) {
  auto s = co_await w.network().connect("tcp:echo:1", 1s);
  if (!s.ok()) co_return;
  std::shared_ptr<io::Stream> stream = std::move(*s);
  w.spawn("sender", [](io::World& w, std::shared_ptr<io::Stream> s, Reader& r) -> Task<void> {
    while (true) {
      Bytes b = as_bytes("x");
      bool ok = co_await s->write_all({&b, 1});
      if (!ok) break;
      co_await w.sleep(100ms);
    }
    r.write_failed = true;
  }(w, stream, r));
  std::array<std::byte, 10> b;
  while (std::size_t n = co_await stream->read_some(b)) r.got.append(reinterpret_cast<char*>(b.data()), n);
  r.ended = true;
  r.ended_at = sim.now();
}

TEST(Network, ShortCutOnlyStalls) {
  Simulation sim(4);
  Node s = sim.add_node("server", echo_boot());
  Node c = sim.add_node("client");
  Reader r;
  sim.world(c).spawn("chat", chat(sim.world(c), sim, r));
  sim.run_for(350ms);
  std::size_t before = r.got.size();
  EXPECT_GE(before, 3u);
  sim.fabric().cut_both(s, c);
  sim.run_for(1s);
  EXPECT_EQ(r.got.size(), before);
  EXPECT_FALSE(r.ended);
  sim.fabric().heal_all();
  sim.run_for(3s);
  EXPECT_FALSE(r.ended);
  EXPECT_GE(r.got.size(), 35u);
}

TEST(Network, LongCutBreaksTheSender) {
  Simulation sim(4);
  Node s = sim.add_node("server", echo_boot());
  Node c = sim.add_node("client");
  Reader r;
  sim.world(c).spawn("chat", chat(sim.world(c), sim, r));
  sim.run_for(350ms);
  sim.fabric().cut(c, s);
  sim.run_for(40s);
  EXPECT_TRUE(r.ended);
  EXPECT_TRUE(r.write_failed);
}

TEST(Network, KilledProcessIsNoticedAtOnceADeadMachineIsNot) {
  for (Crash kind : {Crash::process, Crash::power}) {
    Simulation sim(5);
    Node s = sim.add_node("server", echo_boot());
    Node c = sim.add_node("client");
    Reader r;
    sim.world(c).spawn("chat", chat(sim.world(c), sim, r));
    sim.run_for(350ms);
    sim.crash(s, kind);
    sim.run_for(1s);
    EXPECT_EQ(r.ended, kind == Crash::process);
    sim.restart(s);
    sim.run_for(4s);
    EXPECT_TRUE(r.ended);  // the machine is up again and knows nothing of the connection
  }
}

TEST(Network, PausedNodeKeepsItsInput) {
  Simulation sim(6);
  Node s = sim.add_node("server", echo_boot());
  Node c = sim.add_node("client");
  Reader r;
  sim.world(c).spawn("chat", chat(sim.world(c), sim, r));
  sim.run_for(350ms);
  sim.pause(s);
  std::size_t before = r.got.size();
  sim.run_for(20s);
  EXPECT_LE(r.got.size(), before + 1);
  EXPECT_FALSE(r.ended);
  sim.resume(s);
  sim.run_for(100ms);
  EXPECT_GE(r.got.size(), before + 190);
}

TEST(Network, PausedNodesTimersWait) {
  Simulation sim(6);
  Node a = sim.add_node("a");
  std::vector<int> order;
  sim.world(a).spawn("s", sleeper(sim.world(a), 10ms, 1, order));
  sim.run_for(1ms);
  sim.pause(a);
  sim.run_for(1s);
  EXPECT_TRUE(order.empty());
  sim.resume(a);
  sim.run_for(1ms);
  EXPECT_EQ(order.size(), 1u);
}

TEST(Network, WriterWaitsForASlowReader) {
  Simulation sim(8);
  sim.add_node("server", [](io::World& w) -> std::shared_ptr<void> {
    struct Deaf {
      std::unique_ptr<io::Listener> l;
    };
    auto d = std::make_shared<Deaf>();
    d->l = std::move(*w.network().listen("tcp:echo:1"));
    return d;
  });
  Node c = sim.add_node("client");
  std::size_t sent = 0;
  sim.world(c).spawn("send", [](io::World& w, std::size_t& sent) -> Task<void> {
    auto s = co_await w.network().connect("tcp:echo:1", 1s);
    auto chunk = pattern(1 << 20, 1);
    Bytes b(chunk);
    while (co_await (*s)->write_all({&b, 1})) sent += chunk.size();
  }(sim.world(c), sent));
  sim.run_for(10s);
  EXPECT_EQ(sent, 4u << 20);
}

// --- disks

Task<void> write_at(io::World& w, std::string path, std::uint64_t offset, unsigned char value, std::size_t bytes,
                    io::Durability d, bool sync, int& done) {
  auto f = co_await w.files().open(path, {.create = true, .size = 1 << 20});
  LUGE_CHECK(f.ok());
  auto data = pattern(bytes, value);
  Bytes b(data);
  Status s = co_await (*f)->write(offset, {&b, 1}, d);
  LUGE_CHECK(s.ok());
  if (sync) {
    Status y = co_await (*f)->sync();
    LUGE_CHECK(y.ok());
  }
  ++done;
}

std::vector<std::byte> content(Simulation& sim, Node n, std::uint64_t offset, std::size_t bytes) {
  std::vector<std::byte> out(bytes);
  sim.disk(n).file("f")->read(offset, out);
  return out;
}

TEST(Disk, DurableWritesSurviveAPowerCut) {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    Simulation sim(seed);
    Node a = sim.add_node("a");
    int done = 0;
    sim.run(a, write_at(sim.world(a), "f", 4096, 7, 8192, io::Durability::durable, false, done));
    sim.run(a, write_at(sim.world(a), "f", 65536, 8, 8192, io::Durability::cached, true, done));
    sim.crash(a, Crash::power);
    EXPECT_EQ(content(sim, a, 4096, 8192), pattern(8192, 7));
    EXPECT_EQ(content(sim, a, 65536, 8192), pattern(8192, 8));
    sim.restart(a);
  }
}

TEST(Disk, CachedWritesMayBeLostOrTornByAPowerCutOnly) {
  int lost = 0, kept = 0, torn = 0;
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    Simulation sim(seed);
    Node a = sim.add_node("a");
    int done = 0;
    sim.run(a, write_at(sim.world(a), "f", 4096, 6, 8192, io::Durability::durable, false, done));
    sim.run(a, write_at(sim.world(a), "f", 4096, 7, 8192, io::Durability::cached, false, done));
    sim.crash(a, Crash::process);
    ASSERT_EQ(content(sim, a, 4096, 8192), pattern(8192, 7));
    sim.restart(a);
    sim.crash(a, Crash::power);
    auto left = content(sim, a, 4096, 8192);
    for (std::size_t at = 0; at < left.size(); at += kSectorBytes) {
      Bytes sector = Bytes(left).subspan(at, kSectorBytes);
      for (std::byte b : sector) ASSERT_TRUE(b == sector[0]) << "a sector is never torn";
      ASSERT_TRUE(sector[0] == std::byte{6} || sector[0] == std::byte{7});
    }
    if (left == pattern(8192, 6)) ++lost;
    else if (left == pattern(8192, 7)) ++kept;
    else ++torn;
  }
  EXPECT_GT(lost, 20);
  EXPECT_GT(kept, 20);
  EXPECT_GT(torn, 20);
}

TEST(Disk, WriteInFlightAtACrashIsAnything) {
  int lost = 0, kept = 0, torn = 0;
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    Simulation sim(seed);
    Node a = sim.add_node("a");
    int done = 0;
    sim.run(a, write_at(sim.world(a), "f", 0, 6, 8192, io::Durability::durable, false, done));
    sim.world(a).spawn("w", write_at(sim.world(a), "f", 0, 7, 8192, io::Durability::durable, false, done));
    ASSERT_TRUE(sim.run_until([&] { return !sim.disk(a).file("f")->in_flight.empty(); }, 1s));
    sim.crash(a, seed % 2 ? Crash::power : Crash::process);
    EXPECT_EQ(done, 1);
    auto left = content(sim, a, 0, 8192);
    if (left == pattern(8192, 6)) ++lost;
    else if (left == pattern(8192, 7)) ++kept;
    else ++torn;
  }
  EXPECT_GT(lost, 20);
  EXPECT_GT(kept, 20);
  EXPECT_GT(torn, 20);
}

TEST(Disk, FaultsAreReportedOrHidden) {
  Simulation sim(9);
  Node a = sim.add_node("a");
  sim.run(a, [](Simulation& sim, Node a, io::World& w) -> Task<void> {
    auto f = co_await w.files().open("f", {.create = true, .size = 1 << 20, .lock = true});
    EXPECT_TRUE(f.ok());
    auto again = co_await w.files().open("f", {.lock = true});
    EXPECT_EQ(again.code(), Code::exists);
    auto data = pattern(4096, 3), back = pattern(4096, 0);
    Bytes b(data);
    DiskFaults& faults = sim.disk(a).faults;
    faults.write_error = 1;
    Status s = co_await (*f)->write(0, {&b, 1}, io::Durability::durable);
    EXPECT_EQ(s.code(), Code::io_error);
    faults.write_error = 0;
    faults.lost_write = 1;
    s = co_await (*f)->write(8192, {&b, 1}, io::Durability::durable);
    EXPECT_TRUE(s.ok());
    faults.lost_write = 0;
    s = co_await (*f)->read(8192, back);
    EXPECT_TRUE(s.ok());
    EXPECT_EQ(back, pattern(4096, 0));
    faults.misdirected_write = 1;
    s = co_await (*f)->write(16384, {&b, 1}, io::Durability::durable);
    EXPECT_TRUE(s.ok());
    faults.misdirected_write = 0;
    s = co_await (*f)->read(16384, back);
    EXPECT_EQ(back, pattern(4096, 0));
    s = co_await (*f)->write(16384, {&b, 1}, io::Durability::durable);
    sim.disk(a).rot("f", 16384 + 700);
    s = co_await (*f)->read(16384, back);
    EXPECT_TRUE(s.ok());
    EXPECT_NE(back, data);
    faults.read_error = 1;
    s = co_await (*f)->read(0, back);
    EXPECT_EQ(s.code(), Code::io_error);
    faults.sync_error = 1;
    s = co_await (*f)->sync();
    EXPECT_EQ(s.code(), Code::io_error);
    faults.capacity = 2 << 20;
    auto big = co_await w.files().open("big", {.create = true, .size = 4 << 20});
    EXPECT_EQ(big.code(), Code::no_space);
  }(sim, a, sim.world(a)));
}

TEST(Disk, NamesDirectoriesAndRename) {
  Simulation sim(9);
  Node a = sim.add_node("a");
  sim.run(a, [](io::World& w) -> Task<void> {
    io::Files& files = w.files();
    auto missing = co_await files.open("d/x", {.create = true, .size = 4096});
    EXPECT_EQ(missing.code(), Code::not_found);
    Status s = co_await files.make_directory("d");
    EXPECT_TRUE(s.ok());
    for (const char* name : {"d/x", "d/b", "top"}) {
      auto f = co_await files.open(name, {.create = true, .size = 4096});
      EXPECT_TRUE(f.ok());
    }
    s = co_await files.rename("d/x", "d/a");
    EXPECT_TRUE(s.ok());
    auto in_d = co_await files.list("d");
    EXPECT_EQ(*in_d, (std::vector<std::string>{"a", "b"}));
    auto root = co_await files.list("");
    EXPECT_EQ(*root, (std::vector<std::string>{"d", "top"}));
    s = co_await files.remove("d/b");
    EXPECT_TRUE(s.ok());
    s = co_await files.remove("d/b");
    EXPECT_EQ(s.code(), Code::not_found);
  }(sim.world(a)));
}

}  // namespace
}  // namespace luge::sim
