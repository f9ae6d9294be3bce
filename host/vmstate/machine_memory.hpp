// The memory of a virtual machine on this host: the files behind it (QEMU's memory backends, share=on), mapped read-only, and where in
// them guest physical addresses lie.
//
// Pages are numbered through all files, in their order; what no guest address leads to (below the VGA window, say) has numbers, too, since a
// replica of the files must be whole. Threads: immutable after make().
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/buffer.hpp"
#include "base/status.hpp"
#include "vmstate/page_set.hpp"

namespace luge::vmstate {

/// One entry of a device's table of guest memory: [address, address + bytes) lies in the file `fd` from `offset` on.
struct MemoryRange {
  std::uint64_t address = 0, bytes = 0, offset = 0;
  int fd = -1;
};

class MachineMemory {
 public:
  struct File {
    int fd = -1;                      ///< a duplicate
    std::uint64_t device = 0, inode = 0;  ///< what it is known by in /proc/PID/maps
    std::uint64_t bytes = 0, first_page = 0;
    const std::byte* data = nullptr;
  };
  /// Maps each file once, in the order of the lowest address in it. invalid: a range outside its file, sizes that are not whole pages.
  static Result<std::shared_ptr<MachineMemory>> make(std::span<const MemoryRange> table);
  ~MachineMemory();
  MachineMemory(const MachineMemory&) = delete;

  std::uint64_t pages() const { return pages_; }
  const std::byte* page(std::uint64_t number) const;
  std::span<const File> files() const { return files_; }
  /// Adds the pages of [address, address + bytes), guest physical. False: some of it is not this machine's memory (DWR-13).
  bool add(std::uint64_t address, std::uint64_t bytes, PageSet& to) const;

 private:
  MachineMemory() = default;
  struct Range {
    std::uint64_t address, bytes, first_page;
  };
  std::vector<File> files_;
  std::vector<Range> ranges_;  // by address
  std::uint64_t pages_ = 0;
};

}  // namespace luge::vmstate
