// What a volume remembers of an open request: the request and its parts, one part per operation on the wire.
// Both come from pools and go back when answered, so a request in steady state allocates nothing here.
// Private to host/client.
#pragma once

#include <memory>
#include <vector>

#include "client/block_target.hpp"
#include "wire/client_generated.h"

namespace luge::client {

/// What the user asked for. Answered when `left` parts have been; the first error counts.
struct Request {
  BlockTarget::Done done;
  BlockTarget::ReadDone read_done;
  BlockTarget::MapDone map_done;
  std::uint32_t left = 0;
  Status status;
  std::vector<Buffer> data;  ///< of a read, by part
  std::vector<std::vector<BlockTarget::MapRun>> runs;  ///< of a map, by part

  void reset() {
    done = nullptr;
    read_done = nullptr;
    map_done = nullptr;
    left = 0;
    status = Status();
    data.clear();
    runs.clear();
  }
};

/// A piece inside one VP; of a read or write one that touches at most kMaxOpBlocks blocks, of a map kMaxMapBlocks.
struct Part {
  Request* request = nullptr;
  std::uint32_t index = 0;  ///< among the parts of a read
  bool is_read = false;      ///< or a map: asked again anywhere, at any time
  bool is_map = false;
  fbs::OpKind kind = fbs::OpKind::write;
  std::uint32_t length = 0;
  std::uint64_t offset = 0;  ///< inside the VP, bytes
  std::uint64_t id = 0;      ///< sequence of a write, tag of a read; 0: not given yet
  std::uint32_t attempts = 0;
  std::uint32_t damaged = 0;  ///< so often its blocks came to the other side not as they were summed
  io::Time sent{};           ///< last time
  io::Time due{};            ///< of a read that waits to be tried again
  Buffer image;              ///< of a write: its blocks
  std::vector<std::uint32_t> crcs;  ///< of a write: one per block, over the bytes of the write only

  Lba lba() const { return offset / kBlockBytes; }
  /// Of a write: one for each block that it touches, over its own bytes in that block (wire/client.fbs).
  std::vector<std::uint32_t> checksums() const;
  std::uint32_t blocks() const { return static_cast<std::uint32_t>(touched_blocks(offset, length)); }
  void reset() {
    request = nullptr;
    id = 0;
    attempts = damaged = 0;
    image = Buffer();
    crcs.clear();
  }
};

template <class T>
class Pool {
 public:
  T* take() {
    if (free_.empty()) return all_.emplace_back(std::make_unique<T>()).get();
    T* t = free_.back();
    free_.pop_back();
    return t;
  }
  void give(T* t) {
    t->reset();
    free_.push_back(t);
  }

 private:
  std::vector<std::unique_ptr<T>> all_;
  std::vector<T*> free_;
};

}  // namespace luge::client
