// Directed faults: each leads the unit to the brink that one rule of the protocol keeps it from, by an order of events that
// chance would seldom find. A seed draws one of them or none; what lies between the events is drawn, too. Nothing here is
// beyond what the unit must survive.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "sim/cluster/damage.hpp"
#include "sim/cluster/tenant.hpp"
#include "sim/cluster/traps.hpp"

namespace luge::sim {

class Schedules {
 public:
  using Tenants = std::vector<std::unique_ptr<Tenant>>;
  Schedules(Simulation& sim, Unit& unit, Damage& damage, Traps& traps, const Tenants& tenants);

  /// Names of all.
  static const std::vector<std::string>& names();
  /// So many of them, from the first on, seeds draw alike.
  static constexpr std::size_t kDrawnAlike = 20;
  /// One of its kind; again and again for as long as faults come. REQUIRES: `name` is one of names().
  Chaos::Fault fault(const std::string& name);
  /// Undoes what Chaos::heal() does not.
  void heal();

 private:
  /// A VP with two reserves or more, and where its members are.
  struct Group {
    Node primary;
    std::vector<Node> reserves;  ///< in the designation's order
    std::vector<Node> clients;   ///< of its volume
    VpId vp = 0;
    std::vector<Node> all() const;
  };
  /// `with`: a group in which this head is.
  std::optional<Group> some_group(std::optional<Node> with = std::nullopt);
  void lost_reserve(Chaos& c, bool store_forgets);
  void joiner_alone(Chaos& c);
  void dropped_tail(Chaos& c);
  void seen_before_commit(Chaos& c);
  void two_views(Chaos& c);
  void opened_early(Chaos& c);
  void late_flush(Chaos& c);
  void index_record_lost(Chaos& c);
  void two_promotions(Chaos& c);
  void shrink_meets_promotion(Chaos& c);
  void store_behind(Chaos& c);
  void log_reused(Chaos& c);
  void volumes_come_and_go(Chaos& c);
  bool forgotten_fill_a_head() const;
  void trim_storm(Chaos& c);
  void slow_reserve(Chaos& c);
  void slow_primary(Chaos& c);
  void late_answers(Chaos& c);
  void restart_in_lease(Chaos& c);
  void rotten_log(Chaos& c);
  void lost_disk(Chaos& c);
  void replaced_returns(Chaos& c);

  /// As soon as `ready`, looked at every 20 ms for so long.
  void when(Chaos& c, std::function<bool()> ready, Duration patience, std::function<void()> then);
  void cut(const std::vector<Node>& a, const std::vector<Node>& b);
  void mend(const std::vector<Node>& a, const std::vector<Node>& b);
  void power_off(Chaos& c, const std::vector<Node>& nodes, Duration low, Duration high);
  void slow_disks(Chaos& c, const std::vector<Node>& nodes, Duration for_how_long);
  Duration between(Duration low, Duration high) { return Duration(random_.between(low.count(), high.count())); }

  Simulation& sim_;
  Unit& unit_;
  Damage& damage_;
  Traps& traps_;
  const Tenants& tenants_;
  Random random_;
  std::uint64_t passing_ = 0;  // volumes made by volumes_come_and_go()
  std::vector<VpId> made_;     // and their partitions
};

}  // namespace luge::sim
