#include "card/write_records.hpp"

#include <cstring>

#include "switches/switches.hpp"

namespace luge::card {
namespace {

// `sequence` is the last word of a slot that the device writes, so what is seen after it is the whole record.
std::uint32_t sequence_of(const dma_record& slot) { return __atomic_load_n(&slot.sequence, __ATOMIC_ACQUIRE); }

}  // namespace

std::size_t WriteRecordReader::read(std::vector<dma_record>& out, std::size_t most) {
  const std::uint64_t slots = std::uint64_t{1} << slots_log2_;
  const bool late = broken(Switch::examined_before_copied);
  for (const dma_record* slot : uncopied_) out.push_back(*slot);
  uncopied_.clear();
  std::size_t n = 0;
  while (!gap_ && n < most) {
    const dma_record& slot = ring_[next_ & (slots - 1)];
    const std::uint32_t found = sequence_of(slot), expected = static_cast<std::uint32_t>(next_);
    if (found == expected) {
      if (late) {
        uncopied_.push_back(&slot);
        ++next_, ++n;
        continue;
      }
      dma_record copy;
      std::memcpy(&copy, &slot, sizeof copy);
      out.push_back(copy);
      ++next_, ++n;
      continue;
    }
    // What was in the slot one turn before: nothing has come.
    const std::uint32_t before = next_ <= slots ? 0 : static_cast<std::uint32_t>(next_ - slots);
    if (found == before) break;
    if (broken(Switch::record_gap_ignored)) {
      ++next_;
      continue;
    }
    gap_ = true;
    why_ = "slot " + std::to_string(next_ & (slots - 1)) + " has record " + std::to_string(found) + " where " + std::to_string(expected) + " was expected";
  }
  return n;
}

PageRange pages_of(const dma_record& record) {
  const std::uint64_t first = record.address / 4096;
  const std::uint64_t last_byte = record.address + record.last < record.address ? ~std::uint64_t{0} : record.address + record.last;
  if (broken(Switch::record_counts_one_page)) return {first, 1};
  return {first, last_byte / 4096 - first + 1};
}

}  // namespace luge::card
