// A disk seen by its user: what front ends (NBD, later vhost-user) stand on, and what Volume implements.
//
// Callbacks run from the event loop, never inside the call that got them; they run once, unless the World stops first.
// A callable that captures no more than two pointers is kept without an allocation. Inside a callback new requests
// may be made, the target may not be destroyed. Requests that overlap and are open at the same time have no order.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "base/buffer.hpp"
#include "base/ids.hpp"
#include "base/status.hpp"
#include "io/world.hpp"

namespace luge::client {

class BlockTarget {
 public:
  using Done = std::function<void(const Status&)>;
  /// The parts, one after the other, are the bytes asked for; no more and no fewer. Empty after an error.
  using ReadDone = std::function<void(const Status&, std::span<Buffer>)>;

  /// A stretch that holds data, or one that reads as zeros because nothing has been written there since it was trimmed.
  struct MapRun {
    std::uint64_t bytes = 0;
    bool data = false;
  };
  /// Runs that follow one another from `offset` on and add up to `length`; kinds alternate. Empty after an error.
  using MapDone = std::function<void(const Status&, std::span<const MapRun>)>;

  virtual ~BlockTarget() = default;
  virtual std::uint64_t size_bytes() const = 0;
  /// `image`: the 4 KiB blocks that the write touches, each byte at its place in its block; what lies outside
  /// [offset, offset + length) is not looked at. The caller may not change it any more. Durable when done says ok.
  virtual void write(std::uint64_t offset, Buffer image, std::uint32_t length, Done done) = 0;
  virtual void read(std::uint64_t offset, std::uint32_t length, ReadDone done) = 0;
  /// Both make the range read as zeros; durable when done says ok.
  virtual void trim(std::uint64_t offset, std::uint32_t length, Done done) = 0;
  virtual void zero(std::uint64_t offset, std::uint32_t length, Done done) = 0;
  /// Where [offset, offset + length) holds data, by blocks of 4 KiB. As of a moment between the call and the answer.
  virtual void map(std::uint64_t offset, std::uint32_t length, MapDone done) = 0;
};

/// `length` bytes of the zeros that all reads of what holds no data share. REQUIRES: length <= kMaxOpBlocks blocks.
Buffer shared_zeros(std::size_t length);
/// Is it a piece of them? Then it need not be looked at to know that it is zeros.
bool is_shared_zeros(const Buffer& b);

/// Memory for a write of `length` bytes at `offset`: its blocks, the bytes around the range zeroed, the range itself
/// uninitialised and to be filled from image.data() + offset % 4096 on.
Buffer allocate_image(std::uint64_t offset, std::uint32_t length);

/// The same requests for coroutines (tools, tests). `world` is the target's.
io::Task<Status> write(io::World& world, BlockTarget& target, std::uint64_t offset, Buffer bytes);
io::Task<Result<Buffer>> read(io::World& world, BlockTarget& target, std::uint64_t offset, std::uint32_t length);
io::Task<Status> trim(io::World& world, BlockTarget& target, std::uint64_t offset, std::uint32_t length);
io::Task<Status> zero(io::World& world, BlockTarget& target, std::uint64_t offset, std::uint32_t length);
io::Task<Result<std::vector<BlockTarget::MapRun>>> map(io::World& world, BlockTarget& target, std::uint64_t offset, std::uint32_t length);

}  // namespace luge::client
