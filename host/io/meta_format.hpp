// The bytes of a metadata store (meta_store.hpp), without I/O: what stands in one half of its region.
//
// Each batch begins on a 4 KiB boundary of its half: this header, `bytes` of pairs, then zeros. A half begins with a
// snapshot; each batch behind it has the next sequence number and the CRC of the one before. Sequence numbers go on over
// both halves. All fits in one 512-byte sector when there are no pairs, so an empty snapshot cannot tear.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/buffer.hpp"

namespace luge::io {

inline constexpr std::uint32_t kMetaMagic = 0x4d47554c;  // "LUGM"
inline constexpr std::uint16_t kMetaVersion = 1;
inline constexpr std::uint16_t kMetaSnapshot = 1, kMetaChanges = 2;
inline constexpr std::uint32_t kMetaErased = 0xffffffff;  ///< value length of an erased key

struct MetaBatchHeader {
  std::uint32_t magic = kMetaMagic;
  std::uint16_t version = kMetaVersion;
  std::uint16_t kind = 0;
  std::uint64_t sequence = 0;
  std::uint32_t bytes = 0;
  std::uint32_t previous_crc = 0;
  std::uint32_t reserved = 0;
  std::uint32_t crc = 0;  // CRC32C of this header with crc = 0, then the pairs
};
static_assert(sizeof(MetaBatchHeader) == 32);
static_assert(offsetof(MetaBatchHeader, sequence) == 8);
static_assert(offsetof(MetaBatchHeader, crc) == 28);

// Before each key and value.
struct MetaPairHeader {
  std::uint32_t key_bytes = 0;
  std::uint32_t value_bytes = 0;
};
static_assert(sizeof(MetaPairHeader) == 8);

std::uint32_t meta_batch_crc(MetaBatchHeader h, Bytes pairs);

/// A batch with a right checksum at the start of `at`, of whatever version, or nothing.
std::optional<MetaBatchHeader> meta_batch_at(Bytes at);

/// f for each pair; no value: the key is erased. False: the pairs do not parse (under a right CRC: written by something
/// else); those before the place where they do not have been handed out.
bool for_each_meta_pair(Bytes pairs, const std::function<void(std::string_view key, std::optional<std::string_view> value)>& f);

using MetaState = std::map<std::string, std::string, std::less<>>;

/// A half as far as its chain of batches goes.
struct MetaHalf {
  bool readable = false;              ///< begins with a valid snapshot
  std::uint16_t unknown_version = 0;  ///< not 0: the chain goes on in a format that is not known here
  std::uint64_t first = 0;            ///< sequence of the snapshot
  std::uint64_t last = 0;             ///< sequence of the last batch of the chain
  std::uint32_t last_crc = 0;
  std::uint64_t end = 0;              ///< where the next batch goes
  MetaState state;
};
using MetaBatchSeen = std::function<void(std::uint64_t at, const MetaBatchHeader& header, Bytes pairs)>;
MetaHalf replay_meta_half(Bytes half, const MetaBatchSeen& seen = {});

/// The greatest sequence of any valid batch that begins in [from, to), wherever it stands; 0: there is none. Beyond the end of the
/// chain that counts it means that a batch which had been acknowledged has gone bad: batches are written one after the
/// other, each only when the one before is durable, so no crash does that.
std::uint64_t greatest_meta_sequence(Bytes half, std::uint64_t from, std::uint64_t to);

/// Which of two halves counts: 0 or 1; nothing if neither is readable.
std::optional<int> counting_half(const MetaHalf& a, const MetaHalf& b);

}  // namespace luge::io
