// The control plane's store is replaced by an older copy of itself (protocol 5.2): a whole unit.
#include "sim/cluster/unit_fixture.hpp"

namespace luge::sim {
namespace {

class RestoredStore : public UnitTest {
 protected:
  explicit RestoredStore(std::uint32_t heads = 3) : UnitTest(3, 4 << 20, {}, heads) {}
  // A copy is taken, then one head is let go and a write acknowledged without it. Those who know are switched off, the copy is put in
  // place, and the head that was let go is the only one there.
  void set_back(bool mark_too = false) {
    write(0, 8, 'A');
    control::Image copy = copy_and_let_one_go();
    write(0, 4, 'B');
    ASSERT_EQ(designation().required.size(), 2u);
    put_in_place(copy, mark_too);
    sim_.restart(node(behind_));
    sim_.run_for(15s);
  }
  control::Image copy_and_let_one_go() {
    control::Image copy = unit_->copy_of_store();
    behind_ = designation().reserves[1], first_ = designation().primary, second_ = designation().reserves[0];
    sim_.crash(node(behind_), Crash::power);
    return copy;
  }
  void put_in_place(const control::Image& copy, bool mark_too = false) {
    sim_.run_for(500ms);
    for (Node n : {node(first_), node(second_), unit_->control_node()}) sim_.crash(n, Crash::power);
    unit_->restore_store(copy, mark_too);
    sim_.restart(unit_->control_node());
  }
  Status resize(std::uint64_t bytes) {
    std::optional<Status> done;
    auto task = [](control::Control& c, std::uint64_t bytes, std::optional<Status>& done) -> Task<void> { done = (co_await c.volumes().resize("v", bytes)).status(); };
    sim_.world(unit_->control_node()).spawn("resize", task(*unit_->control(), bytes, done));
    EXPECT_TRUE(sim_.run_until([&] { return done.has_value(); }, 60s));
    return done.value_or(Status(Code::timed_out, "no answer"));
  }
  void rebuild() {
    bool done = false;
    auto task = [](control::Control& c, bool& done) -> Task<void> { done = (co_await c.volumes().rebuild(false, false)).ok(); };
    sim_.world(unit_->control_node()).spawn("rebuild", task(*unit_->control(), done));
    ASSERT_TRUE(sim_.run_until([&] { return done; }, 60s));
  }
  void move_away(NodeId head, NodeId to) {
    std::optional<Status> done;
    auto task = [](control::Control& c, std::string from, std::string to, std::optional<Status>& done) -> Task<void> { done = (co_await c.volumes().move("v", from, to, true, 60s)).status(); };
    sim_.world(unit_->control_node()).spawn("move", task(*unit_->control(), name(head), name(to), done));
    ASSERT_TRUE(sim_.run_until([&] { return done.has_value(); }, 120s));
    ASSERT_TRUE(done->ok()) << done->to_string();
    sim_.run_for(2s);
  }
  void attach_and_write(char with) {
    on_client([](VolumeClient& c) -> Task<Status> {
      auto v = co_await client::Volume::attach(c.world, c.identity, c.control, "v", kFirstClient, false);
      if (v.ok()) c.volume = std::move(*v);
      co_return v.status();
    });
    write(0, 4, with);
  }
  // A copy that lacks another volume, but no attachment.
  control::Image older_by_a_volume() {
    control::Image copy = unit_->copy_of_store();
    EXPECT_TRUE(unit_->control()->volumes().create({"w", kBlockBytes, {2, 1}, 3}).ok());
    sim_.run_for(500ms);
    return copy;
  }
  void restart_control_with(const control::Image& copy) {
    sim_.crash(unit_->control_node(), Crash::power);
    unit_->restore_store(copy, false);
    sim_.restart(unit_->control_node());
    sim_.run_for(5s);
    ASSERT_TRUE(all_required());
  }
  std::vector<NodeId> doubting() { return unit_->control()->volumes().doubting(designation().vp); }
  bool opened(NodeId head) { return unit_->head(head)->digest(designation().vp)->primary_open; }

  NodeId behind_ = 0, first_ = 0, second_ = 0;
};

// Requirement: P-5.2 switch=restored-store-promotes
TEST_F(RestoredStore, NobodyIsPromotedBeforeAllHeadsHaveSaidWhatTheyKnow) {
  set_back();
  EXPECT_FALSE(opened(behind_)) << "it lacks what was acknowledged without it";
  EXPECT_NE(text("reason").find("restored from an older copy"), std::string::npos) << text("reason");
  EXPECT_NE(text("reason").find(name(first_)), std::string::npos) << text("reason");
  EXPECT_EQ(doubting(), (std::vector<NodeId>{first_, second_}));
  sim_.restart(node(second_));
  sim_.run_for(10s);
  EXPECT_FALSE(opened(second_)) << "it knows more, but the last one may know more still";
  sim_.restart(node(first_));
  ASSERT_TRUE(all_required());
  EXPECT_TRUE(doubting().empty());
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

// The primary has been asked for the new size, and the store that had it is gone before that is agreed upon.
// Requirement: P-5.2
TEST_F(RestoredStore, ASizeThatTheStoreHasForgottenHoldsNothingUp) {
  write(0, 4, 'A');
  control::Image copy = unit_->copy_of_store();
  auto task = [](control::Control& c) -> Task<void> { (void)co_await c.volumes().resize("v", 128 * kBlockBytes); };
  sim_.world(unit_->control_node()).spawn("resize", task(*unit_->control()));
  sim_.run_for(2ms);
  ASSERT_EQ(unit_->store().volumes.begin()->second.bytes, 128 * kBlockBytes);
  ASSERT_EQ(designation().blocks, kBlocks);
  restart_control_with(copy);
  EXPECT_EQ(designation().blocks, kBlocks);
  power_off({designation().reserves[1]});
  EXPECT_TRUE(sim_.run_until([&] { return designation().required.size() == 2; }, 20s)) << "a member that is gone leaves";
  write(0, 4, 'B');
  EXPECT_TRUE(resize(128 * kBlockBytes).ok()) << "asked for again it grows";
}

// A head that says more than the store can take has not been heard, and a volume that has grown since is no reason not to take it.
// Requirement: P-5.2
TEST_F(RestoredStore, WhatAGrownVolumesHeadsKnowIsTakenOver) {
  write(0, 4, 'A');
  control::Image copy = copy_and_let_one_go();
  write(0, 2, 'B');
  ASSERT_TRUE(resize(128 * kBlockBytes).ok());
  write(0, 4, 'B');
  put_in_place(copy);
  power_on({first_, second_});
  sim_.run_for(8s);
  power_off({first_, second_});
  sim_.run_for(1s);
  sim_.restart(node(behind_));
  sim_.run_for(15s);
  EXPECT_FALSE(opened(behind_)) << "it lacks what was acknowledged without it";
  power_on({first_, second_});
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
  ASSERT_TRUE(resize(two).ok());
  sim_.run_for(1s);
  sim_.crash(unit_->control_node(), Crash::power);
  unit_->restore_store(copy, false);
  sim_.restart(unit_->control_node());
  sim_.run_for(10s);
  EXPECT_TRUE(unit_->store().lost);
  EXPECT_EQ(resize(two).code(), Code::degraded);
  rebuild();
  EXPECT_EQ(unit_->store().find_volume("v")->bytes, two);
  EXPECT_FALSE(unit_->store().lost);
  Status again = resize(two + 64 * kBlockBytes);
  EXPECT_TRUE(again.ok()) << again.to_string();
}

class RestoredStoreOfSix : public RestoredStore {
 protected:
  RestoredStoreOfSix() : RestoredStore(6) {}
};

// The heads of a partition that the older copy has not heard of are not there when the volume is to be made larger.
// Requirement: P-5.2 switch=older-store-makes-partitions
TEST_F(RestoredStoreOfSix, NoPartitionIsMadeBeforeAllHeadsHaveSaidWhatTheyHold) {
  control::Image copy = unit_->copy_of_store();
  const std::uint64_t two = unit_->store().find_volume("v")->vp_bytes + kBlocks * kBlockBytes;
  ASSERT_TRUE(resize(two).ok());
  ASSERT_TRUE(unit_->control()->volumes().create({"w", kBlockBytes, {2, 1}, 3}).ok());
  const VolumeId v = unit_->store().find_volume("v")->id, w = unit_->store().find_volume("w")->id;
  const control::Designation before = unit_->store().designations.at(make_vp(v, 1));
  sim_.run_for(1s);
  power_off(before.members());
  sim_.crash(unit_->control_node(), Crash::power);
  unit_->restore_store(copy, false);
  sim_.restart(unit_->control_node());
  sim_.run_for(10s);
  EXPECT_EQ(resize(two).code(), Code::degraded);
  ASSERT_TRUE(unit_->control()->volumes().create({"x", kBlockBytes, {2, 1}, 3}).ok());
  EXPECT_GT(unit_->store().find_volume("x")->id, w) << "heads that are not there may hold a volume of that number";
  rebuild();
  EXPECT_EQ(resize(two).code(), Code::degraded) << "three heads have not been asked";
  power_on(before.members());
  sim_.run_for(10s);
  rebuild();
  ASSERT_TRUE(unit_->store().designations.contains(before.vp));
  EXPECT_EQ(unit_->store().designations.at(before.vp).history, before.history);
  EXPECT_TRUE(unit_->store().volumes.contains(w));
  Status larger = resize(two + kBlocks * kBlockBytes);
  EXPECT_TRUE(larger.ok()) << larger.to_string();
}

// All of the partition moves to other heads after the copy was made, and those it was with give it up. Then the copy is put in place, and only
// the latter are there.
class MovedAltogether : public RestoredStoreOfSix {
 protected:
  void SetUp() override {
    write(0, 4, 'A');
    control::Image copy = unit_->copy_of_store();
    first_ = designation().members();
    for (const control::Node* n : unit_->control()->registry().alive("head"))
      if (!designation().has_member(n->row.id)) second_.push_back(n->row.id);
    for (std::size_t i = 0; i < first_.size(); ++i) move_away(first_[i], second_.at(i));
    for (NodeId n : first_) ASSERT_FALSE(designation().has_member(n));
    write(0, 4, 'B');
    sim_.run_for(5s);
    for (NodeId n : first_) ASSERT_EQ(unit_->head(n)->replica(designation().vp), nullptr);
    power_off(second_);
    sim_.crash(unit_->control_node(), Crash::power);
    unit_->restore_store(copy, false);
  }
  void nobody_serves() {
    for (NodeId n : first_) EXPECT_FALSE(unit_->head(n)->digest(designation().vp) && unit_->head(n)->digest(designation().vp)->primary_open) << "it holds nothing of it";
  }
  void all_comes_back() {
    power_on(second_);
    ASSERT_TRUE(all_required());
    EXPECT_EQ(contents().substr(0, 5), "BBBB0");
  }

  std::vector<NodeId> first_, second_;
};

// Requirement: P-5.2 switch=left-forgotten
TEST_F(MovedAltogether, HeadsThatHaveGivenItUpSayToWhom) {
  sim_.restart(unit_->control_node());
  sim_.run_for(20s);
  nobody_serves();
  EXPECT_EQ(doubting().size(), second_.size());
  for (NodeId n : second_) EXPECT_TRUE(designation().has_member(n));
  all_comes_back();
}

// Requirement: P-5.2 switch=nothing-is-an-answer
TEST_F(MovedAltogether, HeadsThatMayHaveForgottenHaveNotSaidWhereItIs) {
  power_off(first_);
  for (NodeId n : first_) unit_->replace_disk(node(n));
  power_on(first_);
  sim_.restart(unit_->control_node());
  sim_.run_for(20s);
  nobody_serves();
  EXPECT_EQ(doubting(), designation().members());
  rebuild();
  sim_.run_for(10s);
  EXPECT_EQ(doubting(), designation().members());
  all_comes_back();
}

// A head that was chosen just before all lost their power has not heard of it, and never will.
class NeverHeard : public RestoredStoreOfSix {
 protected:
  void all_lose_their_power() {
    fill('A');
    sim_.run_for(1s);
    control::Image copy = unit_->copy_of_store();
    members_ = designation().members();
    newcomer_ = spare();
    for (Node n = 0; n < sim_.nodes(); ++n)
      if (n != node(newcomer_)) sim_.fabric().cut_both(node(newcomer_), n);
    auto task = [](control::Control& c, std::string from, std::string to) -> Task<void> { (void)co_await c.volumes().move("v", from, to, false, 1s); };
    sim_.world(unit_->control_node()).spawn("move", task(*unit_->control(), name(members_[2]), name(newcomer_)));
    ASSERT_TRUE(sim_.run_until([&] { return designation().has_member(newcomer_); }, 1s));
    sim_.run_for(100ms);
    power_off({newcomer_});
    power_off(members_);
    sim_.crash(unit_->control_node(), Crash::power);
    unit_->restore_store(copy, false);
    sim_.fabric().heal_all();
    sim_.restart(unit_->control_node());
    power_on(members_);
    sim_.run_for(10s);
    ASSERT_TRUE(designation().has_member(newcomer_)) << "the others have said so";
    EXPECT_EQ(doubting(), std::vector<NodeId>{newcomer_});
  }

  std::vector<NodeId> members_;
  NodeId newcomer_ = 0;
};

// Requirement: P-5.2
TEST_F(NeverHeard, WhoRemembersEverythingAndHoldsNothingHasAnswered) {
  all_lose_their_power();
  power_on({newcomer_});
  ASSERT_TRUE(all_required());
  EXPECT_EQ(contents(), std::string(kBlocks, 'A'));
}

// Requirement: P-5.2 switch=other-disk-believed
TEST_F(NeverHeard, WhoseDiskIsAnotherMayHaveForgotten) {
  all_lose_their_power();
  unit_->replace_disk(node(newcomer_));
  power_on({newcomer_});
  sim_.run_for(20s);
  EXPECT_EQ(doubting(), std::vector<NodeId>{newcomer_});
  power_off({newcomer_});  // that is not what makes it remember
  power_on({newcomer_});
  sim_.run_for(20s);
  EXPECT_EQ(doubting(), std::vector<NodeId>{newcomer_});
}

// The copy is from before those heads were added, and all that it knows of have answered: nothing tells of the partition.
// Requirement: P-4.6, P-5.2 switch=made-anew-taken
TEST_F(RestoredStoreOfSix, HeadsKeepWhatTheyHoldOfAPartitionThatWasMadeAnewAllTheSame) {
  control::Image copy = unit_->copy_of_store();
  const std::uint64_t two = unit_->store().find_volume("v")->vp_bytes + kBlocks * kBlockBytes;
  ASSERT_TRUE(resize(two).ok());
  const control::Designation before = std::prev(unit_->store().designations.end())->second;
  sim_.run_for(1s);
  power_off(before.members());
  for (NodeId n : before.members()) copy.nodes.erase(n);
  sim_.crash(unit_->control_node(), Crash::power);
  unit_->restore_store(copy, false);
  sim_.restart(unit_->control_node());
  sim_.run_for(10s);
  rebuild();
  ASSERT_TRUE(resize(two).ok());
  const control::Designation& anew = unit_->store().designations.at(before.vp);
  ASSERT_NE(anew.history, before.history);
  power_on(before.members());
  sim_.run_for(30s);
  for (NodeId n : before.members()) {
    const head::Replica* r = unit_->head(n)->replica(before.vp);
    ASSERT_NE(r, nullptr) << name(n) << " has given it up";
    EXPECT_EQ(r->designation.history, before.history);
    EXPECT_FALSE(unit_->head(n)->digest(before.vp)->primary_open);
  }
  EXPECT_NE(anew.history, before.history);
  EXPECT_TRUE(unit_->head(anew.primary)->digest(anew.vp)->primary_open);
}

// Requirement: P-5.2 switch=unheard-counts-as-heard
TEST_F(RestoredStore, AHeadWhoseKnowledgeCannotBeTakenOverHasNotBeenHeard) {
  write(0, 4, 'A');
  control::Image copy = copy_and_let_one_go();
  write(0, 4, 'B');
  for (auto& [vp, d] : copy.designations) d.layout = {3, 1};  // as if another volume had had its number
  put_in_place(copy);
  power_on({first_, second_});
  sim_.run_for(8s);
  power_off({first_, second_});
  sim_.restart(node(behind_));
  sim_.run_for(15s);
  EXPECT_FALSE(unit_->control()->volumes().doubting(designation().vp).empty());
}

// The heads have seen more attachments than the copy knows of, and refuse to go back.
// Requirement: P-2.3, P-5.2 switch=incarnations-given-out-again
TEST_F(RestoredStore, WhoAttachesAfterARestoreIsHeard) {
  write(0, 4, 'A');
  const control::Image copy = unit_->copy_of_store();
  for (int restores = 0; restores < 2; ++restores) {
    for (int i = 0; i < 3; ++i) attach_and_write('B');
    restart_control_with(copy);
    attach_and_write('C');
    EXPECT_EQ(contents().substr(0, 5), "CCCC0");
  }
}

// Requirement: P-2.3, P-5.2
TEST_F(RestoredStore, WhoWasAttachedBeforeARestoreGivesBackWhatItHas) {
  restart_control_with(older_by_a_volume());
  write(0, 4, 'A');
  on_client([](VolumeClient& c) { return c.volume->detach(); });
  EXPECT_EQ(unit_->store().attachments.begin()->second.holder, 0u);
  attach_and_write('B');
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
