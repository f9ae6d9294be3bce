// Files and raw devices as arrays of 4 KiB blocks, opened with O_DIRECT.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/buffer.hpp"
#include "base/status.hpp"
#include "io/world.hpp"

namespace luge::io {

enum class Durability {
  cached,   ///< may be lost by a power cut until sync()
  durable,  ///< on the medium when the call returns (O_DSYNC / FUA)
};

/// Offsets, lengths and memory are multiples of 4 KiB. Several calls may be in progress at once; overlapping
/// ones have no order. An error leaves the range with old, new or torn content, unknown which.
class BlockFile {
 public:
  virtual ~BlockFile() = default;
  virtual std::uint64_t size() const = 0;
  virtual Task<Status> read(std::uint64_t offset, MutableBytes into) = 0;
  /// The same into memory that is shared until the operation has ended, so that one that is given up needs no copy of its own. After an error
  /// nobody may use it.
  virtual Task<Status> read(std::uint64_t offset, Buffer into);
  virtual Task<Status> write(std::uint64_t offset, std::span<const Bytes> parts, Durability d) = 0;
  virtual Task<Status> sync() = 0;
  /// Makes a file longer; what is new is zeros, written durably when it returns. After an error it is as long as before; a crash may
  /// leave some of it. invalid: this cannot grow (a device); no_space. REQUIRES: a multiple of 4 KiB, no other grow() in progress.
  virtual Task<Status> grow(std::uint64_t bytes);
};

struct OpenOptions {
  bool create = false;       ///< make it if it is not there (never truncates)
  std::uint64_t size = 0;    ///< with create: bytes the file is made with
  bool prewrite = false;     ///< with create: write zeros to all of it, durably, before open() returns (else sparse)
  bool lock = false;         ///< fail with Code::exists if another process holds it
};

class Files {
 public:
  virtual ~Files() = default;
  /// `path` is relative to the daemon's data directory, or absolute (devices).
  virtual Task<Result<std::unique_ptr<BlockFile>>> open(std::string path, OpenOptions options) = 0;
  virtual Task<Status> remove(std::string path) = 0;
  /// Atomically replaces `to`; durable when it returns.
  virtual Task<Status> rename(std::string from, std::string to) = 0;
  /// Names in a directory (empty string: the data directory itself), sorted.
  virtual Task<Result<std::vector<std::string>>> list(std::string directory) = 0;
  virtual Task<Status> make_directory(std::string path) = 0;
};

}  // namespace luge::io
