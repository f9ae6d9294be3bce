// Every operation that rtlgen knows, one an output: what constructs.hpp does not bring out of the compiler. operations_test compares with the RTL.
#pragma once
#include "hls/lib/ap_int.h"
#include "hls/lib/ram.h"
#include "hls/lib/top.h"

namespace operations {
struct In {
  unsigned a, b; int i, j; unsigned long long la, lb; long long li; unsigned short h; unsigned char c; short s; bool go;
  ap_uint<100> w; ap_int<100> x; ap_uint<7> n; ap_uint<5> k;
};
struct Inner { unsigned char bytes[6]; unsigned word; };
struct Out {
  int count, leading, trailing, long_leading;
  unsigned reversed, swapped; unsigned char byte_reversed; unsigned short short_swapped; unsigned long long long_swapped;
  unsigned add_sat, sub_sat, least, most, rotated, rotated_right, funnel; int least_signed, most_signed, absolute, long_ordered;
  bool over, under; unsigned over_value, under_value;
  int divided, rest, divided_negative, rest_negative; long long long_divided; unsigned long long large_divided; short short_rest;
  ap_uint<100> shl, shr, product; ap_int<100> ashr, negative; ap_uint<200> full; ap_uint<101> difference;
  bool eq, ne, ult, ule, ugt, uge, slt, sle, sgt, sge, wide_less;
  unsigned char copied[6]; unsigned filled; unsigned moved; unsigned from_switch; unsigned odd_sum; unsigned chosen; unsigned nested; unsigned returned;
  ap_uint<9> narrow; long long widened; bool parity; unsigned flat; unsigned late; ap_uint<3> by_value; unsigned fallen;
};
struct State {
  Inner inner[3];
  unsigned grid[2][3][4];
  unsigned last = 1;
  ram<bool, 32> flags;
  ram<unsigned char, 16> octets;
  int counted = -5;
};

enum class Way : unsigned char { left, right, straight = 6 };
struct Both { unsigned first; bool second; };
static inline Both both(unsigned a, bool b) { Both r = {a + 1, !b}; return r; }
static inline unsigned choose(unsigned n) {  // becomes a table
  switch (n & 7) {
    case 0: return 17;
    case 1: return 3;
    case 2: return 99;
    case 3: return 4;
    case 4: return 1000;
    case 5: return 6;
    default: return 0x80000000u;
  }
}
struct Counter {
  unsigned n;
  Counter &operator+=(unsigned x) { n += x; return *this; }
};
template <class F> static inline unsigned apply(F f, unsigned x) { return f(x) ^ f(x + 1); }

static inline void arithmetic(const In &in, Out &out) {
  out.count = __builtin_popcount(in.a), out.leading = in.a ? __builtin_clz(in.a) : 40, out.trailing = in.b ? __builtin_ctz(in.b) : -1, out.long_leading = in.la ? __builtin_clzll(in.la) : 64;
  out.reversed = __builtin_bitreverse32(in.a), out.byte_reversed = __builtin_bitreverse8(in.c), out.swapped = __builtin_bswap32(in.b), out.short_swapped = __builtin_bswap16(in.h), out.long_swapped = __builtin_bswap64(in.lb);
  out.add_sat = __builtin_elementwise_add_sat(in.a, in.b), out.sub_sat = __builtin_elementwise_sub_sat(in.a, in.b);
  out.least = __builtin_elementwise_min(in.a, in.b), out.most = __builtin_elementwise_max(in.a, in.b), out.least_signed = __builtin_elementwise_min(in.i, in.j), out.most_signed = __builtin_elementwise_max(in.i, in.j);
  out.absolute = in.i == -2147483647 - 1 ? 0 : __builtin_abs(in.i);
  out.rotated = __builtin_rotateleft32(in.a, in.b), out.rotated_right = __builtin_rotateright32(in.a, in.b & 31);
  unsigned by = in.b & 31;
  out.funnel = (in.a << by) | ((unsigned)in.i >> 1 >> (31 - by));
  out.long_ordered = in.li < (long long)in.i ? -1 : in.li > (long long)in.i;
  out.over = __builtin_add_overflow(in.a, in.b, &out.over_value), out.under = __builtin_sub_overflow(in.a, in.b, &out.under_value);
  out.divided = in.i / 13, out.rest = in.i % 13, out.divided_negative = in.i / -7, out.rest_negative = in.j % -12;
  out.long_divided = in.li / 1000003, out.large_divided = in.la / 0xfedcba987ull, out.short_rest = (short)(in.s % 100);
  out.shl = in.w << in.n, out.shr = in.w >> in.n, out.ashr = in.x >> in.n, out.negative = -in.x;
  out.product = in.w * in.k, out.full = in.w * ap_uint<100>(in.x), out.difference = in.w - in.x;
  out.eq = in.a == in.b, out.ne = in.h != in.c, out.ult = in.a < in.b, out.ule = in.la <= in.lb, out.ugt = in.h > in.c, out.uge = in.la >= in.lb;
  out.slt = in.i < in.j, out.sle = in.li <= in.i, out.sgt = in.s > (int)in.c, out.sge = in.i >= in.s, out.wide_less = in.x < in.w;
  out.narrow = in.w(20, 12), out.widened = (signed char)in.c, out.parity = in.w.xor_reduce();
}

static inline void memory(State &s, const In &in, Out &out) {
  Inner local = s.inner[in.k % 3];
  __builtin_memcpy(out.copied, local.bytes, 6);
  unsigned char filled[4];
  __builtin_memset(filled, in.c, 4);
  __builtin_memcpy(&out.filled, filled, 4);
  __builtin_memmove(local.bytes + 1, local.bytes, 5);  // over itself
  __builtin_memcpy(&out.moved, local.bytes + 2, 4);
  if (in.go) s.inner[in.n % 3] = local;
  s.inner[in.h % 3].bytes[in.c % 6] = (unsigned char)in.a;
  s.inner[1].word ^= in.b;
  s.grid[in.go][in.n % 3][in.k & 3] = in.a;
  out.nested = s.grid[in.c & 1][in.h % 3][in.n & 3];
  const unsigned *row = in.go ? s.grid[0][1] : s.grid[1][2];
  out.chosen = row[in.k & 3];
  out.flat = s.inner[2].word + s.inner[2].bytes[5];
  out.by_value = s.flags.q + s.octets.q, s.flags.read(in.k), s.octets.read(in.c & 15);
  if (in.go) s.flags.write(in.n & 31, in.i < 0), s.octets.write(in.h & 15, in.c);
}

static inline void control(State &s, const In &in, Out &out) {
  out.from_switch = choose(in.c);
  unsigned sum = 0;
  for (int i = 0; i < 8; i++) {
    if (!(in.a >> i & 1)) continue;
    for (int k = 0; k < i; k++) {
      if (in.b >> k & 1) break;
      sum += (unsigned)(k + i);
    }
  }
  out.odd_sum = sum;
  Both r = both(in.a, in.go);
  out.returned = r.second ? r.first : in.b;
  unsigned w = 0;
  Way way = in.c < 50 ? Way::left : in.c < 200 ? Way::right : Way::straight;
  switch (way) {
    case Way::left: w = 1;  // falls through
    case Way::right: w += 2; break;
    case Way::straight: w = 7;
  }
  out.fallen = w;
  Counter counter = {s.last};
  counter += apply([&](unsigned x) { return x * 3 + in.c; }, in.b);
  s.last = counter.n;
  do { s.counted += 2; } while (false);
  int steps = 0;
  while (steps < 5) {
    if (!(in.i >> steps & 1)) break;
    steps++;
  }
  s.counted += steps;
  out.late = (unsigned)s.counted;
}

static inline void step(State &s, const In &in, Out &out) { arithmetic(in, out), memory(s, in, out), control(s, in, out); }
}  // namespace operations
