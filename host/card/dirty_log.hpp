// The dirty log of vhost: one bit per 4 KiB of guest physical memory in memory shared with the front end, which clears words with
// atomic exchanges while bits are set here (hence atomic or). A bit is set after the byte it stands for has been written.
#pragma once

#include <cstdint>
#include <memory>

#include "base/status.hpp"

namespace luge::card {

class DirtyLog {
 public:
  /// `bytes` of the file from `offset` on, a whole number of words. invalid: it cannot be mapped.
  static Result<std::unique_ptr<DirtyLog>> map(int fd, std::uint64_t offset, std::uint64_t bytes);
  ~DirtyLog();
  DirtyLog(const DirtyLog&) = delete;

  /// All pages that [address, address + bytes) touches. Pages behind the log's end are not marked; false says so.
  bool mark(std::uint64_t address, std::uint64_t bytes);
  /// Does it reach to `end`?
  bool covers(std::uint64_t end) const { return end <= bytes_ * 8 * 4096; }

 private:
  DirtyLog() = default;
  void* mapped_ = nullptr;
  std::uint64_t mapped_bytes_ = 0, bytes_ = 0;
  std::uint8_t* bits_ = nullptr;
};

}  // namespace luge::card
