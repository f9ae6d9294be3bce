// Bytes of a 64-byte word, moved round: what both movers align with.
#pragma once
#include "hls/lib/axi.h"

namespace dma_mover {

static const int FAIL_NONE = 0, FAIL_ERROR = 1, FAIL_DECODE = 2, FAIL_PROTOCOL = 3, FAIL_TIMEOUT = 4, FAIL_DRAINED = 5;

// One of two bytes, by value: `?:` on elements of State would be a choice of addresses.
static inline ap_uint<8> pick(bool first, ap_uint<8> a, ap_uint<8> b) { return first ? a : b; }

// Lane i of the result is lane (i + n) % 64.
static inline axi::Bytes rotate_down(const axi::Bytes &x, ap_uint<6> n) {
#if defined(HLS_RTL) || defined(HLS_XILINX_AP_INT)
  axi::Bytes r = x;
  for (int bit = 0; bit < 6; bit++) {
    axi::Bytes t = r;
    for (int i = 0; i < 64; i++) r.lane[i] = pick(n[bit], t.lane[(i + (1 << bit)) % 64], t.lane[i]);
  }
  return r;
#else  // natively a move of memory
  axi::Bytes twice[2] = {x, x}, r;
  __builtin_memcpy((void *)&r, &twice[0].lane[n.to_uint()], 64);
  return r;
#endif
}
// Lane (i + n) % 64 of the result is lane i.
static inline axi::Bytes rotate_up(const axi::Bytes &x, ap_uint<6> n) { return rotate_down(x, ap_uint<6>(64 - n.to_uint())); }

// Ones in bits [0, n), n 0..64.
static inline ap_uint<64> low_bits(ap_uint<7> n) {
  return ~(~ap_uint<64>(0) << n);
}
// Words (or beats) that hold `bytes`.
static inline ap_uint<20> words_of(ap_uint<25> bytes) { return ap_uint<20>((bytes + 63) >> 6); }

}  // namespace dma_mover
