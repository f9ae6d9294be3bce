// Slots as files of a directory, for cards whose images XRT loads:
//
//   DIR/golden.img   from the factory          DIR/records   the newest record, replaced as a whole
//   DIR/a.img, DIR/b.img
//
// A slot is written piece by piece and synced (seal) before a record names it; a record is written beside the old one, synced, renamed over it, and the
// directory synced: a cut leaves the old one or the new one.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/status.hpp"
#include "firmware/update/slots.hpp"

namespace luge::image {

class DirectoryMedium {
 public:
  static constexpr std::uint32_t kPiece = 4096;
  static constexpr std::uint32_t kLargest = 1u << 30;
  /// `before`: called before every step that changes something, with its name; may throw. After it threw, what was not synced may be lost: lose_unsynced().
  explicit DirectoryMedium(std::string directory, std::function<void(const std::string&)> before = {});
  ~DirectoryMedium();

  std::uint32_t slot_bytes() const { return kLargest; }
  bool erase(fw::Slot slot, std::uint32_t bytes);
  bool write(fw::Slot slot, std::uint32_t at, const std::uint8_t* data, std::uint32_t n);
  bool read(fw::Slot slot, std::uint32_t at, std::uint8_t* to, std::uint32_t n);
  bool seal(fw::Slot slot);
  fw::Record newest();
  bool append(const fw::Record& r);
  bool burn_attempt();
  bool set_good();

  std::string path_of(fw::Slot slot) const;

 private:
  void step(const char* name) {
    if (before_) before_(name);
  }
  void close();
  std::string directory_;
  std::function<void(const std::string&)> before_;
  int fd_ = -1;
  fw::Slot open_ = fw::kNoSlot;
};

}  // namespace luge::image
