// dma_writer: stream -> memory. A command {address, length} of any alignment takes ceil(length / 64) words from s_axis (byte 0 of
// the first goes to `address`; bytes behind the last are ignored) and writes them in bursts of up to 64 beats, none across 4 KiB,
// with the bytes outside masked. `done` says how a command went when all its answers are in. REQUIRES: length 1..2^24-1.
//
// Invariants
// - A burst's address is given out only when all its data is in the queue: the memory never waits for data that hangs on
//   something else. Data does not wait for the address to be taken either.
// - Every command takes exactly its words from s_axis and ends, whatever the memory does: after `timeout` cycles without
//   progress, or on `drain`, the writer stops: bursts given out are completed, no new one follows, other words are swallowed and
//   their commands fail. Answers that come late are dropped.
// - It goes on by itself after a drain; after a time-out with `clear`, once the memory owes it nothing.
// Stages: rotate | merge | queue | bursts.
#pragma once
#include "hls/dma_mover/align.h"
#include "hls/lib/axi.h"
#include "hls/lib/fifo.h"
#include "hls/lib/mutant.h"
#include "hls/lib/ram.h"
#include "hls/lib/top.h"

namespace dma_writer {
using namespace dma_mover;
static const int DEPTH = 256;   // beats of queue
static const int BURSTS = 16;   // given out and not answered, at most

struct In {
  struct { bool valid; ap_uint<64> address; ap_uint<24> length; ap_uint<6> function; } command;
  axi::StreamOut s_axis;
  axi::WriteIn m_axi;
  ap_uint<24> timeout;
  bool drain, clear;
  HLS_MUTANT_INPUT
};
struct Out {
  struct { bool ready; } command;
  axi::StreamIn s_axis;
  axi::WriteOut m_axi;
  ap_uint<6> m_axi_awuser;  // the command's `function`
  struct { bool valid; ap_uint<3> fail; } done;
  bool idle, stopped, timed_out, owed, beat, stall;
};
struct Plan { ap_uint<6> offset; ap_uint<19> words; bool extra; ap_uint<6> end; };  // end: of the last beat; 0: all 64
struct Span { ap_uint<58> next; ap_uint<19> beats; ap_uint<6> function; };
struct Answer { bool real, last; };  // of a burst; one that isn't real ends a command that was given up
struct State {
  fifo<Plan, 4> plans;
  fifo<Span, 4> spans;
  // the command whose words are taken
  bool active = false, first = true;
  Plan plan;
  // rotated
  bool v1 = false, first1, last1, extra1;
  axi::Bytes d1;
  ap_uint<6> offset1, end1;
  // merge: the bytes of the word before that did not fit; with `flush` they are a beat of their own
  axi::Bytes carry;
  bool flush = false;
  ap_uint<6> flush_end;
  // merged
  bool v2 = false;
  axi::Bytes d2;
  ap_uint<64> strobes2;
  // queue
  rams<ap_uint<64>, DEPTH, 8> queue;
  ram<ap_uint<64>, DEPTH> strobes;
  ap_uint<8> head = 0, tail = 0;
  ap_uint<9> held = 0;       // beats in the queue
  ap_uint<9> promised = 0;   // of them, beats of bursts given out
  bool fetched = false;
  // bursts
  bool spanning = false;
  Span span;
  bool aw_valid = false;
  ap_uint<64> aw_address;
  ap_uint<8> aw_length;
  ap_uint<6> aw_function;
  fifo<ap_uint<7>, BURSTS> bursts;  // beats of those whose data is still to leave
  ap_uint<7> sent = 0;
  bool w_valid = false, w_last;
  axi::Words w_data;
  ap_uint<64> w_strobes;
  // answers
  fifo<Answer, BURSTS * 2> answers;
  ap_uint<6> owed = 0;
  ap_uint<3> fail = 0;
  bool done_valid = false;
  ap_uint<3> done_fail;
  // stop
  bool stopped = false, timed_out = false, clear_wanted = false;
  ap_uint<24> waited = 0;
};

static inline void step(State &s, const In &in, Out &out) {
  out.m_axi.awvalid = s.aw_valid, out.m_axi.awaddr = s.aw_address, out.m_axi.awlen = s.aw_length, out.m_axi_awuser = s.aw_function;
  out.m_axi.wvalid = s.w_valid, out.m_axi.wdata = axi::to_bytes(s.w_data), out.m_axi.wstrb = s.w_strobes, out.m_axi.wlast = s.w_last;
  out.m_axi.bready = true;
  out.done.valid = s.done_valid, out.done.fail = s.done_fail;
  out.stopped = s.stopped, out.timed_out = s.timed_out, out.owed = s.owed != 0;
  bool empty = s.plans.empty() && s.spans.empty() && !s.active && !s.spanning && !s.v1 && !s.v2 && !s.flush && s.held == 0 && !s.fetched && s.answers.empty();
  bool quiet = empty && !s.aw_valid && !s.w_valid && s.owed == 0;
  out.idle = quiet;
  bool aw_taken = s.aw_valid && in.m_axi.awready, w_taken = s.w_valid && in.m_axi.wready;
  out.beat = w_taken, out.stall = s.w_valid && !in.m_axi.wready;

  // Answers: an answer ends its burst; what isn't real, or is given up after a time-out, ends at once.
  bool answered = in.m_axi.bvalid && s.owed != 0;
  Answer a = s.answers.front();
  bool pop = !s.answers.empty() && (!a.real || answered || s.timed_out);
  s.done_valid = pop && (MUTANT(1) || a.last);
  ap_uint<3> why = !a.real || s.timed_out ? ap_uint<3>(s.timed_out ? FAIL_TIMEOUT : FAIL_DRAINED)
                   : in.m_axi.bresp == axi::SLVERR && !MUTANT(2) ? ap_uint<3>(FAIL_ERROR) : in.m_axi.bresp == axi::DECERR && !MUTANT(3) ? ap_uint<3>(FAIL_DECODE) : ap_uint<3>(FAIL_NONE);
  ap_uint<3> fail = s.fail == 0 && pop ? why : s.fail;
  s.done_fail = fail;
  if (pop) s.answers.take();
  s.fail = pop && a.last && !MUTANT(4) ? ap_uint<3>(0) : fail;

  // Data of bursts given out.
  bool w_free = !s.w_valid || in.m_axi.wready || MUTANT(5);
  bool send = s.fetched && w_free && !s.bursts.empty() && !(MUTANT(24) && s.aw_valid);
  if (send) {
    for (int i = 0; i < 8; i++) s.w_data.lane[i] = s.queue[i].q;
    s.w_strobes = MUTANT(6) ? ap_uint<64>(~ap_uint<64>(0)) : s.strobes.q;
    bool last = ap_uint<7>(s.sent + 1) == s.bursts.front();
    s.w_last = MUTANT(7) ? s.sent == 63 : last;
    s.sent = last ? ap_uint<7>(0) : ap_uint<7>(s.sent + 1);
    if (last) s.bursts.take();
  }
  s.w_valid = send || (s.w_valid && !in.m_axi.wready);
  bool fetch = s.promised != 0 && (!s.fetched || send);
  if (fetch) {
    for (int i = 0; i < 8; i++) s.queue[i].read(s.head);
    s.strobes.read(s.head);
    s.head = s.head + 1;
  }
  s.fetched = fetch || (s.fetched && !send);
  if (fetch) s.promised = s.promised - 1, s.held = s.held - 1;

  // Bursts.
  ap_uint<7> n = MUTANT(8) ? (s.span.beats < 64 ? ap_uint<7>(s.span.beats) : ap_uint<7>(64)) : axi::burst_beats((s.span.next, ap_uint<6>(0)), s.span.beats);
  bool complete = ap_uint<9>(s.held - s.promised) >= n || (MUTANT(9) && s.held != s.promised);
  bool issue = s.spanning && !s.stopped && complete && (!s.aw_valid || in.m_axi.awready) && !s.bursts.full() && s.owed < BURSTS;
  bool give_up = s.spanning && s.stopped && !s.answers.full();
  if (aw_taken || MUTANT(10)) s.aw_valid = false;
  bool span_ends = (issue && s.span.beats == n) || give_up;
  if (issue) {
    s.aw_valid = true, s.aw_address = (s.span.next, ap_uint<6>(0)), s.aw_length = MUTANT(11) ? n : ap_uint<7>(n - 1);
    s.aw_function = MUTANT(25) ? ap_uint<6>(0) : s.span.function;
    s.bursts.put(n);
    s.promised = s.promised + n;
  }
  if (issue || give_up) {
    Answer x;
    x.real = issue, x.last = span_ends;
    s.answers.put(x);
  }
  if (issue) s.span.next = MUTANT(12) ? ap_uint<58>(s.span.next + 64) : axi::next_burst(s.span.next), s.span.beats = s.span.beats - n;
  s.owed = s.owed + (issue ? 1 : 0) - (answered ? 1 : 0);
  if (span_ends || !s.spanning) {
    s.spanning = !s.spans.empty();
    if (!s.spans.empty()) { s.span = s.spans.front(); s.spans.take(); }
  }
  // What is not promised is given up with its command.
  if (s.stopped) s.tail = s.head + s.promised, s.held = s.promised;

  // Into the queue.
  bool room = s.held < DEPTH - 2;
  bool push = s.v2 && (room || s.stopped || MUTANT(13));
  if (push && !s.stopped) {
    axi::Words w = axi::to_words(s.d2);
    for (int i = 0; i < 8; i++) s.queue[i].write(s.tail, w.lane[i]);
    s.strobes.write(s.tail, s.strobes2);
    s.tail = s.tail + 1, s.held = s.held + 1;
  }

  // Merge.
  bool free2 = !s.v2 || push;
  bool take1 = free2 && s.v1 && !s.flush;
  if (free2) {
    s.v2 = s.flush || s.v1;
    ap_uint<64> old = low_bits(s.offset1);  // lanes that come from the word before
    bool first = s.first1 && !s.flush;
    for (int i = 0; i < 64; i++) s.d2.lane[i] = pick(s.flush || old[i], s.carry.lane[i], s.d1.lane[i]);
    bool last = s.flush || (s.last1 && !s.extra1);
    ap_uint<6> end = s.flush ? s.flush_end : s.end1;
    ap_uint<64> strobes = ~ap_uint<64>(0);
    if (first && !MUTANT(14)) strobes = strobes & ~old;
    if (last && end != 0 && !MUTANT(15)) strobes = strobes & low_bits(end);
    s.strobes2 = strobes;
    bool flushed = s.flush;
    if (take1) s.carry = s.d1, s.flush_end = s.end1;
    s.flush = !flushed && s.v1 && s.last1 && s.extra1 && !MUTANT(16);
  }

  // Rotate.
  bool free1 = !s.v1 || take1;
  out.s_axis.tready = s.active && free1;
  bool taken = s.active && free1 && in.s_axis.tvalid;
  bool ended = taken && s.plan.words == 1;
  if (free1) {
    s.v1 = taken;
    ap_uint<6> turn = MUTANT(17) ? ap_uint<6>(s.plan.offset & 31) : s.plan.offset;
    s.d1 = rotate_up(in.s_axis.tdata, turn);
    s.first1 = s.first, s.last1 = s.plan.words == 1, s.extra1 = s.plan.extra, s.offset1 = s.plan.offset, s.end1 = s.plan.end;
  }
  if (taken) s.first = ended, s.plan.words = s.plan.words - 1;
  if (ended || !s.active) {
    s.active = !s.plans.empty();
    if (!s.plans.empty()) { s.plan = s.plans.front(); s.plans.take(); }
  }

  // Stop and go on.
  bool leave = s.stopped && (quiet || MUTANT(18)) && !in.drain && (!s.timed_out || s.clear_wanted || MUTANT(19));
  bool waiting = s.owed != 0 || s.aw_valid || s.w_valid;
  if (!waiting || answered || aw_taken || w_taken) s.waited = 0;
  else s.waited = s.waited + 1;
  bool late = waiting && s.waited >= in.timeout && !MUTANT(20);
  if (in.clear && s.stopped) s.clear_wanted = true;
  if (late) s.timed_out = true;
  if (late || (in.drain && !MUTANT(21))) s.stopped = true;
  if (leave) s.stopped = s.timed_out = s.clear_wanted = false;

  // Commands.
  out.command.ready = !s.plans.full() && !s.spans.full() && !leave;
  if (out.command.ready && in.command.valid) {
    ap_uint<6> offset = in.command.address;
    ap_uint<25> reach = ap_uint<25>(in.command.length) + (MUTANT(22) ? ap_uint<6>(0) : offset);
    Plan p;
    p.offset = offset, p.words = words_of(in.command.length), p.extra = words_of(reach) != words_of(in.command.length), p.end = reach;
    s.plans.put(p);
    Span x;
    x.next = in.command.address >> 6, x.beats = words_of(reach), x.function = in.command.function;
    if (MUTANT(23)) x.beats = p.words;
    s.spans.put(x);
  }
}
}  // namespace dma_writer
