// The network between simulated nodes: streams that behave as TCP does. Bytes of one direction arrive in order, late,
// in pieces; across a cut they stall and are retransmitted with back-off, and after a while the connection breaks on
// the side that waits for acknowledgements, while the other side may not know for long (half open). A node without
// power is silent; one that is up again, or whose process died, answers with a reset.
// Addresses are just names; a listener's node is remembered, so that "nobody listens" and "no way there" differ.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "io/network.hpp"
#include "sim/cluster/random.hpp"

namespace luge::sim {

class Simulation;
class Fabric;

/// How the wire behaves; seeded per simulation, may be changed at any time.
struct Wire {
  io::Duration latency_min = std::chrono::microseconds(20);
  io::Duration latency_max = std::chrono::microseconds(200);
  double spike = 0.0005;  ///< chance for one segment to take up to spike_max
  io::Duration spike_max = std::chrono::milliseconds(40);
  double bytes_per_ns = 1.25;   ///< 10 Gbit/s per direction of a connection
  std::size_t window = 4 << 20; ///< bytes sent and not yet read, beyond which a writer waits
  io::Duration break_min = std::chrono::seconds(2);  ///< unacknowledged for this long: the connection breaks
  io::Duration break_max = std::chrono::seconds(15);
};

class Fabric {
 public:
  Fabric(Simulation& sim, Random random) : sim_(sim), random_(random) {}

  Wire wire;

  /// Nothing passes from a to b any more (the other direction is its own cut).
  void cut(std::uint32_t a, std::uint32_t b) { cuts_.insert({a, b}); }
  void cut_both(std::uint32_t a, std::uint32_t b) { cut(a, b); cut(b, a); }
  void heal(std::uint32_t a, std::uint32_t b) { cuts_.erase({a, b}); }
  void heal_all() { cuts_.clear(); slow_.clear(); }
  bool is_cut(std::uint32_t a, std::uint32_t b) const { return cuts_.count({a, b}) != 0; }
  /// Adds to the latency from a to b until heal_all().
  void slow(std::uint32_t a, std::uint32_t b, io::Duration extra) { slow_[{a, b}] = extra; }
  /// Breaks every connection between a and b, both ends at once. What is on its way is lost.
  void reset(std::uint32_t a, std::uint32_t b);
  /// Breaks a's end of every connection between a and b. What a has sent still arrives, `late` from now, behind what a
  /// may have sent meanwhile over another connection.
  void strand(std::uint32_t a, std::uint32_t b, io::Duration late);

  std::uint64_t bytes_delivered() const { return bytes_delivered_; }

 private:
  friend class Simulation;
  friend class SimNetwork;
  friend class SimStream;
  friend class SimListener;
  struct Segment;
  struct End;
  struct Connection;
  using Ref = std::shared_ptr<Connection>;

  io::Duration latency(std::uint32_t from, std::uint32_t to);
  void send(const Ref& c, int side, std::span<const Bytes> parts, bool fin);
  void post(const Ref& c, int side, Segment segment);
  void arrive(const Ref& c, int side, Segment segment);
  bool deliver(const Ref& c, int side, const Segment& segment);
  void retransmit(const Ref& c, int side);
  void watch(const Ref& c, int side);
  void probe(const Ref& c, int side);
  void break_end(const Ref& c, int side);
  void reset_later(const Ref& c, int side);
  void close_end(const Ref& c, int side);
  /// All ends of a node go: with a word to the peers (the kernel's), or silently.
  void node_gone(std::uint32_t node, bool silent);
  void node_back(std::uint32_t node) { dark_.erase(node); }
  void forget(const Ref& c);

  Simulation& sim_;
  Random random_;
  std::set<std::pair<std::uint32_t, std::uint32_t>> cuts_;
  std::set<std::uint32_t> dark_;  // nodes without power; of a killed process the kernel still answers
  std::map<std::pair<std::uint32_t, std::uint32_t>, io::Duration> slow_;
  std::map<std::string, class SimListener*> listeners_;
  std::map<std::string, std::uint32_t> owner_of_;
  std::map<std::uint64_t, Ref> connections_;
  std::uint64_t next_connection_ = 1;
  std::uint32_t next_port_ = 20000;
  std::uint64_t bytes_delivered_ = 0;
};

/// Network of one incarnation of a node.
class SimNetwork final : public io::Network {
 public:
  SimNetwork(io::World& world, Fabric& fabric, std::uint32_t node) : world_(world), fabric_(fabric), node_(node) {}
  io::Task<Result<std::unique_ptr<io::Stream>>> connect(std::string address, io::Duration timeout) override;
  Result<std::unique_ptr<io::Listener>> listen(const std::string& address, bool encrypted = false) override;

 private:
  io::World& world_;
  Fabric& fabric_;
  std::uint32_t node_;
};

}  // namespace luge::sim
