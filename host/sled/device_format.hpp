// Bytes of a device outside the chunk slots (host/sled/FORMAT.md): superblock at 0 and again at 64 KiB, metadata region
// (io::MetaStore) from 1 MiB on, columns behind it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace luge::sled {

inline constexpr std::uint32_t kSuperMagic = 0x564c534c;  // "LSLV"
inline constexpr std::uint32_t kSuperVersion = 2;
inline constexpr std::uint64_t kSecondSuperblock = 64 << 10;
inline constexpr std::uint64_t kMetaOffset = 1 << 20;
inline constexpr std::uint64_t kMiB = 1 << 20;
inline constexpr std::uint32_t kMaxColumns = 1 << 20;
inline constexpr std::uint32_t kMaxSlots = 1 << 16;  // of a column: the list of them must fit one message

struct Superblock {
  std::uint32_t magic = kSuperMagic;
  std::uint32_t version = kSuperVersion;
  std::uint64_t unit = 0;
  std::uint64_t sled = 0;
  std::uint64_t column_bytes = 0;  // a multiple of 4096
  std::uint32_t columns = 0;
  std::uint16_t device = 0;        // index in the sled
  std::uint16_t reserved = 0;
  std::uint32_t crc = 0;           // CRC32C of this struct with crc = 0
  std::uint32_t meta_mib = 0;      // size of the metadata region in MiB
  std::uint64_t id = 0;            // drawn when it is formatted: tells this device from all others that stood in its place
};
static_assert(sizeof(Superblock) == 56);
static_assert(offsetof(Superblock, unit) == 8);
static_assert(offsetof(Superblock, columns) == 32);
static_assert(offsetof(Superblock, crc) == 40);
static_assert(offsetof(Superblock, id) == 48);

/// MetaStore value of "column/N": the column's present owner. A column with no row, or owner 0, is free.
struct ColumnRow {
  std::uint64_t owner = 0;       // VP
  std::uint64_t epoch = 0;       // in which it was claimed
  std::uint64_t generation = 0;  // raised by each claim
  std::uint32_t slot_bytes = 0;  // a multiple of 4096
  std::uint32_t role = 0;        // 0: the VP's data; else the node whose checkpoints lie here
};
static_assert(sizeof(ColumnRow) == 32);
static_assert(offsetof(ColumnRow, slot_bytes) == 24);
static_assert(offsetof(ColumnRow, role) == 28);

/// MetaStore key, value "0" or "1": there have been fences for which the region had no room.
inline constexpr std::string_view kMissedFences = "missed-fences";

/// The metadata region of a device with that many columns: room for a row of each, and fences, in half of it.
inline constexpr std::uint32_t meta_mib_for(std::uint64_t columns) {
  return 4 * static_cast<std::uint32_t>(1 + columns / 16384);
}

/// A slot's generations in a claim of its column: [first of this claim, first of the next). Each free adds one.
inline constexpr std::uint64_t first_slot_generation(std::uint64_t column_generation) { return column_generation << 20; }

}  // namespace luge::sled
