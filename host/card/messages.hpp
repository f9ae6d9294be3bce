// What a daemon and its card process say to each other, over a SOCK_SEQPACKET pair: one struct a packet, both of one build.
// Chunks are named by their offset in the pool, which both have mapped; no packet carries data of a user.
#pragma once

#include <cstdint>

namespace luge::card {

inline constexpr std::uint32_t kMessageVersion = 2;
inline constexpr std::uint32_t kMessageSources = 16, kMessageRows = 4;
inline constexpr int kCardSocket = 3;           ///< descriptor of the card process's end
inline constexpr int kCardLock = 4;             ///< of a locked file: the card is this process's while it runs
inline constexpr std::uint64_t kPage = 4096;

enum class Say : std::uint32_t {
  job = 1,       ///< to the card: JobMessage
  counters = 2,  ///< to the card: Header alone; from it: CountersMessage
  hello = 3,     ///< from the card, once, with the pool's descriptor: HelloMessage
  done = 4,      ///< from the card: DoneMessage, for every job
  firmware = 6,  ///< to the card: FirmwareMessage; from it: FirmwareReport
  lost = 5,      ///< from the card, its last word: DoneMessage without a job
};

struct Header {
  Say say{};
  std::uint32_t id = 0;  ///< of the job or question; 0: nobody asked
};

struct JobMessage {
  Header header{Say::job, 0};
  std::uint32_t sources = 0, rows = 0, length = 0, decode = 0;
  std::uint64_t source[kMessageSources] = {}, destination[kMessageRows] = {};
  std::uint8_t coefficients[64] = {};  ///< row r, source j at 16 r + j
  /// The erasure pattern that they are of, for a card whose firmware makes them itself: bit i is chunk i of k + m. k 0: none that it could make.
  std::uint32_t k = 0, m = 0, present = 0, wanted = 0;
  /// In whose name: the card refuses it if it has seen a greater epoch of the partition. epoch 0: nobody's.
  std::uint64_t partition = 0, epoch = 0;
};

struct DoneMessage {
  Header header{Say::done, 0};
  std::uint16_t code = 0;   ///< Code
  std::uint8_t fault = 0;   ///< Fault
  char text[245] = {};
};

struct CountersMessage {
  Header header{Say::counters, 0};
  std::uint64_t values[18] = {};  ///< of CardCounters, in its order, without copied_bytes
};

/// A command for the card's firmware, 0 for none; REQUIRES for `self_test`: no job is on the card.
struct FirmwareMessage {
  Header header{Say::firmware, 0};
  std::int32_t op = 0;
  std::uint32_t argument[16] = {};
};

/// What the card's firmware says of itself, and its answer. There: shared words as docs/registers.md has them.
struct FirmwareReport {
  Header header{Say::firmware, 0};
  std::uint32_t there = 0, answered = 0, status = 0;
  std::uint32_t words[16] = {};                 ///< from `magic` on: version, state, boots, ...
  std::uint32_t answer[16] = {}, telemetry[16] = {}, last_fault[16] = {};
  std::uint32_t log[256] = {};
};

struct HelloMessage {
  Header header{Say::hello, 0};
  std::uint32_t version = kMessageVersion;
  std::uint32_t sources = 0, rows = 0, slots = 0;
  std::uint64_t pool_bytes = 0;
  char text[232] = {};      ///< for people
};

}  // namespace luge::card
