#include "sim/cluster/unit_faults.hpp"

namespace luge::sim {

UnitFaults::UnitFaults(Simulation& sim, Unit& unit, Damage& damage)
    : sim_(sim), unit_(unit), damage_(damage), random_(sim.random().fork()) {}

std::vector<Chaos::Fault> UnitFaults::faults() {
  static constexpr Path moments[] = {Path::epoch_start_appended, Path::truncate_logged, Path::proposal_sent,
                                     Path::image_sent, Path::image_rebuild, Path::index_record_appended, Path::segment_begun,
                                     Path::stripe_spread, Path::fence_persisted, Path::longer_tail_dropped};
  std::vector<Chaos::Fault> f;
  f.push_back({"disk errors", [this](Chaos& c) { disk_errors(c); }});
  f.push_back({"control plane away", [this](Chaos& c) { control_lost(c, false); }});
  f.push_back({"store set back", [this](Chaos& c) { control_lost(c, true); }});
  f.push_back({"gateway stopped", [this](Chaos& c) {
    chaos_ = &c;
    set_trap({Path::stripe_spread, true, Crash::process, Duration(c.random().below(1'000'000))});
  }});
  f.push_back({"crash at a moment", [this](Chaos& c) {
    chaos_ = &c;
    set_trap({moments[c.random().below(std::size(moments))], false, c.random().chance(0.5) ? Crash::process : Crash::power,
              Duration(c.random().chance(0.5) ? 0 : c.random().below(2'000'000))});
  }});
  return f;
}

void UnitFaults::on_path(Path p) {
  auto n = sim_.current();
  if (!trap_ || trap_->path != p || !n || chaos_ == nullptr || !chaos_->active()) return;
  Trap trap = *trap_;
  trap_.reset();
  sim_.after(trap.delay, [this, trap, n = *n] {
    if (!chaos_->active()) return;
    if (sim_.tracing()) sim_.log("at " + std::string(path_name(trap.path)) + ":");
    // Beyond the time for which a stripe's gateway is waited for, or just a moment.
    if (trap.pause) chaos_->pause(n, Duration(random_.spread(10'000'000, 20'000'000'000)));
    else chaos_->down(n, trap.how, chaos_->how_long());
  });
}

// A disk that answers with errors fails its daemon or device for good; the operator puts it right and starts it again.
void UnitFaults::disk_errors(Chaos& chaos) {
  std::vector<Node> candidates = unit_.sled_nodes();
  for (Node n : unit_.head_nodes()) candidates.push_back(n);
  Node n = candidates[chaos.random().below(candidates.size())];
  // With a head whose copy of the log may be bad, the copies of the others must be readable.
  if (unit_.is_head(n) && damage_.bad_head() && !damage_.bad(n)) return;
  Disk& disk = sim_.disk(n);
  std::vector<std::string> paths = disk.paths();
  if (paths.empty() || ailing(n)) return;
  std::string path = paths[chaos.random().below(paths.size())];
  DiskFaults f = disk.faults;
  static constexpr double often[] = {0.02, 0.3, 1};
  double chance = often[chaos.random().below(3)];
  std::uint64_t kinds = chaos.random().between(1, 7);
  if (kinds & 1) f.read_error = chance;
  if (kinds & 2) f.write_error = chance;
  if (kinds & 4) f.sync_error = chance;
  if (sim_.tracing()) sim_.log(sim_.name(n) + " " + path + ": errors");
  disk.faults_of[path] = f;
  ailing_.insert(n);
  chaos.undo_later([this, n] { end_errors(n); });
}

void UnitFaults::end_errors(Node n) {
  sim_.disk(n).faults_of.clear();
  if (sim_.tracing()) sim_.log(sim_.name(n) + ": no more errors");
  if (sim_.up(n)) {
    sim_.crash(n, Crash::process);
    sim_.restart(n);
  }
  ailing_.erase(n);
}

void UnitFaults::control_lost(Chaos& chaos, bool old_store) {
  Node n = unit_.control_node();
  if (!sim_.up(n)) return;
  sim_.crash(n, Crash::power);
  chaos.undo_after(Duration(random_.spread(100'000'000, old_store ? 4'000'000'000 : 30'000'000'000)), [this, n] {
    if (!sim_.up(n)) sim_.restart(n);
  });
  if (old_store) unit_.set_store_back(random_);
}

void UnitFaults::heal() {
  trap_.reset();
  for (Node n : std::set<Node>(ailing_)) end_errors(n);
}

}  // namespace luge::sim
