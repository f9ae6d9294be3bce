// The card's memory: what the host has allocated, each allocation a memfd of its own, so that one can be handed to the host as a
// file and mapped there. Everything else answers DECERR, which finds what a card with gigabytes behind every address would forgive.
#pragma once
#include <cstdint>
#include <map>
#include <string>

namespace luge::xrt_sim {

class Memory {
 public:
  Memory() = default;
  Memory(const Memory&) = delete;
  ~Memory();

  /// False: overlaps another allocation, or there is no memory.
  bool allocate(std::uint64_t address, std::uint64_t bytes);
  bool free(std::uint64_t address);
  /// A name under which another process of the same user can open the allocation that begins at `address`.
  std::string file_of(std::uint64_t address) const;

  /// Whether all of it lies in one allocation. What sim/card's ports ask for.
  bool holds(std::uint64_t address, std::uint64_t length) {
    if (address - last_.begin < last_.size && length <= last_.size - (address - last_.begin)) return true;
    return find(address, length);
  }
  /// REQUIRES: holds(address, 1) was the last question.
  std::uint8_t* at(std::uint64_t address) { return last_.data + (address - last_.begin); }
  std::size_t allocations() const { return areas_.size(); }

 private:
  struct Area { std::uint64_t begin = 0, size = 0; std::uint8_t* data = nullptr; int fd = -1; };
  bool find(std::uint64_t address, std::uint64_t length);
  std::map<std::uint64_t, Area> areas_;
  Area last_;
};

}  // namespace luge::xrt_sim
