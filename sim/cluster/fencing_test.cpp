// A primary that has been replaced and does not know it: the sleds tell it (FN-09..11). A whole unit.
#include "sim/cluster/unit_fixture.hpp"
#include "wire/client_generated.h"

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

// A front end that has not heard of a take-over, of a volume that has grown since.
class GrownElsewhere : public Fencing {
 protected:
  static constexpr std::uint64_t kBeyond = (kBlocks + 20) * kBlockBytes;
  /// What the primary of the past is asked first.
  void SetUp() override {
    fill('A');
    NodeId old = designation().primary;
    Epoch epoch = designation().epoch;
    cut_off(old);
    sim_.fabric().heal(node(old), client_node_), sim_.fabric().heal(client_node_, node(old));
    ASSERT_TRUE(sim_.run_until([&] { return designation().epoch > epoch && opened(designation().primary); }, 20s));
    auto task = [](control::Volumes& v) -> Task<void> { EXPECT_TRUE((co_await v.resize("v", 2 * kBlocks * kBlockBytes)).ok()); };
    sim_.run(unit_->control_node(), task(unit_->control()->volumes()), 60s);
    ASSERT_TRUE(opened(old)) << "nobody has told it";
    client_->volume->grow(2 * kBlocks * kBlockBytes);
  }
};

// Requirement: P-6.0 switch=older-size-is-final
TEST_F(GrownElsewhere, AWriteGoesToWhoKnows) {
  on_client([](VolumeClient& c) { return client::write(c.world, *c.volume, kBeyond, filled(1, 'B')); });
}
// No switch: it asks its members before it answers anything.
// Requirement: P-6.0
TEST_F(GrownElsewhere, AReadGoesToWhoKnows) {
  on_client([](VolumeClient& c) -> Task<Status> { co_return (co_await client::read(c.world, *c.volume, kBeyond, kBlockBytes)).status(); });
}
// Requirement: P-6.0 switch=older-size-is-final
TEST_F(GrownElsewhere, WhereItHoldsDataIsAskedOfWhoKnows) {
  on_client([](VolumeClient& c) -> Task<Status> { co_return (co_await client::map(c.world, *c.volume, kBeyond, kBlockBytes)).status(); });
}

class Attachments : public UnitTest {
 protected:
  Attachments() : UnitTest(3, 4 << 20, [](head::Options& h) { h.most_attachments = 8; }) {}
  /// As a client that makes attachments up. What each is answered.
  std::vector<Code> open(std::uint64_t first, int count, std::uint64_t incarnation) {
    std::vector<Code> out;
    auto task = [](VolumeClient& c, std::string to, control::Designation d, std::uint64_t first, int count, std::uint64_t incarnation, std::vector<Code>& out) -> Task<void> {
      wire::Link link(c.world, c.identity, to, [](const std::shared_ptr<wire::Channel>&, wire::Frame) {});
      link.start();
      co_await c.world.sleep(100ms);
      for (int i = 0; i < count; ++i) {
        auto answer = co_await link.call(wire::make_frame(wire::Kind::open_session, [&](auto& b) { return fbs::CreateOpenSession(b, d.vp, d.epoch, first + i, incarnation); }), 2s);
        const auto* r = answer.ok() ? answer->as<fbs::SessionReply>() : nullptr;
        out.push_back(r ? static_cast<Code>(r->code()) : Code::internal);
      }
    };
    const control::Designation d = designation();
    sim_.run(client_node_, task(*client_, unit_->control()->registry().find(d.primary)->row.address, d, first, count, incarnation, out), 60s);
    return out;
  }
};

// Requirement: P-2.3 switch=attachments-unbounded
TEST_F(Attachments, APartitionRemembersSoManyAndForgetsNone) {
  write(0, 4, 'A');
  EXPECT_EQ(open(1000, 8, 5), std::vector<Code>(8, Code::ok));
  EXPECT_EQ(open(1008, 2, 5), std::vector<Code>(2, Code::no_space));
  EXPECT_EQ(open(1000, 8, 6), std::vector<Code>(8, Code::ok)) << "those that are remembered go on";
  EXPECT_EQ(open(1000, 8, 5), std::vector<Code>(8, Code::closed_session)) << "and older ones of them stay closed";
  on_client([](VolumeClient& c) -> Task<Status> {
    auto v = co_await client::Volume::attach(c.world, c.identity, c.control, "v", kFirstClient, false);
    if (v.ok()) c.volume = std::move(*v);
    co_return v.status();
  });
  write(0, 4, 'C');
  EXPECT_EQ(contents().substr(0, 5), "CCCC0") << "the volume's own attachment always has room";
  power_off({designation().primary});
  write(0, 4, 'B');
  EXPECT_EQ(open(1008, 1, 5), std::vector<Code>{Code::no_space}) << "the next primary remembers them, too";
}

}  // namespace
}  // namespace luge::sim
