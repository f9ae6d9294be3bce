// A primary that has been replaced and does not know it: the sleds tell it (FN-09..11). A whole unit.
#include "sim/cluster/unit_fixture.hpp"

namespace luge::sim {
namespace {

class Fencing : public UnitTest {
 protected:
  Fencing() : UnitTest(3, 4 << 20, [](head::Options& h) {
                h.flush_age = h.flush_idle = 6s;
                h.checkpoints = head::Options::Checkpoints::none;
              }) {}
  /// From everything but the sleds.
  void cut_off(NodeId head) {
    for (Node n = 0; n < sim_.nodes(); ++n)
      if (n != node(head) && !unit_->is_sled(n)) sim_.fabric().cut_both(node(head), n);
  }
  bool opened(NodeId head) { return unit_->head(head)->digest(designation().vp)->primary_open; }
  void flush() {
    auto task = [](control::Volumes& v) -> Task<void> {
      auto left = co_await v.flush("v", 30s);
      EXPECT_TRUE(left.ok() && *left == 0);
    };
    sim_.run(unit_->control_node(), task(unit_->control()->volumes()), 60s);
  }
};

// Requirement: FN-09, FN-10, FN-11, FN-14 switch=sleds-word-ignored
TEST_F(Fencing, APrimaryOfThePastStepsDownByTheWordOfASled) {
  fill('A');
  NodeId old = designation().primary;
  Epoch epoch = designation().epoch;
  cut_off(old);
  ASSERT_TRUE(sim_.run_until([&] { return designation().epoch > epoch && opened(designation().primary); }, 20s));
  ASSERT_TRUE(opened(old)) << "nobody has told it";
  flush();  // of the new one, which makes itself known to the sleds
  ASSERT_TRUE(sim_.run_until([&] { return !opened(old); }, 30s)) << "its own flush is due, and each sled refuses it";
  EXPECT_EQ(unit_->head(old)->digest(designation().vp)->epoch, epoch) << "it still has heard nothing of the new epoch";
  sim_.fabric().heal_all();
  ASSERT_TRUE(all_required());
  EXPECT_EQ(contents(), std::string(kBlocks, 'A'));
}

}  // namespace
}  // namespace luge::sim
