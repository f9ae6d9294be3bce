// Where the state of a machine is copied to: a checkpoint store on this host or another, or a machine that waits on another host (DWR-32).
//
// Order: begin, any number of put, commit or abandon; then anew. A page that is put twice has its last content. What was not
// committed never counts: a target that is killed, or loses its source, has the checkpoint before, whole.
// Threads: one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/buffer.hpp"
#include "base/status.hpp"
#include "vmstate/page_set.hpp"

namespace luge::vmstate {

/// Of a machine's memory, and of its disk: 1 TiB each. A page takes four bytes of memory wherever checkpoints are put together.
inline constexpr std::uint64_t kMostPages = std::uint64_t{1} << 28;

/// Pages of machine memory first, those of its disk behind them.
struct Shape {
  std::uint64_t memory_pages = 0, disk_pages = 0;
  std::uint64_t pages() const { return memory_pages + disk_pages; }
  bool operator==(const Shape&) const = default;
};

struct PageBatch {
  struct Entry {
    std::uint64_t page = 0;
    std::uint32_t crc = 0;  ///< CRC32C of its 4096 bytes
    bool zero = false;      ///< all zeros: no bytes of it in `content`
  };
  std::vector<Entry> entries;
  std::vector<std::byte> content;  ///< of the entries that aren't zero, in their order
  void clear() { entries.clear(), content.clear(); }
};

struct Begin {
  std::string machine;         ///< name; letters, digits, - and _
  std::uint64_t sequence = 0;  ///< of this checkpoint; from 1
  std::uint64_t parent = 0;    ///< it has only what changed since that one; 0: it has everything
  Shape shape;
};

class Target {
 public:
  virtual ~Target() = default;
  /// Number of the newest checkpoint of the machine that is there; 0: none.
  virtual Result<std::uint64_t> newest(const std::string& machine) = 0;
  virtual Status begin(const Begin& begin) = 0;
  virtual Status put(const PageBatch& batch) = 0;
  /// `device_state`: what QEMU saved. `description`: JSON, for people and for restore. Durable, or running over there, when it returns ok.
  /// timed_out: whether it was committed isn't known.
  virtual Status commit(const std::string& device_state, const std::string& description) = 0;
  virtual void abandon() = 0;
};

}  // namespace luge::vmstate
