#include "sim/cluster/judge.hpp"

#include <algorithm>

namespace luge::sim {
namespace {

constexpr std::uint64_t kMinCopies = 2;  // of every volume (control::Volumes)

}  // namespace

void Judge::witness(Fact fact, VpId vp, std::uint64_t value, std::uint64_t more) {
  auto n = sim_.current();
  std::string name = "VP " + std::to_string(vp);
  if (fact == Fact::acknowledged && value < kMinCopies)
    broken("a write of " + name + " was acknowledged with " + std::to_string(value) + " required copies");
  if (fact == Fact::stored || fact == Fact::found_stored) return store_holds(fact, vp, value, more);
  if (fact == Fact::opened) return leases_have_run_out(vp, value);
  if (fact == Fact::chunk_missed && n) return chunk_was_lost(*n, {vp, more & 0xffffffffffff, value}, static_cast<std::uint32_t>(more >> 48));
  if (fact == Fact::acknowledged || !n || damage_.bad(*n)) return;  // a disk that forgets breaks its owner's promises
  std::string who = sim_.name(*n);
  std::pair<Node, VpId> replica{*n, vp};
  Epoch& promised = promised_[replica];
  switch (fact) {
    case Fact::epoch_adopted:
    case Fact::sled_fenced: promised = std::max(promised, value); return;
    case Fact::record_taken:
    case Fact::sled_changed:
      if (value < promised)
        broken(who + (fact == Fact::record_taken ? " took a record" : " changed a slot or column") + " of " + name + " under epoch " +
               std::to_string(value) + " though it had promised epoch " + std::to_string(promised));
      return;
    case Fact::record_appended: dropped_.erase(replica); return;
    case Fact::tail_dropped: dropped_[replica] = {value, more}; return;
    case Fact::rebuild_begun: rebuilt_.insert(replica), dropped_.erase(replica); return;
    case Fact::image_taken: rebuilt_.erase(replica), dropped_.erase(replica); return;
    case Fact::recovered:
      if (auto it = dropped_.find(replica); it != dropped_.end() && value > it->second.beyond && more < it->second.epoch)
        broken(who + " came back with LSN " + std::to_string(value) + " of epoch " + std::to_string(more) + " of " + name +
               " though it had dropped all beyond " + std::to_string(it->second.beyond) + " in epoch " + std::to_string(it->second.epoch));
      return;
    case Fact::found_suspect:
      if (!damage_.reckless() && !damage_.excused(*n) && !rebuilt_.contains(replica))
        broken(who + " cannot trust its replica of " + name + " after a restart though its disk did nothing wrong" + (damage_.bad_head() == *n ? " so far" : ""));
      return;
    case Fact::opened:
    case Fact::stored:
    case Fact::found_stored:
    case Fact::chunk_missed:
    case Fact::acknowledged: return;
  }
}

void Judge::store_holds(Fact fact, VpId vp, Epoch epoch, Revision revision) {
  if (set_backs_ != unit_.set_backs()) stored_.clear(), set_backs_ = unit_.set_backs();
  auto& newest = stored_[vp];
  if (fact == Fact::found_stored && std::pair(epoch, revision) < newest)
    broken("the store has forgotten revision " + std::to_string(newest.second) + " of VP " + std::to_string(vp));
  newest = std::max(newest, std::pair(epoch, revision));
}

// A lease only gets shorter from here on: its owner's epoch is fenced at one of those that granted it.
void Judge::leases_have_run_out(VpId vp, Epoch epoch) {
  for (head::Head* h : unit_.heads()) {
    auto d = h ? h->digest(vp) : std::nullopt;
    if (d && d->lease && d->epoch < epoch)
      broken("VP " + std::to_string(vp) + " was opened in epoch " + std::to_string(epoch) + " while another primary had a lease in epoch " + std::to_string(d->epoch));
  }
}

bool Judge::may_lack(const head::StripeRow& row, std::uint32_t chunk) const {
  return damage_.spoilt(row.id, chunk) || damage_.bad(unit_.node_of_sled(row.places[chunk].sled()));
}

// The read goes on with the other chunks, and nobody would hear of it.
void Judge::chunk_was_lost(Node head, StripeId stripe, std::uint32_t chunk) {
  head::Head* h = unit_.heads()[head - unit_.head_nodes()[0]];
  const head::Replica* r = h ? h->replica(stripe.vp) : nullptr;
  if (r == nullptr) return;
  for (const auto& [number, row] : r->stripes())
    if (row.id == stripe && row.places[chunk].sled() != 0 && !may_lack(row, chunk))
      broken("sled " + std::to_string(row.places[chunk].sled()) + " lacks chunk " + std::to_string(chunk) + " of stripe " + to_string(stripe) +
             " though nothing has happened to it");
}

namespace {

std::uint64_t mix(std::uint64_t h, std::uint64_t v) {
  h = (h ^ v) * 0x9e3779b97f4a7c15;
  return h ^ h >> 29;
}

// Of what is committed: the stripes that are still needed, and the records whose data only logs have.
std::uint64_t digest(const head::Replica& r) {
  LUGE_CHECK(r.index().digest() == r.index().digest_of_entries());
  std::uint64_t h = r.index().digest();
  for (const auto& [number, row] : r.stripes()) {
    if (row.live_blocks == 0) continue;
    h = mix(mix(mix(mix(h, number), row.id.epoch), row.id.counter), row.live_blocks);
    for (const fbs::ChunkPlace& p : row.places) h = mix(mix(mix(h, p.sled()), p.column()), p.slot() + p.generation());
  }
  for (const auto& [lsn, record] : r.records())
    if (lsn <= r.commit() && record->kind() == head::RecordKind::data && record->live != 0)
      h = mix(mix(mix(h, lsn), record->epoch()), record->header.crc());
  return h;
}

}  // namespace

std::string Judge::disagreement() const {
  for (const auto& [vp, d] : unit_.store().designations) {
    const head::Replica* first = nullptr;
    for (NodeId n : d.required) {
      head::Head* h = unit_.head(n);
      const head::Replica* r = h ? h->replica(vp) : nullptr;
      std::string who = "VP " + std::to_string(vp) + " on head " + std::to_string(n);
      if (!r) return who + ": no replica";
      if (r->designation.epoch != d.epoch)
        return who + ": epoch " + std::to_string(r->designation.epoch) + ", the store says " + std::to_string(d.epoch);
      if (r->suspect) return who + ": suspect";
      if (!first) first = r;
      if (first->commit() != r->commit() || digest(*first) != digest(*r))
        return who + ": commit " + std::to_string(r->commit()) + " digest " + std::to_string(digest(*r)) + ", head " +
               std::to_string(d.required[0]) + ": commit " + std::to_string(first->commit()) + " digest " + std::to_string(digest(*first));
    }
  }
  return "";
}

// Rot in a log is made good by the others when it is come by.
std::string Judge::not_in_log() const {
  if (damage_.reckless()) return "";
  std::map<NodeId, Media::Logged> logged;
  for (const auto& [vp, d] : unit_.store().designations)
    for (NodeId n : d.required) {
      head::Head* h = damage_.bad(unit_.node_of_head(n)) ? nullptr : unit_.head(n);
      const head::Replica* r = h ? h->replica(vp) : nullptr;
      if (r == nullptr) continue;
      if (!logged.contains(n)) {
        logged[n] = media_.logged_data(n);
        if (!logged[n].damage.empty()) return "the log on the disk of head " + std::to_string(n) + " is damaged though nothing has happened to it: " + logged[n].damage;
      }
      for (const auto& [lsn, record] : r->records())
        if (lsn <= r->commit() && record->kind() == head::RecordKind::data && record->live != 0 && !logged[n].records.contains({vp, lsn, record->header.crc()}))
          return "VP " + std::to_string(vp) + " on head " + std::to_string(n) + ": the log on its disk lacks the record " + to_string(record->point()) + " or blocks of it";
    }
  return "";
}

template <class F>
void Judge::each_live_stripe(F f) const {
  for (const auto& [vp, d] : unit_.store().designations) {
    head::Head* h = unit_.head(d.primary);
    const head::Replica* r = h ? h->replica(vp) : nullptr;
    if (r == nullptr) continue;
    for (const auto& [number, row] : r->stripes())
      if (row.live_blocks != 0 && !f(row)) return;
  }
}

std::string Judge::bad_stripe() const {
  std::string bad;
  each_live_stripe([&](const head::StripeRow& row) {
    if (auto b = media_.check(row, [&](std::uint32_t i) { return may_lack(row, i); }, damage_.reckless())) bad = *b;
    return bad.empty();
  });
  return bad;
}

// A device may be out although what lies on its medium is good: it has lied about its tables and was left out at the start.
bool Judge::device_serves(const fbs::ChunkPlace& place) const {
  const control::Node* sled = unit_.control() ? unit_.control()->registry().find(place.sled()) : nullptr;
  if (sled == nullptr) return true;
  return std::none_of(sled->devices.begin(), sled->devices.end(), [&](const control::DeviceInfo& d) {
    return d.index == place.device() && d.state != "ok" && d.state != "full";
  });
}

bool Judge::can_lose(const std::vector<Node>& sleds) const {
  bool can = true;
  each_live_stripe([&](const head::StripeRow& row) {
    std::uint32_t left = 0;
    for (std::uint32_t i = 0; i < row.places.size(); ++i) {
      if (row.places[i].sled() == 0) continue;
      Node n = unit_.node_of_sled(row.places[i].sled());
      bool gone = !sim_.up(n) || std::find(sleds.begin(), sleds.end(), n) != sleds.end();
      left += !gone && device_serves(row.places[i]) && media_.chunk(row, i).has_value();
    }
    can = left >= row.layout.k;
    return can;
  });
  return can;
}

}  // namespace luge::sim
