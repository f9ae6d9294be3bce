// Which pages of a machine's memory its processors (and the rest of its QEMU process) have written: the half of the dirty set that no
// device records. A device that has the memory mapped itself, as a vhost-user back end has, isn't seen here.
//
// take() clears before it returns: a page written after that is found by the next take(). Threads: one.
#pragma once

#include <memory>
#include <string>

#include "base/status.hpp"
#include "vmstate/machine_memory.hpp"

namespace luge::vmstate {

class ProcessorWrites {
 public:
  virtual ~ProcessorWrites() = default;
  /// From now on writes are noted; before the first page is read.
  virtual Status arm() = 0;
  /// Adds what was written since arm() or the last take().
  virtual Status take(PageSet& to) = 0;
  /// The copy of a page that the target is to have was made: these 4096 bytes.
  virtual void copied(std::uint64_t page, const std::byte* content) {}
  virtual const char* kind() const = 0;
};

/// By userfaultfd's asynchronous write protection, which luge-dirty-shim.so has set up inside the process, and PAGEMAP_SCAN from here.
/// Costs nothing where nothing is written. `unavailable` from arm(): the kernel lacks it (before 6.7) or the process runs without the shim.
std::unique_ptr<ProcessorWrites> pagemap_writes(int pid, std::shared_ptr<const MachineMemory> memory);

/// Without help of kernel and process: memory is compared with what was copied last. As much memory again, and a pass over all of it each time.
std::unique_ptr<ProcessorWrites> compare_writes(std::shared_ptr<const MachineMemory> memory);

}  // namespace luge::vmstate
