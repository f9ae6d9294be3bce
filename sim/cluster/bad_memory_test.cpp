// A bit turns over in a head's memory, in the payload of a record that is logged: nobody is given it, and nobody waits for ever for what it was.
#include "sim/cluster/unit_fixture.hpp"

namespace luge::sim {
namespace {

struct BadMemory : UnitTest {
  explicit BadMemory(Duration flush_idle = 100s) : UnitTest(3, 4 << 20, [=](head::Options& h) { h.flush_idle = flush_idle; }) { fill('A'); }
  const head::Replica* replica() { return unit_->head(designation().primary)->replica(designation().vp); }
  void damage() {
    for (const auto& [lsn, record] : replica()->records())
      if (record->payload_blocks() != 0) record->payload.data()[2 * kBlockBytes] = std::byte{'X'};
  }
  void expect_all() { EXPECT_EQ(contents(), std::string(kBlocks, 'A')); }
};
struct BadMemoryFlushed : BadMemory {
  BadMemoryFlushed() : BadMemory(1s) {}
};

// The checksum that goes out with a block is the one that it came in with: the reader sees that it is another, and asks for it from the log.
// Requirement: RD-02 switch=answers-checksummed-anew
TEST_F(BadMemory, IsNotHandedOut) {
  damage();
  expect_all();
}

// Then neither the block in memory nor the one in the log seems right; another replica has both.
// Requirement: RD-02 switch=bad-memory-trusted
TEST_F(BadMemory, MayBeThatOfAChecksum) {
  for (const auto& [lsn, record] : replica()->records())
    if (record->payload_blocks() != 0) record->body[2 * sizeof(std::uint32_t)] ^= 1;
  expect_all();
}

// The gateway finds it damaged, and the head's log would fill.
// Requirement: WR-06 switch=bad-memory-trusted
TEST_F(BadMemoryFlushed, IsFlushedFromTheLog) {
  damage();
  ASSERT_TRUE(sim_.run_until([&] { return replica()->unflushed_blocks() == 0; }, 20s)) << replica()->unflushed_blocks();
  expect_all();
}

// A member takes no record that is damaged: it would never be one again.
// Requirement: P-3.4 switch=bad-memory-trusted
TEST_F(BadMemory, KeepsNoMemberAway) {
  NodeId reserve = designation().reserves.front();
  sim_.crash(node(reserve), Crash::power);
  write(0, 16, 'B');
  fill('A');
  damage();
  sim_.restart(node(reserve));
  ASSERT_TRUE(sim_.run_until([&] { return unit_->head(reserve) && designation().requires_node(reserve); }, 30s));
  EXPECT_EQ(unit_->head(reserve)->replica(designation().vp)->last().lsn, replica()->last().lsn);
  expect_all();
}

}  // namespace
}  // namespace luge::sim
