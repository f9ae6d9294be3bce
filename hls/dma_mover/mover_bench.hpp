// What the benches of both movers have in common: the shapes of commands, and how a mover goes on after a time-out or a drain.
#pragma once
#include <random>
#include <vector>

#include "hls/dma_mover/align.h"
#include "hls/lib/bench.hpp"

namespace dma_mover {

class MoverBench {
 protected:
  struct Seen { bool idle = true, stopped = false, timed_out = false, owed = false; };

  hls::Bench &bench;
  std::mt19937_64 random;
  bool drain = false, clear = false;  // `clear` for one cycle
  std::vector<int> fails;             // what was told of the commands of this run, in order
  Seen last;                          // outputs of the last cycle

  explicit MoverBench(hls::Bench &b) : bench(b), random(b.seed) {
    b.coverage.declare("offset", {"0", "1-31", "32-62", "63"});
    b.coverage.declare("length", {"1", "2-63", "64", "65-4095", "4096", "more"});
    b.coverage.declare("tail", {"one beat more than words", "as many"});
  }
  ~MoverBench() = default;

  // ---- what a bench has to give ----
  virtual void tick() = 0;               // one cycle; sets `last`
  virtual bool memory_busy() const = 0;  // it has a request that is not answered
  virtual void release_memory() = 0;     // faults end, what was lost comes
  virtual void fill(int n) = 0;          // n new commands, the old ones forgotten
  virtual void finish() = 0;             // until all of them have ended
  virtual size_t commands_now() const = 0;
  virtual void compare() {}              // all of memory, if the bench looks at it

  // ---- commands ----
  uint64_t below(uint64_t n) { return random() % n; }
  bool chance(int percent) { return (int)below(100) < percent; }
  uint32_t any_length(uint32_t beyond) {
    switch (below(6)) {
      case 0: return 1;
      case 1: return 2 + (uint32_t)below(62);
      case 2: return 64;
      case 3: return 65 + (uint32_t)below(4031);
      case 4: return 4096;
      default: return 4097 + (uint32_t)below(beyond);
    }
  }
  uint64_t any_offset() { return chance(30) ? 0 : chance(10) ? 63 : below(64); }
  void cover_shape(uint64_t offset, uint32_t length) {
    auto &c = bench.coverage;
    c.hit("offset", offset == 0 ? "0" : offset < 32 ? "1-31" : offset < 63 ? "32-62" : "63");
    c.hit("length", length == 1 ? "1" : length < 64 ? "2-63" : length == 64 ? "64" : length < 4096 ? "65-4095" : length == 4096 ? "4096" : "more");
    c.hit("tail", (offset + length + 63) / 64 > (length + 63) / 64 ? "one beat more than words" : "as many");
  }

  // ---- what was told ----
  size_t prefix() const {  // commands before the first that failed
    size_t n = 0;
    while (n < fails.size() && fails[n] == 0) n++;
    return n;
  }
  // The first `good` commands went well, the others failed with `why`.
  void expect(size_t good, int why) {
    for (size_t i = 0; i < commands_now(); i++)
      if (fails[i] != (i < good ? 0 : why)) bench.fail("command %zu of %zu says %d, expected %d", i, commands_now(), fails[i], i < good ? 0 : why);
  }

  // ---- faults ----
  // Before `clear` further commands fail at once.
  void fails_until_clear() {
    fill(2), finish();
    expect(0, FAIL_TIMEOUT);
  }
  // A drain in the middle of commands: those behind it fail until it ends; a short one ends by itself.
  void drained() {
    for (uint64_t n = below(300); n > 0; n--) tick();
    drain = true, tick(), tick();
    if (chance(30)) {
      drain = false;
      finish();
      int turns = 0;
      for (size_t i = 0; i < fails.size(); i++) {
        if (fails[i] != 0 && fails[i] != FAIL_DRAINED) bench.fail("a drained command says %d", fails[i]);
        turns += i > 0 && (fails[i] != 0) != (fails[i - 1] != 0);
      }
      if (turns > 2) bench.fail("a drain ends and begins again");
      return;
    }
    finish();
    expect(prefix(), FAIL_DRAINED);
    for (int n = 0; n < 20000 && (memory_busy() || !last.idle); n++) tick();
    if (!last.stopped || !last.idle) bench.fail("a drain does not end");
    compare();
    fill(2), finish();
    expect(0, FAIL_DRAINED);
    drain = false;
  }
  // The memory answers what it owes; after a time-out only `clear` brings the mover back.
  void go_on() {
    bool early = last.timed_out && last.owed && chance(50);
    if (early) {  // `clear` before the memory has answered: remembered, not obeyed
      clear = true;
      for (int n = 0; n < 30; n++)
        if (tick(), !last.stopped) bench.fail("goes on while the memory owes it something");
    }
    release_memory();
    for (int n = 0; !last.idle || memory_busy() || n < 4; n++) {
      tick();
      if (n > 20000) bench.fail("not quiet after the memory has answered");
    }
    if (last.stopped && last.timed_out && !early) {
      for (int n = 0; n < 50; n++)
        if (tick(), !last.stopped) bench.fail("goes on after a time-out without `clear`");
      clear = true;
    }
    for (int n = 0; n < 5; n++) tick();
    if (last.stopped || last.timed_out || last.owed) bench.fail("does not go on");
    compare();
  }
};

}  // namespace dma_mover
