// A control plane that is there and answers nothing (protocol 4.8): a whole unit in virtual time.
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

}  // namespace
}  // namespace luge::sim
