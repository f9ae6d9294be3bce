// A volume that one of its heads has never heard of when it is to open for the first time: a whole unit in virtual time.
#include "sim/cluster/unit_fixture.hpp"

namespace luge::sim {
namespace {

class FirstOpening : public UnitTest {
 protected:
  /// A second volume, whose last reserve dies before it is told of it.
  void make_without_a_reserve() {
    auto made = unit_->control()->volumes().create({"w", kBlocks * kBlockBytes, {2, 1}, 3});
    ASSERT_TRUE(made.ok()) << made.status().to_string();
    id_ = made->id;
    missed_ = its().reserves.back();
    power_off({missed_});
    ASSERT_TRUE(sim_.run_until([&] { return its().required.size() == 2; }, 20s));
  }
  const control::Designation& its() { return unit_->store().designations.at(make_vp(id_, 0)); }
  bool opens(Duration limit) {
    return sim_.run_until([&] {
      head::Head* h = unit_->head(its().primary);
      auto d = h ? h->digest(its().vp) : std::nullopt;
      return d && d->primary_open;
    }, limit);
  }
  VolumeId id_ = 0;
  NodeId missed_ = 0;
};

// Requirement: P-4.2 switch=only-required-asked
TEST_F(FirstOpening, ComesWhenAllAreThereThoughOneHasMissedIt) {
  make_without_a_reserve();
  power_on({missed_});
  EXPECT_TRUE(opens(20s)) << "nobody holds anything, so nothing was acknowledged";
  EXPECT_TRUE(sim_.run_until([&] { return its().required.size() == 3; }, 20s));
}

// Requirement: P-4.2 switch=only-required-asked
TEST_F(FirstOpening, ComesAlsoAfterAPowerCutOfTheOthers) {
  make_without_a_reserve();
  std::vector<NodeId> others = its().required;
  power_off(others);
  sim_.run_for(1s);
  power_on(others);
  EXPECT_FALSE(opens(10s)) << "who has not been heard may hold what they have lost";
  power_on({missed_});
  EXPECT_TRUE(opens(20s));
}

// Those that held everything have lost it, and one that was behind has something still: that is no volume that was never open.
// Requirement: P-4.2 switch=blank-promoted
TEST_F(FirstOpening, IsNoneWhereAMemberHoldsSomething) {
  write(0, 16, 'A');
  NodeId behind = designation().reserves[1];
  power_off({behind});
  write(0, 8, 'B');
  ASSERT_EQ(designation().required.size(), 2u);
  std::vector<NodeId> lost = designation().required;
  power_off(lost);
  for (NodeId n : lost) unit_->replace_disk(node(n));
  power_on(lost);
  power_on({behind});
  sim_.run_for(20s);
  EXPECT_EQ(text("state"), "closed") << "an operator is told, and how far the others reach";
  for (NodeId n : lost) EXPECT_FALSE(unit_->head(n)->digest(designation().vp)->primary_open) << name(n);
  ASSERT_TRUE(unit_->control()->volumes().accept_loss("v", name(behind), false).ok()) << "no other head could open it";
  ASSERT_TRUE(wait_for_state("open"));
  EXPECT_EQ(contents().substr(0, 17), std::string(16, 'A') + "0");
}

// All disks are lost, of a partition that has served: it is gone, and must not look as if it had never been written to.
class ServedAndLost : public FirstOpening {
 protected:
  void lose_all() {
    const std::vector<NodeId> all = designation().members();
    power_off(all);
    for (NodeId n : all) unit_->replace_disk(node(n));
    power_on(all);
    sim_.run_for(20s);
    EXPECT_NE(text("state"), "open");
    for (NodeId n : all) EXPECT_FALSE(unit_->head(n)->digest(designation().vp)->primary_open) << name(n);
  }
};

// Requirement: P-4.2 switch=newcomers-prove-emptiness
TEST_F(ServedAndLost, IsNoFirstOpening) {
  write(0, 16, 'A');
  NodeId last = designation().members()[2];
  power_off({last});
  write(0, 8, 'B');
  power_on({last});
  ASSERT_TRUE(all_required());
  ASSERT_TRUE(designation().opened);
  lose_all();
}

// Nor where nothing had happened that a member's change would have told of.
// Requirement: P-4.2 switch=first-opening-unrecorded
TEST_F(ServedAndLost, IsNoneWhereTheMembersHaveNeverChanged) {
  write(0, 16, 'A');
  lose_all();
}

// The control plane stands still just when the heads begin: nothing is served that it does not know of, and nothing is lost by waiting.
// Requirement: P-4.2 switch=first-opening-unrecorded
TEST_F(FirstOpening, WaitsUntilItIsRecorded) {
  auto made = unit_->control()->volumes().create({"w", kBlocks * kBlockBytes, {2, 1}, 3});
  ASSERT_TRUE(made.ok()) << made.status().to_string();
  id_ = made->id;
  const control::Designation first = its();
  auto begins = [&](NodeId n) -> bool {
    const head::Replica* r = unit_->head(n)->replica(first.vp);
    return r && r->last().lsn == 1;
  };
  ASSERT_TRUE(sim_.run_until([&] { return begins(first.primary); }, 10s));
  sim_.pause(unit_->control_node());
  EXPECT_FALSE(opens(10s));
  for (NodeId n : first.members()) EXPECT_TRUE(begins(n)) << name(n);
  EXPECT_FALSE(its().opened);
  power_off(first.members());
  sim_.resume(unit_->control_node());
  power_on(first.members());
  EXPECT_TRUE(opens(20s)) << "who holds the start of an epoch has lost nothing";
  EXPECT_TRUE(its().opened);
}

}  // namespace
}  // namespace luge::sim
