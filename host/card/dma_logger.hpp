// The card's DMA write log, one clock cycle a call: the kernel hls/dma_write_log compiled natively, or its Verilated RTL.
//
// A write travels without its data: one beat stands for the whole burst. The kernel decides when it may pass and what is recorded; whoever
// steps it moves the bytes at the moment the beat leaves.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/status.hpp"

namespace luge::card {

class DmaLogger {
 public:
  struct In {
    bool enable = false, suspend = false, at_scheduling = false;
    std::uint64_t ring_base = 0;
    std::uint32_t slots_log2 = 0, watermark = 0, patience = 0;
    bool examined = false;            ///< `head` is new
    std::uint32_t head = 1;
    bool load = false, record = false;
    std::uint8_t function = 0;        ///< of the load and of the write
    std::uint64_t first_page = 0, last_page = 0;
    bool clear = false;
    std::uint64_t clear_functions = 0;
    bool address = false;             ///< a write is offered: `line`, `lines`
    std::uint64_t line = 0;
    std::uint8_t lines = 1;           ///< 1..64
    bool data = false;                ///< the one beat of a write is offered
    bool response = false;            ///< the memory answers the oldest burst that left
  };
  struct Out {
    bool address_taken = false, data_taken = false, answered = false, response_taken = false;
    bool leaves = false;              ///< a burst's address goes to memory
    std::uint64_t leaves_line = 0;
    bool beat = false;                ///< a burst's beat goes to memory
    std::uint64_t strobes = 0;
    std::uint8_t bytes[64] = {};      ///< of the beat; only the ring's have a meaning
    bool ready = false, recording = false, ring_busy = false, settled = false, suspended = false, holding = false;
    bool overflow = false, overflowing = false, over_watermark = false, bad_ring = false, bad_head = false, record_error = false;
    std::uint32_t tail = 1;
    std::uint64_t dirty = 0;
  };

  virtual ~DmaLogger() = default;
  virtual const char* kind() const = 0;  ///< "native" or "rtl"
  virtual void cycle(const In& in, Out& out) = 0;
  /// Cycles without a write until what waits for more to come has left. Natively a few, by skip_idle().
  virtual int idle_cycles() const = 0;
  /// Of those, with what was queued before, until settled() at the latest; a full ring may keep records longer.
  virtual int settle_cycles() const { return 2 * idle_cycles(); }
  /// As if the counters of idle time had run out; nothing, where they have to.
  virtual void skip_idle() {}
  /// No record waits for more to come, or is on its way out. Always false where that cannot be seen.
  virtual bool settled() const { return false; }
};

std::unique_ptr<DmaLogger> make_native_dma_logger();
/// "native", or "rtl": from the file dma_write_log_rtl.so of `tree` (empty: as for CardOptions::tree). not_found: not built.
/// invalid: "hw", which needs a shell that addresses pinned guest pages; any other word.
Result<std::unique_ptr<DmaLogger>> make_dma_logger(const std::string& kind, const std::string& tree);

}  // namespace luge::card
