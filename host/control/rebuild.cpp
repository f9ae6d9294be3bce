#include "control/rebuild.hpp"

#include <algorithm>

#include "control/reports.hpp"
#include "switches/paths.hpp"
#include "switches/switches.hpp"

namespace luge::control {
namespace {

constexpr io::Duration kPatience = std::chrono::seconds(5);

// One answer, checked: null with `error` otherwise.
const fbs::Held* held_in(const Result<wire::Frame>& answer) {
  if (!answer.ok() || answer->kind != wire::Kind::held) return nullptr;
  const auto* m = answer->as<fbs::Held>();
  return m && m->code() == 0 ? m : nullptr;
}

io::Task<void> ask_head(Registry& registry, NodeId id, Findings& out) {
  auto answer = co_await registry.call(id, wire::make_frame(wire::Kind::list_held, [](auto& b) { return fbs::CreateListHeld(b); }), kPatience);
  const fbs::Held* held = held_in(answer);
  if (!held) {
    out.silent.push_back(registry.name(id));
    co_return;
  }
  auto& vps = out.heads[id];
  if (held->vps())
    for (const fbs::HeldVp* row : *held->vps()) {
      if (!row->designation()) continue;
      Designation d = Designation::from(*row->designation());
      if (row->sandbox())
        for (const fbs::SandboxColumn* c : *row->sandbox()) out.columns.insert({d.vp, c->sled(), c->device(), c->column()});
      vps[d.vp] = {std::move(d), row->incarnation()};
    }
}

io::Task<void> ask_sled(Registry& registry, NodeId id, Findings& out) {
  std::pair<std::uint16_t, std::uint32_t> from{0, 0};
  while (true) {
    auto answer = co_await registry.call(id, wire::make_frame(wire::Kind::list_held, [&](auto& b) { return fbs::CreateListHeld(b, from.first, from.second); }), kPatience);
    const fbs::Held* held = held_in(answer);
    if (!held) {
      out.silent.push_back(registry.name(id));
      co_return;
    }
    if (held->columns())
      for (const fbs::HeldColumn* c : *held->columns()) out.columns.insert({c->vp(), id, c->device(), c->column()});
    std::pair<std::uint16_t, std::uint32_t> next{held->next_device(), held->next_column()};
    if (!held->more() || next <= from) co_return;
    from = next;
  }
}

}  // namespace

io::Task<Findings> gather_findings(io::World& world, Registry& registry) {
  Findings out;
  io::TaskGroup group(world);
  for (const Node* n : registry.alive("head")) group.spawn("ask head", ask_head(registry, n->row.id, out));
  for (const Node* n : registry.alive("sled")) group.spawn("ask sled", ask_sled(registry, n->row.id, out));
  co_await group.join();
  co_return out;
}

namespace {

// The greatest that any head holds of each VP, if it is genuine.
std::map<VpId, Designation> greatest(const Registry& registry, const Image& image, const Findings& found, const wire::Verifier* verifier, Plan& plan) {
  std::map<VpId, Designation> out;
  for (const auto& [node, vps] : found.heads)
    for (const auto& [vp, held] : vps) {
      const Designation& d = held.designation;
      if (image.designations.contains(vp) || image.removed(volume_of(vp))) continue;
      Status s = d.well_formed();
      if (s.ok() && verifier) s = verifier->check(image.unit, d);
      if (!s.ok()) {
        plan.waiting = true;
        plan.left.push_back(registry.name(node) + " holds VP " + std::to_string(vp) + ", and it is not taken up: " + s.to_string());
        continue;
      }
      auto it = out.find(vp);
      if (it == out.end() || d.newer_than(it->second)) out[vp] = d;
    }
  return out;
}

// The primary is the first to forget a VP that is removed: if it does not know it, the others have only not heard of the removal yet.
bool was_removed(const Findings& found, const Designation& d) {
  auto primary = found.heads.find(d.primary);
  return primary != found.heads.end() && !primary->second.contains(d.vp);
}

// Heads of the unit, by this store's word or that of others, that have not said what they hold.
std::size_t heads_not_heard(const Registry& registry, const Image& image, const Findings& found, std::vector<std::string>& why) {
  std::set<NodeId> heads;
  for (const auto& [id, n] : registry.nodes())
    if (n.is("head")) heads.insert(id);
  for (const auto& [vp, d] : image.designations)
    for (NodeId n : d.members()) heads.insert(n);
  for (const auto& [node, vps] : found.heads)
    for (const auto& [vp, held] : vps)
      for (NodeId n : held.designation.members()) heads.insert(n);
  std::erase_if(heads, [&](NodeId n) { return found.heads.contains(n); });
  for (NodeId n : heads)
    why.push_back(registry.name(n) + " has not said what it holds: it may be partitions that this older copy of the store has not heard of; run this again when it is up");
  return heads.size();
}

bool unanswered(const Findings& found, const Designation& d) {
  for (NodeId n : d.members()) {
    auto head = found.heads.find(n);
    if (head == found.heads.end() || (!head->second.contains(d.vp) && !broken(Switch::nothing_is_an_answer))) return true;
  }
  return false;
}

std::string free_name(const Image& image, const std::string& wanted, VolumeId id) {
  bool good = check_name(wanted).ok() && !image.find_volume(wanted);
  return good ? wanted : (wanted.empty() ? "volume" : wanted.substr(0, 40)) + "-" + std::to_string(id);
}

// From its partitions, which are all there from the first on.
Volume volume_from(const Image& image, VolumeId id, const std::vector<const Designation*>& parts) {
  Volume v;
  v.id = id;
  v.name = free_name(image, parts.front()->volume, id);
  v.vp_bytes = parts.front()->vp_bytes;
  v.layout = parts.front()->layout;
  v.copies = static_cast<std::uint32_t>(parts.front()->members().size());
  v.bytes = (parts.size() - 1) * v.vp_bytes + parts.back()->blocks * kBlockBytes;
  return v;
}

// Of each volume, the newest attachment that a head has seen.
std::map<VolumeId, std::uint64_t> newest_incarnations(const Findings& found) {
  std::map<VolumeId, std::uint64_t> out;
  for (const auto& [node, vps] : found.heads)
    for (const auto& [vp, held] : vps) out[volume_of(vp)] = std::max(out[volume_of(vp)], held.incarnation);
  return out;
}

// Heads refuse a volume's attachment when they have seen a newer one.
void raise_attachments(const Image& image, const std::map<VolumeId, std::uint64_t>& newest, Change& c) {
  for (const auto& [id, stored] : image.attachments) {
    auto seen = newest.find(id);
    if (seen == newest.end() || seen->second <= stored.incarnation || broken(Switch::incarnations_given_out_again)) continue;
    Attachment a = stored;
    a.incarnation = seen->second;
    c.attachments.push_back(a);
  }
}

// Who serves it, by the word of the attach daemons themselves.
void take_export(const Registry& registry, const Volume& v, std::uint64_t incarnation, Change& c) {
  Attachment a{v.id, incarnation, 0};
  for (const Node* n : registry.alive("attach")) {
    boost::json::value report = parse_report(n->report);
    const boost::json::value* exports = report_member(report, "exports");
    if (!exports || !exports->is_array()) continue;
    for (const boost::json::value& e : exports->get_array()) {
      if (report_string(e, "volume") != v.name) continue;
      const boost::json::value* read_only = report_member(e, "read_only");
      c.exports.push_back({v.id, n->row.id, report_string(e, "nbd"), read_only && read_only->is_bool() && read_only->get_bool()});
      a.holder = n->row.id;
    }
  }
  c.attachments.push_back(a);
}

}  // namespace

Plan plan_rebuild(const Registry& registry, const Image& image, const Findings& found, const wire::Verifier* verifier, bool accept_loss) {
  Plan plan;
  Change& c = plan.change;
  plan.waiting = !found.silent.empty();
  for (const std::string& n : found.silent) plan.left.push_back(n + " did not answer: run this again when it does");
  bool heard_all = !image.older || heads_not_heard(registry, image, found, plan.left) == 0;
  std::map<VolumeId, std::vector<const Designation*>> volumes;
  std::map<VpId, Designation> vps = greatest(registry, image, found, verifier, plan);
  for (const auto& [vp, d] : vps) {
    if (was_removed(found, d) && !accept_loss) {
      heard_all = false;  // what is held of it must not be made anew
      plan.left.push_back("VP " + std::to_string(vp) + " of volume " + d.volume + ": its primary, " + registry.name(d.primary) +
                          ", does not know it: it was removed, or that head has lost its disk; --accept-loss takes it up");
    } else
      volumes[volume_of(vp)].push_back(&d);
  }
  std::map<VolumeId, std::uint64_t> newest = newest_incarnations(found);
  raise_attachments(image, newest, c);
  VolumeId next = image.next_volume;
  std::set<VpId> taken;
  for (const auto& [id, parts] : volumes) {
    next = std::max(next, id + 1);
    bool known = image.volumes.contains(id);
    std::size_t here = known ? image.volumes.at(id).vps() : 0;  // it has got more partitions since this store was copied
    bool whole = here + parts.size() == index_of(parts.back()->vp) + 1 || (known && index_of(parts.back()->vp) < here);
    plan.waiting = plan.waiting || !whole;
    if (!whole || (!known && (parts.front()->vp_bytes == 0 || parts.front()->vp_bytes % kBlockBytes != 0))) {
      plan.left.push_back("volume " + parts.front()->volume + ": " + std::to_string(parts.size()) + " of at least " + std::to_string(index_of(parts.back()->vp) + 1) +
                          " partitions are held by heads that are up: start the others");
      continue;
    }
    for (const Designation* d : parts) {
      taken.insert(d->vp);
      c.swaps.push_back({d->vp, 0});
      c.designations.push_back(*d);
      if (unanswered(found, *d) && !accept_loss && !broken(Switch::restored_store_promotes)) c.doubts.push_back(d->vp);
    }
    if (known) {
      Volume grown = image.volumes.at(id);
      grown.bytes = std::max(grown.bytes, index_of(parts.back()->vp) * grown.vp_bytes + parts.back()->blocks * kBlockBytes);
      if (grown.bytes != image.volumes.at(id).bytes) c.volumes.push_back(grown);
      continue;
    }
    c.volumes.push_back(volume_from(image, id, parts));
    take_export(registry, c.volumes.back(), newest[id], c);
  }
  std::set<VpId> strangers;
  for (const SandboxRow& row : found.columns) {
    if (taken.contains(row.vp)) c.sandboxes.push_back(row);
    else if (!image.designations.contains(row.vp) && !vps.contains(row.vp) && row.vp != 0) strangers.insert(row.vp);
    next = std::max(next, volume_of(row.vp) + 1);
  }
  for (VpId vp : strangers) heard_all = heard_all && !image.volumes.contains(volume_of(vp));
  for (VpId vp : strangers) plan.left.push_back("VP " + std::to_string(vp) + " has columns on sleds, and no head that is up knows it");
  c.next_volume = next;
  c.rebuilt_below = next;
  c.lost = plan.waiting && !accept_loss;
  if (image.older) c.older = !(heard_all && found.silent.empty()) && !accept_loss;
  if (!c.designations.empty()) reached(Path::store_rebuilt);
  return plan;
}

}  // namespace luge::control
