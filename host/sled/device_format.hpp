// A device: superblock at 0 and again at 64 KiB, MetaStore region at 1 MiB, columns from 1 MiB + kMetaBytes on.
#pragma once

#include <cstddef>
#include <cstdint>

namespace luge::sled {

inline constexpr std::uint32_t kSuperMagic = 0x564c534c;  // "LSLV"
inline constexpr std::uint32_t kSuperVersion = 1;
inline constexpr std::uint64_t kSecondSuperblock = 64 << 10;
inline constexpr std::uint64_t kMetaOffset = 1 << 20;
inline constexpr std::uint64_t kMetaBytes = 4 << 20;

struct Superblock {
  std::uint32_t magic = kSuperMagic;
  std::uint32_t version = kSuperVersion;
  std::uint64_t unit = 0;
  std::uint64_t sled = 0;
  std::uint64_t column_bytes = 0;
  std::uint32_t columns = 0;
  std::uint16_t device = 0;      // index in the sled
  std::uint16_t reserved = 0;
  std::uint32_t crc = 0;         // CRC32C of this struct with crc = 0
  std::uint32_t reserved2 = 0;
};
static_assert(sizeof(Superblock) == 48);
static_assert(offsetof(Superblock, crc) == 40);

/// MetaStore value of "column/N": the column's present owner. A free column has owner 0.
struct ColumnRow {
  std::uint64_t owner = 0;       // VP
  std::uint64_t generation = 0;  // raised by each claim
  std::uint32_t slot_bytes = 0;
  std::uint32_t reserved = 0;
};
static_assert(sizeof(ColumnRow) == 24);

/// A slot's first generation in a claim of its column; each free adds one.
inline constexpr std::uint64_t first_slot_generation(std::uint64_t column_generation) { return column_generation << 20; }

}  // namespace luge::sled
