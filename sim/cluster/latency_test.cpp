// Members that answer late, and a primary whose own log is slow (protocol 3.5): a whole unit in virtual time.
#include <boost/json.hpp>

#include "sim/cluster/unit_fixture.hpp"

namespace luge::sim {
namespace {

class LatencyTest : public UnitTest {
 protected:
  explicit LatencyTest(std::uint32_t copies = 3) : UnitTest(copies, 64 << 20) {
    // Faults would make these tests say something else; the wire's own hiccups are part of what must be borne.
    for (int i = 0; i < kWriters; ++i) sim_.world(client_node_).spawn("writer", writer(*client_, static_cast<Lba>(i), *this));
    before_ = designation();
  }

  static constexpr int kWriters = 8;
  static Task<void> writer(VolumeClient& c, Lba lba, LatencyTest& t) {
    while (true) {
      io::Time begun = c.world.now();
      Status s = co_await client::write(c.world, *c.volume, lba * kBlockBytes, filled(1, 'w'));
      EXPECT_TRUE(s.ok()) << s.to_string();
      ++t.written_;
      t.longest_ = std::max(t.longest_, c.world.now() - begun);
      co_await c.world.sleep(t.pause_);
    }
  }
  /// Mean of the writes of the next so long.
  Duration write_time(Duration for_how_long) {
    std::uint64_t before = written_;
    sim_.run_for(for_how_long);
    return for_how_long * kWriters / static_cast<std::int64_t>(std::max<std::uint64_t>(1, written_ - before));
  }
  void slow_disk(NodeId head, double factor) { sim_.disk(node(head)).faults.slow = factor; }
  void slow_links(NodeId head, Duration extra) {
    for (NodeId other : before_.members())
      if (other != head) sim_.fabric().slow(node(head), node(other), extra), sim_.fabric().slow(node(other), node(head), extra);
  }
  bool required(NodeId head) { return designation().requires_node(head); }
  bool wait_until_required(NodeId head, bool is, Duration limit) { return sim_.run_until([&] { return required(head) == is; }, limit); }
  /// What the primary reports of a member.
  boost::json::object member(NodeId id) {
    auto report = boost::json::parse(unit_->head(designation().primary)->report());
    for (const auto& m : report.at("vps").at(0).at("members").as_array())
      if (m.at("node").to_number<NodeId>() == id) return m.as_object();
    return {};
  }

  control::Designation before_;
  std::uint64_t written_ = 0;
  Duration longest_{0};
  Duration pause_ = 2ms;
};

// Requirement: P-3.5 switch=latency-floor-ignored
TEST_F(LatencyTest, AMemberThatIsALittleSlowerThanTheOthersIsWaitedFor) {
  slow_links(before_.reserves[0], 2ms);  // one: two would be waited for in any case
  sim_.run_for(60s);
  EXPECT_EQ(designation(), before_) << "nobody left, nobody else is primary";
  EXPECT_GT(written_, 10'000u);
}

// Requirement: P-3.5
TEST_F(LatencyTest, AUnitThatIsSlowAsAWholeHasNoSlowMember) {
  for (NodeId n : before_.members()) slow_disk(n, 250);
  sim_.run_for(60s);
  EXPECT_EQ(designation(), before_);
}

// Requirement: WR-07, WR-08, P-3.5 switch=slow-never-restored
// Requirement: WR-09 switch=slow-never-restored
// Requirement: WR-11 switch=slow-member-cut-off
TEST_F(LatencyTest, ASlowDiskLeavesTheRequiredSetIsSentEverythingAndComesBack) {
  NodeId slow = before_.reserves[0];
  pause_ = 50ms;  // as much as the slow disk can take, with batches of a quarter of such short segments
  sim_.run_for(2s);
  slow_disk(slow, 400);  // 20 to 160 ms a write
  EXPECT_GT(write_time(3s), 80ms) << "the pause between two, and the write";
  ASSERT_TRUE(wait_until_required(slow, false, 30s));
  EXPECT_EQ(designation().epoch, before_.epoch) << "a revision, no new epoch";
  EXPECT_EQ(designation().required.size(), 2u);
  sim_.run_for(1s);
  EXPECT_LT(write_time(3s), 56ms) << "writes do not wait for it any more";
  auto m = member(slow);
  EXPECT_TRUE(m["slow"].as_bool());
  EXPECT_FALSE(m["awaited"].as_bool());
  EXPECT_GT(m["latency_us"].to_number<std::uint64_t>(), 20'000u);
  EXPECT_GT(m["lag"].to_number<std::uint64_t>(), 0u);
  EXPECT_NE(text("reason").find("node " + std::to_string(slow) + " is slow"), std::string::npos) << text("reason");
  EXPECT_EQ(text("state"), "open");
  Lsn held = unit_->head(slow)->replica(before_.vp)->last().lsn;
  sim_.run_for(2s);
  EXPECT_GT(unit_->head(slow)->replica(before_.vp)->last().lsn, held + 200) << "it still receives the records";
  slow_disk(slow, 1);
  EXPECT_TRUE(wait_until_required(slow, true, 20s));
  sim_.run_for(30s);
  EXPECT_EQ(designation().required.size(), 3u);
  EXPECT_EQ(designation().epoch, before_.epoch);
}

// Requirement: WR-08, P-3.5 switch=slow-never-restored
TEST_F(LatencyTest, ASlowLinkLeavesTheRequiredSetAndComesBackAlsoWhenNothingIsWritten) {
  NodeId slow = before_.reserves[1];
  slow_links(slow, 60ms);
  ASSERT_TRUE(wait_until_required(slow, false, 30s));
  EXPECT_TRUE(required(before_.reserves[0]));
  slow_links(slow, 0ms);
  pause_ = 3600s;
  EXPECT_TRUE(wait_until_required(slow, true, 30s));
}

// Requirement: WR-08, P-3.5
TEST_F(LatencyTest, ChangesKeepTheirDistance) {
  NodeId slow = before_.reserves[0];
  std::vector<Duration> changes;
  Revision last = designation().revision;
  // Slow and fast by turns, faster than a change may follow another.
  for (int i = 0; i < 80 * 10; ++i) {
    slow_disk(slow, i / 80 % 2 == 0 ? 400 : 1);
    sim_.run_for(100ms);
    if (designation().revision != last) changes.push_back(sim_.now());
    last = designation().revision;
  }
  EXPECT_GE(changes.size(), 2u);
  for (std::size_t i = 1; i < changes.size(); ++i) EXPECT_GE(changes[i] - changes[i - 1], 9s);
}

// Requirement: WR-10 switch=slow-below-min-copies
TEST_F(LatencyTest, TwoSlowReservesOfThreeCopiesAreBothWaitedFor) {
  for (NodeId n : before_.reserves) slow_disk(n, 300);
  sim_.run_for(40s);
  EXPECT_EQ(designation(), before_) << "with one of them gone writes would be as slow";
  EXPECT_GT(written_, 1000u) << "they are slow, and go on";
}

class TwoCopies : public LatencyTest {
 protected:
  TwoCopies() : LatencyTest(2) {}
};

// Requirement: WR-10, P-3.3 switch=slow-below-min-copies
TEST_F(TwoCopies, TheOnlyOtherCopyIsWaitedForHoweverSlowItIs) {
  slow_disk(before_.reserves[0], 300);
  sim_.run_for(40s);
  EXPECT_EQ(designation(), before_);
  EXPECT_GT(written_, 1000u);
}

// Requirement: P-3.5 switch=slow-primary-kept
TEST_F(LatencyTest, APrimaryWithASlowLogHandsOverToAFasterReserve) {
  NodeId slow = before_.primary;
  sim_.run_for(2s);
  slow_disk(slow, 400);
  ASSERT_TRUE(sim_.run_until([&] { return designation().primary != slow; }, 30s));
  EXPECT_EQ(designation().epoch, before_.epoch + 1);
  longest_ = Duration(0);
  ASSERT_TRUE(sim_.run_until([&] { return unit_->head(designation().primary)->digest(before_.vp)->primary_open; }, 5s));
  sim_.run_for(2s);
  EXPECT_LT(longest_, 2500ms) << "clients see a pause and no error";
  // It is a slow reserve now, and leaves as such.
  ASSERT_TRUE(wait_until_required(slow, false, 30s));
  sim_.run_for(1s);
  EXPECT_LT(write_time(3s), 6ms);
  slow_disk(slow, 1);
  EXPECT_TRUE(wait_until_required(slow, true, 30s));
  sim_.run_for(30s);
  EXPECT_EQ(designation().epoch, before_.epoch + 1) << "the role stays where it is";
}

// Requirement: WR-09
TEST_F(LatencyTest, ASlowMemberIsWaitedForAgainWhenAnotherIsLost) {
  NodeId slow = before_.reserves[0], other = before_.reserves[1];
  slow_disk(slow, 400);
  ASSERT_TRUE(wait_until_required(slow, false, 30s));
  sim_.crash(node(other), Crash::power);
  ASSERT_TRUE(wait_until_required(slow, true, 20s)) << "the second copy, if a slow one";
  std::uint64_t written = written_;
  sim_.run_for(5s);
  EXPECT_GT(written_, written + 50);
  sim_.restart(node(other));
  ASSERT_TRUE(wait_until_required(other, true, 20s));
  EXPECT_TRUE(wait_until_required(slow, false, 20s));
}

}  // namespace
}  // namespace luge::sim
