#include "head/replica.hpp"

#include <algorithm>

#include "switches/switches.hpp"

namespace luge::head {
namespace {

constexpr std::size_t kKeptSmallRecords = 8192;   // metadata records kept in memory for members that lag a little
constexpr std::size_t kPagesPerPart = 32;
constexpr std::size_t kStripesPerPart = 512;

}  // namespace

bool StripeRow::narrower() const {
  return std::any_of(places.begin(), places.end(), [](const fbs::ChunkPlace& p) { return p.sled() == 0; });
}

NodeId StripeRow::sled_of(std::uint32_t block) const {
  std::uint32_t per_chunk = chunk_bytes / kBlockBytes;
  std::uint32_t chunk = per_chunk == 0 ? layout.k : block / per_chunk;
  return chunk < layout.k && chunk < places.size() ? places[chunk].sled() : 0;
}

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
    RecordPtr r = it->second;
    maybe_free(*r);
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
  at = std::move(row);
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

void Replica::apply(Record& record) {
  const RecordHeader& h = record.header;
  switch (record.kind()) {
    case RecordKind::data:
      record.live = h.blocks();
      unflushed_blocks_ += h.blocks();
      for (std::uint32_t i = 0; i < h.blocks(); ++i) {
        Lba lba = h.lba() + i;
        drop(index_.set(lba, Entry::at_lsn(h.lsn())));
        auto t = tail_.find(lba);
        if (t != tail_.end() && t->second == h.lsn()) tail_.erase(t);
      }
      break;
    case RecordKind::trim:
      index_.clear(h.lba(), h.blocks(), [this](Lba, Entry old) { drop(old); });
      std::erase_if(tail_ranges_, [&](const RecordPtr& r) { return r->lsn() == h.lsn(); });
      break;
    case RecordKind::index: apply_index(record); break;
    default: break;
  }
}

void Replica::apply_index(const Record& record) {
  const auto* body = flatbuffers::GetRoot<fbs::IndexRecord>(record.body.data());
  std::vector<std::uint64_t> placed_in(body->stripes() ? body->stripes()->size() : 0);
  if (body->stripes()) {
    for (const fbs::Stripe* s : *body->stripes()) {
      StripeRow row;
      row.id = {s->id()->vp(), s->id()->epoch(), s->id()->counter()};
      row.layout = {s->k(), s->m()};
      row.chunk_bytes = s->chunk_bytes();
      for (const fbs::ChunkPlace* p : *s->places()) row.places.push_back(*p);
      put_stripe(s->number(), std::move(row));
      next_stripe_ = std::max(next_stripe_, s->number() + 1);
    }
  }
  if (body->placements() && body->placement_stripe()) {
    for (std::uint32_t i = 0; i < body->placements()->size(); ++i) {
      const fbs::Placement* p = body->placements()->Get(i);
      std::uint64_t number = body->placement_stripe()->Get(i);
      // A block written or trimmed since the flush read it stays what it is (protocol 7.2).
      if (index_.get(p->lba()) != Entry::at_lsn(p->lsn()) && !broken(Switch::unconditional_index_record)) continue;
      drop(index_.set(p->lba(), Entry::at_stripe(number, p->block())));
      count_live(number, p->block(), true);
    }
  }
  sessions.merge(body->sessions());
}

void Replica::maybe_free(Record& record) {
  if (record.live != 0 || record.lsn() > commit_ || record.kind() != RecordKind::data) return;
  if (pin_ != 0 && record.lsn() >= pin_) return;
  Lsn lsn = record.lsn();
  if (record.durable && release) release(Portion::data, record.position.segment);
  window_ = std::max(window_, lsn + 1);
  payload_bytes_ -= record.payload.size();
  records_.erase(lsn);
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

void Replica::pin(Lsn lsn) {
  pin_ = lsn;
  std::vector<RecordPtr> dead;
  for (const auto& [l, r] : records_)
    if (l <= commit_ && r->kind() == RecordKind::data && r->live == 0 && (pin_ == 0 || l < pin_)) dead.push_back(r);
  for (const RecordPtr& r : dead) maybe_free(*r);
}

void Replica::truncate(LogPoint to) {
  LUGE_CHECK(to.lsn >= commit_);
  while (!records_.empty() && records_.rbegin()->first > to.lsn) {
    auto it = std::prev(records_.end());
    Record& r = *it->second;
    if (r.kind() != RecordKind::data) small_.pop_back();
    payload_bytes_ -= r.payload.size();
    if (r.durable && r.kind() == RecordKind::data && release) release(Portion::data, r.position.segment);
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
  Index index;
  absl::btree_map<std::uint64_t, StripeRow> stripes;
  std::vector<EpochStart> starts;
  std::uint64_t next_stripe = 1;
  Sessions sessions;
  std::uint32_t parts = 0;
};

Replica::Image Replica::save_image() const {
  Image image;
  image.point = {epoch_at(commit_), commit_};
  fbs::LogPoint point(image.point.epoch, image.point.lsn);
  auto take = [&](RecordKind kind, flatbuffers::FlatBufferBuilder& b) {
    image.bodies.emplace_back(kind, std::string(reinterpret_cast<const char*>(b.GetBufferPointer()), b.GetSize()));
  };
  {
    flatbuffers::FlatBufferBuilder b;
    std::vector<fbs::EpochStartEntry> starts;
    for (const EpochStart& s : starts_)
      if (s.lsn <= commit_) starts.emplace_back(s.epoch, s.lsn);
    auto starts_vector = b.CreateVectorOfStructs(starts);
    auto saved = b.CreateVector(sessions.save(b, commit_));
    b.Finish(fbs::CreateImageBegin(b, &point, designation.history, starts_vector, next_stripe_, saved));
    take(RecordKind::image_begin, b);
  }
  std::vector<std::uint64_t> pages = index_.pages();
  auto stripe = stripes_.begin();
  std::uint32_t parts = 0;
  for (std::size_t p = 0; p < pages.size() || stripe != stripes_.end();) {
    flatbuffers::FlatBufferBuilder b(160 << 10);
    std::vector<flatbuffers::Offset<fbs::Page>> page_offsets;
    std::vector<flatbuffers::Offset<fbs::Stripe>> stripe_offsets;
    for (std::size_t n = 0; n < kPagesPerPart && p < pages.size(); ++n, ++p) {
      const Index::Page& page = *index_.page(pages[p]);
      std::vector<std::uint64_t> raw(page.size());
      for (std::size_t i = 0; i < page.size(); ++i) raw[i] = page[i].raw();
      auto entries = b.CreateVector(raw);
      page_offsets.push_back(fbs::CreatePage(b, pages[p], entries));
    }
    for (std::size_t n = 0; n < kStripesPerPart && stripe != stripes_.end(); ++n, ++stripe) {
      const StripeRow& row = stripe->second;
      fbs::StripeId id(row.id.vp, row.id.epoch, row.id.counter);
      auto places = b.CreateVectorOfStructs(row.places);
      stripe_offsets.push_back(fbs::CreateStripe(b, stripe->first, &id, static_cast<std::uint16_t>(row.layout.k),
                                                 static_cast<std::uint16_t>(row.layout.m), row.chunk_bytes, places,
                                                 row.live_blocks));
    }
    auto pages_vector = b.CreateVector(page_offsets);
    auto stripes_vector = b.CreateVector(stripe_offsets);
    b.Finish(fbs::CreateImagePart(b, pages_vector, stripes_vector));
    take(RecordKind::image_part, b);
    ++parts;
  }
  flatbuffers::FlatBufferBuilder b;
  b.Finish(fbs::CreateImageEnd(b, &point, parts));
  take(RecordKind::image_end, b);
  return image;
}

namespace {

template <class T>
const T* verified(const std::string& body) {
  flatbuffers::Verifier v(reinterpret_cast<const std::uint8_t*>(body.data()), body.size(), 64, 10'000'000);
  return v.VerifyBuffer<T>(nullptr) ? flatbuffers::GetRoot<T>(body.data()) : nullptr;
}

}  // namespace

bool Replica::load_image(RecordKind kind, const std::string& body) {
  if (kind == RecordKind::image_begin) {
    const auto* begin = verified<fbs::ImageBegin>(body);
    if (!begin || !begin->point()) return false;
    loading_ = std::make_shared<Loading>();
    Loading& l = **loading_;
    l.point = {begin->point()->epoch(), begin->point()->lsn()};
    if (begin->starts())
      for (const auto* s : *begin->starts()) l.starts.push_back({s->epoch(), s->lsn()});
    l.next_stripe = begin->next_stripe();
    l.sessions.merge(begin->sessions());
    return true;
  }
  if (!loading_) return false;
  Loading& l = **loading_;
  if (kind == RecordKind::image_part) {
    const auto* part = verified<fbs::ImagePart>(body);
    if (!part) return false;
    ++l.parts;
    if (part->pages()) {
      for (const fbs::Page* p : *part->pages()) {
        if (!p->entries() || p->entries()->size() != Index::kFanOut || p->number() > designation.blocks / Index::kFanOut)
          return false;
        Index::Page page;
        for (std::uint32_t i = 0; i < Index::kFanOut; ++i) page[i] = Entry::from_raw(p->entries()->Get(i));
        l.index.load_page(p->number(), page);
      }
    }
    if (part->stripes()) {
      for (const fbs::Stripe* s : *part->stripes()) {
        if (!s->id() || !s->places()) return false;
        StripeRow row;
        row.id = {s->id()->vp(), s->id()->epoch(), s->id()->counter()};
        row.layout = {s->k(), s->m()};
        row.chunk_bytes = s->chunk_bytes();
        row.live_blocks = s->live_blocks();
        for (const fbs::ChunkPlace* p : *s->places()) row.places.push_back(*p);
        l.stripes[s->number()] = std::move(row);
      }
    }
    return true;
  }
  const auto* end = verified<fbs::ImageEnd>(body);
  if (!end || !end->point() || end->point()->lsn() != l.point.lsn || end->parts() != l.parts) return false;
  // Complete: it replaces what was committed; a tail beyond it stays (recovery), see recount().
  std::shared_ptr<Loading> done = std::move(*loading_);
  loading_.reset();
  index_ = std::move(done->index);
  stripes_ = std::move(done->stripes);
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
  return true;
}

void Replica::adopt_unflushed(RecordPtr record) {
  record->live = 0;
  oldest_data_ = std::min(oldest_data_, record->lsn());
  payload_bytes_ += record->payload.size();
  records_.emplace(record->lsn(), std::move(record));
}

std::uint64_t Replica::missing_in(const Index& index) const {
  std::uint64_t missing = 0;
  index.for_each_page([&](std::uint64_t, const Index::Page& page) {
    for (Entry e : page)
      if (e.is_lsn() && records_.find(e.lsn()) == records_.end()) ++missing;
  });
  return missing;
}

std::uint64_t Replica::missing_unflushed() const { return missing_in(index_); }

std::uint64_t Replica::missing_unflushed_while_loading() const { return loading_ ? missing_in((*loading_)->index) : 0; }

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
  std::vector<RecordPtr> dead;
  for (const auto& [lsn, r] : records_)
    if (lsn <= commit_ && r->kind() == RecordKind::data && r->live == 0) dead.push_back(r);
  for (const RecordPtr& r : dead) maybe_free(*r);
  trim_window();
}

void Replica::reset() {
  for (const auto& [lsn, r] : records_)
    if (r->durable && r->kind() == RecordKind::data && release) release(Portion::data, r->position.segment);
  records_.clear();
  small_.clear();
  payload_bytes_ = 0;
  payload_cursor_ = oldest_data_ = 0;
  tail_.clear();
  tail_ranges_.clear();
  index_ = Index();
  stripes_.clear();
  sled_shares_.clear();
  sessions.clear();
  starts_.clear();
  next_stripe_ = 1;
  unflushed_blocks_ = 0;
  last_ = {};
  durable_ = commit_ = known_commit_ = 0;
  window_ = 1;
  loading_.reset();
}

void Replica::release_everything() {
  reset();
  for (const MetaRecord& m : meta_records_)
    if (release) release(Portion::meta, m.segment);
  meta_records_.clear();
  for (std::uint32_t s : image_segments_)
    if (release) release(Portion::meta, s);
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
    if (release) release(Portion::meta, m.segment);
    return true;
  });
  for (std::uint32_t s : image_segments_)
    if (release) release(Portion::meta, s);
  image_segments_ = std::move(segments);
  image_point_ = point.lsn;
}

}  // namespace luge::head
