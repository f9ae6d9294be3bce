// How a block of a metadata checkpoint names itself in chunk headers: what says for a block of the volume which LBA it is
// says for it which checkpoint it is of and where in it, so that a checkpoint is found by its chunks alone (protocol 9.1).
//
//   bit 63      1, and not the padding value
//   bits 62-24  the checkpoint's id: drawn at random by its author
//   bits 23-0   number of the 4 KiB block in the checkpoint (host/head/checkpoint_format.hpp)
#pragma once

#include "base/ids.hpp"

namespace luge::coding {

inline constexpr std::uint64_t kCheckpointBit = std::uint64_t{1} << 63;
inline constexpr std::uint32_t kMaxCheckpointBlocks = (1u << 24) - 1;
inline constexpr std::uint64_t kMaxCheckpointId = (std::uint64_t{1} << 39) - 1;

/// REQUIRES: id <= kMaxCheckpointId, block <= kMaxCheckpointBlocks - 1.
constexpr Lba checkpoint_lba(std::uint64_t id, std::uint32_t block) { return kCheckpointBit | id << 24 | block; }
constexpr bool is_checkpoint_lba(Lba lba) { return (lba & kCheckpointBit) != 0 && lba != ~Lba{0}; }
constexpr std::uint64_t checkpoint_id(Lba lba) { return lba >> 24 & kMaxCheckpointId; }
constexpr std::uint32_t checkpoint_block(Lba lba) { return static_cast<std::uint32_t>(lba & 0xffffff); }

}  // namespace luge::coding
