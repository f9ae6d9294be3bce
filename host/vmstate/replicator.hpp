// Copies the state of a running machine to a target and misses nothing: passes over what is dirty while the machine runs, then a short
// pause for the rest. Checkpoint after checkpoint, or once for a migration. docs/vm-replication.md has the orders with their reasons.
//
// Orders (each with the switch that breaks it)
// - recording is on before the first page is read (recording-after-first-pass)
// - a pass takes the dirty pages, of processor and device together, *before* it copies (bits-cleared-after-copy, processor-writes-ignored, ...)
// - passes end when the rest is small, or are too many: then the device is made quiet and every record examined (final-drain-left-out), the
//   disk's rest is read, the machine is paused, and the rest of its memory is copied
// - a machine runs after the pause if it ran before it (paused-machine-let-run)
// - pages of a checkpoint that came to nothing are dirty for the next one
// - recording ends with stop(), and whatever happens with the destruction (recording-left-on)
//
// Threads: start(), checkpoint(), stop() from one thread. A thread of its own examines records meanwhile, so that a full ring doesn't hold
// the device back longer than that takes. status() and give_up() may be called from any thread.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "vmstate/device_writes.hpp"
#include "vmstate/processor_writes.hpp"
#include "vmstate/target.hpp"

namespace luge::vmstate {

/// A device that records what it writes of the machine's memory (DWR-02..05, 30: several of them).
class Recorder {
 public:
  struct Ring {
    const void* slots = nullptr;
    unsigned slots_log2 = 0;
  };
  virtual ~Recorder() = default;
  virtual std::string name() const = 0;
  /// Bit f: function f of the device belongs to this machine.
  virtual std::uint64_t functions() const = 0;
  virtual Result<Ring> start(bool at_scheduling, unsigned slots_log2) = 0;
  virtual Status stop() = 0;
  /// No write is on its way, all are recorded, and the marker is the ring's last record. Begins it; the marker is the end of it.
  /// `stays`: the machine goes on here afterwards.
  virtual Status quiesce(bool stays) = 0;
  virtual Status resume() = 0;
  /// Bytes per second that it may write from now on; 0: as fast as it can.
  virtual Status throttle(std::uint64_t bytes_per_second) = 0;
  /// The slots before `sequence` may be used again.
  virtual void examined(std::uint32_t sequence) = 0;
  /// The machine's table of memory is another one since start().
  virtual bool memory_changed() { return false; }
};

/// The machine as its hypervisor shows it.
class Machine {
 public:
  virtual ~Machine() = default;
  /// False: it stood still already, and is not ours to let run. `goes_on`: if we end within the pause, whoever comes next is to let it run.
  virtual Result<bool> pause(bool goes_on) = 0;
  virtual Status resume() = 0;
  /// From here on it may run elsewhere: if we end, nobody is to let it run who doesn't know that it doesn't. resume() undoes it.
  virtual Status hand_over() = 0;
  /// What isn't in shared memory. REQUIRES: paused.
  virtual Result<std::string> device_state() = 0;
};

/// The machine's disk, where it belongs to the checkpoint: blocks of a page each.
class Disk {
 public:
  virtual ~Disk() = default;
  virtual std::uint64_t pages() const = 0;
  /// Blocks written since start_tracking() or the last take(), each noted once its data can be read.
  virtual Status start_tracking() = 0;
  virtual Status take(PageSet& to, std::uint64_t first_page) = 0;
  virtual Status stop_tracking() = 0;
  virtual Status read(std::uint64_t first, std::uint64_t count, std::byte* into) = 0;
};

struct PassReport {
  std::uint64_t by_processor = 0, by_device = 0, by_both = 0, disk = 0, again = 0;  ///< pages; `again`: of a checkpoint that failed
  std::uint64_t pages = 0, zero_pages = 0, bytes = 0;  ///< copied
  double seconds = 0;
  PassReport& operator+=(const PassReport& o) {
    by_processor += o.by_processor, by_device += o.by_device, by_both += o.by_both, disk += o.disk, again += o.again;
    pages += o.pages, zero_pages += o.zero_pages, bytes += o.bytes, seconds += o.seconds;
    return *this;
  }
};

struct Report {
  std::uint64_t sequence = 0;
  std::vector<PassReport> passes;       ///< the last one with the machine paused
  double pause_seconds = 0;             ///< from the pause to the resumption
  double quiet_seconds = 0;             ///< from the quiet device to the resumption: how long the disk waited
  double stop_seconds = 0;              ///< of the pause, until the machine stood still
  double state_seconds = 0;             ///< of it, for the device state
  double commit_seconds = 0;            ///< of them, for the target's commit (migration)
  std::uint64_t records = 0;            ///< examined since the checkpoint before
  std::uint64_t throttled_to = 0;       ///< bytes per second; 0: never
  std::uint64_t state_bytes = 0;
};

struct ReplicationOptions {
  bool at_scheduling = false;     ///< recording mode (DWR-10, DWR-11)
  unsigned slots_log2 = 14;
  unsigned most_passes = 12;      ///< before the pause
  double pause_goal = 0.020;      ///< seconds that copying the rest may take; half of it where it is sent within the pause
  std::uint64_t most_aside = 256u << 20;  ///< bytes copied in a pause and sent after it; what is beyond is sent within
  double quiesce_limit = 10;      ///< seconds
  bool throttle = true;           ///< slow the device when it dirties faster than pages are copied
};

class Replicator {
 public:
  /// Recorders and disk (may be null) are not owned. `processor` tracks `memory`.
  Replicator(std::shared_ptr<const MachineMemory> memory, Machine& machine, std::unique_ptr<ProcessorWrites> processor,
             std::vector<Recorder*> recorders, Disk* disk, ReplicationOptions options);
  ~Replicator();
  Replicator(const Replicator&) = delete;

  Status start();
  /// Recording off. What was copied stays; the next start() begins with everything dirty.
  Status stop();
  /// The machine runs elsewhere: it is not to run here again, whatever happens.
  void moved() { paused_ = false; }
  /// A handing over had no answer: the machine stays paused, also when this is destroyed, until somebody knows that it runs nowhere else.
  bool undecided() const { return undecided_; }
  void runs_nowhere_else() { undecided_ = false; }

  enum class Then { resume, stay_paused, hand_over };
  /// One consistent point to `target`. The machine runs again when this returns, ok or not; except when ok with stay_paused or hand_over,
  /// or with hand_over when it isn't known whether the target has it (Code::timed_out). hand_over: the commit comes within the pause.
  /// One that stood still before it stands still after it, and isn't handed over (conflict): it would run over there.
  Result<Report> checkpoint(Target& target, Begin begin, const std::string& description, Then then);
  /// Ends a checkpoint under way as soon as it can, before it is committed; no later one begins until start().
  void give_up() { give_up_.store(true); }

  Shape shape() const { return {memory_->pages(), disk_ ? disk_->pages() : 0}; }
  const char* processor_kind() const { return processor_->kind(); }
  DeviceWrites::Counters device_counters() const;
  /// The passes of the checkpoint under way, or of the last.
  std::vector<PassReport> passes() const;
  /// Seconds of pause that a checkpoint now would take, by the rate of the last pass.
  double expected_pause() const;
  /// Called after each pass with the pages that it copied; for tests and progress.
  std::function<void(const PassReport&)> on_pass;

 private:
  struct Source {
    Recorder* recorder;
    std::unique_ptr<DeviceWrites> writes;
    bool on = false;
  };
  Status record();
  void examine();
  void examine_locked(Source& s);
  Result<PageSet> take_dirty(PassReport& report);
  Status take_noted(PageSet& dirty, PassReport& report);
  Status copy(const PageSet& pages, Target& target, PassReport& report);
  Status read_chunk(std::span<const std::uint64_t> pages, std::byte* to);
  Status send_chunk(Target& target, std::span<const std::uint64_t> pages, const std::byte* from, PassReport& report);
  Status set_aside(Target& target, std::span<const std::uint64_t> pages, PassReport& report);
  Status send_aside(Target& target, PassReport& report);
  void forget_aside();
  Status pass(Target& target, Report& report, bool everything);
  Status run_passes(Target& target, Report& report, bool everything);
  Status rest(Target& target, Report& report, std::string& state);
  Status quiesce(bool stays);
  Status stand_still(Then then);
  Status read_disk(Report& report, Target& target);
  void full_speed();
  void let_run(bool machine = true);
  bool small_enough();
  void slow_down(const Report& report, Report& out);
  Result<Report> failed(Target& target, Status why);

  std::shared_ptr<const MachineMemory> memory_;
  Machine& machine_;
  std::unique_ptr<ProcessorWrites> processor_;
  Disk* disk_;
  const ReplicationOptions options_;
  std::vector<Source> sources_;
  PageSet device_pages_;    // from the records, by the examining thread
  PageSet dirty_again_;     // of a checkpoint that came to nothing
  PageSet sent_;            // in the checkpoint under way
  PageBatch batch_;
  std::vector<std::byte> chunk_;
  PassReport disk_rest_;                   // of the disk, after the device was quiet
  bool put_aside_ = false;                 // copies of a pause are sent after it
  std::vector<std::uint64_t> aside_;
  std::vector<std::byte> aside_content_;   // at most options_.most_aside
  bool recording_ = false, fresh_ = true, paused_ = false, ran_ = false, handing_over_ = false, undecided_ = false;
  std::uint64_t throttle_ = 0;
  double copy_rate_ = 0;    // pages per second
  std::atomic<bool> give_up_{false};
  mutable std::mutex examining_;
  std::thread examiner_;
  std::condition_variable end_;
  bool ending_ = false;
  mutable std::mutex reporting_;
  std::vector<PassReport> passes_;
};

}  // namespace luge::vmstate
