// A device whose I/O never returns costs itself, and after the I/O timeout nothing else: fences, lists and releases of the
// other devices go on, and nobody waits for ever.
#include <array>

#include "io/within.hpp"
#include "sled/unit_fixture.hpp"

namespace luge::sled::testing {
namespace {

using namespace std::chrono_literals;

constexpr io::Duration kTimeout = 3s;

struct HungDevice : ::testing::Test {
  void hang(std::uint32_t device, bool on = true) { u.disk(0).file("/dev/disk" + std::to_string(device))->hung = on; }
  std::string state(std::uint32_t device) {
    std::string r = u.report(0), key = "\"path\":\"/dev/disk" + std::to_string(device) + "\",\"state\":\"";
    auto at = r.find(key);
    return at == std::string::npos ? r : r.substr(at + key.size(), r.find('"', at + key.size()) - at - key.size());
  }
  Generation claim(std::uint16_t device) {
    auto c = u.claim(0, kVp, 1, 0, slot_bytes(), device);
    EXPECT_TRUE(c.ok()) << c.status().to_string();
    return c.ok() ? c->slots[0].generation() : 0;
  }
  // How long `p` took to be answered.
  io::Duration wait(const SledUnit::Pending& p) {
    io::Duration begin = u.sim.now();
    EXPECT_TRUE(u.sim.run_until([&] { return p->has_value(); }, 60s)) << "no answer";
    return u.sim.now() - begin;
  }
  SledUnit u{1, 3, 1, [](Options& o) { o.io_timeout = kTimeout; }};
};

TEST_F(HungDevice, DoesNotHoldUpAFence) {
  ASSERT_TRUE(u.fence(0, kVp, 1).ok());
  hang(1);
  auto p = u.begin(0, SledUnit::fence_frame(kVp, 2));
  EXPECT_LT(wait(p), kTimeout + 1s);
  EXPECT_TRUE(SledUnit::fence_status(**p).ok());
  EXPECT_EQ(state(0), "ok");
  EXPECT_EQ(state(1), "failed");
  EXPECT_EQ(state(2), "ok");
  // From now on it costs nothing.
  p = u.begin(0, SledUnit::fence_frame(kVp, 3));
  EXPECT_LT(wait(p), 100ms);
  EXPECT_TRUE(SledUnit::fence_status(**p).ok());
  ASSERT_TRUE(u.bounce(0).ok());
  EXPECT_EQ(u.fence(0, kVp, 2).code(), Code::fenced);
}

// A write of the old epoch hangs in the device: the fence does not wait for it for ever, and it is no use to anybody.
TEST_F(HungDevice, AnOldWriteInItDoesNotHoldUpAFence) {
  ASSERT_TRUE(u.fence(0, kVp, 1).ok());
  Generation g = claim(1);
  Stripe a = u.stripe(1);
  auto place = u.place(0, 0, 0, g, 1);
  hang(1);
  auto write = u.begin(0, u.write_frame(a, 0, place));
  ASSERT_TRUE(u.sim.run_until([&] { return u.disk(0).writing(); }, 5s));
  auto fence = u.begin(0, SledUnit::fence_frame(kVp, 2));
  EXPECT_LT(wait(fence), kTimeout + 1s);
  EXPECT_TRUE(SledUnit::fence_status(**fence).ok());
  EXPECT_EQ(u.plain(u.end(write)).code(), Code::io_error);
  // It lands after all, in a device that is not used any more.
  hang(1, false);
  u.sim.run_for(1s);
  EXPECT_FALSE(u.disk(0).writing());
  EXPECT_EQ(state(1), "failed");
  EXPECT_EQ(u.read(0, a.id, 0, place).code(), Code::io_error);
  ASSERT_TRUE(u.bounce(0).ok());
  EXPECT_EQ(state(1), "ok");
  EXPECT_EQ(u.list(0, kVp, 2)->at(0).slots[0].state(), 1) << "the new primary sees what there is before it uses a slot";
}

TEST_F(HungDevice, DoesNotHoldUpListsClaimsAndReleases) {
  ASSERT_TRUE(u.fence(0, kVp, 1).ok());
  Generation g[3];
  for (std::uint16_t d = 0; d < 3; ++d) g[d] = claim(d);
  ASSERT_TRUE(u.write(0, u.stripe(1), 0, u.place(0, 0, 0, g[2], 2)).ok());
  ASSERT_TRUE(u.bounce(0).ok());  // so that the list has to read headers
  hang(1);
  auto l = u.list(0, kVp, 1);
  ASSERT_TRUE(l.ok()) << l.status().to_string();
  ASSERT_EQ(l->size(), 2u);
  EXPECT_EQ(l->at(1).device, 2);
  EXPECT_EQ(state(1), "failed");
  hang(2);
  EXPECT_EQ(u.claim(0, kVp, 1, 1, slot_bytes(), 2).code(), Code::io_error);
  EXPECT_TRUE(u.claim(0, kVp, 1, 1, slot_bytes(), 0).ok());
  EXPECT_TRUE(u.release(0, kVp, 1).ok());
  EXPECT_TRUE(u.list(0, kVp, 1)->empty());
}

// Requests that hang in one device take no memory from the others.
TEST_F(HungDevice, StarvesNoOther) {
  u.options[0].device_memory = 2 * kChunk;
  ASSERT_TRUE(u.bounce(0).ok());
  ASSERT_TRUE(u.fence(0, kVp, 1).ok());
  Generation g0 = claim(0), g1 = claim(1);
  Stripe good = u.stripe(100), read_later = u.stripe(101);
  ASSERT_TRUE(u.write(0, good, 0, u.place(0, 0, 0, g0, 0)).ok());
  ASSERT_TRUE(u.write(0, read_later, 0, u.place(0, 0, 40, g1, 1)).ok());
  hang(1);
  std::vector<SledUnit::Pending> stuck;
  for (std::uint32_t i = 0; i < 6; ++i) {
    stuck.push_back(u.begin(0, u.write_frame(u.stripe(i + 1), 0, u.place(0, 0, i, g1, 1))));
    fbs::StripeId sid = wire_id(read_later.id);
    auto p = u.place(0, 0, 40, g1, 1);
    stuck.push_back(u.begin(0, wire::make_frame(wire::Kind::read_chunk, [&](auto& b) { return fbs::CreateReadChunk(b, &sid, &p, 0, 0, 4, false); })));
  }
  u.sim.run_for(100ms);
  for (std::uint32_t i = 1; i < 20; ++i) {
    auto p = u.begin(0, u.write_frame(u.stripe(200 + i), 0, u.place(0, 0, i, g0, 0)));
    EXPECT_LT(wait(p), 200ms);
    EXPECT_TRUE(u.plain(**p).ok());
    EXPECT_TRUE(u.read(0, good.id, 0, u.place(0, 0, 0, g0, 0)).ok());
  }
  for (auto& p : stuck) {
    auto r = u.end(p);
    ASSERT_TRUE(r.ok()) << r.status().to_string();
    const auto* m = r->kind == wire::Kind::chunk ? r->as<fbs::Chunk>() : nullptr;
    EXPECT_EQ(m ? static_cast<Code>(m->code()) : wire::status_of(*r).code(), Code::io_error);
  }
}

TEST_F(HungDevice, DoesNotHoldUpAStart) {
  ASSERT_TRUE(u.fence(0, kVp, 7).ok());
  u.crash(0);
  hang(0);
  hang(2);
  io::Duration begin = u.sim.now();
  ASSERT_TRUE(u.restart(0).ok());
  EXPECT_LT(u.sim.now() - begin, kTimeout + 1s) << "both at once";
  EXPECT_EQ(state(0), "failed");
  EXPECT_EQ(state(1), "ok");
  EXPECT_EQ(u.fence(0, kVp, 6).code(), Code::fenced);
}

// Where the process itself stood still, or the disk is only slow, nothing hangs.
TEST_F(HungDevice, IsNotWhatAPausedProcessTakesADeviceFor) {
  ASSERT_TRUE(u.fence(0, kVp, 1).ok());
  Generation g = claim(1);
  auto write = u.begin(0, u.write_frame(u.stripe(1), 0, u.place(0, 0, 0, g, 1)));
  ASSERT_TRUE(u.sim.run_until([&] { return u.disk(0).writing(); }, 5s));
  u.sim.pause(u.nodes[0]);
  u.sim.run_for(80s);
  u.sim.resume(u.nodes[0]);
  u.sim.run_for(1s);
  EXPECT_EQ(state(1), "ok");
  hang(1);
  auto fence = u.begin(0, SledUnit::fence_frame(kVp, 2));
  u.sim.run_for(kTimeout / 2);
  hang(1, false);
  EXPECT_TRUE(SledUnit::fence_status(u.end(fence)).ok());
  EXPECT_EQ(state(1), "ok");
}

// An operation of several steps, each of which has yet to be noticed after the pause.
TEST(Within, DoesNotCountTheTimeInWhichTheProcessStoodStill) {
  for (io::Duration pause : {0s, 80s}) {
    sim::Simulation sim(1);
    sim::Node n = sim.add_node("n");
    std::optional<std::optional<int>> got;
    sim.world(n).spawn("wait", [](io::World& w, std::optional<std::optional<int>>& got) -> io::Task<void> {
      got = co_await io::within(w, 4s, [](io::World& w) -> io::Task<int> {
        for (int i = 0; i < 3; ++i) co_await w.sleep(1s);
        co_return 7;
      }(w));
    }(sim.world(n), got));
    sim.run_for(100ms);
    sim.pause(n);
    sim.run_for(pause);
    sim.resume(n);
    ASSERT_TRUE(sim.run_until([&] { return got.has_value(); }, 10s));
    EXPECT_EQ(*got, 7);
  }
}

TEST(Within, LeavesALateTaskToItself) {
  sim::Simulation sim(1);
  sim::Node n = sim.add_node("n");
  bool ended = false;
  sim.run(n, [](io::World& w, bool& ended) -> io::Task<void> {
    auto got = co_await io::within(w, 1s, [](io::World& w, bool& ended) -> io::Task<int> {
      co_await w.sleep(5s);
      ended = true;
      co_return 7;
    }(w, ended));
    EXPECT_FALSE(got.has_value());
    EXPECT_FALSE(ended);
  }(sim.world(n), ended));
  sim.run_for(5s);
  EXPECT_TRUE(ended);
}

// A receiving sled holds so much and no more: the rest is refused, which a head takes for a sled to be left alone a while.
TEST(WriteMemory, IsBounded) {
  SledUnit u(1, 1, 1, [](Options& o) { o.device_memory = 4 * (kChunk + kBlockBytes); });
  ASSERT_TRUE(u.fence(0, kVp, 1).ok());
  auto c = u.claim(0, kVp, 1);
  ASSERT_TRUE(c.ok());
  Generation g = c->slots[0].generation();
  u.disk(0).file("/dev/disk0")->hung = true;
  std::vector<SledUnit::Pending> all;
  for (std::uint32_t i = 0; i < 40; ++i) all.push_back(u.begin(0, u.write_frame(u.stripe(i + 1), 0, u.place(0, 0, i, g))));
  u.sim.run_for(1s);
  std::size_t refused = 0;
  for (auto& p : all) refused += p->has_value() && u.plain(**p).code() == Code::unavailable;
  EXPECT_EQ(refused, 40u - 4 - 17) << "4 at work, 17 waiting";
  u.disk(0).file("/dev/disk0")->hung = false;
  std::size_t done = 0;
  for (auto& p : all) done += u.plain(u.end(p)).ok();
  EXPECT_EQ(done, 21u);
  EXPECT_TRUE(u.write(0, u.stripe(100), 0, u.place(0, 0, 50, g)).ok());
}

TEST(Columns, AreListedInPages) {
  // 15 columns of 8192 slots: 4.9 MB of slot states.
  constexpr std::uint64_t kColumn = 64 << 20;
  SledUnit u(1, 2, 1, [](Options& o) {
    o.column_bytes = kColumn;
    for (DeviceSpec& d : o.devices) d.create_bytes = 16 * kColumn;
  });
  ASSERT_TRUE(u.at_start[0].ok()) << u.at_start[0].to_string();
  ASSERT_TRUE(u.fence(0, kVp, 1).ok());
  std::set<std::pair<std::uint16_t, std::uint32_t>> claimed;
  for (std::uint32_t i = 0; i < 15; ++i) {
    std::pair<std::uint16_t, std::uint32_t> where{i % 2, i / 2};
    auto c = u.claim(0, kVp, 1, where.second, 2 * kBlockBytes, where.first);
    ASSERT_TRUE(c.ok()) << c.status().to_string();
    ASSERT_EQ(c->slots.size(), 8192u);
    claimed.insert(where);
  }
  std::vector<std::size_t> pages;
  auto l = u.list(0, kVp, 1, &pages);
  ASSERT_TRUE(l.ok()) << l.status().to_string();
  EXPECT_EQ(l->size(), 15u);
  for (const auto& c : *l) claimed.erase({c.device, c.number});
  EXPECT_TRUE(claimed.empty());
  EXPECT_EQ(pages.size(), 2u);
  for (std::size_t bytes : pages) EXPECT_LE(bytes, (4u << 20) + 4096);
}

TEST(Columns, HaveNoMoreSlotsThanOneAnswerHolds) {
  SledUnit u(1, 1, 1, [](Options& o) {
    o.column_bytes = 1 << 30;
    o.devices[0].create_bytes = 3ull << 30;
  });
  ASSERT_TRUE(u.fence(0, kVp, 1).ok());
  EXPECT_EQ(u.claim(0, kVp, 1, 0, 2 * kBlockBytes).code(), Code::invalid);
}

// More fences than a device has room for: new volumes are fenced all the same, and the sled remembers them.
TEST(FullMetadata, OfADeviceIsNoEndOfFencing) {
  SledUnit u(1);
  u.crash(0);
  // Fill the device's own table as far as it goes.
  sim::Node bench = u.sim.add_node("bench");
  u.sim.disk(bench).put_in("/d", u.disk(0).take_out("/dev/disk0"));
  u.sim.run(bench, [](io::World& w) -> io::Task<void> {
    Device d(w, {"/d"}, 0, DeviceOptions{.unit = kUnit, .sled = SledUnit::id(0), .column_bytes = kColumnBytes});
    Status s = co_await d.open({});
    EXPECT_TRUE(s.ok()) << s.to_string();
    Fences many;
    for (VpId vp = 1; vp < 100'000; ++vp) many[vp << 20] = 1;
    s = co_await d.raise(many);
    EXPECT_EQ(s.code(), Code::no_space) << s.to_string();
    // And the last gaps.
    s = Status();
    for (VpId vp = 200'000; s.ok(); ++vp) s = co_await d.raise({{vp << 20, 1}});
    EXPECT_EQ(s.code(), Code::no_space) << s.to_string();
  }(u.sim.world(bench)), std::chrono::hours(10));
  u.disk(0).put_in("/dev/disk0", u.sim.disk(bench).take_out("/d"));
  ASSERT_TRUE(u.restart(0).ok());
  ASSERT_TRUE(u.fence(0, kVp, 7).ok());
  EXPECT_NE(u.report(0).find("\"state\":\"full\""), std::string::npos) << u.report(0);
  EXPECT_EQ(u.claim(0, kVp, 7).code(), Code::no_space) << "a column that was never claimed needs a row";
  ASSERT_TRUE(u.bounce(0).ok());
  EXPECT_EQ(u.fence(0, kVp, 6).code(), Code::fenced);
  EXPECT_TRUE(u.list(0, kVp, 7).ok());
}

}  // namespace
}  // namespace luge::sled::testing
