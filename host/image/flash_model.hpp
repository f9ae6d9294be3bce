// A serial flash as it is: programming turns 1 into 0 and nothing back, within a page; erasing sets a sector to ones. Kept in a file, or in memory.
// Cut at an operation: part of its bytes have changed, each of their bits or not, as a power failure leaves a page or a sector.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "base/status.hpp"
#include "firmware/update/flash_medium.hpp"

namespace luge::image {

/// Thrown by the operation that the cut is in, and by all after it.
struct PowerLost {};

/// Of the emulated board: 64 KiB a slot in sectors of 4 KiB are small for a bitstream and right for tests; `slot_bytes` says otherwise.
fw::FlashLayout flash_layout(std::uint32_t slot_bytes, std::uint32_t sector = 4096);

class FlashModel {
 public:
  explicit FlashModel(const fw::FlashLayout& layout);
  /// A model whose bytes are in `path`, made blank if it is not there.
  static Result<FlashModel> open(const std::string& path, const fw::FlashLayout& layout);
  Status save() const;

  bool read(std::uint32_t at, std::uint8_t* to, std::uint32_t bytes) const;
  bool program(std::uint32_t at, const std::uint8_t* data, std::uint32_t bytes);
  bool erase(std::uint32_t at);

  /// The nth operation from now (1: the next) is cut; what it leaves comes from `seed`. 0: none.
  void cut_at(std::uint64_t n, std::uint64_t seed) { cut_at_ = n == 0 ? 0 : operations_ + n, random_.seed(seed), off_ = false; }
  /// Power is back.
  void power_on() { off_ = false, cut_at_ = 0; }
  std::uint64_t operations() const { return operations_; }
  std::uint64_t erases() const { return erases_; }
  /// The bytes themselves, for who copies them to and from a real flash.
  std::vector<std::uint8_t>& bytes() { return bytes_; }
  /// Golden, at the factory: not through the updater.
  bool write_golden(const std::vector<std::uint8_t>& bytes);
  /// Whether anything of the golden slot was written or erased since.
  bool golden_touched() const { return golden_touched_; }
  const fw::FlashLayout& layout() const { return layout_; }

 private:
  bool cut();
  void touch(std::uint32_t at, std::uint32_t bytes);
  void write_through(std::uint32_t at, std::uint32_t bytes);

  fw::FlashLayout layout_;
  std::vector<std::uint8_t> bytes_;
  std::string path_;
  std::mt19937_64 random_;
  std::uint64_t operations_ = 0, erases_ = 0, cut_at_ = 0;
  bool off_ = false, golden_touched_ = false;
};

}  // namespace luge::image
