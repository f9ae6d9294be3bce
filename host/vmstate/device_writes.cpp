#include "vmstate/device_writes.hpp"

#include "base/logging.hpp"
#include "switches/switches.hpp"

namespace luge::vmstate {
namespace {

constexpr std::size_t kAtOnce = 1024;

}  // namespace

void DeviceWrites::begin(const void* ring, unsigned slots_log2, bool at_scheduling) {
  reader_ = std::make_unique<card::WriteRecordReader>(ring, slots_log2);
  at_scheduling_ = at_scheduling, suspended_ = false, examined_ = 1;
  pending_.clear();
}

std::size_t DeviceWrites::drain(std::size_t most) {
  if (!reader_) return 0;
  std::size_t total = 0;
  const bool was_broken = reader_->gap();
  while (total < most) {
    copies_.clear();
    const std::size_t n = reader_->read(copies_, std::min(kAtOnce, most - total));
    // The content is ours now, so the slots may be used again; what it means is worked out from the copies.
    examined_ = reader_->examined();
    for (const card::dma_record& r : copies_) take(r);
    total += n;
    if (n < kAtOnce) break;
  }
  if (reader_->gap() && !was_broken) {
    ++counters_.gaps;
    logging::error("DMA write records: {}; all pages count as written", reader_->why());
    all_dirty();
  }
  return total;
}

void DeviceWrites::all_dirty() { pages_.add(0, memory_->pages()); }

void DeviceWrites::take(const card::dma_record& r) {
  suspended_ = false;
  switch (r.kind) {
    case luge_card::DMA_WRITTEN:
      if (broken(Switch::other_function_recorded) || (functions_ >> r.function & 1) != 0) {
        ++counters_.records;
        counters_.bytes += std::uint64_t{r.last} + 1;
        if (dropped(r)) break;
        if (at_scheduling_ && !broken(Switch::copied_at_scheduling)) pending_.push_back(r);
        else written(r);
      }
      break;
    case luge_card::DMA_COMPLETED:
      // Sequence numbers turn over: compared by their distance.
      while (!pending_.empty() && static_cast<std::int32_t>(pending_.front().sequence - static_cast<std::uint32_t>(r.address)) < 0) {
        written(pending_.front());
        pending_.pop_front();
      }
      break;
    case luge_card::DMA_SUSPENDED:
      for (const card::dma_record& p : pending_) written(p);
      pending_.clear();
      suspended_ = true;
      break;
    case luge_card::DMA_OVERFLOW:
      if ((r.address & functions_) == 0) break;
      ++counters_.overflows;
      if (!broken(Switch::overflow_ignored)) all_dirty();
      break;
    default:
      logging::error("DMA write records: a record of the unknown kind {}; all pages count as written", r.kind);
      all_dirty();
  }
}

void DeviceWrites::written(const card::dma_record& r) {
  const card::PageRange pages = card::pages_of(r);
  if (memory_->add(pages.first * kPage, pages.count * kPage, pages_)) return;
  ++counters_.outside;
  if (broken(Switch::record_outside_ignored)) return;
  // The table of guest memory is not what the device wrote by: nothing that was recorded can be placed with certainty.
  logging::error("DMA write records: {} bytes at {:#x} are not memory of this machine; all pages count as written", r.last + 1, r.address);
  all_dirty();
}

bool DeviceWrites::dropped(const card::dma_record& r) {
  if (broken(Switch::records_ignored)) return true;
  if (broken(Switch::records_dropped) && counters_.records % 100 == 0) return true;
  if (broken(Switch::records_of_function_lost) && r.function == 0) return true;
  if (broken(Switch::records_of_range_dropped)) {
    if (dropped_range_ == ~std::uint64_t{0}) {
      dropped_range_ = r.address >> 16;
      logging::warn("records of the 64 KiB at {:#x} are dropped", r.address >> 16 << 16);
    }
    return r.address >> 16 == dropped_range_;
  }
  return false;
}

}  // namespace luge::vmstate
