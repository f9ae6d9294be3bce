// Counting and comparing for few levels of LUTs: what RTL shall be grouped as, six terms to a LUT; natively the builtin operation.
#pragma once
#include "hls/lib/ap_int.h"
#include "hls/lib/top.h"

namespace lut {
#ifndef HLS_NATIVE
// a < b by parts of 3 bits, each a LUT: two levels.
static inline bool less9(ap_uint<9> a, ap_uint<9> b) {
  bool less[3], equal[3];
  for (int i = 0; i < 3; i++) {
    ap_uint<3> x = a >> (3 * i), y = b >> (3 * i);
    less[i] = x < y, equal[i] = x == y;
  }
  return less[2] | (equal[2] & less[1]) | (equal[2] & equal[1] & less[0]);
}
// a == b: three bits of each a LUT, six of these another.
template <int N> static inline bool same(ap_uint<N> a, ap_uint<N> b) {
  bool differ = false;
  for (int g = 0; g < N; g += 18) {
    bool group = false;
    for (int i = g; i < g + 18 && i < N; i += 3) {
      bool part = false;
      for (int j = i; j < i + 3 && j < N; j++) part = part | (a[j] ^ b[j]);
      group = group | part;
    }
    differ = differ | group;
  }
  return !differ;
}
// x + 1 with the carries found by groups of 6 bits.
template <int N> static inline ap_uint<N> plus1(ap_uint<N> x) {
  ap_uint<N> r = x;
  bool carry = true;
  for (int g = 0; g < N; g += 6) {
    bool all = carry;
    for (int i = g; i < g + 6 && i < N; i++) {
      r[i] = x[i] ^ all;
      all = all && x[i];
    }
    carry = all;
  }
  return r;
}
// x + up - down. Both results come from registers alone; up and down come late and only choose.
template <int N> static inline ap_uint<N> counted(ap_uint<N> x, bool up, bool down) {
  ap_uint<N> more = plus1(x), less = ~plus1(ap_uint<N>(~x)), r;
  for (int i = 0; i < N; i++) r[i] = up ? (down ? (bool)x[i] : (bool)more[i]) : (down ? (bool)less[i] : (bool)x[i]);
  return r;
}
#else
static inline bool less9(ap_uint<9> a, ap_uint<9> b) { return a < b; }
template <int N> static inline bool same(const ap_uint<N> &a, const ap_uint<N> &b) { return a == b; }
template <int N> static inline ap_uint<N> plus1(const ap_uint<N> &x) { return x + 1; }
template <int N> static inline ap_uint<N> counted(const ap_uint<N> &x, bool up, bool down) { return x + (up ? 1 : 0) - (down ? 1 : 0); }
#endif
}  // namespace lut
