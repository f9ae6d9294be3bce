// Faults that need to know what a node is: disk errors that an operator ends, a control plane that is away for long or
// restored from an old copy, and crashes or pauses at moments of particular interest (switches/paths.hpp).
#pragma once

#include <optional>
#include <set>
#include <vector>

#include "sim/cluster/damage.hpp"
#include "switches/paths.hpp"

namespace luge::sim {

class UnitFaults {
 public:
  UnitFaults(Simulation& sim, Unit& unit, Damage& damage);
  std::vector<Chaos::Fault> faults();
  void heal();
  /// Its disk gives errors, or did when it started last.
  bool ailing(Node n) const { return ailing_.count(n) != 0; }
  /// A path was reached by the node that runs now.
  void on_path(Path p);

 private:
  struct Trap {
    Path path;
    bool pause = false;
    Crash how = Crash::process;
    Duration delay{0};
  };
  void disk_errors(Chaos& chaos);
  void end_errors(Node n);
  void control_lost(Chaos& chaos, bool old_store);
  void set_trap(Trap trap) { trap_ = trap; }

  Simulation& sim_;
  Unit& unit_;
  Damage& damage_;
  Random random_;
  std::set<Node> ailing_;
  std::optional<Trap> trap_;
  Chaos* chaos_ = nullptr;
};

}  // namespace luge::sim
