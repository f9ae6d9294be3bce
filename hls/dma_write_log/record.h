// The records of the DMA write log as they lie in its ring: what kernel, firmware and host share. Plain C++14, no dependency.
//
// The ring is 2^n slots of 16 bytes (n 0..20), aligned to its own size and to 64 bytes, little-endian. The record with sequence
// number s lies in slot s mod 2^n; the first one has sequence 1. A reader that expects s has a new record when the slot's
// `sequence` is s: a record is one write of at most 64 bytes inside a line, `sequence` is its last word, and what is in the
// slot from before has another number (0 in a ring filled with zeros, which the reader does before it switches recording on, and not
// before `ring_busy` has fallen if it was on before).
#pragma once
#include <cstddef>
#include <cstdint>

namespace luge_card {

enum dma_record_kind : uint8_t {
  DMA_WRITTEN = 0,      // [address, address + last + 1) was written by `function`: whole 64-byte lines, 64 KiB at most
  DMA_OVERFLOW = 1,     // writes before this were not recorded; bit f of `address`: everything function f can write is dirty
  DMA_SUSPENDED = 2,    // the last record: every write before it is complete and recorded, none follows until resumed
  DMA_COMPLETED = 3,    // when recording at scheduling: writes of records with sequence < `address` are complete
};

struct dma_record {
  uint64_t address;   // DMA_WRITTEN: first byte, a multiple of 64, in the bus's address space. Markers: see above, else 0
  uint16_t last;      // DMA_WRITTEN: length - 1 in bytes. Markers: 0
  uint8_t function;   // who wrote: number of the (virtual) function. Markers: 0
  uint8_t kind;       // dma_record_kind; an unknown one means: everything is dirty
  uint32_t sequence;  // rises by one from record to record
};
static_assert(sizeof(dma_record) == 16, "the ring's slot");
static_assert(offsetof(dma_record, last) == 8 && offsetof(dma_record, function) == 10 && offsetof(dma_record, kind) == 11, "as the kernel writes it");
static_assert(offsetof(dma_record, sequence) == 12, "the last word of the slot, so that it is seen with or after the others");

static const unsigned DMA_RECORD_MOST_SLOTS_LOG2 = 20;
static const unsigned DMA_RECORD_MOST_BYTES = 65536;  // that one record covers

}  // namespace luge_card
