#include "attach/virtio_blk.hpp"

#include <algorithm>
#include <cstring>

#include "base/logging.hpp"
#include "switches/switches.hpp"

namespace luge::attach {
namespace {

using namespace std::chrono_literals;

enum : std::uint32_t { kIn = 0, kOut = 1, kFlush = 4, kGetId = 8, kDiscard = 11, kWriteZeroes = 13 };
enum : std::uint8_t { kOk = 0, kIoError = 1, kUnsupported = 2 };
enum : unsigned { kSegMax = 2, kReadOnly = 5, kBlkSize = 6, kFlushes = 9, kTopology = 10, kMq = 12, kDiscards = 13, kWritesZeroes = 14, kIndirect = 28, kEventIndex = 29, kVersion1 = 32 };

constexpr std::uint64_t kSector = 512;
constexpr std::uint32_t kHeaderBytes = 16, kIdBytes = 20, kRangeBytes = 16;
constexpr std::uint32_t kMostRanges = 16, kMostRangeSectors = 1u << 21;  // 1 GiB a range
constexpr std::uint64_t kRequestCost = 4096;                              // of one without data

struct Header {
  std::uint32_t type, reserved;
  std::uint64_t sector;
};
struct Range {
  std::uint64_t sector;
  std::uint32_t sectors, flags;
};
static_assert(sizeof(Header) == kHeaderBytes && sizeof(Range) == kRangeBytes);

}  // namespace

struct VirtioBlk::Request {
  Queue* queue = nullptr;
  std::size_t queue_index = 0;
  std::uint16_t head = 0;
  std::vector<Segment> segments;
  std::size_t first_writable = 0;
  Header header{};
  std::uint64_t readable = 0, writable = 0, cost = 0;
  std::uint32_t written = 0, left = 0;
  std::uint64_t status_address = 0, target = 0;  // target: its number
  bool failed = false, abandoned = false, read_error = false;
  std::vector<Buffer> data;  // kept while they are written
  std::byte id[kIdBytes] = {};
  std::uint8_t status = 0;
  card::DmaTransfer transfer;
};

// Used elements, side by side as they stand in the ring, and the used index behind them.
struct VirtioBlk::Publication {
  Queue* queue = nullptr;
  std::size_t queue_index = 0;
  std::vector<std::uint16_t> heads;
  std::vector<UsedElement> elements;
  std::uint16_t index = 0;
  card::DmaTransfer transfer;
};

VirtioBlk::VirtioBlk(io::World& world, std::shared_ptr<card::DmaPath> dma, std::string name, std::size_t queues)
    : world_(world), dma_(std::move(dma)), name_(std::move(name)), queues_(std::clamp<std::size_t>(queues, 1, kMostQueues)), changed_(world) {}

VirtioBlk::~VirtioBlk() { *alive_ = false; }

VirtioBlkConfig VirtioBlk::config() const {
  VirtioBlkConfig c;
  c.capacity = bytes_ / kSector;
  c.num_queues = static_cast<std::uint16_t>(queues_.size());
  c.max_discard_sectors = c.max_write_zeroes_sectors = kMostRangeSectors;
  c.max_discard_seg = c.max_write_zeroes_seg = kMostRanges;
  return c;
}

std::uint64_t VirtioBlk::features() const {
  std::uint64_t f = 1ull << kVersion1 | 1ull << kIndirect | 1ull << kSegMax | 1ull << kBlkSize | 1ull << kFlushes | 1ull << kTopology | 1ull << kMq |
                    1ull << kDiscards | 1ull << kWritesZeroes | 1ull << kEventIndex;
  return read_only_ ? f | 1ull << kReadOnly : f;
}

void VirtioBlk::set_features(std::uint64_t features) { features_ = features; }

// ---- queues ----

Status VirtioBlk::start(std::size_t index, const Vring::Place& place, std::uint16_t available) {
  Queue& q = queues_[index];
  if (!dma_->memory()) return Status(Code::invalid, "a ring is started without a table of guest memory");
  // The size is the guest's, the area was made for the front end's: what is noted beyond its end would be in somebody else's memory.
  const bool noted = inflight_ && index < inflight_->queues();
  if (noted && place.entries > inflight_->entries())
    return Status(Code::invalid, "queue " + std::to_string(index) + " has " + std::to_string(place.entries) + " entries and its inflight area " + std::to_string(inflight_->entries()));
  if (Status s = q.ring.start(*dma_->memory(), place); !s.ok()) return s;
  q.taken.assign(place.entries, false);
  q.stopping = q.armed = q.arming = false;
  q.ended.clear(), q.elements.clear(), q.replay.clear();
  q.published = q.ring.used_index();
  q.available = available;
  // A new area says nothing of requests that were taken before it: what the front end says of the ring holds, as without one.
  if (noted && inflight_->fresh(index)) {
    inflight_->recover(index, q.published);
  } else if (noted) {
    q.replay = inflight_->recover(index, q.published);
    if (!q.replay.empty()) logging::info("disk '{}': queue {}: {} requests of before are done again", name_, index, q.replay.size());
    stats_.replayed += q.replay.size();
    q.available = static_cast<std::uint16_t>(q.published + q.replay.size());
  }
  // One may have been lost when the ring was stopped last.
  if (q.interrupt) q.interrupt();
  process(q);
  return Status();
}

Status VirtioBlk::move_ring(std::size_t index, const Vring::Place& place) { return queues_[index].ring.start(*dma_->memory(), place); }

void VirtioBlk::set_interrupt(std::size_t index, std::function<void()> interrupt) {
  Queue& q = queues_[index];
  q.interrupt = std::move(interrupt);
  if (q.ring.started() && q.interrupt) q.interrupt();
}

void VirtioBlk::enable(std::size_t index, bool on) {
  queues_[index].enabled = on;
  process(queues_[index]);
}

bool VirtioBlk::any_started() const {
  return std::any_of(queues_.begin(), queues_.end(), [](const Queue& q) { return q.ring.started(); });
}

void VirtioBlk::kick(std::size_t index) { process(queues_[index]); }

void VirtioBlk::set_target(client::BlockTarget* target) {
  target_ = target, ++target_number_;
  for (Queue& q : queues_) process(q);
}

void VirtioBlk::hold(bool on) {
  held_ += on ? 1 : -1;
  changed_.notify_all();
  if (held_ == 0)
    for (Queue& q : queues_) process(q);
}

// Where the guest goes on by the next available index alone, without the inflight area, requests to be done again would be lost: the index is
// behind them.
io::Task<std::uint16_t> VirtioBlk::drain(std::size_t index, io::Duration patience) {
  Queue& q = queues_[index];
  const io::Time deadline = world_.now() + patience;
  q.stopping = true;
  for (process(q); q.ring.started() && !done(q); process(q)) {
    if (stuck(q) && world_.now() >= deadline) break;
    co_await changed_.wait_for(100ms);
  }
  if (!q.replay.empty()) logging::warn("disk '{}': queue {} stops before {} requests of before have been done again", name_, index, q.replay.size());
  q.replay.clear();
  q.ring.stop();
  q.stopping = false;
  co_return q.available;
}

io::Task<bool> VirtioBlk::drain_all() {
  auto busy = [this] {
    return std::any_of(queues_.begin(), queues_.end(), [this](const Queue& q) { return !idle(q); });
  };
  while (held_ != 0 && busy()) co_await changed_.wait_for(100ms);
  co_return held_ != 0;
}

io::Task<bool> VirtioBlk::finish_all() {
  const io::Time deadline = world_.now() + kReplayPatience;
  auto all = [this] { return std::all_of(queues_.begin(), queues_.end(), [this](const Queue& q) { return done(q); }); };
  ++finishing_;
  while (held_ != 0) {
    for (Queue& q : queues_) process(q);  // each time: another holder may have let go
    if (all()) break;
    const bool any_stuck = std::any_of(queues_.begin(), queues_.end(), [this](const Queue& q) { return !done(q) && stuck(q); });
    if (any_stuck && world_.now() >= deadline) break;
    co_await changed_.wait_for(100ms);
  }
  --finishing_;
  co_return held_ != 0 && all();
}

void VirtioBlk::stop_for_good(const Status& why) {
  if (!broken_.ok()) return;
  broken_ = why;
  logging::error("disk '{}': {}; the device is stopped", name_, why.text());
  if (on_broken_) on_broken_();
}

// ---- taking requests ----

void VirtioBlk::process(Queue& q) {
  while (q.ring.started() && target_ != nullptr && broken_.ok() && outstanding_ < kOutstanding) {
    if (!q.replay.empty()) {
      if (!may_replay(q)) return;
      std::uint16_t head = q.replay.front();
      q.replay.erase(q.replay.begin());
      if (head >= q.ring.entries()) return stop_for_good(Status(Code::invalid, "the inflight area names a descriptor that is not there"));
      if (!take(q, head)) return;
      continue;
    }
    if (!q.enabled || q.stopping || held_ != 0) return;
    auto waiting = static_cast<std::uint16_t>(q.ring.available_index() - q.available);
    if (waiting == 0) {
      if (arm(q)) return;
      continue;
    }
    if (waiting > q.ring.entries()) return stop_for_good(Status(Code::invalid, "more requests are available than the ring has entries"));
    auto head = q.ring.head(q.available);
    if (!head.ok()) return stop_for_good(head.status());
    std::size_t index = static_cast<std::size_t>(&q - queues_.data());
    if (being_told(q, *head)) return;  // published() goes on
    if (q.taken[*head]) return stop_for_good(Status(Code::invalid, "a descriptor is made available that is in use"));
    if (inflight_ && index < inflight_->queues()) inflight_->taken(index, *head);
    ++q.available;
    if (!take(q, *head)) return;
  }
}

// A guest uses a head again as soon as the used index is in its memory. The device hears of that a little later, and its inflight area
// holds the head until then.
bool VirtioBlk::being_told(const Queue& q, std::uint16_t head) {
  return q.telling != nullptr && q.taken[head] && std::find(q.telling->heads.begin(), q.telling->heads.end(), head) != q.telling->heads.end();
}

// True: nothing more is to be done now; the guest kicks with its next request, or the arming's end looks again.
bool VirtioBlk::arm(Queue& q) {
  if ((features_ >> kEventIndex & 1) == 0 || q.arming) return true;
  if (q.armed && q.event == q.available) return true;
  q.event = q.available, q.armed = q.arming = true;
  q.arm.parts.assign(1, {q.ring.available_event_address(), std::as_bytes(std::span(&q.event, 1))});
  q.submitting = true;
  q.arm.done = [this, &q] {
    q.arming = false;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (q.submitting) return;  // whoever called looks again
    changed_.notify_all();
    process(q);
  };
  dma_->submit(q.arm);
  q.submitting = false;
  return q.arming;
}

bool VirtioBlk::take(Queue& q, std::uint16_t head) {
  if (dma_->memory()->lost()) return stop_for_good(Status(Code::invalid, "the file of the guest's memory has been made shorter")), false;
  if (q.taken[head]) return stop_for_good(Status(Code::invalid, "a descriptor is in use twice")), false;
  Request* r = new_request();
  r->queue = &q, r->queue_index = static_cast<std::size_t>(&q - queues_.data()), r->head = head;
  Status s = q.ring.chain(head, r->segments);
  if (s.ok()) s = parse(*r);
  if (!s.ok()) {
    free_.push_back(r);
    stop_for_good(s);
    return false;
  }
  q.taken[head] = true;
  ++q.in_flight, ++in_flight_;
  r->cost = kRequestCost + r->segments.size() * sizeof(Segment) + std::max(r->readable, r->writable), r->target = target_number_;
  outstanding_ += r->cost;
  begin(*r);
  return true;
}

VirtioBlk::Request* VirtioBlk::new_request() {
  if (free_.empty()) {
    requests_.push_back(std::make_unique<Request>());
    free_.push_back(requests_.back().get());
  }
  Request* r = free_.back();
  free_.pop_back();
  r->segments.clear(), r->data.clear(), r->transfer.parts.clear();
  r->readable = r->writable = r->cost = 0;
  r->written = r->left = 0;
  r->failed = r->abandoned = false;
  return r;
}

// The header, and where the status goes.
Status VirtioBlk::parse(Request& r) {
  std::uint32_t got = 0;
  auto* header = reinterpret_cast<std::byte*>(&r.header);
  r.first_writable = r.segments.size();
  for (std::size_t i = 0; i < r.segments.size(); ++i) {
    Segment& s = r.segments[i];
    if (s.writable) {
      r.first_writable = std::min(r.first_writable, i);
      r.writable += s.bytes;
      continue;
    }
    std::uint32_t n = std::min(s.bytes, kHeaderBytes - got);
    const std::byte* from = dma_->fetch(s.address, s.bytes);
    if (from == nullptr) return Status(Code::invalid, "a descriptor outside guest memory");
    std::memcpy(header + got, from, n);
    got += n, s.address += n, s.bytes -= n;
    r.readable += s.bytes;
  }
  if (got < kHeaderBytes) return Status(Code::invalid, "a request without a header");
  if (r.writable == 0) return Status(Code::invalid, "a request without a place for its status");
  Segment& last = r.segments.back();
  r.status_address = last.address + last.bytes - 1;
  --last.bytes, --r.writable;
  return Status();
}

bool VirtioBlk::sound(const Request& r, std::uint64_t bytes) const {
  return bytes % kSector == 0 && bytes <= kMostBytes && r.header.sector <= bytes_ / kSector && bytes <= bytes_ - r.header.sector * kSector;
}

void VirtioBlk::begin(Request& r) {
  switch (r.header.type) {
    case kIn: return sound(r, r.writable) ? read(r) : finish(r, kIoError);
    case kOut: return sound(r, r.readable) && !read_only_ ? write(r) : finish(r, kIoError);
    case kFlush: return finish(r, kOk);  // what has ended is durable
    case kGetId: return identify(r);
    case kDiscard:
    case kWriteZeroes: return read_only_ ? finish(r, kIoError) : discard(r);
    default: return finish(r, kUnsupported);
  }
}

void VirtioBlk::read(Request& r) {
  if (r.writable == 0) return finish(r, kOk);
  target_->read(r.header.sector * kSector, static_cast<std::uint32_t>(r.writable), [this, &r](const Status& s, std::span<Buffer> data) {
    if (!s.ok()) return finished(s, r);
    std::size_t segment = r.first_writable;
    std::uint32_t inside = 0;
    r.data.assign(data.begin(), data.end());
    for (const Buffer& b : r.data) scatter(r, b.bytes(), segment, inside);
    ++stats_.reads, stats_.read_bytes += r.written;
    finish(r, kOk);
  });
}

void VirtioBlk::scatter(Request& r, Bytes bytes, std::size_t& segment, std::uint32_t& inside) {
  while (!bytes.empty() && segment < r.segments.size()) {
    const Segment& s = r.segments[segment];
    std::size_t n = std::min<std::size_t>(bytes.size(), s.bytes - inside);
    if (n != 0) r.transfer.parts.push_back({s.address + inside, bytes.first(n)});
    bytes = bytes.subspan(n);
    inside += static_cast<std::uint32_t>(n), r.written += static_cast<std::uint32_t>(n);
    if (inside == s.bytes) ++segment, inside = 0;
  }
}

void VirtioBlk::write(Request& r) {
  if (r.readable == 0) return finish(r, kOk);
  const std::uint64_t offset = r.header.sector * kSector;
  Buffer image = client::allocate_image(offset, static_cast<std::uint32_t>(r.readable));
  std::byte* to = image.data() + offset % kBlockBytes;
  for (std::size_t i = 0; i < r.first_writable; ++i) {
    const Segment& s = r.segments[i];
    if (s.bytes == 0) continue;
    const std::byte* from = dma_->fetch(s.address, s.bytes);
    if (from == nullptr) return finish(r, kIoError);
    std::memcpy(to, from, s.bytes);
    to += s.bytes;
  }
  target_->write(offset, std::move(image), static_cast<std::uint32_t>(r.readable), [this, &r](const Status& s) {
    if (s.ok()) ++stats_.writes, stats_.written_bytes += r.readable;
    finished(s, r);
  });
}

// Discard and write zeroes are the same here: both leave zeros.
void VirtioBlk::discard(Request& r) {
  if (r.readable == 0 || r.readable % kRangeBytes != 0 || r.readable / kRangeBytes > kMostRanges) return finish(r, kIoError);
  Range ranges[kMostRanges];
  std::size_t got = 0;
  for (std::size_t i = 0; i < r.first_writable; ++i) {
    const Segment& s = r.segments[i];
    const std::byte* from = s.bytes != 0 ? dma_->fetch(s.address, s.bytes) : nullptr;
    if (from != nullptr) std::memcpy(reinterpret_cast<std::byte*>(ranges) + got, from, s.bytes);
    got += s.bytes;
  }
  const auto n = static_cast<std::uint32_t>(r.readable / kRangeBytes);
  for (std::uint32_t i = 0; i < n; ++i) {
    const Range& a = ranges[i];
    bool unmap_alone = r.header.type == kDiscard ? a.flags != 0 : (a.flags & ~1u) != 0;
    if (unmap_alone) return finish(r, kUnsupported);
    if (a.sectors > kMostRangeSectors || a.sector > bytes_ / kSector || a.sectors > bytes_ / kSector - a.sector) return finish(r, kIoError);
  }
  r.left = n;
  for (std::uint32_t i = 0; i < n; ++i) {
    auto done = [this, &r](const Status& s) { finished(s, r); };
    auto bytes = static_cast<std::uint32_t>(ranges[i].sectors * kSector);
    if (r.header.type == kDiscard) target_->trim(ranges[i].sector * kSector, bytes, done);
    else target_->zero(ranges[i].sector * kSector, bytes, done);
  }
}

void VirtioBlk::identify(Request& r) {
  if (r.writable < kIdBytes) return finish(r, kIoError);
  std::memset(r.id, 0, sizeof r.id);
  std::memcpy(r.id, name_.data(), std::min(name_.size(), sizeof r.id));
  std::size_t segment = r.first_writable;
  std::uint32_t inside = 0;
  scatter(r, r.id, segment, inside);
  finish(r, kOk);
}

// ---- ending requests ----

// What fails because the volume goes away has not failed: it is to be done again, here or by whoever serves the guest next.
void VirtioBlk::finished(const Status& s, Request& r) {
  bool away = s.code() == Code::unavailable || s.code() == Code::closed_session;
  r.abandoned = r.abandoned || away;
  if (!s.ok() && !away) {
    if (!r.failed) logging::warn("disk '{}': a request at sector {} failed: {}", name_, r.header.sector, s.to_string());
    r.failed = true;
  }
  if (r.left > 1) {
    --r.left;
    return;
  }
  if (r.abandoned) return do_again(r);
  finish(r, r.failed ? kIoError : kOk);
}

// By the next target; at once where there is another already. This one would give the same answer again and again.
void VirtioBlk::do_again(Request& r) {
  Queue& q = *r.queue;
  --q.in_flight, --in_flight_;
  outstanding_ -= r.cost;
  if (!luge::broken(Switch::abandoned_requests_forgotten)) {
    q.taken[r.head] = false;
    q.replay.push_back(r.head);
    away_ = std::max(away_, r.target);
    ++stats_.replayed;
  }
  free_.push_back(&r);
  changed_.notify_all();
  process(q);
}

void VirtioBlk::finish(Request& r, std::uint8_t status) {
  if (status != kOk) ++stats_.errors, r.transfer.parts.clear(), r.written = 0;
  r.status = status;
  r.transfer.parts.push_back({r.status_address, std::as_bytes(std::span(&r.status, 1))});
  r.transfer.done = [this, &r] {
    Queue& q = *r.queue;
    q.ended.push_back(r.head);
    q.elements.push_back({r.head, r.written + 1});
    --q.in_flight, --in_flight_;
    outstanding_ -= r.cost;
    r.data.clear();
    free_.push_back(&r);
    publish_later(q);
  };
  dma_->submit(r.transfer);
}

// All that ends in one turn of the loop is told to the guest at once. One publication at a time: the inflight area knows of one batch.
void VirtioBlk::publish_later(Queue& q) {
  if (std::exchange(q.publishing, true)) return;
  world_.post([this, &q, alive = alive_] {
    if (*alive) publish(q);
  });
}

void VirtioBlk::publish(Queue& q) {
  const auto index = static_cast<std::size_t>(&q - queues_.data());
  if (free_publications_.empty()) {
    publications_.push_back(std::make_unique<Publication>());
    free_publications_.push_back(publications_.back().get());
  }
  Publication* p = free_publications_.back();
  free_publications_.pop_back();
  p->queue = &q, p->queue_index = index;
  q.telling = p;
  p->heads.swap(q.ended);
  p->elements.swap(q.elements);
  p->index = static_cast<std::uint16_t>(q.published + p->heads.size());
  // Records of the data are in the dirty log before a process that takes over could think that the requests have ended.
  if (dma_->has_dirty_log()) dma_->flush_records();
  if (inflight_ && index < inflight_->queues()) inflight_->ending(index, p->heads);
  p->transfer.parts.clear();
  std::span<const UsedElement> left = p->elements;
  for (std::uint16_t at = q.published; !left.empty();) {
    std::size_t n = std::min<std::size_t>(left.size(), q.ring.entries() - at % q.ring.entries());
    p->transfer.parts.push_back({q.ring.used_element_address(at), std::as_bytes(left.first(n))});
    left = left.subspan(n);
    at = static_cast<std::uint16_t>(at + n);
  }
  p->transfer.parts.push_back({q.ring.used_index_address(), std::as_bytes(std::span(&p->index, 1))});
  p->transfer.done = [this, p] { published(*p); };
  dma_->submit(p->transfer);
}

void VirtioBlk::published(Publication& p) {
  Queue& q = *p.queue;
  q.telling = nullptr;
  if (inflight_ && p.queue_index < inflight_->queues()) inflight_->ended(p.queue_index, p.heads, p.index);
  for (std::uint16_t h : p.heads) q.taken[h] = false;
  const std::uint16_t before = std::exchange(q.published, p.index);
  p.heads.clear(), p.elements.clear();
  free_publications_.push_back(&p);
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  bool tell = (features_ >> kEventIndex & 1) != 0
                  ? static_cast<std::uint16_t>(q.published - q.ring.used_event() - 1) < static_cast<std::uint16_t>(q.published - before)
                  : !q.ring.wants_no_interrupt();
  if (tell && q.interrupt) ++stats_.interrupts, q.interrupt();
  q.publishing = false;
  if (!q.ended.empty()) publish_later(q);
  changed_.notify_all();
  process(q);
  if (outstanding_ < kOutstanding)
    for (Queue& other : queues_)
      if (&other != &q) process(other);
}

}  // namespace luge::attach
