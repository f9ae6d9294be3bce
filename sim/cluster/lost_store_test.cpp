// The control plane's store is gone, and is made anew of what heads and sleds hold (protocol 5.2): a whole unit.
#include "control/rebuild.hpp"
#include "sim/cluster/unit_fixture.hpp"

namespace luge::sim {
namespace {

class LostStore : public UnitTest {
 protected:
  using Rebuilt = control::Volumes::Rebuilt;
  /// `down`: heads that are not there when the new control plane starts.
  void lose(const std::vector<NodeId>& down = {}) {
    before_ = designation();
    power_off(down);
    sim_.crash(unit_->control_node(), Crash::power);
    unit_->lose_store();
    sim_.restart(unit_->control_node());
    ASSERT_TRUE(sim_.run_until([&] { return unit_->control() && unit_->control()->registry().alive("head").size() == 3 - down.size() &&
                                            unit_->control()->registry().alive("sled").size() == 6; }, 10s));
    ASSERT_TRUE(unit_->store().designations.empty());
  }
  Rebuilt rebuild(bool accept_loss = false) {
    Rebuilt out;
    auto task = [](control::Volumes& v, bool accept_loss, Rebuilt& out) -> Task<void> {
      auto r = co_await v.rebuild(accept_loss, false);
      EXPECT_TRUE(r.ok()) << r.status().to_string();
      if (r.ok()) out = *r;
    };
    sim_.run(unit_->control_node(), task(unit_->control()->volumes(), accept_loss, out), 60s);
    return out;
  }
  void flush() {
    auto task = [](control::Volumes& v) -> Task<void> {
      auto left = co_await v.flush("v", 30s);
      EXPECT_TRUE(left.ok() && *left == 0);
    };
    sim_.run(unit_->control_node(), task(unit_->control()->volumes()), 60s);
  }
  bool opened(NodeId head) { return unit_->head(head)->digest(before_.vp)->primary_open; }

  control::Designation before_;
};

// Requirement: P-5.2
TEST_F(LostStore, IsMadeAnewOfWhatHeadsAndSledsHold) {
  write(0, 16, 'A');
  flush();
  write(0, 4, 'B');
  control::Volume was = unit_->store().volumes.begin()->second;
  control::Attachment held = unit_->store().attachments.begin()->second;
  lose();
  EXPECT_TRUE(unit_->store().lost);
  EXPECT_EQ(contents().substr(0, 9), "BBBBAAAAA") << "who serves needs no store";
  Rebuilt r = rebuild();
  EXPECT_EQ(r.volumes, 1u);
  EXPECT_EQ(r.doubted, 0u);
  EXPECT_TRUE(r.left.empty()) << r.left.front();
  EXPECT_FALSE(unit_->store().lost);
  EXPECT_EQ(unit_->store().volumes.begin()->second, was);
  EXPECT_EQ(designation(), before_);
  EXPECT_GE(unit_->store().attachments.begin()->second.incarnation, held.incarnation);
  EXPECT_FALSE(unit_->store().sandboxes.empty());
  write(4, 4, 'C');
  sim_.crash(node(before_.primary), Crash::power);
  ASSERT_TRUE(sim_.run_until([&] { return designation().primary != before_.primary && opened(designation().primary); }, 20s));
  write(0, 1, 'D');
  EXPECT_EQ(contents().substr(0, 9), "DBBBCCCCA");
}

// Requirement: P-5.2 switch=restored-store-promotes
TEST_F(LostStore, NobodyIsPromotedBeforeEveryMemberHasAnswered) {
  write(0, 4, 'A');
  NodeId last = designation().reserves[1];
  lose({last});
  Rebuilt r = rebuild();
  EXPECT_EQ(r.doubted, 1u);
  EXPECT_EQ(unit_->control()->volumes().doubting(before_.vp), std::vector<NodeId>{last});
  sim_.crash(node(before_.primary), Crash::power);
  sim_.run_for(15s);
  EXPECT_EQ(designation().primary, before_.primary) << "the one that is away may know a greater epoch";
  sim_.restart(node(last));
  ASSERT_TRUE(sim_.run_until([&] { return designation().primary != before_.primary && opened(designation().primary); }, 20s));
  EXPECT_EQ(contents().substr(0, 5), "AAAA0");
}

// Requirement: P-5.2
TEST_F(LostStore, AnOperatorMayGoOnWithoutThoseThatDoNotAnswer) {
  write(0, 4, 'A');
  NodeId last = designation().reserves[1];
  lose({last});
  EXPECT_EQ(rebuild(true).doubted, 0u);
  sim_.crash(node(before_.primary), Crash::power);
  ASSERT_TRUE(sim_.run_until([&] { return designation().primary != before_.primary && opened(designation().primary); }, 20s));
  EXPECT_EQ(contents().substr(0, 5), "AAAA0");
}

// Before it has been made anew the new store says of no volume that it was removed: heads would forget what they hold.
// Requirement: P-5.2
TEST_F(LostStore, AnEmptyStoreTakesNothingForRemoved) {
  write(0, 4, 'A');
  lose();
  sim_.run_for(10s);
  for (std::uint32_t i = 0; i < 3; ++i) EXPECT_NE(unit_->head(kFirstHead + i)->replica(before_.vp), nullptr);
  EXPECT_FALSE(unit_->store().removed(volume_of(before_.vp)));
  EXPECT_FALSE(control::status_json(*unit_->control())["alarms"].as_array().empty());
  rebuild();
  EXPECT_TRUE(control::status_json(*unit_->control())["alarms"].as_array().empty());
  EXPECT_EQ(contents().substr(0, 5), "AAAA0");
}

// What is told is looked at as hard as what comes from anywhere.
class Plans : public testing::Test {
 protected:
  control::Designation held(VpId vp, Epoch epoch = 1, const wire::Signer* signer = nullptr) {
    control::Designation d;
    d.unit = kUnit;
    d.vp = vp;
    d.epoch = d.revision = epoch;
    d.history = 1;
    d.primary = 10;
    d.reserves = {11};
    d.required = {10, 11};
    d.blocks = 64;
    d.volume = "v";
    d.vp_bytes = 64 * kBlockBytes;
    d.signature = (signer ? signer : &signer_)->sign(d);
    return d;
  }
  void tell(NodeId head, const control::Designation& d) { found_.heads[head][d.vp] = {d, 5}; }
  control::Plan plan(bool accept_loss = false) { return control::plan_rebuild(registry_, store_.image(), found_, &verifier_, accept_loss); }

  Simulation sim_{1};
  io::World& world_ = sim_.world(sim_.add_node("control"));
  control::MemoryStore store_{control::MemoryStore::make_image(kUnit)};
  control::Events events_{world_};
  control::Registry registry_{world_, store_, events_, {}, [](const control::Node&, const fbs::RegisterNode&) {}};
  wire::Signer signer_{wire::KeyBytes{7}};
  wire::Verifier verifier_ = *wire::Verifier::make(signer_.public_key());
  control::Findings found_;
};

TEST_F(Plans, TheGreatestOfSeveralCounts) {
  tell(10, held(0x10000, 3));
  tell(11, held(0x10000, 2));
  auto p = plan();
  ASSERT_EQ(p.change.designations.size(), 1u);
  EXPECT_EQ(p.change.designations[0].epoch, 3u);
  EXPECT_TRUE(p.change.doubts.empty());
  ASSERT_EQ(p.change.volumes.size(), 1u);
  EXPECT_EQ(p.change.volumes[0].name, "v");
  EXPECT_EQ(p.change.attachments[0].incarnation, 5u);
  EXPECT_TRUE(store_.commit(p.change).ok());
}

// Requirement: P-5.2
TEST_F(Plans, WhatAnotherKeySignedIsNotTakenUp) {
  wire::Signer other(wire::KeyBytes{8});
  tell(10, held(0x10000, 9, &other));
  tell(11, held(0x10000, 2));
  auto p = plan();
  ASSERT_EQ(p.change.designations.size(), 1u);
  EXPECT_EQ(p.change.designations[0].epoch, 2u);
  EXPECT_EQ(p.left.size(), 1u) << "the forged one";
}

TEST_F(Plans, WhatItsPrimaryHasForgottenWasRemoved) {
  tell(11, held(0x10000));
  found_.heads[10];
  EXPECT_TRUE(plan().change.volumes.empty());
  EXPECT_EQ(plan().left.size(), 1u);
  EXPECT_EQ(plan(true).change.volumes.size(), 1u);
}

TEST_F(Plans, AVolumeIsTakenUpWithAllItsPartitions) {
  for (VpId vp : {0x10000, 0x10002})
    for (NodeId n : {10, 11}) tell(n, held(vp));
  EXPECT_TRUE(plan().change.volumes.empty());
  EXPECT_TRUE(plan().waiting);
  for (NodeId n : {10, 11}) tell(n, held(0x10001));
  auto p = plan();
  ASSERT_EQ(p.change.volumes.size(), 1u);
  EXPECT_EQ(p.change.volumes[0].bytes, 3 * 64 * kBlockBytes);
  EXPECT_GE(*p.change.next_volume, 2u);
}

// No partition is made anew while one may be held that this copy of the store has not heard of.
// Requirement: P-5.2
TEST_F(Plans, AnOlderCopyIsTrustedAgainWhenNothingSpeaksAgainstIt) {
  control::Change c;
  c.volumes.push_back({1, "v", 64 * kBlockBytes, 64 * kBlockBytes, {2, 1}, 2, false});
  c.designations.push_back(held(0x10000));
  c.swaps.push_back({0x10000, 0});
  c.removals.push_back({0x20000, 11, 1});
  ASSERT_TRUE(store_.commit(c).ok());
  ASSERT_TRUE(store_.doubt_everything(9, {1, 100}, true).ok());
  EXPECT_FALSE(store_.image().unheard_of(0x20000)) << "a head that has not heard of a removal";
  EXPECT_TRUE(store_.image().unheard_of(0x10001));
  for (NodeId n : {10, 11}) tell(n, held(0x10000));
  const control::Findings all = found_;
  EXPECT_EQ(plan().change.older, std::optional(false));
  found_.heads.erase(11);
  EXPECT_EQ(plan().change.older, std::optional(true)) << "a head has not been asked";
  EXPECT_EQ(plan(true).change.older, std::optional(false));
  found_ = all;
  found_.columns.insert({0x10001, 40, 0, 3});
  EXPECT_EQ(plan().change.older, std::optional(true)) << "a sled has columns of a partition that nobody knows";
  found_ = all;
  tell(11, held(0x10001));
  EXPECT_EQ(plan().change.older, std::optional(true)) << "its primary has lost its disk, perhaps";
}

// Requirement: P-2.3, P-5.2 switch=incarnations-given-out-again
TEST_F(Plans, AKnownVolumesAttachmentIsNotBehindWhatHeadsHaveSeen) {
  control::Change c;
  c.volumes.push_back({1, "v", 64 * kBlockBytes, 64 * kBlockBytes, {2, 1}, 2, false});
  c.designations.push_back(held(0x10000));
  c.swaps.push_back({0x10000, 0});
  c.attachments.push_back({1, 3, 77});
  ASSERT_TRUE(store_.commit(c).ok());
  tell(10, held(0x10000));
  ASSERT_TRUE(store_.commit(plan().change).ok());
  EXPECT_EQ(store_.image().attachments.at(1), (control::Attachment{1, 5, 77}));
  c = {};
  c.attachments.push_back({1, 6, 77});
  ASSERT_TRUE(store_.commit(c).ok());
  ASSERT_TRUE(store_.commit(plan().change).ok());
  EXPECT_EQ(store_.image().attachments.at(1).incarnation, 6u) << "it never falls";
}

// Requirement: P-5.2
TEST_F(Plans, WhatAStoreThatWasMadeAnewHasNotHeardOfStaysSoInItsCopies) {
  control::Change c;
  c.next_volume = c.rebuilt_below = 8;
  ASSERT_TRUE(store_.commit(c).ok());
  ASSERT_TRUE(store_.doubt_everything(9, {1, 100}, true).ok());
  EXPECT_TRUE(store_.image().unheard_of(0x30000));
  EXPECT_FALSE(store_.image().removed(3));
}

TEST_F(Plans, AColumnNobodyKnowsIsNamedAndKeepsItsNumberFromBeingGivenOut) {
  found_.columns.insert({0x70000, 40, 0, 3});
  auto p = plan();
  EXPECT_EQ(p.left.size(), 1u);
  EXPECT_EQ(*p.change.next_volume, 8u);
}

}  // namespace
}  // namespace luge::sim
