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

// On the wire: frames of a header and `bytes` bytes. The sender asks, the receiver answers `hello`, `begin`, `commit` and `run`.
inline constexpr std::uint32_t kTransferMagic = 0x5254564c;  // "LVTR"
inline constexpr std::uint16_t kTransferVersion = 1;
inline constexpr std::uint32_t kMostFrame = 1u << 30;

enum class Transfer : std::uint16_t {
  begin = 1,   ///< BeginFrame
  pages = 2,   ///< u64 entries, PageFrame each, then the pages that aren't zero
  commit = 3,  ///< u64 bytes of device state, state, description
  abandon = 4,
  answer = 5,  ///< u16 code, text
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
