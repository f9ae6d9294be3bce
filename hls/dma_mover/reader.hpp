// dma_reader: memory -> stream. A command {address, length} of any alignment becomes bursts of up to 64 beats, none across
// 4 KiB, and ceil(length / 64) words on m_axis: byte 0 of the first word is the byte at `address`, bytes behind the last are 0,
// tlast ends the command. `done` says, with the last word, how the command went. REQUIRES: length 1..2^24-1.
//
// Invariants
// - A burst is asked for only when the queue has room for all of it (`reserved`), so rready is always high: the memory is never
//   held up by what is behind the reader.
// - Every command delivers exactly its words, whatever the memory does: an error response fails the command and its data flows on;
//   after `timeout` cycles without an answer, or on `drain`, the reader stops: no new bursts, what can't arrive is made up of
//   zeros, commands fail. Data that comes late is dropped. Nothing behind the reader can hang on it.
// - It goes on by itself after a drain; after a time-out with `clear`, once the memory owes it nothing.
// - A burst of the wrong number of beats leaves unknown what later data belongs to: the reader stays stopped until reset.
// Stages: bursts | queue | rotate | merge and output.
#pragma once
#include "hls/dma_mover/align.h"
#include "hls/lib/axi.h"
#include "hls/lib/fifo.h"
#include "hls/lib/mutant.h"
#include "hls/lib/ram.h"
#include "hls/lib/top.h"

namespace dma_reader {
using namespace dma_mover;
static const int DEPTH = 512;   // words of queue: eight full bursts outstanding
static const int BURSTS = 16;   // outstanding at most
static const int PLANS = 8;     // commands accepted and not yet delivered

struct In {
  struct { bool valid; ap_uint<64> address; ap_uint<24> length; } command;
  axi::ReadIn m_axi;
  axi::StreamIn m_axis;
  ap_uint<24> timeout;
  bool drain, clear;
  HLS_MUTANT_INPUT
};
struct Out {
  struct { bool ready; } command;
  axi::ReadOut m_axi;
  axi::StreamOut m_axis;
  struct { bool valid; ap_uint<3> fail; } done;
  bool idle, stopped, timed_out, owed, beat, stall;
};
struct Plan { ap_uint<6> offset; ap_uint<19> beats; bool extra; ap_uint<6> tail; };  // extra: one beat more than words
struct State {
  // bursts
  bool splitting = false;
  ap_uint<58> next;       // address / 64
  ap_uint<19> left;       // beats
  bool ar_valid = false;
  ap_uint<64> ar_address;
  ap_uint<8> ar_length;
  fifo<ap_uint<7>, BURSTS> bursts;  // beats of each burst that is outstanding
  ap_uint<7> arrived = 0;           // beats of the first of them
  ap_uint<10> inflight = 0;         // beats asked for and not here
  ap_uint<10> reserved = 0;         // beats asked for or in the queue
  fifo<Plan, PLANS> plans;
  // stop
  bool stopped = false, timed_out = false, clear_wanted = false, broken = false;
  ap_uint<24> waited = 0;
  // queue
  rams<ap_uint<64>, DEPTH, 8> queue;
  ram<ap_uint<3>, DEPTH> fails;
  ap_uint<9> head = 0, tail = 0;
  ap_uint<10> queued = 0;
  bool fetched = false;
  // the command whose beats leave the queue
  bool active = false, first = true;
  Plan plan;
  // rotated
  bool v1 = false, first1, last1, extra1;
  axi::Bytes d1;
  ap_uint<3> fail1;
  ap_uint<6> offset1, tail1;
  // merged: `held` waits for the bytes of the next beat, or, with `flush`, is a command's last word
  axi::Bytes held;
  ap_uint<6> held_tail;
  bool flush = false;
  ap_uint<3> fail = 0;
  bool out_valid = false, out_last;
  axi::Bytes out_data;
  bool done_valid = false;
  ap_uint<3> done_fail;
};

static inline axi::Bytes mask_tail(const axi::Bytes &x, ap_uint<6> tail) {  // tail 0: all 64
  axi::Bytes r;
  for (int i = 0; i < 64; i++) r.lane[i] = x.lane[i] & (tail == 0 || tail > i ? 0xff : 0);
  return r;
}

static inline void step(State &s, const In &in, Out &out) {
  out.m_axi.arvalid = s.ar_valid, out.m_axi.araddr = s.ar_address, out.m_axi.arlen = s.ar_length;
  out.m_axi.rready = MUTANT(6) ? in.m_axis.tready : true;
  out.m_axis.tvalid = s.out_valid, out.m_axis.tdata = s.out_data, out.m_axis.tlast = s.out_last;
  out.done.valid = s.done_valid, out.done.fail = s.done_fail;
  out.stopped = s.stopped, out.timed_out = s.timed_out, out.owed = s.inflight != 0 || s.broken;
  bool empty = s.plans.empty() && !s.active && s.queued == 0 && !s.fetched && !s.splitting;
  out.idle = empty && !s.v1 && !s.flush && !s.out_valid && s.inflight == 0 && !s.ar_valid;
  bool waiting = s.inflight != 0;
  out.stall = waiting && !in.m_axi.rvalid;

  // Merge and output.
  bool go = MUTANT(21) || !s.out_valid || in.m_axis.tready;
  bool gives = s.flush || (s.v1 && !s.first1);  // a word leaves `held`
  bool ends = s.flush || (s.v1 && s.last1 && s.extra1 && !s.first1);
  bool take1 = go && s.v1;
  s.done_valid = false;
  if (go) {
    s.out_valid = gives && !(MUTANT(22) && s.flush && s.v1);
    axi::Bytes word = s.held;
    ap_uint<6> tail = s.flush ? s.held_tail : s.tail1;
    if (!s.flush) {
      ap_uint<64> own = low_bits(ap_uint<7>(64 - s.offset1.to_uint() + (MUTANT(12) ? 1 : 0)));
      for (int i = 0; i < 64; i++) word.lane[i] = pick(own[i], s.held.lane[i], s.d1.lane[i]);
    }
    s.out_data = ends && !MUTANT(9) && !(MUTANT(10) && s.flush) ? mask_tail(word, tail) : word;
    s.out_last = MUTANT(16) ? ends && !(s.v1 && s.first1) : ends;
    ap_uint<3> fail = s.fail;
    if (fail == 0 && s.v1 && !s.flush) fail = s.fail1;
    if (gives) s.done_valid = ends, s.done_fail = fail;
    if (gives && ends) fail = MUTANT(17) ? fail : ap_uint<3>(0);
    if (s.v1 && s.flush && fail == 0) fail = s.fail1;
    s.fail = fail;
    if (s.v1) s.held = s.d1, s.held_tail = s.tail1;
    s.flush = s.v1 && s.last1 && !(s.extra1 && !s.first1);
  }

  // Rotate.
  bool room1 = !s.v1 || take1;
  bool made_up = s.stopped && !s.fetched && s.queued == 0 && (s.timed_out || s.inflight == 0);
  bool beat = s.active && room1 && (s.fetched || made_up);
  if (room1) {
    s.v1 = beat;
    axi::Words w;
    for (int i = 0; i < 8; i++) w.lane[i] = s.fetched ? s.queue[i].q : ap_uint<64>(0);
    ap_uint<6> turn = MUTANT(11) ? ap_uint<6>(s.plan.offset & 31) : s.plan.offset;
    s.d1 = rotate_down(axi::to_bytes(w), turn);
    ap_uint<3> why = s.timed_out ? FAIL_TIMEOUT : FAIL_DRAINED;
    s.fail1 = s.fetched ? s.fails.q : MUTANT(23) ? ap_uint<3>(0) : why;
    s.first1 = s.first, s.last1 = s.plan.beats == 1, s.extra1 = s.plan.extra, s.offset1 = s.plan.offset, s.tail1 = s.plan.tail;
  }
  bool used = beat && s.fetched;
  bool ended = beat && s.plan.beats == 1;
  if (beat) s.first = ended, s.plan.beats = s.plan.beats - 1;
  if (ended || !s.active) {
    s.active = !s.plans.empty();
    if (!s.plans.empty()) { s.plan = s.plans.front(); s.plans.take(); }
  }

  // Queue.
  bool fetch = s.queued != 0 && (!s.fetched || used);
  if (fetch) {
    for (int i = 0; i < 8; i++) s.queue[i].read(s.head);
    s.fails.read(s.head);
    s.head = s.head + 1;
  }
  s.fetched = fetch || (s.fetched && !used);
  bool arrives = in.m_axi.rvalid && out.m_axi.rready && s.inflight != 0;
  bool burst_ends = ap_uint<7>(s.arrived + 1) == s.bursts.front();
  bool keep = arrives && (MUTANT(15) || !s.timed_out);
  out.beat = arrives;
  if (keep) {
    axi::Words w = axi::to_words(in.m_axi.rdata);
    for (int i = 0; i < 8; i++) s.queue[i].write(s.tail, w.lane[i]);
    ap_uint<3> f = in.m_axi.rresp == axi::DECERR && !MUTANT(8) ? FAIL_DECODE : in.m_axi.rresp == axi::SLVERR || in.m_axi.rresp == axi::DECERR ? FAIL_ERROR : FAIL_NONE;
    if (in.m_axi.rlast != burst_ends && !MUTANT(20)) f = FAIL_PROTOCOL, s.broken = true;
    s.fails.write(s.tail, MUTANT(7) ? ap_uint<3>(0) : f);
    s.tail = s.tail + 1;
  }
  if (arrives) {
    s.arrived = burst_ends ? ap_uint<7>(0) : ap_uint<7>(s.arrived + 1);
    if (burst_ends) s.bursts.take();
  }
  s.queued = s.queued + (keep ? 1 : 0) - (fetch ? 1 : 0);

  // Bursts.
  bool ar_free = !s.ar_valid || in.m_axi.arready;
  bool ar_taken = s.ar_valid && in.m_axi.arready;
  ap_uint<7> n = MUTANT(1) ? (s.left < 64 ? ap_uint<7>(s.left) : ap_uint<7>(64)) : axi::burst_beats((s.next, ap_uint<6>(0)), s.left);
  bool fits = ap_uint<11>(s.reserved) + n <= DEPTH || MUTANT(5);
  bool issue = s.splitting && !s.stopped && ar_free && fits && !s.bursts.full();
  if (ar_taken || MUTANT(4)) s.ar_valid = false;
  if (issue) {
    s.ar_valid = true, s.ar_address = (s.next, ap_uint<6>(0)), s.ar_length = MUTANT(2) ? n : ap_uint<7>(n - 1);
    s.next = MUTANT(3) ? ap_uint<58>(s.next + 64) : axi::next_burst(s.next), s.left = s.left - n;
    s.bursts.put(n);
    if (s.left == 0) s.splitting = false;
  }
  s.inflight = s.inflight + (issue ? n : ap_uint<7>(0)) - (arrives ? 1 : 0);
  s.reserved = s.reserved + (issue ? n : ap_uint<7>(0)) - (fetch ? 1 : 0) - (arrives && !keep ? 1 : 0);

  // Stop and go on.
  bool quiet = empty && s.inflight == 0 && !s.ar_valid;
  bool leave = s.stopped && (quiet || MUTANT(19)) && !in.drain && (!s.timed_out || s.clear_wanted) && !s.broken;
  if (!waiting || arrives || ar_taken) s.waited = 0;
  else s.waited = s.waited + 1;
  bool late = s.waited >= in.timeout && waiting && !MUTANT(14);
  if (in.clear && s.stopped) s.clear_wanted = true;
  if (late || s.broken) s.timed_out = true;
  if (late || s.broken || (in.drain && !MUTANT(18))) s.stopped = true;
  if (s.stopped) s.splitting = false;
  if (leave) s.stopped = s.timed_out = s.clear_wanted = false;

  // Commands.
  out.command.ready = !s.splitting && !s.plans.full() && !leave;
  if (out.command.ready && in.command.valid) {
    ap_uint<6> offset = in.command.address;
    ap_uint<25> reach = ap_uint<25>(in.command.length) + (MUTANT(13) ? ap_uint<6>(0) : offset);
    Plan p;
    p.offset = offset, p.beats = words_of(reach), p.extra = words_of(reach) != words_of(in.command.length), p.tail = in.command.length;
    s.plans.put(p);
    s.splitting = !s.stopped;
    s.next = in.command.address >> 6, s.left = p.beats;
  }
}
}  // namespace dma_reader
