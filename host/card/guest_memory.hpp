// A guest's memory as a device sees it: ranges of guest physical addresses, each a piece of a file that both sides map.
//
// Invariant: a table is checked whole when it is made (whole pages, no overlap, no wrap-around, inside the file) and never changes.
// Whoever shares the file may shrink it at any time; a page that is gone then reads as zeros and takes writes that nobody sees, and
// lost() says so from then on: the process goes on, and the device has to be stopped.
// Threads: one; the handler of SIGBUS only.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/buffer.hpp"
#include "base/status.hpp"

namespace luge::card {

inline constexpr std::uint64_t kGuestPage = 4096;
inline constexpr std::uint64_t kGuestEnd = std::uint64_t{1} << 52;  ///< no processor addresses more; the card has other addresses above

/// One range of the table as it is handed in or on. `user` is where the front end itself has it mapped: ring addresses of
/// vhost-user are given in that space.
struct GuestRegion {
  std::uint64_t address = 0;  ///< guest physical
  std::uint64_t bytes = 0;
  std::uint64_t user = 0;
  std::uint64_t offset = 0;   ///< in the file
  int fd = -1;
};

class GuestMemory {
 public:
  static constexpr std::size_t kMostRegions = 64;
  /// Maps them; the descriptors are duplicated. invalid: what is wrong with which.
  static Result<std::shared_ptr<GuestMemory>> map(std::span<const GuestRegion> regions);
  ~GuestMemory();
  GuestMemory(const GuestMemory&) = delete;

  /// Where [address, address + bytes) lies here; null if it is not within one region, or empty.
  std::byte* at(std::uint64_t address, std::uint64_t bytes) const;
  /// Bytes from `address` to the end of its region; 0: in none.
  std::uint64_t room(std::uint64_t address) const;
  /// The guest physical address of what the front end has at `user`, if [user, user + bytes) is within one region.
  bool translate(std::uint64_t user, std::uint64_t bytes, std::uint64_t& address) const;

  std::span<const GuestRegion> regions() const { return regions_; }
  std::uint64_t lowest() const { return regions_.empty() ? 0 : regions_.front().address; }
  /// First address behind the highest region.
  std::uint64_t end() const { return regions_.empty() ? 0 : regions_.back().address + regions_.back().bytes; }
  /// The same ranges of the same files, mapped by the front end at the same places.
  bool same_as(const GuestMemory& other) const;
  bool lost() const { return lost_.load(std::memory_order_relaxed); }

 private:
  GuestMemory() = default;
  std::vector<GuestRegion> regions_;  // by address
  std::vector<std::byte*> mapped_;
  std::atomic<bool> lost_{false};
};

}  // namespace luge::card
