// Identities that every room uses. Plain integers with names of their own, so that an epoch is never
// passed where an LSN is meant by a reader; the wire and disk formats carry them as little-endian u64.
#pragma once

#include <compare>
#include <cstdint>
#include <string>

namespace luge {

using NodeId = std::uint32_t;        ///< one daemon of the unit; given in its config, unique in the unit
using VpId = std::uint64_t;          ///< volume partition: volume id << 16 | index in the volume
using VolumeId = std::uint64_t;      ///< volume; never reused
using Epoch = std::uint64_t;         ///< raised when a primary is designated; the only number that fences
using Revision = std::uint64_t;      ///< raised by every change of a designation; the store swaps on it
using Lsn = std::uint64_t;           ///< position in one VP's log sequence; 1 is the first record
using Lba = std::uint64_t;           ///< number of a 4 KiB block inside a VP
using Generation = std::uint64_t;    ///< use count of a chunk slot or of a log segment

inline constexpr std::uint32_t kBlockBytes = 4096;   ///< unit of the index, of CRCs and of O_DIRECT
inline constexpr std::uint32_t kMaxOpBlocks = 256;   ///< longest data record: 1 MiB
inline constexpr std::uint64_t kMaxReadBlocks = 4096;  ///< of all reads of one message: 16 MiB keep the answer far below the frame limit
inline constexpr std::uint32_t kMaxMapBlocks = 65536; ///< longest question for what is mapped: 256 MiB
inline constexpr std::uint32_t kSessionWindow = 512; ///< W: open requests per client session and VP

/// Number of blocks that [offset, offset + length) touches; offset and length in bytes.
inline constexpr std::uint64_t touched_blocks(std::uint64_t offset, std::uint32_t length) {
  return length == 0 ? 0 : (offset % kBlockBytes + length - 1) / kBlockBytes + 1;
}

inline constexpr VpId make_vp(VolumeId volume, std::uint32_t index) { return volume << 16 | index; }
inline constexpr VolumeId volume_of(VpId vp) { return vp >> 16; }
inline constexpr std::uint32_t index_of(VpId vp) { return static_cast<std::uint32_t>(vp & 0xffff); }

/// Where a log ends: logs are compared by (epoch of the last record, LSN), never by LSN alone.
struct LogPoint {
  Epoch epoch = 0;
  Lsn lsn = 0;
  auto operator<=>(const LogPoint&) const = default;
};

/// Never used twice: the counter restarts in each epoch, the epoch never repeats.
struct StripeId {
  VpId vp = 0;
  Epoch epoch = 0;
  std::uint64_t counter = 0;
  auto operator<=>(const StripeId&) const = default;
};

/// k data and m parity chunks of one stripe.
struct Layout {
  std::uint32_t k = 4;
  std::uint32_t m = 2;
  std::uint32_t width() const { return k + m; }
  bool operator==(const Layout&) const = default;
};

std::string to_string(const StripeId& id);  ///< "vp/epoch/counter"
std::string to_string(LogPoint p);          ///< "epoch:lsn"
std::string to_string(Layout l);            ///< "4+2"

}  // namespace luge
