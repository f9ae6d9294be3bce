// dma_reader against a model memory: commands of any alignment under stalls on both sides, each fault the memory can have at any
// beat, drains, resets. Every word is compared; failed commands must still deliver their words and say why they failed.
#include "dma_reader_glue.hpp"
#include "hls/dma_mover/mover_bench.hpp"
#include "hls/lib/lockstep.hpp"
#include "sim/card/checker.hpp"
#include "sim/card/memory.hpp"

HLS_LOCKSTEP(dma_reader, Pair);
using namespace luge::sim;
using dma_reader::In, dma_reader::Out;

namespace {

constexpr uint64_t BASE = 0x1'0000'0000, SIZE = 1 << 20;
const char *fault_names[] = {"none", "slave error", "decode error", "lost data", "stuck address", "short burst", "drain", "reset"};

class Runner : dma_mover::MoverBench {
 public:
  explicit Runner(hls::Bench &b)
      : MoverBench(b), memory(BASE, SIZE), port(memory, random), checker("m_axi", b.coverage, [&b](const std::string &s) { b.fail("%s", s.c_str()); }),
        command(b.coverage, "command"), stream(b.coverage, "m_axis") {
    for (size_t i = 0; i < SIZE; i += 8) { uint64_t v = random(); std::memcpy(memory.at(BASE + i), &v, 8); }
    b.coverage.declare("fault", std::vector<std::string>(std::begin(fault_names), std::end(fault_names)));
    b.coverage.declare("fails", {"0", "1", "2", "3", "4", "5"});
    if (!b.trace.empty()) pair.trace(b.trace);
  }
  void run() {
    rate();
    while (pair.cycles < bench.wanted()) {
      episode();
      bench.progress(pair.cycles);
    }
    bench.figure("cycles in lock-step", "%llu", pair.cycles);
    bench.figure("commands, words", "%llu, %llu", (unsigned long long)commands, (unsigned long long)words_seen);
  }

 private:
  struct Command { uint64_t address; uint32_t length; uint64_t first_beat, beats, words; };
  Memory memory;
  ReadPort port;
  ReadChecker checker;
  hls::Handshake command, stream;
  Pair pair;
  std::vector<Command> list;
  size_t given = 0, delivered = 0, told = 0;
  uint64_t word = 0, commands = 0, words_seen = 0;
  bool command_valid = false;
  int stall_out = 0;


  bool memory_busy() const override { return port.busy(); }
  void release_memory() override { port.release(); }
  size_t commands_now() const override { return list.size(); }
  void tick() override {
    bench.now = pair.cycles;
    In in = In();
    HLS_SET_MUTANT(in, bench.mutant);
    in.timeout = 300, in.drain = drain, in.clear = clear, clear = false;
    command_valid |= given < list.size() && chance(70);
    in.command.valid = command_valid;
    if (command_valid) in.command.address = list[given].address, in.command.length = list[given].length;
    port.present(in.m_axi);
    in.m_axis.tready = !chance(stall_out);
    Out out = pair.cycle(in);
    checker.see(in.m_axi, out.m_axi);
    port.observe(in.m_axi, out.m_axi);
    command.see(in.command.valid, out.command.ready), stream.see(out.m_axis.tvalid, in.m_axis.tready);
    if (in.command.valid && out.command.ready) given++, command_valid = false, commands++;
    if (out.done.valid) {
      if (told >= list.size()) bench.fail("a command ended that was not given");
      told++, fails.push_back((int)out.done.fail.to_uint());
      bench.coverage.hit("fails", std::to_string(out.done.fail.to_uint()));
    }
    if (out.m_axis.tvalid && in.m_axis.tready) see_word(out);
    last = {out.idle, out.stopped, out.timed_out, out.owed};
  }
  void see_word(const Out &out) {
    if (delivered >= list.size()) bench.fail("a word too many");
    const Command &c = list[delivered];
    words_seen++;
    if (out.m_axis.tlast != (word + 1 == c.words)) bench.fail("tlast on word %llu of %llu", (unsigned long long)word, (unsigned long long)c.words);
    // The word leaves after the command is told to have failed only if it is the last: check what is known to be good.
    bool failed = told > delivered ? fails[delivered] != 0 : false;
    if (clean_until > c.first_beat + word + 1 || (told > delivered && !failed))
      for (uint64_t i = 0; i < 64; i++) {
        uint64_t at = 64 * word + i;
        uint8_t want = at < c.length ? *memory.at(c.address + at) : 0;
        if (out.m_axis.tdata.lane[i] != want) bench.fail("byte %llu of a command at offset %u, length %u, is %02x instead of %02x", (unsigned long long)at, (unsigned)(c.address % 64), c.length, (unsigned)out.m_axis.tdata.lane[i].to_uint(), want);
      }
    if (++word == c.words) word = 0, delivered++;
  }
  uint64_t clean_until = ~0ull;  // beats before this one of the episode arrive as they are

  void fill(int n) override {
    list.clear(), fails.clear(), given = delivered = told = 0, word = 0, command_valid = false;
    uint64_t beats = 0;
    for (int i = 0; i < n; i++) {
      Command c;
      c.length = any_length(8000);
      uint64_t offset = any_offset();
      c.address = BASE + below((SIZE - c.length - 64) / 64) * 64 + offset;
      if (chance(30)) c.address = (c.address & ~4095ull) + offset;
      c.beats = (offset + c.length + 63) / 64, c.words = (c.length + 63) / 64, c.first_beat = beats;
      beats += c.beats;
      list.push_back(c);
      cover_shape(offset, c.length);
    }
    total_beats = beats;
  }
  uint64_t total_beats = 0;

  void finish() override {
    for (uint64_t n = 0; delivered < list.size() || told < list.size(); n++) {
      tick();
      if (n > 40000 + total_beats * 400) bench.fail("no progress: %zu of %zu commands delivered", delivered, list.size());
    }
  }
  size_t owner(uint64_t beat) const {
    for (size_t i = 0; i < list.size(); i++) if (beat < list[i].first_beat + list[i].beats) return i;
    return list.size();
  }
  void episode() {
    port.behaviour.latency = (int)below(60), port.behaviour.stall = bench.stall >= 0 ? bench.stall : (int)below(4) * 25;
    stall_out = bench.stall >= 0 ? bench.stall : (int)below(4) * 25;
    if (chance(3)) stall_out = 97;
    fill(stall_out == 97 ? 14 : 1 + (int)below(12));
    int fault = chance(60) ? 0 : 1 + (int)below(7);
    bench.coverage.hit("fault", fault_names[fault]);
    uint64_t beat = below(total_beats);
    size_t hit = owner(beat);
    clean_until = ~0ull;
    switch (fault) {
      case 0: finish(); expect(list.size(), 0); break;
      case 1: case 2:
        port.faults.error_beat = (long)beat, port.faults.error = fault == 1 ? axi::SLVERR : axi::DECERR;
        clean_until = 0;
        finish();
        for (size_t i = 0; i < list.size(); i++) if (fails[i] != (i == hit ? fault : 0)) bench.fail("command %zu says %d after a %s at %zu", i, fails[i], fault_names[fault], hit);
        break;
      case 3: port.faults.lose_beat = (long)beat, clean_until = 0; finish(); expect(hit, dma_reader::FAIL_TIMEOUT); owed(); break;
      case 4:
        clean_until = 0;
        for (uint64_t n = below(40); n > 0; n--) tick();
        port.faults.stuck_request = true;
        finish();
        expect(prefix(), dma_reader::FAIL_TIMEOUT);
        break;
      case 5: {
        clean_until = 0;
        port.faults.short_burst = true;
        finish();
        if (port.faults.short_burst) { expect(list.size(), 0); break; }  // no burst had more than a beat
        size_t good = prefix();
        if (good == list.size() || fails[good] != dma_reader::FAIL_PROTOCOL) bench.fail("a burst that ends early is not noticed");
        for (size_t i = good + 1; i < list.size(); i++) if (fails[i] != dma_reader::FAIL_TIMEOUT) bench.fail("a command behind a broken burst says %d", fails[i]);
        for (int n = 0; n < 300; n++) { clear = true; if (tick(), !last.stopped) bench.fail("goes on although it can't know what data belongs to"); }
        port.reset(), pair.reset(), checker.reset();
        fill(1), clean_until = ~0ull;
        port.behaviour.stall = 0;
        finish();
        expect(1, 0);
        break;
      }
      case 6:
        clean_until = 0;
        drained();
        break;
      default:
        for (uint64_t n = below(300); n > 0; n--) tick();
        pair.reset(), port.reset(), checker.reset();
        fill(0);
        return;
    }
    if (fault == 3 && chance(30)) fails_until_clear();
    go_on();
  }
  void owed() { if (!last.stopped || !last.timed_out) bench.fail("a time-out does not show"); }

  // Blocks of 4 KiB back to back, a memory without stalls.
  void rate() {
    port.behaviour.latency = 100, port.behaviour.stall = 0, stall_out = 0;
    fill(0);
    for (int i = 0; i < 64; i++) list.push_back({BASE + 4096ull * i, 4096, 64ull * i, 64, 64});
    total_beats = 64 * 64;
    uint64_t begin = pair.cycles;
    finish();
    expect(list.size(), 0);
    double used = 64.0 * 64 / (double)(pair.cycles - begin - 100);
    bench.figure("4 KiB blocks, latency 100", "%.1f %% of 64 B a cycle behind the first latency", 100 * used);
    if (used < 0.95) bench.fail("slower than 95 %% of 64 B a cycle");
  }
};

}  // namespace

int main(int argc, char **argv) {
  return hls::bench_main(argc, argv, {"dma_reader", 23, 1000000}, [](hls::Bench &b) { Runner(b).run(); });
}
