#include "vmstate/replicator.hpp"

#include <cstring>

#include "base/crc32c.hpp"
#include "base/logging.hpp"
#include "switches/switches.hpp"

namespace luge::vmstate {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kChunkPages = 256;
constexpr auto kExamineEvery = std::chrono::milliseconds(2);
constexpr std::uint64_t kLeastThrottle = 1u << 20;  // bytes per second: a guest's disk stays usable

// timed_out is kept for a machine that may run elsewhere. Before the commit nothing does, whoever didn't answer in time.
Status not_handed_over(Status s) { return s.code() == Code::timed_out ? Status(Code::unavailable, s.text()) : s; }

double seconds_since(Clock::time_point t) { return std::chrono::duration<double>(Clock::now() - t).count(); }

}  // namespace

Replicator::Replicator(std::shared_ptr<const MachineMemory> memory, Machine& machine, std::unique_ptr<ProcessorWrites> processor,
                       std::vector<Recorder*> recorders, Disk* disk, ReplicationOptions options)
    : memory_(std::move(memory)), machine_(machine), processor_(std::move(processor)), disk_(disk), options_(options), device_pages_(shape().pages()),
      dirty_again_(shape().pages()), sent_(shape().pages()), chunk_(kChunkPages * kPage) {
  for (Recorder* r : recorders) sources_.push_back({r, std::make_unique<DeviceWrites>(memory_, r->functions(), device_pages_)});
}

Replicator::~Replicator() {
  if (paused_ && ran_ && !undecided_) (void)machine_.resume();
  if (recording_) (void)stop();
}

Status Replicator::start() {
  if (recording_) return Status(Code::exists, "recording is on already");
  dirty_again_.clear(), device_pages_.clear(), sent_.clear();
  fresh_ = true, recording_ = true, ending_ = false, throttle_ = 0;
  give_up_ = false;
  Status s = record();
  if (s.ok()) s = processor_->arm();
  if (s.ok() && disk_) s = disk_->start_tracking();
  if (!s.ok()) {
    (void)stop();
    return s;
  }
  examiner_ = std::thread([this] { examine(); });
  return Status();
}

Status Replicator::record() {
  if (broken(Switch::recording_after_first_pass) && fresh_) return Status();
  std::lock_guard lock(examining_);
  for (Source& s : sources_) {
    if (s.on) continue;
    auto ring = s.recorder->start(options_.at_scheduling, options_.slots_log2);
    if (!ring.ok()) return ring.status().with(s.recorder->name());
    s.writes->begin(ring->slots, ring->slots_log2, options_.at_scheduling);
    s.on = true;
  }
  return Status();
}

Status Replicator::stop() {
  if (examiner_.joinable()) {
    {
      std::lock_guard lock(examining_);
      ending_ = true;
    }
    end_.notify_all();
    examiner_.join();
  }
  recording_ = false;
  Status first;
  auto note = [&](Status s) { if (!s.ok() && first.ok()) first = s; };
  if (disk_) note(disk_->stop_tracking());
  if (broken(Switch::recording_left_on)) return first;
  for (Source& s : sources_) {
    if (!s.on) continue;
    if (throttle_ != 0) note(s.recorder->throttle(0));
    note(s.recorder->stop());
    s.on = false;
  }
  return first;
}

// Runs in its own thread: however long a copy takes, the device finds slots.
void Replicator::examine() {
  std::unique_lock lock(examining_);
  while (!ending_) {
    for (Source& s : sources_)
      if (s.on && !broken(Switch::examiner_pauses)) examine_locked(s);
    end_.wait_for(lock, kExamineEvery);
  }
}

void Replicator::examine_locked(Source& s) {
  while (s.writes->drain(4096) != 0) s.recorder->examined(s.writes->examined());
  if (!s.writes->untrusted()) return;
  // All of it is dirty already; go on with a ring of zeros.
  logging::warn("{}: recording starts anew: {}", s.recorder->name(), s.writes->why());
  if (Status e = s.recorder->stop(); !e.ok()) logging::error("{}: {}", s.recorder->name(), e.text());
  s.on = false;
  auto ring = s.recorder->start(options_.at_scheduling, options_.slots_log2);
  if (!ring.ok()) return logging::error("{}: {}", s.recorder->name(), ring.status().text());
  s.writes->begin(ring->slots, ring->slots_log2, options_.at_scheduling);
  s.writes->all_dirty();  // written between the two recordings
  s.on = true;
}

DeviceWrites::Counters Replicator::device_counters() const {
  std::lock_guard lock(examining_);
  DeviceWrites::Counters sum;
  for (const Source& s : sources_) {
    const auto& c = s.writes->counters();
    sum.records += c.records, sum.bytes += c.bytes, sum.overflows += c.overflows, sum.outside += c.outside, sum.gaps += c.gaps;
  }
  return sum;
}

// Empties the sets before anything is copied: what is written from here on is found by the next pass.
Result<PageSet> Replicator::take_dirty(PassReport& report) {
  {
    std::lock_guard lock(examining_);
    for (Source& s : sources_) {
      if (s.on) examine_locked(s);
      if (!s.on && !broken(Switch::recording_after_first_pass)) return Status(Code::unavailable, s.recorder->name() + " doesn't record any more");
      if (s.recorder->memory_changed()) return Status(Code::conflict, "the machine's memory has changed: protect it anew");
    }
  }
  PageSet dirty = device_pages_.take();
  report.by_device = dirty.count();
  if (Status s = take_noted(dirty, report); !s.ok()) {
    if (!broken(Switch::taken_pages_forgotten)) dirty_again_.add(dirty);  // taken is forgotten where it was noted
    return s;
  }
  PageSet again = dirty_again_.take();
  report.again = again.count();
  dirty.add(again);
  return dirty;
}

// What the processors and the disk have noted, to the pages of the device. Also on errors: whatever could be taken.
Status Replicator::take_noted(PageSet& dirty, PassReport& report) {
  PageSet processor(dirty.pages());
  const Status s = processor_->take(processor);
  if (broken(Switch::processor_writes_ignored)) processor.clear();
  report.by_processor = processor.count(), report.by_both = processor.count_common(dirty);
  dirty.add(processor);
  if (!s.ok() || !disk_) return s;
  const std::uint64_t before = dirty.count();
  const Status d = disk_->take(dirty, memory_->pages());
  report.disk += dirty.count() - before;
  return d;
}

// A copy of our own: the page may be written while it is summed and sent.
Status Replicator::read_chunk(std::span<const std::uint64_t> pages, std::byte* to) {
  for (std::size_t i = 0; i < pages.size();) {
    if (pages[i] < memory_->pages()) {
      std::memcpy(to + i * kPage, memory_->page(pages[i]), kPage);
      processor_->copied(pages[i], to + i * kPage);
      ++i;
      continue;
    }
    std::size_t n = 1;
    while (i + n < pages.size() && pages[i + n] == pages[i] + n) ++n;
    if (Status s = disk_->read(pages[i] - memory_->pages(), n, to + i * kPage); !s.ok()) return s;
    i += n;
  }
  return Status();
}

Status Replicator::send_chunk(Target& target, std::span<const std::uint64_t> pages, const std::byte* from, PassReport& report) {
  batch_.clear();
  for (std::size_t i = 0; i < pages.size(); ++i) {
    const Bytes content(from + i * kPage, kPage);
    const bool zero = all_zero(content);
    batch_.entries.push_back({pages[i], zero ? crc32c_zero_block() : crc32c(content), zero});
    if (zero) ++report.zero_pages;
    else batch_.content.insert(batch_.content.end(), content.begin(), content.end());
  }
  report.bytes += batch_.content.size();
  return target.put(batch_);
}

Status Replicator::copy(const PageSet& pages, Target& target, PassReport& report) {
  std::vector<std::uint64_t> chunk;
  Status status;
  auto flush = [&] {
    if (status.ok() && give_up_ && !paused_) status = Status(Code::unavailable, "given up");
    if (status.ok() && !chunk.empty()) {
      report.pages += chunk.size();
      if (put_aside_) {
        status = set_aside(target, chunk, report);
      } else {
        status = read_chunk(chunk, chunk_.data());
        if (status.ok()) status = send_chunk(target, chunk, chunk_.data(), report);
      }
    }
    chunk.clear();
  };
  pages.for_each([&](std::uint64_t p) {
    if (!status.ok()) return;
    sent_.add(p);
    chunk.push_back(p);
    if (chunk.size() == kChunkPages) flush();
  });
  flush();
  return status;
}

Status Replicator::set_aside(Target& target, std::span<const std::uint64_t> pages, PassReport& report) {
  const std::size_t at = aside_content_.size();
  // Within the pause, then: the price of a guest that writes faster than it is copied.
  if (at != 0 && at + pages.size() * kPage > options_.most_aside) {
    if (Status s = send_aside(target, report); !s.ok()) return s;
    return set_aside(target, pages, report);
  }
  aside_content_.resize(at + pages.size() * kPage);
  aside_.insert(aside_.end(), pages.begin(), pages.end());
  return read_chunk(pages, aside_content_.data() + at);
}

// What was copied during the pause, once the machine runs again. All of it before a newer copy of any of these pages.
Status Replicator::send_aside(Target& target, PassReport& report) {
  Status status;
  for (std::size_t i = 0; i < aside_.size() && status.ok(); i += kChunkPages) {
    const std::size_t n = std::min(kChunkPages, aside_.size() - i);
    status = send_chunk(target, std::span(aside_).subspan(i, n), aside_content_.data() + i * kPage, report);
  }
  aside_.clear(), aside_content_.clear();
  return status;
}

void Replicator::forget_aside() {
  aside_.clear();
  std::vector<std::byte>().swap(aside_content_);
}

Status Replicator::pass(Target& target, Report& report, bool everything) {
  const auto begin = Clock::now();
  PassReport p = std::exchange(disk_rest_, PassReport());
  auto dirty = take_dirty(p);
  if (!dirty.ok()) return dirty.status();
  if (everything) dirty->add_all();
  Status s = copy(*dirty, target, p);
  if (broken(Switch::bits_cleared_after_copy)) {
    PassReport ignored;
    (void)take_dirty(ignored);
  }
  p.seconds = seconds_since(begin);
  if (p.pages > 1000) copy_rate_ = static_cast<double>(p.pages) / p.seconds;
  report.passes.push_back(p);
  {
    std::lock_guard lock(reporting_);
    passes_ = report.passes;
  }
  if (!s.ok()) dirty_again_.add(*dirty);
  if (on_pass) on_pass(p);
  return s;
}

bool Replicator::small_enough() {
  {
    std::lock_guard lock(examining_);
    for (Source& s : sources_)
      if (s.on) examine_locked(s);
  }
  // What is handed over is summed and sent within the pause; else it is only set aside.
  return expected_pause() <= (handing_over_ ? options_.pause_goal / 2 : options_.pause_goal);
}

// What is known to be dirty now; processor writes not yet taken are estimated by those of the last pass.
double Replicator::expected_pause() const {
  std::uint64_t pages = device_pages_.count() + dirty_again_.count();
  {
    std::lock_guard lock(reporting_);
    if (!passes_.empty()) pages += passes_.back().by_processor + passes_.back().disk;
  }
  return copy_rate_ > 0 ? static_cast<double>(pages) / copy_rate_ : static_cast<double>(pages) * 4e-6;
}

// Two passes that did not get smaller: the device dirties as fast as pages are copied. Half of the rate of the last pass, then half of that.
void Replicator::slow_down(const Report& report, Report& out) {
  if (!options_.throttle || broken(Switch::device_never_slowed) || report.passes.size() < 3) return;
  const PassReport &last = report.passes.back(), &before = report.passes[report.passes.size() - 2];
  if (last.by_device < last.by_processor || last.by_device * 10 < before.by_device * 8) return;
  const double rate = static_cast<double>(last.by_device * kPage) / std::max(before.seconds, 1e-3);
  throttle_ = std::max(kLeastThrottle, throttle_ == 0 ? static_cast<std::uint64_t>(rate / 2) : throttle_ / 2);
  out.throttled_to = throttle_;
  for (Source& s : sources_)
    if (Status e = s.recorder->throttle(throttle_); !e.ok()) logging::warn("{}: cannot be slowed: {}", s.recorder->name(), e.text());
}

Status Replicator::run_passes(Target& target, Report& report, bool everything) {
  for (unsigned i = 0; i < options_.most_passes; ++i) {
    if (!everything && small_enough() && i != 0) return Status();
    if (Status s = pass(target, report, everything && i == 0); !s.ok()) return s;
    if (i == 0 && everything && broken(Switch::recording_after_first_pass)) {
      fresh_ = false;
      if (Status s = record(); !s.ok()) return s;
    }
    if (broken(Switch::one_pass_only)) return Status();
    if (small_enough()) return Status();
    slow_down(report, report);
  }
  return Status();
}

Status Replicator::quiesce(bool stays) {
  for (Source& s : sources_)
    if (Status e = s.recorder->quiesce(stays); !e.ok()) return e.with(s.recorder->name());
  if (broken(Switch::final_drain_left_out)) return Status();
  // The device may wait for slots until its last write is recorded, so examining goes on while we wait for its marker.
  const auto begin = Clock::now();
  while (true) {
    bool all = true;
    {
      std::lock_guard lock(examining_);
      for (Source& s : sources_) {
        if (s.on) examine_locked(s);
        all = all && (s.writes->suspended() || !s.on);
      }
    }
    if (all) return Status();
    if (seconds_since(begin) > options_.quiesce_limit) return Status(Code::timed_out, "the device isn't quiet after " + std::to_string(options_.quiesce_limit) + " s");
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
}

// The device is quiet, so the disk stays as it is; the machine is paused next, before which its volume has to be read, since nobody holds a
// volume whose guest doesn't run.
Status Replicator::read_disk(Report& report, Target& target) {
  if (!disk_) return Status();
  PageSet blocks(shape().pages());
  PassReport p;
  Status s = disk_->take(blocks, memory_->pages());
  p.disk = blocks.count();
  if (s.ok()) s = copy(blocks, target, p);
  if (!s.ok()) dirty_again_.add(blocks);
  disk_rest_ = p;
  return s;
}

// While the hypervisor saves its devices, what is dirty is copied; then what the saving wrote. Both count as one pass.
Status Replicator::rest(Target& target, Report& report, std::string& state) {
  const auto begin = Clock::now();
  Result<std::string> saved = Status(Code::internal, "not saved");
  std::thread saving([&] {
    saved = machine_.device_state();
    report.state_seconds = seconds_since(begin);
  });
  Status s = pass(target, report, false);
  saving.join();
  if (s.ok()) s = saved.status();
  if (!s.ok()) return s;
  report.state_bytes = saved->size();
  state = std::move(*saved);
  s = pass(target, report, false);
  const PassReport last = report.passes.back();
  report.passes.pop_back();
  report.passes.back() += last;
  std::lock_guard lock(reporting_);
  passes_ = report.passes;
  return s;
}

// Else the guest would have the slow disk for as long as its standby is away.
void Replicator::full_speed() {
  if (throttle_ == 0) return;
  throttle_ = 0;
  for (Source& s : sources_)
    if (Status e = s.recorder->throttle(0); !e.ok()) logging::warn("{}: cannot be let go: {}", s.recorder->name(), e.text());
}

void Replicator::let_run(bool machine) {
  const bool was_paused = std::exchange(paused_, false);
  full_speed();
  for (Source& s : sources_) {
    if (Status e = s.recorder->resume(); !e.ok()) logging::error("{}: {}", s.recorder->name(), e.text());
    std::lock_guard lock(examining_);
    s.writes->resumed();
  }
  if (!machine || !was_paused || !ran_) return;
  if (Status e = machine_.resume(); !e.ok()) logging::error("the machine doesn't run again: {}", e.text());
}

Status Replicator::stand_still(Then then) {
  auto ran = machine_.pause(then != Then::stay_paused);
  if (!ran.ok()) return ran.status();
  paused_ = true, ran_ = *ran || broken(Switch::paused_machine_let_run);
  if (!ran_ && then == Then::hand_over) return Status(Code::conflict, "the machine doesn't run, and would over there: let it run first");
  return Status();
}

Result<Report> Replicator::checkpoint(Target& target, Begin begin, const std::string& description, Then then) {
  if (!recording_) return Status(Code::invalid, "recording is off");
  // Its end would let the machine run.
  if (undecided_) return Status(Code::conflict, "it isn't known whether the machine runs elsewhere");
  if (give_up_) return Status(Code::unavailable, "given up");
  Report report;
  report.sequence = begin.sequence, begin.shape = shape();
  const bool everything = begin.parent == 0;
  if (!everything && fresh_) return Status(Code::invalid, "the first checkpoint after a start has everything");
  sent_.clear();
  {
    std::lock_guard lock(reporting_);
    passes_.clear();
  }
  const std::uint64_t records = device_counters().records;
  if (Status s = target.begin(begin); !s.ok()) return not_handed_over(s);
  handing_over_ = then == Then::hand_over;
  if (Status s = run_passes(target, report, everything); !s.ok()) return failed(target, not_handed_over(s));
  put_aside_ = then != Then::hand_over;
  if (put_aside_) aside_content_.reserve(std::min<std::uint64_t>(options_.most_aside, shape().pages() * kPage));  // growing it would copy it, within the pause
  const auto quiet = Clock::now();
  Status s = quiesce(then != Then::hand_over);
  if (s.ok()) s = read_disk(report, target);
  const auto pause = Clock::now();
  if (s.ok()) s = stand_still(then);
  report.stop_seconds = seconds_since(pause);
  std::string state;
  if (s.ok()) s = rest(target, report, state);
  put_aside_ = false;
  if (s.ok() && give_up_) s = Status(Code::unavailable, "given up");
  if (!s.ok()) {
    let_run();
    return failed(target, not_handed_over(s));
  }
  if (then != Then::hand_over) {
    let_run(then == Then::resume);
    report.pause_seconds = seconds_since(pause), report.quiet_seconds = seconds_since(quiet);
  }
  s = not_handed_over(send_aside(target, report.passes.back()));
  forget_aside();
  const auto commit = Clock::now();
  if (s.ok() && then == Then::hand_over) s = not_handed_over(machine_.hand_over());
  if (s.ok()) s = target.commit(state, description);
  report.commit_seconds = seconds_since(commit);
  if (then == Then::hand_over) {
    report.pause_seconds = seconds_since(pause), report.quiet_seconds = seconds_since(quiet);
    // The other side may run: then this one must not.
    undecided_ = s.code() == Code::timed_out;
    if (!s.ok() && !undecided_) let_run();
  }
  if (!s.ok()) return failed(target, s);
  fresh_ = false;
  report.records = device_counters().records - records;
  return report;
}

Result<Report> Replicator::failed(Target& target, Status why) {
  full_speed();
  target.abandon();
  forget_aside();
  dirty_again_.add(sent_);
  return why;
}

std::vector<PassReport> Replicator::passes() const {
  std::lock_guard lock(reporting_);
  return passes_;
}

}  // namespace luge::vmstate
