// On disk, a log portion is a row of segments; a segment is a row of batches; a batch is
//   header area (a multiple of 4 KiB): BatchHeader, commit table, then per record RecordHeader and body (padded to 8)
//   payload: the 4 KiB blocks of its data records, in order.
// One batch is one O_DSYNC write: it is there whole, or its CRC says that it is not.
#pragma once

#include <cstddef>
#include <cstdint>

namespace luge::head {

inline constexpr std::uint32_t kBatchMagic = 0x4842474c;  // "LGBH"
inline constexpr std::uint16_t kBatchVersion = 1;

struct BatchHeader {
  std::uint32_t magic = kBatchMagic;
  std::uint16_t version = kBatchVersion;
  std::uint8_t portion = 0;          // 0 data, 1 metadata
  std::uint8_t reserved = 0;
  std::uint32_t header_bytes = 0;    // of the header area
  std::uint32_t used_bytes = 0;      // of the header area, before padding
  std::uint32_t payload_blocks = 0;
  std::uint32_t records = 0;
  std::uint32_t commits = 0;         // entries of the commit table
  std::uint32_t previous_crc = 0;    // crc of the batch before this one in the portion
  std::uint64_t generation = 0;      // of the segment's present use
  std::uint64_t order = 0;           // one counter over both portions of a head: replay goes by it
  std::uint64_t node = 0;            // the head that wrote it
  std::uint32_t offset_blocks = 0;   // of this batch in its segment
  std::uint32_t crc = 0;             // CRC32C of the header area's used bytes with crc = 0
};
static_assert(sizeof(BatchHeader) == 64);
static_assert(offsetof(BatchHeader, generation) == 32);
static_assert(offsetof(BatchHeader, crc) == 60);

/// Follows the header: how far each VP was known to be committed when the batch was written.
struct CommitEntry {
  std::uint64_t vp = 0;
  std::uint64_t commit = 0;
};
static_assert(sizeof(CommitEntry) == 16);

}  // namespace luge::head
