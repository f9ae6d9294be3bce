// Faults at random times, each undone after a random time, until heal(). Which kinds happen and how often is drawn
// from the seed, so that some seeds are one fault on a quiet unit and others a storm.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "sim/cluster/simulation.hpp"

namespace luge::sim {

class Chaos {
 public:
  struct Options {
    std::vector<Node> crashable;   ///< nodes that are killed, switched off and paused
    std::vector<Node> networked;   ///< nodes whose links are cut, slowed and reset
    std::vector<Node> all_at_once; ///< nodes that a power cut of the whole unit takes
    Duration shortest = 1ms, longest = 4s;  ///< of one fault
  };
  Chaos(Simulation& sim, Options options);

  void start();
  /// Ends all faults and starts everything that is down. No fault after that.
  void heal();
  /// "3 kill, 1 pause, 2 cut one way"
  std::string summary() const;
  std::uint64_t faults() const;

 private:
  enum Kind { kill, power, power_all, pause, cut_both, cut_one_way, isolate, bridge, slow_link, reset_link, slow_disk, clock, kinds_ };
  void schedule();
  void inject();
  void undo_later(std::function<void()> undo);
  void down(Node n, Crash how, Duration for_how_long);
  /// Like down(), at a moment when a disk write of the node is in flight, if one comes soon.
  void down_while_writing(Node n, Crash how, int patience);
  Duration how_long() { return Duration(random_.spread(options_.shortest.count(), options_.longest.count())); }
  Node any(const std::vector<Node>& from) { return from[random_.below(from.size())]; }

  Simulation& sim_;
  Options options_;
  Random random_;
  std::vector<Kind> mix_;
  Duration interval_{0};
  bool active_ = false;
  std::map<std::string, std::uint64_t> count_;
};

}  // namespace luge::sim
