// A control plane that is there and answers nothing (protocol 4.8): a whole unit in virtual time.
#include <algorithm>

#include "sim/cluster/unit_fixture.hpp"

namespace luge::sim {
namespace {

class NoControlTest : public UnitTest {
 protected:
  // A reserve that was let go is back and has everything; the control plane, which stands still, does not answer that it is to be required.
  void propose_in_vain() {
    write(0, 1, 'a');
    back_ = designation().reserves[0], primary_ = designation().primary;
    power_off({back_});
    ASSERT_TRUE(sim_.run_until([&] { return designation().required.size() == 2; }, 20s));
    sim_.pause(unit_->control_node());
    power_on({back_});
    sim_.run_for(2s);
    ASSERT_EQ(unit_->head(back_)->replica(designation().vp)->commit(), unit_->head(primary_)->replica(designation().vp)->commit());
  }
  bool lease() { return unit_->head(primary_)->digest(designation().vp)->lease; }

  NodeId back_ = 0, primary_ = 0;
};

// Requirement: P-4.8, CP-10 switch=silent-while-asking
TEST_F(NoControlTest, LeasesLastWhileAProposalHasNoAnswer) {
  ASSERT_NO_FATAL_FAILURE(propose_in_vain());
  int looks = 0, lapsed = 0;
  for (; looks < 1000; ++looks, sim_.run_for(10ms)) lapsed += !lease();
  EXPECT_EQ(lapsed, 0) << "of " << looks << " looks, while the one that is back wants to be required again";
  EXPECT_EQ(contents().substr(0, 2), "a0");
  sim_.resume(unit_->control_node());
  EXPECT_TRUE(all_required());
}

// The store may have taken the proposal, and the joiner may be primary of a later epoch by now: without its word nothing is read.
// Requirement: P-3.2 switch=union-not-asked
TEST_F(NoControlTest, ReadsAskTheJoinerToo) {
  ASSERT_NO_FATAL_FAILURE(propose_in_vain());
  sim_.fabric().cut_both(node(primary_), node(back_));
  sim_.run_for(2s);  // its grant is over
  ASSERT_FALSE(lease());
  bool answered = false;
  auto task = [](VolumeClient& c, bool& answered) -> Task<void> { answered = (co_await client::read(c.world, *c.volume, 0, kBlockBytes)).ok(); };
  sim_.world(client_node_).spawn("read", task(*client_, answered));
  sim_.run_for(3s);
  EXPECT_FALSE(answered);
  sim_.fabric().heal_all();
  sim_.resume(unit_->control_node());
  ASSERT_TRUE(sim_.run_until([&] { return answered; }, 20s));
  EXPECT_TRUE(all_required());
}

// Requirement: MC-21 switch=designations-not-kept
TEST_F(NoControlTest, AHeadThatHasRestartedKnowsWhereTheReplicasOfItsVolumesAre) {
  write(0, 1, 'a');
  const control::Designation d = designation();
  sim_.crash(unit_->control_node(), Crash::power);
  for (NodeId n : d.members()) {
    sim_.crash(node(n), Crash::power);
    sim_.restart(node(n));
  }
  sim_.run_for(1s);
  for (NodeId n : d.members()) {
    const head::Replica* r = unit_->head(n) ? unit_->head(n)->replica(d.vp) : nullptr;
    ASSERT_TRUE(r) << "node " << n << " has forgotten its replica";
    EXPECT_EQ(r->designation.members(), d.members());
    EXPECT_EQ(r->designation.required, d.required);
  }
}

// Requirement: MC-23 switch=one-role-per-head
TEST_F(NoControlTest, AHeadIsPrimaryOfOnePartitionAndReserveOfAnother) {
  ASSERT_TRUE(unit_->control()->volumes().create({"w", kBlocks * kBlockBytes, {2, 1}, 3}).ok());
  auto whole = [&] {
    const auto& all = unit_->store().designations;
    return std::all_of(all.begin(), all.end(), [&](const auto& d) {
      const head::Head* h = unit_->head(d.second.primary);
      return d.second.required.size() == 3 && h && h->digest(d.first) && h->digest(d.first)->primary_open;
    });
  };
  sim_.run_for(3s);
  ASSERT_TRUE(sim_.run_until(whole, 20s));
  const control::Designation v = unit_->store().designations.begin()->second, w = unit_->store().designations.rbegin()->second;
  ASSERT_NE(v.primary, w.primary);
  EXPECT_TRUE(v.has_member(w.primary) && w.has_member(v.primary));
  sim_.crash(unit_->control_node(), Crash::power);
  write(0, 1, 'a');
  sim_.run_for(1s);
  EXPECT_EQ(unit_->head(w.primary)->replica(v.vp)->commit(), unit_->head(v.primary)->replica(v.vp)->commit());
  EXPECT_EQ(contents().substr(0, 2), "a0");
}

// The primary asks to wait for a member that is back; the control plane hears it late, when that member is gone again. Whom the store
// says is required holds all that was ever acknowledged.
// Requirement: P-3.2 switch=union-forgotten
TEST_F(NoControlTest, AProposalWithoutAnAnswerMayHaveBeenTaken) {
  write(0, 1, 'a');
  NodeId back = designation().reserves[0];
  power_off({back});
  ASSERT_TRUE(sim_.run_until([&] { return designation().required.size() == 2; }, 20s));
  sim_.pause(unit_->control_node());
  power_on({back});
  sim_.run_for(4s);  // it is asked for
  power_off({back});
  sim_.run_for(4s);  // nobody is asked for any more, and no answer has come
  bool acknowledged = false, wrong = false;
  auto task = [](VolumeClient& c, bool& acknowledged) -> Task<void> {
    Status s = co_await client::write(c.world, *c.volume, 0, filled(1, 'b'));
    EXPECT_TRUE(s.ok()) << s.to_string();
    acknowledged = true;
  };
  sim_.world(client_node_).spawn("write", task(*client_, acknowledged));
  sim_.run_for(3s);
  sim_.resume(unit_->control_node());
  sim_.run_until([&] {
    const std::vector<NodeId>& r = designation().required;
    wrong |= acknowledged && std::find(r.begin(), r.end(), back) != r.end();
    return wrong;
  }, 20s);
  EXPECT_FALSE(wrong) << "a member that has been off since before the write is required, and would be promoted";
  EXPECT_TRUE(acknowledged);
  EXPECT_EQ(contents().substr(0, 2), "b0");
}

}  // namespace
}  // namespace luge::sim
