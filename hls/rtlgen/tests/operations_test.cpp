// Native step and RTL of every operation, 200 000 cycles of random input with its corners.
#include "hls/lib/lockstep.hpp"
#include "operations_glue.hpp"

HLS_LOCKSTEP(operations, Pair);

int main() {
  std::mt19937_64 random(9);
  Pair pair;
  auto any = [&]() -> unsigned long long {  // corners: 0, all ones, one bit, small, the top bit
    switch (random() % 8) {
      case 0: return 0;
      case 1: return ~0ull;
      case 2: return 1ull << random() % 64;
      case 3: return random() % 16;
      case 4: return 0x8000'0000'8000'0000ull;
      default: return random();
    }
  };
  for (int i = 0; i < 200000; i++) {
    operations::In in = operations::In();
    in.a = (unsigned)any(), in.b = random() % 8 ? (unsigned)any() : in.a, in.i = (int)any(), in.j = random() % 8 ? (int)any() : in.i, in.la = any(), in.lb = random() % 8 ? any() : in.la;
    in.li = random() % 8 ? (long long)any() : in.i, in.h = (unsigned short)any(), in.c = (unsigned char)any(), in.s = (short)any(), in.go = random() & 1;
    in.w = (ap_uint<100>(any()) << 64) | ap_uint<100>(any()), in.x = (ap_uint<100>(any()) << 64) | ap_uint<100>(any()), in.n = (unsigned)any(), in.k = (unsigned)any();
    pair.cycle(in);
    if (i % 50000 == 49999) pair.reset();
  }
  std::printf("operations: %llu cycles, 0 differences\n", pair.cycles);
}
