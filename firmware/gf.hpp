// GF(2^8) with the polynomial 0x11D, by tables of logarithms; CRC-32C.
#pragma once
#include <stdint.h>

namespace fw::gf {

struct Tables {
  uint8_t exp[510];
  uint8_t log[256];
};
constexpr Tables make_tables() {
  Tables t{};
  unsigned x = 1;
  for (int i = 0; i < 255; ++i) {
    t.exp[i] = t.exp[i + 255] = static_cast<uint8_t>(x), t.log[x] = static_cast<uint8_t>(i);
    x = x << 1 ^ (x & 0x80 ? 0x11D : 0);
  }
  return t;
}
inline constexpr Tables kTables = make_tables();

inline uint8_t mul(uint8_t a, uint8_t b) { return a == 0 || b == 0 ? 0 : kTables.exp[kTables.log[a] + kTables.log[b]]; }
/// REQUIRES: a != 0.
inline uint8_t inverse(uint8_t a) { return kTables.exp[255 - kTables.log[a]]; }

/// Coefficient of data chunk j in parity chunk i (k .. k + m - 1): the Cauchy matrix of the code, as ISA-L makes it.
inline uint8_t cauchy(unsigned i, unsigned j) { return inverse(static_cast<uint8_t>(i ^ j)); }

struct CrcTable { uint32_t of[16]; };
constexpr CrcTable make_crc_table() {
  CrcTable t{};
  for (uint32_t n = 0; n < 16; ++n) {
    uint32_t c = n;
    for (int i = 0; i < 4; ++i) c = c >> 1 ^ (c & 1 ? 0x82F63B78u : 0);
    t.of[n] = c;
  }
  return t;
}
inline constexpr CrcTable kCrc = make_crc_table();

/// CRC-32C of what `crc` stands for and a word behind it, low byte first. Begin with ~0, invert at the end.
inline uint32_t crc_word(uint32_t crc, uint32_t word) {
  crc ^= word;
  for (int i = 0; i < 8; ++i) crc = crc >> 4 ^ kCrc.of[crc & 15];
  return crc;
}

}  // namespace fw::gf
