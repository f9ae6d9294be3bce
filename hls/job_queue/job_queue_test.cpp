// job_queue alone, native and RTL in lock-step, between a memory with its rings and models of the movers, the transposers, the coder
// and the CRC kernels, which take and answer when they like and fail as they like. Everything that the queue gives out is compared
// with what the descriptors ask for; completions, CRC lines and counters with what the models said.
#include <algorithm>
#include <deque>
#include <map>

#include "hls/lib/bench.hpp"
#include "hls/lib/lockstep.hpp"
#include "job_queue_glue.hpp"
#include "sim/card/checker.hpp"
#include "sim/card/jobs.hpp"
#include "sim/card/memory.hpp"

HLS_LOCKSTEP(job_queue, Pair);
using namespace luge::sim;
using namespace luge_card;
using job_queue::In, job_queue::Out;

namespace {

constexpr uint64_t BASE = 0x7'0000'0000, SIZE = 2 << 20;
constexpr uint64_t RING = BASE, COMPLETIONS = BASE + 0x100000, LINES = BASE + 0x180000;
constexpr uint64_t WINDOW = BASE + 0x180000, END = WINDOW + (1ull << 30);  // chunks lie where no memory is: only their addresses count here
constexpr uint64_t SOURCES = BASE + 0x1000000, DESTINATIONS = BASE + 0x4000000;
constexpr unsigned PLACES = 64;  // entries of the ring that have places of their own for CRCs
const std::vector<std::string> fault_names = {"none", "command fails", "fetch error", "fetch short", "line error", "completion error", "no answer to fetch", "no answer to write", "stuck read address",
                                              "stuck write address", "stuck write data", "doorbell", "drain", "run off", "reset"};

class Runner {
 public:
  explicit Runner(hls::Bench &b)
      : bench(b), random(b.seed), memory(BASE, SIZE), read(memory, random), write(memory, random), fail([&b](const std::string &s) { b.fail("%s", s.c_str()); }),
        check_read("m_axi_r", b.coverage, fail, hls::ReadyIs::soon, false), check_write("m_axi_w", b.coverage, fail, false),
        jobs({WINDOW, END, SOURCES, 0x2000000, DESTINATIONS, 0x8000, LINES, 0x1000}, random, b.coverage) {
    check_read.longest_wait = 16;
    for (auto *group : {"read phase", "write phase"}) {
      std::vector<std::string> states = {"idle", "round", "look", "give"};
      if (std::string(group) == "read phase") states.insert(states.end(), {"load look", "load wait", "load give"});
      b.coverage.declare(group, states);
    }
    b.coverage.declare("fault", fault_names);
    b.coverage.declare("fail of a read command", {"1", "2", "3", "4", "5"}), b.coverage.declare("fail of a write command", {"1", "2", "4", "5"});
    b.coverage.declare("error on beat of a descriptor", {"0", "1", "2", "3"});
    b.coverage.declare("jobs in flight", {"0", "1", "2", "3", "4"});
    b.coverage.declare("log2 of the ring", {"0", "1", "2", "3", "4", "5", "12", "13 and more"});
    b.coverage.declare("load of a table", {"free", "in use by a job in flight"});
    std::vector<std::string> statuses;
    for (int s : {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 16, 17, 18, 19, 20, 24, 25, 27, 28}) statuses.push_back(std::to_string(s));
    b.coverage.declare("status of a job", statuses);
    if (!b.trace.empty()) pair.trace(b.trace);
  }
  void run() {
    power_up();
    while (pair.cycles < (bench.mutant ? 400000 : bench.wanted())) {
      episode();
      bench.progress(pair.cycles);
    }
    bench.figure("cycles in lock-step", "%llu, 0 differences", pair.cycles);
    bench.figure("jobs, of them failed", "%llu, %llu", (unsigned long long)done, (unsigned long long)bad);
    bench.figure("commands for the movers", "%llu", (unsigned long long)commands);
    bench.figure("lines of CRCs", "%llu", (unsigned long long)lines_seen);
    if (!bench.mutant) rate();
  }

 private:
  // A job whose descriptor has arrived.
  struct Flight {
    Job job;
    uint32_t index;
    int status;                     // the first that went wrong
    unsigned rounds = 0, reads = 0, writes = 0;  // of it to come; reads and writes: not told yet
    std::vector<uint32_t> crc_in, crc_out;       // by command
    bool loads = false;
    uint64_t arrived = 0;
  };
  typedef std::shared_ptr<Flight> Ref;
  struct Command { Ref job; uint64_t address; uint32_t length; };
  struct Shape { Ref job; unsigned rows, columns, user; };
  struct Running { Ref job; uint64_t due; bool crc_told = false; };
  struct Load { Ref job; unsigned row, source; uint8_t value; };

  hls::Bench &bench;
  std::mt19937_64 random;
  Memory memory;
  ReadPort read;
  WritePort write;
  Fail fail;
  ReadChecker check_read;
  WriteChecker check_write;
  Jobs jobs;
  std::map<std::string, std::unique_ptr<hls::Handshake>> ports;
  Pair pair;
  In in = In();
  Out out = Out();
  // the host
  uint32_t submitted = 0, reaped = 0;
  std::deque<Job> posted;   // descriptors that have not arrived
  std::deque<Ref> flying;   // arrived, without completion in memory
  uint64_t done = 0, bad = 0, commands = 0, lines_seen = 0, failed_jobs = 0;
  bool deaf = false;
  unsigned tables = 0;      // loaded, as of the descriptors that have arrived
  unsigned faults = 0;      // set_fault since they were last looked at
  // what the queue owes
  std::deque<Shape> gathers, scatters;
  std::deque<Command> reads, writes;
  std::deque<Load> loads;
  // what the models have
  std::deque<Running> reading, writing;
  std::deque<Ref> leaving;  // rows whose scatter round was taken: their CRC is to come
  std::deque<Running> crc_reading;
  std::deque<uint64_t> kinds;  // addresses of the writes of the queue, in order
  unsigned beat = 0;
  bool beat_failed = false;
  uint64_t first_beat = 0;
  int read_fail = 0, write_fail = 0;  // of the next command that ends
  int stall = 0, slow = 30;
  unsigned starts = 0;

  uint64_t below(uint64_t n) { return random() % n; }
  bool chance(int percent) { return (int)below(100) < percent; }
  hls::Handshake &port(const char *name) {
    auto &p = ports[name];
    if (!p) p = std::make_unique<hls::Handshake>(bench.coverage, name);
    return *p;
  }
  uint32_t entries() const { return 1u << std::min(12u, (unsigned)in.ring_size.to_uint()); }
  bool room() const { return submitted - reaped < entries(); }
  Job code() {
    Job j = jobs.code(submitted % std::min(entries(), PLACES));
    unsigned entry = 1 + (unsigned)below(63);
    return chance(30) ? jobs.fenced(j, entry, fences[entry]) : j;
  }
  uint64_t fences[64] = {};
  bool fences_set = false;
  // Some of them; at first all, as their memory holds anything.
  void set_fences() {
    for (unsigned e = 1; e < 64; e++) {
      if (fences_set && !chance(10)) continue;
      fences[e] = chance(50) ? 1 + below(1000) : random();
      in.fence.valid = true, in.fence.entry = e, in.fence.epoch = fences[e];
      cycle();
    }
    fences_set = true;
  }

  // ---- a cycle ----
  void cycle() {
    bench.now = pair.cycles;
    HLS_SET_MUTANT(in, bench.mutant);
    for (bool *r : {&in.read_command.ready, &in.write_command.ready, &in.gather.ready, &in.scatter.ready}) *r = !chance(stall);
    in.read_command.ready = in.read_command.ready && reading.size() < 20, in.write_command.ready = in.write_command.ready && writing.size() < 20;
    movers();
    read.present(in.m_axi_r), write.present(in.m_axi_w);
    out = pair.cycle(in);
    check_read.see(in.m_axi_r, out.m_axi_r), check_write.see(in.m_axi_w, out.m_axi_w);
    hear();
    given();
    if (in.m_axi_r.rvalid && out.m_axi_r.rready) fetched();
    if (out.m_axi_w.awvalid && in.m_axi_w.awready) kinds.push_back(out.m_axi_w.awaddr.to_uint64());
    read.observe(in.m_axi_r, out.m_axi_r), write.observe(in.m_axi_w, out.m_axi_w);
    faults |= out.set_fault.to_uint();
    in.submitted.valid = false, in.clear = false, in.fence.valid = false;
    if (!deaf) reap();
    const char *phases[] = {"idle", "round", "look", "give", "load look", "load wait", "load give"};
    bench.coverage.hit("read phase", phases[(int)pair.state.read_phase]), bench.coverage.hit("write phase", phases[(int)pair.state.write_phase]);
    if (!deaf) bench.coverage.hit("jobs in flight", std::to_string(std::min<size_t>(4, flying.size())));
  }

  // Movers and CRC kernels: a command ends when it likes, but in order; a row's CRC comes before its write has ended, a source's CRC two
  // cycles behind its end at the latest.
  void movers() {
    uint64_t now = pair.cycles;
    in.source_crc.valid = in.destination_crc.valid = in.read_done.valid = in.write_done.valid = false;
    if (!crc_reading.empty() && crc_reading.front().due <= now) {
      in.source_crc.valid = true, in.source_crc.value = (uint32_t)random();
      crc_reading.front().job->crc_in.push_back(in.source_crc.value.to_uint()), crc_reading.pop_front();
    }
    if (!reading.empty() && reading.front().due <= now) {
      in.read_done.valid = true, in.read_done.fail = read_fail, read_fail = 0;
    }
    if (!leaving.empty() && !chance(slow)) {
      in.destination_crc.valid = true, in.destination_crc.value = (uint32_t)random();
      leaving.front()->crc_out.push_back(in.destination_crc.value.to_uint()), leaving.pop_front();
      for (auto &w : writing) if (!w.crc_told) { w.crc_told = true; in_advance--; break; }
      in_advance++;
    }
    for (auto &w : writing) if (!w.crc_told && in_advance > 0) w.crc_told = true, in_advance--;
    if (!writing.empty() && writing.front().crc_told && writing.front().due <= now && !chance(slow)) {
      in.write_done.valid = true, in.write_done.fail = write_fail, write_fail = 0;
    }
  }
  int in_advance = 0;  // CRCs of rows whose write command is not here yet

  // What is said to the queue in this cycle, in the order in which it counts.
  void hear() {
    auto failed = [&](Flight &f, int status) { if (f.status == JobStatus::ok) f.status = status; };
    if (in.m_axi_w.bvalid && out.m_axi_w.bready) {
      if (kinds.empty()) bench.fail("an answer without a write");
      uint64_t at = kinds.front();
      kinds.pop_front();
      if (in.m_axi_w.bresp != axi::OKAY && at >= LINES)
        for (auto &f : flying)
          if (f->job.with_crc && at >= f->job.d.crc_address && at < f->job.d.crc_address + 0x1000) { failed(*f, in.m_axi_w.bresp == axi::DECERR ? JobStatus::write_decode : JobStatus::write_error); break; }
    }
    if (in.read_done.valid) {
      Flight &f = *reading.front().job;
      if (in.read_done.fail != 0) failed(f, 15 + (int)in.read_done.fail.to_uint()), bench.coverage.hit("fail of a read command", std::to_string(in.read_done.fail.to_uint()));
      f.reads--, reading.pop_front();
    }
    if (in.write_done.valid) {
      Flight &f = *writing.front().job;
      if (in.write_done.fail != 0) failed(f, 23 + (int)in.write_done.fail.to_uint()), bench.coverage.hit("fail of a write command", std::to_string(in.write_done.fail.to_uint()));
      f.writes--, writing.pop_front();
    }
  }

  template <class T> const T &next(const char *name, std::deque<T> &expected) {
    if (expected.empty()) bench.fail("%s: something that no job asks for", name);
    return expected.front();
  }
  // What the queue gives out in this cycle.
  void given() {
    port("read command").see(out.read_command.valid, in.read_command.ready), port("write command").see(out.write_command.valid, in.write_command.ready);
    port("gather").see(out.gather.valid, in.gather.ready), port("scatter").see(out.scatter.valid, in.scatter.ready);
    auto shape = [&](const char *name, const transposer::Round &r, const Shape &s) {
      if (r.rows != s.rows || r.columns != s.columns || r.user != s.user) bench.fail("%s: a round of %u x %u, %u instead of %u x %u, %u", name, r.rows.to_uint(), r.columns.to_uint(), r.user.to_uint(), s.rows, s.columns, s.user);
    };
    auto command = [&](const char *name, const job_queue::Move &m, const Command &c, unsigned function) {
      if (m.address != c.address || m.length != c.length || m.function != function) bench.fail("%s: %llx, %u bytes, function %u instead of %llx, %u, %u", name, (unsigned long long)m.address.to_uint64(), m.length.to_uint(), m.function.to_uint(), (unsigned long long)c.address, c.length, function);
      commands++;
    };
    if (out.gather.valid && in.gather.ready) shape("gather", out.gather.shape, next("gather", gathers)), gathers.pop_front();
    if (out.scatter.valid && in.scatter.ready) {
      const Shape &s = next("scatter", scatters);
      shape("scatter", out.scatter.shape, s);
      for (unsigned r = 0; r < s.rows; r++) leaving.push_back(s.job);
      scatters.pop_front();
    }
    if (out.read_command.valid && in.read_command.ready) {
      const Command &c = next("read command", reads);
      command("read command", out.read_command.move, c, 0);
      uint64_t due = std::max<uint64_t>(pair.cycles + 1 + below(1 + (uint64_t)slow), reading.empty() ? 0 : reading.back().due + 1);
      reading.push_back({c.job, due});
      uint64_t crc = std::max<uint64_t>(due + 2 - below(3), crc_reading.empty() ? 0 : crc_reading.back().due + 1);
      crc_reading.push_back({c.job, crc}), reads.pop_front();
    }
    if (out.write_command.valid && in.write_command.ready) {
      const Command &c = next("write command", writes);
      command("write command", out.write_command.move, c, c.job->job.d.function);
      writing.push_back({c.job, std::max<uint64_t>(pair.cycles + 1 + below(1 + (uint64_t)slow), writing.empty() ? 0 : writing.back().due + 1)}), writes.pop_front();
    }
    if (out.load.valid) loaded();
  }
  void loaded() {
    const Load &l = next("load", loads);
    unsigned table = l.job->job.d.table;
    if (out.load.select != table || out.load.row != l.row || out.load.source != l.source || out.load.value != l.value) bench.fail("a coefficient is loaded into the wrong place, or is another");
    for (auto &f : flying) {
      if (f == l.job) break;
      if (f->job.d.op != Op::code) continue;
      if (f->job.d.table == table && (f->reads || f->writes)) bench.fail("a table is loaded while a job uses it");
    }
    if (l.row == 0 && l.source == 0) bench.coverage.hit("load of a table", l.job->loads ? "in use by a job in flight" : "free");
    loads.pop_front();
  }

  // A beat of a descriptor: with the fourth the job is known to the queue, and to the bench what it asks for.
  void fetched() {
    bool bad_answer = in.m_axi_r.rresp != axi::OKAY || in.m_axi_r.rlast != (beat == 3);
    if (bad_answer && in.m_axi_r.rresp != axi::OKAY) bench.coverage.hit("error on beat of a descriptor", std::to_string(beat));
    beat_failed |= bad_answer;
    if (beat == 0) first_beat = pair.cycles;
    if (++beat < 4) return;
    beat = 0;
    if (out.stopped) { beat_failed = false; return; }
    if (posted.empty()) bench.fail("a descriptor is fetched that was not submitted");
    auto f = std::make_shared<Flight>();
    f->job = posted.front(), f->index = submitted - (uint32_t)posted.size(), f->arrived = first_beat;
    posted.pop_front();
    f->status = f->job.expected;
    if ((f->status == JobStatus::ok || f->status == JobStatus::fenced) && f->job.d.op == Op::code && !(tables >> f->job.d.table & 1)) f->status = JobStatus::bad_table;
    if (beat_failed) f->status = JobStatus::fetch_error;
    beat_failed = false;
    flying.push_back(f);
    if (f->status == JobStatus::ok) ask(f);
    else f->job.with_crc = false;
  }
  void ask(const Ref &f) {
    const Descriptor &d = f->job.d;
    if (d.op == Op::load_table) {
      tables |= 1u << d.table;
      for (auto &other : flying) f->loads |= other != f && other->job.d.op == Op::code && other->status == JobStatus::ok && other->job.d.table == d.table;
      const uint8_t *c = reinterpret_cast<const uint8_t *>(&d) + 64;
      for (unsigned i = 0; i < 64; i++) loads.push_back({f, i / 16, i % 16, c[i]});
    }
    if (d.op != Op::code) return;
    for (uint32_t at = 0; at < d.length; at += 4096) {
      uint32_t n = std::min<uint32_t>(4096, d.length - at);
      gathers.push_back({f, d.sources, (n + 63) / 64, (unsigned)d.rows << 2 | d.table}), scatters.push_back({f, d.rows, (n + 63) / 64, 0});
      for (int i = 0; i < d.sources; i++) reads.push_back({f, d.source[i] + at, n});
      for (int i = 0; i < d.rows; i++) writes.push_back({f, d.destination[i] + at, n});
      f->rounds++, f->reads += d.sources, f->writes += d.rows;
    }
  }

  // ---- the host ----
  uint8_t phase(uint32_t index) const { return index / entries() % 2 ? 0 : 1; }
  void post(const Job &j) {
    std::memcpy(memory.at(RING + 256 * (submitted % entries())), &j.d, 256);
    if (j.with_crc) std::memset(memory.at(j.d.crc_address), 0x5a, 0x1000);
    posted.push_back(j), submitted++;
  }
  void ring_doorbell(uint32_t value) { in.submitted.valid = true, in.submitted.value = value, cycle(); }
  void reap() {
    while (reaped != submitted) {
      uint8_t *at = memory.at(COMPLETIONS + 64 * (reaped % entries()));
      if (at[63] != phase(reaped)) return;
      Completion c;
      std::memcpy(&c, at, sizeof c);
      if (flying.empty()) bench.fail("a completion of a job that has not arrived");
      Ref f = flying.front();
      flying.pop_front();
      check(*f, c);
      reaped++, done++;
    }
  }
  void check(const Flight &f, const Completion &c) {
    if (c.index != f.index || c.index != reaped) bench.fail("a completion has the number %u instead of %u", c.index, f.index);
    if (c.status != f.status) bench.fail("job %u ends with status %u instead of %d", f.index, c.status, f.status);
    if (c.cookie != (f.status == JobStatus::fetch_error ? 0 : f.job.d.cookie)) bench.fail("a completion has another job's cookie");
    for (size_t i = 24; i < 63; i++) if (reinterpret_cast<const uint8_t *>(&c)[i]) bench.fail("what is reserved in a completion is not 0");
    if (f.reads || f.writes) bench.fail("job %u is complete with %u reads and %u writes to come", f.index, f.reads, f.writes);
    if ((uint64_t)c.waited + c.cycles > pair.cycles - f.arrived + 1) bench.fail("a completion counts more cycles than there were");
    bench.coverage.hit("status of a job", std::to_string(c.status));
    if (c.status != JobStatus::ok) bad++, failed_jobs++;
    bool refused_line = c.status == JobStatus::write_error || c.status == JobStatus::write_decode;
    if (f.job.with_crc && !refused_line) check_lines(f);
  }
  void check_lines(const Flight &f) {
    for (unsigned r = 0; r < f.rounds; r++)
      for (int side = 0; side < 2; side++) {
        auto &crc = side ? f.crc_out : f.crc_in;
        unsigned count = side ? f.job.d.rows : f.job.d.sources;
        if (crc.size() < (r + 1) * count) bench.fail("job %u is complete before its CRCs", f.index);
        for (unsigned i = 0; i < 16; i++) {
          uint32_t got, want = i < count ? crc[r * count + i] : 0;
          std::memcpy(&got, memory.at(f.job.d.crc_address + 128 * r + 64u * (unsigned)side + 4 * i), 4);
          if (got != want) bench.fail("CRC %u of round %u of job %u is %x instead of %x", i, r, f.index, got, want);
        }
        lines_seen++;
      }
  }

  // ---- runs ----
  void run_for(uint64_t cycles) { for (; cycles > 0; cycles--) cycle(); }
  void power_up() {
    pair.reset(), read.reset(), write.reset(), check_read.reset(), check_write.reset();
    forget_everything();
    submitted = reaped = 0, failed_jobs = 0, tables = 0, deaf = false, faults = 0;
    const unsigned sizes[] = {2, 0, 5, 12, 3, 13, 1, 4, 15};
    unsigned size = sizes[starts++ % std::size(sizes)];
    in = In();
    in.run = true, in.ring_size = size, in.ring_base = RING + below(4096), in.completion_base = COMPLETIONS + below(4096);  // low bits do not count
    in.window_base = WINDOW, in.window_end = END, in.timeout = 500;
    bench.coverage.hit("log2 of the ring", size > 12 ? "13 and more" : std::to_string(size));
    std::memset(memory.at(COMPLETIONS), 0, 64 * entries());
    set_fences();
    post(code()), posted.back().with_crc = false, ring_doorbell(submitted), finish();  // no table is loaded
    load_tables();
  }
  void forget_everything() {
    posted.clear(), flying.clear(), gathers.clear(), scatters.clear(), reads.clear(), writes.clear(), loads.clear(), reading.clear(), writing.clear(), leaving.clear(), crc_reading.clear(), kinds.clear();
    beat = 0, beat_failed = false, in_advance = 0, read_fail = write_fail = 0;
  }
  void load_tables() {
    for (int t = 0; t < 4; t++) {
      while (!room()) cycle();
      post(jobs.load(t)), ring_doorbell(submitted);
    }
    finish();
  }
  void finish() {
    for (uint64_t n = 0; reaped != submitted; n++) {
      cycle();
      if (n > 200000) bench.fail("no progress: %u jobs without completion", submitted - reaped);
    }
  }
  void quiet() {
    for (int n = 0; !out.idle || n < 4; n++) {
      cycle();
      if (n > 20000) bench.fail("not idle with nothing to do");
    }
    if (!posted.empty() || !flying.empty()) return;
    if (out.completed != submitted || out.submitted_now != submitted) bench.fail("completed %u, submitted %u, expected %u", out.completed.to_uint(), out.submitted_now.to_uint(), submitted);
    if (out.jobs_failed != failed_jobs) bench.fail("%u jobs failed, counted %llu", out.jobs_failed.to_uint(), (unsigned long long)failed_jobs);
    if (!gathers.empty() || !scatters.empty() || !reads.empty() || !writes.empty() || !loads.empty()) bench.fail("jobs are complete and not all that they ask for was given out");
  }
  void feed(int n, int percent_bad) {
    while (n > 0) {
      for (int w = 0; !room(); w++) { cycle(); if (w > 200000) bench.fail("no progress: the ring stays full"); }
      for (int batch = 1 + (int)below(4); batch > 0 && n > 0 && room(); batch--, n--)
        post(chance(percent_bad) ? jobs.bad(submitted % std::min(entries(), PLACES)) : chance(15) ? jobs.load((int)below(4)) : chance(5) ? jobs.nothing() : code());
      ring_doorbell(submitted);
    }
  }
  unsigned take_faults() { unsigned f = faults; faults = 0; return f; }
  void expect_faults(unsigned allowed, unsigned needed, const char *what) {
    unsigned f = take_faults();
    if ((f & ~allowed) || (f & needed) != needed) bench.fail("%s: faults %x", what, f);
  }

  // The queue has stopped: what is in flight runs to its end, nothing more is told; `clear` counts once nothing is owed.
  void stopped_and_cleared() {
    for (int n = 0; !out.stopped; n++) { cycle(); if (n > 3000) bench.fail("no time-out"); }
    deaf = true;
    cycle();
    expect_faults(FAULT_QUEUE_TIMEOUT | FAULT_JOB_FAILED, FAULT_QUEUE_TIMEOUT, "a port that does not answer");
    run_for(6000);
    if (!reading.empty() || !writing.empty()) bench.fail("commands stay open in a queue that has stopped");
    uint32_t told = out.completed.to_uint();
    in.clear = true;
    for (int n = 0; n < 40; n++)
      if (cycle(), !out.stopped) bench.fail("the queue goes on while the memory owes it answers");
    read.release(), write.release();
    for (int n = 0; read.busy() || write.busy() || out.stopped; n++) {
      cycle();
      if (n == 300) in.clear = true;
      if (n > 5000) bench.fail("`clear` does not bring the queue back");
    }
    run_for(4);
    if (out.completed != submitted) bench.fail("the queue does not go on at the doorbell: %u, then %u of %u", told, out.completed.to_uint(), submitted);
    forget_everything();
    for (; reaped != submitted; reaped++) memory.at(COMPLETIONS + 64 * (reaped % entries()))[63] = phase(reaped);
    failed_jobs = out.jobs_failed.to_uint(), deaf = false, faults = 0;
    load_tables(), quiet();
  }

  void episode() {
    read.behaviour.latency = write.behaviour.latency = (int)below(80);
    read.behaviour.stall = write.behaviour.stall = bench.stall >= 0 ? bench.stall : (int)below(4) * 20;
    stall = bench.stall >= 0 ? bench.stall : chance(10) ? 95 : (int)below(4) * 25, slow = chance(10) ? 90 : (int)below(40);
    read.faults = write.faults = Faults();
    size_t fault = chance(45) ? 0 : 1 + below(fault_names.size() - 1);
    const std::string &name = fault_names[fault];
    bench.coverage.hit("fault", name);
    unsigned usual = FAULT_JOB_FAILED;
    take_faults();
    if (name == "none") {
      set_fences();
      feed(4 + (int)below(12), chance(30) ? 50 : 5), finish();
    } else if (name == "command fails") {
      for (int n = 0; n < 12; n++) {
        feed(1, 10);
        run_for(below(100));
        (chance(50) ? read_fail = 1 + (int)below(5) : write_fail = (int)(below(2) ? 1 + below(2) : 4 + below(2)));
      }
      finish();
    } else if (name == "fetch error") {
      for (long at = 0; at < 4; at++) {
        finish(), quiet();
        read.faults.error_beat = at, read.faults.error = chance(50) ? axi::SLVERR : axi::DECERR;
        feed(1, 0), finish();
        read.faults.error_beat = 2 + 4 * (long)below(3), feed(3, 20), finish();
      }
    } else if (name == "fetch short") {  // nothing can be known of what comes then: only a reset helps
      read.faults.short_burst = true, deaf = true;
      Job j = code();
      post(j), ring_doorbell(submitted);
      for (int n = 0; !out.stopped; n++) { cycle(); if (n > 3000) bench.fail("a descriptor of three beats is not noticed"); }
      in.clear = true, run_for(200);
      if (!out.stopped) bench.fail("the queue goes on after a burst that was too short");
      power_up();
      return;
    } else if (name == "line error") {
      finish(), quiet();
      Job j = code();
      while (!j.with_crc) j = code();
      write.faults.error_beat = (long)below((j.d.length + 4095) / 4096 * 2), write.faults.error = chance(50) ? axi::SLVERR : axi::DECERR;
      write.behaviour.latency = 10;
      post(j), ring_doorbell(submitted), finish();
      usual |= FAULT_COMPLETION_ERROR;
    } else if (name == "completion error") {
      finish(), quiet(), take_faults();
      write.faults.error_beat = 0, write.faults.error = chance(50) ? axi::SLVERR : axi::DECERR;
      deaf = true;
      post(jobs.nothing()), ring_doorbell(submitted), run_for(1500);
      expect_faults(FAULT_COMPLETION_ERROR, FAULT_COMPLETION_ERROR, "a completion that can't be written");
      if (out.completed != submitted) bench.fail("a completion that can't be written is not counted");
      flying.clear(), deaf = false;
      for (; reaped != submitted; reaped++) memory.at(COMPLETIONS + 64 * (reaped % entries()))[63] = phase(reaped);
    } else if (name == "no answer to fetch" || name == "no answer to write" || name.compare(0, 5, "stuck") == 0) {
      finish(), quiet();
      if (name == "no answer to fetch") read.faults.lose_beat = (long)below(8);
      if (name == "no answer to write") write.faults.lose_beat = (long)below(3);
      bool at_once = chance(50);
      if (name == "stuck read address" && at_once) read.faults.stuck_request = true;
      feed((int)std::min<uint64_t>(entries(), 1 + below(4)), 0);
      if (!at_once) run_for(below(200));
      if (name == "stuck read address") read.faults.stuck_request = true;
      if (name == "stuck write address") write.faults.stuck_request = true;
      if (name == "stuck write data") write.faults.stuck_data = true;
      for (int n = 0; n < 20000 && reaped != submitted && !out.stopped; n++) cycle();
      if (reaped == submitted) {
        if (out.stopped) stopped_and_cleared();
        for (int n = 0; n < 3000 && !out.stopped && !out.idle; n++) cycle();
        if (out.stopped) stopped_and_cleared();
        read.release(), write.release();
      } else {
        stopped_and_cleared();
      }
      take_faults();
      return;
    } else if (name == "doorbell") {
      finish(), quiet(), take_faults();
      for (uint32_t value : {submitted + entries() + 1, submitted + entries() + 1 + (uint32_t)below(1u << 30), submitted - 1, submitted - 1 - (uint32_t)below(1u << 30)}) {
        ring_doorbell(value), run_for(8);
        expect_faults(FAULT_BAD_DOORBELL, FAULT_BAD_DOORBELL, "a wild doorbell");
        if (out.submitted_now != submitted) bench.fail("a wild doorbell is taken");
      }
      run_for(100);
      if (!out.idle) bench.fail("a wild doorbell starts something");
      while (room()) post(code());  // a full ring is none
      ring_doorbell(submitted), run_for(4);
      expect_faults(FAULT_JOB_FAILED, 0, "a full ring");
      if (entries() > 64) { power_up(); return; }
      finish();
    } else if (name == "drain" || name == "run off") {
      feed(3, 0);
      run_for(below(150));
      (name == "drain" ? in.drain : in.run) = name == "drain";
      run_for(20);
      for (int n = 0; !out.idle; n++) { cycle(); if (n > 60000) bench.fail("%s does not come to an end", name.c_str()); }
      uint32_t before = out.completed.to_uint();
      run_for(300);
      if (out.completed != before || out.m_axi_r.arvalid) bench.fail("jobs go on though they must not");
      in.drain = false, in.run = true;
      finish();
    } else {
      feed(3, 0), run_for(below(400)), power_up();
      return;
    }
    finish(), quiet();
    expect_faults(usual, 0, name.c_str());
  }

  // Jobs of one source and one round, movers that answer at once: what the queue itself needs for a job.
  void rate() {
    power_up();
    stall = 0, slow = 0, read.behaviour.latency = write.behaviour.latency = 40, read.behaviour.stall = write.behaviour.stall = 0;
    uint64_t begin = 0;
    uint32_t n = 0;
    for (int turn = 0; turn < 40; turn++) {
      if (turn == 8) begin = pair.cycles, n = submitted;
      while (!room()) cycle();
      Job j = code();
      j.d.sources = j.d.rows = 1, j.d.length = 64, j.d.flags = 0, j.d.fence = 0, j.expected = JobStatus::ok, j.with_crc = false;
      post(j), ring_doorbell(submitted);
    }
    finish();
    bench.figure("smallest jobs back to back", "%.0f cycles a job with a ring of %u", (double)(pair.cycles - begin) / (submitted - n), entries());
  }
};

}  // namespace

int main(int argc, char **argv) {
  return hls::bench_main(argc, argv, {"job_queue", 26, 1000000}, [](hls::Bench &b) { std::make_unique<Runner>(b)->run(); });
}
