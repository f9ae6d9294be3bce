// Who is slow, by what was timed: windows, medians, and the distance of changes.
#include "head/latency.hpp"

#include <gtest/gtest.h>

namespace luge::head {
namespace {

using namespace std::chrono_literals;

struct Watch : ::testing::Test {
  Watch() {
    d.primary = 1;
    d.reserves = {2, 3};
    d.required = {1, 2, 3};
    for (NodeId n : d.reserves) watch.follow(n, 0);
  }
  using Kind = LatencyWatch::Kind;

  /// One append after the other for `seconds`, answered after these times; what judge() says meanwhile.
  std::vector<std::pair<Kind, NodeId>> run(double seconds, io::Duration own, io::Duration second, io::Duration third, io::Duration pause = 2ms) {
    std::vector<std::pair<Kind, NodeId>> out;
    io::Time end = now + std::chrono::duration_cast<io::Duration>(std::chrono::duration<double>(seconds)), asked = now;
    while (now < end) {
      watch.appended(++lsn, now);
      watch.durable(1, lsn, now + own);
      watch.durable(2, lsn, now + second);
      watch.durable(3, lsn, now + third);
      now += pause;
      if (now - asked < 100ms) continue;
      asked = now;
      if (auto c = watch.judge(d, now)) out.emplace_back(c->kind, c->node);
    }
    return out;
  }
  LatencyLimits limits;
  io::Time now{1h};
  Lsn lsn = 0;
  LatencyWatch watch{limits, 1, now};
  wire::Designation d;
};
using Changes = std::vector<std::pair<LatencyWatch::Kind, NodeId>>;

// Requirement: WR-07, P-3.5
TEST_F(Watch, AMedianIsThatOfTheLastWindow) {
  run(1.5, 1ms, 3ms, 7ms);
  EXPECT_EQ(watch.latency(1), 1ms);
  EXPECT_EQ(watch.latency(2), 3ms);
  EXPECT_EQ(watch.latency(3), 7ms);
}

// Requirement: WR-08, WR-09, P-3.5 switch=slow-never-restored
TEST_F(Watch, OneThatIsSlowLeavesOnceAndComesBackOnce) {
  EXPECT_EQ(run(15, 1ms, 2ms, 3ms), Changes{});
  EXPECT_EQ(run(15, 1ms, 2ms, 30ms), (Changes{{Kind::leave, 3}}));
  EXPECT_TRUE(watch.slow(3));
  d.required = {1, 2};
  EXPECT_EQ(run(15, 1ms, 2ms, 15ms), Changes{}) << "between the thresholds nothing changes";
  EXPECT_EQ(run(15, 1ms, 2ms, 5ms), (Changes{{Kind::back, 3}}));
  EXPECT_FALSE(watch.slow(3));
}

TEST_F(Watch, OneThatNobodyWaitedForIsNotSlowForTheTimeOfThat) {
  d.required = {1, 2};
  EXPECT_EQ(run(15, 1ms, 2ms, 500ms), Changes{});
  d.required = {1, 2, 3};
  EXPECT_EQ(run(15, 1ms, 2ms, 2ms), Changes{});
}

// Requirement: P-3.5 switch=latency-floor-ignored
TEST_F(Watch, BelowTheFloorNobodyIsSlow) { EXPECT_EQ(run(30, 1ms, 2ms, 20ms), Changes{}); }

// Requirement: P-3.5 switch=latency-not-relative
TEST_F(Watch, ASlowUnitHasNoSlowMember) { EXPECT_EQ(run(30, 50ms, 120ms, 60ms), Changes{}); }

// Requirement: P-3.5
TEST_F(Watch, AFewSamplesOrASecondAreNotEnough) {
  EXPECT_EQ(run(15, 1ms, 2ms, 2ms), Changes{});
  EXPECT_EQ(run(1.5, 1ms, 2ms, 500ms), Changes{}) << "two windows";
  EXPECT_EQ(run(15, 1ms, 2ms, 2ms), Changes{});
  EXPECT_EQ(run(30, 1ms, 2ms, 500ms, 100ms), Changes{}) << "300 samples are one window";
}

// Requirement: P-3.5
TEST_F(Watch, AHiccupIsNoSlowness) {
  Changes all;
  for (int i = 0; i < 30; ++i)
    for (auto third : {2ms, 900ms})
      for (auto& change : run(third == 2ms ? 0.8 : 0.2, 1ms, 2ms, third)) all.push_back(change);
  EXPECT_EQ(all, Changes{});
}

// Requirement: WR-10, P-3.5 switch=slow-below-min-copies
TEST_F(Watch, TwoSlowOnesOfThreeAreWaitedFor) { EXPECT_EQ(run(30, 1ms, 90ms, 120ms), Changes{}); }

// Requirement: P-3.5 switch=slow-primary-kept
TEST_F(Watch, ASlowerPrimaryHandsOverToTheFastest) {
  EXPECT_EQ(run(9, 100ms, 4ms, 3ms), Changes{}) << "the distance counts from the beginning";
  EXPECT_EQ(run(3, 100ms, 4ms, 3ms), (Changes{{Kind::hand_over, 3}}));
}

// Requirement: P-3.5
TEST_F(Watch, APrimaryThatIsSlowerThanOneOfTwoKeepsTheRole) { EXPECT_EQ(run(30, 100ms, 4ms, 60ms), Changes{}); }

// Requirement: P-3.5
TEST_F(Watch, ZeroTurnsItOff) {
  limits.factor = 0;
  watch = LatencyWatch(limits, 1, now);
  for (NodeId n : d.reserves) watch.follow(n, 0);
  EXPECT_EQ(run(30, 1ms, 2ms, 900ms), Changes{});
}

}  // namespace
}  // namespace luge::head
