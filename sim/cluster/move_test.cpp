// An operator takes the copy of a volume away from a head (moving.cpp): a whole unit of four heads, one of them without a copy.
#include "sim/cluster/unit_fixture.hpp"

namespace luge::sim {
namespace {

class Move : public UnitTest {
 protected:
  Move() : UnitTest(3, 4 << 20, [](head::Options& h) { h.replace_after = 3600s; }, 4) {}

  using Moved = std::shared_ptr<std::optional<Result<std::uint32_t>>>;
  /// Goes on while the test does; has a value at its end.
  Moved begin_move(NodeId from, const std::string& to = "", io::Duration timeout = 20s) {
    auto out = std::make_shared<std::optional<Result<std::uint32_t>>>();
    auto task = [](control::Volumes& v, std::string from, std::string to, io::Duration timeout, Moved out) -> Task<void> {
      *out = co_await v.move("v", std::move(from), std::move(to), true, timeout);
    };
    sim_.world(unit_->control_node()).spawn("move", task(unit_->control()->volumes(), name(from), to, timeout, out));
    return out;
  }
  Result<std::uint32_t> move(NodeId from, const std::string& to = "", io::Duration timeout = 20s) {
    Moved out = begin_move(from, to, timeout);
    if (!sim_.run_until([&] { return out->has_value(); }, 60s)) return Status(Code::internal, "did not end");
    return **out;
  }
};

TEST_F(Move, AReservesCopyIsAnotherHeadsThen) {
  fill('A');
  NodeId gone = designation().reserves[0], newcomer = spare();
  Epoch epoch = designation().epoch;
  auto moved = move(gone);
  ASSERT_TRUE(moved.ok()) << moved.status().to_string();
  EXPECT_EQ(*moved, 1u);
  EXPECT_EQ(designation().epoch, epoch) << "within an epoch";
  EXPECT_FALSE(designation().has_member(gone));
  EXPECT_TRUE(designation().requires_node(newcomer));
  EXPECT_EQ(designation().required.size(), 3u);
  write(0, 16, 'B');
  // The newcomer alone knows it all; who was sent away has given its replica up.
  sim_.run_for(3s);
  EXPECT_EQ(unit_->head(gone)->replica(designation().vp), nullptr);
  std::vector<NodeId> others = designation().members();
  std::erase(others, newcomer);
  power_off(others);
  ASSERT_TRUE(sim_.run_until([&] { return designation().primary == newcomer; }, 60s));
  EXPECT_EQ(contents(), std::string(16, 'B') + std::string(kBlocks - 16, 'A'));
}

TEST_F(Move, APrimaryHandsOverFirst) {
  fill('A');
  NodeId gone = designation().primary, newcomer = spare();
  auto moved = move(gone, name(newcomer));
  ASSERT_TRUE(moved.ok()) << moved.status().to_string();
  EXPECT_FALSE(designation().has_member(gone));
  EXPECT_NE(designation().primary, newcomer);
  EXPECT_TRUE(designation().requires_node(newcomer));
  EXPECT_EQ(designation().required.size(), 3u);
  EXPECT_EQ(contents(), std::string(kBlocks, 'A'));
  auto again = move(gone);
  EXPECT_EQ(again.status().code(), Code::conflict) << "it has none any more";
}

// Requirement: P-3.3 switch=last-copy-moves
TEST_F(Move, TheLastWholeCopiesStay) {
  fill('A');
  NodeId kept = designation().primary, other = designation().reserves[0], lost = designation().reserves[1];
  power_off({lost});
  ASSERT_TRUE(sim_.run_until([&] { return designation().required.size() == 2; }, 30s));
  control::Designation before = designation();
  for (NodeId n : {kept, other}) {
    auto refused = move(n, "", 10s);
    EXPECT_EQ(refused.status().code(), Code::conflict) << refused.status().to_string();
    EXPECT_NE(refused.status().text().find("0.25 MiB"), std::string::npos) << refused.status().text();
  }
  EXPECT_EQ(designation(), before);
  power_off({other});
  ASSERT_TRUE(sim_.run_until([&] { return unit_->head(kept)->digest(before.vp)->primary_open && designation().required.size() == 1; }, 60s));
  auto refused = move(kept, "", 10s);
  EXPECT_EQ(refused.status().code(), Code::conflict) << refused.status().to_string();
  EXPECT_NE(refused.status().text().find("last whole copy"), std::string::npos) << refused.status().text();
  EXPECT_EQ(contents(), std::string(kBlocks, 'A'));
}

TEST_F(Move, WhoHasACopyTakesNoOther) {
  auto refused = move(designation().reserves[0], name(designation().reserves[1]));
  EXPECT_EQ(refused.status().code(), Code::conflict) << refused.status().to_string();
  EXPECT_EQ(designation().required.size(), 3u);
  EXPECT_EQ(move(spare()).status().code(), Code::conflict);
}

// Who is on the way out is whole still: when another is lost meanwhile it is needed, and stays.
TEST_F(Move, AnotherLossOnTheWayKeepsTheCopy) {
  fill('A');
  NodeId leaving = designation().reserves[0], lost = designation().reserves[1];
  Moved moved = begin_move(leaving);
  ASSERT_TRUE(sim_.run_until([&] { return designation().required.size() == 2; }, 5s));
  power_off({lost});
  ASSERT_TRUE(sim_.run_until([&] { return moved->has_value(); }, 30s));
  if (designation().has_member(leaving)) {
    EXPECT_EQ((*moved)->status().code(), Code::conflict) << (*moved)->status().to_string();
    EXPECT_TRUE(sim_.run_until([&] { return designation().requires_node(leaving); }, 5s)) << "it comes back at once";
  }
  write(0, 16, 'B');
  EXPECT_EQ(contents(), std::string(16, 'B') + std::string(kBlocks - 16, 'A'));
}

TEST_F(Move, AFrozenMemberIsNotCounted) {
  fill('A');
  NodeId leaving = designation().reserves[0], frozen = designation().reserves[1];
  sim_.pause(node(frozen));
  Moved moved = begin_move(leaving);
  io::Time asked = sim_.world(client_node_).now();
  write(0, 16, 'B');
  EXPECT_LT(sim_.world(client_node_).now() - asked, 5s) << "writes wait for the end of the move";
  ASSERT_TRUE(sim_.run_until([&] { return moved->has_value(); }, 30s));
  EXPECT_EQ((*moved)->status().code(), Code::conflict) << (*moved)->status().to_string();
  EXPECT_TRUE(designation().requires_node(leaving));
  sim_.resume(node(frozen));
  ASSERT_TRUE(all_required());
  EXPECT_EQ(contents(), std::string(16, 'B') + std::string(kBlocks - 16, 'A'));
}

TEST_F(Move, TwoAtOnceDoNotStopTheVolume) {
  fill('A');
  Moved first = begin_move(designation().reserves[0]), second = begin_move(designation().reserves[1]);
  io::Time asked = sim_.world(client_node_).now();
  write(0, 16, 'B');
  EXPECT_LT(sim_.world(client_node_).now() - asked, 2s);
  ASSERT_TRUE(sim_.run_until([&] { return first->has_value() && second->has_value(); }, 60s));
  EXPECT_NE((*first)->ok(), (*second)->ok()) << "there is one other head";
  EXPECT_EQ(designation().required.size(), 3u);
}

// What the control plane has decided comes to the primary by another way than its answer, or late: the newcomer is brought up to date all the same.
TEST_F(Move, ALateAnswerLeavesNoNewcomerBehind) {
  fill('A');
  NodeId leaving = designation().reserves[0], newcomer = spare();
  Moved moved = begin_move(leaving);
  ASSERT_TRUE(sim_.run_until([&] { return designation().required.size() == 2; }, 5s));
  for (int i = 0; i < 4; ++i) {
    sim_.pause(unit_->control_node());
    sim_.run_for(1050ms);
    sim_.resume(unit_->control_node());
    sim_.run_for(20ms);
  }
  ASSERT_TRUE(sim_.run_until([&] { return designation().requires_node(newcomer) && designation().required.size() == 3; }, 30s));
  EXPECT_FALSE(designation().has_member(leaving));
  EXPECT_EQ(contents(), std::string(kBlocks, 'A'));
}

// A lost member's place need not wait for replace_after when an operator says that it is gone.
TEST_F(Move, ALostReserveIsReplacedAtOnce) {
  fill('A');
  NodeId lost = designation().reserves[1], newcomer = spare();
  power_off({lost});
  ASSERT_TRUE(sim_.run_until([&] { return designation().required.size() == 2; }, 30s));
  auto moved = move(lost);
  ASSERT_TRUE(moved.ok()) << moved.status().to_string();
  EXPECT_TRUE(designation().requires_node(newcomer));
  EXPECT_EQ(designation().required.size(), 3u);
}

}  // namespace
}  // namespace luge::sim
