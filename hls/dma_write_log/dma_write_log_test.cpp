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

  // Only while the switch is on: not a byte of the ring is written before or after.
  // Requirement: DWR-02, DWR-27 switch=mutant-6
  void recording_is_switched() {
    for (bool scheduling : {false, true}) {
      Settings s = fast();
      s.at_scheduling = scheduling, s.sequential = 30, s.beats = 4;
      World w = world(s);
      w.load_windows();
      for (int turn = 0; turn < 3; turn++) {
        auto bytes = w.record_bytes;
        w.run(1500);
        if (w.record_bytes != bytes) w.fail("records though recording is off");
        w.start_recording();
        w.run(1500);
        if (w.record_bytes == bytes) w.fail("no records though recording is on");
        if (turn == 1) w.suspend_and_compare(), w.resume();
        w.stop_recording();  // also in the middle of everything: given up
      }
      w.finish_traffic();
    }
  }

  // What a network device writes: frames of 64 bytes to 4 KiB, each into another buffer, of several functions by turns, with pauses.
  // Requirement: DWR-16 switch=mutant-23
  void received_frames() {
    for (int beats : {1, 24, 64}) {
      Settings s = fast();
      s.beats = beats, s.sequential = 0, s.gap = 40;
      plain(s, 4000);
    }
  }

  // Requirement: DWR-19 switch=mutant-18
  void one_slot() {
    for (bool scheduling : {false, true}) {
      Settings s = fast();
      s.log2_slots = 0, s.at_scheduling = scheduling, s.beats = 16;
      plain(s, 5000);
    }
  }

  // A record leaves when its data is in memory.
  // Requirement: DWR-03 switch=mutant-10
  // Requirement: DWR-04 switch=mutant-23
  // Requirement: DWR-06 switch=mutant-8
  // Requirement: DWR-07, DWR-11, DWR-12 switch=mutant-2
  // Requirement: DWR-13 switch=mutant-11
  void after_completion() {
    for (int latency : {5, 200}) {
      Settings s = fast();
      s.latency = latency, s.jitter = latency, s.beats = 8, s.sequential = 80;
      plain(s, 5000);
      World w = world(s);
      w.load_windows(), w.start_recording(), w.run(3000);
      if (w.ahead_of_data) w.fail("a record leaves before its data");
      w.suspend_and_compare(), w.resume(), w.finish_traffic();
    }
  }
  // A record leaves at once; a marker says that its data is there, and only then is it copied.
  // Requirement: DWR-10 switch=mutant-29
  // Requirement: DWR-12 switch=mutant-20
  void at_scheduling() {
    for (int latency : {5, 200}) {
      Settings s = fast();
      s.latency = latency, s.jitter = latency, s.beats = 8, s.at_scheduling = true;
      plain(s, 5000);
      s.latency = 200, s.sequential = 30;
      World w = world(s);
      w.load_windows(), w.start_recording(), w.run(3000);
      if (w.ahead_of_data == 0) w.fail("no record leaves before its data");
      w.suspend_and_compare(), w.resume(), w.finish_traffic();
    }
  }

  // Records of up to 16 pages name every page.
  // Requirement: DWR-21, DWR-29 switch=mutant-9
  void many_pages() {
    Settings s = fast();
    s.beats = 64, s.sequential = 97, s.functions = 2, s.latency = 60;
    plain(s, 12000);
    s.pages = true;
    plain(s, 12000);
  }

  // Two logs at once, each with a ring of its own, another size and another mode.
  // Requirement: DWR-30 switch=mutant-18
  void two_devices() {
    Settings s = fast(), t = fast();
    s.log2_slots = 5, t.log2_slots = 2, t.at_scheduling = true, t.beats = 8;
    Pair second;
    World a = world(s), b(second, cover, seed++, t);
    b.mutant = mutant, b.set_ring_base(RING + 0x100000);
    a.load_windows(), b.load_windows();
    a.start_recording(), b.start_recording();
    for (int i = 0; i < 6000; i++) a.cycle(), b.cycle();
    a.suspend_and_compare();
    for (int i = 0; i < 1000; i++) b.cycle();
    b.suspend_and_compare(), a.resume(), b.resume();
    a.finish_traffic(), b.finish_traffic();
  }

  // The ring where and as large as it was set.
  // Requirement: DWR-05, DWR-31 switch=mutant-18
  void ring_is_configured() {
    for (unsigned n : {0u, 3u, 6u})
      for (uint64_t base : {0x10000ull, 0x7fff'ff00'0000ull, 0xffff'ffff'0000'0000ull}) {
        Settings s = fast();
        s.log2_slots = n, s.beats = 8;
        World w = world(s);
        w.set_ring_base(base), w.load_windows(), w.start_recording(), w.run(2000), w.suspend_and_compare(), w.resume(), w.finish_traffic();
      }
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
  // Requirement: DWR-18 switch=mutant-13
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
  // Requirement: DWR-09, DWR-18 switch=mutant-7
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

  // Requirement: DWR-26 switch=mutant-15
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

  // Requirement: DWR-08 switch=mutant-1
  // Requirement: DWR-31 switch=mutant-28
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

  // Requirement: DWR-28 switch=mutant-30
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

  void resets() { resets(60); }
  void anything_goes() { anything_goes(bench.mutant ? 400000 : bench.wanted()); }

  void run() {
    struct Case { const char *name; void (Suite::*test)(); };
    const Case cases[] = {{"recording_is_switched", &Suite::recording_is_switched}, {"every_ring_size", &Suite::every_ring_size}, {"received_frames", &Suite::received_frames}, {"one_slot", &Suite::one_slot},
                          {"after_completion", &Suite::after_completion}, {"at_scheduling", &Suite::at_scheduling}, {"many_pages", &Suite::many_pages},
                          {"two_devices", &Suite::two_devices}, {"ring_is_configured", &Suite::ring_is_configured}, {"overflow", &Suite::overflow},
                          {"unlimited", &Suite::unlimited}, {"suspend_in_every_state", &Suite::suspend_in_every_state}, {"bad_input", &Suite::bad_input},
                          {"record_error", &Suite::record_error}, {"pauses", &Suite::pauses}, {"other_functions_are_left_alone", &Suite::other_functions_are_left_alone},
                          {"resets", &Suite::resets}, {"anything_goes", &Suite::anything_goes}, {"rates", &Suite::rates}};
    for (auto &c : cases)
      if (bench.wants(c.name)) (this->*c.test)();
  }
};

}  // namespace

void run(hls::Bench &b) {
  Suite suite(b);
  try {
    suite.run();
  } catch (const Failure &f) {
    b.fail("%s, world %llu", f.what(), (unsigned long long)suite.seed - 1);
  }
  b.figure("cycles in lock-step", "%llu, 0 differences", suite.pair.cycles);
}

int main(int argc, char **argv) { return hls::bench_main(argc, argv, {"dma_write_log", 30, 1000000}, run); }
