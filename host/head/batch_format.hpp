// On disk, a log portion is a row of segments; a segment is a row of batches; a batch is
//   header area (a multiple of 4 KiB): BatchHeader, commit table, then per record RecordHeader and body (padded to 8)
//   payload: the 4 KiB blocks of its data records, in order.
// One batch is one O_DSYNC write: it is there whole, or its CRC says that it is not.
// What the bytes of a batch say is told here without I/O and without knowing where they stood; whether a batch belongs
// to the place where it was found (segment, generation, node) is the reader's business.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "head/record.hpp"

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

/// A segment's row in the MetaStore, under segment/data/N or segment/meta/N.
struct SegmentRow {
  std::uint64_t generation = 0;
  std::uint64_t sequence = 0;   // order of uses; 0: never used
  std::uint32_t start_crc = 0;  // of the batch before its first one
  std::uint32_t end = 0;        // 1 + the 4 KiB blocks up to where a recovery found its end: what lies behind was torn; 0: not known
};
static_assert(sizeof(SegmentRow) == 24);

/// Length of the whole batch.
inline std::uint64_t batch_bytes(const BatchHeader& h) {
  return h.header_bytes + std::uint64_t{h.payload_blocks} * kBlockBytes;
}

/// Ok: a batch begins at the beginning of `bytes` and lies in them, and the checksum of its header area is right.
/// not_found: none begins here. corrupt: one did, and is cut off or damaged. wrong_version: one does, whole, of a format
/// that is not known here (magic, lengths and checksum stay where they are in all versions). `header` is what stands
/// there in any case, as far as there are bytes for it.
Status parse_batch_header(Bytes bytes, BatchHeader& header);

struct RecordView {
  RecordHeader header;
  Bytes body;
  Bytes payload;  ///< of a data record
};
struct BatchView {
  std::vector<CommitEntry> commits;
  std::vector<RecordView> records;  ///< into the bytes that were parsed; check_record() has not been asked yet
};
/// What follows a header that parse_batch_header() took out of `bytes`. corrupt: the lengths in it do not fit together.
Result<BatchView> parse_batch(Bytes bytes, const BatchHeader& header);

/// The header area of a batch of `records`. `header` has the fields that say where it stands; the lengths, counts and
/// the CRC are filled in.
Buffer encode_batch_area(BatchHeader& header, std::span<const CommitEntry> commits, std::span<const RecordPtr> records);

/// What a record takes in the header area.
inline std::size_t area_bytes(const Record& r) { return sizeof(RecordHeader) + padded8(r.body.size()); }

}  // namespace luge::head
