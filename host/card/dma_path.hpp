// The one way by which a storage function (a guest's disk) writes guest memory: the card's mover and DMA write log.
//
// A write goes out in bursts of 64-byte lines, at most 64, none across 4 KiB, as the card's mover makes them. While something is recorded,
// each burst is shown to the write log's kernel (dma_logger.hpp), which lets it pass and makes the records; the bytes move when the kernel
// lets them leave, and records lie in the ring after them. While nothing is recorded the kernel passes everything and remembers
// nothing: then it isn't asked.
//
// Invariants
// - Writes are done in the order of their submission, bursts of a write in the order of their addresses.
// - Data before record; a transfer is `done` only when all of it is in memory.
// - A full ring holds everything back. After `hold_limit` writes pass unrecorded, and an overflow marker says so: never a lost record
//   without one.
// Who reads records: a ring (start_recording), a dirty log (set_dirty_log), or both; they come from the same kernel in the same order.
//
// Ownership: made as shared_ptr; a transfer belongs to the caller and must stay, with its bytes, until `done`. `done` may be called inside
// submit(), and may submit. One thread.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <unordered_map>
#include <vector>

#include "base/buffer.hpp"
#include "card/dirty_log.hpp"
#include "card/dma_logger.hpp"
#include "card/dma_ring.hpp"
#include "card/guest_memory.hpp"
#include "io/world.hpp"

namespace luge::card {

enum class RecordMode : std::uint32_t { completed = 0, scheduled = 1 };  ///< DWR-11, DWR-10

struct DmaTransfer {
  struct Part {
    std::uint64_t address = 0;  ///< guest physical
    Bytes bytes;                ///< not empty
  };
  std::vector<Part> parts;
  std::function<void()> done;
};

class DmaPath : public std::enable_shared_from_this<DmaPath> {
 public:
  static constexpr unsigned kFunctions = 64;
  struct Stats {
    std::uint64_t writes = 0, bytes = 0;   ///< parts, all of them
    std::uint64_t bursts = 0, records = 0; ///< while recording; records without markers
    std::uint64_t holds = 0, overflows = 0, outside = 0;
  };

  /// `function` < kFunctions: who writes, as it is in the records.
  DmaPath(io::World& world, std::unique_ptr<DmaLogger> logger, unsigned function);
  ~DmaPath();

  /// REQUIRES: no transfer is open. A recording goes on over the new table, and says that it is another.
  void set_memory(std::shared_ptr<const GuestMemory> memory);
  const std::shared_ptr<const GuestMemory>& memory() const { return memory_; }

  /// Where a function reads [address, address + bytes); null: not all of it is guest memory. What is only read needs no record (DWR-33).
  const std::byte* fetch(std::uint64_t address, std::uint64_t bytes) const;
  void submit(DmaTransfer& t);
  bool idle() const { return queue_.empty() && bursts_.empty(); }

  /// A ring of 2^slots_log2 slots; records from now on are in it. `watermark`: so many records not examined raise
  /// `on_watermark` (0: never). exists: there is one already.
  Status start_recording(RecordMode mode, std::uint32_t slots_log2, std::uint32_t watermark, std::function<void()> on_watermark);
  void stop_recording();
  bool recording() const { return static_cast<bool>(ring_); }
  const DmaRing& ring() const { return ring_; }
  /// The reader says that it has given slots back.
  void doorbell() { pump(); }

  /// Null: none. What was recorded before is marked in the old one first, if suspended().
  void set_dirty_log(std::unique_ptr<DirtyLog> log);
  bool has_dirty_log() const { return log_ != nullptr; }
  /// True also where there is none.
  bool log_covers(std::uint64_t end) const { return log_ == nullptr || log_->covers(end); }

  /// REQUIRES: whoever submits has stopped. Ends when every write is in memory and every record, with the marker behind them, is in the
  /// ring and in the dirty log: as long as that takes (a full ring), or until resume() or stop_recording(). False: so it ended.
  io::Task<bool> suspend();
  void resume();
  bool suspended() const { return suspended_; }

  /// What has been written is recorded when this returns, but for what a full ring holds back.
  void flush_records() {
    if (running_ && !pumping_) settle();
  }

  /// Bytes per second from now on; 0: as fast as it goes.
  void throttle(std::uint64_t bytes_per_second);
  std::uint64_t throttled() const { return rate_; }
  void set_hold_limit(io::Duration d) { hold_limit_ = d; }

  const Stats& stats() const { return stats_; }
  unsigned function() const { return function_; }
  const DmaLogger& logger() const { return *logger_; }

 private:
  struct Burst {
    DmaTransfer* transfer;
    std::uint64_t address;
    Bytes bytes;
    bool last;  // of its transfer
  };
  void pump();
  void pump_directly();
  void pump_recorded();
  void direct(DmaTransfer& t);
  bool throttle_holds(const DmaTransfer& t);
  bool next_burst(Burst& b);
  bool goes_unrecorded(const Burst& b);
  void copy(std::uint64_t address, Bytes bytes);
  void cycle();
  void beat_leaves();
  void take_records();
  void see(const luge_card::dma_record& r);
  void mark(const luge_card::dma_record& r);
  void publish_state();
  void begin_kernel(RecordMode mode, std::uint32_t slots_log2, std::uint32_t watermark);
  void end_kernel();
  void load_window();
  void give_head();
  void finish(DmaTransfer& t);
  void hold();
  void overflow_if_late();
  void settle_later();
  void settle_after(unsigned turns);
  void settle();
  void tick_at(io::Time t);
  static io::Task<void> tick(std::weak_ptr<DmaPath> weak, io::World& world, io::Time at);
  bool kernel_runs() const { return running_; }

  io::World& world_;
  std::unique_ptr<DmaLogger> logger_;
  const unsigned function_;
  std::shared_ptr<const GuestMemory> memory_;
  std::deque<DmaTransfer*> queue_;  // not all of whose bursts have been offered
  std::size_t part_ = 0;            // cursor in the first
  std::uint64_t offset_ = 0;
  // In the kernel.
  DmaLogger::In in_;
  DmaLogger::Out out_;
  bool running_ = false, pumping_ = false, again_ = false;
  bool offering_ = false;
  Burst offered_{};
  std::deque<Burst> bursts_;        // address taken, not answered
  std::size_t left_ = 0;            // of them, so many have left for memory
  unsigned data_owed_ = 0;          // addresses taken whose beat was not
  std::deque<std::uint64_t> addresses_;  // lines of bursts that leave and whose beat has not
  unsigned responses_ = 0;          // that the memory owes
  std::deque<DmaTransfer*> late_;   // see Switch::dma_record_before_data
  // Records.
  DmaRing ring_, own_;              // own_: for a dirty log without a reader
  DmaRing* used() { return ring_ ? &ring_ : &own_; }
  RecordMode mode_ = RecordMode::completed;
  std::uint32_t given_head_ = 1, seen_ = 1;  // seen_: sequence of the next record to come out
  unsigned since_head_ = 0;
  std::function<void()> on_watermark_;
  bool over_watermark_ = false;
  std::unique_ptr<DirtyLog> log_;
  std::deque<luge_card::dma_record> not_complete_;  // recorded at scheduling, for the dirty log
  bool suspending_ = false, suspended_ = false, marker_seen_ = false;
  io::Event changed_;
  // Holding.
  bool held_ = false, overflow_seen_ = false, memory_changed_ = false;
  unsigned held_cycles_ = 0;
  io::Time held_since_{};
  io::Duration hold_limit_ = std::chrono::seconds(1);
  std::uint64_t rate_ = 0;
  io::Time not_before_{};
  io::Time tick_due_{};
  bool ticking_ = false, settling_ = false, pumped_ = false;
  bool pump_posted_ = false;           // for what was submitted in this turn
  std::uint64_t lost_block_ = ~0ull;  // of Switch::dma_range_unrecorded, and how it is chosen
  std::unordered_map<std::uint64_t, unsigned> bursts_into_;
  Stats stats_;
};

}  // namespace luge::card
