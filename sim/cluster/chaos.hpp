// Faults at random times, each undone after a random time, until heal(). Which kinds happen and how often is drawn
// from the seed, so that some seeds are one fault on a quiet unit and others a storm.
//
// Here are the faults that any set of nodes can have: crashes, pauses, the network, slow disks, clocks. What needs to know
// what the nodes are (damage to what they store, a control plane that is set back) comes in through Options::more.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "sim/cluster/simulation.hpp"

namespace luge::sim {

class Chaos {
 public:
  struct Fault {
    std::string name;
    std::function<void(Chaos&)> inject;
  };
  struct Options {
    std::vector<Node> crashable;   ///< nodes that are killed, switched off and paused
    std::vector<Node> networked;   ///< nodes whose links are cut, slowed and reset
    /// Two of them that have something to say to each other; empty: any two.
    std::function<std::pair<Node, Node>(Random&)> pair;
    std::vector<Node> all_at_once; ///< nodes that a power cut of the whole unit takes
    std::vector<Fault> more;
    std::optional<Fault> directed; ///< instead of a mix: this one at regular times, with few others in between or none
    std::function<void()> healing; ///< ends what `more` has begun; runs before nodes that are down are started
    Duration shortest = 1ms, longest = 4s;  ///< of one fault
    Duration interval{0};          ///< between faults, on average; 0: drawn, 20 ms to 1.3 s
    bool clocks_jump = true;       ///< not only their rates differ
  };
  Chaos(Simulation& sim, Options options);

  void start();
  /// Ends all faults and starts everything that is down, except what has been given up. No fault after that.
  void heal();
  bool active() const { return active_; }
  /// "3 kill, 1 pause, 2 one-way cut"
  std::string summary() const;
  std::uint64_t faults() const;

  // For Fault::inject
  Random& random() { return random_; }
  /// Log-uniform between shortest and longest.
  Duration how_long() { return Duration(random_.spread(options_.shortest.count(), options_.longest.count())); }
  void undo_later(std::function<void()> undo) { undo_after(how_long(), std::move(undo)); }
  /// heal() forgets the undo: what must be undone then, Options::healing undoes.
  void undo_after(Duration d, std::function<void()> undo);
  void down(Node n, Crash how, Duration for_how_long);
  /// Like down(), at a moment when a disk write of the node is in flight, if one comes soon.
  void down_while_writing(Node n, Crash how, int patience);
  void pause(Node n, Duration for_how_long);
  /// The node is never started again.
  void give_up(Node n);
  bool given_up(Node n) const;
  bool any_given_up() const { return !given_up_.empty(); }
  /// A fault that happened otherwise than by inject().
  void count(const std::string& name) { ++count_[name]; }

 private:
  std::vector<Fault> own_faults();
  void schedule();
  void inject();
  void isolate(Node a);
  void bridge(Node a);
  void late_messages(Node a, Node b);
  Node any(const std::vector<Node>& from) { return from[random_.below(from.size())]; }
  std::pair<Node, Node> pair();

  Simulation& sim_;
  Options options_;
  Random random_;
  std::vector<Fault> mix_;
  std::vector<Node> given_up_;
  Duration interval_{0};
  bool active_ = false;
  std::uint64_t injected_ = 0;
  std::map<std::string, std::uint64_t> count_;
};

}  // namespace luge::sim
