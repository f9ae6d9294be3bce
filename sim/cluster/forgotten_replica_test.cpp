// A replica that is forgotten while something of it is on its way into the log: each record's space is given back, once.
#include <boost/json.hpp>

#include "sim/cluster/unit_fixture.hpp"

namespace luge::sim {
namespace {

class ForgottenReplica : public UnitTest {
 protected:
  explicit ForgottenReplica(const std::function<void(head::Options&)>& tweak, std::uint32_t heads) : UnitTest(3, 4 << 20, tweak, heads) {}
  const control::Designation& designation_of(const std::string& volume) {
    const auto* v = unit_->store().find_volume(volume);
    return unit_->store().designations.at(make_vp(v->id, 0));
  }
  void make(const std::string& volume, int writes) {
    EXPECT_TRUE(unit_->control()->volumes().create({volume, kBlocks * kBlockBytes, {2, 1}, 3}).ok());
    on_client([=](VolumeClient& c) -> Task<Status> {
      auto v = co_await client::Volume::attach(c.world, c.identity, c.control, volume, kFirstClient, false);
      if (!v.ok()) co_return v.status();
      c.other = std::move(*v);
      for (int i = 0; i < writes; ++i)
        if (auto s = co_await client::write(c.world, *c.other, 0, filled(1, 'x')); !s.ok()) co_return s;
      auto s = co_await c.other->detach();
      c.other.reset();
      co_return s;
    });
  }
  std::shared_ptr<bool> begin_remove(const std::string& volume) {
    auto removed = std::make_shared<bool>(false);
    auto task = [](control::Volumes& v, std::string volume, std::shared_ptr<bool> removed) -> Task<void> {
      (void)co_await v.remove(volume, true, 10s);
      *removed = true;
    };
    sim_.world(unit_->control_node()).spawn("remove", task(unit_->control()->volumes(), volume, removed));
    return removed;
  }
};

class WhileAnImageComes : public ForgottenReplica {
 protected:
  WhileAnImageComes()
      : ForgottenReplica([](head::Options& h) { h.checkpoints = head::Options::Checkpoints::none, h.meta_bytes_most = 0, h.replace_after = 3600s; }, 4) {}
  // To the head that has no copy of it; the volume is gone before all of it is there.
  bool interrupt_a_move(const std::string& volume) {
    const control::Designation d = designation_of(volume);
    NodeId to = 0;
    for (const control::Node* n : unit_->control()->registry().alive("head"))
      if (!d.has_member(n->row.id)) to = n->row.id;
    sim_.fabric().slow(node(d.primary), node(to), 100ms);
    auto task = [](control::Volumes& v, std::string volume, std::string from, std::string to) -> Task<void> { (void)co_await v.move(volume, from, to, false, 20s); };
    sim_.world(unit_->control_node()).spawn("move", task(unit_->control()->volumes(), volume, name(d.reserves[0]), name(to)));
    bool seen = sim_.run_until([&] { auto r = unit_->head(to)->replica(d.vp); return r && r->loading_image(); }, 20s);
    auto removed = begin_remove(volume);
    sim_.run_until([&] { return *removed; }, 30s);
    sim_.fabric().heal_all();
    sim_.run_for(300ms);
    return seen;
  }
  // Records of the metadata portion.
  bool trims_end(int n) {
    auto done = std::make_shared<bool>(false);
    auto task = [](VolumeClient& c, int n, std::shared_ptr<bool> done) -> Task<void> {
      for (int i = 0; i < n; ++i) {
        std::optional<Status> s;
        c.volume->trim(0, 8 * kBlockBytes, [&](const Status& x) { s = x; });
        while (!s) co_await c.world.sleep(200us);
      }
      *done = true;
    };
    sim_.world(client_node_).spawn("trims", task(*client_, n, done));
    return sim_.run_until([&] { return *done; }, 60s);
  }
};

TEST_F(WhileAnImageComes, TheLogSpaceOfItsPartsIsGivenBack) {
  for (int i = 0, seen = 0; i < 60 && seen < 16; ++i) {
    std::string w = "w" + std::to_string(i);
    make(w, 3);
    seen += interrupt_a_move(w);
    ASSERT_TRUE(trims_end(100)) << "after " << seen << ": " << text("state") << ", " << text("reason");
  }
}

class WhileAnImageIsWritten : public ForgottenReplica {
 protected:
  WhileAnImageIsWritten() : ForgottenReplica([](head::Options& h) { h.checkpoints = head::Options::Checkpoints::none, h.clean_fill = 0; }, 3) {}
  // Both writes are on their way: that of the image, and that which forgets the replica. The head stands still until both have ended.
  std::optional<Node> both_in_flight() {
    for (Node n : unit_->head_nodes()) {
      auto* store = sim_.disk(n).file("meta");
      auto* log = sim_.disk(n).file("log-meta");
      if (store && log && !store->in_flight.empty() && !log->in_flight.empty()) return n;
    }
    return std::nullopt;
  }
};

TEST_F(WhileAnImageIsWritten, ItsRecordIsGivenBackOnce) {
  int met = 0;
  for (int i = 0; i < 100; ++i) {
    std::string w = "w" + std::to_string(i);
    make(w, 4);
    sim_.run_for(Duration((i * 1370us) % 120ms));
    for (Node n : unit_->head_nodes()) sim_.disk(n).faults.slow = 30;
    auto removed = begin_remove(w);
    std::optional<Node> both;
    sim_.run_until([&] { return *removed || (both = both_in_flight()).has_value(); }, 5s);
    if (both && !*removed) {
      ++met;
      sim_.pause(*both);
      sim_.run_for(200ms);
      sim_.resume(*both);
    }
    for (Node n : unit_->head_nodes()) sim_.disk(n).faults.slow = 1;
    sim_.run_until([&] { return *removed; }, 20s);
    write(0, 1, 'v');
  }
  EXPECT_GT(met, 10);
  for (int i = 0; i < 200; ++i) write(0, 1, 'v');
}

}  // namespace
}  // namespace luge::sim
