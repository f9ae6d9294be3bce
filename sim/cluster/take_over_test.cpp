// A front end that was taken over stays closed, whatever becomes of the record that says so (protocol 2.3).
#include "sim/cluster/unit_fixture.hpp"

namespace luge::sim {
namespace {

// Another front end, on a node of its own.
struct SecondClient {
  explicit SecondClient(io::World& w)
      : world(w), control(w, identity, kControlAddress,
                          {.id = kFirstClient + 1, .name = "client2", .role = "attach", .address = "tcp:client2:1", .incarnation = w.random()}, {}) {
    identity.node = kFirstClient + 1;
    control.start();
  }
  io::World& world;
  wire::Identity identity;
  wire::ControlLink control;
  std::unique_ptr<client::Volume> volume;
};

class TakeOver : public UnitTest {
 protected:
  TakeOver() {
    write(0, 8, 'A');
    second_node_ = sim_.add_node("client2", [&](io::World& w) {
      auto c = std::make_shared<SecondClient>(w);
      second_ = c.get();
      return c;
    });
    sim_.run_for(500ms);
  }
  void cut(Node a, std::vector<Node> from) {
    for (Node b : from) sim_.fabric().cut_both(a, b);
  }
  void heal(Node a, std::vector<Node> from) {
    for (Node b : from) sim_.fabric().heal(a, b), sim_.fabric().heal(b, a);
  }
  bool open(NodeId head) { return unit_->head(head) && unit_->head(head)->digest(designation().vp)->primary_open; }
  void take_over() {
    auto attach = [](SecondClient& s) -> Task<void> {
      auto v = co_await client::Volume::attach(s.world, s.identity, s.control, "v", kFirstClient + 1, true);
      if (v.ok()) s.volume = std::move(*v);
    };
    sim_.world(second_node_).spawn("attach", attach(*second_));
    ASSERT_TRUE(sim_.run_until([&] { return second_->volume != nullptr; }, 10s));
  }
  std::shared_ptr<std::optional<char>> begin_read() {
    auto got = std::make_shared<std::optional<char>>();
    auto get = [](SecondClient& s, std::shared_ptr<std::optional<char>> out) -> Task<void> {
      auto r = co_await client::read(s.world, *s.volume, 0, kBlockBytes);
      *out = r.ok() ? static_cast<char>(r->data()[0]) : '!';
    };
    sim_.world(second_node_).spawn("read", get(*second_, got));
    return got;
  }
  SecondClient* second_ = nullptr;
  Node second_node_{};
};

// Requirement: P-2.3 switch=truncated-opening-counts
TEST_F(TakeOver, AnOpeningThatWasTruncatedIsMadeAgain) {
  NodeId a = designation().primary, b = designation().reserves[0], c = designation().reserves[1];
  std::vector<Node> heads{node(a), node(b), node(c)}, others{node(b), node(c), unit_->control_node()};
  // The first front end is cut off with a write that nobody has got.
  cut(client_node_, heads);
  cut(client_node_, {unit_->control_node()});
  std::optional<Status> first_write;
  auto put = [](VolumeClient& c, std::optional<Status>& out) -> Task<void> { out = co_await client::write(c.world, *c.volume, 0, filled(1, 'W')); };
  sim_.world(client_node_).spawn("write", put(*client_, first_write));
  sim_.run_for(100ms);
  // The primary is cut off from all but the second front end: its opening is in a tail that nobody else has.
  cut(node(a), others);
  cut(second_node_, {node(b), node(c)});
  take_over();
  auto got = begin_read();
  ASSERT_TRUE(sim_.run_until([&] { return unit_->head(a)->replica(designation().vp)->sessions.incarnation(volume_of(designation().vp)) == second_->volume->incarnation(); }, 10s));
  ASSERT_TRUE(sim_.run_until([&] { return designation().epoch == 2 && open(designation().primary); }, 20s));
  heal(node(a), others);  // it is truncated
  ASSERT_TRUE(all_required());
  power_off({b, c});
  ASSERT_TRUE(sim_.run_until([&] { return designation().primary == a && open(a); }, 30s));
  ASSERT_TRUE(sim_.run_until([&] { return got->has_value(); }, 20s));
  sim_.restart(node(c));
  ASSERT_TRUE(sim_.run_until([&] { return designation().requires_node(c); }, 30s));
  power_off({a});
  sim_.restart(node(b));
  ASSERT_TRUE(sim_.run_until([&] { return designation().primary != a && designation().required.size() == 2 && open(designation().primary); }, 60s));
  heal(client_node_, heads);
  heal(client_node_, {unit_->control_node()});
  ASSERT_TRUE(sim_.run_until([&] { return first_write.has_value(); }, 60s));
  EXPECT_FALSE(first_write->ok());
  heal(second_node_, {node(b), node(c)});
  got = begin_read();
  ASSERT_TRUE(sim_.run_until([&] { return got->has_value(); }, 60s));
  EXPECT_EQ(**got, 'A');
}

}  // namespace
}  // namespace luge::sim
