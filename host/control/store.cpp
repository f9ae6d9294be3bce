#include "control/store.hpp"

#include <algorithm>

#include "base/check.hpp"
#include "switches/paths.hpp"
#include "switches/switches.hpp"

namespace luge::control {
namespace {
constexpr VolumeId kIdsForAChange = 1024;  // of 2^48
constexpr std::uint64_t kIncarnationsLeftOut = 1 << 20;  // of 2^32, beyond what the sequence tells of
}

const Volume* Image::find_volume(const std::string& name) const {
  for (const auto& [id, v] : volumes)
    if (!v.removing && v.name == name) return &v;
  return nullptr;
}

void apply(Image& image, const Change& c) {
  if (c.next_volume) image.next_volume = *c.next_volume;
  for (const Volume& v : c.volumes) image.volumes[v.id] = v;
  for (VolumeId id : c.erase_volumes) {
    image.volumes.erase(id);
    image.attachments.erase(id);
    image.exports.erase(id), image.incoming.erase(id);
  }
  for (const Designation& d : c.designations) image.designations[d.vp] = d;
  for (VpId vp : c.erase_designations) image.designations.erase(vp);
  for (const Attachment& a : c.attachments) image.attachments[a.volume] = a;
  for (const Export& e : c.exports) image.exports[e.volume] = e;
  for (const Export& e : c.incoming) image.incoming[e.volume] = e;
  for (VolumeId id : c.erase_exports) image.exports.erase(id), image.incoming.erase(id);
  for (VolumeId id : c.erase_incoming) image.incoming.erase(id);
  for (const NodeRow& n : c.nodes) image.nodes[n.id] = n;
  for (const auto& [node, r] : c.recollections) image.recollections[node] = r;
  for (const Removal& r : c.removals) image.removals.insert(r);
  for (const Removal& r : c.erase_removals) image.removals.erase(r);
  for (const SandboxRow& s : c.sandboxes) image.sandboxes.insert(s);
  for (VpId vp : c.erase_sandboxes) image.sandboxes.erase(vp);
  if (c.incarnation) image.incarnation = *c.incarnation;
  if (c.sequence) image.sequence = *c.sequence;
  if (c.lost) image.lost = *c.lost;
  if (c.older) image.older = *c.older;
  if (c.forgotten_from) image.forgotten_from = *c.forgotten_from;
  if (c.rebuilt_below) image.rebuilt_below = *c.rebuilt_below;
  if (c.incarnations_above) image.incarnations_above = *c.incarnations_above;
  for (VpId vp : c.doubts) image.doubted.insert(vp);
  for (VpId vp : c.erase_doubts) image.doubted.erase(vp);
  for (VpId vp : c.erase_designations) image.doubted.erase(vp);
}

Status Store::commit(const Change& asked) {
  Change change = asked;
  for (const Change::Swap& s : change.swaps) {
    auto it = image_.designations.find(s.vp);
    Revision stored = it == image_.designations.end() ? 0 : it->second.revision;
    if (stored != s.expected)
      return Status(Code::conflict, "VP " + std::to_string(s.vp) + " is at revision " + std::to_string(stored) +
                                        ", not " + std::to_string(s.expected));
  }
  bool counts = !change.designations.empty() || !change.erase_designations.empty() || change.incarnation ||
                (!change.attachments.empty() && !broken(Switch::incarnations_given_out_again));
  if (counts) change.sequence = std::max(image_.sequence, asked.sequence.value_or(0)) + 1;
  for (Designation& d : change.designations) sign(d, change);
  if (Status s = persist(change); !s.ok()) return s;
  apply(image_, change);
  for (const Designation& d : change.designations) witnessed(Fact::stored, d.vp, d.epoch, d.revision);
  // Behind the change: a mark that is ahead of its store would tell of a copy where there is none.
  return counts ? remember({image_.incarnation, image_.sequence}) : Status();
}

// Whose it is, of which volume, and by whose word: not the proposer's to say.
void Store::sign(Designation& d, const Change& change) const {
  if (!signer_) return;
  d.unit = image_.unit;
  auto named = [&](const Volume& v) {
    if (v.id != volume_of(d.vp)) return;
    d.volume = v.name;
    d.vp_bytes = v.vp_bytes;
  };
  if (auto it = image_.volumes.find(volume_of(d.vp)); it != image_.volumes.end()) named(it->second);
  for (const Volume& v : change.volumes) named(v);
  d.signature = signer_->sign(d);
}

Status Store::sign_with(std::shared_ptr<const wire::Signer> signer) {
  signer_ = std::move(signer);
  auto verifier = wire::Verifier::make(signer_->public_key());
  if (!verifier.ok()) return verifier.status();
  Change c;
  for (const auto& [vp, d] : image_.designations)
    if (!verifier->check(image_.unit, d).ok()) c.designations.push_back(d);
  return c.designations.empty() ? Status() : commit(c);
}

Status Store::doubt_everything(std::uint64_t next, const StoreMark& newest, bool late) {
  Change c;
  c.incarnation = next;
  c.sequence = newest.sequence;
  c.older = true;
  // A volume counts once at least in the sequence; ids whose volume could not be stored do not. What is out of the question for another
  // restore of the same copy, too, which begins from the same id and a later sequence.
  VolumeId given_out = (std::max(newest.sequence, image_.sequence) - image_.sequence + 64) * kIdsForAChange;
  c.forgotten_from = image_.rebuilt_below ? std::min(image_.forgotten_from, image_.next_volume) : image_.next_volume;
  c.next_volume = c.rebuilt_below = image_.next_volume + given_out;
  if (!broken(Switch::incarnations_given_out_again)) c.incarnations_above = unused_incarnations(newest);
  for (const auto& [vp, d] : image_.designations) c.doubts.push_back(vp);
  // Some of them are of after the restore, and say nothing of what was forgotten before it.
  if (late && !image_.older)
    for (const auto& [node, r] : image_.recollections) c.recollections.emplace_back(node, 0);
  reached(Path::store_doubted);
  return commit(c);
}

// The upper half of an incarnation counts. Each attachment counts in the sequence, too, so the later store has given out no more than it is
// ahead, and what it did after the last that anybody was told of. Another restore of the same copy begins from a later sequence. The
// attachments themselves stay as they are: who has one gives it back by its incarnation.
std::uint64_t Store::unused_incarnations(const StoreMark& newest) const {
  std::uint64_t greatest = image_.incarnations_above;
  for (const auto& [id, a] : image_.attachments) greatest = std::max(greatest, a.incarnation);
  std::uint64_t ahead = std::max(newest.sequence, image_.sequence) - image_.sequence;
  return ((greatest >> 32) + ahead + kIncarnationsLeftOut) << 32;
}

// And a number that no other history of this store has given out: after a restore of an old copy two attachments must not share a
// session, whose duplicate table would take one's writes for the other's.
std::uint64_t Store::next_incarnation(const Attachment& before, std::uint64_t random) const {
  std::uint64_t passed = std::max(before.incarnation, image_.incarnations_above);
  return ((passed >> 32) + 1) << 32 | (random & 0xffffffff);
}

Status Store::clear_doubt(VpId vp) {
  Change c;
  c.erase_doubts.push_back(vp);
  return commit(c);
}

Result<VolumeId> Store::take_volume_id() {
  Change c;
  VolumeId id = image_.next_volume;
  c.next_volume = id + 1;
  if (Status s = commit(c); !s.ok()) return s;
  return id;
}

SwapAnswer Store::propose(NodeId source, Revision expected, const Designation& proposed) {
  auto it = image_.designations.find(proposed.vp);
  if (it == image_.designations.end())
    return {Status(Code::not_found, "no VP " + std::to_string(proposed.vp) + " in this unit"), {}};
  if (it->second.revision != expected) {
    // A change within an epoch comes behind the next epoch, or a promotion behind a change that its candidate has not heard of.
    if (proposed.epoch != it->second.epoch) reached(Path::swaps_collide);
    return {Status(Code::conflict, "VP " + std::to_string(proposed.vp) + " is at revision " +
                                       std::to_string(it->second.revision) + ", not " + std::to_string(expected)),
            it->second};
  }
  // No word of what is stored: who asks must not take it for the newest.
  if (doubted(proposed.vp) && !broken(Switch::restored_store_promotes))
    return {Status(Code::unavailable, "the store was restored from an older copy: nothing is changed before every head of the VP has said what it knows"), {}};
  Status status = check_proposal(it->second, proposed, source);
  if (status.ok() && proposed.blocks != it->second.blocks) {  // only as large as the volume has been made
    auto v = image_.volumes.find(volume_of(proposed.vp));
    if (v == image_.volumes.end() || index_of(proposed.vp) >= v->second.vps() || proposed.blocks != v->second.blocks_of(index_of(proposed.vp)))
      status = Status(Code::invalid, "VP " + std::to_string(proposed.vp) + " is not to have " + std::to_string(proposed.blocks) + " blocks");
  }
  if (status.ok()) {
    Change c;
    c.swaps.push_back({proposed.vp, expected});
    c.designations.push_back(proposed);
    c.designations.back().opened |= it->second.opened;  // it is not for a proposal to forget
    status = commit(c);
  }
  return {status, image_.designations.at(proposed.vp)};
}

// A partition that is larger than this copy of the store knows: its volume has been made larger since, and is as large as what is signed says.
bool Store::size_fits(const Designation& found, const Designation& stored, Change& c) const {
  if (found.blocks == stored.blocks) return true;
  auto v = image_.volumes.find(volume_of(found.vp));
  if (found.blocks < stored.blocks || v == image_.volumes.end()) return false;
  Volume grown = v->second;
  if (found.blocks <= grown.blocks_of(index_of(found.vp))) return true;
  if (found.blocks > grown.vp_bytes / kBlockBytes || index_of(found.vp) + 1 != grown.vps()) return false;
  grown.bytes = index_of(found.vp) * grown.vp_bytes + found.blocks * kBlockBytes;
  c.volumes.push_back(grown);
  return true;
}

Status Store::adopt(const Designation& found) {
  auto it = image_.designations.find(found.vp);
  if (it == image_.designations.end())
    return Status(Code::not_found, "no VP " + std::to_string(found.vp) + " in this unit");
  const Designation& stored = it->second;
  if (!found.newer_than(stored)) return Status(Code::conflict, "what is stored is as new");
  if (Status s = found.well_formed(); !s.ok()) return s;
  if (signer_) {
    auto verifier = wire::Verifier::make(signer_->public_key());
    if (Status s = verifier.ok() ? verifier->check(image_.unit, found) : verifier.status(); !s.ok()) return s;
  }
  // A new history begins with a new epoch, by the word of an operator that this copy of the store has not heard.
  bool another_history = found.history != stored.history && (found.epoch == stored.epoch || found.made_anew_beside(stored));
  Change c;
  if (another_history || found.layout != stored.layout || !size_fits(found, stored, c))
    return Status(Code::diverged, "VP " + std::to_string(found.vp) + ": another history, layout or size");
  c.swaps.push_back({found.vp, stored.revision});
  c.designations.push_back(found);
  return commit(c);
}

Status check_proposal(const Designation& stored, const Designation& proposed, NodeId source) {
  auto refuse = [&](const std::string& why) {
    return Status(Code::invalid, "node " + std::to_string(source) + " proposes for VP " +
                                     std::to_string(stored.vp) + ": " + why);
  };
  if (broken(Switch::anybody_stands) && proposed.epoch > stored.epoch) return proposed.well_formed();
  if (!stored.has_member(source)) return refuse("it is no member");
  if (Status s = proposed.well_formed(); !s.ok()) return refuse(s.text());
  if (proposed.epoch < stored.epoch)
    return refuse("epoch " + std::to_string(proposed.epoch) + " is below " + std::to_string(stored.epoch));
  if (proposed.revision <= stored.revision) return refuse("the revision does not rise");
  if (proposed.history != stored.history || proposed.layout != stored.layout || proposed.blocks < stored.blocks || (proposed.blocks != stored.blocks && proposed.epoch != stored.epoch) ||
      proposed.min_copies != stored.min_copies)
    return refuse("history, layout, size and min_copies cannot be changed by a proposal");
  // A new epoch may begin with one complete member (protocol 4.2); within an epoch nobody is let go below min_copies.
  if (proposed.epoch == stored.epoch && proposed.required.size() < std::min<std::size_t>(stored.min_copies, stored.required.size()) &&
      !broken(Switch::slow_below_min_copies))
    return refuse("required would shrink below min_copies");
  if (proposed.epoch == stored.epoch) {
    if (proposed.primary != stored.primary && !broken(Switch::epoch_not_raised)) return refuse("another primary needs another epoch");
    if (source != stored.primary) return refuse("within an epoch only its primary proposes");
    for (NodeId n : stored.required)
      if (!proposed.has_member(n)) return refuse("node " + std::to_string(n) + " holds acknowledged writes: it must leave required before another takes its place");
    for (NodeId n : proposed.required)
      if (!stored.has_member(n) && !broken(Switch::replacement_joins_at_once))
        return refuse("node " + std::to_string(n) + " is new: it joins required by a later revision, after it has caught up");
    if (proposed.members().size() != stored.members().size()) return refuse("the number of replicas cannot be changed");
    return Status();
  }
  for (NodeId n : proposed.members())
    if (!stored.has_member(n)) return refuse("node " + std::to_string(n) + " is no member: an epoch begins with those there are");
  if (!stored.requires_node(proposed.primary))
    return refuse("node " + std::to_string(proposed.primary) + " is not in required and may lack acknowledged writes");
  for (NodeId n : proposed.required)
    if (!stored.requires_node(n))
      return refuse("node " + std::to_string(n) + " joins required only by a revision, after it has caught up");
  return Status();
}

MemoryStore::MemoryStore(std::shared_ptr<Image> durable, std::shared_ptr<StoreMark> mark) : durable_(std::move(durable)), mark_(std::move(mark)) {
  image_ = *durable_;
  for (const auto& [vp, d] : image_.designations) witnessed(Fact::found_stored, vp, d.epoch, d.revision);
  if (!mark_) mark_ = std::make_shared<StoreMark>(StoreMark{image_.incarnation, image_.sequence});
  if (!behind(*mark_)) return;
  Status s = doubt_everything(mark_->incarnation + 1, *mark_, false);
  LUGE_CHECK(s.ok());
}

std::shared_ptr<Image> MemoryStore::make_image(std::uint64_t unit, std::uint64_t incarnation) {
  auto image = std::make_shared<Image>();
  image->unit = unit;
  image->incarnation = incarnation;
  return image;
}

Status MemoryStore::persist(const Change& change) {
  if (broken(Switch::store_loses_last_transaction)) {
    if (withheld_) apply(*durable_, *withheld_);
    withheld_ = change;
    return Status();
  }
  apply(*durable_, change);
  return Status();
}

Status MemoryStore::remember(const StoreMark& mark) {
  if (!broken(Switch::store_loses_last_transaction)) *mark_ = mark;
  return Status();
}

}  // namespace luge::control
