// Faults that need to know what a node is: disk errors that an operator ends, a control plane that is away for long or
// restored from an old copy, a primary that only some can see, heads that come back one by one, and crashes or pauses at
// moments of particular interest (switches/paths.hpp).
#pragma once

#include <functional>
#include <optional>
#include <set>
#include <vector>

#include "sim/cluster/damage.hpp"
#include "sim/cluster/traps.hpp"

namespace luge::sim {

class UnitFaults {
 public:
  UnitFaults(Simulation& sim, Unit& unit, Damage& damage, Traps& traps);
  std::vector<Chaos::Fault> faults();
  void heal();
  /// Its disk gives errors, or did when it started last.
  bool ailing(Node n) const { return ailing_.count(n) != 0; }

 private:
  void set_trap(Chaos& chaos, Path path, Traps::Spring spring);
  void all_heads_lose_power(Chaos& chaos);
  void last_one_left(Chaos& chaos);
  void disk_errors(Chaos& chaos);
  void end_errors(Node n);
  void control_lost(Chaos& chaos, bool old_store);
  void grey_primary(Chaos& chaos);
  void shrink_meets_promotion(Chaos& chaos);
  std::optional<control::Designation> some_vp();

  Simulation& sim_;
  Unit& unit_;
  Damage& damage_;
  Traps& traps_;
  Random random_;
  std::set<Node> ailing_;
};

}  // namespace luge::sim
