// What a store of checkpoints on a volume is written to: bytes at places, and a flush. Blocking.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/buffer.hpp"
#include "base/status.hpp"

namespace luge::vmstate {

class BlockFile {
 public:
  virtual ~BlockFile() = default;
  /// How it is called in messages.
  virtual const std::string& name() const = 0;
  virtual std::uint64_t bytes() const = 0;
  /// REQUIRES: within bytes(). Offsets and sizes are multiples of 512.
  virtual Status read(std::uint64_t offset, std::span<std::byte> into) = 0;
  virtual Status write(std::uint64_t offset, Bytes from) = 0;
  /// What has been written is durable.
  virtual Status flush() = 0;
};

/// An export of an NBD server, such as a Luge volume behind `luge attach`: nbd+unix:///EXPORT?socket=PATH. invalid: no such address;
/// unavailable: nobody there, or a server that doesn't speak the fixed newstyle handshake, or has no such export.
Result<std::unique_ptr<BlockFile>> open_nbd(const std::string& uri);
/// Is it written as such an address?
bool is_nbd(const std::string& uri);

}  // namespace luge::vmstate
