// A volume against heads that speak the wire and keep blocks, in virtual time: what a client sees of every way in
// which an answer can be late, wrong, or given by somebody else.
#include "client/volume.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "client/fake_primary.hpp"
#include "sim/cluster/simulation.hpp"

namespace luge::client {
namespace {

using namespace std::chrono_literals;
using testing::FakeControl;
using testing::FakePrimary;
using testing::Store;

Buffer pattern(std::size_t bytes, unsigned seed) {
  Buffer b = Buffer::allocate(bytes);
  for (std::size_t i = 0; i < bytes; ++i) b.data()[i] = static_cast<std::byte>(i * 7 + seed * 31 + i / 251);
  return b;
}

// The client's side of one attach daemon.
struct Client {
  Client(io::World& w, NodeId id) : world(w), identity{0, id}, control(w, identity, "tcp:control:1", {id, "attach", "attach", "", 1}, {}) {
    control.start();
  }
  io::Task<void> attach(bool take_over = false) {
    EXPECT_TRUE(co_await control.wait_registered(5s));
    auto v = co_await Volume::attach(world, identity, control, "disk", identity.node, take_over);
    EXPECT_TRUE(v.ok()) << v.status().to_string();
    if (v.ok()) volume = std::move(*v);
  }
  io::World& world;
  wire::Identity identity;
  wire::ControlLink control;
  std::unique_ptr<Volume> volume;
};

class VolumeTest : public ::testing::Test {
 public:
  static constexpr std::uint64_t kVp = 4 << 20, kBytes = 10 << 20;  // the last VP is short

  VolumeTest() : store(std::make_shared<Store>(kBytes, kVp)) {
    head_nodes[0] = sim.add_node("head-1", [this](io::World& w) { return head(w, 1); });
    head_nodes[1] = sim.add_node("head-2", [this](io::World& w) { return head(w, 2); });
    control_node = sim.add_node("control", [this](io::World& w) {
      auto c = std::make_shared<FakeControl>(w, store, "tcp:control:1");
      control = c.get();
      return c;
    });
    client_node = sim.add_node("client", [this](io::World& w) {
      auto c = std::make_shared<Client>(w, 500);
      client = c.get();
      return c;
    });
    sim.run(client_node, client->attach());
  }
  std::shared_ptr<FakePrimary> head(io::World& w, NodeId id) {
    auto h = std::make_shared<FakePrimary>(w, store, id, "tcp:head" + std::to_string(id) + ":1");
    heads[id - 1] = h.get();
    return h;
  }
  io::World& world() { return sim.world(client_node); }
  Volume& volume() { return *client->volume; }
  void run(io::Task<void> t) { sim.run(client_node, std::move(t), 600s); }
  Store::Vp& vp(std::uint32_t i) { return store->vps.at(make_vp(store->volume, i)); }

  void expect_write(std::uint64_t offset, Buffer data) {
    run([](VolumeTest& t, std::uint64_t offset, Buffer data) -> io::Task<void> {
      Status s = co_await write(t.world(), t.volume(), offset, data);
      EXPECT_TRUE(s.ok()) << s.to_string();
    }(*this, offset, data));
  }
  void expect_read(std::uint64_t offset, Buffer data) {
    run([](VolumeTest& t, std::uint64_t offset, Buffer data) -> io::Task<void> {
      auto r = co_await read(t.world(), t.volume(), offset, static_cast<std::uint32_t>(data.size()));
      EXPECT_TRUE(r.ok()) << r.status().to_string();
      if (!r.ok()) co_return;
      EXPECT_EQ(r->size(), data.size());
      EXPECT_TRUE(std::equal(r->bytes().begin(), r->bytes().end(), data.bytes().begin(), data.bytes().end()));
    }(*this, offset, data));
  }
  /// Many writes of one block at once; counts the answers.
  void start_writes(std::uint32_t count, std::uint32_t stride = 1) {
    for (std::uint32_t i = 0; i < count; ++i)
      volume().write(std::uint64_t{i % 1000} * stride * kBlockBytes, pattern(kBlockBytes, i), kBlockBytes, [this](const Status& s) {
        ++answered;
        if (!s.ok()) errors.push_back(s);
      });
  }

  sim::Simulation sim{1};
  std::shared_ptr<Store> store;
  FakePrimary* heads[2] = {};
  FakeControl* control = nullptr;
  Client* client = nullptr;
  sim::Node head_nodes[2], control_node, client_node;
  std::uint32_t answered = 0;
  std::vector<Status> errors;
};

TEST_F(VolumeTest, ReadsWhatWasWrittenAndZerosElsewhere) {
  EXPECT_EQ(volume().size_bytes(), kBytes);
  expect_write(8192, pattern(12288, 1));
  expect_read(8192, pattern(12288, 1));
  expect_read(1 << 20, Buffer::zeros(65536));
}

std::string map_text(VolumeTest& t, std::uint64_t offset, std::uint32_t length) {
  std::string text;
  t.run([](VolumeTest& t, std::uint64_t offset, std::uint32_t length, std::string& text) -> io::Task<void> {
    auto runs = co_await map(t.world(), t.volume(), offset, length);
    EXPECT_TRUE(runs.ok()) << runs.status().to_string();
    if (!runs.ok()) co_return;
    for (const auto& run : *runs) text += (run.data ? "+" : "-") + std::to_string(run.bytes) + " ";
  }(t, offset, length, text));
  return text;
}

TEST_F(VolumeTest, AMapTellsWhereDataIsAcrossPartitions) {
  EXPECT_EQ(map_text(*this, 0, kBytes), "-10485760 ");
  expect_write((4 << 20) - 8192, pattern(16384, 1));  // over the end of VP 0
  expect_write(5000, pattern(100, 2));
  EXPECT_EQ(map_text(*this, 0, kBytes), "-4096 +4096 -4177920 +16384 -6283264 ");
  EXPECT_EQ(map_text(*this, 4500, 1000), "+1000 ") << "by blocks: one byte written is a block of data";
  EXPECT_EQ(map_text(*this, 4000, 200), "-96 +104 ");
  EXPECT_EQ(map_text(*this, kBytes - 1, 1), "-1 ");
}

// Asked again wherever the primary is, like a read; an answer that does not add up is not believed.
TEST_F(VolumeTest, AMapRidesOverAFailoverAndAWrongAnswer) {
  expect_write(0, pattern(4096, 1));
  heads[0]->silent = true;
  sim.world(client_node).spawn("fail over", [](VolumeTest& t) -> io::Task<void> {
    co_await t.world().sleep(300ms);
    t.store->fail_over(2);
    t.heads[0]->close_connections();
  }(*this));
  EXPECT_EQ(map_text(*this, 0, 8192), "+4096 -4096 ");
  EXPECT_GE(heads[1]->maps, 1u);
  heads[1]->wrong_maps = 2;
  EXPECT_EQ(map_text(*this, 0, 8192), "+4096 -4096 ");
  EXPECT_GE(heads[1]->maps, 4u);
}

TEST_F(VolumeTest, AGrownVolumeTakesWritesBeyondItsOldEnd) {
  Buffer data = pattern(4 << 20, 5);
  run([](VolumeTest& t) -> io::Task<void> {
    Status s = co_await write(t.world(), t.volume(), kBytes, pattern(4096, 1));
    EXPECT_EQ(s.code(), Code::invalid);
  }(*this));
  store->vps[make_vp(store->volume, 3)];
  volume().grow(kBytes + (4 << 20));
  EXPECT_EQ(volume().size_bytes(), kBytes + (4 << 20));
  expect_write(kBytes, data);  // the rest of VP 2, and VP 3
  expect_read(kBytes, data);
  EXPECT_FALSE(vp(3).order.empty());
  volume().grow(kBytes);
  EXPECT_EQ(volume().size_bytes(), kBytes + (4 << 20)) << "never smaller";
}

TEST_F(VolumeTest, SplitsAtPartitionsAndAtTheLongestOp) {
  Buffer data = pattern(5 << 20, 2);
  expect_write((3 << 20) + 512, data);  // VPs 0, 1 and 2, ragged at both ends
  for (std::uint32_t i = 0; i < 3; ++i) EXPECT_FALSE(vp(i).order.empty()) << i;
  EXPECT_EQ(heads[0]->bad_crcs, 0u);
  expect_read((3 << 20) + 512, data);
  EXPECT_GE(heads[0]->ops, 6u);
}

TEST_F(VolumeTest, UnalignedBytesLandAtTheirPlaceWithTheirOwnChecksums) {
  expect_write(0, pattern(16384, 3));
  for (std::uint64_t offset : {1ull, 4095ull, 4096ull, 5000ull})
    for (std::uint32_t length : {1u, 511u, 4096u, 8191u}) {
      Buffer data = pattern(length, length + static_cast<unsigned>(offset));
      expect_write(offset, data);
      expect_read(offset, data);
    }
  EXPECT_EQ(heads[0]->bad_crcs, 0u);
}

TEST_F(VolumeTest, TrimAndZeroClearExactlyTheirRange) {
  expect_write(0, pattern(4 * 4096, 4));
  run([](VolumeTest& t) -> io::Task<void> {
    Status a = co_await trim(t.world(), t.volume(), 100, 8000);
    EXPECT_TRUE(a.ok());
    Status b = co_await zero(t.world(), t.volume(), 12288, 4096);
    EXPECT_TRUE(b.ok());
  }(*this));
  Buffer expect = pattern(4 * 4096, 4);
  std::memset(expect.data() + 100, 0, 8000);
  std::memset(expect.data() + 12288, 0, 4096);
  expect_read(0, expect);
}

// Requirement: P-2.5
TEST_F(VolumeTest, ATrimIsOneOperationForEachPartitionWhateverItsLength) {
  expect_write(0, pattern(4096, 4));
  std::uint64_t before = heads[0]->ops;
  run([](VolumeTest& t) -> io::Task<void> {
    Status s = co_await zero(t.world(), t.volume(), 0, kBytes);
    EXPECT_TRUE(s.ok());
  }(*this));
  EXPECT_EQ(heads[0]->ops - before, (kBytes + kVp - 1) / kVp);
  expect_read(0, Buffer::zeros(4096));
}

TEST_F(VolumeTest, EverythingOfOneTurnGoesInOneMessage) {
  expect_write(0, pattern(4096, 0));  // the session is open
  std::uint64_t before = heads[0]->batches;
  start_writes(100);
  sim.run_for(1s);
  EXPECT_EQ(answered, 100u);
  EXPECT_EQ(heads[0]->batches - before, 1u);
}

TEST_F(VolumeTest, BeyondTheEndIsRefusedAtOnce) {
  run([](VolumeTest& t) -> io::Task<void> {
    for (std::uint64_t offset : {kBytes - 4096 + 1, kBytes + 1, std::uint64_t{0} - 100}) {
      auto r = co_await read(t.world(), t.volume(), offset, 4096);
      EXPECT_EQ(r.code(), Code::invalid);
    }
    Status s = co_await write(t.world(), t.volume(), kBytes, pattern(1, 1));
    EXPECT_EQ(s.code(), Code::invalid);
  }(*this));
}

// Protocol 2.3: at most W requests are open.
TEST_F(VolumeTest, NeverMoreThanTheWindowOpen) {
  start_writes(3000);
  sim.run_for(10s);
  EXPECT_EQ(answered, 3000u);
  EXPECT_TRUE(errors.empty());
  EXPECT_LE(heads[0]->largest_window, kSessionWindow);
  EXPECT_GT(heads[0]->largest_window, 100u);
}

// Protocol 2.3: what was applied but not answered is sent again under its sequence, and not applied twice.
TEST_F(VolumeTest, LostAnswersAreAskedForAgainWithTheSameSequences) {
  expect_write(0, pattern(4096, 0));
  heads[0]->silent = true;
  start_writes(50);
  sim.run_for(500ms);
  EXPECT_EQ(answered, 0u);
  EXPECT_EQ(vp(0).order.size(), 51u);
  heads[0]->silent = false;
  heads[0]->close_connections();
  sim.run_for(5s);
  EXPECT_EQ(answered, 50u);
  EXPECT_TRUE(errors.empty());
  EXPECT_EQ(vp(0).duplicates, 50u);
  EXPECT_EQ(vp(0).order.size(), 51u);
  EXPECT_TRUE(std::is_sorted(vp(0).order.begin(), vp(0).order.end()));
}

TEST_F(VolumeTest, RequestsInFlightSurviveTheirPrimary) {
  expect_write(0, pattern(4096, 0));
  start_writes(400);
  sim.run_for(100us);
  sim.crash(head_nodes[0], sim::Crash::process);
  sim.after(700ms, [this] { store->fail_over(2); });
  sim.run_for(10s);
  EXPECT_EQ(answered, 400u);
  EXPECT_TRUE(errors.empty());
  EXPECT_EQ(vp(0).applied.size(), vp(0).order.size());
  EXPECT_GT(volume().stats().longest_pause, 700ms);
  EXPECT_LT(volume().stats().longest_pause, 1500ms);
  expect_read(4096, pattern(4096, 1));
}

// A primary whose machine went dark leaves the connection as it was: only the silence tells.
TEST_F(VolumeTest, SilentPrimaryIsLookedUpAnew) {
  expect_write(0, pattern(4096, 0));
  sim.pause(head_nodes[0]);
  start_writes(10);
  sim.after(500ms, [this] { store->fail_over(2); });
  sim.run_for(6s);
  EXPECT_EQ(answered, 10u);
  EXPECT_TRUE(errors.empty());
  EXPECT_LT(volume().stats().longest_pause, 4s);
}

// Requirement: FO-10 switch=only-the-primary-asked
TEST_F(VolumeTest, WithoutControlPlaneTheKnownMembersAreTriedInTurn) {
  expect_write(0, pattern(4096, 0));
  sim.crash(control_node, sim::Crash::process);
  store->fail_over(2);
  heads[0]->close_connections();
  start_writes(10);
  sim.run_for(10s);
  EXPECT_EQ(answered, 10u);
  EXPECT_TRUE(errors.empty());
}

TEST_F(VolumeTest, UnavailableIsTriedAgainAndNeverSeenByTheUser) {
  heads[0]->unavailable_writes = 7;
  start_writes(20);
  sim.run_for(10s);
  EXPECT_EQ(answered, 20u);
  EXPECT_TRUE(errors.empty());
  EXPECT_EQ(vp(0).order.size(), 20u);
}

TEST_F(VolumeTest, DegradedReadWaitsUntilTheDataIsBack) {
  expect_write(0, pattern(4096, 8));
  heads[0]->degraded_reads = 5;
  expect_read(0, pattern(4096, 8));
}

TEST_F(VolumeTest, WrongBytesAreNeverHandedOut) {
  expect_write(0, pattern(65536, 9));
  heads[0]->corrupt_reads = 3;
  expect_read(0, pattern(65536, 9));
  EXPECT_GE(volume().stats().corrupt_replies, 1u);
}

TEST_F(VolumeTest, AWriteThatWasDamagedOnTheWayIsSentAgain) {
  heads[0]->damaged_writes = 3;
  expect_write(0, pattern(10000, 3));
  expect_read(0, pattern(10000, 3));
  EXPECT_EQ(heads[0]->damaged_writes, 0u);
}

// Requirement: P-6.3
TEST_F(VolumeTest, AnswersOfAnOlderEpochAreDropped) {
  store->fail_over(1);
  expect_write(0, pattern(4096, 1));
  heads[0]->answer_as_epoch = 1;  // the true one is 2
  start_writes(1);
  sim.run_for(1s);
  EXPECT_EQ(answered, 0u);
  EXPECT_GE(volume().stats().late_replies, 1u);
  heads[0]->answer_as_epoch = 0;
  heads[0]->close_connections();
  sim.run_for(5s);
  EXPECT_EQ(answered, 1u);
}

TEST_F(VolumeTest, TakeOverClosesTheOlderAttachment) {
  expect_write(0, pattern(4096, 1));
  Status lost;
  volume().on_lost([&](const Status& s) { lost = s; });
  auto rival_node = sim.add_node("rival");
  Client rival(sim.world(rival_node), 501);
  sim.run(rival_node, [](Client& rival) -> io::Task<void> {
    EXPECT_TRUE(co_await rival.control.wait_registered(5s));
    auto refused = co_await Volume::attach(rival.world, rival.identity, rival.control, "disk", 501, false);
    EXPECT_EQ(refused.code(), Code::exists);
    co_await rival.attach(true);
    Status s = co_await write(rival.world, *rival.volume, 0, pattern(4096, 2));
    EXPECT_TRUE(s.ok());
  }(rival));
  start_writes(5);
  sim.run_for(1s);
  EXPECT_EQ(answered, 5u);
  ASSERT_EQ(errors.size(), 5u);
  EXPECT_EQ(errors[0].code(), Code::closed_session);
  EXPECT_EQ(lost.code(), Code::closed_session);
  EXPECT_EQ(vp(0).order.size(), 2u);
  sim.crash(rival_node, sim::Crash::process);
}

TEST_F(VolumeTest, DetachGivesTheAttachmentBackAndRefusesWhatComesLater) {
  expect_write(0, pattern(4096, 1));
  run([](VolumeTest& t) -> io::Task<void> {
    Status s = co_await t.volume().detach();
    EXPECT_TRUE(s.ok()) << s.to_string();
    auto r = co_await read(t.world(), t.volume(), 0, 4096);
    EXPECT_FALSE(r.ok());
  }(*this));
  EXPECT_EQ(control->detaches, 1u);
  EXPECT_EQ(store->holder, 0u);
}

TEST_F(VolumeTest, WhatTheControlPlaneDidNotHearIsGivenBackWhenItDoes) {
  sim.crash(control_node, sim::Crash::process);
  run([](VolumeTest& t) -> io::Task<void> { EXPECT_FALSE((co_await t.volume().detach()).ok()); }(*this));
  std::shared_ptr<Volume> volume = std::move(client->volume);
  bool over = false, ended = false;
  world().spawn("give back", [](io::World& w, std::shared_ptr<Volume> v, bool& over, bool& ended) -> io::Task<void> {
    co_await Volume::give_back(w, std::move(v), [&] { return over; });
    ended = true;
  }(world(), std::move(volume), over, ended));
  sim.run_for(60s);
  EXPECT_FALSE(ended);
  EXPECT_NE(store->holder, 0u);
  sim.restart(control_node);
  sim.run_for(60s);
  EXPECT_TRUE(ended);
  EXPECT_EQ(control->detaches, 1u);
  EXPECT_EQ(store->holder, 0u);
}

TEST_F(VolumeTest, ClosingFailsWhatIsOpen) {
  heads[0]->deaf = true;
  start_writes(5);
  sim.run_for(300ms);
  EXPECT_TRUE(volume().paused());
  volume().close();
  sim.run_for(10ms);
  EXPECT_EQ(answered, 5u);
  EXPECT_EQ(errors.size(), 5u);
}

}  // namespace
}  // namespace luge::client
