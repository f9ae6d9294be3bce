// Every construct rtlgen accepts, in one kernel; constructs_test compares it with its RTL.
#pragma once
#include "hls/lib/ap_int.h"
#include "hls/lib/ram.h"
#include "hls/lib/top.h"

namespace constructs {
enum class Phase { idle, load, work, done };
static const int LANES = 6;
struct Pair { ap_uint<9> left; ap_int<7> right; bool flag; };
struct In {
  ap_uint<65> wide; ap_uint<300> large_in; ap_int<13> little; ap_int<40> middle; unsigned char octet; int number;
  ap_uint<3> index; ap_uint<3> other; bool go; Pair pair[2]; ap_uint<4> shift; ap_uint<7> address;
};
struct Out {
  ap_uint<66> sum; ap_int<67> difference; ap_int<53> product; ap_uint<300> mixed; ap_uint<12> lane; Pair chosen; Phase phase;
  ap_uint<8> looked_up; int quotient, remainder; unsigned unsigned_quotient; ap_uint<16> counted; ap_int<13> shifted; ap_uint<20> marks;
  bool any, all, odd, less, less_signed, found; ap_uint<9> grid; ap_uint<32> memory; ap_uint<4> first; unsigned rotated; ap_uint<11> bitfields;
  ap_uint<16> swapped; int smallest; ap_uint<5> member_sum; signed char narrow; ap_uint<12> either;
};
struct Fields { unsigned a : 3; unsigned b : 5; unsigned c : 9; };
struct State {
  Phase phase = Phase::idle;
  ap_uint<12> lane[LANES];
  Pair pairs[4];
  ap_uint<9> grid[3][4];
  ap_uint<16> count = 7;
  ap_int<67> difference;
  ap_uint<300> mixed = 0;
  ap_uint<20> packed = 0;
  ram<ap_uint<32>, 100> memory;
  Fields fields;
  ap_uint<12> a_b; struct { ap_uint<12> b; } a;
};

static const unsigned char table[16] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3};
struct Steps { int n[4]; };
template <int N, class T> static inline T twice(T x) { T y = x; for (int i = 0; i < N; i++) y = y + x; return y; }
static inline ap_uint<5> add_members(const Pair &p) { if (p.flag) return p.left(3, 0) + 1; return ap_uint<5>(p.right); }
static inline ap_uint<4> first_set(ap_uint<12> x) {  // early return out of a loop
  for (int i = 0; i < 12; i++)
    if (x[i]) return i;
  return 15;
}

static inline void step(State &s, const In &in, Out &out) {
  out.phase = s.phase;
  out.sum = in.wide + in.little.to_uint();
  out.difference = s.difference;
  s.difference = in.little - in.wide;
  out.product = in.little * in.middle;
  out.mixed = s.mixed;
  s.mixed = (s.mixed << 1) ^ in.large_in ^ (in.wide, in.little);
  out.lane = s.lane[in.index < LANES ? (int)in.index : 0];
  if (in.go && in.other < LANES) s.lane[in.other] = s.lane[in.other] + in.octet;

  Pair chosen = in.go ? in.pair[0] : s.pairs[in.index & 3];
  out.chosen = chosen;
  Pair &target = in.index[0] ? s.pairs[in.other & 3] : s.pairs[0];
  target.left = in.pair[1].left;
  if (in.go) target = in.pair[0];
  out.member_sum = add_members(chosen);

  switch (s.phase) {
    case Phase::idle: if (in.go) s.phase = Phase::load; break;
    case Phase::load: s.count = in.octet; s.phase = Phase::work; break;
    case Phase::work:
      s.count += 3;
      if (s.count > 300) s.phase = Phase::done;
      break;
    case Phase::done: s.phase = in.go ? Phase::idle : Phase::done;
  }
  out.counted = s.count;
  out.looked_up = table[in.shift] ^ table[(in.index * 2 + 1) & 15];
  out.quotient = in.number / 10, out.remainder = in.number % 7;
  out.unsigned_quotient = (unsigned)in.number / 12u;
  out.shifted = in.little >> in.shift;
  out.rotated = (unsigned)in.number << 5 | (unsigned)in.number >> 27;
  s.packed[in.shift] = in.go;
  s.packed.range(19, 16) = in.shift;
  out.marks = s.packed;
  out.any = in.large_in.or_reduce(), out.all = in.wide.and_reduce(), out.odd = in.large_in.xor_reduce();
  out.less = in.wide < in.large_in, out.less_signed = in.little < in.middle;
  bool found = false;
  int spot = 0;
  for (int i = 0; i < LANES; i++) {
    if (s.lane[i] == in.octet) { found = true; break; }
    spot++;
  }
  out.found = found && spot < 4;
  s.grid[in.index % 3][in.other & 3] = in.pair[0].left + spot;
  out.grid = s.grid[in.other % 3][in.index & 3];
  out.memory = s.memory.q;
  if (in.address < 100) s.memory.read(in.address);
  if (in.go && in.address < 90) s.memory.write(in.address + in.shift - (in.shift & 7), ap_uint<32>(in.number));
  out.first = first_set(in.little.to_uint() & 0xfff);
  auto mix = [&](int k) { return s.fields.a + k; };
  s.fields.a = mix(in.octet), s.fields.c = s.fields.b + s.fields.c;
  if (in.go) s.fields.b = in.octet;
  out.bitfields = twice<2>(ap_uint<11>(s.fields.c));
  unsigned short sw = (unsigned short)in.number;
  out.swapped = (unsigned short)(sw << 8 | sw >> 8);
  int smallest = in.number;
  const int candidates[3] = {(int)in.little, (int)in.octet, 77};
  for (int v : candidates) if (v < smallest) smallest = v;
  out.smallest = smallest;
  ap_uint<12> local[4];
  for (int i = 0; i < 4; i++) local[i] = s.lane[i] ^ i;
  s.a_b = local[in.index & 3];
  s.a.b = s.a_b + 1;
  out.either = in.go ? s.a.b : s.lane[2];  // a choice between members is one of places
  out.narrow = (signed char)(-in.little + ~in.octet);
  if (!in.go) return;
  s.lane[5] = s.a.b;
}
}  // namespace constructs
