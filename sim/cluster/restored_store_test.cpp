// The control plane's store is replaced by an older copy of itself (protocol 5.2): a whole unit.
#include "sim/cluster/unit_fixture.hpp"

namespace luge::sim {
namespace {

class RestoredStore : public UnitTest {
 protected:
  // A copy is taken, then one head is let go and a write acknowledged without it. Those who know are switched off, the copy is put in
  // place, and the head that was let go is the only one there.
  void set_back(bool mark_too = false) {
    write(0, 8, 'A');
    control::Image copy = unit_->copy_of_store();
    behind_ = designation().reserves[1], first_ = designation().primary, second_ = designation().reserves[0];
    sim_.crash(node(behind_), Crash::power);
    write(0, 4, 'B');
    ASSERT_EQ(designation().required.size(), 2u);
    sim_.run_for(500ms);
    for (Node n : {node(first_), node(second_), unit_->control_node()}) sim_.crash(n, Crash::power);
    unit_->restore_store(copy, mark_too);
    sim_.restart(unit_->control_node());
    sim_.restart(node(behind_));
    sim_.run_for(15s);
  }
  bool opened(NodeId head) { return unit_->head(head)->digest(designation().vp)->primary_open; }

  NodeId behind_ = 0, first_ = 0, second_ = 0;
};

// Requirement: P-5.2 switch=restored-store-promotes
TEST_F(RestoredStore, NobodyIsPromotedBeforeAllHeadsHaveSaidWhatTheyKnow) {
  set_back();
  EXPECT_FALSE(opened(behind_)) << "it lacks what was acknowledged without it";
  EXPECT_NE(text("reason").find("restored from an older copy"), std::string::npos) << text("reason");
  EXPECT_NE(text("reason").find(name(first_)), std::string::npos) << text("reason");
  EXPECT_EQ(unit_->control()->volumes().doubting(designation().vp), (std::vector<NodeId>{first_, second_}));
  sim_.restart(node(second_));
  sim_.run_for(10s);
  EXPECT_FALSE(opened(second_)) << "it knows more, but the last one may know more still";
  sim_.restart(node(first_));
  ASSERT_TRUE(all_required());
  EXPECT_TRUE(unit_->control()->volumes().doubting(designation().vp).empty());
  EXPECT_EQ(contents().substr(0, 9), "BBBBAAAA0");
}

// Requirement: P-5.2 switch=restored-store-promotes
TEST_F(RestoredStore, WhoWasToldOfLaterChangesTellsWhenTheMarkWasSetBackToo) {
  set_back(true);
  EXPECT_FALSE(opened(behind_)) << "sleds and clients have been told of more than this store holds";
  for (NodeId n : {first_, second_}) sim_.restart(node(n));
  ASSERT_TRUE(all_required());
  EXPECT_EQ(contents().substr(0, 9), "BBBBAAAA0");
}

// A head that says more than the store can take has not been heard, and a volume that has grown since is no reason not to take it.
// Requirement: P-5.2
TEST_F(RestoredStore, WhatAGrownVolumesHeadsKnowIsTakenOver) {
  write(0, 4, 'A');
  control::Image copy = unit_->copy_of_store();
  NodeId first = designation().primary, second = designation().reserves[0], behind = designation().reserves[1];
  sim_.crash(node(behind), Crash::power);
  write(0, 2, 'B');
  bool grown = false;
  auto grow = [](control::Control& c, bool& g) -> Task<void> { g = (co_await c.volumes().resize("v", 128 * kBlockBytes)).ok(); };
  sim_.world(unit_->control_node()).spawn("grow", grow(*unit_->control(), grown));
  ASSERT_TRUE(sim_.run_until([&] { return grown; }, 30s));
  write(0, 4, 'B');
  sim_.run_for(500ms);
  for (Node n : {node(first), node(second), unit_->control_node()}) sim_.crash(n, Crash::power);
  unit_->restore_store(copy, false);
  sim_.restart(unit_->control_node());
  power_on({first, second});
  sim_.run_for(8s);
  power_off({first, second});
  sim_.run_for(1s);
  sim_.restart(node(behind));
  sim_.run_for(15s);
  EXPECT_FALSE(opened(behind)) << "it lacks what was acknowledged without it";
  power_on({first, second});
  ASSERT_TRUE(all_required());
  EXPECT_EQ(contents().substr(0, 4), "BBBB");
  EXPECT_EQ(unit_->store().find_volume("v")->bytes, 128 * kBlockBytes);
}

// A store that is older than a partition must not make that partition anew.
// Requirement: P-5.2
TEST_F(RestoredStore, APartitionThatTheStoreHasNeverKnownIsNotMadeAnew) {
  write(0, 4, 'A');
  control::Image copy = unit_->copy_of_store();
  const std::uint64_t two = unit_->store().find_volume("v")->vp_bytes + 64 * kBlockBytes;
  std::optional<Status> resized;
  auto resize = [](control::Control& c, std::uint64_t bytes, std::optional<Status>& s) -> Task<void> { s = (co_await c.volumes().resize("v", bytes)).status(); };
  auto try_resize = [&](std::uint64_t bytes) {
    resized.reset();
    sim_.world(unit_->control_node()).spawn("resize", resize(*unit_->control(), bytes, resized));
    EXPECT_TRUE(sim_.run_until([&] { return resized.has_value(); }, 60s));
    return *resized;
  };
  ASSERT_TRUE(try_resize(two).ok());
  sim_.run_for(1s);
  sim_.crash(unit_->control_node(), Crash::power);
  unit_->restore_store(copy, false);
  sim_.restart(unit_->control_node());
  sim_.run_for(10s);
  EXPECT_TRUE(unit_->store().lost);
  EXPECT_EQ(try_resize(two).code(), Code::degraded);
  bool rebuilt = false;
  auto rebuild = [](control::Control& c, bool& done) -> Task<void> { done = (co_await c.volumes().rebuild(false, false)).ok(); };
  sim_.world(unit_->control_node()).spawn("rebuild", rebuild(*unit_->control(), rebuilt));
  ASSERT_TRUE(sim_.run_until([&] { return rebuilt; }, 60s));
  EXPECT_EQ(unit_->store().find_volume("v")->bytes, two);
  EXPECT_FALSE(unit_->store().lost);
  EXPECT_TRUE(try_resize(two + 64 * kBlockBytes).ok()) << resized->to_string();
}

// Requirement: P-5.2 switch=unheard-counts-as-heard
TEST_F(RestoredStore, AHeadWhoseKnowledgeCannotBeTakenOverHasNotBeenHeard) {
  write(0, 4, 'A');
  control::Image copy = unit_->copy_of_store();
  NodeId first = designation().primary, second = designation().reserves[0], behind = designation().reserves[1];
  sim_.crash(node(behind), Crash::power);
  write(0, 4, 'B');
  sim_.run_for(500ms);
  for (Node n : {node(first), node(second), unit_->control_node()}) sim_.crash(n, Crash::power);
  for (auto& [vp, d] : copy.designations) d.layout = {3, 1};  // as if another volume had had its number
  unit_->restore_store(copy, false);
  sim_.restart(unit_->control_node());
  power_on({first, second});
  sim_.run_for(8s);
  power_off({first, second});
  sim_.restart(node(behind));
  sim_.run_for(15s);
  EXPECT_FALSE(unit_->control()->volumes().doubting(designation().vp).empty());
}

// Requirement: P-5.2, P-4.6
TEST_F(RestoredStore, AnOperatorGoesOnWithoutTheOthers) {
  set_back();
  ASSERT_TRUE(unit_->control()->volumes().accept_loss("v", name(behind_), false).ok());
  ASSERT_TRUE(sim_.run_until([&] { return opened(behind_); }, 20s));
  EXPECT_EQ(contents().substr(0, 9), "AAAAAAAA0") << "what it was never given is gone, as the operator has said";
  for (NodeId n : {first_, second_}) sim_.restart(node(n));
  ASSERT_TRUE(all_required());
  EXPECT_EQ(contents().substr(0, 9), "AAAAAAAA0");
}

// Requirement: P-5.2
TEST_F(RestoredStore, AStoreThatIsNotACopyIsTrusted) {
  write(0, 4, 'A');
  for (int i = 0; i < 3; ++i) {
    sim_.crash(unit_->control_node(), i % 2 ? Crash::process : Crash::power);
    NodeId primary = designation().primary;
    sim_.crash(node(primary), Crash::power);
    sim_.restart(unit_->control_node());
    ASSERT_TRUE(sim_.run_until([&] { return unit_->control() && designation().primary != primary; }, 20s)) << "one of three is enough to be without";
    EXPECT_TRUE(unit_->store().doubted.empty());
    sim_.restart(node(primary));
    ASSERT_TRUE(all_required());
  }
  EXPECT_EQ(contents().substr(0, 5), "AAAA0");
}

}  // namespace
}  // namespace luge::sim
