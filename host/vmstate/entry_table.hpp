// The entries of a checkpoint that is being written: each page once, by arrival; a page that comes again replaces what was said of it.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/status.hpp"
#include "vmstate/checkpoint_format.hpp"
#include "vmstate/target.hpp"

namespace luge::vmstate {

class EntryTable {
 public:
  void begin(const Shape& shape) { entries_.clear(), where_.assign(shape.pages(), 0); }
  /// The page's entry with its new CRC; where its bytes go is the caller's to say, kNoSlot: they have no place yet. Good until the next call.
  /// invalid: the machine has no such page.
  Result<CheckpointEntry*> add(const PageBatch::Entry& e) {
    if (e.page >= where_.size()) return Status(Code::invalid, "page " + std::to_string(e.page) + " of a machine that has " + std::to_string(where_.size()));
    if (where_[e.page] == 0) {
      entries_.push_back({e.page, kNoSlot, 0, 0});
      where_[e.page] = static_cast<std::uint32_t>(entries_.size());
    }
    CheckpointEntry& entry = entries_[where_[e.page] - 1];
    entry.crc = e.crc;
    return &entry;
  }
  /// invalid: a full checkpoint that hasn't every page.
  Status check_complete(const Begin& begin) const {
    if (begin.parent != 0 || entries_.size() == begin.shape.pages()) return Status();
    return Status(Code::invalid, "a full checkpoint that hasn't every page");
  }
  const std::vector<CheckpointEntry>& entries() const { return entries_; }
  std::vector<CheckpointEntry> take() { return std::exchange(entries_, {}); }

 private:
  std::vector<CheckpointEntry> entries_;
  std::vector<std::uint32_t> where_;  // page -> index in entries_ + 1
};

}  // namespace luge::vmstate
