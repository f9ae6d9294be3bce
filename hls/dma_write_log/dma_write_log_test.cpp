// dma_write_log, native and RTL in lock-step, in the world of bench.hpp: directed cases, then random worlds with stalls, resets and
// every ring size; rates; coverage. With HLS_MUTANTS the same cases must fail for every mutant.
#include <cstdlib>

#include "bench.hpp"

using namespace bench;

namespace {

struct Suite {
  hls::Bench &bench;
  Pair pair;
  Cover cover;
  uint64_t seed;
  unsigned mutant;
  explicit Suite(hls::Bench &b) : bench(b), cover(b.coverage), seed(b.seed), mutant(b.mutant) { if (!b.trace.empty()) pair.trace(b.trace); }

  World world(const Settings &s) {
    World w(pair, cover, seed++, s);
    w.mutant = mutant;
    return w;
  }
  static Settings fast() {
    Settings s;
    s.log2_slots = 6;
    return s;
  }

  void plain(const Settings &s, int cycles) {
    World w = world(s);
    w.load_windows();
    w.run(100);  // writes are on their way when recording begins
    w.start_recording();
    w.run(cycles);
    w.suspend_and_compare();
    w.resume();
    w.run(cycles / 4);
    w.suspend_and_compare();
    w.resume();
    w.stop_recording();
    w.finish_traffic();
  }

  void every_ring_size() {
    for (unsigned n = 0; n <= 10; n++)
      for (bool scheduling : {false, true}) {
        Settings s = fast();
        s.log2_slots = n, s.at_scheduling = scheduling, s.beats = n < 3 ? 16 : 4;
        plain(s, n > 7 ? 6000 : 2500);
      }
  }

  // A reader that is asleep: writes are held, up to the bound, then lost with a marker; the copy is right all the same.
  void overflow() {
    for (unsigned patience : {1u, 200u, 3000u})
      for (unsigned n : {0u, 2u, 5u}) {
        Settings s = fast();
        s.patience = patience, s.log2_slots = n, s.sequential = 20, s.beats = 3;
        World w = world(s);
        w.load_windows();
        w.start_recording();
        w.vmc_awake = false;
        w.run((int)patience + 4000);
        if (!w.out().status.overflow) w.fail("no overflow though nobody reads");
        if (w.out().dirty == 0) w.fail("overflow without a dirty function");
        w.clear(~0ull);
        if (!w.out().status.overflow) w.fail("overflow was cleared before it was announced");
        if (n == 5 && patience == 200) {
          w.traffic = false;
          w.run(300);
          w.vmc_awake = true;
          w.suspend_and_compare();
          w.resume(), w.traffic = true;
        }
        w.vmc_awake = true;
        w.run(3000);
        w.suspend_and_compare();
        w.clear(~0ull), w.run(2);
        if (w.out().status.overflow || w.out().dirty != 0) w.fail("overflow can't be cleared");
        cover.other.hit(Cover::CLEARED);
        w.resume();
        w.finish_traffic();
      }
  }

  // Without a bound, writes wait as long as it takes and nothing is lost.
  void unlimited() {
    Settings s = fast();
    s.log2_slots = 3, s.sequential = 0, s.beats = 2;
    World w = world(s);
    w.load_windows(), w.start_recording();
    for (int i = 0; i < 4; i++) {
      w.vmc_awake = false, w.run(3000);
      if (!w.out().status.holding) w.fail("a full ring does not hold writes");
      auto before = w.writes;
      w.run(500);
      if (w.writes != before) w.fail("writes pass a full ring");
      w.vmc_awake = true, w.run(500);
    }
    if (w.out().status.overflow) w.fail("overflow without a bound");
    w.suspend_and_compare(), w.resume(), w.finish_traffic();
  }

  void suspend_in_every_state() {
    for (int i = 0; i < 12; i++) {
      Settings s = fast();
      s.log2_slots = (unsigned)i % 5, s.beats = 1 + i * 3, s.patience = i % 2 ? 300 : 0, s.gap = i == 0 ? 100 : 0, s.at_scheduling = i % 3 == 2;
      World w = world(s);
      w.load_windows(), w.start_recording();
      w.run(300);
      if (i % 4 == 1 || i % 4 == 3) {
        w.vmc_awake = false;
        for (int n = 0; n < 6000 && !(i % 4 == 1 ? w.out().status.holding : w.out().status.overflowing); n++) w.cycle();
        w.vmc_awake = true;
      }
      w.suspend_and_compare(), w.resume(), w.run(400), w.suspend_and_compare(), w.resume(), w.finish_traffic();
    }
  }

  void bad_input() {
    Settings s = fast();
    s.log2_slots = 4, s.watermark = 3;
    World w = world(s);
    w.load_windows();
    for (unsigned bad : {21u, 25u, 31u}) {
      w.set.log2_slots = bad, w.set_enable(true), w.run(5);
      if (!w.out().status.bad_ring || w.out().status.recording) w.fail("a ring of 2^" + std::to_string(bad) + " slots is accepted");
      w.set_enable(false), w.run(5);
    }
    w.set.log2_slots = 4;
    for (uint64_t off : {16ull, 32ull, 64ull, 128ull}) {
      w.set_ring_base(RING + off), w.set_enable(true), w.run(5);
      if (!w.out().status.bad_ring || w.out().status.recording) w.fail("a ring that is not aligned is accepted");
      w.set_enable(false), w.run(5);
    }
    w.set_ring_base(RING);
    w.start_recording();
    w.run(300);
    w.vmc_awake = false, w.gave_bad_head = true, w.run(3000);
    if (!w.out().status.over_watermark) w.fail("no watermark");
    for (uint32_t ahead : {1u, 100u, 0x80000000u, (uint32_t)-1}) {
      uint32_t head = ahead == (uint32_t)-1 ? w.head() - 1 : w.out().status.tail.to_uint() + ahead;
      w.give_head(head), w.run(200);
      if (!w.out().status.bad_head) w.fail("a head outside the ring is accepted");
      w.give_true_head(), w.run(100);
    }
    w.vmc_awake = true, w.run(1000);
    w.suspend_and_compare(), w.resume(), w.stop_recording();
    if (w.out().status.bad_head) w.fail("bad_head outlives the ring");
    for (int i = 0; i < 3; i++) {  // off and on: the sequence begins again, records of the last time do not count
      w.start_recording();
      w.run(500 + i * 7);
      cover.other.hit(Cover::AGAIN);
      if (i == 1) w.suspend_and_compare(), w.resume();
      w.stop_recording();
    }
    w.finish_traffic();
  }

  void record_error() {
    for (int i = 0; i < 6; i++) {
      Settings s = fast();
      s.errors = 30, s.patience = i % 2 ? 100 : 0;
      World w = world(s);
      w.load_windows(), w.start_recording();
      w.run(500);
      w.fail_record = true;
      w.run(3000);
      if (!w.out().status.record_error || !w.out().status.overflow) w.fail("a record that memory refused is not reported");
      w.suspend_and_compare();
      w.clear(~0ull), w.run(2);
      if (w.out().status.record_error) w.fail("record_error can't be cleared");
      w.resume(), w.finish_traffic();
    }
  }

  // Pauses around the time after which an open record closes.
  void pauses() {
    Settings s = fast();
    s.sequential = 100, s.beats = 1;
    World w = world(s);
    w.load_windows(), w.start_recording();
    w.next_at(0, 200);
    w.pause_from = 500, w.pause_to = 530, w.run(32000);
    w.pause_to = 0, w.suspend_and_compare(), w.resume(), w.finish_traffic();
  }

  void other_functions_are_left_alone() {
    Settings s = fast();
    s.recorded = 0x5, s.sequential = 70;
    plain(s, 4000);
    s.recorded = 0;
    World w = world(s);
    w.load_windows(), w.start_recording(), w.run(4000);
    if (w.records) w.fail("records though no function is recorded");
    w.suspend_and_compare(), w.resume(), w.finish_traffic();
  }

  void resets(int n) {
    for (int i = 0; i < n; i++) {
      Settings s = anything();
      World w = world(s);
      w.load_windows();
      w.run((int)(w.random() % 200));
      w.start_recording();
      if (i % 3 == 0) w.vmc_awake = false;
      if (i % 7 == 0) w.traffic = false;
      w.run((int)(w.random() % 1500));
      if (i % 5 == 0 && w.vmc_awake) w.suspend_and_compare();
      cover.reset.hit(w.out().status.suspended ? 3 : w.out().status.holding ? 2 : i % 7 == 0 ? 0 : 1);
    }  // the next world begins with a reset
  }

  Settings anything() {
    std::mt19937_64 r(seed * 7919);
    auto up_to = [&](unsigned n) { return (unsigned)(r() % (n + 1)); };
    Settings s;
    s.log2_slots = up_to(8), s.at_scheduling = up_to(3) == 0;
    s.patience = up_to(2) ? up_to(2000) : 0, s.watermark = up_to(10);
    int stalls[] = {0, 0, 10, 50, 90, 98};
    s.stall_aw = stalls[up_to(5)], s.stall_w = stalls[up_to(4)], s.stall_b = stalls[up_to(5)], s.stall_maw = stalls[up_to(5)], s.stall_mw = stalls[up_to(4)];
    s.latency = (int)up_to(300), s.jitter = (int)up_to(100);
    s.vmc_interval = 1 + (int)up_to(3) * (int)up_to(200), s.vmc_batch = 1 + (int)up_to(9);
    s.sequential = (int)up_to(100), s.beats = up_to(1) ? 64 : 1 + (int)up_to(15);
    s.functions = 1 + (int)up_to(3), s.recorded = up_to(2) ? 0xf : up_to(15);
    s.errors = up_to(3) ? 0 : 50, s.ahead = up_to(2) ? 3 : 20, s.gap = up_to(2) ? 0 : 90;
    return s;
  }

  void anything_goes(unsigned long long until) {
    while (pair.cycles < until) plain(anything(), 2000);
  }

  // No stalls, a ring that does not fill: writes accepted a cycle, and record bytes per data byte.
  void rates() {
    struct Case { const char *what; int beats, sequential; double least_rate, most_bytes; } cases[] = {
        {"64 B writes, contiguous", 1, 100, 0.995, 0.0004}, {"64 B writes, scattered", 1, 0, 0.78, 0.26},
        {"4 KiB writes, contiguous", 64, 100, 0.995, 0.0004}, {"4 KiB writes, scattered", 64, 0, 0.99, 0.005}};
    for (auto &c : cases) {
      Settings s = fast();
      s.log2_slots = 10, s.beats = c.beats, s.sequential = c.sequential, s.functions = 1, s.pages = c.beats == 64;
      s.latency = 40, s.jitter = 0, s.vmc_batch = 64, s.ahead = 32;
      World w = world(s);
      w.load_windows(), w.start_recording(), w.run(2000);
      auto writes = w.writes, data = w.data_bytes, bytes = w.record_bytes;
      w.run(40000);
      double rate = (double)(w.data_bytes - data) / 64 / 40000;
      double share = (double)(w.record_bytes - bytes) / (double)(w.data_bytes - data);
      bench.figure(c.what, "%.4f writes and %.4f beats accepted a cycle, %.4f %% record bytes", (double)(w.writes - writes) / 40000, rate, 100 * share);
      if (rate < c.least_rate) w.fail("too slow");
      if (share > c.most_bytes) w.fail("too many record bytes");
      w.suspend_and_compare(), w.resume(), w.finish_traffic();
    }
  }

  void cases() {
    every_ring_size(), overflow(), unlimited(), suspend_in_every_state(), bad_input(), record_error(), pauses(), other_functions_are_left_alone();
  }
};

}  // namespace

void run(hls::Bench &b) {
  Suite suite(b);
  try {
    suite.cases();
    suite.resets(60);
    suite.anything_goes(b.mutant ? 400000 : b.wanted());
    suite.rates();
  } catch (const Failure &f) {
    b.fail("%s, world %llu", f.what(), (unsigned long long)suite.seed - 1);
  }
  b.figure("cycles in lock-step", "%llu, 0 differences", suite.pair.cycles);
}

int main(int argc, char **argv) { return hls::bench_main(argc, argv, {"dma_write_log", 28, 1000000}, run); }
