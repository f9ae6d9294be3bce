// What the kernels must make of the self-test's known stripes (bist.cpp): CRC-32C of all parity, from ISA-L; firmware_test.cpp makes them again.
#pragma once
#include <stdint.h>

namespace fw {
struct Known { uint8_t k, m; uint32_t parity_crc; };
inline constexpr uint32_t kChunkBytes = 512;
inline constexpr Known kKnown[] = {{4, 2, 0x3f506a2a}, {16, 4, 0xcedac197}};
/// The stripe's data, word by word: xorshift from this.
inline constexpr uint32_t known_seed(const Known& n) { return 0x4C554745u ^ (static_cast<uint32_t>(n.k) << 8 | n.m); }
inline uint32_t next_pattern(uint32_t& s) { return s ^= s << 13, s ^= s >> 17, s ^= s << 5; }
}  // namespace fw
