// Another head takes the place of one that is lost (host/head/replacement.cpp), and the lost one comes back: a whole unit in virtual time.
#include "sim/cluster/unit_fixture.hpp"

namespace luge::sim {
namespace {

class Replacement : public UnitTest {
 protected:
  explicit Replacement(std::uint32_t copies = 3, std::uint32_t heads = 4)
      : UnitTest(copies, 4 << 20, [](head::Options& h) { h.replace_after = 1s; }, heads) {}
  void cut(NodeId a, NodeId b) { sim_.fabric().cut_both(node(a), node(b)); }
};
struct ReplacementOfTwo : Replacement {
  ReplacementOfTwo() : Replacement(2, 3) {}
};

// The newcomer has caught up with nothing yet when the lost head is there again.
// Requirement: P-3.4 switch=places-change-hands-for-ever
TEST_F(Replacement, WhoComesBackKeepsItsPlace) {
  fill('A');
  ASSERT_TRUE(all_required());
  NodeId lost = designation().reserves[0], newcomer = spare();
  cut(designation().primary, newcomer);
  power_off({lost});
  ASSERT_TRUE(sim_.run_until([&] { return designation().has_member(newcomer); }, 30s));
  power_on({lost});
  EXPECT_TRUE(sim_.run_until([&] { return designation().requires_node(lost); }, 20s)) << "revision " << designation().revision;
  EXPECT_LE(designation().revision, 6u) << "it leaves, is replaced, is back, joins";
  EXPECT_TRUE(all_required());
  EXPECT_EQ(contents(), std::string(kBlocks, 'A'));
}

// It runs, answers, and holds nothing any more until somebody starts it anew.
// Requirement: FO-02 switch=failed-member-kept
TEST_F(Replacement, WhoseLogHasFailedIsReplaced) {
  fill('A');
  ASSERT_TRUE(all_required());
  NodeId bad = designation().reserves[0], newcomer = spare();
  sim_.disk(node(bad)).faults_of["log-data"].write_error = 1;
  write(0, 16, 'B');
  sim_.disk(node(bad)).faults_of.clear();
  EXPECT_TRUE(sim_.run_until([&] { return designation().requires_node(newcomer); }, 20s));
  EXPECT_FALSE(designation().has_member(bad));
  EXPECT_TRUE(all_required());
  Revision settled = designation().revision;
  sim_.run_for(10s);
  EXPECT_EQ(designation().revision, settled) << "who has failed does not come back by being there";
  // Nor in another's place, until it has been started again.
  NodeId lost = designation().reserves[1];
  power_off({lost});
  sim_.run_for(10s);
  EXPECT_TRUE(designation().has_member(lost));
  power_off({bad});
  power_on({bad});
  EXPECT_TRUE(sim_.run_until([&] { return designation().requires_node(bad); }, 20s));
  EXPECT_EQ(contents(), std::string(16, 'B') + std::string(kBlocks - 16, 'A'));
}

// Its answer comes too late, and what it has decided comes by its own word just behind: nothing is left to be asked for.
// Requirement: P-3.4 switch=control-pause-stays
TEST_F(Replacement, ASilenceOfTheControlPlaneIsNotToldOfForEver) {
  fill('A');
  ASSERT_TRUE(all_required());
  NodeId away = designation().reserves[0];
  Node control = unit_->control_node();
  int late = 0;
  for (auto silence = 1000ms; silence < 1110ms; silence += 15ms) {
    power_off({away});
    ASSERT_TRUE(sim_.run_until([&] { return designation().required.size() == 2; }, 20s));
    bool asked = false;
    on_reached([&](Path p) {
      if (p == Path::proposal_sent && !asked) asked = true, sim_.pause(control);
      if (p == Path::proposal_answer_lost) ++late;
    });
    power_on({away});
    ASSERT_TRUE(sim_.run_until([&] { return asked; }, 20s));
    sim_.run_for(silence);
    sim_.resume(control);
    sim_.run_for(2s);  // what it says of itself comes with its reports
    EXPECT_TRUE(all_required()) << text("state") << ", " << text("reason");
    on_reached({});
  }
  EXPECT_GT(late, 0);
}

// Who was lost has everything, its replacement nothing yet, and the only other copy is lost with its disk.
// Requirement: P-4.2 switch=newcomers-prove-emptiness
TEST_F(ReplacementOfTwo, ANewcomerThatHoldsNothingProvesNothing) {
  write(0, 16, 'A');
  NodeId kept = designation().primary, lost = designation().reserves[0], newcomer = spare();
  cut(kept, newcomer);
  power_off({lost});
  ASSERT_TRUE(sim_.run_until([&] { return designation().has_member(newcomer); }, 60s));
  power_off({kept});
  unit_->replace_disk(node(kept));
  sim_.fabric().heal_all();
  power_on({kept});
  sim_.run_for(20s);
  EXPECT_NE(text("state"), "open");
  for (NodeId n : {kept, newcomer}) {
    auto d = unit_->head(n)->digest(designation().vp);
    EXPECT_FALSE(d && d->primary_open) << name(n);
  }
}

}  // namespace
}  // namespace luge::sim
