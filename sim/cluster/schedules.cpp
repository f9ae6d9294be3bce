#include "sim/cluster/schedules.hpp"

#include <algorithm>

namespace luge::sim {

// Of the product's times these rest on: a member is let go after 1.5 s of silence, a primary is taken for failed after 0.5 s,
// who is the only one left waits 2 s for the others before it opens alone.
namespace {

using io::Task;

Task<void> remove_volume(Unit& unit, std::string name) {
  auto r = co_await unit.control()->volumes().remove(std::move(name), true, 5s);
  (void)r;  // a control plane that dies meanwhile goes on with it when it is back
}

}  // namespace

Schedules::Schedules(Simulation& sim, Unit& unit, Damage& damage, Traps& traps, const Tenants& tenants)
    : sim_(sim), unit_(unit), damage_(damage), traps_(traps), tenants_(tenants), random_(sim.random().fork()) {}

const std::vector<std::string>& Schedules::names() {
  static const std::vector<std::string> all = {
      "lost-reserve", "store-forgets", "joiner-alone", "dropped-tail", "seen-before-commit", "two-views", "opened-early",
      "late-flush", "index-record-lost", "two-promotions", "shrink-meets-promotion", "store-behind", "log-reused",
      "volumes-come-and-go", "trim-storm", "slow-reserve", "slow-primary", "late-answers", "restart-in-lease", "rotten-log", "lost-disk", "replaced-returns"};
  return all;
}

Chaos::Fault Schedules::fault(const std::string& name) {
  using Run = std::function<void(Schedules&, Chaos&)>;
  static const std::vector<Run> run = {
      [](Schedules& s, Chaos& c) { s.lost_reserve(c, false); },
      [](Schedules& s, Chaos& c) { s.lost_reserve(c, true); },
      &Schedules::joiner_alone, &Schedules::dropped_tail, &Schedules::seen_before_commit, &Schedules::two_views,
      &Schedules::opened_early, &Schedules::late_flush, &Schedules::index_record_lost, &Schedules::two_promotions,
      &Schedules::shrink_meets_promotion, &Schedules::store_behind, &Schedules::log_reused, &Schedules::volumes_come_and_go,
      &Schedules::trim_storm, &Schedules::slow_reserve, &Schedules::slow_primary, &Schedules::late_answers, &Schedules::restart_in_lease,
      &Schedules::rotten_log, &Schedules::lost_disk, &Schedules::replaced_returns};
  auto at = std::find(names().begin(), names().end(), name);
  LUGE_CHECK(at != names().end() && run.size() == names().size());
  return {name, [this, f = run[static_cast<std::size_t>(at - names().begin())]](Chaos& c) { f(*this, c); }};
}

std::vector<Node> Schedules::Group::all() const {
  std::vector<Node> nodes = reserves;
  nodes.insert(nodes.begin(), primary);
  return nodes;
}

std::optional<Schedules::Group> Schedules::some_group(std::optional<Node> with) {
  std::vector<Group> groups;
  const control::Image& store = unit_.store();
  for (const auto& [vp, d] : store.designations) {
    auto volume = store.volumes.find(volume_of(vp));
    if (volume == store.volumes.end() || d.reserves.size() < 2 || d.required.size() < 3) continue;
    if (with && !d.has_member(kFirstHead + *with - unit_.head_nodes()[0])) continue;
    for (const auto& t : tenants_)
      if (t->name == volume->second.name) {
        groups.push_back({unit_.node_of_head(d.primary), {}, t->clients, vp});
        for (NodeId n : d.reserves) groups.back().reserves.push_back(unit_.node_of_head(n));
      }
  }
  if (groups.empty()) return std::nullopt;
  Group g = groups[random_.below(groups.size())];
  for (Node n : g.all())
    if (!sim_.up(n)) return std::nullopt;
  return g;
}

void Schedules::cut(const std::vector<Node>& a, const std::vector<Node>& b) {
  for (Node x : a)
    for (Node y : b)
      if (x != y) sim_.fabric().cut_both(x, y);
}

void Schedules::mend(const std::vector<Node>& a, const std::vector<Node>& b) {
  for (Node x : a)
    for (Node y : b) sim_.fabric().heal(x, y), sim_.fabric().heal(y, x);
}

void Schedules::power_off(Chaos& c, const std::vector<Node>& nodes, Duration low, Duration high) {
  for (Node n : nodes) c.down(n, Crash::power, between(low, high));
}

void Schedules::slow_disks(Chaos& c, const std::vector<Node>& nodes, Duration for_how_long) {
  for (Node n : nodes) sim_.disk(n).faults.slow = static_cast<double>(random_.between(40, 100));
  c.undo_after(for_how_long, [this, nodes] {
    for (Node n : nodes) sim_.disk(n).faults.slow = 1;
  });
}

// 3.1: a primary misses a reserve and cannot tell the control plane, or the control plane's store is an older copy again (5.2); then
// all die that know what was written since, and that reserve is the first one back.
void Schedules::lost_reserve(Chaos& c, bool store_forgets) {
  auto g = some_group();
  if (!g) return;
  std::size_t which = random_.below(g->reserves.size());
  Node lost = g->reserves[which], control = unit_.control_node();
  std::vector<Node> others = g->all();
  std::erase(others, lost);
  cut({g->primary}, {lost});
  cut({store_forgets ? lost : g->primary}, {control});
  auto die = [this, &c, g, others, lost, control, store_forgets, before = unit_.copy_of_store()] {
    // A control plane that has just started gives heads 5 s to come back.
    power_off(c, others, store_forgets ? 10s : 5s, store_forgets ? 12s : 8s);
    if (store_forgets && sim_.up(control) && !c.any_given_up()) {
      c.down(control, Crash::power, 100ms);
      unit_.restore_store(before);
    }
    mend({g->primary, lost}, {lost, control});
  };
  if (!store_forgets) return c.undo_after(between(1600ms, 2600ms), die);
  // Some writes are to be acknowledged by the smaller set.
  traps_.set(c, Path::member_left, between(5ms, 60ms), [die](Node) { die(); });
  c.undo_after(4s, [this, g, lost, control] { mend({g->primary, control}, {lost}); });
}

// 3.2: a member has just joined when all others die, and it has to start from what is on its slow disk.
void Schedules::joiner_alone(Chaos& c) {
  auto g = some_group();
  if (!g) return;
  Node joiner = g->reserves[random_.below(g->reserves.size())];
  std::vector<Node> others = g->all();
  std::erase(others, joiner);
  c.down(joiner, Crash::power, between(800ms, 2000ms));
  sim_.disk(joiner).faults.slow = static_cast<double>(random_.between(30, 100));
  auto die = [this, &c, others, joiner](Node) {
    power_off(c, others, 5s, 8s);
    power_off(c, {joiner}, 50ms, 200ms);
    sim_.disk(joiner).faults.slow = 1;
  };
  traps_.set(c, Path::member_joined, random_.chance(0.5) ? Duration(0) : between(0ms, 10ms), die);
  c.undo_after(5s, [this, joiner] { sim_.disk(joiner).faults.slow = 1; });
}

// 4.3: a primary that only clients could see comes back with a tail, drops it, and loses power at once.
void Schedules::dropped_tail(Chaos& c) {
  auto g = some_group();
  if (!g) return;
  std::vector<Node> rest = g->reserves;
  rest.push_back(unit_.control_node());
  cut({g->primary}, rest);
  c.undo_after(between(1500ms, 3000ms), [this, g, rest] { mend({g->primary}, rest); });
  traps_.set(c, Path::tail_dropped, random_.chance(0.6) ? Duration(0) : between(0ms, 3ms),
             [this, &c](Node n) { power_off(c, {n}, 50ms, 1500ms); });
}

// 2.2: a block is read while its newest version is on no medium yet; then all lose power, and the client that would ask for
// the write again does as well.
void Schedules::seen_before_commit(Chaos& c) {
  auto g = some_group();
  if (!g) return;
  slow_disks(c, g->all(), 1500ms);
  traps_.set(c, Path::reader_waits_for_commit, between(300us, 6ms), [this, &c, g](Node) {
    power_off(c, g->all(), 50ms, 900ms);
    power_off(c, g->clients, 100ms, 300ms);
  });
}

// 6: a client and the old primary see each other and nobody else, while a rival writes to the new one.
void Schedules::two_views(Chaos& c) {
  auto g = some_group();
  if (!g) return;
  std::vector<Node> here = {g->primary}, there;
  for (const auto& t : tenants_)
    if (t->present && t->clients == g->clients) here.push_back(t->present_node);
  for (Node n = 0; n < sim_.nodes(); ++n)
    if (std::find(here.begin(), here.end(), n) == here.end() && !unit_.is_sled(n)) there.push_back(n);
  cut(here, there);
  c.undo_after(between(6s, 9s), [this, here, there] { mend(here, there); });
}

// 4.4: the new primary has a tail that the other reserve lacks and cannot give it to that one. Were it open, what clients repeat would be
// answered from the tail. It dies; so does the other for a moment.
void Schedules::opened_early(Chaos& c) {
  auto g = some_group();
  if (!g) return;
  Node control = unit_.control_node();
  std::vector<Node> lagging(g->reserves.begin() + 1, g->reserves.end());
  cut({g->primary}, lagging);
  slow_disks(c, lagging, 4s);
  auto punctual = [this, lagging, control] { for (Node l : lagging) sim_.fabric().slow(l, control, 0ms); };
  c.undo_after(between(100ms, 900ms), [this, &c, g, lagging, control, punctual] {
    power_off(c, {g->primary}, 7s, 9s);
    mend({g->primary}, lagging);
    for (Node l : lagging) sim_.fabric().slow(l, control, 250ms);  // who has the tail stands first
    traps_.set(c, Path::epoch_start_appended, Duration(0), [this, &c, g, lagging, punctual](Node next) {
      punctual();
      if (next != g->reserves[0]) return;
      cut({next}, lagging);
      c.undo_after(between(50ms, 600ms), [this, &c, g, next, lagging] {
        mend({next}, lagging);
        power_off(c, {next}, 6s, 8s);
        power_off(c, lagging, 50ms, 200ms);
        power_off(c, g->clients, 50ms, 200ms);
        for (Node l : lagging) sim_.disk(l).faults.slow = 1;
      });
    });
    c.undo_after(2s, punctual);
  });
}

// 8.2: a gateway is stopped before it gets a stripe; it wakes up when the stripe's epoch is over and other sleds know it.
void Schedules::late_flush(Chaos& c) {
  auto g = some_group();
  if (!g) return;
  std::vector<Node> sleds = unit_.sled_nodes();
  for (int n = random_.chance(0.5) ? 1 : 2; n > 0 && !sleds.empty(); --n) {
    std::size_t which = random_.below(sleds.size());
    c.pause(sleds[which], between(4s, 8s));
    sleds.erase(sleds.begin() + static_cast<std::ptrdiff_t>(which));
  }
  traps_.set(c, Path::flush_gathered, between(300us, 3ms), [this, &c](Node n) { power_off(c, {n}, 5s, 8s); });
}

// 7.2, 4.3: an index record that nobody else gets.
void Schedules::index_record_lost(Chaos& c) {
  traps_.set(c, Path::index_record_appended, Duration(0), [this, &c](Node n) {
    std::vector<Node> rest = unit_.head_nodes();
    rest.push_back(unit_.control_node());
    cut({n}, rest);
    c.undo_after(between(1500ms, 3000ms), [this, n, rest] { mend({n}, rest); });
  });
}

// 4.4: who is about to take over dies when the others have some of its tail.
void Schedules::two_promotions(Chaos& c) {
  auto g = some_group();
  if (!g) return;
  if (random_.chance(0.5)) {
    cut({g->primary}, {g->reserves.back()});
    c.undo_after(1s, [this, g] { mend({g->primary}, {g->reserves.back()}); });
  }
  c.undo_after(between(50ms, 900ms), [this, &c, g] {
    power_off(c, {g->primary}, 3s, 7s);
    traps_.set(c, Path::epoch_start_appended, between(0ms, 4ms), [this, &c](Node n) { power_off(c, {n}, 300ms, 5s); });
  });
}

// 4.1: the primary is about to let one reserve go when the other, which still sees that one, is about to take over.
void Schedules::shrink_meets_promotion(Chaos& c) {
  auto g = some_group();
  if (!g) return;
  bool first = random_.chance(0.5), primary_is_late = random_.chance(0.75);
  Node control = unit_.control_node(), candidate = g->reserves[first ? 0 : 1], missed = g->reserves[first ? 1 : 0];
  cut({g->primary}, {missed});
  auto mended = [this, g, candidate, missed, control] {
    mend({g->primary}, {candidate, missed, control});
    sim_.fabric().slow(candidate, control, 0ms);
    sim_.fabric().slow(g->primary, control, 0ms);
  };
  c.undo_after(between(primary_is_late ? 1250ms : 600ms, primary_is_late ? 1450ms : 1300ms), [this, &c, g, candidate, control, primary_is_late, mended] {
    cut({g->primary}, {candidate});
    // On the way to the store one proposal is overtaken by the other. A primary whose answers to pings are late has failed for the store.
    if (primary_is_late) sim_.fabric().slow(g->primary, control, 900ms);
    else sim_.fabric().cut(control, g->primary), sim_.fabric().slow(candidate, control, 250ms);
    c.undo_after(primary_is_late ? between(2s, 3s) : between(400ms, 1600ms), mended);
  });
}

// 4.1, 5: the store is restored from before an epoch that its members have begun; none of them is away.
void Schedules::store_behind(Chaos& c) {
  auto g = some_group();
  if (!g) return;
  c.down(g->primary, Crash::process, between(700ms, 1500ms));
  c.undo_after(between(2500ms, 4s), [this, &c] {
    Node control = unit_.control_node();
    if (!sim_.up(control)) return;
    c.down(control, Crash::power, between(50ms, 300ms));
    if (!c.any_given_up()) unit_.set_store_back(random_);
  });
}

// 10.2: a segment is used again; all heads must do with what its log and their images say now.
void Schedules::log_reused(Chaos& c) {
  traps_.set(c, Path::segment_begun, between(0ms, 3ms), [this, &c](Node n) {
    if (random_.chance(0.5)) return power_off(c, {n}, 50ms, 500ms);
    power_off(c, unit_.head_nodes(), 50ms, 500ms);
  });
}

// 10.3: the storm is the workload's (Workload::storm); a head that comes back has to clean its metadata in the midst of it.
void Schedules::trim_storm(Chaos& c) {
  if (random_.chance(0.3)) power_off(c, {unit_.head_nodes()[random_.below(unit_.head_nodes().size())]}, 50ms, 500ms);
}

// 3.5: a reserve is slow for a while. Or: it gets nothing any more when writes are about to go on without it, nobody can tell the store
// so, and all others die.
void Schedules::slow_reserve(Chaos& c) {
  auto g = some_group();
  if (!g) return;
  Node slow = g->reserves[random_.below(g->reserves.size())], control = unit_.control_node();
  slow_disks(c, {slow}, between(3s, 6s));
  if (random_.chance(0.4)) return;
  std::vector<Node> others = g->all();
  std::erase(others, slow);
  traps_.set(c, Path::slow_left, Duration(0), [this, &c, g, slow, control, others](Node primary) {
    cut({primary}, {control, slow});
    c.undo_after(between(150ms, 1200ms), [this, &c, slow, control, primary, others] {
      power_off(c, others, 6s, 8s);
      sim_.disk(slow).faults.slow = 1;
      mend({primary}, {control, slow});
    });
  });
}

// 3.5: a primary's own log is slow; now and then who takes over, or the one that gives its role away, dies at once.
void Schedules::slow_primary(Chaos& c) {
  auto g = some_group();
  if (!g) return;
  slow_disks(c, {g->primary}, between(4s, 7s));
  if (random_.chance(0.4)) return;
  Node next = g->reserves[random_.below(g->reserves.size())];
  bool old_one = random_.chance(0.5);
  traps_.set(c, Path::handed_over, random_.chance(0.5) ? Duration(0) : between(0ms, 30ms), [this, &c, next, old_one](Node n) {
    power_off(c, {old_one ? n : next}, 300ms, 4s);
  });
}

// 6.1: the reserves' answers are under way for longer than the lease that they grant; then they hear nothing of the primary any more.
void Schedules::late_answers(Chaos& c) {
  auto g = some_group();
  if (!g) return;
  Node control = unit_.control_node();
  for (Node r : g->reserves) sim_.fabric().slow(r, g->primary, between(700ms, 1300ms));
  c.undo_after(between(1500ms, 2200ms), [this, &c, g, control] {
    for (Node r : g->reserves) sim_.fabric().cut(g->primary, r);
    cut({g->primary}, {control});
    c.undo_after(between(2500ms, 4s), [this, g, control] {
      for (Node r : g->reserves) sim_.fabric().slow(r, g->primary, 0ms);
      mend({g->primary}, g->reserves);
      mend({g->primary}, {control});
    });
  });
}

// 6.2: who takes over has granted a lease and starts again in the midst of it. The store has heard of the primary's failure before.
void Schedules::restart_in_lease(Chaos& c) {
  auto g = some_group();
  if (!g) return;
  Node control = unit_.control_node();
  cut({g->primary}, {control});
  c.undo_after(between(900ms, 1300ms), [this, &c, g, control] {
    cut({g->primary}, g->reserves);
    c.down(g->reserves[0], Crash::process, between(1ms, 30ms));
    c.undo_after(between(2s, 4s), [this, g, control] {
      mend({g->primary}, g->reserves);
      mend({g->primary}, {control});
    });
  });
}

// 10.2: the log of a head goes bad. In the midst: it is the first one back after a power cut. In what it has to give: it is read.
void Schedules::rotten_log(Chaos& c) {
  Node bad = *damage_.bad_head();
  auto g = some_group(bad);
  if (!g) return;
  if (random_.chance(0.25)) {
    head::RecordPtr r = damage_.rot_header(bad);
    // Only with newer batches behind it can it be told from a torn end.
    if (r) c.undo_after(between(300ms, 900ms), [this, &c, g, bad, r] {
      head::Head* h = unit_.head(kFirstHead + bad - unit_.head_nodes()[0]);
      const head::Replica* replica = h ? h->replica(r->header.vp()) : nullptr;
      if (!replica || replica->durable() < r->lsn() + 20) return;
      for (Node n : g->all()) c.down(n, Crash::power, n == bad ? between(50ms, 300ms) : between(6s, 8s));
    });
    return;
  }
  if (g->primary == bad) return damage_.rot_payloads(bad);
  std::vector<Node> others = g->all();
  std::erase(others, bad);
  traps_.set(c, Path::primary_opened, between(1ms, 200ms), [this, bad](Node n) { if (n == bad) damage_.rot_payloads(bad); });
  power_off(c, {g->primary}, 3s, 5s);
}

// 9.1, 9.3: a head has lost what it held and is built anew from a checkpoint. Newest ones have gone bad on the sleds, now and then all
// of them; now and then who gives the rest dies meanwhile, or who comes back does once more.
void Schedules::lost_disk(Chaos& c) {
  Node bad = *damage_.bad_head();
  auto g = some_group(bad);
  if (!g) return;
  c.undo_after(between(1500ms, 2500ms), [this, &c, g, bad] {  // by then there are checkpoints
    if (!damage_.replace_bad_head(c, between(200ms, 900ms))) return;
    std::size_t newest = random_.chance(0.15) ? ~std::size_t{0} : random_.between(1, 3);
    if (random_.chance(0.8)) traps_.set(c, Path::checkpoint_asked_for, Duration(0), [this, newest](Node) { damage_.rot_checkpoints(newest); });
    if (random_.chance(0.6)) return;
    traps_.set(c, random_.chance(0.5) ? Path::checkpoint_asked_for : Path::image_sent, between(0ms, 20ms), [this, &c, g, bad](Node n) {
      if (random_.chance(0.4)) return c.down(bad, Crash::power, between(50ms, 400ms));
      power_off(c, {n == bad ? g->primary : n}, 300ms, 3s);
    });
  });
}

void Schedules::when(Chaos& c, std::function<bool()> ready, Duration patience, std::function<void()> then) {
  if (ready()) return then();
  if (patience > 0ms) c.undo_after(20ms, [this, &c, ready, patience, then] { when(c, ready, patience - 20ms, then); });
}

// 3.2, 4.1: a reserve stays away until another head has its place, or has caught up as well. Then all that are members lose their power, and who
// is back first, or has been back for a moment, is the one that is none: it has a log of the past, and a designation that calls it required. Now
// and then the store has forgotten the replacement, too (5.2).
void Schedules::replaced_returns(Chaos& c) {
  auto g = some_group();
  if (!g) return;
  Node lost = g->reserves[random_.below(g->reserves.size())], control = unit_.control_node();
  const NodeId its_id = kFirstHead + lost - unit_.head_nodes()[0];
  const bool store_forgets = random_.chance(0.3), caught_up = random_.chance(0.4);  // else the one that is replaced keeps what it has
  auto members = [this, vp = g->vp] {
    auto d = unit_.store().designations.find(vp);
    return d == unit_.store().designations.end() ? control::Designation() : d->second;
  };
  auto die = [this, &c, control, store_forgets, members, before = unit_.copy_of_store()] {
    std::vector<Node> now;
    for (NodeId n : members().members()) now.push_back(unit_.node_of_head(n));
    // A control plane that has just started gives heads 5 s to come back.
    power_off(c, now, store_forgets ? 10s : 6s, store_forgets ? 12s : 8s);
    if (store_forgets && sim_.up(control) && !c.any_given_up()) {
      c.down(control, Crash::power, 100ms);
      unit_.restore_store(before);
    }
  };
  c.down(lost, Crash::power, 25s);
  when(c, [members, its_id, caught_up] { return !members().has_member(its_id) && (!caught_up || members().required.size() >= 3); }, 15s, [this, &c, lost, die, caught_up, store_forgets] {
    Duration until_death = caught_up ? between(50ms, 1200ms) : between(1ms, 150ms), until_return = between(5ms, 1500ms);
    if (store_forgets) until_return += until_death;
    c.undo_after(until_death, die);
    c.undo_after(until_return, [this, lost] { if (!sim_.up(lost)) sim_.restart(lost); });
  });
}

// A store that is set back forgets volumes, whose partitions nobody removes then: what they keep of the metadata portion of a head, which
// cannot grow in most seeds, is never given back. Long seed 682 filled it with them.
bool Schedules::forgotten_fill_a_head() const {
  const head::Options& o = unit_.shape().head;
  const auto most = static_cast<std::ptrdiff_t>(2 * o.meta_bytes / o.meta_segment_bytes);
  for (std::size_t i = 0; i < unit_.head_nodes().size(); ++i) {
    const head::Head* h = unit_.head(kFirstHead + i);
    if (h && std::count_if(made_.begin(), made_.end(), [h](VpId vp) { return h->replica(vp) != nullptr; }) > most) return true;
  }
  return false;
}

// Volumes that nobody uses are made and removed while nodes go and come.
void Schedules::volumes_come_and_go(Chaos& c) {
  control::Control* control = unit_.control();
  if (control == nullptr || forgotten_fill_a_head()) return;
  std::vector<Node> nodes = unit_.sled_nodes();
  nodes.insert(nodes.end(), unit_.head_nodes().begin(), unit_.head_nodes().end());
  std::string name = "passing-" + std::to_string(++passing_);
  auto made = control->volumes().create({.name = name, .bytes = 1 << 20, .layout = {2, 1}, .copies = std::min<std::uint32_t>(3, unit_.shape().heads)});
  for (std::uint32_t i = 0; made.ok() && i < made->vps(); ++i) made_.push_back(make_vp(made->id, i));
  if (sim_.tracing()) sim_.log(name + (made.ok() ? " is made" : ": " + made.status().to_string()));
  for (int i = 0; i < 3; ++i)
    c.undo_after(between(10ms, 2500ms), [this, &c, nodes] { c.down(nodes[random_.below(nodes.size())], random_.chance(0.5) ? Crash::power : Crash::process, between(50ms, 1500ms)); });
  c.undo_after(between(100ms, 2s), [this, name] {
    if (unit_.control()) sim_.world(unit_.control_node()).spawn("remove", remove_volume(unit_, name));
  });
}

void Schedules::heal() {
  control::Control* control = unit_.control();
  for (std::uint64_t i = 1; control && i <= passing_; ++i)
    sim_.world(unit_.control_node()).spawn("remove", remove_volume(unit_, "passing-" + std::to_string(i)));
}

}  // namespace luge::sim
