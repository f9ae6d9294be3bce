// What a virtualization manager (VMC) says to the recorder of a guest's disk, over a SOCK_SEQPACKET socket: one struct a packet, little-endian,
// descriptors beside it (SCM_RIGHTS). The socket of a disk served at PATH is PATH.recorder.
//
// A connection has at most one recording; it ends with the connection, and what it had quiesced or throttled goes on as before.
// One request is answered before the next is looked at, with one reply of the same id. Sizes and versions that are not known end the connection.
#pragma once

#include <cstdint>

namespace luge::card {

inline constexpr std::uint32_t kRecorderMagic = 0x4352474c;  // "LGRC"
inline constexpr std::uint16_t kRecorderVersion = 1;
inline constexpr const char* kRecorderSuffix = ".recorder";
inline constexpr std::uint32_t kRecorderMostRegions = 64;
inline constexpr std::uint32_t kRecorderWindow = 1u << 20;

enum class RecorderVerb : std::uint16_t {
  start = 1,     ///< mode, slots_log2, watermark. Reply with descriptors: ring, watermark eventfd, doorbell eventfd, then one a region
  stop = 2,      ///< no record after the reply; the ring is the reader's
  quiesce = 3,   ///< takes no more descriptors; answered when all DMA is done and recorded, the suspended marker last in the ring. value 1: the
                 ///< guest goes on here afterwards; its volume stays attached here though its rings stop meanwhile
  resume = 4,
  throttle = 5,  ///< value: bytes of DMA per second; 0: as fast as it goes
  status = 6,
  memory = 7,    ///< the table of guest memory: regions, with one descriptor each
  track = 8,     ///< value 1: from now on the blocks that the guest writes are noted. Reply with descriptors: bitmap (a bit for each 4 KiB, set
                 ///< after the write has ended, cleared by the VMC with atomic exchanges of words), window. value 0: not any more
  read = 9,      ///< `mode` bytes of the volume from `value` on, into the window
};

struct RecorderRequest {
  std::uint32_t magic = kRecorderMagic;
  std::uint16_t version = kRecorderVersion;
  RecorderVerb verb{};
  std::uint32_t id = 0;
  std::uint32_t mode = 0;        ///< RecordMode
  std::uint32_t slots_log2 = 16;
  std::uint32_t watermark = 0;   ///< records not examined that raise the watermark's eventfd; 0: half the ring
  std::uint64_t value = 0;
};
static_assert(sizeof(RecorderRequest) == 32);

struct RecorderRegion {
  std::uint64_t address = 0, bytes = 0, offset = 0;  ///< guest physical; of the file
};

/// Flags of a disk.
enum RecorderFlags : std::uint32_t {
  kDiskConnected = 1,   ///< a front end is there, and guest memory is known
  kDiskRunning = 2,     ///< a ring is started
  kDiskQuiesced = 4,
  kDiskDirtyLog = 8,    ///< QEMU migrates by itself
  kDiskRecording = 16,
};

struct RecorderReply {
  std::uint32_t magic = kRecorderMagic;
  std::uint16_t version = kRecorderVersion;
  RecorderVerb verb{};
  std::uint32_t id = 0;
  std::uint16_t code = 0;        ///< Code
  std::uint16_t regions = 0;
  std::uint32_t flags = 0;       ///< RecorderFlags
  std::uint32_t function = 0;
  std::uint32_t ring_state = 0;  ///< RingState
  std::uint32_t slots_log2 = 0;
  std::uint32_t mode = 0;
  std::uint32_t memory_generation = 0;  ///< another number: another table of guest memory
  std::uint64_t volume_id = 0, volume_bytes = 0, throttle = 0;
  std::uint64_t dma_bytes = 0, bursts = 0, records = 0, holds = 0, overflows = 0;
  char volume[64] = {};
  char text[192] = {};           ///< of an error, for people
  RecorderRegion region[kRecorderMostRegions] = {};
};
static_assert(sizeof(RecorderReply) == 360 + kRecorderMostRegions * sizeof(RecorderRegion));

}  // namespace luge::card
