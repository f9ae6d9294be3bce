// dma_write_log: stands on the write path to host memory (s_axi in, m_axi out, both 64-byte beats) and leaves, behind the data and on
// the same path, records of what was written in a ring that the host reads (format: record.h). One write accepted a cycle.
//
// Invariants
// - A write that is to be recorded passes the gate only with a slot for its record in hand (`pool`), or as part of the record that
//   is open, or, after the bounded wait, as lost: its function's bit in `dirty` is set and an overflow marker follows.
// - Record after data: a record leaves when the responses of all writes it covers have come (unless at_scheduling).
// - Slots in hand, open, queued, in lines, in memory and not examined never exceed the ring: `promised` follows `limit` = head + size.
// - Responses come in order (one ID); `order` and `answers` remember which bursts are ours.
//
// Way of a write: entry -> 1 table read -> 2 window compared by parts -> 3 logged or not -> 4 gate -> m_axi. The stages advance
// together. Way of a record: open -> formed -> queue -> line of four -> m_axi. Head and tail are computed by a bit-serial unit in 36 cycles.
//
// Configuration (ring, at_scheduling) must be stable while control.enable is high. `examined` gives a new head: the sequence number of
// the first slot not examined; outside [head, tail] it is ignored and raises bad_head. `load` writes a function's window (pages,
// inclusive); `settled` says that every write looked up before has completed. `clear` takes bits from `dirty` and clears the sticky
// flags; it is ignored while losses are not announced in the ring (overflowing).
#pragma once
#include "hls/lib/ap_int.h"
#include "hls/lib/axi.h"
#include "hls/lib/channel.h"
#include "hls/lib/lut.h"
#include "hls/lib/mutant.h"
#include "hls/lib/ram.h"
#include "hls/lib/top.h"

namespace dma_write_log {
using lut::counted;
using lut::less9;
using lut::plus1;
using lut::same;
static const int FUNCTIONS = 64;
static const int FLYING = 64;   // bursts without a response
static const int QUEUE = 64;    // records that wait for responses
static const int ORDER = 4;     // bursts whose data has not passed yet
// An open record closes after 512 idle cycles (bursts of 64 beats must not close it); a part of a line waits 128 cycles for more.
static const int KIND_WRITTEN = 0, KIND_OVERFLOW = 1, KIND_SUSPENDED = 2, KIND_COMPLETED = 3;

struct In {
  axi::WriteOut s_axi;
  ap_uint<6> s_axi_awuser;  // function
  axi::WriteIn m_axi;
  struct { bool enable, suspend, at_scheduling; } control;
  struct {
    ap_uint<64> base;
    ap_uint<5> log2_slots;
    ap_uint<21> watermark;  // records not examined that raise `over_watermark`; 0: never
    ap_uint<24> patience;   // cycles a write is held when the ring is full, before overflow; 0: without limit
  } ring;
  struct { bool valid; ap_uint<32> head; } examined;
  struct { bool valid; ap_uint<6> function; bool record; ap_uint<52> first_page, last_page; } load;
  struct { bool valid; ap_uint<64> functions; } clear;
  HLS_MUTANT_INPUT
};
struct Out {
  axi::WriteIn s_axi;
  axi::WriteOut m_axi;
  struct {
    bool ready;        // loads are taken
    bool recording;    // enabled and the ring is sound
    bool ring_busy;    // a record may still come: after switching off, the ring's memory is the reader's when this falls
    bool settled, suspended, holding, overflow, overflowing, over_watermark;
    bool bad_ring, bad_head, record_error;
    ap_uint<32> tail;  // sequence of the next record to leave; a reader goes by the sequence in the slot
  } status;
  ap_uint<64> dirty;   // functions with lost records
  struct { bool write, record, lost; } event;  // pulses for counters
};

struct Write { ap_uint<58> line; ap_uint<6> last; ap_uint<6> function; };
struct Request { ap_uint<58> line; ap_uint<6> last; };
struct Beat { axi::Bytes data; ap_uint<64> strobe; bool last; };
struct Lane { ap_uint<64> address; ap_uint<10> size; ap_uint<6> function; ap_uint<2> kind; };
struct Line { bool valid[4]; Lane lane[4]; ap_uint<32> sequence; };
struct Parts { bool less[7], equal[7]; };  // a comparison of pages, 8 bits a part

struct State {
  // gate and its way in
  channel<Write> entry;
  bool v1 = false, v2 = false, v3 = false, v4 = false;
  bool fence_new = false, fence1 = false, fence2 = false, fence3 = false, fence4 = false;
  Write w1, w2, w3, w4;
  ram<ap_uint<52>, FUNCTIONS> first_page, last_page;
  ram<bool, FUNCTIONS> recorded;
  ap_uint<7> initialised = 0;
  bool recorded2, logged3, logged4, joins4;
  Parts below, above;
  ap_uint<6> tail2, tail3, tail4;  // last line within its page
  ap_uint<11> end3;
  ap_uint<48> previous_block; ap_uint<11> previous_end; ap_uint<6> previous_function;
  bool previous = false;
  // configuration, registered
  bool enable1 = false, enable2 = false;  // the checks of the ring need two cycles
  bool active = false, stopped = false, ring_ok = false;
  ap_uint<20> mask;
  ap_uint<2> lane_mask;
  // slots
  ap_uint<21> promised = 1, limit = 1;
  ap_uint<4> pool = 0;
  bool pool_some = false;
  // hold and overflow
  bool holding = false, overflow = false, overflowing = false, patience_over = false;
  ap_uint<24> held = 0;
  bool lost_valid = false;
  ap_uint<6> lost_function;
  ap_uint<64> dirty = 0;
  bool all_dirty = false;
  // open record and record being formed
  bool open = false;
  ap_uint<58> open_line; ap_uint<10> open_last; ap_uint<6> open_function; ap_uint<10> open_after;
  ap_uint<10> idle;
  bool f1 = false, f2 = false;
  Lane form1, form2;
  ap_uint<5> first1, last1, size1;
  bool borrow1;
  ap_uint<10> after1, after2;
  bool waits1, waits2;
  ap_uint<32> sequence = 1;
  // markers
  ap_uint<2> marker = 0;
  bool marked = false, marking = false;  // there is one; it is being pushed
  bool marker_now = false, marker_push = false;
  bool marker_sent = false, marker_sent2 = false, marker_sent3 = false;
  bool unannounced = false, snapshot = false, snapshot_done = false;
  ap_uint<32> snapshot_sequence; ap_uint<10> snapshot_after;
  // record queue
  ram<ap_uint<64>, QUEUE> queue_address;
  ram<ap_uint<61>, QUEUE> queue;  // waits, after, kind, function, size, sequence
  ap_uint<6> queue_head = 0, queue_tail = 0;
  ap_uint<7> queued = 0;
  bool queued_some = false;
  bool fetched = false, h = false, h_ready;
  Lane head; ap_uint<32> head_sequence; ap_uint<10> head_after;
  // line and the record on its way out
  Line line, leaving;
  bool line_any = false, line_due = false, leaving_valid = false, press = false;
  bool line_wants = false;  // a full line, and the way out is free
  ap_uint<3> line_count;
  ap_uint<58> line_address;
  ap_uint<8> linger;
  // m_axi
  channel<Request> request;
  Beat beat, spare;
  bool beat_valid = false, spare_valid = false;
  channel<ap_uint<2>> answer;
  bool order[ORDER], ordered[ORDER] = {false, false, false, false};  // ordered: the first so many are in use
  ram<ap_uint<3>, FLYING> answers;
  ap_uint<6> answers_head = 0, answers_tail = 0;
  ap_uint<7> answers_queued = 0, flying = 0;
  bool answer_fetched = false, answer_open = false, answers_some = false;
  ap_uint<10> issued = 0, responded = 0;
  ap_uint<7> lines_flying = 0;
  bool no_line_flying = false, quiet = false;
  bool room = false, gate = false, drained = false, suspended = false;
  bool settling = false; ap_uint<10> settle_after;
  bool record_error = false;
  // head and tail, bit by bit
  ap_uint<6> bit = 0;
  ap_uint<32> given = 1, examined = 1, tail = 1, tail_seen = 1;
  ap_uint<3> dropped = 0;
  ap_uint<4> drip = 0;               // records that have left and are not counted yet
  ap_uint<6> left = 0, adding = 0;
  ap_uint<32> given4, examined4; ap_uint<21> watermark4;  // every fourth bit, the first of them bit `low`
  ap_uint<3> bit_high;
  bool bit_valid1 = false, bit_tail1, bit_size1;
  bool given_changed = false, bit_valid = false, bit_given = false, bit_examined = false, bit_tail = false, bit_size = false, bit_watermark = false;
  bool carry_tail = false, borrow_fill = false, borrow_old = false, carry_limit = false, not_more = true, at_least = true;
  ap_uint<21> next_limit;
  bool over_watermark = false, bad_head = false, misfit = false;
};

// Whether `count` has reached `mark`; the two are never 512 apart.
static inline bool reached(ap_uint<10> count, ap_uint<10> mark) { return !(count[9] ^ mark[9] ^ less9(count, mark)); }


// a < b and a == b by parts of 8 bits.
static inline void compare(ap_uint<52> a, ap_uint<52> b, Parts &p) {
  for (int i = 0; i < 7; i++) {
    ap_uint<8> x = a >> (8 * i), y = b >> (8 * i);
    p.less[i] = less9(x, y), p.equal[i] = x == y;
  }
}
static inline bool less(const Parts &p) {
  bool l = false;
  for (int i = 0; i < 7; i++) l = p.less[i] || (p.equal[i] && l);
  return l;
}

static inline void record_bytes(const Line &line, ap_uint<2> lane_mask, Beat &b) {
  for (int l = 0; l < 4; l++) {
    const Lane &r = line.lane[l];
    bool written = r.kind == KIND_WRITTEN;
    for (int i = 0; i < 8; i++) b.data.lane[16 * l + i] = r.address >> (8 * i);
    ap_uint<16> last = (r.size, ap_uint<6>(written ? 63 : 0));
    b.data.lane[16 * l + 8] = last, b.data.lane[16 * l + 9] = last >> 8;
    b.data.lane[16 * l + 10] = r.function, b.data.lane[16 * l + 11] = r.kind;
    // Lanes of a line differ in the sequence number's low bits only.
    ap_uint<2> low = (line.sequence.to_uint() & 3 & ~lane_mask.to_uint()) | (l & lane_mask.to_uint());
    ap_uint<32> sequence = (ap_uint<30>(line.sequence >> 2), low);
    for (int i = 0; i < 4; i++) b.data.lane[16 * l + 12 + i] = sequence >> (8 * i);
    for (int i = 0; i < 16; i++) b.strobe[16 * l + i] = line.valid[l];
  }
  b.last = true;
}

// Head, limit and tail, least significant bit first; runs all the time. T + left -> T; given in [examined, T]? limit = given + size.
static inline void serial(State &s, const In &in, ap_uint<3> leaving) {
  bool last = s.bit == 35;
  bool fits = MUTANT(1) ? true : s.not_more, above_watermark = s.at_least;  // no bit is valid in the last cycle
  ap_uint<32> examined = s.examined;
  if (s.bit_valid) {
    bool t = s.bit_tail, c = s.bit_given, o = s.bit_examined, z = s.bit_size, w = s.bit_watermark;
    bool fill = t ^ c ^ s.borrow_fill, old = t ^ o ^ s.borrow_old;
    s.borrow_fill = (!t && c) || (!(t ^ c) && s.borrow_fill);
    s.borrow_old = (!t && o) || (!(t ^ o) && s.borrow_old);
    s.not_more = fill == old ? s.not_more : old;
    s.at_least = fill == w ? s.at_least : fill;
    if (s.bit <= 22) s.next_limit = (ap_uint<1>(c ^ z ^ s.carry_limit), ap_uint<20>(s.next_limit >> 1));
    s.carry_limit = (c && z) || (c && s.carry_limit) || (z && s.carry_limit);
  }
  if (last) {
    s.tail_seen = s.tail;
    if (!s.given_changed && fits) {
      s.examined = s.given, s.limit = s.next_limit;
      s.over_watermark = above_watermark && in.ring.watermark != 0 && !MUTANT(28);
    }
    // Once may be a reader that is quicker than the count of what has left.
    if (!s.given_changed && !fits && s.misfit) s.bad_head = true;
    s.misfit = !s.given_changed && !fits;
    s.borrow_fill = false, s.borrow_old = false, s.carry_limit = false, s.not_more = true, s.at_least = true, s.carry_tail = false;
    s.given_changed = false;
  }
  // Bit n of each number in two steps: by the low bits of n, then by the high ones.
  ap_uint<3> high = s.bit_high;
  ap_uint<5> place = (high, ap_uint<2>(0));
  s.bit_given = ap_uint<1>(s.given4 >> place); s.bit_examined = ap_uint<1>(s.examined4 >> place); s.bit_watermark = ap_uint<1>(s.watermark4 >> place);
  s.bit_tail = s.bit_tail1; s.bit_size = s.bit_size1; s.bit_valid = s.bit_valid1;
  bool work = !s.bit[5];
  ap_uint<2> low = s.bit;
  s.given4 = (s.given >> low) & 0x11111111, s.examined4 = (examined >> low) & 0x11111111, s.watermark4 = (in.ring.watermark >> low) & 0x111111;
  s.bit_high = s.bit >> 2;
  bool t = s.tail[0], a = s.adding[0];
  s.bit_valid1 = work; s.bit_tail1 = t ^ a ^ s.carry_tail; s.bit_size1 = in.ring.log2_slots == ap_uint<5>(s.bit);
  if (work) {
    s.tail = (ap_uint<1>(t ^ a ^ s.carry_tail), ap_uint<31>(s.tail >> 1));
    s.carry_tail = (t && a) || (t && s.carry_tail) || (a && s.carry_tail);
    s.adding = s.adding >> 1;
  }
  if (last) s.adding = s.left;
  bool drips = s.drip != 0;
  s.left = last ? ap_uint<6>(drips) : drips ? plus1(s.left) : s.left;
  s.drip = s.drip + s.dropped - (drips ? 1 : 0);
  s.dropped = leaving;
  s.bit = last ? ap_uint<6>(0) : ap_uint<6>(s.bit + 1);
  if (in.examined.valid) s.given = in.examined.head, s.given_changed = true;
  if (!s.active) {
    s.bit = 0, s.bit_valid = false, s.bit_valid1 = false, s.drip = 0, s.dropped = 0, s.misfit = false, s.given = 1, s.examined = 1, s.tail = 1, s.tail_seen = 1, s.left = 0, s.adding = 0, s.limit = 1;
    s.given_changed = false, s.over_watermark = false, s.bad_head = false;
    s.borrow_fill = false, s.borrow_old = false, s.carry_limit = false, s.not_more = true, s.at_least = true, s.carry_tail = false;
  }
}

static inline void step(State &s, const In &in, Out &out) {
  bool active = s.active;
  bool ready = s.initialised[6];

  // ---- outputs ----
  out.s_axi.awready = s.entry.can_put();
  out.m_axi.awvalid = s.request.can_take();
  out.m_axi.awaddr = (s.request.front().line, ap_uint<6>(0)), out.m_axi.awlen = s.request.front().last;
  out.m_axi.wvalid = s.beat_valid; out.m_axi.wdata = s.beat.data; out.m_axi.wstrb = s.beat.strobe; out.m_axi.wlast = s.beat.last;
  out.s_axi.bvalid = s.answer.can_take(), out.s_axi.bresp = s.answer.front();
  out.status.ready = ready, out.status.recording = active; out.status.ring_busy = active || !s.no_line_flying;
  out.status.settled = MUTANT(12) || (!s.fence_new && !s.fence1 && !s.fence2 && !s.fence3 && !s.fence4 && !s.settling);
  out.status.suspended = s.suspended, out.status.holding = s.holding, out.status.overflow = s.overflow;
  out.status.overflowing = s.overflowing, out.status.over_watermark = s.over_watermark;
  out.status.bad_ring = in.control.enable && !s.ring_ok, out.status.bad_head = s.bad_head, out.status.record_error = s.record_error;
  out.status.tail = s.tail_seen;
  out.dirty = s.dirty;

  // ---- decisions, from registers ----
  bool drained = s.drained, slot = s.pool_some;
  // & and | instead of && and ||: the terms stay as they are grouped here, six at most to a LUT.
  bool can_put = s.request.can_put();
  bool leaves = s.line_wants & s.room & can_put;  // `room` is a cycle old and keeps enough in reserve
  bool needs = s.logged4 & !(s.joins4 & s.open), joins = s.logged4 & s.joins4 & s.open;
  bool may_open = slot & !s.marked & !s.overflowing, may_lose = s.overflowing & !s.marking;
  bool free_way = s.v4 & s.gate & can_put & !s.line_wants;
  bool pass = free_way & (!needs | may_open | may_lose);
  bool opens = free_way & needs & may_open, lost = free_way & needs & may_lose, extends = free_way & joins;
  bool go = !s.v4 | pass;
  bool waiting = s.v4 & needs & !slot & !s.overflowing & !s.stopped;
  bool closes = s.open & (opens | (lost & !MUTANT(4)) | waiting | s.stopped | in.control.at_scheduling | (s.idle[9] & (!extends | MUTANT(3))));
  ap_uint<10> after_this = plus1(s.issued);
  out.event.write = pass, out.event.record = s.f2 && s.form2.kind == KIND_WRITTEN, out.event.lost = lost;

  // ---- limits; `room` stops all writes while suspended, but records go on ----
  s.drained = s.stopped && s.flying == 0 && s.queued == 0 && s.quiet && !s.open && !s.f1 && !s.f2 && !s.fetched && !s.h;
  s.quiet = !s.line_any && !s.leaving_valid && !s.line_due && !s.open && !s.f1 && !s.f2 && !s.fetched && !s.h;
  s.gate = (!in.control.suspend || MUTANT(15)) && !s.ordered[ORDER - 2] && s.flying <= FLYING - 4 && s.queued <= QUEUE - 8;
  s.room = !s.ordered[ORDER - 2] && s.flying <= FLYING - 4 && s.queued <= QUEUE - 8;

  // ---- responses ----
  bool answer_take = s.answer.can_take() && in.s_axi.bready;
  bool b_ready = s.answer_open;
  out.m_axi.bready = b_ready;
  bool b = b_ready && in.m_axi.bvalid;
  bool ours = s.answers.q != 0;
  s.answer.tick(b && !ours, MUTANT(25) ? ap_uint<2>(0) : in.m_axi.bresp, answer_take);
  bool ours_failed = b && ours && in.m_axi.bresp[1];
  bool fetch_answer = s.answers_some && (!s.answer_fetched || b);
  if (fetch_answer) s.answers.read(s.answers_head);
  if (fetch_answer) s.answers_head = s.answers_head + 1;
  s.answer_fetched = fetch_answer || (s.answer_fetched && !b);
  s.answer_open = s.answer_fetched && s.answer.can_put();
  bool issue = pass || leaves;
  if (issue) s.answers.write(s.answers_tail, leaves ? s.line_count : ap_uint<3>(0));
  if (issue) s.answers_tail = s.answers_tail + 1;
  s.answers_some = issue || (fetch_answer ? ap_uint<6>(s.answers_queued >> 1) != 0 : s.answers_some);
  s.answers_queued = counted(s.answers_queued, issue, fetch_answer);
  s.no_line_flying = s.lines_flying == 0 && !leaves && !s.leaving_valid;
  s.lines_flying = counted(s.lines_flying, leaves, b && ours);

  // ---- head, tail, slots ----
  bool refill = active & !s.pool[3] & (!same(s.promised, s.limit) | MUTANT(7));
  bool spends = opens || s.marker_push;
  serial(s, in, leaves ? s.line_count : ap_uint<3>(0));
  s.pool_some = spends ? refill || ap_uint<3>(s.pool >> 1) != 0 : refill || s.pool_some;
  s.pool = counted(s.pool, refill, spends);
  if (refill) s.promised = plus1(s.promised);
  if (!active) s.promised = 1, s.pool = 0, s.pool_some = false;

  // ---- data ----
  bool record_turn = s.ordered[0] && s.order[0], data_turn = s.ordered[0] && !s.order[0];
  // `beat` is the output; `spare` holds the guest's beat that comes while the output is taken. Records wait where they are.
  bool free_beat = !s.beat_valid || in.m_axi.wready;
  out.s_axi.wready = data_turn && !s.spare_valid;
  bool data_beat = data_turn && !s.spare_valid && in.s_axi.wvalid, record_beat = record_turn && !s.spare_valid && free_beat;
  if (free_beat) {
    if (record_turn && !s.spare_valid) record_bytes(s.leaving, s.lane_mask, s.beat);
    else if (s.spare_valid) s.beat = s.spare;
    else s.beat.data = in.s_axi.wdata, s.beat.strobe = in.s_axi.wstrb, s.beat.last = in.s_axi.wlast;
  }
  if (!s.spare_valid || MUTANT(26)) s.spare.data = in.s_axi.wdata, s.spare.strobe = in.s_axi.wstrb, s.spare.last = in.s_axi.wlast;
  s.beat_valid = !free_beat || s.spare_valid || record_beat || data_beat;
  s.spare_valid = !free_beat && (s.spare_valid || data_beat);
  bool turn_over = record_beat || (data_beat && in.s_axi.wlast);
  // A shift register; places behind those in use hold anything.
  bool was[ORDER + 1], used[ORDER + 1];
  for (int i = 0; i < ORDER; i++) was[i] = s.order[i], used[i] = s.ordered[i];
  was[ORDER] = used[ORDER] = false;
  bool is_ours = MUTANT(19) ? leaves && !used[0] : leaves;
  for (int i = 0; i < ORDER; i++) {
    bool shifted = used[i] && !used[i + 1] ? is_ours : was[i + 1], kept = used[i] ? was[i] : is_ours;
    s.order[i] = turn_over ? shifted : kept;
    s.ordered[i] = turn_over ? (issue ? used[i] : used[i + 1]) : used[i] || (issue && (i == 0 || used[i - 1]));
  }
  if (record_beat) s.leaving_valid = false;

  // ---- requests ----
  Request request;
  request.line = leaves ? s.line_address : s.w4.line, request.last = leaves ? ap_uint<6>(0) : s.w4.last;
  s.request.tick(issue, request, s.request.can_take() && in.m_axi.awready);

  // ---- line of records ----
  bool put = s.h && s.h_ready && !s.line_due, any = s.line_any;
  ap_uint<2> lane = s.head_sequence.to_uint() & s.lane_mask.to_uint();
  if (leaves) {
    s.leaving = s.line, s.leaving_valid = true, s.line_due = false, s.line_any = false;
  }
  bool lingered = s.linger[7];
  s.linger = any && !put ? plus1(s.linger) : ap_uint<8>(0);
  if (any && !put && !leaves && (lingered || s.press)) s.line_due = true;
  if (put) {
    for (int l = 0; l < 4; l++) {
      s.line.valid[l] = lane == l || (s.line.valid[l] && (any || MUTANT(27)));
      if (lane == l) s.line.lane[l] = s.head;
    }
    s.line.sequence = s.head_sequence;
    s.line_any = true;
    ap_uint<18> offset = ap_uint<18>(s.head_sequence >> 2) & ap_uint<18>(MUTANT(18) ? 0x3ffff : (s.mask >> 2).to_uint());
    s.line_address = ap_uint<58>(in.ring.base >> 6) | offset;
    s.line_count = any ? ap_uint<3>(s.line_count + 1) : ap_uint<3>(1);
    if (lane == s.lane_mask) s.line_due = true;
  }
  s.line_wants = s.line_due && !s.leaving_valid;
  s.press = in.control.at_scheduling || s.holding || s.stopped || in.ring.log2_slots < 4 || s.marked;

  // ---- record queue: a part `h` before the line knows whether the responses have come ----
  bool h_move = s.fetched && (!s.h || put);
  ap_uint<61> q = s.queue.q;
  ap_uint<10> q_after = q >> 50;
  if (h_move) {
    s.head.address = s.queue_address.q, s.head_sequence = q, s.head.size = q >> 32, s.head.function = q >> 42, s.head.kind = q >> 48;
    s.head_after = q_after;
    s.h_ready = !q[60] | reached(s.responded, q_after);
  } else if (reached(s.responded, s.head_after)) {
    s.h_ready = true;
  }
  s.h = h_move || (s.h && !put);
  bool fetch = s.queued_some && (!s.fetched || h_move);
  if (fetch) s.queue.read(s.queue_head), s.queue_address.read(s.queue_head);
  if (fetch) s.queue_head = s.queue_head + 1;
  s.fetched = fetch || (s.fetched && !h_move);
  if (s.f2) {
    s.queue.write(s.queue_tail, (ap_uint<1>(s.waits2), (s.after2, (s.form2.kind, (s.form2.function, (s.form2.size, s.sequence))))));
    s.queue_address.write(s.queue_tail, s.form2.address);
    s.queue_tail = s.queue_tail + 1;
  }
  s.queued_some = s.f2 || (fetch ? ap_uint<6>(s.queued >> 1) != 0 : s.queued_some);
  s.queued = counted(s.queued, s.f2, fetch);
  bool numbered = s.f2;
  ap_uint<2> numbered_kind = s.form2.kind;
  bool snapshot_ready = s.snapshot && s.snapshot_done, unannounced = s.unannounced || s.snapshot;

  // ---- forming a record ----
  bool forms = s.f1 || s.f2 || s.open;
  s.f2 = s.f1; s.form2 = s.form1; s.after2 = s.after1; s.waits2 = s.waits1;
  s.form2.size = (ap_uint<5>(s.last1 - s.first1 - (s.borrow1 ? 1 : 0)), s.size1);  // lines - 1, in two steps
  ap_uint<6> low = ap_uint<6>(ap_uint<5>(s.open_last)) - ap_uint<5>(s.open_line);
  s.f1 = closes || s.marker_push;
  s.form1.address = (s.open_line, ap_uint<6>(0)); s.form1.kind = KIND_WRITTEN; s.form1.function = s.open_function;
  s.first1 = s.open_line >> 5; s.last1 = s.open_last >> 5; s.size1 = low; s.borrow1 = low[5] && !MUTANT(23); s.after1 = s.open_after;
  s.waits1 = (!in.control.at_scheduling || MUTANT(29)) && !MUTANT(2);
  if (s.marker_push) {
    s.form1.address = s.marker == KIND_OVERFLOW ? s.dirty : s.marker == KIND_COMPLETED ? ap_uint<64>(s.snapshot_sequence) : ap_uint<64>(0);
    s.form1.kind = s.marker; s.form1.function = 0;
    s.first1 = 0; s.last1 = 0; s.size1 = 0; s.borrow1 = false; s.after1 = s.issued; s.waits1 = s.marker != KIND_COMPLETED && !MUTANT(16);
  }
  s.idle = opens || extends ? ap_uint<10>(0) : plus1(s.idle);
  s.open = opens || (s.open && !closes);
  if (opens) {
    s.open_line = s.w4.line;
    s.open_function = s.w4.function;
  }
  if (opens || extends) {
    s.open_last = (ap_uint<4>(s.w4.line >> 6), s.tail4);
    s.open_after = MUTANT(24) ? s.issued : after_this;
  }

  // ---- snapshot for the completion marker ----
  bool take_snapshot = !s.snapshot && !s.marker_push && s.unannounced && !forms;
  if (take_snapshot) {
    s.snapshot_sequence = s.sequence;
    s.snapshot_after = s.issued;
  }
  s.snapshot_done = !take_snapshot && s.snapshot && (s.snapshot_done || MUTANT(20) || reached(s.responded, s.snapshot_after));
  if (s.marker_push && s.marker == KIND_COMPLETED) s.snapshot = false, s.snapshot_done = false;
  if (take_snapshot) s.snapshot = true, s.unannounced = false;
  if (numbered && numbered_kind == KIND_WRITTEN && in.control.at_scheduling) s.unannounced = true;
  if (numbered && !(MUTANT(21) && numbered_kind != KIND_WRITTEN)) s.sequence = plus1(s.sequence);

  // ---- markers: two cycles in which nothing is lost, so that the bitmap is complete; then the push ----
  bool last_marker = s.stopped && drained && !s.marker_sent && !s.overflowing && !unannounced;
  bool push = s.marker_push, push_overflow = push && (s.marker == KIND_OVERFLOW || MUTANT(5));
  s.suspended = s.stopped && drained && (s.marker_sent3 || !active);
  s.marker_sent3 = s.marker_sent2; s.marker_sent2 = s.marker_sent;
  if (push && s.marker == KIND_SUSPENDED) s.marker_sent = true;
  bool now = s.marked && slot && !forms && !s.marking;
  s.marker_push = s.marker_now;
  s.marking = now || s.marker_now;
  s.marker_now = now;
  if (push) s.marker = 0;
  else if (!s.marked && active) s.marker = s.overflowing ? KIND_OVERFLOW : snapshot_ready ? KIND_COMPLETED : last_marker ? KIND_SUSPENDED : 0;
  s.marked = s.marker != 0;

  // ---- hold, overflow, bitmap ----
  bool clear = in.clear.valid && (!s.overflowing || MUTANT(14)) && !s.lost_valid && !s.all_dirty;
  ap_uint<64> forget = clear ? ap_uint<64>(in.clear.functions) : ap_uint<64>(0), marks = s.all_dirty ? ~ap_uint<64>(0) : ap_uint<64>(0);
  s.dirty = (s.dirty & ~forget) | marks | (ap_uint<64>(s.lost_valid ? 1 : 0) << s.lost_function);
  s.lost_valid = lost && !MUTANT(13), s.lost_function = s.w4.function;
  s.overflow = s.patience_over || s.all_dirty || (s.overflow && !clear);
  s.record_error = s.all_dirty || (s.record_error && !clear);
  s.overflowing = active && (s.patience_over || s.all_dirty || (s.overflowing && !push_overflow));
  s.patience_over = s.holding && waiting && same(s.held, MUTANT(22) ? ap_uint<24>(in.ring.patience >> 1) : in.ring.patience) && in.ring.patience != 0;
  s.held = waiting ? plus1(s.held) : ap_uint<24>(0);
  s.holding = waiting;
  s.all_dirty = ours_failed && active && !MUTANT(17);

  // ---- gate and lookup ----
  if (s.fence4 && go) s.settling = true, s.settle_after = pass ? after_this : s.issued;
  else if (reached(s.responded, s.settle_after)) s.settling = false;
  bool enters = s.entry.can_take() && go;
  bool stays_active = active && in.control.enable && s.ring_ok;
  s.logged4 = (go ? s.logged3 : s.logged4) && (stays_active || MUTANT(6));  // a write that waits passes when recording ends
  if (go) {
    s.v4 = s.v3, s.w4 = s.w3, s.tail4 = s.tail3;
    bool same_block = same(ap_uint<48>(s.w3.line >> 10), s.previous_block) || MUTANT(9);
    bool contiguous = same(ap_uint<10>(s.w3.line), ap_uint<10>(s.previous_end)) && (!s.previous_end[10] || MUTANT(9));
    s.joins4 = s.previous && s.logged3 && same_block && contiguous && (same(s.w3.function, s.previous_function) || MUTANT(8)) && !in.control.at_scheduling;
    if (s.v3 && s.logged3) {
      s.previous = true;
      s.previous_block = s.w3.line >> 10, s.previous_end = s.end3, s.previous_function = s.w3.function;
    }
    s.v3 = s.v2, s.w3 = s.w2;
    s.logged3 = s.v2 && (s.recorded2 || MUTANT(30)) && active && (!less(s.below) || MUTANT(10)) && (!less(s.above) || MUTANT(11));
    s.tail3 = s.tail2;
    s.end3 = plus1(ap_uint<11>((ap_uint<4>(s.w2.line >> 6), s.tail2)));
    ap_uint<52> page = s.w1.line >> 6;
    if (s.v1) compare(page, s.first_page.q, s.below), compare(s.last_page.q, page, s.above);
    s.recorded2 = s.recorded.q;
    s.v2 = s.v1, s.w2 = s.w1;
    s.tail2 = ap_uint<6>(s.w1.line) + s.w1.last;
    s.v1 = s.entry.can_take(), s.w1 = s.entry.front();
    s.first_page.read(s.entry.front().function), s.last_page.read(s.entry.front().function), s.recorded.read(s.entry.front().function);
    s.fence4 = s.fence3, s.fence3 = s.fence2, s.fence2 = s.fence1, s.fence1 = s.fence_new, s.fence_new = false;
  }
  if (!active) s.previous = false;
  Write arriving;
  arriving.line = in.s_axi.awaddr >> 6, arriving.last = in.s_axi.awlen, arriving.function = in.s_axi_awuser;
  s.entry.tick(in.s_axi.awvalid && s.entry.can_put(), arriving, enters);

  // ---- table ----
  bool loads = in.load.valid && ready;
  if (loads) s.first_page.write(in.load.function, in.load.first_page), s.last_page.write(in.load.function, in.load.last_page);
  if (loads || !ready) s.recorded.write(ready ? in.load.function : ap_uint<6>(s.initialised), loads && in.load.record);
  if (!ready) s.initialised = s.initialised + 1;
  if (loads) s.fence_new = true;

  // ---- state of the whole ----
  s.flying = counted(s.flying, issue, b);
  if (issue) s.issued = after_this;
  if (b) s.responded = plus1(s.responded);
  if (!s.stopped) s.marker_sent = false, s.marker_sent2 = false, s.marker_sent3 = false;
  s.stopped = in.control.suspend;

  bool starts = s.enable2 && s.ring_ok && ready && s.no_line_flying && !s.leaving_valid;
  if (!active) {
    s.open = false, s.f1 = false, s.f2 = false, s.h = false, s.fetched = false, s.queued = 0, s.queued_some = false, s.queue_head = 0, s.queue_tail = 0;
    s.line_any = false, s.line_due = false, s.line_wants = false, s.sequence = 1, s.marker = 0, s.marked = false, s.marking = false, s.marker_now = false, s.marker_push = false;
    s.unannounced = false, s.snapshot = false;
    if (starts) s.fence_new = true;
  }
  s.active = in.control.enable && s.ring_ok && (active || starts);
  s.enable2 = s.enable1 && in.control.enable, s.enable1 = in.control.enable;
  ap_uint<64> base = in.ring.base;
  s.ring_ok = (ap_uint<18>(base >> 6) & ap_uint<18>(s.mask >> 2)) == 0 && ap_uint<6>(base) == 0 && in.ring.log2_slots <= 20;
  s.mask = ~(~ap_uint<32>(0) << in.ring.log2_slots);
  s.lane_mask = (ap_uint<1>(in.ring.log2_slots > 1), ap_uint<1>(in.ring.log2_slots > 0));
}
}  // namespace dma_write_log
