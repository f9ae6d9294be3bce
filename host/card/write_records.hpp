// Reads the ring of DMA write records that a device of the host seat fills (hls/dma_write_log/record.h has its bytes).
//
// Invariant: what read() handed out is a copy, and only then counts as examined (DWR-20): the owner passes examined() on to the device
// afterwards, never before. A record that isn't the one expected ends the reading: nothing after it can be trusted, so everything the device
// can write is dirty (DWR-18) until recording has been started anew with a ring of zeros and a new reader.
//
// Threads: one reader a ring; the device writes the ring meanwhile.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "hls/dma_write_log/record.h"

namespace luge::card {

using luge_card::dma_record;

class WriteRecordReader {
 public:
  /// `ring`: 2^slots_log2 slots, zero when recording was switched on. It must outlive the reader.
  WriteRecordReader(const void* ring, unsigned slots_log2) : ring_(static_cast<const dma_record*>(ring)), slots_log2_(slots_log2) {}

  /// Appends up to `most` records that have come; how many. 0 also when the ring can't be trusted any more.
  std::size_t read(std::vector<dma_record>& out, std::size_t most);
  /// Sequence number of the first slot that isn't examined, for `log_examined`.
  std::uint32_t examined() const { return static_cast<std::uint32_t>(next_); }
  /// Records read so far.
  std::uint64_t records() const { return next_ - 1; }
  /// A sequence number was missing; why says which. Everything is dirty.
  bool gap() const { return gap_; }
  const std::string& why() const { return why_; }

 private:
  const dma_record* ring_;
  unsigned slots_log2_;
  std::uint64_t next_ = 1;  // counts on where `sequence` turns over
  bool gap_ = false;
  std::string why_;
  std::vector<const dma_record*> uncopied_;  // of Switch::examined_before_copied
};

struct PageRange {
  std::uint64_t first = 0;
  std::uint64_t count = 0;
};
/// All pages of 4096 bytes that a DMA_WRITTEN record touches, its last one cut at the end of the address space (DWR-21).
PageRange pages_of(const dma_record& record);

}  // namespace luge::card
