// A checkpoint of a virtual machine as it lies in a file, and the frames by which it travels. docs/formats.md has the bytes in a table.
//
// A file is its header, then 4096-byte slots for pages that aren't all zeros, then the table (an entry a page, by page number), then the
// device state, then the description. Everything is summed: the header, the table, state and description, and each page. The header is
// written last; a file without a right one was never committed.
#pragma once

#include <cstddef>
#include <cstdint>

namespace luge::vmstate {

inline constexpr std::uint32_t kCheckpointMagic = 0x4b43564c;  // "LVCK"
inline constexpr std::uint16_t kCheckpointVersion = 1;
inline constexpr std::uint64_t kSlotsAt = 4096;
inline constexpr std::uint64_t kNoSlot = ~std::uint64_t{0};

struct CheckpointHeader {
  std::uint32_t magic = kCheckpointMagic;
  std::uint16_t version = kCheckpointVersion;
  std::uint16_t reserved = 0;
  std::uint64_t sequence = 0;
  std::uint64_t parent = 0;        ///< 0: has every page
  std::uint64_t memory_pages = 0, disk_pages = 0;
  std::uint64_t entries = 0, slots = 0;
  std::uint64_t state_bytes = 0, description_bytes = 0;
  std::uint64_t created_ns = 0;    ///< since 1970, for people
  char machine[64] = {};
  std::uint32_t table_crc = 0, tail_crc = 0;  ///< tail: state, then description
  std::uint32_t reserved1 = 0;
  std::uint32_t crc = 0;           ///< of this header with crc = 0
};
static_assert(sizeof(CheckpointHeader) == 160);

struct CheckpointEntry {
  std::uint64_t page = 0;
  std::uint64_t slot = kNoSlot;    ///< kNoSlot: the page is all zeros
  std::uint32_t crc = 0;           ///< CRC32C of its 4096 bytes
  std::uint32_t reserved = 0;
};
static_assert(sizeof(CheckpointEntry) == 24);

// On a volume: two directories, which name what lies in the blocks behind them (volume_store.hpp). A table's entries are CheckpointEntry with
// blocks of the volume for slots.
inline constexpr std::uint32_t kDirectoryMagic = 0x4456564c;  // "LVVD"
inline constexpr std::uint16_t kDirectoryVersion = 1;

struct DirectoryHeader {
  std::uint32_t magic = kDirectoryMagic;
  std::uint16_t version = kDirectoryVersion;
  std::uint16_t reserved = 0;
  std::uint64_t generation = 0;    ///< from 1; odd ones lie in the second directory
  std::uint64_t checkpoints = 0;   ///< DirectoryEntry each, behind this header
  std::uint32_t entries_crc = 0;
  std::uint32_t crc = 0;           ///< of this header with crc = 0
};
static_assert(sizeof(DirectoryHeader) == 32);

struct ExtentOnVolume {
  std::uint64_t block = 0, bytes = 0;
  std::uint32_t crc = 0, reserved = 0;
};

struct DirectoryEntry {
  char machine[64] = {};
  std::uint64_t sequence = 0, parent = 0, memory_pages = 0, disk_pages = 0;
  std::uint64_t created_ns = 0;
  ExtentOnVolume table, state, description;
};
static_assert(sizeof(DirectoryEntry) == 176);

// On the wire: frames of a header and `bytes` bytes. The receiver answers `newest`, `begin`
// and `commit`; what went wrong with `pages` it says at the commit.
inline constexpr std::uint32_t kTransferMagic = 0x5254564c;  // "LVTR"
inline constexpr std::uint16_t kTransferVersion = 1;
inline constexpr std::uint32_t kMostFrame = 64u << 20;

enum class Transfer : std::uint16_t {
  begin = 1,   ///< BeginFrame
  pages = 2,   ///< u64 entries, PageFrame each, then the pages that aren't zero
  commit = 3,  ///< u64 bytes of device state, state, description
  abandon = 4,
  answer = 5,  ///< u16 code, u16 0, u32 0, u64 number, text
  newest = 6,  ///< name of the machine; answered with the number
  working = 7, ///< of the receiver, now and then while it commits: the answer is still to come. No bytes
};

struct TransferHeader {
  std::uint32_t magic = kTransferMagic;
  std::uint16_t version = kTransferVersion;
  Transfer kind{};
  std::uint32_t bytes = 0;
  std::uint32_t crc = 0;           ///< of the bytes behind, but for the pages themselves, which have their own
};
static_assert(sizeof(TransferHeader) == 16);

struct BeginFrame {
  std::uint64_t sequence = 0, parent = 0, memory_pages = 0, disk_pages = 0;
  std::uint32_t live = 0;          ///< 1: for a machine that waits; 0: a checkpoint to keep
  std::uint32_t reserved = 0;
  char machine[64] = {};
};
static_assert(sizeof(BeginFrame) == 104);

struct PageFrame {
  std::uint64_t page = 0;
  std::uint32_t crc = 0;
  std::uint32_t zero = 0;
};
static_assert(sizeof(PageFrame) == 16);

}  // namespace luge::vmstate
