// job_queue: takes descriptors out of a ring in memory, has the movers, the transposers, the coder and the CRC kernels do them, and
// writes completions in the order of the descriptors. docs/registers.md has the bytes, docs/card.md the way of a job.
//
// A job is cut into rounds of up to 4096 bytes of each chunk: a `gather` round with one read command a source, a `scatter` round
// with one write command a destination. Up to four jobs are in flight: the next one's sources are read while this one is coded.
//
// Invariants
// - A job that names a fence is executed only if its epoch is not below what the fence was when its descriptor arrived.
// - A job is complete when its last write is answered and its CRCs are in memory; its completion leaves after that.
// - Whatever the movers say, every command ends, so every job ends: a failed one with the first reason.
// - When the queue's own port does not answer within `timeout` it stops: jobs in flight run to their end, nothing more is fetched
//   or told. `clear` forgets what was not completed, once nothing is owed.
#pragma once
#include "hls/job_queue/fetch.hpp"
#include "hls/job_queue/give.hpp"
#include "hls/job_queue/retire.hpp"

namespace job_queue {

static inline bool jobs_in_flight(const State &s) {
  bool any = false;
  for (int i = 0; i < SLOTS; i++) any = any || s.job[i].parsed;
  return any;
}

// Forgets everything that was fetched and not completed. REQUIRES: no job in flight, nothing owed.
static inline void forget(State &s) {
  s.fetched = s.retired = s.completed = s.fetch_index = s.submitted;
  s.reserved = 0, s.beat = 0, s.unpack_word = 0, s.fetch_failed = false;
  s.fetch_slot = s.read_slot = s.write_slot = s.retire_slot = 0;
  s.stopped = s.clear_wanted = false;
}

static inline void watch_port(State &s, const In &in, Out &out, bool progress) {
  bool answers = s.owed != 0 || s.ar_valid || s.aw_valid || s.w_valid || !s.pending.empty();
  if (!answers || progress) s.waited = 0;
  else s.waited = s.waited + 1;
  bool late = answers && s.waited >= in.timeout && !s.stopped && !MUTANT(21);
  if (late) s.stopped = true;
  if (in.clear && s.stopped) s.clear_wanted = true;
  if (s.clear_wanted && (!answers || MUTANT(22)) && !jobs_in_flight(s) && !s.unpacking) forget(s);
  out.set_fault = (late ? luge_card::FAULT_QUEUE_TIMEOUT : 0) | (s.bad_doorbell ? luge_card::FAULT_BAD_DOORBELL : 0) |
                  (s.completion_error ? luge_card::FAULT_COMPLETION_ERROR : 0) | (s.job_failed ? luge_card::FAULT_JOB_FAILED : 0);
}

static inline void step(State &s, const In &in, Out &out) {
  out.m_axi_r.arvalid = s.ar_valid, out.m_axi_r.araddr = s.ar_address, out.m_axi_r.arlen = 3;
  out.m_axi_r.rready = !s.unpacking || s.stopped;
  out.m_axi_w.awvalid = s.aw_valid, out.m_axi_w.awaddr = s.aw_address, out.m_axi_w.awlen = 0;
  out.m_axi_w.wvalid = s.w_valid, out.m_axi_w.wdata = s.w_data, out.m_axi_w.wstrb = ~ap_uint<64>(0), out.m_axi_w.wlast = true;
  out.m_axi_w.bready = true;
  out.read_command.valid = s.read_valid, out.read_command.move = s.read_move;
  out.write_command.valid = s.write_valid, out.write_command.move = s.write_move;
  out.gather.valid = s.gather_valid, out.gather.shape = s.gather_shape;
  out.scatter.valid = s.scatter_valid, out.scatter.shape = s.scatter_shape;
  out.submitted_now = s.submitted, out.completed = s.completed, out.jobs_failed = s.failed;
  out.completion = s.completion, out.stopped = s.stopped;
  out.idle = s.reserved == 0 && !s.ar_valid && s.owed == 0 && s.pending.empty();

  bool arrived = in.m_axi_r.rvalid && out.m_axi_r.rready && s.owed != 0;
  bool ar_taken = s.ar_valid && in.m_axi_r.arready, aw_taken = s.aw_valid && in.m_axi_w.awready, w_taken = s.w_valid && in.m_axi_w.wready;
  bool port_free = !s.aw_valid && !s.w_valid && !s.pending.full();
  bool answered = in.m_axi_w.bvalid && !s.pending.empty();
  s.now = s.now + 1;

  hear_answer(s, in);
  hear_movers(s, in);
  if (aw_taken) s.aw_valid = false;
  if (w_taken) s.w_valid = false;
  bool line = send_line(s, s.source_lines, Kind::source_line, port_free);
  bool other = send_line(s, s.destination_lines, Kind::destination_line, port_free && !line);
  retire(s, in, port_free && !line && !other);
  collect(s.source_lines, in.source_crc.valid, in.source_crc.value, MUTANT(23));
  collect(s.destination_lines, in.destination_crc.valid, in.destination_crc.value, MUTANT(24));
  PlaceRead place;
  place.wanted = false, place.address = 0;
  give_writes(s, in, place);
  give_reads(s, in, out, place);
  if (place.wanted) s.place.read(place.address);
  fetch(s, in, arrived);
  if (in.fence.valid) s.fences.write(in.fence.entry, in.fence.epoch);
  doorbell(s, in);
  watch_port(s, in, out, arrived || ar_taken || aw_taken || w_taken || answered);
}
}  // namespace job_queue
