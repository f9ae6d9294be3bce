#include "control/loss.hpp"

#include <algorithm>

namespace luge::control {
namespace {

std::string describe(const Registry& registry, const Reach& m) {
  std::string s = registry.name(m.node);
  if (!m.up) return s + (m.last == 0 ? " (down)" : " (down; reached LSN " + std::to_string(m.last) + ")");
  s += m.suspect ? " (" + (m.reason.empty() ? std::string("suspect") : m.reason) + "; " : " (";
  if (m.last == 0) return s + "holds nothing)";
  return s + "reaches LSN " + std::to_string(m.last) + ", committed to " + std::to_string(m.commit) + ")";
}

std::string list(const Registry& registry, const std::vector<const Reach*>& members) {
  std::string s;
  for (const Reach* m : members) s += (s.empty() ? "" : ", ") + describe(registry, *m);
  return s;
}

}  // namespace

std::vector<Reach> reach_of(const Registry& registry, const Reports& reports, const Designation& d) {
  std::vector<Reach> out;
  for (NodeId n : d.members()) {
    Reach r;
    r.node = n;
    r.required = d.requires_node(n);
    const Node* node = registry.find(n);
    r.unknown = node != nullptr && node->unknown();
    bool there = node != nullptr && node->alive && node->connected();
    reports.each(d.vp, [&](NodeId from, bool fresh, const boost::json::value& e) {
      if (from != n) return;
      r.last = report_number(e, "lsn");
      r.commit = report_number(e, "commit");
      if (!fresh || !there) return;
      r.up = true;
      r.state = report_string(e, "state");
      r.reason = report_string(e, "reason");
      r.suspect = r.state == "suspect";
      // One that is empty opens nothing that has been open.
      r.serving = r.state == "open" || r.state == "waiting" || (r.state == "opening" && (r.last != 0 || !d.opened));
    });
    r.unknown = r.unknown || (there && !r.up);
    out.push_back(std::move(r));
  }
  return out;
}

bool closed(const std::vector<Reach>& members) {
  return std::none_of(members.begin(), members.end(), [](const Reach& m) { return m.complete() || m.serving || (m.required && m.unknown); });
}

std::string why_closed(const Registry& registry, const std::vector<Reach>& members) {
  std::vector<const Reach*> openers, bad, others;
  for (const Reach& m : members) (!m.required ? others : m.suspect ? bad : openers).push_back(&m);
  std::string s = "no head that holds everything is up";
  if (!openers.empty()) s += "; it opens when one of these is back: " + list(registry, openers);
  if (!bad.empty()) s += "; damaged: " + list(registry, bad);
  if (!others.empty()) s += "; behind: " + list(registry, others);
  return s + "; to go on without what is missing: luge volume recover --accept-loss";
}

Status check_loss(const Registry& registry, const Designation& d, const std::vector<Reach>& members, NodeId head, bool force) {
  auto it = std::find_if(members.begin(), members.end(), [&](const Reach& m) { return m.node == head; });
  std::string vp = "VP " + std::to_string(index_of(d.vp));
  if (it == members.end()) {
    std::string names;
    for (const Reach& m : members) names += (names.empty() ? "" : ", ") + registry.name(m.node);
    return Status(Code::invalid, registry.name(head) + " has no replica of " + vp + "; these have: " + names);
  }
  if (!it->up) return Status(Code::unavailable, registry.name(head) + " is not up, or has not said yet what it holds of " + vp + ": start it");
  if (it->last == 0) return Status(Code::conflict, registry.name(head) + " holds nothing of " + vp + ": choose a head that reaches further, or remove the volume");
  if (force) return Status();
  for (const Reach& m : members)
    if (m.complete())
      return Status(Code::conflict, registry.name(m.node) + " holds everything of " + vp + " and is up: it opens by itself, with no loss (" +
                                        (m.reason.empty() ? "state " + m.state : m.reason) + ")");
  return Status();
}

Designation accept_loss(const Designation& d, NodeId head, std::uint64_t random_history, std::uint64_t random_epoch) {
  Designation next = d;
  // Beyond those that are left to the history before; a random one, so that two copies of a store that both accept a loss do not give
  // out one epoch twice.
  next.epoch = ((d.epoch >> wire::kHistoryEpochBits) + 1) << wire::kHistoryEpochBits | (random_epoch & ((Epoch{1} << wire::kHistoryEpochBits) - 1));
  next.revision = d.revision + 1;
  next.opened = true;  // the head holds something
  next.history = random_history | 1;
  if (next.history == d.history) next.history += 2;
  next.primary = head;
  next.reserves.clear();
  for (NodeId n : d.members())
    if (n != head) next.reserves.push_back(n);
  next.required = {head};
  return next;
}

}  // namespace luge::control
