// A control plane that is there and answers nothing (protocol 4.8): a whole unit in virtual time.
#include <algorithm>

#include "sim/cluster/unit_fixture.hpp"

namespace luge::sim {
namespace {

using NoControlTest = UnitTest;

// Requirement: P-4.8, CP-10 switch=silent-while-asking
TEST_F(NoControlTest, LeasesLastWhileAProposalHasNoAnswer) {
  write(0, 1, 'a');
  NodeId back = designation().reserves[0], primary = designation().primary;
  power_off({back});
  ASSERT_TRUE(sim_.run_until([&] { return designation().required.size() == 2; }, 20s));
  sim_.pause(unit_->control_node());
  power_on({back});
  sim_.run_for(2s);
  ASSERT_EQ(unit_->head(back)->replica(designation().vp)->commit(), unit_->head(primary)->replica(designation().vp)->commit());
  int looks = 0, lapsed = 0;
  for (; looks < 1000; ++looks, sim_.run_for(10ms)) lapsed += !unit_->head(primary)->digest(designation().vp)->lease;
  EXPECT_EQ(lapsed, 0) << "of " << looks << " looks, while the one that is back wants to be required again";
  EXPECT_EQ(contents().substr(0, 2), "a0");
  sim_.resume(unit_->control_node());
  EXPECT_TRUE(all_required());
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
