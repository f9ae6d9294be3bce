// crc32c: the CRC-32C (Castagnoli, as iSCSI and ISA-L's crc32_iscsi with ~0 in and out) of blocks of 64-byte words, a word a
// cycle. s_axis_tlast ends a block: two cycles later the CRC of the block is on `crc` for one cycle. Never waits.
//
// The CRC is linear: after 64 bytes it is D(data) ^ S(crc), with D a 512-to-32 and S a 32-to-32 matrix of bits, computed at
// compile time. D is registered before S, so that the loop from register to register is S alone.
#pragma once
#include "hls/lib/ap_int.h"
#include "hls/lib/mutant.h"
#include "hls/lib/top.h"

namespace crc32c {
static const int LANES = 64;
struct Word { ap_uint<8> lane[LANES]; };
struct In { struct { bool tvalid; Word tdata; bool tlast; } s_axis; HLS_MUTANT_INPUT };
struct Out { struct { bool valid; ap_uint<32> value; } crc; };
struct State {
  bool v1 = false, last1;
  ap_uint<32> part1;
  bool first = true;
  ap_uint<32> sum;
  bool valid2 = false;
};

struct Masks { unsigned long long data[32][8]; unsigned state[32]; };
constexpr unsigned feed_zero_byte(unsigned crc) {
  for (int i = 0; i < 8; i++) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0u);
  return crc;
}
// data[bit] selects the data bits, state[bit] the bits of the CRC before, whose parity is `bit` of the CRC after.
constexpr Masks make_masks() {
  Masks m = {};
  for (int b = 0; b < 512; b++) {
    unsigned crc = 1u << (b % 8);
    for (int n = b / 8; n < LANES; n++) crc = feed_zero_byte(crc);
    for (int i = 0; i < 32; i++)
      if (crc >> i & 1) m.data[i][b / 64] |= 1ull << (b % 64);
  }
  for (int b = 0; b < 32; b++) {
    unsigned crc = 1u << b;
    for (int n = 0; n < LANES; n++) crc = feed_zero_byte(crc);
    for (int i = 0; i < 32; i++)
      if (crc >> i & 1) m.state[i] |= 1u << b;
  }
  return m;
}
static constexpr Masks masks = make_masks();

#if defined(HLS_NATIVE) && defined(__SSE4_2__)
// What both matrices amount to, in the processor's own instruction.
static inline unsigned feed(unsigned crc, const Word &data) {
  unsigned long long c = crc, w[8];
  __builtin_memcpy(w, (const void *)&data, sizeof w);
  for (int i = 0; i < 8; i++) c = __builtin_ia32_crc32di(c, w[i]);
  return (unsigned)c;
}
#endif

static inline void step(State &s, const In &in, Out &out) {
  out.crc.valid = s.valid2;
  ap_uint<32> crc = ~s.sum;
  out.crc.value = MUTANT(2) ? s.sum : MUTANT(19) ? ap_uint<32>(crc >> 8 | crc << 24) : crc;

  s.valid2 = s.v1 && (s.last1 || MUTANT(3));
  if (s.v1 || MUTANT(5)) {
    ap_uint<32> before = s.first ? ap_uint<32>(MUTANT(1) ? 0 : 0xffffffffu) : s.sum, after = s.part1;
#if defined(HLS_NATIVE) && defined(__SSE4_2__)
    Word zeros = Word();
    after = after ^ ap_uint<32>(feed(before.to_uint(), zeros));
#else
    for (int i = 0; i < 32; i++)
      if (!((i == 0 && MUTANT(14)) || (i == 7 && MUTANT(15)) || (i == 16 && MUTANT(16)) || (i == 31 && MUTANT(17)))) after[i] = after[i] ^ (before & masks.state[i]).xor_reduce();
#endif
    s.sum = after;
    s.first = (s.last1 || MUTANT(4)) && !MUTANT(20);
  }

  s.v1 = in.s_axis.tvalid, s.last1 = MUTANT(18) ? s.last1 || in.s_axis.tlast : in.s_axis.tlast;
  if (!in.s_axis.tvalid) return;
#if defined(HLS_NATIVE) && defined(__SSE4_2__)
  s.part1 = feed(0, in.s_axis.tdata);
  return;
#endif
  ap_uint<64> word[8];
  for (int w = 0; w < 8; w++) {
    word[w] = 0;
    for (int i = 0; i < 8; i++) word[w] = word[w] | (ap_uint<64>(in.s_axis.tdata.lane[8 * w + i]) << (8 * i));
  }
  for (int i = 0; i < 32; i++) {
    ap_uint<64> bits = 0;
    for (int w = 0; w < 8; w++)
      if (!MUTANT(6 + w)) bits = bits ^ (word[w] & masks.data[i][w]);
    s.part1[i] = bits.xor_reduce();
  }
}
}  // namespace crc32c
