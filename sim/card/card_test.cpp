// The whole card against ISA-L, native and RTL in lock-step: jobs of every shape with CRCs through the rings under stalls, bad
// descriptors, every fault a memory can have, drains, resets; then rates. Memory around destinations is looked at, too.
#include <isa-l/crc.h>
#include <isa-l/erasure_code.h>

#include <ctime>
#include <map>
#include <set>

#include "hls/dma_write_log/record.h"
#include "sim/card/driver.hpp"
#include "sim/card/jobs.hpp"

using namespace luge::sim;
using namespace luge_card;

namespace {

constexpr uint64_t BASE = 0x10'0000'0000, SIZE = 8 << 20;
constexpr uint64_t RING = BASE, COMPLETIONS = BASE + 0x10000, SOURCES = BASE + 0x100000, DESTINATIONS = BASE + 0x400000, LINES = BASE + 0x300000;
constexpr uint64_t WINDOW = BASE + 0x100000, END = BASE + SIZE;
constexpr uint64_t RECORDS = BASE + 0x40000;
constexpr unsigned RECORDS_LOG2 = 10, FUNCTIONS = 4;  // recorded; a fifth is not
constexpr uint32_t PLACE = 0x8000;  // bytes for a destination
constexpr uint32_t TIMEOUT = 2000;

const std::vector<std::string> fault_names = {"none", "read-error", "read-decode", "read-lost", "read-stuck", "read-short", "write-error", "write-lost", "write-stuck", "parity-flip",
                                              "queue-read-error", "queue-read-lost", "queue-write-error", "queue-write-lost", "queue-stuck", "doorbell", "drain", "stop-run", "reset"};

class Runner {
 public:
  explicit Runner(hls::Bench &b)
      : bench(b), random(b.seed), fail([&b](const std::string &s) { b.fail("%s", s.c_str()); }), card(make_card(CardKind::lockstep)), rig(*card, random, BASE, SIZE, b.coverage, fail, b.now),
        driver(rig, RING, COMPLETIONS, fail) {
    rig.mutant = b.mutant, jobs.functions = FUNCTIONS + 1;
    declare();
    for (size_t i = 0; i < SIZE; i += 8) { uint64_t v = random(); std::memcpy(rig.memory.at(BASE + i), &v, 8); }
    if (!b.trace.empty()) card->trace(b.trace);
  }
  void run() {
    power_up();
    if (bench.wants("storage_writes_are_recorded")) storage_writes_are_recorded();
    if (bench.wants("errors_at_every_beat")) errors_at_every_beat();
    if (bench.wants("bad_descriptors")) bad_descriptors();
    if (bench.wants("fenced_jobs")) fenced_jobs(), power_up(), fenced_jobs();
    if (bench.wants("stopped_queues")) stopped_queues();
    while (bench.wants("episodes") && rig.now < bench.wanted()) {
      episode();
      bench.progress(rig.now);
    }
    bench.figure("cycles in lock-step", "%llu", (unsigned long long)rig.now);
    bench.figure("jobs, of them failed", "%llu, %llu", (unsigned long long)jobs_done, (unsigned long long)jobs_failed);
    bench.figure("records of the DMA write log", "%llu", (unsigned long long)records);
    bench.figure("source bytes coded", "%llu", (unsigned long long)source_bytes);
    if (!bench.mutant && bench.only.empty()) rates();
  }

 private:
  hls::Bench &bench;
  std::mt19937_64 random;
  Fail fail;
  std::unique_ptr<Card> card;
  Rig rig;
  Driver driver;
  std::deque<Job> open;
  std::vector<std::pair<Job, Completion>> ended;
  uint64_t jobs_done = 0, jobs_failed = 0, source_bytes = 0;
  bool trust = true;  // compare what jobs with status ok wrote
  int mismatches = 0;
  size_t turn = 0;
  unsigned refused = 0, write_stuck = 0;

  uint64_t below(uint64_t n) { return random() % n; }
  bool chance(int percent) { return (int)below(100) < percent; }

  void declare() {
    auto &c = bench.coverage;
    std::vector<std::string> statuses;
    c.declare("fault", fault_names);
    for (auto *port : {"source", "destination", "descriptor", "line of CRCs", "completion"}) c.declare(std::string("error response to every beat of a ") + port, {"SLVERR", "DECERR"});
    c.declare("jobs in flight", {"1", "2", "3", "4", "more submitted"});
    for (int s : {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 16, 17, 18, 19, 20, 24, 25, 27}) statuses.push_back(std::to_string(s));
    c.declare("status of a job", statuses);
  }

  // ---- jobs ----
  Jobs jobs{{WINDOW, END, SOURCES, 0x200000, DESTINATIONS, PLACE, LINES, 0x1000}, random, bench.coverage};
  uint32_t entry() const { return driver.submitted % driver.entries(); }
  Job code() { return jobs.code(entry()); }
  Job load(int table) { return jobs.load(table); }
  void submit(const Job &j) {
    if (j.d.op == Op::code && j.expected == JobStatus::ok) {
      std::memset(rig.memory.at(DESTINATIONS + entry() * 4ull * PLACE), 0xa5, 4 * PLACE);
      std::memset(rig.memory.at(LINES + entry() * 0x1000ull), 0x5a, 0x1000);
    }
    driver.put(j.d);
    open.push_back(j);
    size_t n = open.size();
    bench.coverage.hit("jobs in flight", n > 4 ? "more submitted" : std::to_string(n));
  }

  // ---- what came back ----
  unsigned char expected_tables[4][64];
  void reap() {
    Completion c;
    while (!deaf && driver.reap(c)) {
      if (open.empty()) bench.fail("a completion too many");
      Job j = open.front();
      open.pop_front();
      if (c.cookie != (c.status == JobStatus::fetch_error ? 0 : j.d.cookie)) bench.fail("a completion has another job's cookie");
      for (size_t i = 24; i < 63; i++) if (reinterpret_cast<uint8_t *>(&c)[i]) bench.fail("what is reserved in a completion is not 0");
      bench.coverage.hit("status of a job", std::to_string(c.status));
      jobs_done++, jobs_failed += c.status != JobStatus::ok;
      if (c.status == JobStatus::ok && j.d.op == Op::load_table) std::memcpy(expected_tables[j.d.table], j.d.destination, 64);
      if (c.status == JobStatus::ok && j.d.op == Op::code && trust) check(j, c.index), wrote(j.d);
      ended.push_back({j, c});
    }
  }
  void wrong(const char *format, unsigned a, unsigned b) {
    if (tolerant) { mismatches++; return; }
    bench.fail(format, a, b);
  }
  bool deaf = false;      // the queue has stopped: what it still tells is not looked at
  bool tolerant = false;  // count mismatches instead of failing
  void check(const Job &j, uint32_t index) {
    const Descriptor &d = j.d;
    int k = d.sources, m = d.rows;
    source_bytes += (uint64_t)k * d.length;
    std::vector<std::vector<unsigned char>> want((size_t)m, std::vector<unsigned char>(d.length));
    std::vector<unsigned char> rows, t(32ull * k * m);
    for (int r = 0; r < m; r++) rows.insert(rows.end(), &expected_tables[d.table][16 * r], &expected_tables[d.table][16 * r + k]);
    std::vector<unsigned char *> src, dst;
    for (int i = 0; i < k; i++) src.push_back(rig.memory.at(d.source[i]));
    for (auto &w : want) dst.push_back(w.data());
    ec_init_tables(k, m, rows.data(), t.data());
    ec_encode_data((int)d.length, k, m, t.data(), src.data(), dst.data());
    uint32_t entry = index % driver.entries();
    for (int r = 0; r < 4; r++) {
      uint64_t place = DESTINATIONS + (entry * 4 + (uint32_t)r) * PLACE, at = r < m ? d.destination[r] - place : 0, n = r < m ? d.length : 0;
      const uint8_t *p = rig.memory.at(place);
      for (uint64_t i = 0; i < PLACE; i++) {
        bool inside = i >= at && i < at + n;
        if (p[i] != (inside ? want[(size_t)r][i - at] : 0xa5)) { wrong(inside ? "row %u differs from ISA-L at byte %u" : "row %u: a byte beside the destination is written (%u)", (unsigned)r, (unsigned)(i - at)); return; }
      }
    }
    if (!j.with_crc) return;
    for (uint64_t at = 0, round = 0; at < d.length; at += 4096, round++)
      for (int i = 0; i < 32; i++) {
        int n = (int)std::min<uint64_t>(4096, d.length - at);
        bool is_source = i < 16;
        int chunk = i % 16;
        uint32_t expected = 0, got;
        if (is_source ? chunk < k : chunk < m) expected = ~crc32_iscsi(is_source ? src[(size_t)chunk] + at : dst[(size_t)chunk] + at, n, ~0u);
        std::memcpy(&got, rig.memory.at(d.crc_address + 128 * round + 4 * (uint64_t)i), 4);
        if (got != expected) { wrong("CRC %u of round %u is wrong", (unsigned)i, (unsigned)round); return; }
      }
  }

  // ---- the DMA write log ----
  std::map<uint64_t, unsigned> unrecorded;  // lines that jobs have written: function
  uint32_t next_record = 1;
  uint64_t records = 0;

  void start_log() {
    unrecorded.clear(), next_record = 1;
    std::memset(rig.memory.at(RECORDS), 0, 16 << RECORDS_LOG2);
    rig.poke64(REG_LOG_BASE, RECORDS), rig.poke(REG_LOG_SIZE, RECORDS_LOG2), rig.poke(REG_LOG_PATIENCE, 1000);
    rig.poke64(REG_LOG_FIRST_PAGE, DESTINATIONS >> 12), rig.poke64(REG_LOG_LAST_PAGE, (END - 1) >> 12);
    for (int i = 0; i < 2000 && !(rig.peek(REG_LOG_STATUS) & LOG_STATUS_READY); i++) rig.cycle();
    for (unsigned f = 0; f < FUNCTIONS; f++) rig.poke(REG_LOG_LOAD, f | LOG_LOAD_RECORD);
    rig.poke(REG_LOG_CONTROL, LOG_CONTROL_ENABLE);
    for (int i = 0; i < 100 && !(rig.peek(REG_LOG_STATUS) & LOG_STATUS_RECORDING); i++) rig.cycle();
    if (!(rig.peek(REG_LOG_STATUS) & LOG_STATUS_RECORDING)) bench.fail("the log does not record");
  }
  void wrote(const Descriptor &d) {
    if (d.function >= FUNCTIONS) return;
    for (int r = 0; r < d.rows; r++)
      for (uint64_t line = d.destination[r] & ~63ull; line < d.destination[r] + d.length; line += 64) unrecorded[line] = d.function;
  }
  void read_records() {
    uint32_t first = next_record;
    for (;; next_record++) {
      dma_record r;
      std::memcpy(&r, rig.memory.at(RECORDS + 16 * (next_record & ((1u << RECORDS_LOG2) - 1))), sizeof r);
      if (r.sequence != next_record) break;
      records++;
      if (r.kind != DMA_WRITTEN) bench.fail("a record of kind %d without a reason", (int)r.kind);
      if (r.function >= FUNCTIONS) bench.fail("a record of a function that is not recorded");
      for (uint64_t line = r.address; line < r.address + r.last + 1; line += 64) {
        auto it = unrecorded.find(line);
        if (it != unrecorded.end() && it->second == r.function) unrecorded.erase(it);
      }
    }
    if (next_record != first) rig.poke(REG_LOG_EXAMINED, next_record);
  }
  // Everything that jobs have written is in a record of its function by now.
  void expect_records() {
    settle(3000);
    read_records();
    if (!unrecorded.empty()) bench.fail("%zu lines that were written are in no record, the first of function %u", unrecorded.size(), unrecorded.begin()->second);
    if (rig.peek(REG_LOG_STATUS) & (LOG_STATUS_OVERFLOW | LOG_STATUS_RECORD_ERROR | LOG_STATUS_BAD_HEAD)) bench.fail("the log is in trouble: %x", rig.peek(REG_LOG_STATUS));
  }

  // ---- runs ----
  void power_up() {
    rig.reset();
    open.clear(), ended.clear();
    driver.ring_size = (int)below(6);
    driver.start(WINDOW, END, TIMEOUT);
    if (rig.peek(REG_ID) != ID_VALUE || rig.peek(REG_BUILD) != 0x04040410) bench.fail("the card is not what it says");
    submit(code()), open.back().expected = JobStatus::bad_table;  // no table is loaded
    driver.ring_doorbell();
    finish();
    for (int t = 0; t < 4; t++) {
      while (!driver.room()) rig.cycle(), reap();
      submit(load(t));
      driver.ring_doorbell();
    }
    finish(), expect_all();
    start_log();
  }
  void settle(int cycles) { for (int i = 0; i < cycles; i++) rig.cycle(), reap(); }
  // Until nothing moves: the card hears the answer to a completion after the host sees it.
  void quiet() {
    for (int i = 0; i < 40000 && (rig.now % 16 || !(rig.peek(REG_STATUS) & STATUS_IDLE)); i++) settle(1);
  }
  // Until every job has its completion.
  void finish() {
    for (uint64_t n = 0; !open.empty(); n++) {
      rig.cycle();
      if (n % 16 == 0) reap();
      if (n > 100000) bench.fail("no progress: %zu jobs without completion", open.size());
    }
  }
  // Submits n jobs as the ring has room, the doorbell once for a few.
  void feed(int n, int percent_bad) {
    while (n > 0) {
      while (!driver.room()) { rig.cycle(), reap(); if (++stuck_for > 400000) bench.fail("no progress: the ring stays full"); }
      stuck_for = 0;
      int batch = 1 + (int)below(4);
      for (; batch > 0 && n > 0 && driver.room(); batch--, n--) submit(chance(percent_bad) ? jobs.bad(entry()) : chance(8) ? load((int)below(4)) : chance(4) ? jobs.nothing() : code());
      driver.ring_doorbell();
    }
  }
  int stuck_for = 0;
  void expect_all() {
    for (auto &[j, c] : ended) if (c.status != j.expected) bench.fail("a job ends with status %u instead of %d", c.status, j.expected);
    ended.clear();
  }
  int count_status(int s) { int n = 0; for (auto &[j, c] : ended) n += c.status == s; return n; }
  // All as expected but those with one of `codes`; gives their number.
  int expect_but(std::set<int> codes) {
    int n = 0;
    for (auto &[j, c] : ended) {
      if (codes.count(c.status)) n++;
      else if (c.status != j.expected) bench.fail("a job ends with status %u instead of %d", c.status, j.expected);
    }
    ended.clear();
    return n;
  }
  void expect_status(uint32_t mask, uint32_t value, const char *what) {
    if ((rig.peek(REG_STATUS) & mask) != value) bench.fail("%s: status is %x", what, rig.peek(REG_STATUS));
  }
  uint32_t take_faults() { uint32_t f = rig.peek(REG_FAULT); rig.poke(REG_FAULT, f); return f; }
  // The memory answers what it owes, the card is told to go on.
  void heal() {
    rig.release();
    for (int n = 0; rig.read.busy() || rig.write.busy() || rig.job_read.busy() || rig.job_write.busy(); n++) { rig.cycle(); if (n > 20000) bench.fail("the card does not take what the memory owed"); }
    settle(20);
    rig.poke(REG_CLEAR, 1);
    settle(4), quiet(), settle(8);
    expect_status(STATUS_READ_STOPPED | STATUS_WRITE_STOPPED | STATUS_QUEUE_STOPPED | STATUS_IDLE, STATUS_IDLE, "after `clear`");
    take_faults();
  }

  // Requirement: DWR-17 switch=mutant-25
  void storage_writes_are_recorded() {
    rig.behave(40, 0);
    for (int i = 0; i < 10; i++) feed(5, 0), finish(), expect_all(), expect_records();
  }

  // One job again and again, each time with another beat answered with an error: it fails with the right code, the next one goes well.
  void errors_at_every_beat() {
    rig.behave(20, 0);
    auto small = [&] {
      Job j = code();
      Descriptor &d = j.d;
      d.sources = 2, d.rows = 2, d.length = 704, d.flags = FLAG_CRC, j.with_crc = true, d.function = FUNCTIONS;  // nobody's: no records between its writes
      for (unsigned i = 0; i < 2; i++) d.source[i] = SOURCES + 0x10000 * i + 4096 - 300, d.destination[i] = DESTINATIONS + (entry() * 4 + i) * (uint64_t)PLACE + 4096 - 100;
      d.crc_address = LINES + entry() * 0x1000ull;
      return j;
    };
    auto give = [&] {
      while (!driver.room()) settle(1);
      quiet();
      submit(small()), driver.ring_doorbell();
    };
    struct Port { const char *name; Faults &faults; long first; int slverr, decerr; };
    int injected = 0;
    for (Port port : {Port{"source", rig.read.faults, 0, JobStatus::read_error, JobStatus::read_decode}, Port{"destination", rig.write.faults, 0, JobStatus::write_error, JobStatus::write_decode},
                      Port{"descriptor", rig.job_read.faults, 0, JobStatus::fetch_error, JobStatus::fetch_error}, Port{"line of CRCs", rig.job_write.faults, 0, JobStatus::write_error, JobStatus::write_decode}})
      for (int error : {axi::SLVERR, axi::DECERR})
        for (long beat = 0;; beat++) {
          if (port.name == std::string("line of CRCs") && beat == 2) break;  // the third is the completion
          quiet(), ended.clear();
          port.faults.error_beat = beat, port.faults.error = error;
          give(), finish();
          if (port.faults.error_beat >= 0) { port.faults.error_beat = -1, expect_all(); break; }  // the job has no more beats
          if (expect_but({error == axi::SLVERR ? port.slverr : port.decerr}) != 1) bench.fail("error %d at beat %ld of a %s does not fail the job", error, beat, port.name);
          give(), finish(), expect_all();
          bench.coverage.hit(std::string("error response to every beat of a ") + port.name, error == axi::SLVERR ? "SLVERR" : "DECERR"), injected++;
        }
    for (int error : {axi::SLVERR, axi::DECERR}) {
      quiet(), take_faults();
      rig.job_write.faults.error_beat = 0, rig.job_write.faults.error = error;
      submit(jobs.nothing()), driver.ring_doorbell(), settle(1000);
      if (!(take_faults() & FAULT_COMPLETION_ERROR)) bench.fail("a completion that can't be written does not show");
      open.clear(), driver.forget(), ended.clear();
      give(), finish(), expect_all();
      bench.coverage.hit("error response to every beat of a completion", error == axi::SLVERR ? "SLVERR" : "DECERR"), injected++;
    }
    if (injected < 60) bench.fail("only %d beats were answered with an error", injected);
    bench.figure("error responses, each at every beat of a job", "%d", injected);
    quiet(), take_faults(), rig.poke(REG_INTERRUPTS, 1);
  }

  // The memory of the queue stops: a lost beat or answer (the one after `which` others), or a ready that never comes (of the port `which`).
  // False: no job met it.
  bool queue_stops(const std::string &name, long which) {
    finish();
    if (name == "queue-stuck")
      (which == 0 ? rig.job_read.faults.stuck_request : which == 1 ? rig.job_write.faults.stuck_request : rig.job_write.faults.stuck_data) = true;
    else
      (name == "queue-read-lost" ? rig.job_read.faults.lose_beat : rig.job_write.faults.lose_beat) = which;
    int n = 0;
    for (; n < 4 && driver.room(); n++) submit(chance(20) ? load((int)below(4)) : code());
    driver.ring_doorbell();
    for (int i = 0; i < 200000 && !open.empty() && !(rig.now % 64 == 0 && rig.peek(REG_STATUS) & STATUS_QUEUE_STOPPED); i++) settle(1);
    if (open.empty()) { rig.release(), expect_all(); return false; }
    if (!(take_faults() & FAULT_QUEUE_TIMEOUT)) bench.fail("the queue's time-out does not show in `fault`");
    // Jobs in flight run to their end; nothing of what was not told counts.
    settle(3000);
    reap();
    open.clear(), ended.clear(), deaf = true;
    for (int i = 0; i < 400000 && (rig.read.busy() || rig.write.busy()); i++) settle(1);
    uint32_t completed = rig.peek(REG_COMPLETED);
    rig.poke(REG_CLEAR, 1), settle(100);
    expect_status(STATUS_QUEUE_STOPPED, STATUS_QUEUE_STOPPED, "the queue goes on while the memory owes it answers");
    if (rig.peek(REG_COMPLETED) != completed || take_faults() & FAULT_QUEUE_TIMEOUT) bench.fail("the queue forgets jobs while the memory owes it answers");
    heal();
    if (rig.peek(REG_COMPLETED) != driver.submitted) bench.fail("the queue does not go on at the doorbell");
    driver.forget(), deaf = false;
    for (int t = 0; t < 4; t++) {  // a table may or may not have been loaded
      while (!driver.room()) settle(10);
      submit(load(t)), driver.ring_doorbell();
    }
    finish(), expect_all();
    return true;
  }

  // What chance may not come to in a short run: every way in which the queue can stop, `clear` while it is still owed answers.
  void stopped_queues() {
    rig.behave(30, 0);
    for (auto *name : {"queue-read-lost", "queue-write-lost", "queue-stuck"})
      for (long which = 0; which < 3; which++) {
        if (driver.entries() < 4) { do power_up(); while (driver.entries() < 4); }
        int tries = 0;  // the answer to a completion may be lost after the host has seen them all
        while (!queue_stops(name, which)) if (++tries == 20) bench.fail("no job meets %s %ld", name, which);
        bench.coverage.hit("fault", name);
      }
  }

  // Every kind of bad descriptor in each of its forms.
  void bad_descriptors() {
    rig.behave(20, 0);
    for (unsigned n = 0; n < Jobs::BAD_KINDS * Jobs::BAD_FORMS; n++) {
      if (!driver.room()) finish();
      submit(jobs.bad(entry())), driver.ring_doorbell();
    }
    finish(), expect_all(), quiet(), take_faults(), rig.poke(REG_INTERRUPTS, 1);
  }

  // Fences stand until they are set anew, also over a reset of the card; a job's results under an old epoch are never written.
  std::map<unsigned, uint64_t> fences;
  // Requirement: CF-10 switch=mutant-33
  void fenced_jobs() {
    rig.behave(20, 0);
    auto jobs_of_all = [&] {
      for (auto &[e, epoch] : fences)
        for (int n = 0; n < 4; n++) {
          if (!driver.room()) finish();
          submit(jobs.fenced(code(), e, epoch)), driver.ring_doorbell();
        }
      finish(), expect_all();
    };
    jobs_of_all();
    for (unsigned e : {1u, 63u, 2 + (unsigned)below(61)}) {
      fences[e] = chance(50) ? 1 + below(1000) : random();
      rig.poke64(REG_FENCE_EPOCH, fences[e]), rig.poke(REG_FENCE_LOAD, e);
    }
    jobs_of_all();
    quiet(), take_faults(), rig.poke(REG_INTERRUPTS, 1);
  }

  void episode() {
    rig.behave((int)below(80), bench.stall >= 0 ? bench.stall : (int)below(4) * 20);
    rig.read.faults = rig.write.faults = rig.job_read.faults = rig.job_write.faults = Faults();  // one that nothing has met
    read_records();
    int fault = ++turn % 2 ? 0 : 1 + (int)(turn / 2 % (fault_names.size() - 1));
    if (!bench.faults.empty() && fault && bench.faults.find(fault_names[(size_t)fault]) == std::string::npos) fault = 0;
    if (ended.size() > 4096) ended.clear();
    long some = (long)below(300);
    trust = true;
    auto name = fault_names[(size_t)fault];
    if (name == "none") {
      feed(4 + (int)below(10), chance(30) ? 40 : 5), finish(), expect_all();
      // An interrupt is asked for by every completion, and goes when it is cleared.
      quiet(), settle(4);
      if (!rig.interrupt) bench.fail("no interrupt");
      rig.poke(REG_INTERRUPTS, 1);
      uint32_t f = take_faults();
      if (f & ~FAULT_JOB_FAILED) bench.fail("faults %x without a fault", f);
      settle(4);
      if (rig.interrupt) bench.fail("the interrupt stays");
      quiet();
      if (rig.peek(REG_COMPLETED) != driver.submitted || rig.peek(REG_SUBMITTED) != driver.submitted) bench.fail("counts of descriptors are wrong");
      expect_status(STATUS_IDLE, STATUS_IDLE, "all done");
      expect_records();
    } else if (name == "read-error" || name == "read-decode") {
      rig.read.faults.error_beat = some, rig.read.faults.error = name == "read-error" ? axi::SLVERR : axi::DECERR;
      feed(6, 0), finish();
      bool happened = rig.read.faults.error_beat < 0;
      if (expect_but({name == "read-error" ? JobStatus::read_error : JobStatus::read_decode}) != (happened ? 1 : 0)) bench.fail("one wrong answer must fail one job");
    } else if (name == "write-error") {
      rig.write.faults.error_beat = some % 8, rig.write.faults.error = refused % 2 ? axi::DECERR : axi::SLVERR;
      feed(6, 0), finish();
      bool happened = rig.write.faults.error_beat < 0;
      settle(2000);  // records that are still to leave
      happened |= rig.write.faults.error_beat < 0;
      bool record = rig.peek(REG_LOG_STATUS) & LOG_STATUS_RECORD_ERROR;
      int failed = expect_but({JobStatus::write_error, JobStatus::write_decode});
      refused += failed != 0;  // one that meets a record shows neither status
      if (failed + record != (happened ? 1 : 0)) bench.fail("one refused write must fail one job, or show as a record that is lost");
      if (record) power_up();
    } else if (name == "read-lost" || name == "read-stuck" || name == "read-short") {
      if (name == "read-lost") rig.read.faults.lose_beat = some;
      if (name == "read-short") rig.read.faults.short_burst = true;
      feed(2, 0);
      if (name == "read-stuck") settle((int)some), rig.read.faults.stuck_request = true;
      feed(4, 0), finish();
      bool happened = rig.peek(REG_STATUS) & STATUS_READ_STOPPED;
      std::set<int> codes = {JobStatus::read_timeout};
      if (name == "read-short") codes.insert(JobStatus::read_protocol);
      int n = expect_but(codes);
      if ((n > 0) != happened) bench.fail("a time-out without failed jobs, or failed jobs without one");
      if (happened && !(take_faults() & FAULT_READ_TIMEOUT)) bench.fail("a time-out does not show in `fault`");
      if (happened && name == "read-short") { bench.coverage.hit("fault", name); power_up(); return; }
      heal();
    } else if (name == "write-lost" || name == "write-stuck") {
      if (name == "write-lost") rig.write.faults.lose_beat = some % 8;
      feed(2, 0);
      if (name == "write-stuck") settle((int)some), (++write_stuck % 2 ? rig.write.faults.stuck_request : rig.write.faults.stuck_data) = true;
      feed(4, 0), finish();
      bool happened = rig.peek(REG_STATUS) & STATUS_WRITE_STOPPED;
      if ((expect_but({JobStatus::write_timeout}) > 0) != happened) bench.fail("a time-out without failed jobs, or failed jobs without one");
      if (happened && !(take_faults() & FAULT_WRITE_TIMEOUT)) bench.fail("a time-out does not show in `fault`");
      heal();
    } else if (name == "parity-flip") {  // the bench must see it: the card can't
      finish();
      settle(2000);  // no record on its way that the flip could hit
      tolerant = true, mismatches = 0;
      rig.write.faults.flip_beat = 0;
      Job j = code();
      j.d.destination[0] &= ~63ull, j.d.length = std::max<uint32_t>(j.d.length / 64 * 64, 64);
      while (!driver.room()) settle(10);
      submit(j), driver.ring_doorbell(), finish();
      if (mismatches != 1) bench.fail("a flipped bit of parity was not noticed");
      tolerant = false, rig.write.faults.flip_beat = -1, expect_all();
    } else if (name == "queue-read-error") {
      rig.job_read.faults.error_beat = some % 8, rig.job_read.faults.error = chance(50) ? axi::SLVERR : axi::DECERR;
      feed(4, 0), finish();
      for (auto &[j, c] : ended) if (c.status == JobStatus::fetch_error && j.d.op == Op::load_table) {}
      if (expect_but({JobStatus::fetch_error}) != 1) bench.fail("one wrong answer to the queue must fail one job");
    } else if (name == "queue-read-lost" || name == "queue-write-lost" || name == "queue-stuck") {
      if (!queue_stops(name, some % 3)) return;
    } else if (name == "queue-write-error") {
      finish();
      ended.clear();
      Job crc = code();  // a line of CRCs: fails its job
      while (!crc.with_crc) crc = code();
      crc.d.length = 64 * (1 + (uint32_t)below(4));  // done long before the answer
      rig.job_write.faults.error_beat = 0, rig.job_write.behaviour.latency = 400;  // it comes after the data's answers
      submit(crc), driver.ring_doorbell(), finish(), quiet();
      if (expect_but({JobStatus::write_error}) != 1) bench.fail("CRCs that can't be written don't fail their job");
      take_faults();
      rig.job_write.faults.error_beat = 0;
      Job j = jobs.nothing();
      submit(j), driver.ring_doorbell();
      settle(2000);
      if (!(take_faults() & FAULT_COMPLETION_ERROR)) bench.fail("a completion that can't be written does not show");
      if (rig.peek(REG_COMPLETED) != driver.submitted) bench.fail("a completion that can't be written is not counted");
      open.clear(), driver.forget();
    } else if (name == "doorbell") {
      finish();
      take_faults();
      for (uint32_t wrong_value : {driver.submitted + driver.entries() + 1 + (uint32_t)below(1000), driver.submitted - 1 - (uint32_t)below(1000)}) {
        rig.poke(REG_SUBMITTED, wrong_value);
        settle(20);
        if (!(take_faults() & FAULT_BAD_DOORBELL) || rig.peek(REG_SUBMITTED) != driver.submitted) bench.fail("a wild doorbell is taken");
      }
      settle(200);
      expect_status(STATUS_IDLE, STATUS_IDLE, "a wild doorbell starts something");
    } else if (name == "drain") {
     for (int twice = 0; twice < 3; twice++) {
      feed(6, 0);
      settle(60 + (int)below(200));
      rig.poke(REG_CONTROL, CONTROL_RUN | CONTROL_DRAIN | CONTROL_INTERRUPT);
      quiet();
      expect_status(STATUS_IDLE, STATUS_IDLE, "a drain does not end");
      rig.poke(REG_CONTROL, CONTROL_RUN | CONTROL_INTERRUPT);
      feed(2, 0), finish();
      expect_but({JobStatus::read_drained, JobStatus::write_drained});
     }
    } else if (name == "stop-run") {
      feed(3, 0);
      settle((int)below(100));
      rig.poke(REG_CONTROL, CONTROL_INTERRUPT);
      quiet();
      uint32_t done = rig.peek(REG_COMPLETED);
      settle(500);
      if (rig.peek(REG_COMPLETED) != done) bench.fail("jobs go on without `run`");
      rig.poke(REG_CONTROL, CONTROL_RUN | CONTROL_INTERRUPT);
      finish(), expect_all();
    } else {
      feed(2, 0);
      settle((int)some);
      power_up();
    }
    bench.coverage.hit("fault", name);
  }

  // ---- figures ----
  double measure(int k, int m, uint32_t length, int jobs, std::vector<std::pair<double, double>> *chart) {
    finish(), ended.clear();
    uint32_t stalls = rig.peek(REG_READ_STALLS);
    uint64_t begin = 0, end = 0;
    for (int i = 0; i < jobs; i++) {
      Job j = code();
      j.d.sources = (uint8_t)k, j.d.rows = (uint8_t)m, j.d.length = length, j.d.flags = FLAG_CRC, j.with_crc = true;
      for (int s = 0; s < k; s++) j.d.source[s] = SOURCES + 0x10000ull * (unsigned)s;
      for (int r = 0; r < m; r++) j.d.destination[r] = DESTINATIONS + (driver.submitted % driver.entries() * 4 + (unsigned)r) * PLACE;
      j.d.crc_address = LINES + driver.submitted % driver.entries() * 0x1000ull;
      submit(j);
    }
    driver.ring_doorbell();
    uint64_t beats = rig.read.beats;
    while (rig.read.beats == beats) rig.cycle();
    begin = rig.now, last_beats = rig.read.beats;
    uint64_t shown = begin;
    while (!open.empty()) {
      rig.cycle();
      if (rig.read.beats - beats < (uint64_t)jobs * k * (length / 64)) end = rig.now;
      if (chart && rig.now - shown == 64) chart->push_back({(double)(rig.now - begin), (double)(rig.read.beats - last_beats) / 64}), shown = rig.now;
      if (rig.now == shown) last_beats = rig.read.beats;
      if (rig.now % 64 == 0) reap();
    }
    expect_all();
    double beats_all = (double)jobs * k * (length / 64), cycles = (double)(end + 1 - begin), waits = std::min(cycles - beats_all, (double)(rig.peek(REG_READ_STALLS) - stalls));
    bench.charts.stacks["Where the reader's cycles go, latency 60 and no stalls"].push_back(
        {std::to_string(k) + "+" + std::to_string(m) + ", chunks of " + std::to_string(length), {{"a beat arrives", beats_all}, {"memory has not answered", waits}, {"nothing asked for", cycles - beats_all - waits}}});
    return (double)jobs * k * (length / 64) / (double)(end + 1 - begin);
  }
  uint64_t last_beats = 0;

  void rates() {
    rig.behave(60, 0);
    rig.reset(), open.clear(), ended.clear();
    driver.ring_size = 5, driver.start(WINDOW, END, 20000);
    submit(load(0)), submit(load(1)), submit(load(2)), submit(load(3)), driver.ring_doorbell(), finish(), ended.clear();
    last_beats = rig.read.beats;
    for (int k : {4, 8, 10, 16}) {
      double used = measure(k, k == 4 ? 2 : 4, 4096, 24, k == 8 ? &bench.charts.lines["Share of 64 B a cycle that arrives, over cycles: 24 jobs of 8+4 with 4 KiB chunks"] : nullptr);
      bench.figure("beats used, k=" + std::to_string(k) + ", 4 KiB chunks, latency 60", "%.1f %%", 100 * used);
      if (used < 0.95) bench.fail("beats used are below 95 %%");
    }
    double small = measure(4, 2, 512, 28, nullptr);
    double cycles = 32 / small;
    bench.figure("idle cycles between queued jobs of 32 beats (4+2, 512 B)", "%.1f", cycles - 32);
    if (cycles - 32 > 64) bench.fail("more than 64 idle cycles between jobs");
    speed(CardKind::native), speed(CardKind::rtl);
  }

  // How fast the simulation is: one kind of card alone, 8+3 jobs of 12 KiB chunks.
  void speed(CardKind kind) {
    auto other = make_card(kind);
    hls::Coverage unused;
    uint64_t clock = 0;
    Rig r(*other, random, BASE, SIZE, unused, fail, clock);
    Driver d(r, RING, COMPLETIONS, fail);
    d.ring_size = 4, d.start(WINDOW, END, 20000);
    std::clock_t begin = std::clock();  // of this process: other work on the machine does not count
    uint64_t bytes = 0, from = r.now;
    double seconds = 0;
    d.put(load(0).d);
    for (uint32_t n = 0; seconds < (bench.full() ? 1.5 : 0.2); n++) {
      Completion c;
      while (!d.room() && !d.reap(c)) for (int i = 0; i < 64; i++) r.cycle();
      Descriptor x = jobs.blank(Op::code);
      x.sources = 8, x.rows = 3, x.length = 12288;
      for (unsigned s = 0; s < 8; s++) x.source[s] = SOURCES + 0x10000ull * s;
      for (unsigned q = 0; q < 3; q++) x.destination[q] = DESTINATIONS + (n % 16 * 4 + q) * (uint64_t)PLACE;
      d.put(x), d.ring_doorbell();
      bytes = r.read.beats * 64;
      seconds = (double)(std::clock() - begin) / CLOCKS_PER_SEC;
    }
    double mhz = (double)(r.now - from) / seconds / 1e6, rate = (double)bytes / seconds / 1e6;
    bench.figure(kind == CardKind::native ? "native card" : "verilated card", "%.3f MHz, %.1f MB/s of source data", mhz, rate);
  }
};

}  // namespace

int main(int argc, char **argv) {
  return hls::bench_main(argc, argv, {"card", 33, 1000000}  /* the queue's, the transposers', and the queue's 26th */, [](hls::Bench &b) { std::make_unique<Runner>(b)->run(); });
}
