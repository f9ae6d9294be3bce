#include "card/dma_path.hpp"

#include <algorithm>
#include <cstring>

#include "base/logging.hpp"
#include "switches/switches.hpp"

namespace luge::card {
namespace {

using namespace std::chrono_literals;
using luge_card::dma_record;

// Where the ring lies on the card's bus: no guest has memory there, and every ring is aligned to its size.
constexpr std::uint64_t kRingBase = 1ull << 62;
constexpr std::uint64_t kLine = 64;
constexpr std::size_t kBurstsInKernel = 32;
constexpr unsigned kStuckCycles = 400;   // without progress: the ring is full (a new head needs 72)
constexpr unsigned kHeadCycles = 80;     // between two heads given to the kernel
constexpr unsigned kSettleTurns = 8;       // of the loop, at most, before the last record leaves
constexpr std::uint32_t kOwnSlotsLog2 = 12;
constexpr io::Duration kPoll = 1ms;      // of a full ring whose reader rings no doorbell
constexpr io::Duration kLate = 100ms;    // of data behind its record, when that rule is broken on purpose
constexpr io::Duration kThrottleAhead = 5ms;

bool in_ring(std::uint64_t line) { return line >= kRingBase / kLine; }

}  // namespace

DmaPath::DmaPath(io::World& world, std::unique_ptr<DmaLogger> logger, unsigned function)
    : world_(world), logger_(std::move(logger)), function_(function), changed_(world) {
  LUGE_CHECK(function < kFunctions);
}
DmaPath::~DmaPath() = default;

void DmaPath::set_memory(std::shared_ptr<const GuestMemory> memory) {
  LUGE_CHECK(idle());
  memory_ = std::move(memory);
  if (!running_) return;
  load_window();
  memory_changed_ = static_cast<bool>(ring_);
  publish_state();
}

const std::byte* DmaPath::fetch(std::uint64_t address, std::uint64_t bytes) const {
  const std::byte* from = memory_ ? memory_->at(address, bytes) : nullptr;
  if (log_ && from != nullptr && broken(Switch::dma_reads_recorded)) log_->mark(address, bytes);
  return from;
}

// While records are made, what comes in one turn of the loop goes through the kernel together: each run of its pipeline takes some
// tens of cycles until the last answer, however few bursts are in it.
void DmaPath::submit(DmaTransfer& t) {
  queue_.push_back(&t);
  if (!running_ || pumping_) return pump();
  if (std::exchange(pump_posted_, true)) return;
  world_.post([weak = weak_from_this()] {
    auto self = weak.lock();
    if (!self) return;
    self->pump_posted_ = false;
    self->pump();
  });
}

// `done` may submit: then the loop that runs goes on with it.
void DmaPath::pump() {
  again_ = true;
  if (std::exchange(pumping_, true)) return;
  auto self = shared_from_this();
  while (std::exchange(again_, false)) {
    if (running_) pump_recorded();
    else pump_directly();
  }
  pumping_ = false;
  if (ring_) publish_state();
  changed_.notify_all();
}

void DmaPath::pump_directly() {
  part_ = offset_ = 0;  // the rest of a transfer that was begun is written with what was written of it: nobody has been told
  while (!queue_.empty() && !running_) {
    DmaTransfer& t = *queue_.front();
    if (throttle_holds(t)) return;
    queue_.pop_front();
    direct(t);
    t.done();
  }
}

void DmaPath::direct(DmaTransfer& t) {
  for (const DmaTransfer::Part& p : t.parts) {
    ++stats_.writes, stats_.bytes += p.bytes.size();
    copy(p.address, p.bytes);
  }
}

void DmaPath::copy(std::uint64_t address, Bytes bytes) {
  std::byte* to = memory_ ? memory_->at(address, bytes.size()) : nullptr;
  if (to != nullptr) std::memcpy(to, bytes.data(), bytes.size());
  else ++stats_.outside;
}

bool DmaPath::throttle_holds(const DmaTransfer& t) {
  if (rate_ == 0) return false;
  io::Time now = world_.now();
  if (now < not_before_) {
    tick_at(not_before_);
    return true;
  }
  std::uint64_t bytes = 0;
  for (const DmaTransfer::Part& p : t.parts) bytes += p.bytes.size();
  not_before_ = std::max(not_before_, now - kThrottleAhead) + std::chrono::nanoseconds(bytes * 1'000'000'000ull / rate_);
  return false;
}

// The next burst of what is queued; false: there is none now.
bool DmaPath::next_burst(Burst& b) {
  while (!queue_.empty()) {
    DmaTransfer& t = *queue_.front();
    if (part_ == 0 && offset_ == 0 && throttle_holds(t)) return false;
    if (part_ == t.parts.size()) {  // nothing to write, but its turn comes behind all before it
      if (!bursts_.empty()) return false;
      queue_.pop_front();
      part_ = 0;
      finish(t);
      continue;
    }
    const DmaTransfer::Part& p = t.parts[part_];
    std::uint64_t address = p.address + offset_, room = kGuestPage - address % kGuestPage;
    std::uint64_t n = std::min<std::uint64_t>(room, p.bytes.size() - offset_);
    b = {&t, address, p.bytes.subspan(offset_, n), false};
    if (offset_ == 0) ++stats_.writes, stats_.bytes += p.bytes.size();
    offset_ += n;
    if (offset_ == p.bytes.size()) ++part_, offset_ = 0;
    if (part_ == t.parts.size()) {
      b.last = true;
      queue_.pop_front();
      part_ = 0;
    }
    if (b.last || !goes_unrecorded(b)) return true;
    copy(b.address, b.bytes);
  }
  return false;
}

// Only by a switch: a burst that the log does not see.
bool DmaPath::goes_unrecorded(const Burst& b) {
  if (b.bytes.size() < 512) return false;
  if (broken(Switch::dma_records_lost) && stats_.bursts % 100 == 99) return ++stats_.bursts, true;
  if (!broken(Switch::dma_range_unrecorded)) return false;
  // One that is written again and again: what a guest reads once while it starts would be in the first copy all the same.
  constexpr unsigned kWrittenAgain = 40;
  if (lost_block_ == ~0ull && ++bursts_into_[b.address >> 16] > kWrittenAgain) {
    lost_block_ = b.address >> 16;
    logging::warn("no records of [{:#x}, {:#x})", lost_block_ << 16, (lost_block_ + 1) << 16);
  }
  return b.address >> 16 == lost_block_;
}

void DmaPath::pump_recorded() {
  unsigned stuck = 0;
  while (running_) {
    if (!offering_ && bursts_.size() < kBurstsInKernel && !suspended_) offering_ = next_burst(offered_);
    if (!offering_ && bursts_.empty()) break;
    std::size_t before = bursts_.size() + left_;
    cycle();
    stuck = before == bursts_.size() + left_ ? stuck + 1 : 0;
    if (stuck > kStuckCycles && ring_) return hold();
  }
  held_ = false;
  settle_later();
}

// One cycle: what the kernel lets pass is done at once, and answered in the next.
void DmaPath::cycle() {
  in_.address = offering_;
  if (offering_) {
    in_.line = offered_.address / kLine;
    in_.lines = static_cast<std::uint8_t>((offered_.address + offered_.bytes.size() - 1) / kLine - in_.line + 1);
  }
  in_.data = data_owed_ != 0;
  in_.response = responses_ != 0;
  give_head();
  logger_->cycle(in_, out_);
  in_.examined = false;
  if (out_.response_taken) --responses_;
  if (out_.data_taken) --data_owed_;
  if (out_.address_taken) {
    bursts_.push_back(offered_);
    ++data_owed_, ++stats_.bursts;
    offering_ = false;
  }
  if (out_.leaves) addresses_.push_back(out_.leaves_line);
  if (out_.beat) beat_leaves();
  held_cycles_ = out_.holding ? held_cycles_ + 1 : 0;
  if (out_.answered) {
    LUGE_CHECK(left_ != 0 && !bursts_.empty());
    Burst b = bursts_.front();
    bursts_.pop_front();
    --left_;
    if (b.last) finish(*b.transfer);
  }
}

void DmaPath::beat_leaves() {
  LUGE_CHECK(!addresses_.empty());
  ++responses_;
  if (in_ring(addresses_.front())) {
    take_records();
  } else {
    const Burst& b = bursts_[left_++];
    if (!broken(Switch::dma_record_before_data)) copy(b.address, b.bytes);
  }
  addresses_.pop_front();
}

void DmaPath::take_records() {
  const std::uint64_t first = (addresses_.front() - kRingBase / kLine) * 4;
  for (unsigned lane = 0; lane < 4; ++lane) {
    if ((out_.strobes >> (16 * lane) & 0xffff) == 0) continue;
    dma_record r;
    std::memcpy(&r, out_.bytes + 16 * lane, sizeof r);
    LUGE_CHECK(r.sequence == seen_);
    if (ring_) {
      dma_record* slot = ring_.slot(static_cast<std::uint32_t>(first + lane));
      std::memcpy(static_cast<void*>(slot), &r, offsetof(dma_record, sequence));
      __atomic_store_n(&slot->sequence, r.sequence, __ATOMIC_RELEASE);
    }
    ++seen_;
    see(r);
  }
}

void DmaPath::see(const dma_record& r) {
  switch (r.kind) {
    case luge_card::DMA_WRITTEN:
      ++stats_.records;
      if (!log_) break;
      if (mode_ == RecordMode::scheduled) not_complete_.push_back(r);
      else mark(r);
      break;
    case luge_card::DMA_OVERFLOW:
      ++stats_.overflows;
      overflow_seen_ = true;
      if (log_ && memory_ && !broken(Switch::dma_overflow_ignored))
        for (const GuestRegion& g : memory_->regions()) log_->mark(g.address, g.bytes);
      break;
    case luge_card::DMA_SUSPENDED: marker_seen_ = true; [[fallthrough]];
    case luge_card::DMA_COMPLETED:
      while (!not_complete_.empty() && (r.kind == luge_card::DMA_SUSPENDED || not_complete_.front().sequence < r.address)) {
        mark(not_complete_.front());
        not_complete_.pop_front();
      }
      break;
  }
}

void DmaPath::mark(const dma_record& r) {
  if (log_) log_->mark(r.address, r.last + 1ull);
}

void DmaPath::finish(DmaTransfer& t) {
  if (!broken(Switch::dma_record_before_data)) return t.done();
  late_.push_back(&t);
  world_.spawn("late data", [](std::weak_ptr<DmaPath> weak, io::World& world) -> io::Task<void> {
    co_await world.sleep(kLate);
    auto self = weak.lock();
    if (!self) co_return;
    DmaTransfer* late = self->late_.front();
    self->late_.pop_front();
    self->direct(*late);
    late->done();
    self->changed_.notify_all();
  }(weak_from_this(), world_));
}

// ---- the kernel's run ----

Status DmaPath::start_recording(RecordMode mode, std::uint32_t slots_log2, std::uint32_t watermark, std::function<void()> on_watermark) {
  LUGE_CHECK(!pumping_);
  if (ring_) return Status(Code::exists, "records are being made already");
  auto ring = DmaRing::create(slots_log2, function_, static_cast<std::uint32_t>(mode));
  if (!ring.ok()) return ring.status();
  if (running_) end_kernel();
  ring_ = std::move(*ring);
  on_watermark_ = std::move(on_watermark);
  begin_kernel(mode, slots_log2, watermark);
  pump();
  return Status();
}

void DmaPath::stop_recording() {
  LUGE_CHECK(!pumping_);
  if (!ring_) return;
  end_kernel();
  ring_.header().state.store(ring_.header().state.load() & ~static_cast<std::uint32_t>(kRingRecording | kRingHeld), std::memory_order_seq_cst);
  ring_ = DmaRing();
  on_watermark_ = {};
  if (log_) begin_kernel(RecordMode::completed, kOwnSlotsLog2, 0);
  pump();
}

void DmaPath::set_dirty_log(std::unique_ptr<DirtyLog> log) {
  LUGE_CHECK(!pumping_);
  log_ = std::move(log);
  not_complete_.clear();
  if (log_ && !running_) {
    auto ring = DmaRing::create(kOwnSlotsLog2, function_, 0);
    LUGE_CHECK(ring.ok());
    own_ = std::move(*ring);
    begin_kernel(RecordMode::completed, kOwnSlotsLog2, 0);
  } else if (!log_ && running_ && !ring_) {
    end_kernel();
  }
  pump();
}

void DmaPath::begin_kernel(RecordMode mode, std::uint32_t slots_log2, std::uint32_t watermark) {
  mode_ = mode, seen_ = given_head_ = 1, since_head_ = 0, held_cycles_ = 0;
  overflow_seen_ = memory_changed_ = over_watermark_ = held_ = marker_seen_ = false;
  lost_block_ = ~0ull, bursts_into_.clear();
  in_ = DmaLogger::In();
  in_.function = static_cast<std::uint8_t>(function_);
  in_.suspend = suspended_;
  running_ = true;
  load_window();
  in_.ring_base = kRingBase, in_.slots_log2 = slots_log2, in_.watermark = watermark, in_.at_scheduling = mode == RecordMode::scheduled;
  in_.enable = true;
  for (unsigned n = 0; !out_.recording || !out_.settled; ++n) {
    LUGE_CHECK(n < 10000);
    cycle();
  }
}

// What is on its way passes, recorded or not: a dirty log that goes on gets all of it.
void DmaPath::end_kernel() {
  settle();  // records of what has been answered
  in_.enable = false, in_.suspend = false;
  pumping_ = true;
  std::deque<Burst> passing = bursts_;
  if (offering_) passing.push_back(offered_);
  for (unsigned n = 0; n < 4 || out_.ring_busy || offering_ || !bursts_.empty(); ++n) {
    LUGE_CHECK(n < 10000);
    cycle();
  }
  if (log_)
    for (const Burst& b : passing) log_->mark(b.address, b.bytes.size());
  while (!not_complete_.empty()) {
    mark(not_complete_.front());
    not_complete_.pop_front();
  }
  pumping_ = false, running_ = false;
}

void DmaPath::load_window() {
  for (unsigned n = 0; !out_.ready; ++n) {
    LUGE_CHECK(n < 10000);
    cycle();
  }
  bool lost = broken(Switch::dma_unrecorded) || (broken(Switch::dma_function_unrecorded) && function_ == 1);
  in_.load = true, in_.record = memory_ != nullptr && !lost;
  in_.first_page = memory_ ? memory_->lowest() / kGuestPage : 0;
  in_.last_page = memory_ ? (memory_->end() - 1) / kGuestPage : 0;
  cycle();
  in_.load = false;
}

void DmaPath::give_head() {
  if (++since_head_ < kHeadCycles) return;
  std::uint32_t head = ring_ ? ring_.header().examined.load(std::memory_order_seq_cst) : seen_;
  if (head == given_head_) return;
  in_.examined = true, in_.head = given_head_ = head;
  since_head_ = 0;
}

// The open record and the half-filled line leave when nothing has come for a while. That while is not waited for: it ends when this
// loop has no more for the kernel: data of a read, its status and the used ring are written one after the other, and settling between them
// would cost more than all of them.
void DmaPath::settle_later() {
  pumped_ = true;
  if (!std::exchange(settling_, true)) settle_after(kSettleTurns);
}

void DmaPath::settle_after(unsigned turns) {
  pumped_ = pumped_ && turns == kSettleTurns;  // what comes right behind the first is waited for in any case
  world_.post([weak = weak_from_this(), turns] {
    auto self = weak.lock();
    if (!self) return;
    if (self->pumped_ && turns > 0) return self->settle_after(turns - 1);
    self->settling_ = false;
    if (self->running_ && !self->pumping_) self->settle();
  });
}

void DmaPath::settle() {
  pumping_ = true;
  for (int n = 0; n < logger_->settle_cycles() && !logger_->settled(); ++n) {
    logger_->skip_idle();
    cycle();
  }
  pumping_ = false;
  if (ring_) publish_state();
}

void DmaPath::publish_state() {
  RingHeader& h = ring_.header();
  h.tail.store(seen_, std::memory_order_release);
  h.dirty.store(out_.dirty, std::memory_order_relaxed);
  h.writes.store(stats_.bursts, std::memory_order_relaxed), h.bytes.store(stats_.bytes, std::memory_order_relaxed);
  h.holds.store(stats_.holds, std::memory_order_relaxed);
  std::uint32_t state = kRingRecording | (held_ ? kRingHeld : 0u) | (overflow_seen_ || out_.overflow || out_.overflowing ? kRingOverflow : 0u) |
                        (suspended_ ? kRingSuspended : 0u) | (memory_changed_ ? kRingMemoryChanged : 0u) | (out_.bad_head ? kRingBadHead : 0u);
  std::uint32_t before = h.state.exchange(state, std::memory_order_seq_cst);
  bool wake = out_.over_watermark && !over_watermark_;
  over_watermark_ = out_.over_watermark;
  if ((wake || (state & ~before) != 0) && on_watermark_) on_watermark_();
}

// ---- held back ----

void DmaPath::hold() {
  if (!std::exchange(held_, true)) {
    held_since_ = world_.now();
    ++stats_.holds;
    publish_state();  // from here on the reader rings; what it gave before is looked at once more
    if (ring_.header().examined.load(std::memory_order_seq_cst) != given_head_) {
      again_ = true;
      return;
    }
  }
  overflow_if_late();
  tick_at(world_.now() + kPoll);
}

// The kernel counts the cycles of a hold; the limit is in time. When it is over, the kernel's patience ends a few cycles from now.
void DmaPath::overflow_if_late() {
  if (hold_limit_ == io::Duration(0) || world_.now() - held_since_ < hold_limit_) return;
  in_.patience = held_cycles_ + 8;
  for (unsigned n = 0; n < 32 && !out_.overflowing; ++n) cycle();
  in_.patience = 0;
  if (!out_.overflowing) return;
  held_ = false;
  again_ = true;
  logging::warn("DMA write log of function {}: the ring of {} records has been full for {} ms; writes pass unrecorded until it has a slot", function_, ring_.slots(),
                (world_.now() - held_since_) / 1ms);
}

void DmaPath::tick_at(io::Time t) {
  if (ticking_ && tick_due_ <= t) return;
  ticking_ = true, tick_due_ = t;
  world_.spawn("dma path", tick(weak_from_this(), world_, t));
}

io::Task<void> DmaPath::tick(std::weak_ptr<DmaPath> weak, io::World& world, io::Time at) {
  io::Time now = world.now();
  co_await world.sleep(at > now ? at - now : io::Duration(0));
  auto self = weak.lock();
  if (!self) co_return;
  if (self->tick_due_ == at) self->ticking_ = false;
  self->pump();
}

void DmaPath::throttle(std::uint64_t bytes_per_second) {
  rate_ = bytes_per_second;
  not_before_ = {};
  pump();
}

// ---- suspending ----

io::Task<bool> DmaPath::suspend() {
  suspending_ = true;
  auto self = shared_from_this();
  while (suspending_ && !suspended_) {
    pump();
    if (idle() && !offering_ && late_.empty()) {
      if (!running_) {
        suspended_ = true;
        break;
      }
      in_.suspend = true;
      pumping_ = true;
      for (unsigned round = 0; round < 8 && !(out_.suspended && marker_seen_); ++round) {
        logger_->skip_idle();
        for (int n = 0; n < std::max<int>(kHeadCycles, logger_->idle_cycles()); ++n) cycle();
      }
      pumping_ = false;
      suspended_ = out_.suspended && marker_seen_;
      if (ring_) {
        held_ = !suspended_;
        publish_state();
      }
      if (suspended_) break;
    }
    co_await changed_.wait_for(kPoll);
  }
  suspending_ = false;
  co_return suspended_;
}

void DmaPath::resume() {
  suspending_ = suspended_ = marker_seen_ = held_ = false;
  in_.suspend = false;
  if (running_) {
    pumping_ = true;
    for (int n = 0; n < 4; ++n) cycle();
    pumping_ = false;
  }
  if (ring_) publish_state();
  pump();
}

}  // namespace luge::card
