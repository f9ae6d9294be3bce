#include "head/segment_log.hpp"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>

#include "base/logging.hpp"
#include "switches/paths.hpp"
#include "switches/switches.hpp"

namespace luge::head {

using namespace std::chrono_literals;

namespace {

constexpr std::size_t kBatchPayload = 1 << 20;
constexpr std::size_t kBatchHeaderArea = 256 << 10;
constexpr std::uint64_t kLargestPart = 256 << 10;  // of an image, about
constexpr io::Duration kStoreAgain = 500ms;  // while the MetaStore is full
constexpr io::Duration kGrowAgain = 5s;  // after it could not

std::uint64_t round_up(std::uint64_t n, std::uint64_t to) { return (n + to - 1) / to * to; }

// An image may wait for it: of a VP that gives up what it has, or one that nobody has opened yet.
bool is_pressing(const Record& r) { return r.kind() == RecordKind::truncate || r.kind() == RecordKind::epoch_start; }

void note_highest(std::map<VpId, Lsn>& highest, const Record& r) {
  Lsn& lsn = highest[r.header.vp()];
  lsn = std::max(lsn, r.lsn());
}

}  // namespace

SegmentLog::SegmentLog(io::World& world, io::MetaStore& meta, std::uint64_t& order, Options options)
    : world_(world), meta_(meta), order_(order), options_(std::move(options)), wake_(world) {}

std::string SegmentLog::meta_key(std::uint32_t segment) const {
  return std::string(options_.portion == Portion::data ? "segment/data/" : "segment/meta/") + std::to_string(segment);
}

std::string SegmentLog::damage_prefix(std::uint32_t segment) const {
  return "damage/" + meta_key(segment) + "/" + std::to_string(segments_[segment].generation) + "/";
}

std::string SegmentLog::damage_key(const Damage& d) const {
  return damage_prefix(d.segment) + std::to_string(d.offset);
}

void SegmentLog::damaged(Recovery& out, std::uint32_t segment, std::uint64_t offset, const std::string& what) const {
  if (meta_.get(damage_key({segment, offset}))) return;
  out.damage.push_back({segment, offset});
  out.why = options_.path + ": segment " + std::to_string(segment) + " at offset " + std::to_string(offset) + ": " + what;
}

bool SegmentLog::has_damage(std::uint32_t segment, const Recovery& found) const {
  return std::any_of(found.damage.begin(), found.damage.end(), [&](const Damage& d) { return d.segment == segment; }) ||
         !meta_.list(damage_prefix(segment)).empty();
}

void SegmentLog::remember_damage(const std::vector<Damage>& damage, std::vector<io::MetaStore::Change>& changes) const {
  for (const Damage& d : damage) changes.emplace_back(damage_key(d), "");
  std::string prefix = options_.portion == Portion::data ? "damage/segment/data/" : "damage/segment/meta/";
  for (auto [key, value] : meta_.list(prefix)) {
    std::uint32_t segment = 0;
    std::uint64_t generation = 0;
    int n = std::sscanf(std::string(key.substr(prefix.size())).c_str(), "%u/%" SCNu64, &segment, &generation);
    if (n != 2 || segment >= segments_.size() || segments_[segment].generation != generation) changes.emplace_back(std::string(key), std::nullopt);
  }
}

io::Task<Result<SegmentLog::Recovery>> SegmentLog::open() {
  std::uint64_t count = options_.bytes / options_.segment_bytes;
  if (count < 4 || options_.segment_bytes % kBlockBytes != 0)
    co_return Status(Code::invalid, options_.path + ": a log portion needs at least 4 segments; make the log larger or the segments smaller");
  options_.bytes = count * options_.segment_bytes;
  auto file = co_await world_.files().open(options_.path, {.create = true, .size = options_.bytes, .prewrite = true});
  if (!file.ok()) co_return file.status();
  file_ = std::make_unique<io::WatchedFile>(world_, std::move(*file), options_.path, options_.io_timeout);
  // What has been used counts, whatever the configuration says now; what has not, does not: a growth may have been cut off in it.
  std::uint64_t used_once = segments_known();
  if (used_once > file_->size() / options_.segment_bytes)
    co_return Status(Code::corrupt, options_.path + ": segment " + std::to_string(used_once - 1) + " lies beyond the end of the file: has it been cut short, or segment-bytes been changed?");
  if (used_once > count && options_.portion == Portion::data)
    co_return Status(Code::invalid, options_.path + ": the log has " + std::to_string(used_once * options_.segment_bytes) + " bytes in use, the configuration says " +
                                        std::to_string(options_.bytes) + "; set the old size (a log can be made longer, not shorter)");
  count = std::max(count, used_once);
  if (file_->size() < count * options_.segment_bytes) {
    logging::info("{}: is made longer, from {} to {} bytes", options_.path, file_->size(), count * options_.segment_bytes);
    if (Status s = co_await file_->grow(count * options_.segment_bytes); !s.ok()) co_return s;
  }
  options_.bytes = count * options_.segment_bytes;
  segments_.resize(count);
  std::map<std::uint64_t, std::uint32_t> used;
  for (std::uint32_t s = 0; s < count; ++s) {
    auto row = meta_.get(meta_key(s));
    if (row && row->size() == sizeof(SegmentRow)) {
      SegmentRow r;
      std::memcpy(&r, row->data(), sizeof r);
      segments_[s] = {r.generation, r.sequence, r.start_crc, r.end, 0, {}};
    }
    if (segments_[s].sequence != 0) {
      used[segments_[s].sequence] = s;
      next_sequence_ = std::max(next_sequence_, segments_[s].sequence + 1);
    } else {
      free_.insert(s);
    }
  }
  Recovery out;
  for (auto it = used.begin(); it != used.end(); ++it) {
    const Segment& segment = segments_[it->second];
    bool follows = it != used.begin() && std::prev(it)->first + 1 == it->first;
    if (follows && previous_crc_ != segment.start_crc) {
      damaged(out, it->second, 0, "the last batches before this are gone");
    }
    previous_crc_ = segment.start_crc;
    auto next = std::next(it);
    std::optional<std::uint32_t> next_start;
    if (next != used.end() && next->first == it->first + 1) next_start = segments_[next->second].start_crc;
    if (next == used.end()) recovered_last_ = it->second, last_may_go_on_ = segment.end == 0;
    Status s = co_await scan_segment(it->second, next == used.end(), next_start, out);
    if (!s.ok()) co_return s;
    // Damage is remembered by its place in this use of the segment: nothing new may come to stand there.
    if (next == used.end()) last_may_go_on_ = last_may_go_on_ && !has_damage(it->second, out);
  }
  co_return out;
}

// Ok: a batch of the segment's present use, and this is its place. wrong_version: the same, in a format not known here.
Status SegmentLog::batch_at(Bytes area, std::uint32_t number, std::uint64_t offset, BatchHeader& h) const {
  Status s = parse_batch_header(area, h);
  if (!s.ok() && s.code() != Code::wrong_version) return s;
  bool ours = h.node == options_.node && h.portion == static_cast<std::uint8_t>(options_.portion);
  bool current = h.generation == segments_[number].generation || broken(Switch::segment_generation_unchecked);
  if (!ours || !current || h.offset_blocks != offset / kBlockBytes) return Status(Code::not_found, "a batch of something else");
  return s;
}

// Rot or torn tail: is there a valid batch of this use of the segment anywhere behind `offset`? It looks at what the scan has read:
// to ask the disk again would be one more answer that can fail, and a failure is neither.
bool SegmentLog::valid_batch_behind(Bytes segment, std::uint32_t number, std::uint64_t offset) const {
  for (std::uint64_t at = offset + kBlockBytes; at < segment.size(); at += kBlockBytes) {
    BatchHeader h;
    if (batch_at(segment.subspan(at), number, at, h).ok()) return true;
  }
  return false;
}

io::Task<Status> SegmentLog::scan_segment(std::uint32_t number, bool last, std::optional<std::uint32_t> next_start_crc, Recovery& out) {
  std::uint64_t base = number * options_.segment_bytes;
  Buffer segment = Buffer::allocate(options_.segment_bytes);
  for (std::uint64_t at = 0; at < options_.segment_bytes; at += 1 << 20) {
    std::size_t n = std::min<std::uint64_t>(1 << 20, options_.segment_bytes - at);
    if (Status s = co_await file_->read(base + at, segment.slice(at, n)); !s.ok())
      co_return s.with(options_.path);
  }
  std::uint64_t at = 0, limit = options_.segment_bytes;
  if (segments_[number].end != 0 && !broken(Switch::torn_end_forgotten))
    limit = std::min(limit, std::uint64_t{segments_[number].end - 1} * kBlockBytes);
  while (at < limit) {
    Bytes area = segment.bytes().subspan(at);
    BatchHeader h;
    Status found = batch_at(area, number, at, h);
    if (found.code() == Code::wrong_version) co_return found.with(options_.path + " at offset " + std::to_string(base + at));
    bool valid = found.ok();
    if (valid && h.previous_crc != previous_crc_) {
      // The chain is broken: the batch before this one is gone.
      damaged(out, number, at, "a batch before this is missing");
    }
    if (!valid) {
      if (valid_batch_behind(segment.bytes(), number, at)) {
        damaged(out, number, at, "this is no batch");
        at += kBlockBytes;  // go on with what can be read; previous_crc_ will not match and that is known already
        continue;
      }
      if (last) out.torn_bytes = options_.segment_bytes - at;
      break;
    }
    previous_crc_ = h.crc;
    order_ = std::max(order_, h.order + 1);
    RecoveredBatch batch;
    batch.order = h.order;
    if (Status s = take_records(area, h, number, at, batch); !s.ok()) {
      damaged(out, number, at, s.text());
    } else if (std::find(batch.rotten.begin(), batch.rotten.end(), true) != batch.rotten.end() &&
               (last || next_start_crc == h.previous_crc) && !valid_batch_behind(segment.bytes(), number, at)) {
      // The newest batch of its time with a payload that does not match: a torn write, which an earlier recovery may have
      // seen already (the segment that it began then does not continue from this batch). Nobody was told it is durable.
      previous_crc_ = h.previous_crc;
      out.torn_bytes = options_.segment_bytes - at;
      break;
    } else {
      segments_[number].live += batch.records.size();
      for (const RecordPtr& r : batch.records) note_highest(segments_[number].highest, *r);
      out.batches.push_back(std::move(batch));
    }
    at += batch_bytes(h);
  }
  if (last) segments_[number].end = static_cast<std::uint32_t>(1 + at / kBlockBytes);
  co_return Status();
}

Status SegmentLog::take_records(Bytes area, const BatchHeader& h, std::uint32_t number, std::uint64_t offset,
                                RecoveredBatch& out) const {
  auto batch = parse_batch(area, h);
  if (!batch.ok()) return batch.status();
  out.commits = std::move(batch->commits);
  std::uint64_t payload_at = number * options_.segment_bytes + offset + h.header_bytes;
  for (const RecordView& v : batch->records) {
    if (Status s = check_record(v.header, v.body); !s.ok()) return s;
    auto r = std::make_shared<Record>();
    r->header = v.header;
    r->body.assign(reinterpret_cast<const char*>(v.body.data()), v.body.size());
    r->position = {number, payload_at};
    r->durable = true;
    payload_at += v.payload.size();
    out.rotten.push_back(!v.payload.empty() && !check_payload(v.header, v.body, v.payload).ok());
    out.records.push_back(std::move(r));
  }
  return Status();
}

void SegmentLog::start() {
  started_ = true;
  recheck();
  world_.spawn("log writer " + options_.path, writer());
}

void SegmentLog::append(RecordPtr record) {
  queued_bytes_ += area_bytes(*record) + record->payload.size();
  pressing_ += is_pressing(*record);
  std::deque<RecordPtr>& queue = is_image(*record) && !broken(Switch::images_wait_in_line) ? images_ : queue_;
  queue.push_back(std::move(record));
  if (queue.size() == 1) wake_.notify_all();
}

std::vector<RecordPtr> SegmentLog::take_batch(std::deque<RecordPtr>& queue) {
  std::vector<RecordPtr> batch;
  std::size_t payload = 0, header = sizeof(BatchHeader);
  while (!queue.empty()) {
    const Record& r = *queue.front();
    std::size_t h = area_bytes(r) + sizeof(CommitEntry);
    std::uint64_t quarter = options_.segment_bytes / 4;  // a batch never spans segments
    if (!batch.empty() && (payload + r.payload.size() > std::min<std::uint64_t>(kBatchPayload, quarter) ||
                           header + h > std::min<std::uint64_t>(kBatchHeaderArea, quarter)))
      break;
    payload += r.payload.size();
    header += h;
    queued_bytes_ -= area_bytes(r) + r.payload.size();
    batch.push_back(std::move(queue.front()));
    queue.pop_front();
  }
  return batch;
}

Buffer SegmentLog::encode(const std::vector<RecordPtr>& batch, std::uint32_t offset_blocks) {
  std::vector<CommitEntry> commits;
  for (const RecordPtr& r : batch) {
    VpId vp = r->header.vp();
    if (std::none_of(commits.begin(), commits.end(), [&](const CommitEntry& c) { return c.vp == vp; }))
      commits.push_back({vp, commit_of ? commit_of(vp) : 0});
  }
  BatchHeader h;
  h.portion = static_cast<std::uint8_t>(options_.portion);
  h.previous_crc = previous_crc_;
  h.generation = segments_[active_].generation;
  h.order = order_++;
  h.node = options_.node;
  h.offset_blocks = offset_blocks;
  Buffer area = encode_batch_area(h, commits, batch);
  previous_crc_ = h.crc;
  return area;
}

std::string SegmentLog::row_of(const Segment& s) const {
  SegmentRow r{s.generation, s.sequence, s.start_crc, s.end};
  return std::string(reinterpret_cast<const char*>(&r), sizeof r);
}

std::string SegmentLog::grown_key() const { return "grown/" + options_.path; }

// So many there have been, as far as it matters: up to the highest that has ever been used, and what it has grown to.
std::uint64_t SegmentLog::segments_known() const {
  std::string prefix = meta_key(0);
  prefix.pop_back();
  std::uint64_t n = 0;
  if (auto grown = meta_.get(grown_key())) n = std::strtoull(std::string(*grown).c_str(), nullptr, 10) / options_.segment_bytes;
  for (auto [key, value] : meta_.list(prefix)) n = std::max<std::uint64_t>(n, std::strtoull(std::string(key.substr(prefix.size())).c_str(), nullptr, 10) + 1);
  return n;
}

io::Task<Status> SegmentLog::grow(std::uint64_t bytes) {
  if (options_.portion == Portion::data || growing_ || bytes <= options_.bytes || broken(Switch::log_never_grows)) co_return Status();
  std::uint64_t to = std::min(round_up(bytes, options_.segment_bytes), options_.most_bytes / options_.segment_bytes * options_.segment_bytes);
  if (to <= options_.bytes) co_return grown(Status(Code::no_space, "it has its greatest size, which meta-bytes-most says"));
  if (world_.now() < grow_again_) co_return Status(Code::no_space, cannot_grow_);
  growing_ = true;
  std::uint64_t from = options_.bytes;
  Status s;
  // Step by step: each can be used as soon as it is there, and where there is no room for one a single segment may be what is needed.
  while (s.ok() && options_.bytes < to) {
    std::uint64_t step = std::min(to - options_.bytes, std::max(options_.growth_step, options_.segment_bytes));
    s = co_await add_segments(options_.bytes + step);
    if (s.code() == Code::no_space && step > options_.segment_bytes) s = co_await add_segments(options_.bytes + options_.segment_bytes);
  }
  growing_ = false;
  if (options_.bytes != from) logging::info("{}: has grown from {} to {} bytes", options_.path, from, options_.bytes);
  co_return grown(s);
}

// Zeros are written also where the file has been longer: whatever stands there is not ours.
io::Task<Status> SegmentLog::add_segments(std::uint64_t to) {
  Buffer zeros = Buffer::zeros(std::min<std::uint64_t>(1 << 20, options_.segment_bytes));
  for (std::uint64_t at = options_.bytes, end = std::min(to, file_->size()); at < end; at += zeros.size()) {
    if (Status s = co_await file_->write(at, zeros.slice(0, std::min<std::uint64_t>(zeros.size(), end - at)), io::Durability::durable); !s.ok()) co_return s;
  }
  if (file_->size() < to)
    if (Status s = co_await file_->grow(to); !s.ok()) co_return s;
  // Said durably, so that a restart has them, too, and need not make them again.
  if (Status s = co_await meta_.put(grown_key(), std::to_string(to)); !s.ok()) co_return s;
  reached(Path::log_grown);
  for (std::uint64_t n = segments_.size(); n < to / options_.segment_bytes; ++n) free_.insert(static_cast<std::uint32_t>(n));
  segments_.resize(to / options_.segment_bytes);
  options_.bytes = to;
  wake_.notify_all();
  if (on_space) on_space();
  co_return Status();
}

Status SegmentLog::grown(Status s) {
  if (!s.ok() && cannot_grow_.empty()) logging::error("{}: cannot grow beyond {} bytes: {}; when it is full, writes wait until it can", options_.path, options_.bytes, s.text());
  cannot_grow_ = s.ok() ? "" : s.text();
  grow_again_ = s.ok() ? io::Time{} : world_.now() + kGrowAgain;
  return s;
}

// Segments become free when an image is complete, and an image needs segments: were there none left for it, it would be waited for ever.
// The first that are new end the wait.
io::Task<void> SegmentLog::grow_or_wait() {
  start_growing(options_.bytes + options_.bytes / 4);
  co_await wake_.wait_for(1s);
}

void SegmentLog::start_growing(std::uint64_t bytes) {
  if (growing_ || options_.portion == Portion::data) return;
  world_.spawn("log grows", [](SegmentLog& log, std::uint64_t to) -> io::Task<void> { (void)co_await log.grow(to); }(*this, bytes));
}

// A store that is full has changed nothing: that is waited for, as for a free segment.
io::Task<Status> SegmentLog::put_rows(std::vector<io::MetaStore::Change> rows) {
  for (bool said = false;; said = true) {
    Status s = co_await meta_.put(rows);
    if (s.code() != Code::no_space || broken(Switch::full_store_fails_log)) co_return s;
    if (!said) logging::error("{}: no segment can be begun, and writes wait: {}", options_.path, s.text());
    co_await wake_.wait_for(kStoreAgain);
  }
}

io::Task<Status> SegmentLog::next_segment() {
  std::uint32_t s = *free_.begin();
  free_.erase(free_.begin());
  Segment next{segments_[s].generation + 1, next_sequence_++, previous_crc_, 0, 0, {}};
  // Written down before the first batch of this use: recovery never guesses which content is current.
  std::vector<io::MetaStore::Change> rows;
  rows.emplace_back(meta_key(s), row_of(next));
  if (auto last = std::exchange(recovered_last_, std::nullopt); last && *last != s)
    rows.emplace_back(meta_key(*last), row_of(segments_[*last]));
  if (Status st = co_await put_rows(std::move(rows)); !st.ok()) co_return st;
  segments_[s] = next;
  std::uint32_t old = active_;
  bool had = has_active_;
  active_ = s;
  active_offset_ = 0;
  has_active_ = true;
  reached(Path::segment_begun);
  if (had) maybe_free(old);
  co_return Status();
}

// What follows a recovery begins a segment of its own. When segments run short it goes on in the last one: a head that starts again and
// again before anything commits, and so before an image could free one, would use them all up. It is the active one from here on, so that
// nothing frees it meanwhile.
io::Task<Status> SegmentLog::go_on_in_last() {
  if (!recovered_last_ || !last_may_go_on_ || free_.size() * 2 > segments_.size()) co_return Status();
  Segment& last = segments_[*recovered_last_];
  if (last.sequence == 0) co_return Status();
  active_ = *recovered_last_;
  active_offset_ = std::uint64_t{last.end - 1} * kBlockBytes;
  has_active_ = true;
  last.end = 0;
  recovered_last_.reset();
  co_return co_await erase_rest();
}

// Nothing of what a torn batch has left, a guest's bytes perhaps, may ever stand where a batch is looked for. Its header goes first and
// alone: with zeros in between, a batch that lacked nothing but zeros would be whole.
io::Task<Status> SegmentLog::erase_rest() {
  const std::uint64_t base = active_ * options_.segment_bytes, from = active_offset_;
  if (from == options_.segment_bytes) co_return Status();
  Buffer first = Buffer::allocate(kBlockBytes);
  if (Status s = co_await file_->read(base + from, first); !s.ok()) co_return s.with(options_.path);
  std::memset(first.data(), 0, 512);  // a sector
  if (Status s = co_await file_->write(base + from, first, io::Durability::durable); !s.ok()) co_return s.with(options_.path);
  Buffer zeros = Buffer::allocate(std::min<std::uint64_t>(1 << 20, options_.segment_bytes));
  std::memset(zeros.data(), 0, zeros.size());
  for (std::uint64_t at = from; at < options_.segment_bytes; at += zeros.size()) {
    Buffer part = zeros.slice(0, std::min<std::uint64_t>(zeros.size(), options_.segment_bytes - at));
    if (Status s = co_await file_->write(base + at, std::move(part), io::Durability::durable); !s.ok()) co_return s.with(options_.path);
  }
  co_return Status();
}

// An eighth of the portion, and of a small one a quarter; or as many as all images take, for in the worst case each segment holds one that is
// needed, and none is free before the last of them has been written anew. One more, since the active one may be nearly full. More than half
// is left to the rest.
std::size_t SegmentLog::kept_for_images() const {
  if (options_.portion == Portion::data || broken(Switch::images_wait_in_line)) return 0;
  const std::size_t all = segments_.size(), share = std::max<std::size_t>(all / 8, std::min<std::size_t>(2, all / 4));
  if (broken(Switch::images_get_a_share)) return share;
  // A part that does not fit leaves the rest of a segment unused.
  const std::uint64_t usable = std::max(options_.segment_bytes / 2, options_.segment_bytes - std::min<std::uint64_t>(options_.segment_bytes, kLargestPart));
  const std::uint64_t needed = images_take_ == 0 ? 0 : (images_take_ + usable - 1) / usable + 1;
  return std::max<std::size_t>(share, std::min<std::uint64_t>(needed, all / 2 - 1));
}

// Behind what is written in the active segment, or in another one. Images that come while others wait go first; what they may wait for, and
// what stands before it, takes all that is kept but the last segment.
io::Task<Status> SegmentLog::make_place(std::uint64_t bytes, bool image) {
  if (!has_active_)
    if (Status s = co_await go_on_in_last(); !s.ok()) co_return s;
  while (true) {
    const std::size_t kept = kept_for_images(), leave = image ? 0 : pressing_ != 0 ? std::min<std::size_t>(1, kept) : kept;
    const bool fits = has_active_ && active_offset_ + bytes <= options_.segment_bytes;
    if (fits && (image || pressing_ != 0 || !active_kept_ || free_.size() >= kept)) co_return Status();
    Status s;
    if (free_.size() > leave) {
      active_kept_ = free_.size() <= kept;
      s = co_await next_segment();
    } else if (!image && !images_.empty()) {
      s = co_await write_batch(take_batch(images_));
    } else {
      waits_for_room_ = true;
      co_await grow_or_wait();
      waits_for_room_ = false;
    }
    if (!s.ok()) co_return s;
  }
}

io::Task<Status> SegmentLog::write_batch(std::vector<RecordPtr> batch) {
  std::size_t header = sizeof(BatchHeader), payload = 0;
  for (const RecordPtr& r : batch) {
    header += area_bytes(*r) + sizeof(CommitEntry);
    payload += r->payload.size();
  }
  std::uint64_t need = round_up(header, kBlockBytes) + payload;
  if (need > options_.segment_bytes)
    co_return Status(Code::internal, options_.path + ": a record of " + std::to_string(need) + " bytes does not fit into a segment of " + std::to_string(options_.segment_bytes));
  if (Status s = co_await make_place(need, is_image(*batch.front())); !s.ok()) co_return s;
  std::uint64_t offset = active_offset_;
  Buffer area = encode(batch, static_cast<std::uint32_t>(offset / kBlockBytes));
  std::uint64_t base = active_ * options_.segment_bytes;
  std::vector<Bytes> parts{area.bytes()};
  std::uint64_t at = base + offset + area.size();
  for (const RecordPtr& r : batch) {
    r->position = {active_, at};
    at += r->payload.size();
    if (r->payload.empty()) continue;
    // Payloads of one message lie behind each other in memory: one part for all of them.
    if (parts.back().data() + parts.back().size() == r->payload.data())
      parts.back() = Bytes(parts.back().data(), parts.back().size() + r->payload.size());
    else
      parts.push_back(r->payload.bytes());
  }
  if (broken(Switch::log_tail_unwritten) && batches_ % 32 == 31 && parts.size() > 1) parts.back() = parts.back().first(parts.back().size() - kBlockBytes);
  active_offset_ = at - base;
  segments_[active_].live += batch.size();
  for (const RecordPtr& r : batch) note_highest(segments_[active_].highest, *r);
  auto owner = std::make_shared<std::vector<Buffer>>();  // a write that hangs in the disk uses them still when the records have let go of them
  owner->reserve(batch.size() + 1);
  for (const RecordPtr& r : batch) owner->push_back(r->payload);
  owner->push_back(std::move(area));
  writing_since_ = world_.now();
  Status s = co_await file_->write(base + offset, std::move(parts), std::move(owner), io::Durability::durable);
  writing_since_.reset();
  if (!s.ok()) co_return s.with(options_.path);
  appended_bytes_ += at - (base + offset);
  ++batches_;
  for (const RecordPtr& r : batch) {
    r->durable = true;
    pressing_ -= is_pressing(*r);
  }
  if (on_durable) on_durable(batch);
  co_return Status();
}

io::Task<void> SegmentLog::writer() {
  while (!failed_) {
    if (queue_.empty() && images_.empty()) {
      co_await wake_.wait();
      continue;
    }
    std::vector<RecordPtr> batch = take_batch(images_.empty() ? queue_ : images_);
    Status s = co_await write_batch(std::move(batch));
    if (!s.ok()) fail(s);
  }
}

void SegmentLog::fail(Status status) {
  failed_ = true;
  logging::error("log append failed, this head gives its volumes up: {}", status.to_string());
  if (on_failed) on_failed(status);
}

io::Task<Result<Buffer>> SegmentLog::read(const Record& record, std::uint32_t first, std::uint32_t count) {
  Buffer b = Buffer::allocate(std::size_t{count} * kBlockBytes);
  Status s = co_await file_->read(record.position.offset + std::uint64_t{first} * kBlockBytes, b);
  if (!s.ok()) co_return s.with(options_.path);
  co_return b;
}

void SegmentLog::release(std::uint32_t segment, VpId vp, Lsn at) {
  auto it = segments_[segment].highest.find(vp);
  if (it != segments_[segment].highest.end() && !broken(Switch::reuse_before_image)) it->second = std::max(it->second, at);
  release(segment);
}

void SegmentLog::release(std::uint32_t segment) {
  LUGE_CHECK(segments_[segment].live > 0);
  --segments_[segment].live;
  maybe_free(segment);
}

void SegmentLog::maybe_free(std::uint32_t segment) {
  Segment& s = segments_[segment];
  if (!started_ || s.live != 0 || s.sequence == 0 || (has_active_ && segment == active_) || !all_covered(s)) return;
  s.sequence = 0;
  s.highest.clear();
  free_.insert(segment);
  // Not written down: until its next use the old content is merely replayed and found superseded.
  wake_.notify_all();
  if (on_space) on_space();
}

bool SegmentLog::all_covered(const Segment& s) const {
  if (!covered || options_.portion == Portion::meta) return true;
  return std::all_of(s.highest.begin(), s.highest.end(), [this](const auto& h) { return covered(h.first, h.second); });
}

void SegmentLog::recheck() {
  for (std::uint32_t s = 0; s < segments_.size(); ++s) maybe_free(s);
}

std::uint32_t SegmentLog::drained() const {
  std::uint32_t n = 0;
  for (std::uint32_t s = 0; s < segments_.size(); ++s)
    n += segments_[s].live == 0 && segments_[s].sequence != 0 && !(has_active_ && s == active_);
  return n;
}

std::uint64_t SegmentLog::used_bytes() const {
  std::uint64_t full = segments_.size() - free_.size();
  std::uint64_t unused = has_active_ ? options_.segment_bytes - active_offset_ : 0;
  return full * options_.segment_bytes - unused;
}

bool SegmentLog::has_room(std::uint64_t bytes) const {
  std::uint64_t there = free_.size() * options_.segment_bytes + (has_active_ ? options_.segment_bytes - active_offset_ : 0);
  return queued_bytes_ + bytes + options_.segment_bytes <= there;  // a segment: what batches leave unused at the ends of others
}

std::uint32_t SegmentLog::fill() const {
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(1000, (used_bytes() + queued_bytes_) * 1000 / options_.bytes));
}

}  // namespace luge::head
