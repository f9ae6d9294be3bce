// A volume that no complete head is left for, and the operator who accepts the loss (protocol 4.6): a whole unit.
#include "sim/cluster/unit_fixture.hpp"

namespace luge::sim {
namespace {

class LossTest : public UnitTest {
 protected:
  using UnitTest::UnitTest;
};

// Requirement: P-4.6 switch=history-unchecked
TEST_F(LossTest, TheHeadThatWasBehindGoesOnAndTheOthersAreRebuiltFromIt) {
  write(0, 16, 'A');
  NodeId behind = designation().reserves[1], first = designation().primary, second = designation().reserves[0];
  sim_.crash(node(behind), Crash::power);
  write(0, 8, 'B');
  ASSERT_EQ(designation().required.size(), 2u);
  write(32, 8, 'C');
  sim_.crash(node(first), Crash::power);
  sim_.crash(node(second), Crash::power);
  sim_.restart(node(behind));
  ASSERT_TRUE(wait_for_state("closed"));
  EXPECT_NE(text("reason").find("opens when one of these is back: " + name(first)), std::string::npos) << text("reason");
  EXPECT_NE(text("reason").find("behind: " + name(behind) + " (reaches LSN 3, "), std::string::npos) << text("reason");
  auto accept = [&](NodeId h) { return unit_->control()->volumes().accept_loss("v", name(h), false); };
  EXPECT_EQ(accept(first).status().code(), Code::unavailable) << "it is down";
  EXPECT_EQ(unit_->control()->volumes().accept_loss("v", "sled-1", false).status().code(), Code::not_found);
  auto history = designation().history;
  ASSERT_TRUE(accept(behind).ok());
  EXPECT_NE(designation().history, history);
  ASSERT_TRUE(sim_.run_until([&] { return unit_->head(behind)->digest(designation().vp)->primary_open; }, 10s));
  std::string kept = std::string(16, 'A') + std::string(48, '0');
  EXPECT_EQ(contents(), kept) << "what only the others had is gone";
  EXPECT_EQ(accept(behind).status().code(), Code::conflict) << "it is served";
  // The others hold more, under the old history: strangers, rebuilt whole. Also over another power cut.
  sim_.restart(node(first));
  sim_.restart(node(second));
  ASSERT_TRUE(all_required());
  write(16, 1, 'D');
  kept[16] = 'D';
  sim_.run_for(1s);  // a heartbeat tells how far it is committed
  for (NodeId n : {first, second}) EXPECT_EQ(unit_->head(n)->digest(designation().vp)->index, unit_->head(behind)->digest(designation().vp)->index);
  sim_.crash(node(behind), Crash::power);
  EXPECT_EQ(contents(), kept) << "another head has taken over";
  power_off({first, second});
  power_on({first, second, behind});
  ASSERT_TRUE(all_required());
  EXPECT_EQ(contents(), kept);
  EXPECT_GT(times_reached(Path::stranger), 0u);
}

// Heads of the first history come back one day, and their logs name LSNs of it.
// Requirement: P-4.6
TEST_F(LossTest, ASecondHistoryIsBeyondTheFirstThoughItsHeadNeverHeardOfIt) {
  write(0, 16, 'A');
  NodeId behind = designation().reserves[1], first = designation().primary, second = designation().reserves[0];
  sim_.crash(node(behind), Crash::power);
  write(0, 8, 'B');
  power_off({first, second});
  auto accept = [&](NodeId h) {
    sim_.restart(node(h));
    EXPECT_TRUE(wait_for_state("closed"));
    auto s = unit_->control()->volumes().accept_loss("v", name(h), true).status();
    EXPECT_TRUE(s.ok()) << s.to_string();
    EXPECT_TRUE(sim_.run_until([&] { return unit_->head(h)->digest(designation().vp)->primary_open; }, 20s));
    return unit_->head(h)->replica(designation().vp)->last().lsn;
  };
  Lsn one = accept(behind);
  sim_.crash(node(behind), Crash::power);
  Lsn two = accept(first);
  EXPECT_GT(one, Lsn{1} << 40);
  EXPECT_GT(two, one + (Lsn{1} << 39));
}

// Requirement: P-4.6 switch=history-unchecked
TEST_F(LossTest, DamagedReplicasAreServedWithErrorsForWhatIsLost) {
  write(0, 4, 'A');
  write(8, 1, 'B');
  write(16, 4, 'C');
  std::vector<NodeId> heads = designation().members();
  auto bad = positions(heads, 8);
  power_off(heads);
  for (NodeId n : heads) rot(n, bad[n]);
  power_on(heads);
  ASSERT_TRUE(sim_.run_until([&] { return text("reason").find("no head that holds everything is up; damaged: ") != std::string::npos; }, 20s)) << text("reason");
  ASSERT_TRUE(unit_->control()->volumes().accept_loss("v", name(heads[1]), false).ok());
  ASSERT_TRUE(all_required());
  std::string kept = "AAAA0000!0000000CCCC" + std::string(44, '0');
  EXPECT_EQ(contents(), kept) << "an error where the only copies are damaged, never bytes";
  power_off(heads);
  power_on(heads);
  ASSERT_TRUE(all_required()) << "the damage is known and does not close the volume again";
  EXPECT_EQ(contents(), kept);
  write(8, 1, 'D');
  kept[8] = 'D';
  EXPECT_EQ(contents(), kept) << "writing it is the cure";
}

// Requirement: P-4.6, P-10.2
TEST_F(LossTest, ALogDamagedWhereverItIsDamagedClosesTheVolumeOnce) {
  write(0, 4, 'A');
  write(8, 1, 'B');
  write(16, 4, 'C');
  std::vector<NodeId> heads = designation().members();
  auto bad = positions(heads, 8);
  power_off(heads);
  for (NodeId n : heads) sim_.disk(node(n)).rot("log-data", bad[n].offset - kBlockBytes + 20);  // the header of its batch
  power_on(heads);
  ASSERT_TRUE(sim_.run_until([&] { return text("reason").find("damaged: ") != std::string::npos; }, 20s)) << text("reason");
  EXPECT_NE(text("reason").find("log-data: segment 0 at offset"), std::string::npos) << text("reason");
  power_off(heads);
  power_on(heads);
  sim_.run_for(5s);
  ASSERT_EQ(text("state"), "closed") << "a restart does not make it whole";
  ASSERT_TRUE(unit_->control()->volumes().accept_loss("v", name(heads[2]), false).ok());
  ASSERT_TRUE(all_required());
  std::string kept = "AAAA" + std::string(60, '0');
  EXPECT_EQ(contents(), kept) << "the log ends before the damage";
  power_off(heads);
  power_on(heads);
  ASSERT_TRUE(all_required()) << "the damage is known and does not close the volume again";
  EXPECT_EQ(contents(), kept);
}

class LossOfTwo : public LossTest {
 protected:
  LossOfTwo() : LossTest(2, 4 << 20, std::function<void(head::Options&)>(), 2) {}
  // The head finds that its copy of block 0 has rotted, and another record stands behind it.
  void find_rot(NodeId head) {
    sim_.run_for(1s);  // a heartbeat tells how far it is committed
    auto at = position(head, 0);
    sim_.crash(node(head), Crash::power);
    rot(head, at);
    sim_.restart(node(head));
    ASSERT_TRUE(sim_.run_until([&] { return replica(head) && replica(head)->suspect; }, 10s));
  }
  const head::Replica* replica(NodeId head) { return unit_->head(head) ? unit_->head(head)->replica(designation().vp) : nullptr; }
  void flush() {
    bool done = false;
    auto task = [](control::Control& c, bool& done) -> Task<void> { done = (co_await c.volumes().flush("v", 20s)).ok(); };
    sim_.world(unit_->control_node()).spawn("flush", task(*unit_->control(), done));
    ASSERT_TRUE(sim_.run_until([&] { return done; }, 30s));
  }
  void write_elsewhere() {
    on_client([](VolumeClient& c) -> Task<Status> {
      if (!c.other) {
        auto v = co_await client::Volume::attach(c.world, c.identity, c.control, "w", kFirstClient, false);
        if (!v.ok()) co_return v.status();
        c.other = std::move(*v);
      }
      co_return co_await client::write(c.world, *c.other, 0, filled(1, 'W'));
    });
  }
};

// What was held is void, and what is to come in its place has not come: an image of long ago is still there, and looks sound.
// Requirement: P-10.2 switch=rebuild-not-noted
TEST_F(LossOfTwo, AReplicaWhoseRebuildWasCutOffIsNoneUntilItIsWhole) {
  ASSERT_TRUE(unit_->control()->volumes().create({"w", kBlocks * kBlockBytes, {2, 1}, 2}).ok());
  NodeId first = designation().primary, other = designation().reserves[0];
  write(0, 4, 'A');
  flush();
  sim_.crash(node(other), Crash::power);
  unit_->replace_disk(node(other));
  sim_.restart(node(other));
  ASSERT_TRUE(sim_.run_until([&] { return replica(other) && replica(other)->last() == replica(first)->last() && !replica(other)->suspect; }, 20s)) << "it has an image, of what is flushed";
  ASSERT_TRUE(wait_for_state("open"));
  write(0, 8, 'B');
  write_elsewhere();
  find_rot(other);
  ASSERT_TRUE(sim_.run_until([&] { return replica(other)->last().lsn == 0; }, 20s)) << "all is void";
  power_off({first, other});
  sim_.restart(node(other));
  sim_.run_for(20s);
  EXPECT_FALSE(unit_->head(other)->digest(designation().vp)->primary_open) << "it lacks what was acknowledged";
  sim_.restart(node(first));
  ASSERT_TRUE(wait_for_state("open"));
  EXPECT_EQ(contents().substr(0, 9), "BBBBBBBB0");
}

// Requirement: P-4.2, P-4.6 switch=blank-promoted
TEST_F(LossTest, AnEmptyHeadOpensNothingWithoutTheOthers) {
  write(0, 4, 'A');
  std::vector<NodeId> heads = designation().members();
  power_off(heads);
  unit_->replace_disk(node(heads[1]));
  sim_.restart(node(heads[1]));
  sim_.run_for(10s);
  ASSERT_EQ(text("state"), "closed");
  EXPECT_NE(text("reason").find("holds nothing"), std::string::npos) << text("reason");
  EXPECT_EQ(unit_->control()->volumes().accept_loss("v", name(heads[1]), true).status().code(), Code::conflict) << "there is nothing to go on with";
  sim_.restart(node(heads[2]));
  ASSERT_TRUE(wait_for_state("open"));
  EXPECT_EQ(contents().substr(0, 5), "AAAA0");
}

// Requirement: P-4.6
TEST_F(LossTest, NoLossIsAcceptedWhereNoneIsNeeded) {
  write(0, 4, 'A');
  auto accept = [&](const std::string& head) { return unit_->control()->volumes().accept_loss("v", head, false); };
  ASSERT_TRUE(wait_for_state("open"));
  EXPECT_EQ(accept("head-1").status().code(), Code::conflict) << "the volume is open";
  NodeId first = designation().primary;
  sim_.crash(node(first), Crash::power);
  auto refused = accept(name(designation().reserves[0]));
  EXPECT_EQ(refused.status().code(), Code::conflict) << "a complete head is up: " << refused.status().to_string();
  EXPECT_EQ(contents().substr(0, 5), "AAAA0");
}

}  // namespace
}  // namespace luge::sim
