#include "sim/cluster/unit_faults.hpp"

namespace luge::sim {

UnitFaults::UnitFaults(Simulation& sim, Unit& unit, Damage& damage, Traps& traps)
    : sim_(sim), unit_(unit), damage_(damage), traps_(traps), random_(sim.random().fork()) {}

namespace {

// Where a crash of the node that is there, or of all heads, is of interest.
constexpr Path kMoments[] = {Path::epoch_start_appended, Path::truncate_logged, Path::proposal_sent, Path::image_sent,
                             Path::image_rebuild, Path::index_record_appended, Path::segment_begun, Path::stripe_spread,
                             Path::fence_persisted, Path::longer_tail_dropped, Path::reader_waits_for_commit,
                             Path::retry_over_promotion, Path::write_waits_for_merge};

}  // namespace

std::vector<Chaos::Fault> UnitFaults::faults() {
  std::vector<Chaos::Fault> f;
  auto moment = [](Chaos& c) { return kMoments[c.random().below(std::size(kMoments))]; };
  f.push_back({"disk errors", [this](Chaos& c) { disk_errors(c); }});
  f.push_back({"control plane away", [this](Chaos& c) { control_lost(c, false); }});
  f.push_back({"store set back", [this](Chaos& c) { control_lost(c, true); }});
  f.push_back({"grey primary", [this](Chaos& c) { grey_primary(c); }});
  f.push_back({"shrink meets promotion", [this](Chaos& c) { shrink_meets_promotion(c); }});
  f.push_back({"last one left", [this](Chaos& c) { last_one_left(c); }});
  f.push_back({"gateway stopped", [this](Chaos& c) {
    // For a moment, or beyond the time for which a stripe's gateway is waited for.
    set_trap(c, Path::stripe_spread, [this, &c](Node n) { c.pause(n, Duration(random_.spread(10'000'000, 20'000'000'000))); });
  }});
  f.push_back({"crash at a moment", [this, moment](Chaos& c) {
    Crash how = c.random().chance(0.5) ? Crash::process : Crash::power;
    set_trap(c, moment(c), [&c, how](Node n) { c.down(n, how, c.how_long()); });
  }});
  f.push_back({"power cut of all heads at a moment", [this, moment](Chaos& c) {
    set_trap(c, moment(c), [this, &c](Node) { all_heads_lose_power(c); });
  }});
  return f;
}

void UnitFaults::set_trap(Chaos& chaos, Path path, Traps::Spring spring) {
  traps_.set(chaos, path, Duration(chaos.random().chance(0.5) ? 0 : chaos.random().below(2'000'000)), std::move(spring));
}

// They come back one by one: whoever is first may have to decide alone.
void UnitFaults::all_heads_lose_power(Chaos& chaos) {
  for (Node n : unit_.head_nodes()) chaos.down(n, Crash::power, Duration(random_.spread(50'000'000, 8'000'000'000)));
}

// A reserve is cut off while the control plane is away, so that nobody can say that it is not required any more. Then the
// others die, the control plane and the reserve come back, and it is the only one left.
void UnitFaults::last_one_left(Chaos& chaos) {
  auto d = some_vp();
  if (!d || d->reserves.empty()) return;
  auto& net = sim_.fabric();
  Node last = unit_.node_of_head(d->reserves[random_.below(d->reserves.size())]);
  std::vector<Node> others;
  for (NodeId id : d->members())
    if (unit_.node_of_head(id) != last) others.push_back(unit_.node_of_head(id));
  if (random_.chance(0.8)) chaos.down(unit_.control_node(), Crash::process, 3s);
  for (Node n : others) net.cut_both(n, last);
  chaos.undo_after(Duration(500'000'000 + random_.below(2'500'000'000)), [this, &net, &chaos, others, last] {
    for (Node n : others) {
      chaos.down(n, Crash::power, Duration(random_.spread(1'000'000'000, 8'000'000'000)));
      net.heal(n, last), net.heal(last, n);
    }
  });
}

// A disk that answers with errors fails its daemon or device for good; the operator puts it right and starts it again.
void UnitFaults::disk_errors(Chaos& chaos) {
  std::vector<Node> candidates = unit_.sled_nodes();
  for (Node n : unit_.head_nodes()) candidates.push_back(n);
  Node n = candidates[chaos.random().below(candidates.size())];
  // With a head whose copy of the log may be bad, the copies of the others must be readable.
  if (unit_.is_head(n) && damage_.bad_head() && damage_.bad_head() != n) return;
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
  // Few ask for a sync: instead of failing those alone it gives no answer at all, the whole disk or this file.
  const bool hangs = kinds == 4;
  if (sim_.tracing()) sim_.log(sim_.name(n) + " " + path + (hangs ? ": hangs" : ": errors"));
  if (!hangs) disk.faults_of[path] = f;
  for (const std::string& p : paths)
    if (hangs && (p == path || chance == 1)) disk.file(p)->hung = true;
  ailing_.insert(n);
  damage_.excuse(n);
  chaos.undo_later([this, n] { end_errors(n); });
}

void UnitFaults::end_errors(Node n) {
  Disk& disk = sim_.disk(n);
  disk.faults_of.clear();
  for (const std::string& p : disk.paths()) disk.file(p)->hung = false;
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
  // With an old store every head must be heard once more (protocol 5.2); without one of them only an operator goes on.
  if (old_store && !chaos.any_given_up()) unit_.set_store_back(random_);
}

// Clients see it and write to it; the others, or the control plane, do not, or only in one direction. So tails grow that nobody
// else has, and proposals of two epochs meet in the store.
void UnitFaults::grey_primary(Chaos& chaos) {
  auto vp = some_vp();
  if (!vp) return;
  const control::Designation& d = *vp;
  Node primary = unit_.node_of_head(d.primary);
  std::vector<std::pair<Node, Node>> cuts;
  for (NodeId id : d.reserves) {
    if (random_.chance(0.2)) continue;
    if (random_.chance(0.8)) cuts.emplace_back(primary, unit_.node_of_head(id));
    if (random_.chance(0.8)) cuts.emplace_back(unit_.node_of_head(id), primary);
  }
  if (random_.chance(0.8)) cuts.emplace_back(unit_.control_node(), primary);
  if (random_.chance(0.3)) cuts.emplace_back(primary, unit_.control_node());
  auto& net = sim_.fabric();
  for (auto [a, b] : cuts) net.cut(a, b);
  chaos.undo_after(Duration(random_.spread(300'000'000, 6'000'000'000)), [&net, cuts] {
    for (auto [a, b] : cuts) net.heal(a, b);
  });
}

// The primary misses one reserve and is about to remove it when the other one, which still sees that reserve, is about to
// take over: both proposals are on their way at once.
void UnitFaults::shrink_meets_promotion(Chaos& chaos) {
  auto d = some_vp();
  if (!d || d->reserves.size() < 2) return;
  bool first = random_.chance(0.5);
  Node primary = unit_.node_of_head(d->primary), control = unit_.control_node();
  Node candidate = unit_.node_of_head(d->reserves[first ? 0 : 1]), missed = unit_.node_of_head(d->reserves[first ? 1 : 0]);
  auto& net = sim_.fabric();
  net.cut_both(primary, missed);
  // A member is removed after 1.5 s of silence, a primary is taken for failed after 0.5 s.
  chaos.undo_after(Duration(600'000'000 + random_.below(700'000'000)), [this, &net, &chaos, primary, candidate, missed, control] {
    net.cut_both(primary, candidate);
    net.cut(control, primary);
    chaos.undo_after(Duration(400'000'000 + random_.below(1'200'000'000)), [&net, primary, candidate, missed, control] {
      net.heal(control, primary);
      for (Node n : {candidate, missed}) net.heal(primary, n), net.heal(n, primary);
    });
  });
}

std::optional<control::Designation> UnitFaults::some_vp() {
  const auto& all = unit_.store().designations;
  if (all.empty()) return std::nullopt;
  auto it = all.begin();
  std::advance(it, static_cast<std::ptrdiff_t>(random_.below(all.size())));
  return it->second;
}

void UnitFaults::heal() {
  for (Node n : std::set<Node>(ailing_)) end_errors(n);
}

}  // namespace luge::sim
