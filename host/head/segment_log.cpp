#include "head/segment_log.hpp"

#include <algorithm>

#include "base/crc32c.hpp"
#include "base/logging.hpp"
#include "switches/paths.hpp"
#include "switches/switches.hpp"

namespace luge::head {
namespace {

constexpr std::size_t kBatchPayload = 1 << 20;
constexpr std::size_t kBatchHeaderArea = 256 << 10;

// A segment's row in the MetaStore.
struct SegmentRow {
  std::uint64_t generation;
  std::uint64_t sequence;
  std::uint32_t start_crc;
  std::uint32_t reserved;
};
static_assert(sizeof(SegmentRow) == 24);

std::uint64_t round_up(std::uint64_t n, std::uint64_t to) { return (n + to - 1) / to * to; }

void note_highest(std::map<VpId, Lsn>& highest, const Record& r) {
  Lsn& lsn = highest[r.header.vp()];
  lsn = std::max(lsn, r.lsn());
}

std::size_t record_bytes(const Record& r) { return sizeof(RecordHeader) + padded8(r.body.size()); }

std::uint32_t area_crc(Bytes used) {
  BatchHeader h;
  std::memcpy(&h, used.data(), sizeof h);
  h.crc = 0;
  return crc32c(used.subspan(sizeof h), crc32c(Bytes(reinterpret_cast<const std::byte*>(&h), sizeof h)));
}

}  // namespace

SegmentLog::SegmentLog(io::World& world, io::MetaStore& meta, std::uint64_t& order, Options options)
    : world_(world), meta_(meta), order_(order), options_(std::move(options)), wake_(world) {}

std::string SegmentLog::meta_key(std::uint32_t segment) const {
  return std::string(options_.portion == Portion::data ? "segment/data/" : "segment/meta/") + std::to_string(segment);
}

io::Task<Result<SegmentLog::Recovery>> SegmentLog::open() {
  std::uint64_t count = options_.bytes / options_.segment_bytes;
  if (count < 4 || options_.segment_bytes % kBlockBytes != 0)
    co_return Status(Code::invalid, options_.path + ": a log portion needs at least 4 segments; make the log larger or the segments smaller");
  options_.bytes = count * options_.segment_bytes;
  auto file = co_await world_.files().open(options_.path, {.create = true, .size = options_.bytes, .prewrite = true});
  if (!file.ok()) co_return file.status();
  file_ = std::move(*file);
  if (file_->size() != options_.bytes)
    co_return Status(Code::invalid, options_.path + ": the log has " + std::to_string(file_->size()) +
                                        " bytes, the configuration says " + std::to_string(options_.bytes) +
                                        "; set the old size (the log's size cannot be changed yet)");
  segments_.resize(count);
  std::map<std::uint64_t, std::uint32_t> used;
  for (std::uint32_t s = 0; s < count; ++s) {
    auto row = meta_.get(meta_key(s));
    if (row && row->size() == sizeof(SegmentRow)) {
      SegmentRow r;
      std::memcpy(&r, row->data(), sizeof r);
      segments_[s] = {r.generation, r.sequence, r.start_crc, 0, {}};
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
      out.suspect = true;
      out.why = options_.path + ": the last batches before segment " + std::to_string(it->second) + " are gone";
    }
    previous_crc_ = segment.start_crc;
    auto next = std::next(it);
    std::optional<std::uint32_t> next_start;
    if (next != used.end() && next->first == it->first + 1) next_start = segments_[next->second].start_crc;
    Status s = co_await scan_segment(it->second, next == used.end(), next_start, out);
    if (!s.ok()) co_return s;
  }
  co_return out;
}

bool SegmentLog::parse_batch(Bytes area, std::uint32_t number, std::uint64_t offset, BatchHeader& h) const {
  if (area.size() < sizeof h) return false;
  std::memcpy(&h, area.data(), sizeof h);
  std::uint64_t room = options_.segment_bytes - offset;
  if (h.magic != kBatchMagic || h.version != kBatchVersion || h.node != options_.node) return false;
  if (h.portion != static_cast<std::uint8_t>(options_.portion)) return false;
  if (h.generation != segments_[number].generation && !broken(Switch::segment_generation_unchecked)) return false;
  if (h.offset_blocks != offset / kBlockBytes || h.header_bytes % kBlockBytes != 0 || h.header_bytes == 0) return false;
  if (h.used_bytes < sizeof h || h.used_bytes > h.header_bytes) return false;
  return h.header_bytes + std::uint64_t{h.payload_blocks} * kBlockBytes <= room;
}

io::Task<Status> SegmentLog::clear_block(std::uint64_t offset) {
  Buffer zeros = Buffer::zeros(kBlockBytes);
  Bytes part = zeros.bytes();
  co_return co_await file_->write(offset, std::span(&part, 1), io::Durability::durable);
}

// Rot or torn tail: is there a valid batch of this use of the segment anywhere behind `offset`?
io::Task<bool> SegmentLog::valid_batch_behind(std::uint32_t number, std::uint64_t offset) {
  std::uint64_t base = number * options_.segment_bytes;
  Buffer segment = Buffer::allocate(options_.segment_bytes - offset);
  Status s = co_await file_->read(base + offset, segment.mutable_bytes());
  if (!s.ok()) co_return true;
  for (std::uint64_t at = kBlockBytes; at < segment.size(); at += kBlockBytes) {
    BatchHeader h;
    if (!parse_batch(segment.bytes().subspan(at), number, offset + at, h)) continue;
    if (h.used_bytes <= segment.size() - at && area_crc(segment.bytes().subspan(at, h.used_bytes)) == h.crc) co_return true;
  }
  co_return false;
}

io::Task<Status> SegmentLog::scan_segment(std::uint32_t number, bool last, std::optional<std::uint32_t> next_start_crc, Recovery& out) {
  std::uint64_t base = number * options_.segment_bytes;
  Buffer segment = Buffer::allocate(options_.segment_bytes);
  for (std::uint64_t at = 0; at < options_.segment_bytes; at += 1 << 20) {
    std::size_t n = std::min<std::uint64_t>(1 << 20, options_.segment_bytes - at);
    if (Status s = co_await file_->read(base + at, MutableBytes(segment.data() + at, n)); !s.ok())
      co_return s.with(options_.path);
  }
  std::uint64_t at = 0;
  while (at < options_.segment_bytes) {
    Bytes area = segment.bytes().subspan(at);
    BatchHeader h;
    bool valid = parse_batch(area, number, at, h) && area_crc(area.first(h.used_bytes)) == h.crc;
    if (valid && h.previous_crc != previous_crc_) {
      // The chain is broken: the batch before this one is gone.
      out.suspect = true;
      out.why = options_.path + ": a batch is missing before segment " + std::to_string(number) + " offset " + std::to_string(at);
    }
    if (!valid) {
      if (co_await valid_batch_behind(number, at)) {
        out.suspect = true;
        out.why = options_.path + ": segment " + std::to_string(number) + " is damaged at offset " + std::to_string(at);
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
    Bytes payload = area.subspan(h.header_bytes, std::size_t{h.payload_blocks} * kBlockBytes);
    if (Status s = take_records(area, h, number, at, payload, batch); !s.ok()) {
      out.suspect = true;
      out.why = options_.path + ": " + s.text();
    } else if (std::find(batch.rotten.begin(), batch.rotten.end(), true) != batch.rotten.end() &&
               (last || next_start_crc == h.previous_crc) && !co_await valid_batch_behind(number, at)) {
      // The newest batch of its time with a payload that does not match: a torn write, nobody was told it is durable. Once the
      // segment begun after it has been used again, nothing tells it from rot any more: no later replay may find it.
      if (Status s = co_await clear_block(base + at); !s.ok()) co_return s.with(options_.path);
      previous_crc_ = h.previous_crc;
      out.torn_bytes = options_.segment_bytes - at;
      break;
    } else {
      segments_[number].live += batch.records.size();
      for (const RecordPtr& r : batch.records) note_highest(segments_[number].highest, *r);
      out.batches.push_back(std::move(batch));
    }
    at += h.header_bytes + std::uint64_t{h.payload_blocks} * kBlockBytes;
  }
  co_return Status();
}

Status SegmentLog::take_records(Bytes area, const BatchHeader& h, std::uint32_t number, std::uint64_t offset,
                                Bytes payload, RecoveredBatch& out) const {
  Bytes rest = area.subspan(sizeof h, h.used_bytes - sizeof h);
  auto damaged = [&] { return Status(Code::corrupt, "a batch with a valid checksum does not parse"); };
  if (std::uint64_t{h.commits} * sizeof(CommitEntry) > rest.size()) return damaged();
  out.commits.resize(h.commits);
  std::memcpy(out.commits.data(), rest.data(), h.commits * sizeof(CommitEntry));
  rest = rest.subspan(h.commits * sizeof(CommitEntry));
  std::uint64_t payload_at = 0;
  for (std::uint32_t i = 0; i < h.records; ++i) {
    auto r = std::make_shared<Record>();
    if (rest.size() < sizeof(RecordHeader)) return damaged();
    std::memcpy(&r->header, rest.data(), sizeof(RecordHeader));
    rest = rest.subspan(sizeof(RecordHeader));
    if (padded8(r->header.body_bytes()) > rest.size()) return damaged();
    Bytes body = rest.first(r->header.body_bytes());
    rest = rest.subspan(padded8(body.size()));
    if (Status s = check_record(r->header, body); !s.ok()) return s;
    r->body.assign(reinterpret_cast<const char*>(body.data()), body.size());
    std::uint64_t bytes = std::uint64_t{r->payload_blocks()} * kBlockBytes;
    if (bytes > payload.size() - payload_at) return damaged();
    r->position = {number, number * options_.segment_bytes + offset + h.header_bytes + payload_at};
    r->durable = true;
    bool rotten = bytes != 0 && !check_payload(r->header, body, payload.subspan(payload_at, bytes)).ok();
    payload_at += bytes;
    out.rotten.push_back(rotten);
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
  queued_bytes_ += record_bytes(*record) + record->payload.size();
  queue_.push_back(std::move(record));
  if (queue_.size() == 1) wake_.notify_all();
}

std::vector<RecordPtr> SegmentLog::take_batch() {
  std::vector<RecordPtr> batch;
  std::size_t payload = 0, header = sizeof(BatchHeader);
  while (!queue_.empty()) {
    const Record& r = *queue_.front();
    std::size_t h = record_bytes(r) + sizeof(CommitEntry);
    std::uint64_t quarter = options_.segment_bytes / 4;  // a batch never spans segments
    if (!batch.empty() && (payload + r.payload.size() > std::min<std::uint64_t>(kBatchPayload, quarter) ||
                           header + h > std::min<std::uint64_t>(kBatchHeaderArea, quarter)))
      break;
    payload += r.payload.size();
    header += h;
    queued_bytes_ -= record_bytes(r) + r.payload.size();
    batch.push_back(std::move(queue_.front()));
    queue_.pop_front();
  }
  return batch;
}

Buffer SegmentLog::encode(const std::vector<RecordPtr>& batch, std::uint32_t offset_blocks) {
  std::vector<CommitEntry> commits;
  std::size_t used = sizeof(BatchHeader);
  std::uint32_t blocks = 0;
  for (const RecordPtr& r : batch) {
    VpId vp = r->header.vp();
    if (std::none_of(commits.begin(), commits.end(), [&](const CommitEntry& c) { return c.vp == vp; }))
      commits.push_back({vp, commit_of ? commit_of(vp) : 0});
    used += record_bytes(*r);
    blocks += static_cast<std::uint32_t>(r->payload.size() / kBlockBytes);
  }
  used += commits.size() * sizeof(CommitEntry);
  Buffer area = Buffer::allocate(round_up(used, kBlockBytes));
  std::byte* p = area.data() + sizeof(BatchHeader);
  auto put = [&p](const void* from, std::size_t n) {
    std::memcpy(p, from, n);
    p += n;
  };
  put(commits.data(), commits.size() * sizeof(CommitEntry));
  for (const RecordPtr& r : batch) {
    put(&r->header, sizeof r->header);
    put(r->body.data(), r->body.size());
    std::size_t pad = padded8(r->body.size()) - r->body.size();
    std::memset(p, 0, pad);
    p += pad;
  }
  std::memset(area.data() + used, 0, area.size() - used);
  BatchHeader h;
  h.portion = static_cast<std::uint8_t>(options_.portion);
  h.header_bytes = static_cast<std::uint32_t>(area.size());
  h.used_bytes = static_cast<std::uint32_t>(used);
  h.payload_blocks = blocks;
  h.records = static_cast<std::uint32_t>(batch.size());
  h.commits = static_cast<std::uint32_t>(commits.size());
  h.previous_crc = previous_crc_;
  h.generation = segments_[active_].generation;
  h.order = order_++;
  h.node = options_.node;
  h.offset_blocks = offset_blocks;
  std::memcpy(area.data(), &h, sizeof h);
  h.crc = area_crc(area.bytes().first(used));
  std::memcpy(area.data(), &h, sizeof h);
  previous_crc_ = h.crc;
  return area;
}

io::Task<Status> SegmentLog::next_segment() {
  while (free_.empty()) co_await wake_.wait();
  std::uint32_t s = *free_.begin();
  free_.erase(free_.begin());
  Segment next{segments_[s].generation + 1, next_sequence_++, previous_crc_, 0, {}};
  SegmentRow r{next.generation, next.sequence, next.start_crc, 0};
  std::string row(reinterpret_cast<const char*>(&r), sizeof r);
  // Written down before the first batch of this use: recovery never guesses which content is current.
  if (Status st = co_await meta_.put(meta_key(s), row); !st.ok()) co_return st;
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

io::Task<Status> SegmentLog::write_batch(std::vector<RecordPtr> batch) {
  std::size_t header = sizeof(BatchHeader), payload = 0;
  for (const RecordPtr& r : batch) {
    header += record_bytes(*r) + sizeof(CommitEntry);
    payload += r->payload.size();
  }
  std::uint64_t need = round_up(header, kBlockBytes) + payload;
  LUGE_CHECK(need <= options_.segment_bytes);
  if (!has_active_ || active_offset_ + need > options_.segment_bytes) {
    Status s = co_await next_segment();
    if (!s.ok()) co_return s;
  }
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
  active_offset_ = at - base;
  segments_[active_].live += batch.size();
  for (const RecordPtr& r : batch) note_highest(segments_[active_].highest, *r);
  Status s = co_await file_->write(base + offset, parts, io::Durability::durable);
  if (!s.ok()) co_return s.with(options_.path);
  appended_bytes_ += at - (base + offset);
  ++batches_;
  for (const RecordPtr& r : batch) r->durable = true;
  if (on_durable) on_durable(batch);
  co_return Status();
}

io::Task<void> SegmentLog::writer() {
  while (!failed_) {
    if (queue_.empty()) {
      co_await wake_.wait();
      continue;
    }
    std::vector<RecordPtr> batch = take_batch();
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
  Status s = co_await file_->read(record.position.offset + std::uint64_t{first} * kBlockBytes, b.mutable_bytes());
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

std::uint32_t SegmentLog::fill() const {
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(1000, (used_bytes() + queued_bytes_) * 1000 / options_.bytes));
}

}  // namespace luge::head
