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

// D and S. Natively the processor's own instruction, where it has one.
struct Block { ap_uint<64> word[8]; };
#if defined(HLS_NATIVE) && defined(__SSE4_2__)
static inline ap_uint<32> of_data(const Block &b) {
  unsigned long long crc = 0;
  for (int w = 0; w < 8; w++) crc = __builtin_ia32_crc32di(crc, b.word[w].to_uint64());
  return (unsigned)crc;
}
static inline ap_uint<32> of_state(ap_uint<32> before) {
  unsigned long long crc = before.to_uint();
  for (int w = 0; w < 8; w++) crc = __builtin_ia32_crc32di(crc, 0);
  return (unsigned)crc;
}
#else
static inline ap_uint<32> of_data(const Block &b) {
  ap_uint<32> r;
  for (int i = 0; i < 32; i++) {
    ap_uint<64> bits = 0;
    for (int w = 0; w < 8; w++) bits = bits ^ (b.word[w] & masks.data[i][w]);
    r[i] = bits.xor_reduce();
  }
  return r;
}
static inline ap_uint<32> of_state(ap_uint<32> before) {
  ap_uint<32> r;
  for (int i = 0; i < 32; i++) r[i] = (before & masks.state[i]).xor_reduce();
  return r;
}
#endif

static inline void step(State &s, const In &in, Out &out) {
  out.crc.valid = s.valid2;
  ap_uint<32> crc = ~s.sum;
  out.crc.value = MUTANT(2) ? s.sum : MUTANT(19) ? ap_uint<32>(crc >> 8 | crc << 24) : crc;

  s.valid2 = s.v1 && (s.last1 || MUTANT(3));
  if (s.v1 || MUTANT(5)) {
    ap_uint<32> before = s.first ? ap_uint<32>(MUTANT(1) ? 0 : 0xffffffffu) : s.sum;
    ap_uint<32> lost = MUTANT(14) ? 1u : MUTANT(15) ? 1u << 7 : MUTANT(16) ? 1u << 16 : MUTANT(17) ? 1u << 31 : 0u;
    s.sum = s.part1 ^ (of_state(before) & ~lost);
    s.first = (s.last1 || MUTANT(4)) && !MUTANT(20);
  }

  s.v1 = in.s_axis.tvalid, s.last1 = MUTANT(18) ? s.last1 || in.s_axis.tlast : in.s_axis.tlast;
  if (!in.s_axis.tvalid) return;
  Block block;
  for (int w = 0; w < 8; w++) {
    ap_uint<64> word = 0;
    if (!MUTANT(6 + w))
      for (int i = 0; i < 8; i++) word = word | (ap_uint<64>(in.s_axis.tdata.lane[8 * w + i]) << (8 * i));
    block.word[w] = word;
  }
  s.part1 = of_data(block);
}
}  // namespace crc32c
