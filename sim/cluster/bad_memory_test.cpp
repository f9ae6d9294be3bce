// A bit turns over in a head's memory, in the payload of a record that is logged: nobody is given it, and nobody waits for ever for what it was.
#include "sim/cluster/unit_fixture.hpp"

namespace luge::sim {
namespace {

struct BadMemory : UnitTest {
  explicit BadMemory(Duration flush_idle = 100s, std::size_t memory = 64 << 20)
      : UnitTest(3, 4 << 20, [=](head::Options& h) { h.flush_idle = flush_idle, h.memory_bytes = memory; }) { fill('A'); }
  const head::Replica* replica() { return unit_->head(designation().primary)->replica(designation().vp); }
  void damage() {
    for (const auto& [lsn, record] : replica()->records())
      if (record->payload_blocks() != 0) record->payload.data()[2 * kBlockBytes] = std::byte{'X'};
  }
  // Of the third block of each record, its payload stays as it is.
  void damage_checksums() {
    for (const auto& [lsn, record] : replica()->records())
      if (record->payload_blocks() != 0) record->body[2 * sizeof(std::uint32_t)] ^= 1;
  }
  void be_alone() {
    std::vector<NodeId> others = designation().reserves;
    power_off(others);
    ASSERT_TRUE(sim_.run_until([&] { return designation().required.size() == 1; }, 30s));
  }
  void expect_all() { EXPECT_EQ(contents(), std::string(kBlocks, 'A')); }
};
struct BadMemoryFlushed : BadMemory {
  BadMemoryFlushed() : BadMemory(1s) {}
};
struct BadMemorySmall : BadMemory {
  BadMemorySmall() : BadMemory(100s, 16 * kBlockBytes) { write(0, 16, 'A'); }
};

// The checksum that goes out with a block is the one that it came in with: the reader sees that it is another, and asks for it from the log.
// Requirement: RD-02 switch=answers-checksummed-anew
TEST_F(BadMemory, IsNotHandedOut) {
  damage();
  expect_all();
}

// Then neither the block in memory nor the one in the log seems right. The record's own checksum, which is over those of its blocks, tells.
// Requirement: RD-02 switch=bad-memory-trusted
TEST_F(BadMemory, MayBeThatOfAChecksum) {
  be_alone();
  damage_checksums();
  expect_all();
}

// Requirement: RD-02 switch=bad-memory-trusted
TEST_F(BadMemorySmall, MayBeThatOfTheChecksumOfWhatIsInTheLog) {
  be_alone();
  auto in_log = [](const auto& r) { return r.second->payload_blocks() != 0 && r.second->durable && r.second->payload.empty(); };
  ASSERT_GT(std::count_if(replica()->records().begin(), replica()->records().end(), in_log), 2);
  damage_checksums();
  expect_all();
}

// What a write of some sectors is laid over is summed anew, and would be right from then on, in every copy.
// Requirement: P-2.4 switch=merge-trusts-memory
TEST_F(BadMemory, IsNotMergedInto) {
  damage();
  on_client([](VolumeClient& c) { return client::write(c.world, *c.volume, 2 * kBlockBytes + 512, filled(1, 'B').slice(0, 512)); });
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
