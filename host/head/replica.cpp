#include "head/replica.hpp"

#include <algorithm>
#include <limits>

#include "switches/paths.hpp"
#include "switches/switches.hpp"

namespace luge::head {
namespace {

constexpr std::size_t kKeptSmallRecords = 8192;   // metadata records kept in memory for members that lag a little
constexpr std::size_t kKeptChanges = 256 << 10;      // blocks, 6 MiB if no two of them are neighbours: beyond, a member that lags is told whole pages

}  // namespace

void Replica::append(RecordPtr record) {
  LUGE_CHECK(record->lsn() == last_.lsn + 1);
  last_ = record->point();
  sessions.apply(record->header);
  switch (record->kind()) {
    case RecordKind::data:
      for (std::uint32_t i = 0; i < record->header.blocks(); ++i) tail_[record->header.lba() + i] = record->lsn();
      break;
    case RecordKind::trim: tail_ranges_.push_back(record); break;
    case RecordKind::epoch_start: starts_.push_back({record->epoch(), record->lsn()}); break;
    case RecordKind::index:
      if (broken(Switch::free_at_append)) apply_index(*record);
      break;
    default: break;
  }
  if (record->kind() != RecordKind::data) small_.push_back(record->lsn());
  payload_bytes_ += record->payload.size();
  records_.emplace(record->lsn(), std::move(record));
}

RecordPtr Replica::find(Lsn lsn) const {
  auto it = records_.find(lsn);
  return it == records_.end() ? nullptr : it->second;
}

void Replica::on_durable(const Record&) {
  for (auto it = records_.find(durable_ + 1); it != records_.end() && it->first == durable_ + 1 && it->second->durable; ++it)
    ++durable_;
  advance_commit(known_commit_);
}

void Replica::advance_commit(Lsn lsn) {
  known_commit_ = std::max(known_commit_, lsn);
  Lsn to = std::min(known_commit_, durable_);
  while (commit_ < to) {
    auto it = records_.find(commit_ + 1);
    LUGE_CHECK(it != records_.end());
    RecordPtr record = it->second;
    ++commit_;
    apply(*record);
  }
  trim_window();
}

void Replica::drop(Entry old) {
  if (old.is_lsn()) {
    auto it = records_.find(old.lsn());
    if (it == records_.end()) return;
    LUGE_CHECK(it->second->live > 0);
    --it->second->live;
    --unflushed_blocks_;
    maybe_free(it);
  } else if (old.is_stripe()) {
    count_live(old.stripe(), old.block(), false);
  }
}

void Replica::put_stripe(std::uint64_t number, StripeRow row) {
  StripeRow& at = stripes_[number];
  for (const fbs::ChunkPlace& p : at.places)
    if (p.sled() != 0) --sled_shares_[p.sled()].chunks;
  for (const fbs::ChunkPlace& p : row.places)
    if (p.sled() != 0) ++sled_shares_[p.sled()].chunks;
  row.live_blocks = at.live_blocks;  // a row that is there already gets other places, not other blocks
  at = std::move(row);
  note_width(number, at);
}

// The index has come to name a block of a stripe, or does not any more.
void Replica::count_live(std::uint64_t stripe, std::uint32_t block, bool more) {
  auto it = stripes_.find(stripe);
  if (it == stripes_.end() || (!more && it->second.live_blocks == 0)) return;
  it->second.live_blocks += more ? 1 : -1;
  NodeId sled = it->second.sled_of(block);
  if (sled == 0) return;
  std::uint64_t& live = sled_shares_[sled].live_blocks;
  if (more) ++live;
  else if (live > 0) --live;
}

void Replica::remember(const Change& c) {
  changed_blocks_ += c.weight();
  if (!changes_.empty() && changes_.back().goes_on_with(c)) changes_.back().blocks += c.blocks;
  else changes_.push_back(c);
  if (changed_blocks_ > kKeptChanges) forget_changes(changes_.front().at);
}

void Replica::forget_changes(Lsn lsn) {
  for (; !changes_.empty() && changes_.front().at <= lsn; changes_.pop_front()) changed_blocks_ -= changes_.front().weight();
  changes_from_ = std::max(changes_from_, std::min(lsn, commit_));
}

void Replica::apply(Record& record) {
  const RecordHeader& h = record.header;
  logged_ += sizeof h + record.body.size();
  if (record.kind() != RecordKind::data) metadata_logged_ += sizeof h + record.body.size();
  switch (record.kind()) {
    case RecordKind::data:
      record.live = h.blocks();
      unflushed_blocks_ += h.blocks();
      for (std::uint32_t i = 0; i < h.blocks(); ++i) {
        Lba lba = h.lba() + i;
        drop(index_.set(lba, Entry::at_lsn(h.lsn()), h.lsn()));
        auto t = tail_.find(lba);
        if (t != tail_.end() && t->second == h.lsn()) tail_.erase(t);
      }
      remember({h.lsn(), h.lba(), h.blocks(), false});
      break;
    case RecordKind::trim:
      index_.clear(h.lba(), h.blocks(), h.lsn(), [this](Lba, Entry old) { drop(old); });
      remember({h.lsn(), h.lba(), h.blocks(), true});
      std::erase_if(tail_ranges_, [&](const RecordPtr& r) { return r->lsn() == h.lsn(); });
      break;
    case RecordKind::index:
      if (!broken(Switch::free_at_append)) apply_index(record);
      break;
    default: break;
  }
}

void Replica::apply_index(const Record& record) {
  const auto* body = flatbuffers::GetRoot<fbs::IndexRecord>(record.body.data());
  if (body->stripes()) {
    for (const fbs::Stripe* s : *body->stripes()) {
      StripeRow row;
      row.id = {s->id()->vp(), s->id()->epoch(), s->id()->counter()};
      row.layout = {s->k(), s->m()};
      row.chunk_bytes = s->chunk_bytes();
      row.places = Places(*s->places());
      row.changed = record.lsn();
      put_stripe(s->number(), std::move(row));
      next_stripe_ = std::max(next_stripe_, s->number() + 1);
    }
  }
  if (body->placements() && body->placement_stripe()) apply_placements(record.lsn(), *body);
  sessions.merge(body->sessions());
}

void Replica::apply_placements(Lsn at, const fbs::IndexRecord& body) {
  for (std::uint32_t i = 0; i < body.placements()->size(); ++i) {
    const fbs::Placement* p = body.placements()->Get(i);
    std::uint64_t number = body.placement_stripe()->Get(i);
    // A block written or trimmed since the flush read it stays what it is (protocol 7.2).
    Entry now = index_.get(p->lba());
    if (now.hole()) reached(Path::trim_during_flush);
    if (now != Entry::at_lsn(p->lsn()) && !broken(Switch::unconditional_index_record)) continue;
    drop(index_.set(p->lba(), Entry::at_stripe(number, p->block()), at));
    remember({at, p->lba(), 1, false});
    count_live(number, p->block(), true);
  }
}

void Replica::note_width(std::uint64_t number, const StripeRow& row) {
  if (row.narrower()) narrow_.insert(number);
  else narrow_.erase(number);
}

void Replica::maybe_free(Records::iterator at) {
  const Record& record = *at->second;
  if (record.live != 0 || record.lsn() > commit_ || record.kind() != RecordKind::data) return;
  if (pin_ != 0 && record.lsn() >= pin_) return;
  if (broken(Switch::flushed_data_moves)) return;
  if (record.durable && release) release(Portion::data, record.position.segment, commit_);
  window_ = std::max(window_, record.lsn() + 1);
  payload_bytes_ -= record.payload.size();
  records_.erase(at);
}

// Of committed records, those below `end`, that no index entry names.
void Replica::free_dead(Lsn end) {
  std::vector<Lsn> dead;
  for (auto it = records_.begin(); it != records_.end() && it->first <= commit_ && it->first < end; ++it)
    if (it->second->kind() == RecordKind::data && it->second->live == 0) dead.push_back(it->first);
  for (Lsn lsn : dead) maybe_free(records_.find(lsn));
}

// Small records below the window are of no use any more; above it a bounded number is kept.
void Replica::trim_window() {
  while (!small_.empty() && small_.front() <= commit_ && (pin_ == 0 || small_.front() < pin_)) {
    Lsn lsn = small_.front();
    if (lsn >= window_ && small_.size() <= kKeptSmallRecords) break;
    window_ = std::max(window_, lsn + 1);
    records_.erase(lsn);
    small_.pop_front();
  }
}

void Replica::pin(NodeId member, Lsn lsn) {
  if (lsn == 0) pins_.erase(member);
  else pins_[member] = lsn;
  pin_ = 0;
  for (const auto& [n, l] : pins_) pin_ = pin_ == 0 ? l : std::min(pin_, l);
  free_dead(pin_ == 0 ? commit_ + 1 : pin_);
}

void Replica::truncate(LogPoint to) {
  LUGE_CHECK(to.lsn >= commit_);
  while (!records_.empty() && records_.rbegin()->first > to.lsn) {
    auto it = std::prev(records_.end());
    Record& r = *it->second;
    if (r.kind() != RecordKind::data) small_.pop_back();
    payload_bytes_ -= r.payload.size();
    if (r.durable && r.kind() == RecordKind::data && release) release(Portion::data, r.position.segment, commit_);
    records_.erase(it);
  }
  std::erase_if(starts_, [&](const EpochStart& s) { return s.lsn > to.lsn; });
  std::erase_if(tail_ranges_, [&](const RecordPtr& r) { return r->lsn() > to.lsn; });
  tail_.clear();
  for (auto it = records_.upper_bound(commit_); it != records_.end(); ++it)
    if (it->second->kind() == RecordKind::data)
      for (std::uint32_t i = 0; i < it->second->header.blocks(); ++i) tail_[it->second->header.lba() + i] = it->first;
  last_ = {epoch_at(to.lsn), to.lsn};
  durable_ = std::min(durable_, to.lsn);
  known_commit_ = std::min(known_commit_, to.lsn);
  // Sequences of dropped requests must count as new again.
  sessions.forget_after(to.lsn);
}

Epoch Replica::epoch_at(Lsn lsn) const {
  Epoch e = 0;
  for (const EpochStart& s : starts_)
    if (s.lsn <= lsn) e = s.epoch;
  return e;
}

LogPoint Replica::common_point(const std::vector<EpochStart>& other, LogPoint other_last) const {
  std::size_t same = 0;
  while (same < starts_.size() && same < other.size() && starts_[same] == other[same]) ++same;
  if (same == 0) return {};
  Lsn mine = same < starts_.size() ? starts_[same].lsn - 1 : last_.lsn;
  Lsn theirs = same < other.size() ? other[same].lsn - 1 : other_last.lsn;
  Lsn lsn = std::min(mine, theirs);
  return {epoch_at(lsn), lsn};
}

Replica::Newest Replica::newest(Lba lba) const {
  Newest n;
  n.committed = index_.get(lba);
  if (auto it = tail_.find(lba); it != tail_.end()) n.tail = it->second;
  for (const RecordPtr& r : tail_ranges_)
    if (lba >= r->header.lba() && lba < r->header.lba() + r->header.blocks()) n.tail = std::max(n.tail, r->lsn());
  return n;
}

const StripeRow* Replica::stripe(std::uint64_t number) const {
  auto it = stripes_.find(number);
  return it == stripes_.end() ? nullptr : &it->second;
}

Lsn Replica::oldest_unflushed() const {
  // Data records come at the end only, so what was passed once need not be looked at again.
  for (auto it = records_.lower_bound(oldest_data_); it != records_.end(); ++it) {
    oldest_data_ = it->first;
    if (it->second->kind() == RecordKind::data) return it->first;
  }
  return last_.lsn + 1;
}

bool Replica::unflushed_up_to(Lsn lsn) const {
  for (auto it = records_.begin(); it != records_.end() && it->first <= lsn; ++it)
    if (it->second->kind() == RecordKind::data && (it->first > commit_ || it->second->live > 0)) return true;
  return false;
}

// ---- images

struct Replica::Loading {
  LogPoint point;
  Lsn base = 0;
  bool complete = false;                  // only with a base: waits for apply_delta()
  std::map<Lsn, RecordPtr> data;          // staged
  std::vector<std::uint64_t> dropped;     // pages that have become holes
  std::vector<std::pair<Lba, std::uint64_t>> cleared;  // with a base, before the entries
  std::vector<std::pair<Lba, Entry>> entries;          // with a base
  std::uint32_t pages = 0;
  Index index;
  absl::btree_map<std::uint64_t, StripeRow> stripes;
  std::vector<EpochStart> starts;
  std::uint64_t next_stripe = 1;
  Sessions sessions;
  std::uint64_t logged = 0;
  Lsn lowest = 0;
  std::uint32_t parts = 0;
  /// LSN of the last change, as the image says it.
  Lsn changed(Lsn said) const { return said == 0 ? point.lsn : std::min(said, point.lsn); }
};

std::size_t Replica::Image::bytes() const {
  std::size_t n = 0;
  for (const auto& [kind, body] : bodies) n += body.size();
  return n;
}

std::vector<Lba> Replica::changed_blocks(Lsn base) const {
  std::vector<Lba> out;
  for (auto it = changes_.rbegin(); it != changes_.rend() && it->at > base; ++it)
    for (std::uint32_t i = 0; i < it->blocks && !it->cleared; ++i) out.push_back(it->lba + i);
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

// Which way of telling takes less room: for a whole image, page by page; behind a base, all at once.
void Replica::choose_form(Lsn base, ImageFor whom, std::vector<std::uint64_t>& pages, std::vector<fbs::ChangedEntry>& entries, std::vector<fbs::ClearedRange>& cleared) const {
  constexpr std::size_t kEntryBytes = sizeof(fbs::ChangedEntry), kPageBytes = sizeof(Index::Page);
  if (base == 0) {
    std::erase_if(pages, [&](std::uint64_t number) {
      const Index::Page& page = *index_.page(number);
      std::size_t used = static_cast<std::size_t>(std::count_if(page.begin(), page.end(), [](Entry e) { return !e.hole(); }));
      // A page of holes alone is told as one: whoever loads it has to know when its blocks became holes, to tell others.
      if (used == 0 || used * kEntryBytes >= kPageBytes) return false;
      for (std::uint32_t i = 0; i < Index::kFanOut; ++i)
        if (!page[i].hole()) entries.emplace_back(number * Index::kFanOut + i, page[i].raw());
      return true;
    });
    return;
  }
  if (!remembers_since(base)) return;
  std::vector<Lba> blocks = changed_blocks(base);
  // Another head is told no page that it need not be told: entries are less than the records that made them, whatever else is in the page.
  if (whom == ImageFor::checkpoint && blocks.size() * kEntryBytes > pages.size() * kPageBytes) return;
  pages.clear();
  for (const Change& c : changes_)
    if (c.at > base && c.cleared) cleared.emplace_back(c.lba, c.blocks);
  for (Lba lba : blocks) entries.emplace_back(lba, index_.get(lba).raw());
}

std::string Replica::save_begin(LogPoint at, Lsn base) const {
  flatbuffers::FlatBufferBuilder b;
  std::vector<fbs::EpochStartEntry> starts;
  for (const EpochStart& s : starts_)
    if (s.lsn <= commit_) starts.emplace_back(s.epoch, s.lsn);
  fbs::LogPoint point(at.epoch, at.lsn);
  auto starts_vector = b.CreateVectorOfStructs(starts);
  auto saved = b.CreateVector(sessions.save(b, commit_));
  b.Finish(fbs::CreateImageBegin(b, &point, designation.history, starts_vector, next_stripe_, saved, base, logged_, lowest_base_ + 1));
  return std::string(reinterpret_cast<const char*>(b.GetBufferPointer()), b.GetSize());
}

ImageCut Replica::cut_image(Lsn base, ImageFor whom) const {
  ImageCut::Content c;
  c.point = {epoch_at(commit_), commit_};
  if (whom == ImageFor::checkpoint && broken(Switch::checkpoint_covers_uncommitted)) c.point = last_;
  c.begin = save_begin(c.point, base);
  c.index = index_.share();
  c.pages = base == 0 ? index_.pages() : index_.changed_since(base);
  if (base == 0) c.rows.reserve(stripes_.size());
  for (const auto& [number, row] : stripes_)
    if (row.changed > base || base == 0) c.rows.emplace_back(number, row);
  if (whom != ImageFor::log) choose_form(base, whom, c.pages, c.entries, c.cleared);
  if (base == 0)  // whoever loads it can tell of these, too, that they have become holes
    for (std::uint64_t number : index_.changed_since(lowest_base_))
      if (!index_.page(number)) c.pages.push_back(number);
  return ImageCut(std::move(c));
}

std::uint64_t Replica::image_bytes() const {
  std::size_t row = 64 + designation.layout.width() * sizeof(fbs::ChunkPlace);
  return index_.page_count() * (sizeof(Index::Page) + 24) + stripes_.size() * row;
}

Replica::Image Replica::save_image(Lsn base, ImageFor whom) const {
  ImageCut cut = cut_image(base, whom);
  Image image{cut.point(), {}, cut.pages(), cut.entries(), cut.stripes()};
  while (auto body = cut.next()) image.bodies.push_back(std::move(*body));
  return image;
}

namespace {

template <class T>
const T* verified(const std::string& body) {
  flatbuffers::Verifier v(reinterpret_cast<const std::uint8_t*>(body.data()), body.size(), 64, 10'000'000);
  return v.VerifyBuffer<T>(nullptr) ? flatbuffers::GetRoot<T>(body.data()) : nullptr;
}

}  // namespace

bool Replica::load_entries(const fbs::ImagePart& part) {
  Loading& l = **loading_;
  if (part.cleared()) {
    if (l.base == 0) return false;
    for (const fbs::ClearedRange* c : *part.cleared()) {
      if (c->lba() > designation.blocks || c->blocks() > designation.blocks - c->lba()) return false;
      if (c->blocks() > std::numeric_limits<std::uint32_t>::max()) return false;  // a trim's record cannot say so many
      l.cleared.emplace_back(c->lba(), c->blocks());
    }
  }
  if (part.entries()) {
    for (const fbs::ChangedEntry* e : *part.entries()) {
      if (e->lba() >= designation.blocks) return false;
      if (l.base == 0) l.index.set(e->lba(), Entry::from_raw(e->entry()), l.point.lsn);
      else l.entries.emplace_back(e->lba(), Entry::from_raw(e->entry()));
    }
  }
  return true;
}

bool Replica::load_part(const std::string& body) {
  Loading& l = **loading_;
  const auto* part = verified<fbs::ImagePart>(body);
  if (!part) return false;
  ++l.parts;
  if (part->pages()) {
    for (const fbs::Page* p : *part->pages()) {
      if (p->number() > designation.blocks / Index::kFanOut) return false;
      bool dropped = !p->entries() || p->entries()->size() == 0;
      if (dropped && l.base == 0 && p->changed() == 0) return false;
      if (dropped) {
        if (l.base != 0) l.dropped.push_back(p->number());
        else l.index.drop_page(p->number(), l.changed(p->changed()));
        continue;
      }
      if (!p->entries() || p->entries()->size() != Index::kFanOut) return false;
      ++l.pages;
      Index::Page page;
      for (std::uint32_t i = 0; i < Index::kFanOut; ++i) page[i] = Entry::from_raw(p->entries()->Get(i));
      l.index.load_page(p->number(), page, l.changed(p->changed()));
    }
  }
  if (part->stripes()) {
    for (const fbs::Stripe* s : *part->stripes()) {
      if (!possible_stripe(*s)) return false;
      StripeRow row;
      row.id = {s->id()->vp(), s->id()->epoch(), s->id()->counter()};
      row.layout = {s->k(), s->m()};
      row.chunk_bytes = s->chunk_bytes();
      row.live_blocks = s->live_blocks();
      row.changed = l.changed(s->changed());
      row.places = Places(*s->places());
      l.stripes[s->number()] = std::move(row);
    }
  }
  return load_entries(*part);
}

bool Replica::load_image(RecordKind kind, const std::string& body) {
  if (kind == RecordKind::image_begin) {
    const auto* begin = verified<fbs::ImageBegin>(body);
    if (!begin || !begin->point()) return false;
    abandon_loading();
    loading_ = std::make_shared<Loading>();
    Loading& l = **loading_;
    l.point = {begin->point()->epoch(), begin->point()->lsn()};
    l.base = begin->base();
    if (begin->starts())
      for (const auto* s : *begin->starts()) l.starts.push_back({s->epoch(), s->lsn()});
    l.next_stripe = begin->next_stripe();
    l.logged = begin->logged();
    l.lowest = begin->tells() == 0 ? l.point.lsn : std::min(begin->tells() - 1, l.point.lsn);
    l.sessions.merge(begin->sessions());
    return true;
  }
  if (!loading_) return false;
  Loading& l = **loading_;
  if (kind == RecordKind::image_part) return load_part(body);
  const auto* end = verified<fbs::ImageEnd>(body);
  if (!end || !end->point() || end->point()->lsn() != l.point.lsn || end->parts() != l.parts) return false;
  if (l.base != 0) {
    l.complete = true;
    return true;
  }
  // Complete: it replaces what was committed; a tail beyond it stays (recovery), see recount().
  std::shared_ptr<Loading> done = std::move(*loading_);
  loading_.reset();
  index_ = std::move(done->index);
  stripes_ = std::move(done->stripes);
  narrow_.clear();
  for (const auto& [number, row] : stripes_) note_width(number, row);
  next_stripe_ = done->next_stripe;
  Sessions newer = std::move(sessions);
  sessions = std::move(done->sessions);
  commit_ = done->point.lsn;
  known_commit_ = std::max(known_commit_, commit_);
  durable_ = std::max(durable_, commit_);
  if (last_.lsn <= done->point.lsn) {
    last_ = done->point;
    starts_ = std::move(done->starts);
  } else {
    sessions.merge_from(newer);
  }
  window_ = std::max(window_, commit_ + 1);
  image_point_ = done->point.lsn;
  lowest_base_ = done->lowest;
  logged_ = done->logged;
  no_changes(done->point.lsn);
  return true;
}

void Replica::stage(RecordPtr record) {
  if (loading_) (*loading_)->data.insert_or_assign(record->lsn(), std::move(record));
}

bool Replica::staged(const Record& record) const {
  if (!loading_) return false;
  auto it = (*loading_)->data.find(record.lsn());
  return it != (*loading_)->data.end() && it->second.get() == &record;
}

Lsn Replica::loading_base() const { return loading_ ? (*loading_)->base : 0; }

Lsn Replica::loading_point() const { return loading_ ? (*loading_)->point.lsn : 0; }

std::uint32_t Replica::loading_pages() const { return loading_ ? (*loading_)->pages : 0; }

bool Replica::delta_complete() const { return loading_ && (*loading_)->complete; }

void Replica::abandon_loading() {
  if (!loading_) return;
  for (const auto& [lsn, r] : (*loading_)->data)
    if (r->durable && release) release(Portion::data, r->position.segment, commit_);
  loading_.reset();
}

// Everything up to the base is held and applied here; what changed after it takes its place in one go.
void Replica::apply_delta() {
  LUGE_CHECK(delta_complete() && (*loading_)->base == commit_ && last_.lsn == commit_);
  std::shared_ptr<Loading> done = std::move(*loading_);
  loading_.reset();
  Lsn at = done->point.lsn;
  for (std::uint64_t n : done->index.pages()) index_.load_page(n, *done->index.page(n), at);
  for (std::uint64_t n : done->dropped) index_.drop_page(n, at);
  for (auto [lba, blocks] : done->cleared) index_.clear(lba, blocks, at, [](Lba, Entry) {});
  for (auto [lba, entry] : done->entries) index_.set(lba, entry, at);
  for (auto& [number, row] : done->stripes) {
    note_width(number, row);
    stripes_[number] = std::move(row);
  }
  next_stripe_ = done->next_stripe;
  logged_ = done->logged;
  sessions = std::move(done->sessions);
  starts_ = std::move(done->starts);
  last_ = done->point;
  durable_ = commit_ = at;
  known_commit_ = std::max(known_commit_, at);
  window_ = at + 1;
  remember_delta(*done);
  for (auto& [lsn, r] : done->data) adopt_unflushed(r);
  recount();
}

// What was told one by one can be told on, each as of the point; of a whole page nobody knows which of its blocks have changed.
void Replica::remember_delta(const Loading& told) {
  if (told.pages != 0 || !told.dropped.empty()) return no_changes(told.point.lsn);
  for (auto [lba, blocks] : told.cleared) remember({told.point.lsn, lba, static_cast<std::uint32_t>(blocks), true});
  for (auto [lba, entry] : told.entries) remember({told.point.lsn, lba, 1, false});
}

void Replica::adopt_unflushed(RecordPtr record) {
  record->live = 0;
  oldest_data_ = std::min(oldest_data_, record->lsn());
  payload_bytes_ += record->payload.size();
  records_.emplace(record->lsn(), std::move(record));
}

std::uint64_t Replica::missing_in(const Index& index, const std::map<Lsn, RecordPtr>* staged) const {
  std::uint64_t missing = 0;
  index.for_each_page([&](std::uint64_t, const Index::Page& page) {
    for (Entry e : page)
      if (e.is_lsn() && !records_.contains(e.lsn()) && !(staged && staged->contains(e.lsn()))) ++missing;
  });
  return missing;
}

std::uint64_t Replica::begin_history(LogPoint start, const std::vector<std::pair<Lba, Lsn>>& unreadable) {
  LUGE_CHECK(durable_ == last_.lsn && start.lsn > last_.lsn && start.epoch > last_.epoch);
  advance_commit(last_.lsn);
  abandon_loading();
  std::vector<Lba> lost;
  index_.for_each_page([&](std::uint64_t number, const Index::Page& page) {
    for (std::uint32_t i = 0; i < Index::kFanOut; ++i)
      if (page[i].is_lsn() && !records_.contains(page[i].lsn())) lost.push_back(number * Index::kFanOut + i);
  });
  for (const auto& [lba, lsn] : unreadable)
    if (index_.get(lba) == Entry::at_lsn(lsn)) lost.push_back(lba);
  for (Lba lba : lost) index_.set(lba, Entry::lost(), start.lsn);
  starts_.push_back({start.epoch, start.lsn});
  last_ = start;
  durable_ = commit_ = known_commit_ = start.lsn;
  window_ = start.lsn + 1;
  // Nothing of the histories before is caught up from here: who takes part in this one takes it whole.
  lowest_base_ = start.lsn;
  no_changes(start.lsn);
  recount();
  return lost.size();
}

std::uint64_t Replica::missing_unflushed() const { return missing_in(index_); }

std::uint64_t Replica::missing_unflushed_while_loading() const {
  if (!loading_) return 0;
  const Loading& l = **loading_;
  std::uint64_t missing = missing_in(l.index, &l.data);
  for (auto [lba, e] : l.entries) missing += e.is_lsn() && !records_.contains(e.lsn()) && !l.data.contains(e.lsn());
  return missing;
}

void Replica::recount() {
  for (auto& [lsn, r] : records_) r->live = 0;
  sled_shares_.clear();
  for (auto& [n, row] : stripes_) {
    row.live_blocks = 0;
    for (const fbs::ChunkPlace& p : row.places)
      if (p.sled() != 0) ++sled_shares_[p.sled()].chunks;
  }
  unflushed_blocks_ = 0;
  index_.for_each_page([&](std::uint64_t, const Index::Page& page) {
    for (Entry e : page) {
      if (e.is_stripe()) {
        count_live(e.stripe(), e.block(), true);
      } else if (e.is_lsn()) {
        auto it = records_.find(e.lsn());
        if (it == records_.end()) continue;
        ++it->second->live;
        ++unflushed_blocks_;
      }
    }
  });
  free_dead(commit_ + 1);
  trim_window();
}

void Replica::reset() {
  for (const auto& [lsn, r] : records_)
    if (r->durable && r->kind() == RecordKind::data && release) release(Portion::data, r->position.segment, commit_);
  records_.clear();
  small_.clear();
  payload_bytes_ = 0;
  payload_cursor_ = oldest_data_ = 0;
  tail_.clear();
  tail_ranges_.clear();
  index_ = Index();
  stripes_.clear();
  narrow_.clear();
  sled_shares_.clear();
  sessions.clear();
  starts_.clear();
  next_stripe_ = 1;
  unflushed_blocks_ = 0;
  last_ = {};
  durable_ = commit_ = known_commit_ = 0;
  window_ = 1;
  lowest_base_ = 0;
  logged_ = 0;
  no_changes(0);
  abandon_loading();
}

void Replica::release_everything() {
  reset();
  for (const MetaRecord& m : meta_records_)
    if (release) release(Portion::meta, m.segment, 0);
  meta_records_.clear();
  for (std::uint32_t s : image_segments_)
    if (release) release(Portion::meta, s, 0);
  image_segments_.clear();
}

void Replica::keep_payload(Record& record, Buffer payload) {
  bool held = find(record.lsn()).get() == &record;
  if (held) payload_bytes_ += payload.size() - record.payload.size();
  record.payload = std::move(payload);
}

std::uint64_t Replica::drop_payloads(std::uint64_t bytes) {
  std::uint64_t dropped = 0;
  for (auto it = records_.lower_bound(payload_cursor_); it != records_.end() && it->first <= commit_ && dropped < bytes; ++it) {
    payload_cursor_ = it->first;
    if (!it->second->durable) continue;
    dropped += it->second->payload.size();
    keep_payload(*it->second, Buffer());
  }
  return dropped;
}

void Replica::note_meta(Lsn cover, std::uint32_t segment) { meta_records_.push_back({cover, segment}); }

void Replica::image_durable(LogPoint point, std::vector<std::uint32_t> segments) {
  std::erase_if(meta_records_, [&](const MetaRecord& m) {
    if (m.cover > point.lsn) return false;
    if (release) release(Portion::meta, m.segment, 0);
    return true;
  });
  for (std::uint32_t s : image_segments_)
    if (release) release(Portion::meta, s, 0);
  image_segments_ = std::move(segments);
  image_point_ = point.lsn;
}

}  // namespace luge::head
