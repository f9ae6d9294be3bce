// What a device has written of a machine's memory, learnt from its records: from the ring to a set of dirty pages.
//
// Order (docs/vm-replication.md): a page is added after its data is in memory, so whoever takes the set and copies then has the data or
// finds the page in the set again. In the mode "at scheduling" a record comes before its data: its pages wait for DMA_COMPLETED.
// A gap, an overflow, an unknown kind or a record outside the machine's memory never lose a page: they make pages dirty, at worst all.
//
// Threads: drain() from one thread at a time; `pages` may be taken by another.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "card/write_records.hpp"
#include "vmstate/machine_memory.hpp"

namespace luge::vmstate {

class DeviceWrites {
 public:
  struct Counters {
    std::uint64_t records = 0, bytes = 0;      ///< DMA_WRITTEN, and what they covered
    std::uint64_t overflows = 0, outside = 0;  ///< each makes pages dirty that may not be
    std::uint64_t gaps = 0;
  };
  /// `functions`: bit f: records of function f are this machine's. Pages go to `pages`, which may have more numbers than the memory has.
  DeviceWrites(std::shared_ptr<const MachineMemory> memory, std::uint64_t functions, PageSet& pages)
      : memory_(std::move(memory)), functions_(functions), pages_(pages) {}

  /// A new recording: of a ring of zeros. Nothing may be pending from before but what ended with suspended() or all_dirty().
  void begin(const void* ring, unsigned slots_log2, bool at_scheduling);
  /// Reads all records that are there; `most` bounds the work. How many.
  std::size_t drain(std::size_t most = ~std::size_t{0});
  /// For the device: the first slot that isn't examined.
  std::uint32_t examined() const { return examined_; }
  /// DMA_SUSPENDED was the last record: every write is complete and in `pages`.
  bool suspended() const { return suspended_; }
  void resumed() { suspended_ = false; }
  /// The ring cannot be trusted; all pages have been added. Recording has to be begun anew.
  bool untrusted() const { return reader_ && reader_->gap(); }
  const std::string& why() const { return reader_->why(); }
  void all_dirty();
  /// Nothing recorded at scheduling waits for its completion.
  bool settled() const { return pending_.empty(); }
  const Counters& counters() const { return counters_; }

 private:
  void take(const card::dma_record& r);
  void written(const card::dma_record& r);
  bool dropped(const card::dma_record& r);

  std::shared_ptr<const MachineMemory> memory_;
  const std::uint64_t functions_;
  PageSet& pages_;
  std::unique_ptr<card::WriteRecordReader> reader_;
  bool at_scheduling_ = false, suspended_ = false;
  std::uint32_t examined_ = 1;
  std::deque<card::dma_record> pending_;  // recorded at scheduling, not known to be complete
  std::vector<card::dma_record> copies_;
  Counters counters_;
  std::uint64_t dropped_range_ = ~std::uint64_t{0};  // of Switch::records_of_range_dropped
};

}  // namespace luge::vmstate
