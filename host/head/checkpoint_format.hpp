// A checkpoint as one string of bytes: what a replica's metadata was at one point of its log, or what changed after the point of
// the checkpoint that it stands on (protocol 9). It needs nothing beside it but that other checkpoint, and not its author.
//
//   CheckpointHead
//   bodies: for each 4 bytes kind (RecordKind image_begin, image_part ..., image_end), 4 bytes length, the bytes, zeros up to
//           the next multiple of 8; what they say is host/wire/log.fbs
//
// On the sleds it lies as stripes whose blocks are named by host/coding/checkpoint_block.hpp. docs/formats.md has the bytes.
#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "base/ids.hpp"
#include "base/status.hpp"
#include "head/record.hpp"

namespace luge::head {

inline constexpr std::uint32_t kCheckpointMagic = 0x504b434c;  // "LCKP"
inline constexpr std::uint16_t kCheckpointVersion = 1;
inline constexpr std::uint32_t kMaxCheckpointChain = 256;

struct CheckpointHead {
  std::uint32_t magic = kCheckpointMagic;
  std::uint16_t version = kCheckpointVersion;
  std::uint16_t reserved0 = 0;
  std::uint32_t crc = 0;         // CRC32C of this struct with crc = 0
  std::uint32_t bodies_crc = 0;  // CRC32C of all that follows it
  std::uint64_t bodies_bytes = 0;
  std::uint64_t vp = 0;
  std::uint64_t history = 0;
  std::uint64_t epoch = 0;       // of the record at `lsn`
  std::uint64_t lsn = 0;         // complete up to here, all of it committed
  std::uint64_t id = 0;
  std::uint64_t base_id = 0;     // 0: whole; else it says what changed after `base_lsn`, the point of that checkpoint of the same author
  std::uint64_t base_lsn = 0;
  std::uint32_t author = 0;      // node whose replica it is of
  std::uint32_t number = 0;      // in its chain: 0 is the whole one
  std::uint64_t reserved1 = 0;

  LogPoint point() const { return {epoch, lsn}; }
};
static_assert(sizeof(CheckpointHead) == 96);
static_assert(offsetof(CheckpointHead, bodies_bytes) == 16);
static_assert(offsetof(CheckpointHead, lsn) == 48);
static_assert(offsetof(CheckpointHead, author) == 80);

using ImageBodies = std::vector<std::pair<RecordKind, std::string>>;

struct Checkpoint {
  CheckpointHead head;
  ImageBodies bodies;
};

/// Fills in lengths and checksums.
std::string encode_checkpoint(CheckpointHead head, const ImageBodies& bodies);

/// From a medium: nothing is trusted. corrupt: not what encode_checkpoint() makes; wrong_version.
Result<CheckpointHead> parse_checkpoint_head(Bytes bytes);
/// `bytes` may be longer than the checkpoint. That the bodies describe an image is theirs to show (Replica::load_image); that
/// they begin with a begin of this point and base and end with its end is checked.
Result<Checkpoint> parse_checkpoint(Bytes bytes);

}  // namespace luge::head
