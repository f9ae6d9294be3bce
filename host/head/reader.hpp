// What one connection has asked of this head's primaries and has not been answered yet. Loop thread.
#pragma once

#include <cstdint>
#include <memory>

#include "io/world.hpp"

namespace luge::head {

struct Reader {
  explicit Reader(io::World& world) : turn(world) {}
  io::Mutex turn;            ///< of those that wait until it takes its answers one looks; thousands that look would leave no time for others
  std::uint64_t blocks = 0;  ///< asked for
};

/// Counts `blocks` as asked for while it lives.
class Asked {
 public:
  Asked(std::shared_ptr<Reader> reader, std::uint64_t blocks) : reader_(std::move(reader)), blocks_(blocks) { reader_->blocks += blocks_; }
  Asked(const Asked&) = delete;
  Asked& operator=(const Asked&) = delete;
  ~Asked() { reader_->blocks -= blocks_; }
  Reader& reader() const { return *reader_; }

 private:
  std::shared_ptr<Reader> reader_;
  std::uint64_t blocks_;
};

}  // namespace luge::head
