#include "head/latency.hpp"

#include <algorithm>

#include "switches/switches.hpp"

namespace luge::head {

LatencyWatch::LatencyWatch(const LatencyLimits& limits, NodeId self, io::Time now) : limits_(limits), window_begin_(now), last_change_(now) {
  parties_.reserve(kMost);
  parties_.push_back({.node = self, .followed = true});
}

LatencyWatch::Party* LatencyWatch::party(NodeId node) {
  auto it = std::find_if(parties_.begin(), parties_.end(), [&](const Party& p) { return p.node == node; });
  return it == parties_.end() ? nullptr : &*it;
}

void LatencyWatch::follow(NodeId member, Lsn after) {
  Party* p = party(member);
  if (!p && parties_.size() == kMost) return;
  if (!p) p = &parties_.emplace_back(Party{.node = member});
  p->followed = true;
  p->after = after;
}

void LatencyWatch::unfollow(NodeId member) {
  Party* p = party(member);
  if (!p) return;
  p->followed = false;
  p->windows_slow = p->windows_fine = 0;
  p->window.clear();
}

void LatencyWatch::appended(Lsn lsn, io::Time now) {
  if (limits_.factor == 0) return;
  bool enough = open_.size() + parties_[0].window.size() >= limits_.samples;
  if (enough && now - last_sample_ < kSpacing) return;
  if (open_.size() == kMostOpen) open_.pop_front();  // nobody judges while the control plane is away
  last_sample_ = now;
  open_.push_back({lsn, now, {}});
  open_.back().took.fill(io::Duration(-1));
}

void LatencyWatch::durable(NodeId who, Lsn lsn, io::Time now) {
  Party* p = party(who);
  if (!p) return;
  auto place = static_cast<std::size_t>(p - parties_.data());
  // Newest first: those before the first that has been answered have been, too.
  auto end = std::upper_bound(open_.begin(), open_.end(), lsn, [](Lsn l, const Sample& s) { return l < s.lsn; });
  while (end != open_.begin() && (--end)->took[place] < io::Duration(0)) end->took[place] = now - end->at;
}

// In the order of the appends; one without an answer for long counts with what it has taken so far.
void LatencyWatch::take_complete(io::Time now) {
  while (!open_.empty()) {
    const Sample& s = open_.front();
    bool old = now - s.at >= kOldest;
    for (std::size_t i = 0; !old && i < parties_.size(); ++i)
      if (awaits(parties_[i], s) && s.took[i] < io::Duration(0)) return;
    for (std::size_t i = 0; i < parties_.size(); ++i)
      if (awaits(parties_[i], s)) parties_[i].window.push_back(s.took[i] < io::Duration(0) ? now - s.at : s.took[i]);
    open_.pop_front();
  }
}

bool LatencyWatch::slower(io::Duration a, io::Duration than) const {
  bool by_factor = a > than * static_cast<std::int64_t>(limits_.factor) || broken(Switch::latency_not_relative);
  bool by_floor = a > than + limits_.floor || broken(Switch::latency_floor_ignored);
  return by_factor && by_floor;
}

bool LatencyWatch::fine(io::Duration a, io::Duration than) const {
  return a < than * static_cast<std::int64_t>(limits_.back) || a < than + limits_.floor / 2;
}

namespace {

io::Duration median(std::vector<io::Duration>& v) {
  auto middle = v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2);
  std::nth_element(v.begin(), middle, v.end());
  return *middle;
}

}  // namespace

void LatencyWatch::end_window(const wire::Designation& d, io::Time now) {
  Party& own = parties_[0];
  if (now - window_begin_ < limits_.window || own.window.size() < limits_.samples) return;
  window_begin_ = now;
  own.median = median(own.window);
  bool compared = false, slower_than_all = true;
  for (std::size_t i = 1; i < parties_.size(); ++i) {
    Party& p = parties_[i];
    if (p.followed && p.window.size() >= limits_.samples) {
      p.median = median(p.window);
      // Nobody waits for who is not required: one that stood still is not to leave again, as soon as it has joined, for the time of that.
      bool counts = d.requires_node(p.node) && slower(p.median, own.median);
      p.windows_slow = counts ? p.windows_slow + 1 : 0;
      p.windows_fine = fine(p.median, own.median) ? p.windows_fine + 1 : 0;
      compared = true;
      slower_than_all = slower_than_all && slower(own.median, p.median);
    }
    p.window.clear();
  }
  own.windows_slow = compared && slower_than_all ? own.windows_slow + 1 : 0;
  own.window.clear();
}

std::optional<LatencyWatch::Change> LatencyWatch::hand_over(const wire::Designation& d) const {
  const Party& own = parties_[0];
  if (own.windows_slow < limits_.windows || broken(Switch::slow_primary_kept)) return std::nullopt;
  const Party* best = nullptr;
  for (const Party& p : parties_)
    if (&p != &own && p.followed && !p.slow && d.requires_node(p.node) && (!best || p.median < best->median)) best = &p;
  if (!best) return std::nullopt;
  return Change{Kind::hand_over, best->node};
}

// Only if writes get faster by it: with all that are slow away there must still be enough.
std::optional<LatencyWatch::Change> LatencyWatch::leave(const wire::Designation& d) const {
  const Party* slowest = nullptr;
  std::size_t fast = 0;
  for (const Party& p : parties_) {
    if (!d.requires_node(p.node)) continue;
    fast += p.followed && p.windows_slow == 0 && !p.slow;
    bool leaves = &p != &parties_[0] && !p.slow && p.windows_slow >= limits_.windows;
    if (leaves && (!slowest || p.median > slowest->median)) slowest = &p;
  }
  if (!slowest || (fast < d.min_copies && !broken(Switch::slow_below_min_copies))) return std::nullopt;
  return Change{Kind::leave, slowest->node};
}

std::optional<LatencyWatch::Change> LatencyWatch::judge(const wire::Designation& d, io::Time now) {
  take_complete(now);
  end_window(d, now);
  if (now - last_change_ < limits_.gap) return std::nullopt;
  auto change = hand_over(d);
  if (!change) change = leave(d);
  // Where nothing is written nothing says that it is slow, and nobody waits for it.
  bool idle = open_.empty() && now - last_sample_ >= limits_.gap;
  for (const Party& p : parties_)
    if (!change && p.slow && p.followed && (idle || p.windows_fine >= limits_.windows) && !broken(Switch::slow_never_restored))
      change = Change{Kind::back, p.node};
  if (!change) return std::nullopt;
  last_change_ = now;
  Party* p = party(change->node);
  if (change->kind != Kind::hand_over) p->slow = change->kind == Kind::leave;
  for (Party& each : parties_) each.windows_slow = each.windows_fine = 0;
  return change;
}

bool LatencyWatch::slow(NodeId member) const {
  const Party* p = party(member);
  return p && p->slow;
}

io::Duration LatencyWatch::latency(NodeId who) const {
  const Party* p = party(who);
  return p ? p->median : io::Duration(0);
}

}  // namespace luge::head
