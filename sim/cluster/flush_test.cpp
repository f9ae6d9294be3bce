// When a flush begins and what it takes, and that nobody waits for it: a whole unit in virtual time.
#include <set>

#include "sim/cluster/unit_fixture.hpp"

namespace luge::sim {
namespace {

class FlushTest : public UnitTest {
 protected:
  using UnitTest::UnitTest;
  const head::Replica* replica() { return unit_->head(designation().primary)->replica(designation().vp); }
  std::uint64_t unflushed() { return replica()->unflushed_blocks(); }
  bool flushed_within(Duration limit) { return sim_.run_until([&] { return unflushed() == 0; }, limit); }
  void sleds(bool on) {
    for (NodeId s = kFirstSled; s < kFirstSled + 6; ++s) {
      Node n = unit_->node_of_sled(s);
      if (on) sim_.restart(n);
      else sim_.crash(n, Crash::power);
    }
  }
};

struct ByAmount : FlushTest {
  ByAmount() : FlushTest(3, 4 << 20, [](head::Options& h) { h.flush_bytes = 128 << 10; }) {}
};
struct ByAge : FlushTest {
  ByAge() : FlushTest(3, 4 << 20, [](head::Options& h) { h.flush_age = 5s; }) {}
};
struct ByIdleness : FlushTest {
  ByIdleness() : FlushTest(3, 4 << 20, [](head::Options& h) { h.flush_idle = 1s; }) {}
};
struct ByFill : FlushTest {
  ByFill() : FlushTest(3, 1 << 20, [](head::Options& h) { h.flush_fill = 250; }) {}
};

// Requirement: FL-02, FL-03 switch=flush-triggers-ignored
TEST_F(ByAmount, AFlushBeginsAtSoMuchUnflushedData) {
  write(0, 24, 'a');
  sim_.run_for(20s);
  EXPECT_EQ(unflushed(), 24u);
  write(24, 24, 'b');
  EXPECT_TRUE(flushed_within(20s)) << unflushed();
  EXPECT_EQ(contents().substr(22, 4), "aabb");
}

// Requirement: FL-02, FL-03 switch=flush-triggers-ignored
TEST_F(ByAge, AFlushBeginsWhenTheLastIsSoLongAgoThoughWritesGoOn) {
  write(0, 4, 'a');
  bool seen = false;
  for (Lba b = 4; b < 24; ++b) {
    write(b, 1, 'b');
    sim_.run_for(500ms);
    seen |= unflushed() < b + 1;
  }
  EXPECT_TRUE(seen) << "of writes every half second none was flushed in 10 s";
}

// Requirement: FL-02, FL-03 switch=flush-triggers-ignored
TEST_F(ByIdleness, AFlushBeginsWhenNothingIsWritten) {
  for (Lba b = 0; b < 8; ++b) {
    write(b, 1, 'a');
    sim_.run_for(500ms);
    EXPECT_EQ(unflushed(), b + 1) << "while there are writes";
  }
  EXPECT_TRUE(flushed_within(5s)) << unflushed();
}

// Requirement: FL-02, FL-03 switch=flush-triggers-ignored
TEST_F(ByFill, AFlushBeginsWhenTheLogFills) {
  write(0, 16, 'a');
  sim_.run_for(20s);
  EXPECT_EQ(unflushed(), 16u);
  write(16, 48, 'b');
  EXPECT_TRUE(sim_.run_until([&] { return unflushed() < 16; }, 20s)) << unflushed();
}

// Requirement: WR-04, WR-05 switch=writes-wait-for-flush
TEST_F(FlushTest, WritesAreAcknowledgedAndReplicatedWithoutASled) {
  sleds(false);
  write(0, 8, 'a');
  write(8, 8, 'b');
  EXPECT_EQ(unflushed(), 16u);
  for (NodeId n : designation().reserves) EXPECT_EQ(unit_->head(n)->replica(designation().vp)->last().lsn, replica()->last().lsn);
  EXPECT_EQ(contents().substr(6, 4), "aabb");
  sleds(true);
}

// Requirement: WR-06
TEST_F(ByIdleness, AStripeIsMadeOfPartsOfSeveralWrites) {
  for (Lba b = 0; b < 8; ++b) write(7 * b, 1, static_cast<char>('a' + b));
  ASSERT_TRUE(flushed_within(20s));
  std::set<std::uint64_t> stripes;
  for (Lba b = 0; b < 8; ++b) {
    head::Entry e = replica()->index().get(7 * b);
    ASSERT_TRUE(e.is_stripe());
    stripes.insert(e.stripe());
  }
  EXPECT_EQ(stripes.size(), 1u) << "eight writes of a block each fill a stripe of eight blocks";
  std::string all = contents();
  for (Lba b = 0; b < 8; ++b) EXPECT_EQ(all[7 * b], static_cast<char>('a' + b));
}

}  // namespace
}  // namespace luge::sim
