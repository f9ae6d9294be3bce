// registers against a model that walks the generated table: random reads and writes with random strobes, to all words and between
// them, with stalls in every channel, sticky bits set at random, reset at any cycle.
#include "hls/lib/bench.hpp"
#include "hls/lib/lockstep.hpp"
#include "hls/registers/card.h"
#include "hls/registers/table.h"
#include "registers_glue.hpp"

HLS_LOCKSTEP(registers, Pair);
using namespace luge_card;
using registers::In, registers::Out;

namespace {

struct Model {
  std::map<uint32_t, uint32_t> value;
  void reset() { for (auto &w : REGISTER_WORDS) value[w.offset] = w.reset; }
  static const RegisterWord *find(uint32_t address) {
    for (auto &w : REGISTER_WORDS) if (w.offset == (address & ~3u)) return &w;
    return nullptr;
  }
};

struct Access { bool write; uint32_t address, data, strobes; };

class Runner {
 public:
  explicit Runner(hls::Bench &b) : bench(b), random(b.seed), aw(b.coverage, "aw", hls::ReadyIs::after_valid), w(b.coverage, "w", hls::ReadyIs::after_valid), bb(b.coverage, "b"), ar(b.coverage, "ar", hls::ReadyIs::after_valid), r(b.coverage, "r") {
    for (auto &word : REGISTER_WORDS) b.coverage.declare("words", {std::string(word.name) + (word.high ? " high" : "") + " read", std::string(word.name) + (word.high ? " high" : "") + " written"});
    b.coverage.declare("answers", {"read okay", "read decode error", "write okay", "write slave error", "write decode error"});
    model.reset();
    if (!b.trace.empty()) pair.trace(b.trace);
  }

  void run() {
    while (pair.cycles < bench.wanted()) {
      stall = bench.stall >= 0 ? bench.stall : (int)(random() % 4) * 30;
      for (int n = 0; n < 200; n++) access();
      if (random() % 50 == 0) { pair.reset(), model.reset(); }
      bench.progress(pair.cycles);
    }
    bench.figure("cycles in lock-step", "%llu", pair.cycles);
    bench.figure("reads, writes", "%llu, %llu", (unsigned long long)reads, (unsigned long long)writes);
  }

 private:
  hls::Bench &bench;
  std::mt19937_64 random;
  hls::Handshake aw, w, bb, ar, r;
  Pair pair;
  Model model;
  int stall = 0;
  uint64_t reads = 0, writes = 0;

  bool chance(int percent) { return (int)(random() % 100) < percent; }
  uint32_t status_now = 0;

  // One access, with AW and W offered at different times and the answer taken late.
  void access() {
    Access a;
    a.write = random() & 1;
    auto &word = REGISTER_WORDS[random() % (sizeof REGISTER_WORDS / sizeof REGISTER_WORDS[0])];
    a.address = chance(90) ? word.offset + (uint32_t)(random() % 4) : (uint32_t)(random() % 0x10000);
    a.data = (uint32_t)random(), a.strobes = chance(50) ? 15 : (uint32_t)(random() % 16);
    if (chance(stall)) for (int n = (int)(random() % (chance(5) ? 90 : 10)); n > 0; n--) quiet();
    busy = true;
    if (a.write) write(a); else read(a);
    busy = false;
  }

  In idle() {
    In in = In();
    HLS_SET_MUTANT(in, bench.mutant);
    in.build = 0x04040410, in.status = status_now = (uint32_t)(random() & 63), in.submitted_now = 0x1234, in.completed = 0x55667788;
    in.cycles = 11, in.busy_cycles = 12, in.beats_read = 13, in.beats_written = 14, in.read_stalls = 15, in.write_stalls = 16, in.jobs_failed = 17, in.log_status = 0x2a5, in.log_tail = 21, in.log_dirty = 0x1700000016ull;
    in.s_axil.bready = in.s_axil.rready = !busy && chance(50);
    if (chance(10)) in.set_fault = (unsigned)(random() & 63), in.set_interrupts = (unsigned)(random() & 1);
    return in;
  }
  Out cycle(In &in, bool clears_fault, bool clears_interrupt, uint32_t cleared) {
    bench.now = pair.cycles;
    Out out = pair.cycle(in);
    aw.see(in.s_axil.awvalid, out.s_axil.awready), w.see(in.s_axil.wvalid, out.s_axil.wready), bb.see(out.s_axil.bvalid, in.s_axil.bready);
    ar.see(in.s_axil.arvalid, out.s_axil.arready), r.see(out.s_axil.rvalid, in.s_axil.rready);
    if (out.fault != model.value[REG_FAULT] || out.interrupts != model.value[REG_INTERRUPTS]) bench.fail("sticky bits are %x %x", out.fault.to_uint(), out.interrupts.to_uint());
    bool taken = in.s_axil.awvalid && out.s_axil.awready;
    auto sticky = [&](uint32_t reg, bool clears, uint32_t set) { model.value[reg] = (model.value[reg] & ~(clears && taken ? cleared : 0)) | set; };
    sticky(REG_FAULT, clears_fault, in.set_fault.to_uint()), sticky(REG_INTERRUPTS, clears_interrupt, in.set_interrupts.to_uint());
    compare(out);
    return out;
  }
  // What the card's parts see of the registers.
  void compare(const Out &out) {
    auto &v = model.value;
    auto wide = [&](uint32_t reg) { return v[reg] | (uint64_t)v[reg + 4] << 32; };
    if (out.seat != v[REG_SEAT] || out.control != v[REG_CONTROL] || out.timeout != v[REG_TIMEOUT] || out.ring_size != v[REG_RING_SIZE] || out.ring_base != wide(REG_RING_BASE) ||
        out.completion_base != wide(REG_COMPLETION_BASE) || out.window_base != wide(REG_WINDOW_BASE) || out.window_end != wide(REG_WINDOW_END) || out.log_control != v[REG_LOG_CONTROL] || out.log_base != wide(REG_LOG_BASE) || out.log_size != v[REG_LOG_SIZE] ||
        out.log_watermark != v[REG_LOG_WATERMARK] || out.log_patience != v[REG_LOG_PATIENCE] || out.log_first_page != wide(REG_LOG_FIRST_PAGE) || out.log_last_page != wide(REG_LOG_LAST_PAGE) ||
        out.log_forget != wide(REG_LOG_FORGET))
      bench.fail("a value that the card sees is not what was written");
    if (out.submitted.valid != (pushed == REG_SUBMITTED) || out.clear.valid != (pushed == REG_CLEAR) || out.log_examined.valid != (pushed == REG_LOG_EXAMINED) || out.log_load.valid != (pushed == REG_LOG_LOAD) ||
        out.log_clear.valid != (pushed == REG_LOG_CLEAR)) bench.fail("a value is pushed that was not written, or not");
    if (pushed == REG_SUBMITTED && out.submitted.value != pushed_value) bench.fail("the doorbell hands over another value");
    pushed = 0;
  }
  bool busy = false;  // an access is on its way
  void quiet() { In in = idle(); cycle(in, false, false, 0); }

  void write(const Access &a) {
    auto *word = Model::find(a.address);
    uint32_t mask = 0;
    for (int i = 0; i < 4; i++) if (a.strobes >> i & 1) mask |= 0xffu << (8 * i);
    bool aw_in = false, w_in = false, early = chance(50);
    for (int waited = 0;; waited++) {
      In in = idle();
      aw_in |= early || chance(100 - stall) || w_in, w_in |= !early || chance(100 - stall) || aw_in;
      in.s_axil.awvalid = aw_in, in.s_axil.awaddr = a.address, in.s_axil.wvalid = w_in, in.s_axil.wdata = a.data, in.s_axil.wstrb = a.strobes;
      bool w1c = word && word->access == luge_card::Access::w1c;
      Out out = cycle(in, w1c && word->offset == REG_FAULT, w1c && word->offset == REG_INTERRUPTS, a.data & mask & (word ? word->mask : 0));
      if (out.s_axil.awready != out.s_axil.wready) bench.fail("address and data of a write are not taken together");
      if (out.s_axil.bvalid) bench.fail("an answer before its write");
      if (out.s_axil.awready && aw_in && w_in) break;
      if (waited > 20) bench.fail("a write is not taken");
    }
    uint32_t want = !word ? axi::DECERR : word->access == luge_card::Access::ro || word->access == luge_card::Access::constant ? axi::SLVERR : axi::OKAY;
    if (word && word->access == luge_card::Access::rw) model.value[word->offset] = ((model.value[word->offset] & ~mask) | (a.data & mask)) & word->mask;
    if (word && word->access == luge_card::Access::push) pushed = word->offset, pushed_value = a.data & mask & word->mask;
    bool second = chance(10);  // a second write must wait for the answer to the first
    for (;;) {
      In in = idle();
      in.s_axil.bready = chance(100 - stall);
      if (second) in.s_axil.awvalid = in.s_axil.wvalid = true, in.s_axil.awaddr = REG_SEAT, in.s_axil.wstrb = 0;
      if (second && in.s_axil.bready) in.s_axil.awvalid = in.s_axil.wvalid = false;
      Out out = cycle(in, false, false, 0);
      if (!out.s_axil.bvalid) bench.fail("no answer to a write");
      if (second && in.s_axil.awvalid && out.s_axil.awready) bench.fail("a write is taken before the one before it is answered");
      if (out.s_axil.bresp != want) bench.fail("the answer to a write to %x is %u", a.address, out.s_axil.bresp.to_uint());
      if (in.s_axil.bready) break;
    }
    In in = idle();
    if (cycle(in, false, false, 0).s_axil.bvalid) bench.fail("a second answer to a write");
    writes++;
    bench.coverage.hit("answers", want == axi::OKAY ? "write okay" : want == axi::SLVERR ? "write slave error" : "write decode error");
    if (word) bench.coverage.hit("words", std::string(word->name) + (word->high ? " high" : "") + " written");
  }

  void read(const Access &a) {
    auto *word = Model::find(a.address);
    uint32_t want = 0, want_sticky = 0;
    In in = idle();
    in.s_axil.arvalid = true, in.s_axil.araddr = a.address;
    if (word) {
      want_sticky = model.value[word->offset];
      std::map<uint32_t, uint32_t> given = {{REG_BUILD, 0x04040410}, {REG_STATUS, status_now}, {REG_SUBMITTED, 0x1234}, {REG_COMPLETED, 0x55667788}, {REG_CYCLES, 11}, {REG_BUSY_CYCLES, 12},
                                            {REG_BEATS_READ, 13}, {REG_BEATS_WRITTEN, 14}, {REG_READ_STALLS, 15}, {REG_WRITE_STALLS, 16}, {REG_JOBS_FAILED, 17}, {REG_LOG_STATUS, 0x2a5}, {REG_LOG_TAIL, 21}, {REG_LOG_DIRTY, 0x16}, {REG_LOG_DIRTY + 4, 0x17}};
      want = given.count(word->offset) ? given[word->offset] : word->access == luge_card::Access::push ? 0 : want_sticky;
    }
    if (!cycle(in, false, false, 0).s_axil.arready) bench.fail("a read is not taken");
    bool second = chance(10);
    for (int late = chance(2) ? 70 : 0;; late--) {
      In next = idle();
      next.s_axil.rready = late <= 0 && chance(100 - stall);
      if (second && !next.s_axil.rready) next.s_axil.arvalid = true, next.s_axil.araddr = REG_ID;
      Out out = cycle(next, false, false, 0);
      if (!out.s_axil.rvalid) bench.fail("no answer to a read");
      if (second && next.s_axil.arvalid && out.s_axil.arready) bench.fail("a read is taken before the one before it is answered");
      if (out.s_axil.rresp != (word ? axi::OKAY : axi::DECERR)) bench.fail("the answer to a read of %x is %u", a.address, out.s_axil.rresp.to_uint());
      if (out.s_axil.rdata != want) bench.fail("%s reads %x, expected %x", word ? word->name : "nothing", out.s_axil.rdata.to_uint(), want);
      if (next.s_axil.rready) break;
    }
    In after = idle();
    if (cycle(after, false, false, 0).s_axil.rvalid) bench.fail("a second answer to a read");
    reads++;
    bench.coverage.hit("answers", word ? "read okay" : "read decode error");
    if (word) bench.coverage.hit("words", std::string(word->name) + (word->high ? " high" : "") + " read");
  }
  uint32_t pushed = 0, pushed_value = 0;
};

}  // namespace

int main(int argc, char **argv) {
  return hls::bench_main(argc, argv, {"registers", 21, 1000000}, [](hls::Bench &b) { Runner(b).run(); });
}
