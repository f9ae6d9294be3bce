// dma_writer against a model memory: commands of any alignment under stalls on both sides, each fault the memory can have at any
// burst, drains, resets. After every run of commands the whole memory is compared, so that no byte outside a command may change.
#include "dma_writer_glue.hpp"
#include "hls/dma_mover/mover_bench.hpp"
#include "hls/lib/lockstep.hpp"
#include "sim/card/checker.hpp"
#include "sim/card/memory.hpp"

HLS_LOCKSTEP(dma_writer, Pair);
using namespace luge::sim;
using dma_writer::In, dma_writer::Out;

namespace {

constexpr uint64_t BASE = 0x2'0000'0000, SIZE = 1 << 17;
const char *fault_names[] = {"none", "slave error", "decode error", "lost answer", "stuck address", "stuck data", "drain", "reset", "no data for long"};

class Runner : dma_mover::MoverBench {
 public:
  explicit Runner(hls::Bench &b)
      : MoverBench(b), memory(BASE, SIZE), port(memory, random), checker("m_axi", b.coverage, [&b](const std::string &s) { b.fail("%s", s.c_str()); }),
        command(b.coverage, "command"), stream(b.coverage, "s_axis"), mirror(SIZE) {
    for (size_t i = 0; i < SIZE; i += 8) { uint64_t v = random(); std::memcpy(memory.at(BASE + i), &v, 8); }
    std::memcpy(mirror.data(), memory.at(BASE), SIZE);
    b.coverage.declare("fault", std::vector<std::string>(std::begin(fault_names), std::end(fault_names)));
    b.coverage.declare("fails", {"0", "1", "2", "4", "5"});
    if (!b.trace.empty()) pair.trace(b.trace);
  }
  void run() {
    rate();
    while (pair.cycles < bench.wanted()) {
      episode();
      bench.progress(pair.cycles);
    }
    bench.figure("cycles in lock-step", "%llu", pair.cycles);
    bench.figure("commands, words", "%llu, %llu", (unsigned long long)commands, (unsigned long long)words_given);
  }

 private:
  struct Command { uint64_t address; uint32_t length; uint64_t words; std::vector<uint64_t> bursts; };
  static unsigned function_of(uint64_t address) { return (unsigned)(address >> 12) * 7 % 61; }  // of the page a command starts in
  Memory memory;
  WritePort port;
  WriteChecker checker;
  hls::Handshake command, stream;
  Pair pair;
  std::vector<uint8_t> mirror;
  std::vector<Command> list;
  size_t given = 0, feeding = 0, told = 0;
  uint64_t word = 0, commands = 0, words_given = 0, total_bursts = 0, total_words = 0;
  bool command_valid = false, word_valid = false;
  axi::Bytes now_word;
  int stall_in = 0;
  std::vector<Command> late;  // commands that have failed and may still be written


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
    if (command_valid) in.command.address = list[given].address, in.command.length = list[given].length, in.command.function = function_of(list[given].address);
    if (!word_valid && feeding < list.size() && !chance(stall_in)) {
      word_valid = true;
      const Command &c = list[feeding];
      for (uint64_t i = 0; i < 64; i++) {
        uint8_t byte = (uint8_t)random();
        now_word.lane[i] = byte;
        if (64 * word + i < c.length) mirror[c.address - BASE + 64 * word + i] = byte;
      }
    }
    in.s_axis.tvalid = word_valid;
    if (word_valid) in.s_axis.tdata = now_word, in.s_axis.tlast = word + 1 == list[feeding].words;
    port.present(in.m_axi);
    Out out = pair.cycle(in);
    checker.see(in.m_axi, out.m_axi);
    if (out.m_axi.awvalid) see_function(out);
    port.observe(in.m_axi, out.m_axi);
    command.see(in.command.valid, out.command.ready), stream.see(in.s_axis.tvalid, out.s_axis.tready);
    if (in.command.valid && out.command.ready) given++, command_valid = false, commands++;
    if (word_valid && out.s_axis.tready) {
      if (feeding >= given) bench.fail("a word is taken that no command has asked for");
      word_valid = false, words_given++;
      if (++word == list[feeding].words) word = 0, feeding++;
    }
    if (out.done.valid) {
      if (told >= given) bench.fail("a command ended that was not given");
      told++, fails.push_back((int)out.done.fail.to_uint());
      bench.coverage.hit("fails", std::to_string(out.done.fail.to_uint()));
      if (out.done.fail == 0 && !drain) {  // all its data must be in memory now
        const Command &c = list[told - 1];
        if (feeding < told) bench.fail("a command went well before it had its words");
        for (uint32_t i = 0; i < c.length; i += c.length > 64 ? 61 : 1)
          if (*memory.at(c.address + i) != mirror[c.address - BASE + i]) bench.fail("a command went well and byte %u is not in memory", i);
      }
    }
    last = {out.idle, out.stopped, out.timed_out, out.owed};
  }

  void see_function(const Out &out) {
    if (!late.empty()) return;  // the address may be of a command that has failed
    uint64_t at = out.m_axi.awaddr.to_uint64();
    for (auto &c : list)
      if (at + 64 > c.address && at < c.address + c.length && out.m_axi_awuser != function_of(c.address)) bench.fail("a burst carries another function");
  }
  void fill(int n) override {
    list.clear(), fails.clear(), given = feeding = told = 0, word = 0, command_valid = word_valid = false, total_bursts = total_words = 0;
    uint64_t at = 0;
    for (int i = 0; i < n; i++) {  // one behind the other: they must not overlap, as their order is not told apart by this bench
      Command c;
      c.length = any_length(5000);
      uint64_t offset = any_offset();
      at = (at + 63) / 64 * 64 + offset + (chance(30) ? 64 * below(20) : 0);
      if (at + c.length > SIZE) break;
      c.address = BASE + at, c.words = (c.length + 63) / 64;
      for (uint64_t a = at; a < at + c.length; a = (a / 4096 + 1) * 4096) c.bursts.push_back(a);
      at += c.length;
      total_bursts += c.bursts.size(), total_words += c.words;
      cover_shape(offset, c.length);
      list.push_back(c);
    }
  }
  void finish() override {
    for (uint64_t n = 0; feeding < list.size() || told < list.size(); n++) {
      tick();
      if (n > 40000 + total_words * 400) bench.fail("no progress: %zu of %zu commands ended", told, list.size());
    }
  }
  // All of memory against the mirror; what failed commands cover is taken over.
  void compare() override {
    for (auto &c : late) std::memcpy(&mirror[c.address - BASE], memory.at(c.address), c.length);
    late.clear();
    for (size_t i = 0; i < list.size(); i++)
      if (i >= fails.size() || fails[i]) std::memcpy(&mirror[list[i].address - BASE], memory.at(list[i].address), list[i].length);
    for (size_t i = 0; i < SIZE; i++)
      if (mirror[i] != *memory.at(BASE + i)) bench.fail("byte %zu of the memory is %02x instead of %02x", i, *memory.at(BASE + i), mirror[i]);
  }
  void episode() {
    port.behaviour.latency = (int)below(60), port.behaviour.stall = bench.stall >= 0 ? bench.stall : (int)below(4) * 25;
    stall_in = bench.stall >= 0 ? bench.stall : (int)below(4) * 25;
    int fault = chance(60) ? 0 : 1 + (int)below(8);
    if (fault == 8) stall_in = 97;
    if (fault == 0 && chance(5)) port.behaviour.stall = 96;  // the queue fills
    fill(1 + (int)below(12));
    bench.coverage.hit("fault", fault_names[fault]);
    uint64_t burst = below(total_bursts);
    size_t hit = 0;
    for (uint64_t n = burst; n >= list[hit].bursts.size(); hit++) n -= list[hit].bursts.size();
    switch (fault) {
      case 0: case 8: finish(); expect(list.size(), 0); break;
      case 1: case 2:
        port.faults.error_beat = (long)burst, port.faults.error = fault == 1 ? axi::SLVERR : axi::DECERR;
        finish();
        for (size_t i = 0; i < list.size(); i++) if (fails[i] != (i == hit ? fault : 0)) bench.fail("command %zu says %d after a %s at %zu", i, fails[i], fault_names[fault], hit);
        break;
      case 3: port.faults.lose_beat = (long)burst; finish(); expect(hit, dma_writer::FAIL_TIMEOUT); owed(); break;
      case 4: case 5:
        for (uint64_t n = below(200); n > 0; n--) tick();
        (fault == 4 ? port.faults.stuck_request : port.faults.stuck_data) = true;
        finish();
        expect(prefix(), dma_writer::FAIL_TIMEOUT);
        break;
      case 6:
        drained();
        break;
      default:
        for (uint64_t n = below(300); n > 0; n--) tick();
        pair.reset(), port.reset(), checker.reset();
        fails.resize(told), compare();
        fill(0);
        return;
    }
    if (fault >= 3 && fault <= 5 && last.timed_out && chance(30)) {  // before `clear` further commands fail at once
      late = list;  // the memory may still write what it has taken
      fails_until_clear();
    }
    go_on();
  }
  void owed() { if (!last.stopped || !last.timed_out || !last.owed) bench.fail("a time-out does not show"); }

  void rate() {
    port.behaviour.latency = 100, port.behaviour.stall = 0, stall_in = 0, port.behaviour.may_wait_for_data = false;
    fill(0);
    for (int i = 0; i < 32; i++) list.push_back({BASE + 4096ull * i, 4096, 64, {}});
    total_words = 32 * 64;
    uint64_t begin = pair.cycles;
    finish();
    expect(list.size(), 0), compare();
    double used = 32.0 * 64 / (double)(pair.cycles - begin - 100);
    bench.figure("4 KiB blocks, latency 100", "%.1f %% of 64 B a cycle without the last latency", 100 * used);
    if (used < 0.95) bench.fail("slower than 95 %% of 64 B a cycle");
    port.behaviour.may_wait_for_data = true;
  }
};

}  // namespace

int main(int argc, char **argv) {
  return hls::bench_main(argc, argv, {"dma_writer", 25, 1000000}, [](hls::Bench &b) { Runner(b).run(); });
}
