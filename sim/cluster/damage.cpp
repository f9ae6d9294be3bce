#include "sim/cluster/damage.hpp"

#include <algorithm>
#include <map>

namespace luge::sim {

Damage::Damage(Simulation& sim, Unit& unit, Media& media, Layout layout, bool with_bad_head)
    : sim_(sim), unit_(unit), media_(media), random_(sim.random().fork()) {
  reckless_ = random_.chance(0.05);
  if (random_.chance(0.4) || with_bad_head) bad_head_ = unit.head_nodes()[random_.below(unit.head_nodes().size())];
  bool sleds_suffice = unit.sled_nodes().size() >= layout.k + 2;
  if (random_.chance(0.4) && sleds_suffice) bad_sled_ = unit.sled_nodes()[random_.below(unit.sled_nodes().size())];
}

void Damage::log(const std::string& text) {
  if (sim_.tracing()) sim_.log("damage: " + text);
}

std::vector<Chaos::Fault> Damage::faults() {
  std::vector<Chaos::Fault> f;
  f.push_back({"rot in a chunk", [this](Chaos& c) { rot_chunks(); }});
  if (bad_head_ || reckless_) f.push_back({"rot in a log", [this](Chaos&) { rot_log(); }});
  if (bad_head_ || bad_sled_) {
    f.push_back({"rot in tables", [this](Chaos& c) { if (c.random().chance(0.1)) rot_tables(); }});
    f.push_back({"lying disk", [this](Chaos& c) { lie(c); }});
    f.push_back({"new disk", [this](Chaos& c) { if (c.random().chance(0.2)) new_disk(c); }});
    f.push_back({"end of a node", [this](Chaos& c) { if (c.random().chance(0.1)) end(c); }});
  }
  return f;
}

std::optional<Node> Damage::bad_node() {
  if (bad_head_ && bad_sled_) return random_.chance(0.5) ? bad_head_ : bad_sled_;
  return bad_head_ ? bad_head_ : bad_sled_;
}

bool Damage::may_rot(const head::StripeRow& row, std::uint32_t chunk) const {
  // A slot whose header has been zeroed may have another stripe's chunk by now: only what is this one's still.
  if (row.places[chunk].sled() == 0 || !media_.chunk(row, chunk)) return false;
  if (reckless_) return true;
  std::uint32_t others = 0;
  for (std::uint32_t i = 0; i < row.places.size(); ++i) {
    if (i == chunk || row.places[i].sled() == 0 || unit_.node_of_sled(row.places[i].sled()) == bad_sled_) continue;
    others += media_.chunk(row, i).has_value();
  }
  return others >= row.layout.k;
}

// One of the stripes that the primary knows to be live loses a chunk; some at once, as a bad spell of a disk does.
void Damage::rot_chunks() {
  for (const auto& [vp, d] : unit_.store().designations) {
    head::Head* h = unit_.head(d.primary);
    const head::Replica* r = h ? h->replica(vp) : nullptr;
    if (r == nullptr) continue;
    std::vector<const head::StripeRow*> live;
    for (const auto& [number, row] : r->stripes())
      if (row.live_blocks != 0) live.push_back(&row);
    for (std::uint64_t n = std::min<std::uint64_t>(live.size(), random_.spread(1, 8)); n != 0; --n) {
      const head::StripeRow& row = *live[random_.below(live.size())];
      auto chunk = static_cast<std::uint32_t>(random_.below(row.places.size()));
      auto slot = may_rot(row, chunk) ? media_.slot(row, chunk) : std::nullopt;
      if (slot) spoilt_.insert({row.id, chunk});
      if (slot && chunk >= row.layout.k && random_.chance(0.9) && media_.forge_parity(row, chunk))
        log(sim_.name(slot->node) + " holds wrong parity of stripe " + to_string(row.id));
      else if (slot) spoil(*slot);
    }
  }
}

// A flipped bit, a block of zeros, or a block of something else.
void Damage::spoil(const Media::Slot& slot) {
  Disk& disk = sim_.disk(slot.node);
  std::uint64_t at = slot.offset + random_.below(slot.bytes);
  std::uint64_t kind = random_.below(4);
  log(sim_.name(slot.node) + " " + slot.path + " offset " + std::to_string(at));
  if (kind < 2) return disk.rot(slot.path, at);
  at = at / kBlockBytes * kBlockBytes;
  Buffer block = Buffer::zeros(kBlockBytes);
  if (kind == 3) {
    FileState* file = disk.file(slot.path);
    file->read(random_.below(file->size / kBlockBytes) * kBlockBytes, block.mutable_bytes());
  }
  disk.overwrite(slot.path, at, block.bytes());
}

bool Damage::beyond_help() {
  alone_with_rot();
  older_and_forgotten();
  return reckless_;
}

void Damage::alone_with_rot() {
  if (!bad_head_ || !bad(*bad_head_)) return;
  for (const auto& [vp, d] : unit_.store().designations) {
    if (d.required.size() != 1 || unit_.node_of_head(d.required[0]) != *bad_head_) continue;
    const head::Head* h = unit_.head(d.required[0]);
    const head::Replica* r = h ? h->replica(vp) : nullptr;
    if (r != nullptr && r->suspect) reckless_ = true;
  }
}

void Damage::older_and_forgotten() {
  const control::Control* control = unit_.control();
  if (control == nullptr) return;
  for (VpId vp : unit_.store().doubted) {
    const std::vector<NodeId> silent = control->volumes().doubting(vp);
    auto emptied = [this](NodeId n) { return emptied_.contains(unit_.node_of_head(n)); };
    if (!silent.empty() && std::all_of(silent.begin(), silent.end(), emptied)) reckless_ = true;
  }
}

// Half of the time where it hurts most: in what was logged last. Then, often, a restart that must read it.
void Damage::rot_log() {
  const auto& heads = unit_.head_nodes();
  Node n = reckless_ ? heads[random_.below(heads.size())] : *bad_head_;
  for (std::uint64_t times = random_.spread(1, 8); times != 0; --times) rot_log_once(n);
  if (sim_.up(n) && random_.chance(0.3)) {
    sim_.crash(n, Crash::process);
    sim_.restart(n);
  }
}

void Damage::rot_log_once(Node n) {
  Disk& disk = sim_.disk(n);
  const char* files[] = {"log-data", "log-meta"};
  std::string path = files[random_.below(2)];
  FileState* file = disk.file(path);
  if (file == nullptr) return;
  std::uint64_t at = random_.below(file->size);
  // Two copies of the end of a log gone unnoticed are an acknowledged write gone unnoticed: what nobody can tell.
  if (reckless_) return rot_payload(n);
  auto records = logged_data(n);
  if (!records.empty() && random_.chance(0.8)) {
    const head::Record& r = random_.chance(0.5) ? *records.back() : *records[random_.below(records.size())];
    path = "log-data";
    // Its payload, or the header of its batch in front of that.
    at = random_.chance(0.3) ? r.position.offset - std::min<std::uint64_t>(r.position.offset, 1 + random_.below(kBlockBytes))
                             : r.position.offset + random_.below(std::uint64_t{r.payload_blocks()} * kBlockBytes);
  }
  log(sim_.name(n) + " " + path + " offset " + std::to_string(at));
  touched_.insert(n);
  disk.rot(path, at);
}

head::RecordPtr Damage::rot_header(Node n) {
  auto records = logged_data(n);
  if (reckless_ || bad_head_ != n || records.empty()) return nullptr;
  // In front of what was logged near the end: what is dropped with it has been acknowledged.
  head::RecordPtr r = records[records.size() - random_.between(1, std::min<std::size_t>(records.size(), 6))];
  std::uint64_t at = r->position.offset - kBlockBytes + 20;
  log(sim_.name(n) + " log-data offset " + std::to_string(at));
  touched_.insert(n);
  sim_.disk(n).rot("log-data", at);
  return r;
}

void Damage::rot_payloads(Node n) {
  auto records = logged_data(n);
  if (reckless_ || bad_head_ != n || records.empty()) return;
  for (std::uint64_t times = random_.between(4, 32); times != 0; --times) rot_at(n, *records[random_.below(records.size())]);
}

void Damage::rot_payload(Node n) {
  auto records = logged_data(n);
  if (records.empty()) return;
  const head::Record& r = *records[random_.below(records.size())];
  // The end of the log would pass for a torn write. Where that is the head knows; the newest segments are near enough.
  for (const auto& newer : records)
    if (newer->header.vp() == r.header.vp() && newer->lsn() >= r.lsn() + 8 && newer->position.segment != r.position.segment) return rot_at(n, r);
}

void Damage::rot_at(Node n, const head::Record& r) {
  std::uint64_t at = r.position.offset + random_.below(std::uint64_t{r.payload_blocks()} * kBlockBytes);
  log(sim_.name(n) + " log-data offset " + std::to_string(at));
  if (bad_head_ == n) touched_.insert(n);  // in a reckless seed it may be any head, whose promises hold
  sim_.disk(n).rot("log-data", at);
}

// Durable data records that a head keeps, of all VPs, the newest last.
std::vector<head::RecordPtr> Damage::logged_data(Node n) const {
  std::vector<head::RecordPtr> records;
  head::Head* h = unit_.heads()[n - unit_.head_nodes()[0]];
  for (const auto& [vp, d] : unit_.store().designations)
    if (const head::Replica* r = h ? h->replica(vp) : nullptr)
      for (const auto& [lsn, record] : r->records())
        if (record->durable && record->kind() == head::RecordKind::data) records.push_back(record);
  std::sort(records.begin(), records.end(), [](auto& a, auto& b) {
    return a->lsn() != b->lsn() ? a->lsn() < b->lsn() : a->header.vp() < b->header.vp();
  });
  return records;
}

void Damage::rot_tables() {
  Node n = *bad_node();
  std::string path = n == bad_head_ ? "meta" : Unit::device_path(random_.below(unit_.shape().devices));
  if (FileState* file = sim_.disk(n).file(path)) {
    std::uint64_t at = random_.below(std::min<std::uint64_t>(file->size, random_.chance(0.5) ? 64 << 10 : 5 << 20));
    log(sim_.name(n) + " " + path + " offset " + std::to_string(at));
    touched_.insert(n);
    sim_.disk(n).rot(path, at);
  }
}

void Damage::lie(Chaos& chaos) {
  Node n = *bad_node();
  DiskFaults& f = sim_.disk(n).faults;
  double often = static_cast<double>(random_.spread(1, 64)) / 128;
  switch (random_.below(3)) {
    case 0: f.lost_write = often; break;
    case 1: f.misdirected_write = often; break;
    default: f.rot = often;
  }
  log(sim_.name(n) + ": writes are lost, misdirected or spoilt, " + std::to_string(often));
  chaos.undo_later([&f] { f.lost_write = f.misdirected_write = f.rot = 0; });
}

void Damage::empty_disk(Node n) {
  touched_.insert(n);
  emptied_.insert(n);
  unit_.replace_disk(n);
}

void Damage::new_disk(Chaos& chaos) {
  Node n = *bad_node();
  if (chaos.given_up(n) || !others_hold(n)) return;
  if (sim_.up(n)) sim_.crash(n, Crash::power);
  log(sim_.name(n) + ": its disk is replaced by an empty one");
  empty_disk(n);
  chaos.undo_later([this, &chaos, n] { if (!sim_.up(n) && !chaos.given_up(n)) sim_.restart(n); });
}

bool Damage::replace_bad_head(Chaos& chaos, io::Duration after) {
  Node n = *bad_head_;
  if (!sim_.up(n) || chaos.given_up(n) || !others_hold(n)) return false;
  log(sim_.name(n) + ": its disk is replaced by an empty one");
  chaos.down(n, Crash::power, after);
  empty_disk(n);
  return true;
}

void Damage::rot_checkpoints(std::size_t newest) {
  std::vector<Media::CheckpointChunk> chunks = media_.checkpoint_chunks();
  std::map<VpId, std::set<std::pair<Lsn, std::uint64_t>>> ids;  // by age
  for (const auto& c : chunks) ids[c.vp].insert({c.lsn, c.id});
  for (auto& [vp, all] : ids) all.erase(all.begin(), std::prev(all.end(), static_cast<std::ptrdiff_t>(std::min(newest, all.size()))));
  for (const auto& c : chunks)
    if (ids[c.vp].contains({c.lsn, c.id})) sim_.disk(c.blocks.node).rot(c.blocks.path, c.blocks.offset + random_.below(c.blocks.bytes));
  log("the newest checkpoints go bad");
}

// One node of the two: with both gone the rest has no room for any other fault.
void Damage::end(Chaos& chaos) {
  Node n = *bad_node();
  if (ended_ || !others_hold(n) || unit_.set_backs() != 0) return;  // an old store must hear of all
  ended_ = true;
  chaos.give_up(n);
}

// Of every VP that requires the head. One that has opened alone is the only one that is known to be complete.
bool Damage::others_hold(Node n) const {
  for (const auto& [vp, d] : unit_.store().designations)
    if (d.required.size() < 2 && unit_.node_of_head(d.required[0]) == n) return false;
  return true;
}

void Damage::could_not_start(Node n) {
  ++replacing_;
  sim_.after(Duration(random_.spread(100'000'000, 3'000'000'000)), [this, n] {
    if (sim_.up(n)) sim_.crash(n, Crash::power);
    // With a VP that nobody else holds whole: it stays closed from here on, and rightly.
    if (!others_hold(n)) reckless_ = true;
    log(sim_.name(n) + ": cannot be read, its disk is replaced by an empty one");
    empty_disk(n);
    --replacing_;
    sim_.restart(n);
  });
}

void Damage::heal() {
  for (auto n : {bad_head_, bad_sled_})
    if (n) {
      DiskFaults& f = sim_.disk(*n).faults;
      f.lost_write = f.misdirected_write = f.rot = 0;
    }
}

}  // namespace luge::sim
