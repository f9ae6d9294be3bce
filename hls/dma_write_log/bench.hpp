// The world around dma_write_log: guests' writes, host memory and a VMC that copies what the records name. Its oracle knows nothing of
// the kernel's inside: at the end the copy equals the memory, and no slot was overwritten before it had been examined.
//
// Memory is as unhelpful as the bus allows: a record is seen as soon as its beat is taken, data only when its response comes.
#pragma once
#include <array>
#include <cstring>
#include <deque>
#include <map>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "dma_write_log_glue.hpp"
#include "hls/dma_write_log/record.h"
#include "hls/lib/bench.hpp"
#include "hls/lib/lockstep.hpp"

namespace bench {
using namespace dma_write_log;
HLS_LOCKSTEP(dma_write_log, Pair);

struct Failure : std::runtime_error { using runtime_error::runtime_error; };

typedef std::array<uint8_t, 64> LineBytes;
static const uint64_t GUEST = 0x12345600000000ull;  // guest memory: REGIONS regions of PAGES pages, one per function used
static const int REGIONS = 4, PAGES = 72;           // 288 KiB each: several blocks of 64 KiB, and neighbours share one
static const uint64_t RING = 0xffff000040000000ull;

struct Settings {
  unsigned log2_slots = 4;
  bool at_scheduling = false;
  unsigned patience = 0, watermark = 0;
  int stall_aw = 0, stall_w = 0, stall_b = 0;                 // of the guests' side, percent
  int stall_maw = 0, stall_mw = 0, latency = 20, jitter = 10; // of the memory
  int vmc_interval = 1;        // mean cycles between looks of the VMC
  int vmc_batch = 1;           // records examined before a new head is given
  int sequential = 50;         // percent of writes that continue the one before
  int beats = 64;              // most beats of a write
  bool pages = false;          // writes begin at pages
  int functions = REGIONS;     // that write
  unsigned recorded = 0xf;     // bit per region
  int errors = 0;              // of 1000 data responses
  int ahead = 3;               // writes whose data has not been taken
  int gap = 0;                 // percent of cycles in which no new write is begun
};

// Bins of one group, by number.
struct Bins {
  std::vector<uint64_t *> count;
  Bins(hls::Coverage &c, const std::string &group, const std::vector<std::string> &names) { for (auto &n : names) count.push_back(c.find(group, n)); }
  Bins(hls::Coverage &c, const std::string &group, int from, int to) : base(from) { for (int i = from; i <= to; i++) count.push_back(c.find(group, std::to_string(i))); }
  int base = 0;
  void hit(int n) { if (n >= base && n - base < (int)count.size()) ++*count[(size_t)(n - base)]; }
};

struct Cover {
  hls::Coverage &table;
  explicit Cover(hls::Coverage &t) : table(t) {}
  hls::Handshake s_aw{table, "s_axi_aw"}, s_w{table, "s_axi_w"}, s_b{table, "s_axi_b"}, m_aw{table, "m_axi_aw"}, m_w{table, "m_axi_w"}, m_b{table, "m_axi_b"};
  Bins slots{table, "log2 of slots", 0, 10};
  Bins mode{table, "mode", {"after-completion", "at-scheduling"}};
  Bins length{table, "record covers", {"line", "part-of-page", "page", "pages", "64KiB"}};
  Bins kind{table, "record kind", {"written", "overflow", "suspended", "completed"}};
  Bins lanes{table, "records in a beat", 1, 4};
  Bins window{table, "write at window", {"page-before", "first-page", "inside", "last-page", "page-behind"}};
  Bins hold{table, "hold ended by", {"free-slot", "overflow"}};
  Bins apart{table, "contiguous, not merged", {"other-function", "64KiB-block-ends"}};
  Bins suspend{table, "suspended while", {"idle", "writing", "held", "overflowing"}};
  Bins reset{table, "reset while", {"idle", "writing", "held", "suspended"}};
  Bins other{table, "also seen", {"watermark", "bad-head", "bad-ring", "data-error", "record-error", "unrecorded-function", "cleared", "switched-off-and-on"}};
  enum { WATERMARK, BAD_HEAD, BAD_RING, DATA_ERROR, RECORD_ERROR, UNRECORDED, CLEARED, AGAIN };
};

class World {
 public:
  std::mt19937_64 random;
  Settings set;
  Pair &pair;
  Cover &cover;
  unsigned mutant = 0;
  unsigned long long writes = 0, records = 0, record_bytes = 0, data_bytes = 0, markers = 0, ahead_of_data = 0;  // the last: records seen before their data was answered

  World(Pair &p, Cover &c, uint64_t seed, const Settings &s) : random(seed), set(s), pair(p), cover(c) {
    memory_.assign(REGIONS * LINES, LineBytes{}), intended_ = memory_, copy_ = memory_;
    pair.reset();
    cover.slots.hit((int)set.log2_slots), cover.mode.hit(set.at_scheduling);
    // Windows leave out pages at the ends, except where region 0 meets region 1.
    for (int r = 0; r < REGIONS; r++) window_first_[r] = r == 1 ? 0 : 2, window_last_[r] = r == 0 ? PAGES - 1 : PAGES - 3;
  }

  // ---- what a test does ----
  bool traffic = true;     // new writes are begun
  bool vmc_awake = true;
  bool gave_bad_head = false, fail_record = false;
  void next_at(int region, int line) { last_region_ = region, last_end_[region] = line; }
  int pause_from = 0, pause_to = 0;  // cycles between writes, one after the other
  const Out &out() const { return out_; }
  static int function_of(int region) { return region == 3 ? 63 : region * 9; }

  void start_recording() {
    ring_.assign(1ull << set.log2_slots, luge_card::dma_record{});
    ring_written_.assign(ring_.size(), 0);
    expected_ = 1, head_ = 1, head_given_ = 1, expect_.clear(), announced_ = 0, waiting_copies_.clear(), last_record_end_ = -1, overflowed_ = false;
    saw_suspended_ = false;
    enable_ = true;
    for (int n = 0; !out_.status.recording; n++) { cycle(); if (n > 20000) fail("recording does not begin"); }
    for (int n = 0; !out_.status.settled; n++) { cycle(); if (n > 20000) fail("writes from before do not settle"); }
    copy_ = memory_;  // the first full pass; everything later must come by records
    recording_ = true;
  }
  void stop_recording() {
    recording_ = false, enable_ = false;
    cycle();
    for (int n = 0; out_.status.ring_busy; n++) { cycle(); if (n > 20000) fail("the ring stays busy"); }
    run(2);
  }
  void load_windows() {
    for (int n = 0; !out_.status.ready; n++) { cycle(); if (n > 200) fail("the table is never ready"); }
    for (int r = 0; r < REGIONS; r++) {
      load_.valid = true, load_.function = function_of(r), load_.record = set.recorded >> r & 1;
      load_.first_page = page(r, window_first_[r]), load_.last_page = page(r, window_last_[r]);
      cycle();
    }
    load_.valid = false;
  }
  void run(int cycles) { for (int i = 0; i < cycles; i++) cycle(); }
  // Stops the device's writes, waits for the last record, compares.
  void suspend_and_compare() {
    suspend_ = true;
    cover.suspend.hit(out_.status.overflowing ? 3 : out_.status.holding ? 2 : flying_.empty() && !offered_aw_ ? 0 : 1);
    for (int n = 0; !saw_suspended_; n++) { cycle(); if (n > 60000) fail("no suspended marker"); }
    for (int n = 0; !out_.status.suspended; n++) { cycle(); if (n > 2000) fail("suspended is not shown"); }
    if (!flying_.empty()) fail("suspended, but writes are on their way");
    auto before = memory_;
    run(100);
    if (before != memory_) fail("memory changes after the suspended marker");
    copy_all_waiting();
    compare();
  }
  void resume() { suspend_ = false, saw_suspended_ = false; for (int n = 0; out_.status.suspended; n++) { cycle(); if (n > 100) fail("stays suspended"); } }
  // No write is lost on its way: memory is what the guests wrote.
  void finish_traffic() {
    traffic = false;
    for (int n = 0; offered_aw_ || !to_send_.empty() || !answers_due_.empty() || !flying_.empty(); n++) { cycle(); if (n > 200000) fail("writes do not finish"); }
    for (size_t i = 0; i < memory_.size(); i++) if (memory_[i] != intended_[i]) fail("memory differs from what was written, line " + std::to_string(i));
  }
  void give_head(uint32_t head) { examined_.valid = true, examined_.head = head; cycle(); }
  void clear(uint64_t functions) { clear_.valid = true, clear_.functions = functions; cycle(); clear_.valid = false; }
  uint32_t head() const { return head_; }
  uint32_t expected() const { return expected_; }
  void give_true_head() { give_head(head_); }
  void set_ring_base(uint64_t b) { base_ = b; }
  void set_enable(bool e) { enable_ = e; }
  unsigned held_longest = 0;

  [[noreturn]] void fail(const std::string &what) { throw Failure(what + " (cycle " + std::to_string(pair.cycles) + ")"); }

  void cycle() {
    In in = In();
    drive(in);
    Out out = pair.cycle(in);
    guest_side(in, out);
    memory_side(in, out);
    watch(in, out);
    out_ = out;
    examined_.valid = false;
    if (vmc_awake && enable_ && out.status.recording && (set.vmc_interval <= 1 || random() % (unsigned)set.vmc_interval == 0)) vmc();
  }

 private:
  static const int LINES = PAGES * 64;
  struct GuestWrite { int region, line, beats; int beat = 0; bool aw_done = false; bool error = false; };
  struct Flying { bool ring; uint64_t line; int beats, taken = 0; bool full = false; uint64_t due = 0; std::vector<std::pair<LineBytes, uint64_t>> data; bool error = false; uint64_t serial = 0; };
  struct Expect { int region, line, beats; bool optional, lost; uint64_t serial; };  // optional: made while the switch was on its way

  uint64_t serial_ = 0;  // of writes that are to be recorded
  std::vector<LineBytes> memory_, intended_, copy_;
  std::vector<luge_card::dma_record> ring_;
  std::vector<uint32_t> ring_written_;  // sequence that lies in a slot
  int window_first_[REGIONS], window_last_[REGIONS];
  uint64_t base_ = RING;
  bool enable_ = false, suspend_ = false, recording_ = false, saw_suspended_ = false;
  decltype(In::load) load_ = {};
  decltype(In::examined) examined_ = {};
  decltype(In::clear) clear_ = {};
  Out out_ = Out();
  // guests
  std::deque<GuestWrite> to_send_;       // AW offered or done, W not finished
  std::deque<bool> answers_due_;         // error or not, in order
  bool offered_aw_ = false, offered_w_ = false;
  unsigned long long not_before_ = 0;
  LineBytes w_data_; uint64_t w_strobe_ = 0;
  int last_region_ = 0, last_end_[REGIONS] = {};
  // memory
  std::deque<Flying> flying_;
  bool b_offered_ = false;
  // VMC
  uint32_t expected_ = 1, head_ = 1;
  std::deque<Expect> expect_;
  uint64_t announced_ = 0;
  std::deque<std::pair<uint32_t, Expect>> waiting_copies_;  // at scheduling: until the completion marker
  // watching
  Out last_; In last_in_; bool have_last_ = false;
  unsigned held_ = 0;

  uint64_t page(int region, int p) { return (GUEST >> 12) + (uint64_t)region * PAGES + (uint64_t)p; }
  bool chance(int percent) { return (int)(random() % 100) < percent; }

  void begin_write() {
    GuestWrite w;
    bool again = chance(set.sequential);
    w.region = again ? last_region_ : (int)(random() % (unsigned)set.functions);
    int line = again || chance(20) ? last_end_[w.region] : (int)(random() % (unsigned)LINES);
    if (!again && chance(30)) line = (int)((random() % 2 ? (random() % 2 ? 1 : 2) : (random() % 2 ? PAGES - 3 : PAGES - 2)) * 64);
    if (line >= LINES) line = 0, w.region = (w.region + 1) % set.functions;  // goes on in the next function's memory
    if (set.pages) line -= line % 64;
    int most = 64 - line % 64;
    w.line = line, w.beats = 1 + (int)(random() % (unsigned)set.beats);
    if (set.pages || chance(30)) w.beats = set.beats;
    if (w.beats > most) w.beats = most;
    last_region_ = w.region, last_end_[w.region] = line + w.beats;
    to_send_.push_back(w);
    offered_aw_ = true;
  }

  void drive(In &in) {
    HLS_SET_MUTANT(in, mutant);
    in.control.enable = enable_, in.control.suspend = suspend_, in.control.at_scheduling = set.at_scheduling;
    in.ring.base = base_, in.ring.log2_slots = set.log2_slots, in.ring.watermark = set.watermark, in.ring.patience = set.patience;
    in.examined = examined_, in.load = load_, in.clear = clear_;
    if (!offered_aw_ && traffic && (int)to_send_.size() < set.ahead && !chance(set.gap) && pair.cycles >= not_before_ && (to_send_.empty() || to_send_.back().aw_done) && !chance(set.stall_aw)) begin_write();
    in.s_axi.awvalid = offered_aw_;
    if (offered_aw_) {
      auto &w = to_send_.back();
      in.s_axi.awaddr = GUEST + ((uint64_t)w.region * LINES + (uint64_t)w.line) * 64, in.s_axi.awlen = w.beats - 1, in.s_axi_awuser = function_of(w.region);
    }
    if (!offered_w_ && !to_send_.empty() && !chance(set.stall_w)) {
      offered_w_ = true;
      for (auto &b : w_data_) b = (uint8_t)random();
      w_strobe_ = chance(80) ? ~0ull : random();
    }
    in.s_axi.wvalid = offered_w_;
    if (offered_w_) {
      auto &w = to_send_.front();
      for (int i = 0; i < 64; i++) in.s_axi.wdata.lane[i] = w_data_[(size_t)i];
      in.s_axi.wstrb = w_strobe_, in.s_axi.wlast = w.beat == w.beats - 1;
    }
    in.s_axi.bready = !chance(set.stall_b);
    in.m_axi.awready = flying_.size() < 200 && !chance(set.stall_maw), in.m_axi.wready = !chance(set.stall_mw);
    if (!b_offered_ && !flying_.empty() && flying_.front().full && flying_.front().due <= pair.cycles) {
      b_offered_ = true;
      auto &f = flying_.front();
      if (!f.ring) {
        f.error = (int)(random() % 1000) < set.errors;
        if (f.error) cover.other.hit(Cover::DATA_ERROR);
        if (!f.error) for (int i = 0; i < f.beats; i++) store(memory_[f.line + (uint64_t)i], f.data[(size_t)i]);
      } else if (fail_record) {
        f.error = true, fail_record = false, cover.other.hit(Cover::RECORD_ERROR);
      }
    }
    in.m_axi.bvalid = b_offered_;
    if (b_offered_) in.m_axi.bresp = flying_.front().error ? 2 : 0;
  }

  static void store(LineBytes &line, const std::pair<LineBytes, uint64_t> &beat) {
    for (int i = 0; i < 64; i++) if (beat.second >> i & 1) line[(size_t)i] = beat.first[(size_t)i];
  }

  void guest_side(const In &in, const Out &out) {
    cover.s_aw.see(in.s_axi.awvalid, out.s_axi.awready), cover.s_w.see(in.s_axi.wvalid, out.s_axi.wready), cover.s_b.see(out.s_axi.bvalid, in.s_axi.bready);
    if (in.s_axi.wvalid && out.s_axi.wready) {
      auto &w = to_send_.front();
      if (!w.aw_done) fail("data is taken before its address");
      offered_w_ = false;
      pending_.push_back({w_data_, w_strobe_});
      if (++w.beat == w.beats) {
        writes_in_flight_.push_back({w, pending_});
        pending_.clear(), to_send_.pop_front(), answers_due_.push_back(false);
        writes++, data_bytes += 64ull * (unsigned)w.beats;
      }
    }
    if (in.s_axi.awvalid && out.s_axi.awready) {
      auto &w = to_send_.back();
      w.aw_done = true, offered_aw_ = false;
      if (pause_to) not_before_ = pair.cycles + (unsigned)(pause_from + (int)(writes % (unsigned)(pause_to - pause_from)));
      bool wanted = set.recorded >> w.region & 1;
      int p = w.line / 64, first = window_first_[w.region], last = window_last_[w.region];
      if (wanted) cover.window.hit(p < first ? 0 : p == first ? 1 : p < last ? 2 : p == last ? 3 : 4);
      else cover.other.hit(Cover::UNRECORDED);
    }
    if (out.s_axi.bvalid && in.s_axi.bready) {
      if (answers_due_.empty()) fail("a response that no write waits for");
      if (responses_.empty()) fail("a response before the memory gave one");
      if (out.s_axi.bresp != responses_.front()) fail("the response is not the memory's");
      responses_.pop_front(), answers_due_.pop_front();
    }
  }
  std::deque<std::pair<GuestWrite, std::vector<std::pair<LineBytes, uint64_t>>>> writes_in_flight_;
  std::vector<std::pair<LineBytes, uint64_t>> pending_;
  std::deque<unsigned> responses_;

  std::deque<bool> lost_;  // of the writes that have passed the gate and not left yet: what the kernel says of them

  void memory_side(const In &in, const Out &out) {
    cover.m_aw.see(out.m_axi.awvalid, in.m_axi.awready), cover.m_w.see(out.m_axi.wvalid, in.m_axi.wready), cover.m_b.see(in.m_axi.bvalid, out.m_axi.bready);
    if (in.m_axi.bvalid && out.m_axi.bready) {
      auto &f = flying_.front();
      if (!f.ring) {
        responses_.push_back(f.error ? 2 : 0);
        auto &[w, data] = writes_in_flight_.front();
        if ((uint64_t)w.region * LINES + (uint64_t)w.line != f.line || w.beats != f.beats) fail("a write went to another place");
        if (!f.error) for (int i = 0; i < f.beats; i++) store(intended_[f.line + (uint64_t)i], data[(size_t)i]);
        writes_in_flight_.pop_front();
      }
      b_offered_ = false;
      flying_.pop_front();
    }
    if (out.m_axi.awvalid && in.m_axi.awready) {
      Flying f;
      uint64_t a = out.m_axi.awaddr.to_uint64();
      f.beats = (int)out.m_axi.awlen.to_uint() + 1;
      f.ring = a >= base_ && a < base_ + std::max<uint64_t>(64, 16ull << set.log2_slots);
      if (a % 64 != 0 || a % 4096 + 64ull * (unsigned)f.beats > 4096) fail("burst is misaligned or crosses 4 KiB");
      if (f.ring) {
        f.line = (a - base_) / 64;
        if (f.beats != 1) fail("a record of several beats");
      } else {
        if (a < GUEST || a >= GUEST + 64ull * REGIONS * LINES) fail("a write outside guest memory and ring");
        f.line = (a - GUEST) / 64;
        int region = (int)(f.line / LINES), line = (int)(f.line % LINES);
        if (lost_.empty()) fail("a write leaves that was not counted");
        bool lost = lost_.front();
        lost_.pop_front();
        if (enable_ && (set.recorded >> region & 1) && line / 64 >= window_first_[region] && line / 64 <= window_last_[region])
          f.serial = ++serial_, expect_.push_back({region, line, f.beats, !recording_ || !out.status.settled, lost, serial_});
      }
      flying_.push_back(f);
    }
    if (out.event.write) lost_.push_back(out.event.lost);
    if (out.m_axi.wvalid && in.m_axi.wready) {
      Beat beat;
      for (int i = 0; i < 64; i++) beat.data[(size_t)i] = (uint8_t)out.m_axi.wdata.lane[i];
      beat.strobe = out.m_axi.wstrb.to_uint64(), beat.last = out.m_axi.wlast;
      beats_.push_back(beat);
    }
    for (auto &f : flying_) {  // data may come before its address
      while (!f.full && !beats_.empty()) {
        Beat beat = beats_.front();
        beats_.pop_front();
        f.data.push_back({beat.data, beat.strobe});
        if (beat.last != ((int)f.data.size() == f.beats)) fail("wlast is wrong");
        if (beat.last) f.full = true, f.due = pair.cycles + (unsigned)set.latency + random() % (unsigned)(set.jitter + 1);
        if (f.ring) ring_beat(f.line, beat.data, beat.strobe);
      }
      if (beats_.empty()) break;
    }
  }
  struct Beat { LineBytes data; uint64_t strobe; bool last; };
  std::deque<Beat> beats_;

  void ring_beat(uint64_t line, const LineBytes &d, uint64_t strobe) {
    int n = 0;
    for (int l = 0; l < 4; l++) {
      unsigned s = strobe >> (16 * l) & 0xffff;
      if (s == 0) continue;
      n++;
      if (s != 0xffff) fail("a part of a record is written");
      size_t slot = line * 4 + (size_t)l;
      if (slot >= ring_.size()) fail("a record outside the ring");
      luge_card::dma_record r;
      std::memcpy(&r, &d[(size_t)(16 * l)], 16);
      if (ring_written_[slot] != 0 && (int32_t)(head_given_ - ring_written_[slot]) <= 0) fail("a slot is overwritten before it was examined");
      ring_[slot] = r, ring_written_[slot] = r.sequence;
      record_bytes += 16;
    }
    cover.lanes.hit(n);
  }
  uint32_t head_given_ = 1;

  void vmc() {
    for (int n = 0; n < set.vmc_batch; n++) {
      auto &r = ring_[expected_ & (ring_.size() - 1)];
      if (r.sequence != expected_) break;
      luge_card::dma_record mine = r;  // its own copy, before the slot is given back
      expected_++, records++;
      cover.kind.hit(mine.kind);
      take(mine);
    }
    if (head_ != expected_) head_ = expected_, head_given_ = head_, examined_.valid = true, examined_.head = head_;
  }

  void take(const luge_card::dma_record &r) {
    if (r.kind == luge_card::DMA_WRITTEN) {
      int region = -1;
      for (int i = 0; i < REGIONS; i++) if (function_of(i) == r.function) region = i;
      if (region < 0) fail("a record of a function that did not write");
      uint64_t begin = GUEST + 64ull * (unsigned)(region * LINES);
      if (r.address % 64 || (r.last + 1) % 64 || r.address < begin || r.address + r.last + 1 > begin + 64ull * LINES) fail("a record of memory that the function did not write");
      int line = (int)((r.address - begin) / 64), lines = (r.last + 1) / 64;
      cover.length.hit(lines == 1 ? 0 : lines < 64 ? 1 : lines == 64 ? 2 : lines < 1024 ? 3 : 4);
      covers(region, line, lines);
      Expect e{region, line, lines, false, false, 0};
      if (set.at_scheduling) waiting_copies_.push_back({r.sequence, e});
      else copy(e);
    } else if (r.kind == luge_card::DMA_OVERFLOW) {
      markers++;
      announced_ |= r.address;
      for (int i = 0; i < REGIONS; i++)
        if (r.address >> function_of(i) & 1) for (int l = 0; l < LINES; l++) copy_[(size_t)(i * LINES + l)] = memory_[(size_t)(i * LINES + l)];
    } else if (r.kind == luge_card::DMA_SUSPENDED) {
      if (!suspend_) fail("a suspended marker that nobody asked for");
      while (!expect_.empty()) skip();
      saw_suspended_ = true;
    } else if (r.kind == luge_card::DMA_COMPLETED) {
      if (!set.at_scheduling) fail("a completion marker in the mode after completion");
      while (!waiting_copies_.empty() && (int32_t)(waiting_copies_.front().first - (uint32_t)r.address) < 0) copy(waiting_copies_.front().second), waiting_copies_.pop_front();
    } else {
      fail("an unknown kind of record");
    }
  }

  // The first write that has no record: right if it was lost and its function announced, or if the switch was on its way.
  void skip() {
    auto &e = expect_.front();
    if (!e.optional && !e.lost) fail("a write has no record: function " + std::to_string(function_of(e.region)) + " line " + std::to_string(e.line) + " + " + std::to_string(e.beats) + ", before the record with sequence " + std::to_string(expected_ - 1));
    if (!e.optional && !(announced_ >> function_of(e.region) & 1)) fail("a lost write was not announced");
    expect_.pop_front();
  }
  // How many of the expected writes, from the first one on, are exactly [line, line + lines).
  size_t matches(int region, int line, int lines) {
    int at = line;
    size_t n = 0;
    for (; at < line + lines && n < expect_.size() && !expect_[n].lost && expect_[n].region == region && expect_[n].line == at; n++) at += expect_[n].beats;
    return at == line + lines ? n : 0;
  }
  // A record is one or several writes in the order they were made.
  void covers(int region, int line, int lines) {
    size_t n = 0;
    while ((!expect_.empty() && expect_.front().lost) || (n = matches(region, line, lines)) == 0) {
      if (expect_.empty()) fail("a record of what was not written");
      skip();
    }
    announced_ = 0;
    for (auto &f : flying_)
      if (f.serial && f.serial <= expect_[n - 1].serial) { ahead_of_data++; break; }
    expect_.erase(expect_.begin(), expect_.begin() + (long)n);
    if (region * LINES + line == last_record_end_ && (line == 0 || (region * LINES + line) % 1024 == 0)) cover.apart.hit(line != 0);
    last_record_end_ = region * LINES + line + lines;
  }
  bool overflowed_ = false;
  int last_record_end_ = -1;

  void copy(const Expect &e) {
    for (int i = 0; i < e.beats; i++) copy_[(size_t)(e.region * LINES + e.line + i)] = memory_[(size_t)(e.region * LINES + e.line + i)];
  }
  void copy_all_waiting() { if (!waiting_copies_.empty()) fail("records whose completion was never announced"); }

  void compare() {
    for (int r = 0; r < REGIONS; r++) {
      if (!(set.recorded >> r & 1)) continue;
      for (int l = window_first_[r] * 64; l < (window_last_[r] + 1) * 64; l++)
        if (copy_[(size_t)(r * LINES + l)] != memory_[(size_t)(r * LINES + l)])
          fail("the copy differs from memory: function " + std::to_string(function_of(r)) + " line " + std::to_string(l));
    }
  }

  void watch(const In &in, const Out &out) {
    if (have_last_) {  // valid, once high, stays with the same payload until ready
      if (last_.m_axi.awvalid && !last_in_.m_axi.awready && !(out.m_axi.awvalid && out.m_axi.awaddr == last_.m_axi.awaddr && out.m_axi.awlen == last_.m_axi.awlen)) fail("m_axi_aw changes while it waits");
      if (last_.m_axi.wvalid && !last_in_.m_axi.wready) {
        bool same = out.m_axi.wvalid && out.m_axi.wstrb == last_.m_axi.wstrb && out.m_axi.wlast == last_.m_axi.wlast;
        for (int i = 0; i < 64; i++) same = same && out.m_axi.wdata.lane[i] == last_.m_axi.wdata.lane[i];
        if (!same) fail("m_axi_w changes while it waits");
      }
      if (last_.s_axi.bvalid && !last_in_.s_axi.bready && !(out.s_axi.bvalid && out.s_axi.bresp == last_.s_axi.bresp)) fail("s_axi_b changes while it waits");
    }
    last_ = out, last_in_ = in, have_last_ = true;
    if (out.status.holding) {
      held_++;
      if (set.patience && held_ > set.patience + 4) fail("held for longer than the bound");
    } else {
      if (held_) cover.hold.hit(out.status.overflowing);
      if (held_ && out.status.overflowing && !out_.status.overflowing && held_ + 4 < set.patience) fail("overflow before the bound");
      if (held_ > held_longest) held_longest = held_;
      held_ = 0;
    }
    if (out.status.overflow) overflowed_ = true;
    if (out.status.over_watermark) cover.other.hit(Cover::WATERMARK);
    if (out.status.bad_head && !gave_bad_head) fail("bad_head, but the head was right");
    if (out.status.bad_head) cover.other.hit(Cover::BAD_HEAD);
    if (out.status.bad_ring) cover.other.hit(Cover::BAD_RING);
  }
};
}  // namespace bench
