// The end of the job queue: what the movers and the CRC kernels tell, lines of CRCs and completions into memory, in order.
#pragma once
#include "hls/job_queue/state.hpp"

namespace job_queue {

// First failure wins.
static inline void failed(Job &j, ap_uint<8> status) { if (j.status == JobStatus::ok) j.status = status; }

// Commands end in the order they were given; `owners` remembers whose they were.
static inline void hear_movers(State &s, const In &in) {
  if (in.read_done.valid && !s.read_owners.empty()) {
    Job &j = s.job[s.read_owners.front().to_uint()];
    s.read_owners.take();
    j.reads = j.reads - 1;
    if (in.read_done.fail != 0 && !MUTANT(13)) failed(j, ap_uint<8>(15 + in.read_done.fail));
  }
  if (in.write_done.valid && !s.write_owners.empty()) {
    Job &j = s.job[s.write_owners.front().to_uint()];
    s.write_owners.take();
    j.writes = j.writes - 1;
    if (in.write_done.fail != 0 && !MUTANT(14)) failed(j, ap_uint<8>(23 + in.write_done.fail));
  }
}

static inline void collect(Lines &l, bool valid, ap_uint<32> value, bool mutant) {
  if (l.complete) {
    for (int i = 0; i < 8; i++) {
      ap_uint<32> low = l.complete_count > 2 * i ? ap_uint<32>(l.line[2 * i]) : ap_uint<32>(0), high = l.complete_count > 2 * i + 1 ? ap_uint<32>(l.line[2 * i + 1]) : ap_uint<32>(0);
      l.kept[i].write(l.tail, ap_uint<64>((high, low)));
    }
    l.tail = l.tail + 1;
    l.targets.put(l.complete_target);
  }
  l.complete = false;
  if (!valid) return;
  Round r = l.rounds.front();
  l.line[l.have.to_uint() & 15] = value;
  l.have = l.have + 1;
  if (l.have != r.count) return;
  l.have = 0;
  l.rounds.take();
  l.complete = r.wanted && !mutant;
  l.complete_count = r.count, l.complete_target.slot = r.slot, l.complete_target.address = r.address;
}

// Takes the oldest line if the port is free; true if it did. Lines are dropped once the queue has stopped.
static inline bool send_line(State &s, Lines &l, Kind kind, bool port_free) {
  bool sent = false;
  if (l.fetched && (port_free || s.stopped)) {
    Target t = l.targets.front();
    if (!s.stopped) {
      s.aw_valid = s.w_valid = true, s.aw_address = t.address;
      for (int i = 0; i < 8; i++) s.w_data.lane[i] = l.kept[i].q;
      Pending p;
      p.kind = kind, p.slot = t.slot;
      s.pending.put(p);
      sent = true;
    } else {
      s.job[t.slot.to_uint()].lines = s.job[t.slot.to_uint()].lines - 1;
    }
    l.targets.take();
    l.open = l.open - 1;
    l.fetched = false;
  } else if (!l.fetched && !l.targets.empty()) {
    for (int i = 0; i < 8; i++) l.kept[i].read(l.head);
    l.head = l.head + 1;
    l.fetched = true;
  }
  return sent;
}

static inline void hear_answer(State &s, const In &in) {
  s.completion = s.completion_error = s.job_failed = false;
  if (!in.m_axi_w.bvalid || s.pending.empty()) return;
  Pending p = s.pending.front();
  s.pending.take();
  bool bad = in.m_axi_w.bresp != axi::OKAY;
  if (s.stopped) {
    if (p.kind != Kind::completion) s.job[p.slot.to_uint()].lines = s.job[p.slot.to_uint()].lines - 1;
    return;
  }
  s.completion_error = bad && !MUTANT(15);
  if (p.kind == Kind::completion) {
    s.completion = true, s.completed = s.completed + 1;
  } else {
    Job &j = s.job[p.slot.to_uint()];
    j.lines = j.lines - 1;
    if (bad) failed(j, in.m_axi_w.bresp == axi::DECERR ? JobStatus::write_decode : JobStatus::write_error);
  }
}

static inline void retire(State &s, const In &in, bool port_free) {
  Job &j = s.job[s.retire_slot.to_uint()];
  bool ended = j.parsed && j.reads_given && j.writes_given && j.reads == 0 && (j.writes == 0 || MUTANT(17)) && (j.lines == 0 || MUTANT(18));
  if (!ended || !(port_free || s.stopped)) return;
  if (!s.stopped) {
    ap_uint<32> turn = j.index >> (in.ring_size > 12 ? ap_uint<4>(12) : in.ring_size);
    ap_uint<12> entry = j.index & (entries(in.ring_size) - 1);
    s.aw_valid = s.w_valid = true;
    s.aw_address = (in.completion_base & ~ap_uint<64>(4095)) + (ap_uint<18>(entry) << 6);
    for (int i = 0; i < 8; i++) s.w_data.lane[i] = 0;
    s.w_data.lane[0] = j.cookie;
    s.w_data.lane[1] = (ap_uint<24>(j.status), MUTANT(19) ? ap_uint<32>(j.index + 1) : ap_uint<32>(j.index));
    s.w_data.lane[2] = (ap_uint<32>(j.started - j.arrived), ap_uint<32>(s.now - j.started));
    s.w_data.lane[7] = ap_uint<64>(turn[0] && !MUTANT(20) ? 0 : 1) << 56;
    Pending p;
    p.kind = Kind::completion, p.slot = s.retire_slot;
    s.pending.put(p);
    s.retired = s.retired + 1;
    s.job_failed = j.status != JobStatus::ok;
    if (s.job_failed) s.failed = s.failed + 1;
  }
  j.parsed = j.reads_given = j.writes_given = false;
  s.retire_slot = s.retire_slot + 1;
  s.reserved = s.reserved - 1;
}

}  // namespace job_queue
