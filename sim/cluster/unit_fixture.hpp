// For tests of a whole unit in virtual time: three heads or more, six sleds, a control plane and one client with the volume "v" attached.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/logging.hpp"
#include "client/volume.hpp"
#include "control/status.hpp"
#include "head/replica.hpp"
#include "sim/cluster/unit.hpp"
#include "switches/paths.hpp"
#include "switches/switches.hpp"

namespace luge::sim {

using io::Task;

inline constexpr std::uint32_t kBlocks = 64;

// Attaches the volume once and stays; the test asks through it.
struct VolumeClient {
  explicit VolumeClient(io::World& w)
      : world(w), control(w, identity, kControlAddress,
                          {.id = kFirstClient, .name = "client", .role = "attach", .address = "tcp:client:1", .incarnation = w.random()}, {}) {
    identity.node = kFirstClient;
    control.start();
  }
  io::World& world;
  wire::Identity identity;
  wire::ControlLink control;
  std::unique_ptr<client::Volume> volume;
  std::unique_ptr<client::Volume> other;  ///< if a test attaches one more
};

class UnitTest : public testing::Test {
 protected:
  /// No flush by itself.
  explicit UnitTest(std::uint32_t copies = 3, std::uint64_t log_bytes = 4 << 20, const std::function<void(head::Options&)>& tweak = {}, std::uint32_t heads = 3,
                    std::uint64_t volume_bytes = kBlocks * kBlockBytes) {
    Unit::Shape shape;
    shape.heads = heads;
    shape.vp_bytes = std::max(shape.vp_bytes, volume_bytes);
    shape.device_bytes = std::max(shape.device_bytes, volume_bytes);
    head::Options& h = shape.head;
    h.segment_bytes = h.meta_segment_bytes = 256 << 10;
    h.log_bytes = h.meta_bytes = log_bytes;
    h.chunk_bytes = 16 << 10;
    h.flush_bytes = 1 << 30;  // what is tested stays in the logs
    h.flush_age = h.flush_idle = 3600s;
    if (tweak) tweak(h);
    unit_.emplace(sim_, shape, [](Node, const std::string& who, const Status& s) { ADD_FAILURE() << who << ": " << s.to_string(); });
    unit_->start();
    client_node_ = sim_.add_node("client", [this](io::World& w) {
      auto c = std::make_shared<VolumeClient>(w);
      client_ = c.get();
      return c;
    });
    EXPECT_TRUE(sim_.run_until([&] { return unit_->control() && unit_->control()->registry().alive("head").size() == heads &&
                                            unit_->control()->registry().alive("sled").size() == 6; }, 10s));
    EXPECT_TRUE(unit_->control()->volumes().create({"v", volume_bytes, {2, 1}, copies}).ok());
    on_client([](VolumeClient& c) -> Task<Status> {
      auto v = co_await client::Volume::attach(c.world, c.identity, c.control, "v", kFirstClient, false);
      if (v.ok()) c.volume = std::move(*v);
      co_return v.status();
    });
    EXPECT_TRUE(sim_.run_until([&] { return designation().opened; }, 10s));
  }

  // The daemons use what the members hold.
  ~UnitTest() override {
    for (Node n = 0; n < sim_.nodes(); ++n)
      if (sim_.up(n)) sim_.crash(n, Crash::power);
  }

  template <class F>
  void on_client(F f) {
    Status out(Code::internal, "did not end");
    auto task = [](F f, VolumeClient& c, Status& out) -> Task<void> { out = co_await f(c); };
    sim_.run(client_node_, task(f, *client_, out), 60s);
    EXPECT_TRUE(out.ok()) << out.to_string();
  }
  static Buffer filled(std::uint32_t blocks, char with) {
    Buffer b = Buffer::allocate(std::size_t{blocks} * kBlockBytes);
    std::memset(b.data(), with, b.size());
    return b;
  }
  void write(Lba first, std::uint32_t blocks, char with) {
    on_client([=](VolumeClient& c) { return client::write(c.world, *c.volume, first * kBlockBytes, filled(blocks, with)); });
  }
  /// All of it, in records that fit a segment.
  void fill(char with) {
    for (Lba at = 0; at < kBlocks; at += 16) write(at, 16, with);
  }
  /// What each block holds: its byte, '0' for zeros, '!' for an error.
  std::string contents() {
    std::string out;
    auto task = [](VolumeClient& c, std::string& out) -> Task<void> {
      for (Lba b = 0; b < kBlocks; ++b) {
        auto r = co_await client::read(c.world, *c.volume, b * kBlockBytes, kBlockBytes);
        char byte = r.ok() ? static_cast<char>(r->data()[0]) : '!';
        out += byte == 0 ? '0' : byte;
      }
    };
    sim_.run(client_node_, task(*client_, out), 120s);
    return out;
  }

  const control::Designation& designation() { return unit_->store().designations.begin()->second; }
  /// A head that runs and has no copy of the volume; 0: there is none.
  NodeId spare() {
    for (const control::Node* n : unit_->control()->registry().alive("head"))
      if (!designation().has_member(n->row.id)) return n->row.id;
    return 0;
  }
  Node node(NodeId head) { return unit_->node_of_head(head); }
  std::string name(NodeId head) { return unit_->control()->registry().name(head); }
  boost::json::object status() {
    return control::volume_json(*unit_->control(), unit_->store().volumes.begin()->second, true);
  }
  std::string text(std::string_view key) { return std::string(status()[key].as_string()); }
  bool wait_for_state(const std::string& state, Duration limit = 20s) { return sim_.run_until([&] { return text("state") == state; }, limit); }
  bool all_required() {
    return sim_.run_until([&] { return designation().required.size() == 3 && text("state") == "open"; }, 20s);
  }
  void power_off(const std::vector<NodeId>& heads) {
    for (NodeId n : heads) sim_.crash(node(n), Crash::power);
  }
  void power_on(const std::vector<NodeId>& heads) {
    for (NodeId n : heads) sim_.restart(node(n));
  }
  /// Where each head has logged the newest write to `lba`.
  std::map<NodeId, head::LogPosition> positions(const std::vector<NodeId>& heads, Lba lba) {
    std::map<NodeId, head::LogPosition> out;
    for (NodeId n : heads) out[n] = position(n, lba);
    return out;
  }
  /// Flips a bit in a logged payload.
  void rot(NodeId head, head::LogPosition at) { sim_.disk(node(head)).rot("log-data", at.offset + 100); }
  head::LogPosition position(NodeId head, Lba lba) {
    const head::Replica* r = unit_->head(head)->replica(designation().vp);
    return r->find(r->index().get(lba).lsn())->position;
  }

  Simulation sim_{7};
  std::optional<Unit> unit_;
  Node client_node_ = 0;
  VolumeClient* client_ = nullptr;
};

}  // namespace luge::sim
