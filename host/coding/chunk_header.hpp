// What stands in front of a chunk in its slot on a sled, and is enough to check any block of the whole stripe
// (protocol 8.6): so a block rebuilt from other chunks is checked exactly like one that was read.
//
// Header area, all numbers little-endian; n = chunk_bytes / 4096 blocks in a chunk:
//
//   offset         bytes   what
//   0              72      ChunkHeaderHead (its fields below)
//   72             24*k*n  BlockIdentity of each data block of the stripe: lba, lsn, crc, 0; chunk 0's blocks first
//   72 + 24*k*n    4*m*n   CRC32C of each 4 KiB block of each parity chunk
//   ...                    zeros up to the next multiple of 4096
//
// A slot is header area and chunk, written in one write: slot_bytes = chunk_header_bytes + chunk_bytes.
// A freed slot has only the head (state 0, header_bytes 72, CRC over these 72 bytes): it lies in one sector, so a
// free that is cut off leaves the written chunk or the freed slot, never a slot that nobody can read.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "base/buffer.hpp"
#include "base/ids.hpp"
#include "base/status.hpp"
#include "wire/common_generated.h"

namespace luge::coding {

inline constexpr std::uint32_t kChunkMagic = 0x4b48434c;  // "LCHK"
inline constexpr std::uint16_t kChunkVersion = 1;
inline constexpr std::uint32_t kMaxChunkBytes = 4u << 20;

struct ChunkHeaderHead {
  std::uint32_t magic = kChunkMagic;
  std::uint16_t version = kChunkVersion;
  std::uint8_t state = 0;           // 0: freed slot (nothing follows), 1: written
  std::uint8_t reserved0 = 0;
  std::uint32_t header_bytes = 0;   // of the whole area, a multiple of 4096; 72 when freed
  std::uint32_t crc = 0;            // CRC32C of header_bytes with crc = 0
  std::uint64_t unit = 0;
  std::uint64_t vp = 0;             // stripe id
  std::uint64_t epoch = 0;
  std::uint64_t counter = 0;
  std::uint64_t generation = 0;     // of the slot
  std::uint32_t chunk_bytes = 0;
  std::uint16_t k = 0;
  std::uint16_t m = 0;
  std::uint16_t chunk_index = 0;
  std::uint16_t reserved1 = 0;
  std::uint32_t reserved2 = 0;
};
static_assert(sizeof(ChunkHeaderHead) == 72);
static_assert(offsetof(ChunkHeaderHead, header_bytes) == 8);
static_assert(offsetof(ChunkHeaderHead, crc) == 12);
static_assert(offsetof(ChunkHeaderHead, unit) == 16);
static_assert(offsetof(ChunkHeaderHead, vp) == 24);
static_assert(offsetof(ChunkHeaderHead, generation) == 48);
static_assert(offsetof(ChunkHeaderHead, chunk_bytes) == 56);
static_assert(offsetof(ChunkHeaderHead, chunk_index) == 64);
static_assert(sizeof(fbs::BlockIdentity) == 24);

struct ChunkHeaderFields {
  std::uint64_t unit = 0;
  StripeId stripe;
  Layout layout;
  std::uint32_t chunk_bytes = 0;
  std::uint32_t chunk_index = 0;
  Generation generation = 0;
  bool written = true;
};

/// k 1..16, m 0..4, chunk_bytes a multiple of 4096 up to kMaxChunkBytes.
bool possible_chunk(Layout layout, std::uint32_t chunk_bytes);

/// Size of the header area; a slot takes this and chunk_bytes. REQUIRES: possible_chunk().
std::uint32_t chunk_header_bytes(Layout layout, std::uint32_t chunk_bytes);

/// identities: of all data blocks in order; parity_crcs: of all parity blocks in order.
/// REQUIRES: counts that fit layout and chunk_bytes.
Buffer encode_chunk_header(const ChunkHeaderFields& fields, std::span<const fbs::BlockIdentity> identities,
                           std::span<const std::uint32_t> parity_crcs);

/// One 4 KiB block that marks a slot as free in `generation`.
Buffer encode_free_header(std::uint64_t unit, Generation generation);

class ChunkHeader {
 public:
  const ChunkHeaderFields& fields() const { return fields_; }
  StripeId stripe() const { return fields_.stripe; }
  std::uint32_t header_bytes() const { return header_bytes_; }
  std::uint32_t blocks_per_chunk() const { return fields_.chunk_bytes / kBlockBytes; }
  /// Of block `block` of chunk `chunk`; for a parity chunk lba is the padding value and crc that of the parity block.
  fbs::BlockIdentity identity(std::uint32_t chunk, std::uint32_t block) const;
  std::uint32_t block_crc(std::uint32_t chunk, std::uint32_t block) const { return identity(chunk, block).crc(); }
  /// REQUIRES: k <= chunk < k + m.
  std::uint32_t parity_crc(std::uint32_t chunk, std::uint32_t block) const;

 private:
  friend Result<ChunkHeader> parse_chunk_header(Bytes bytes);
  ChunkHeaderFields fields_;
  std::uint32_t header_bytes_ = 0;
  std::vector<fbs::BlockIdentity> identities_;
  std::vector<std::uint32_t> parity_crcs_;
};

/// `bytes`: the header area (may be longer), from a disk or a peer: nothing about it is trusted. not_found: 4 KiB of
/// zeros, a slot never written. corrupt: anything that encode_*() did not make. wrong_version.
Result<ChunkHeader> parse_chunk_header(Bytes bytes);

/// How long the header area is that begins with `first` (at least 4 KiB of it), so that the rest can be read;
/// 0: no header begins here. At most `limit`, 4096 for a freed slot. Nothing is verified yet.
std::uint32_t claimed_header_bytes(Bytes first, std::uint32_t limit);

}  // namespace luge::coding
