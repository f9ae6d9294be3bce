// A whole unit in one thread and in virtual time. One seed gives one history: the order of everything is decided by
// the event heap (time, then sequence) and by draws from the seed; nothing else is consulted.
//
// A node is a daemon with its disk and its place in the network. Its handlers (coroutine resumptions) run from a queue
// of its own, in virtual time zero; time moves only from event to event. crash() ends a node the hard way: every wait
// of its World throws io::Stopped, in-flight disk writes are done, torn or dropped by the seed, the daemon object is
// destroyed, the disk stays. restart() makes a new daemon on it.
//
// Use: Simulation sim(seed); auto a = sim.add_node("a", [](io::World& w) { return std::make_shared<MyDaemon>(w); });
//      sim.run_for(5s); sim.crash(a, Crash::power); sim.restart(a); sim.run_until([&] { return done; }, 10s);
// A plain test: sim.run(a, task) runs one coroutine on node a to its end.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/world.hpp"
#include "sim/cluster/disk.hpp"
#include "sim/cluster/fabric.hpp"
#include "sim/cluster/random.hpp"

namespace luge::sim {

using io::Duration;
using namespace std::chrono_literals;

/// Index of a node in its Simulation.
using Node = std::uint32_t;

enum class Crash {
  process,  ///< kill -9: the kernel lives on, so peers see a reset and the page cache survives
  power,    ///< the machine goes dark: peers see silence, what was not synced is dropped or torn
};

class SimWorld;

class Simulation {
 public:
  /// Makes the daemon and starts it (spawns its tasks). Runs at add_node() and at each restart().
  using Boot = std::function<std::shared_ptr<void>(io::World&)>;

  explicit Simulation(std::uint64_t seed);
  ~Simulation();
  Simulation(const Simulation&) = delete;

  /// An empty `boot` makes a bare node for tests.
  Node add_node(std::string name, Boot boot = {});
  std::size_t nodes() const { return nodes_.size(); }
  const std::string& name(Node n) const;
  /// The World of the node's present incarnation. REQUIRES: up(n).
  io::World& world(Node n);
  bool up(Node n) const;
  bool paused(Node n) const;

  void crash(Node n, Crash kind);
  void restart(Node n);
  /// SIGSTOP: no handler runs, input queues in the kernel. resume() lets everything queued run.
  void pause(Node n);
  void resume(Node n);
  /// Offset and rate of the node's clock against true time (rate 1.0 = exact); from now on, without a jump back.
  void set_clock(Node n, Duration ahead, double rate);

  Disk& disk(Node n);
  Fabric& fabric() { return fabric_; }
  /// For the harness (workload, fault schedule).
  Random& random() { return random_; }

  Duration now() const { return now_; }
  /// The node whose handler runs; nothing in the harness's own code.
  std::optional<Node> current() const;
  /// Runs `f` at now() + d, outside of any node. It may crash and restart nodes.
  void after(Duration d, std::function<void()> f);
  void run_for(Duration d);
  /// False: `limit` passed, or nothing is left that could happen.
  bool run_until(const std::function<bool()>& done, Duration limit);
  /// Runs `task` on node n to its end. REQUIRES: it ends within `limit`.
  void run(Node n, io::Task<void> task, Duration limit = 3600s);

  /// Same seed, same code: same hash. Covers every event's time, and whatever note() was given.
  std::uint64_t trace_hash() const { return hash_; }
  std::uint64_t events() const { return sequence_; }
  void note(std::uint64_t a, std::uint64_t b = 0);
  /// A line of the trace ("12.345678 head-1 text"), when tracing is on.
  void trace(bool on) { tracing_ = on; }
  bool tracing() const { return tracing_; }
  void log(const std::string& text);
  /// "12.345678 head-1", of the simulation that runs now on this thread; for the product's log lines.
  static std::string here();

 private:
  friend class SimWorld;
  struct NodeState;
  struct Event {
    Duration time;
    std::uint64_t sequence;
    std::function<void()> fire;
  };
  static bool later(const Event& a, const Event& b) {
    return a.time != b.time ? a.time > b.time : a.sequence > b.sequence;
  }
  void enqueue(NodeState& n, std::function<void()> f);
  void drain();
  void run_handlers(NodeState& n);
  bool step(Duration limit);

  Random random_;
  Random node_seeds_;
  Duration now_{0};
  std::uint64_t sequence_ = 0;
  std::uint64_t hash_ = 0xcbf29ce484222325;
  bool tracing_ = false;
  std::vector<Event> heap_;
  std::deque<NodeState*> runnable_;
  std::uint64_t handlers_at_this_time_ = 0;
  Fabric fabric_;
  std::vector<std::unique_ptr<NodeState>> nodes_;
  NodeState* current_ = nullptr;
};

}  // namespace luge::sim
