// Native step and RTL of every accepted construct, 200 000 cycles of random input.
#include <cstdlib>

#include "constructs_glue.hpp"
#include "hls/lib/lockstep.hpp"

HLS_LOCKSTEP(constructs, Pair);

int main() {
  std::mt19937_64 random(7);
  Pair pair;
  auto wide = [&](auto &x) { for (int i = 0; i < x.length(); i += 64) x = (x << 64) | ap_uint<64>((unsigned long long)random()); if (random() % 8 == 0) x = 0; if (random() % 8 == 0) x = -1; };
  for (int i = 0; i < 200000; i++) {
    constructs::In in = constructs::In();
    wide(in.wide), wide(in.large_in);
    in.little = (int)random(), in.middle = (long long)random(), in.octet = (unsigned char)random();
    in.number = random() % 4 ? (int)random() : (int)(random() % 300) - 150;
    in.index = (unsigned)random(), in.other = (unsigned)random(), in.go = random() & 1, in.shift = (unsigned)random(), in.address = (unsigned)random();
    for (auto &p : in.pair) p.left = (unsigned)random(), p.right = (int)random(), p.flag = random() & 1;
    pair.cycle(in);
    if (i % 50000 == 49999) pair.reset();
  }
  std::printf("constructs: %llu cycles, 0 differences\n", pair.cycles);
}
