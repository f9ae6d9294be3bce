// The record ring as two processes share it: a page of header, then the slots of hls/dma_write_log/record.h. In a memfd.
//
// The device writes slots, `tail` and `state`; the reader writes `examined` alone: the sequence number of the first slot that it has
// not examined. A slot is not used again before `examined` has passed it. The reader expects sequence 1, 2, ...; a record is there when
// its slot's `sequence` (read with acquire) is the one expected. When `state` has `held`, the device waits for a slot: the reader
// writes 8 bytes to the doorbell's eventfd after it has moved `examined`.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/status.hpp"
#include "hls/dma_write_log/record.h"

namespace luge::card {

inline constexpr std::uint32_t kRingVersion = 1;
inline constexpr std::uint64_t kRingMagic = 0x31524d444547554cull;  // "LUGEDMR1"
inline constexpr std::size_t kRingHeaderBytes = 4096;

enum RingState : std::uint32_t {
  kRingRecording = 1,
  kRingHeld = 2,           ///< a DMA write waits for a slot
  kRingOverflow = 4,       ///< records were lost; stays until the end of the recording. An overflow marker is in the ring
  kRingSuspended = 8,      ///< quiesced: no DMA write is on its way, all are recorded
  kRingMemoryChanged = 16, ///< the table of guest memory is another: stop and start anew
  kRingBadHead = 32,       ///< the reader gave an `examined` that cannot be
};

struct RingHeader {
  std::uint64_t magic = kRingMagic;
  std::uint32_t version = kRingVersion;
  std::uint32_t slots_log2 = 0;
  std::uint32_t function = 0;
  std::uint32_t mode = 0;                       ///< RecordMode
  std::uint64_t slots_offset = kRingHeaderBytes;
  alignas(64) std::atomic<std::uint32_t> examined{1};
  alignas(64) std::atomic<std::uint32_t> tail{1};
  std::atomic<std::uint32_t> state{0};
  std::atomic<std::uint64_t> dirty{0};          ///< functions with lost records
  std::atomic<std::uint64_t> writes{0};         ///< bursts recorded on
  std::atomic<std::uint64_t> bytes{0};
  std::atomic<std::uint64_t> holds{0};          ///< times a write had to wait
};
static_assert(sizeof(RingHeader) <= kRingHeaderBytes && offsetof(RingHeader, examined) == 64 && offsetof(RingHeader, tail) == 128);
static_assert(std::atomic<std::uint32_t>::is_always_lock_free && std::atomic<std::uint64_t>::is_always_lock_free);

/// A ring that is mapped. Both sides.
class DmaRing {
 public:
  DmaRing() = default;
  DmaRing(DmaRing&& o) noexcept;
  DmaRing& operator=(DmaRing&& o) noexcept;
  ~DmaRing();
  /// A new one, all zeros, in a memfd that cannot shrink.
  static Result<DmaRing> create(std::uint32_t slots_log2, std::uint32_t function, std::uint32_t mode);
  /// The other side's; takes the descriptor. wrong_version, corrupt.
  static Result<DmaRing> open(int fd);

  int fd() const { return fd_; }
  explicit operator bool() const { return base_ != nullptr; }
  RingHeader& header() const { return *reinterpret_cast<RingHeader*>(base_); }
  std::uint32_t slots() const { return 1u << slots_log2_; }
  std::uint32_t slots_log2() const { return slots_log2_; }
  luge_card::dma_record* slot(std::uint32_t sequence) const {
    return reinterpret_cast<luge_card::dma_record*>(base_ + kRingHeaderBytes) + (sequence & (slots() - 1));
  }

 private:
  int fd_ = -1;
  std::byte* base_ = nullptr;
  std::size_t bytes_ = 0;
  std::uint32_t slots_log2_ = 0;
};

/// The reader's side: one record after the other. Its content is the caller's copy before the slot is given back.
class DmaRingReader {
 public:
  explicit DmaRingReader(DmaRing ring) : ring_(std::move(ring)) {}
  /// False: there is none now.
  bool next(luge_card::dma_record& r) {
    const luge_card::dma_record* slot = ring_.slot(expected_);
    if (__atomic_load_n(&slot->sequence, __ATOMIC_ACQUIRE) != expected_) return false;
    r = *slot;
    ++expected_;
    return true;
  }
  /// Gives back all slots that next() has gone over. True: the device waits, ring its doorbell.
  bool publish() {
    ring_.header().examined.store(expected_, std::memory_order_seq_cst);
    return (ring_.header().state.load(std::memory_order_seq_cst) & kRingHeld) != 0;
  }
  std::uint32_t expected() const { return expected_; }
  const DmaRing& ring() const { return ring_; }

 private:
  DmaRing ring_;
  std::uint32_t expected_ = 1;
};

}  // namespace luge::card
