// crc32c against ISA-L, native and RTL in lock-step: blocks of 1 to 64 words (4 KiB), gaps at random, reset in mid-block.
#include <isa-l/crc.h>

#include <deque>
#include <vector>

#include "crc32c_glue.hpp"
#include "hls/lib/bench.hpp"
#include "hls/lib/lockstep.hpp"

HLS_LOCKSTEP(crc32c, Pair);

static void run(hls::Bench &bench) {
  using namespace crc32c;
  Pair pair;
  if (!bench.trace.empty()) pair.trace(bench.trace);
  std::mt19937_64 random(bench.seed);
  auto &cover = bench.coverage;
  cover.declare("word", {"none", "first", "middle", "last", "only"}), cover.declare("gap before a word", {"0", "1", "2-7", "8 and more"});
  cover.declare("reset", {"in mid-block", "between blocks"});
  for (int w = 1; w <= 64; w++) cover.declare("words of a block", {std::to_string(w)});
  std::deque<unsigned> want;
  unsigned long long blocks = 0;
  auto cycle = [&](In in) {
    HLS_SET_MUTANT(in, bench.mutant);
    bench.now = pair.cycles;
    Out out = pair.cycle(in);
    if (!out.crc.valid) return;
    if (want.empty() || out.crc.value != want.front()) bench.fail("block %llu differs from ISA-L", blocks);
    want.pop_front(), blocks++;
  };
  while (pair.cycles < (bench.mutant ? 20000 : bench.wanted())) {
    int words = random() % 3 ? 64 : 1 + (int)(random() % 64);
    std::vector<unsigned char> block((size_t)words * 64);
    for (auto &b : block) b = (unsigned char)random();
    bool cut = random() % 50 == 0;
    int gaps = bench.stall >= 0 ? bench.stall : (int)(random() % 4) * 30;
    cover.hit("words of a block", std::to_string(words));
    for (int w = 0; w < words; w++) {
      In in = In();
      int gap = 0;
      while ((int)(random() % 100) < gaps) cycle(in), gap++, cover.hit("word", "none");
      cover.hit("gap before a word", gap == 0 ? "0" : gap == 1 ? "1" : gap < 8 ? "2-7" : "8 and more");
      cover.hit("word", words == 1 ? "only" : w == 0 ? "first" : w == words - 1 ? "last" : "middle");
      in.s_axis.tvalid = true, in.s_axis.tlast = w == words - 1;
      for (int i = 0; i < 64; i++) in.s_axis.tdata.lane[i] = block[(size_t)w * 64 + i];
      if (cut && w == words / 2) break;
      if (in.s_axis.tlast) want.push_back(~crc32_iscsi(block.data(), words * 64, ~0u));
      cycle(in);
    }
    if (cut) {
      for (int i = 0; i < 3; i++) cycle(In());
      pair.reset();
      cover.hit("reset", words > 1 ? "in mid-block" : "between blocks");
    } else if (random() % 50 == 0) {
      for (int i = 0; i < 4; i++) cycle(In());
      pair.reset();
      cover.hit("reset", "between blocks");
    }
  }
  for (int i = 0; i < 4; i++) cycle(In());
  if (!want.empty()) bench.fail("a block gave no CRC");
  bench.figure("blocks equal to ISA-L", "%llu", blocks);
  bench.figure("cycles in lock-step", "%llu, 0 differences", pair.cycles);
}

int main(int argc, char **argv) { return hls::bench_main(argc, argv, {"crc32c", 20, 1000000}, run); }
