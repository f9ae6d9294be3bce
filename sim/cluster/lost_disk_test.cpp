// A member of `required` that comes back with an empty disk: what it is given must not look like the whole before it is.
#include "sim/cluster/unit_fixture.hpp"

namespace luge::sim {
namespace {

constexpr std::uint32_t kMany = 4096, kEach = 128;  // 16 MiB

class LostDisk : public UnitTest {
 protected:
  LostDisk() : UnitTest(2, 64 << 20, [](head::Options& h) { h.segment_bytes = 4 << 20; }, 2, std::uint64_t{kMany} * kBlockBytes) {
    for (Lba at = 0; at < kMany; at += kEach) write(at, kEach, 'A');
    sim_.run_for(1s);
    all_ = replica(designation().primary)->commit();
  }
  const head::Replica* replica(NodeId head) { return unit_->head(head) ? unit_->head(head)->replica(designation().vp) : nullptr; }
  // It loses its disk, and the other one its power when half of what it holds has come over, or when it should have.
  void lose(NodeId head, NodeId source, Crash how) {
    sim_.crash(node(head), how);
    unit_->replace_disk(node(head));
    sim_.fabric().wire.bytes_per_ns = 0.01;
    sim_.restart(node(head));
    auto half = [&] { return replica(head) && replica(head)->durable() > 4 && replica(head)->durable() < all_ - 10; };
    sim_.run_until(half, 1s);
    power_off({source});
    sim_.fabric().wire.bytes_per_ns = 1.25;
    sim_.run_for(20s);
    EXPECT_FALSE(unit_->head(head)->digest(designation().vp)->primary_open) << "it lacks what was acknowledged";
    sim_.restart(node(source));
    EXPECT_TRUE(wait_for_state("open", 60s)) << text("state") << ", " << text("reason");
    EXPECT_TRUE(sim_.run_until([&] { return designation().required.size() == 2; }, 60s));
  }
  std::uint64_t good() {
    std::uint64_t n = 0;
    auto task = [](VolumeClient& c, std::uint64_t& n) -> Task<void> {
      for (Lba b = 0; b < kMany; b += kEach) {
        auto r = co_await client::read(c.world, *c.volume, b * kBlockBytes, kBlockBytes);
        n += r.ok() && r->data()[0] == std::byte{'A'};
      }
    };
    sim_.run(client_node_, task(*client_, n), 120s);
    return n;
  }
  Lsn all_ = 0;
};

// Requirement: P-4.5 switch=half-a-log-counts
TEST_F(LostDisk, AReserveThatIsFilledUpDoesNotOpenWithHalf) {
  lose(designation().reserves[0], designation().primary, Crash::power);
  EXPECT_EQ(good(), kMany / kEach);
}

// It is back before anybody has taken over.
// Requirement: P-4.5 switch=half-a-log-counts
TEST_F(LostDisk, APrimaryThatTakesTheLogOfAnotherDoesNotOpenWithHalf) {
  lose(designation().primary, designation().reserves[0], Crash::process);
  EXPECT_EQ(good(), kMany / kEach);
}

}  // namespace
}  // namespace luge::sim
