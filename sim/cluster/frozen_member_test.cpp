// Heads that stand still (SIGSTOP) and keep their connections, while nothing is written or while somebody waits for just them.
#include "sim/cluster/unit_fixture.hpp"

namespace luge::sim {
namespace {

class Frozen : public UnitTest {
 protected:
  explicit Frozen(std::uint32_t copies = 3, std::uint32_t heads = 3) : UnitTest(copies, 4 << 20, {}, heads) { write(0, 8, 'A'); }
  bool read_within(Duration limit) {
    auto done = std::make_shared<bool>(false);
    auto task = [](VolumeClient& c, std::shared_ptr<bool> done) -> Task<void> {
      auto r = co_await client::read(c.world, *c.volume, 0, kBlockBytes);
      *done = r.ok() && r->data()[0] == std::byte{'A'};
    };
    sim_.world(client_node_).spawn("read", task(*client_, done));
    return sim_.run_until([&] { return *done; }, limit);
  }
  bool opens_within(Duration limit) {
    return sim_.run_until([&] {
      auto h = unit_->head(designation().primary);
      return designation().epoch > 1 && h && h->digest(designation().vp)->primary_open;
    }, limit);
  }
  std::string why() { return text("state") + ", " + text("reason"); }
};

// Requirement: P-3.1 switch=frozen-member-awaited
TEST_F(Frozen, ReadsGoOnBesideAReserveThoughNothingIsWritten) {
  NodeId frozen = designation().reserves[0];
  sim_.run_for(2s);
  sim_.pause(node(frozen));
  sim_.run_for(2s);
  EXPECT_TRUE(read_within(5s)) << why();
  Revision before = designation().revision;
  sim_.run_for(20s);
  EXPECT_EQ(designation().revision, before) << "it leaves once";
  EXPECT_FALSE(designation().requires_node(frozen));
  sim_.resume(node(frozen));
  EXPECT_TRUE(all_required());
}

class FrozenOfFour : public Frozen {
 protected:
  FrozenOfFour() : Frozen(3, 4) {}
};

TEST_F(FrozenOfFour, AnotherHeadTakesItsPlace) {
  NodeId frozen = designation().reserves[0];
  sim_.pause(node(frozen));
  EXPECT_TRUE(sim_.run_until([&] { return !designation().has_member(frozen); }, 60s)) << why();
  EXPECT_TRUE(all_required());
  sim_.resume(node(frozen));
  sim_.run_for(10s);
}

TEST_F(FrozenOfFour, ATakeOverGoesOnWithoutOneThatFreezesMeanwhile) {
  std::vector<NodeId> r = designation().reserves;
  sim_.run_for(1s);
  power_off({designation().primary});
  ASSERT_TRUE(sim_.run_until([&] { return designation().epoch == 2; }, 10s));
  NodeId frozen = designation().primary == r[1] ? r[0] : r[1];
  sim_.pause(node(frozen));
  EXPECT_TRUE(opens_within(60s)) << why();
  EXPECT_TRUE(read_within(5s));
  sim_.resume(node(frozen));
  sim_.run_for(5s);
}

TEST_F(FrozenOfFour, AHandOverGoesOnWithoutOneThatHasFrozen) {
  NodeId first = designation().primary, frozen = std::max(designation().reserves[0], designation().reserves[1]);
  sim_.run_for(1s);
  sim_.pause(node(frozen));
  auto task = [](control::Volumes& v, std::string from) -> Task<void> { (void)co_await v.move("v", from, "", true, 30s); };
  sim_.world(unit_->control_node()).spawn("move", task(unit_->control()->volumes(), name(first)));
  EXPECT_TRUE(opens_within(60s)) << why();
  sim_.resume(node(frozen));
  sim_.run_for(5s);
}

class FrozenOfTwo : public Frozen {
 protected:
  FrozenOfTwo() : Frozen(2, 2) {}
};

TEST_F(FrozenOfTwo, TheOtherServesReadsAlone) {
  NodeId frozen = designation().reserves[0];
  sim_.pause(node(frozen));
  sim_.run_for(2s);
  EXPECT_TRUE(read_within(20s)) << why();
  sim_.resume(node(frozen));
  EXPECT_TRUE(sim_.run_until([&] { return designation().required.size() == 2; }, 30s));
}

// What it does not take would keep all that comes after it in the log.
class FrozenJoiner : public UnitTest {
 protected:
  static constexpr std::uint32_t kMany = 16384;  // 64 MiB
  FrozenJoiner()
      : UnitTest(3, 64 << 20, [](head::Options& h) { h.segment_bytes = 4 << 20, h.flush_bytes = 8 << 20, h.flush_age = h.flush_idle = 3600s; }, 3, std::uint64_t{kMany} * kBlockBytes) {}
  const head::Replica* replica(NodeId head) { return unit_->head(head) ? unit_->head(head)->replica(designation().vp) : nullptr; }
};

TEST_F(FrozenJoiner, DoesNotHoldTheLog) {
  NodeId first = designation().primary, other = designation().reserves[1];
  write(0, 1, 'A');
  sim_.crash(node(other), Crash::power);
  ASSERT_TRUE(sim_.run_until([&] { return designation().required.size() == 2; }, 30s));
  for (Node s : unit_->sled_nodes()) sim_.pause(s);  // nothing is flushed
  for (Lba at = 0; at < 7000; at += 128) write(at, 128, 'A');
  Lsn all = replica(first)->commit();
  sim_.fabric().wire.bytes_per_ns = 0.02;
  sim_.restart(node(other));
  ASSERT_TRUE(sim_.run_until([&] { return replica(other) && replica(other)->durable() > 5 && replica(other)->durable() < all - 20; }, 30s));
  sim_.pause(node(other));
  sim_.fabric().wire.bytes_per_ns = 1.25;
  for (Node s : unit_->sled_nodes()) sim_.resume(s);
  sim_.run_for(10s);
  auto done = std::make_shared<bool>(false);
  auto task = [](VolumeClient& c, std::shared_ptr<bool> done) -> Task<void> {
    for (Lba at = 0; at < kMany; at += 128)
      if (auto s = co_await client::write(c.world, *c.volume, at * kBlockBytes, filled(128, 'B')); !s.ok()) co_return;
    *done = true;
  };
  sim_.world(client_node_).spawn("write", task(*client_, done));
  EXPECT_TRUE(sim_.run_until([&] { return *done; }, 120s)) << text("state") << ", " << text("reason");
  sim_.resume(node(other));
  EXPECT_TRUE(all_required());
}

}  // namespace
}  // namespace luge::sim
