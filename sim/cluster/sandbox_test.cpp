// Where a flush writes to: the sandbox that the control plane recommended, and beyond it where that does not do; with and without a
// control plane. A whole unit.
#include "control/reports.hpp"
#include "sim/cluster/unit_fixture.hpp"

namespace luge::sim {
namespace {

class Sandbox : public UnitTest {
 protected:
  Sandbox() : UnitTest(3, 8 << 20, [](head::Options& h) {
                h.flush_age = h.flush_idle = 300ms;
                h.checkpoints = head::Options::Checkpoints::none;  // they take columns, too
              }) {}

  /// The control plane recommends only these columns, from the beginning, and is then gone.
  void leave_with(const std::function<bool(const control::SandboxRow&)>& kept) {
    sim_.crash(unit_->control_node(), Crash::power);
    control::Image copy = unit_->copy_of_store();
    const auto rows = copy.sandboxes.rows();
    for (const control::SandboxRow& r : rows)
      if (!kept(r)) copy.sandboxes.erase(r);
    ASSERT_FALSE(copy.sandboxes.empty());
    unit_->restore_store(copy);
    sim_.restart(unit_->control_node());
    ASSERT_TRUE(sim_.run_until([&] { return figure("columns") == copy.sandboxes.size(); }, 10s));
    sim_.crash(unit_->control_node(), Crash::power);
  }
  head::Head* primary() { return unit_->head(designation().primary); }
  const head::Replica& replica() { return *primary()->replica(designation().vp); }
  bool flushed() {
    return sim_.run_until([&] { return replica().unflushed_blocks() == 0; }, 20s);
  }
  std::uint64_t figure(const char* name) {
    auto report = control::parse_report(primary()->report());
    const auto* vps = control::report_member(report, "vps");
    const auto* sandbox = vps ? control::report_member(vps->get_array().at(0), "sandbox") : nullptr;
    return sandbox ? control::report_number(*sandbox, name) : 0;
  }
};

// Requirement: FL-07, FL-08 switch=flush-asks-for-space
// Requirement: CP-05, CP-06 switch=sandbox-not-sent
TEST_F(Sandbox, AFlushInsideItAsksNobodyForSpace) {
  fill('A');
  ASSERT_TRUE(flushed());
  EXPECT_NE(replica().stripes().size(), 0u);
  EXPECT_EQ(figure("requests"), 0u);
  EXPECT_EQ(figure("outside_space") + figure("outside_domain"), 0u);
  EXPECT_EQ(contents(), std::string(kBlocks, 'A'));
}

// Requirement: CP-05, CP-08, FL-08, CP-10
TEST_F(Sandbox, WithoutAControlPlaneFlushesGoOnInWhatIsHeld) {
  sim_.crash(unit_->control_node(), Crash::power);
  for (char with : {'A', 'B', 'C'}) {
    fill(with);
    ASSERT_TRUE(flushed());
  }
  EXPECT_EQ(figure("requests"), 0u);
  EXPECT_EQ(figure("outside_space") + figure("outside_domain"), 0u);
  EXPECT_EQ(contents(), std::string(kBlocks, 'C'));
}

// A column has 102 slots, a rewrite of the volume takes 24 of them.
// Requirement: FL-09, CP-07, CP-08 switch=sandbox-is-a-limit
TEST_F(Sandbox, WhenItIsFullAFlushGoesOnOutsideIt) {
  std::set<NodeId> seen;
  leave_with([&](const control::SandboxRow& r) { return seen.insert(r.sled).second; });
  for (int i = 0; i < 32; ++i) {
    fill(static_cast<char>('A' + i % 26));
    ASSERT_TRUE(flushed()) << "after " << i << " rewrites";
  }
  EXPECT_NE(figure("outside_space"), 0u);
  EXPECT_EQ(figure("outside_domain"), 0u);
  EXPECT_EQ(figure("requests"), 0u) << "nobody is there to be asked";
  EXPECT_EQ(contents(), std::string(kBlocks, 'A' + 31 % 26));
}

// Columns enough, on two sleds; a stripe needs three.
// Requirement: FL-09, FL-01 switch=sandbox-is-a-limit
TEST_F(Sandbox, WhenItHasTooFewSledsAFlushTakesAColumnOfAnother) {
  leave_with([](const control::SandboxRow& r) { return r.sled < kFirstSled + 2; });
  fill('A');
  ASSERT_TRUE(flushed());
  EXPECT_NE(figure("outside_domain"), 0u);
  EXPECT_EQ(figure("outside_space"), 0u);
  for (const auto& [number, row] : replica().stripes()) {
    std::set<NodeId> sleds;
    for (const fbs::ChunkPlace& p : row.places) sleds.insert(p.sled());
    EXPECT_EQ(sleds.size(), 3u) << "stripe " << number;
    EXPECT_FALSE(sleds.contains(0)) << "a narrower stripe is less durable than the volume was made for";
  }
}

}  // namespace
}  // namespace luge::sim
