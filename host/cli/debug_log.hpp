// `luge debug log`: the records in a file of a head, whatever state the file is in. It prints what is there, says where
// something is damaged and goes on behind it; bytes on a disk never end it.
#pragma once

#include <cstdint>
#include <optional>
#include <ostream>

#include "base/buffer.hpp"
#include "base/status.hpp"

namespace luge::cli {

/// A file that is looked at.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  virtual std::uint64_t size() const = 0;
  /// Bytes [offset, offset + length), fewer at the end; 4 KiB aligned if offset is. io_error: they cannot be read.
  virtual Result<Buffer> read(std::uint64_t offset, std::uint64_t length) = 0;
};

struct LogPrintOptions {
  std::uint64_t from = 0;                ///< offset in the file; a multiple of 4096
  std::optional<std::uint32_t> segment;  ///< only this one
  std::uint64_t segment_bytes = 0;       ///< 0: what a head takes by default
  bool old = false;                      ///< also what earlier uses of a segment have left
  bool json = false;                     ///< one JSON object a line
};

/// A log portion or a metadata store, told apart by what stands in it. corrupt: something that must have been there
/// once is damaged; it has been printed where. A torn end is no damage: nobody was told that it is durable.
Status print_log(ByteSource& file, const LogPrintOptions& options, std::ostream& out);

}  // namespace luge::cli
