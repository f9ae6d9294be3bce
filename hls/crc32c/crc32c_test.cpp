// crc32c against ISA-L, native and RTL in lock-step: blocks of 1 to 64 words (4 KiB), gaps at random, reset in mid-block.
#include <isa-l/crc.h>

#include <deque>
#include <vector>

#include "crc32c_glue.hpp"
#include "hls/lib/lockstep.hpp"

HLS_LOCKSTEP(crc32c, Pair);

int main() {
  using namespace crc32c;
  Pair pair;
  std::mt19937_64 random(3);
  std::deque<unsigned> want;
  unsigned long long blocks = 0;
  auto cycle = [&](const In &in) {
    Out out = pair.cycle(in);
    if (!out.crc.valid) return;
    if (want.empty() || out.crc.value != want.front()) { std::fprintf(stderr, "crc32c: block %llu differs from ISA-L\n", blocks); std::exit(1); }
    want.pop_front(), blocks++;
  };
  while (pair.cycles < 1000000) {
    int words = random() % 3 ? 64 : 1 + (int)(random() % 64);
    std::vector<unsigned char> block((size_t)words * 64);
    for (auto &b : block) b = (unsigned char)random();
    bool cut = random() % 50 == 0;
    int gaps = (int)(random() % 3) * 30;
    for (int w = 0; w < words; w++) {
      In in = In();
      while ((int)(random() % 100) < gaps) cycle(in);
      in.s_axis.tvalid = true, in.s_axis.tlast = w == words - 1;
      for (int i = 0; i < 64; i++) in.s_axis.tdata.lane[i] = block[(size_t)w * 64 + i];
      if (cut && w == words / 2) break;
      if (in.s_axis.tlast) want.push_back(~crc32_iscsi(block.data(), words * 64, ~0u));
      cycle(in);
    }
    if (cut) {
      for (int i = 0; i < 3; i++) cycle(In());
      pair.reset();
    }
  }
  for (int i = 0; i < 4; i++) cycle(In());
  if (!want.empty()) { std::fprintf(stderr, "crc32c: a block gave no CRC\n"); return 1; }
  std::printf("crc32c: %llu blocks equal to ISA-L, %llu cycles in lock-step, 0 differences\n", blocks, pair.cycles);
}
