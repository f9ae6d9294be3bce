// card: registers, job queue, the two movers, the transposers, the coder, the CRC kernels and the DMA write log, joined by channels.
//
//   m_axi_job  the queue: descriptors, completions, CRCs        m_axi_read -> reader -> gather -> coder -> scatter -> writer -> log -> m_axi_write
//   s_axil     registers                                                        |-> CRCs                     |-> CRCs
//
// Every handshake between kernels goes through a channel, so that no kernel's ready or valid reaches another without a register; the
// writer and the log have theirs in their own registers.
// docs/card.md follows a job through it.
#pragma once
#include "hls/crc32c/step.hpp"
#include "hls/dma_mover/reader.hpp"
#include "hls/dma_mover/writer.hpp"
#include "hls/dma_write_log/step.hpp"
#include "hls/erasure_coder/step.hpp"
#include "hls/job_queue/step.hpp"
#include "hls/lib/channel.h"
#include "hls/registers/step.hpp"
#include "hls/transposer/step.hpp"

namespace card {
struct In {
  axi::LiteOut s_axil;
  axi::ReadInOf<axi::Words> m_axi_job_r;
  axi::WriteIn m_axi_job_w;
  axi::ReadIn m_axi_read;
  axi::WriteIn m_axi_write;
  HLS_MUTANT_INPUT
};
struct Out {
  axi::LiteIn s_axil;
  axi::ReadOut m_axi_job_r;
  axi::WriteOutOf<axi::Words> m_axi_job_w;
  axi::ReadOut m_axi_read;
  axi::WriteOut m_axi_write;
  bool irq;
};
struct Word { axi::Words data; transposer::Round shape; };
struct State {
  registers::State registers;
  job_queue::State queue;
  dma_reader::State reader;
  dma_writer::State writer;
  dma_write_log::State log;
  transposer::State gather, scatter;
  erasure_coder::State coder;
  crc32c::State source_crc, destination_crc;
  // What the registers show of the parts, and tell them, a cycle later.
  registers::In seen;
  channel<job_queue::Move> read_commands, write_commands;
  channel<transposer::Round> gather_rounds, scatter_rounds;
  channel<axi::Words> arrived, coded, parity;
  channel<Word> columns;
  ap_uint<32> cycles = 0, busy = 0, beats_read = 0, beats_written = 0, read_stalls = 0, write_stalls = 0;
  ap_uint<6> set_fault = 0;
  bool set_interrupt = false;
  bool read_was_late = false, write_was_late = false;
};

template <class A, class B> static inline void copy_lanes(A &to, const B &from) { for (int i = 0; i < 64; i++) to.lane[i] = from.lane[i]; }
static inline axi::Words words_of_coder(const erasure_coder::Word &w) {
  axi::Bytes b;
  copy_lanes(b, w);
  return axi::to_words(b);
}

static inline void step(State &s, const In &in, Out &out) {
  // Registers.
  registers::In ri = s.seen;
  registers::Out ro = registers::Out();
  ri.s_axil = in.s_axil, ri.set_fault = s.set_fault, ri.set_interrupts = s.set_interrupt;
#ifdef HLS_MUTANTS
  ri.mutant = 0;
#endif
  registers::step(s.registers, ri, ro);
  out.s_axil = ro.s_axil;
  bool drain = (ro.control & luge_card::CONTROL_DRAIN) != 0;
  bool clear = ro.clear.valid && ro.clear.value != 0;
  out.irq = (ro.control & luge_card::CONTROL_INTERRUPT) != 0 && (ro.fault != 0 || ro.interrupts != 0);

  // Movers.
  dma_reader::In mi = dma_reader::In();
  dma_reader::Out mo = dma_reader::Out();
  mi.command.valid = s.read_commands.can_take(), mi.command.address = s.read_commands.front().address, mi.command.length = s.read_commands.front().length;
  mi.m_axi = in.m_axi_read, mi.m_axis.tready = s.arrived.can_put();
  mi.timeout = ro.timeout, mi.drain = drain, mi.clear = clear;
  dma_reader::step(s.reader, mi, mo);
  out.m_axi_read = mo.m_axi;
  // What the writer drives comes from its registers, so the log may go first.
  dma_write_log::In li = dma_write_log::In();
  dma_write_log::Out lo = dma_write_log::Out();
  li.s_axi.awvalid = s.writer.aw_valid, li.s_axi.awaddr = s.writer.aw_address, li.s_axi.awlen = s.writer.aw_length, li.s_axi_awuser = s.writer.aw_function;
  li.s_axi.wvalid = s.writer.w_valid, li.s_axi.wdata = axi::to_bytes(s.writer.w_data), li.s_axi.wstrb = s.writer.w_strobes, li.s_axi.wlast = s.writer.w_last;
  li.s_axi.bready = true, li.m_axi = in.m_axi_write;
  li.control.enable = ro.log_control & luge_card::LOG_CONTROL_ENABLE, li.control.suspend = (ro.log_control & luge_card::LOG_CONTROL_SUSPEND) != 0;
  li.control.at_scheduling = (ro.log_control & luge_card::LOG_CONTROL_AT_SCHEDULING) != 0;
  li.ring.base = ro.log_base, li.ring.log2_slots = ro.log_size, li.ring.watermark = ro.log_watermark, li.ring.patience = ro.log_patience;
  li.examined.valid = ro.log_examined.valid, li.examined.head = ro.log_examined.value;
  li.load.valid = ro.log_load.valid, li.load.function = ro.log_load.value, li.load.record = (ro.log_load.value & luge_card::LOG_LOAD_RECORD) != 0;
  li.load.first_page = ro.log_first_page, li.load.last_page = ro.log_last_page;
  li.clear.valid = ro.log_clear.valid && ro.log_clear.value != 0, li.clear.functions = ro.log_forget;
  dma_write_log::step(s.log, li, lo);
  out.m_axi_write = lo.m_axi;
  dma_writer::In wi = dma_writer::In();
  dma_writer::Out wo = dma_writer::Out();
  wi.command.valid = s.write_commands.can_take(), wi.command.address = s.write_commands.front().address, wi.command.length = s.write_commands.front().length, wi.command.function = s.write_commands.front().function;
  wi.m_axi = lo.s_axi, wi.s_axis.tvalid = s.parity.can_take(), wi.s_axis.tdata = axi::to_bytes(s.parity.front());
  wi.timeout = ro.timeout, wi.drain = drain, wi.clear = clear;
  dma_writer::step(s.writer, wi, wo);

  // Transposers and coder.
  transposer::In gi = transposer::In(), si = transposer::In();
  transposer::Out go = transposer::Out(), so = transposer::Out();
  gi.to_columns = true, gi.round.valid = s.gather_rounds.can_take(), gi.round.shape = s.gather_rounds.front();
  gi.s_axis.tvalid = s.arrived.can_take(), gi.s_axis.tdata = s.arrived.front(), gi.m_axis.tready = s.columns.can_put();
#ifdef HLS_MUTANTS
  gi.mutant = si.mutant = in.mutant > 25 && in.mutant < 33 ? ap_uint<6>(in.mutant - 25) : ap_uint<6>(0);
#endif
  transposer::step(s.gather, gi, go);
  si.to_columns = false, si.round.valid = s.scatter_rounds.can_take(), si.round.shape = s.scatter_rounds.front();
  si.s_axis.tvalid = s.coded.can_take(), si.s_axis.tdata = s.coded.front(), si.m_axis.tready = s.parity.can_put();
  transposer::step(s.scatter, si, so);
  erasure_coder::In ci = erasure_coder::In();
  erasure_coder::Out co = erasure_coder::Out();
  const Word &column = s.columns.front();
  ci.s_axis.tvalid = s.columns.can_take(), ci.m_axis.tready = s.coded.can_put();
  copy_lanes(ci.s_axis.tdata, axi::to_bytes(column.data));
  ci.job.k = column.shape.rows, ci.job.select = column.shape.user, ci.job.rows = column.shape.user >> 2;

  // CRCs of what comes from the reader and of what goes to the writer.
  crc32c::In xi = crc32c::In(), yi = crc32c::In();
  crc32c::Out xo = crc32c::Out(), yo = crc32c::Out();
  xi.s_axis.tvalid = mo.m_axis.tvalid && s.arrived.can_put(), xi.s_axis.tlast = mo.m_axis.tlast;
  copy_lanes(xi.s_axis.tdata, mo.m_axis.tdata);
  crc32c::step(s.source_crc, xi, xo);
  yi.s_axis.tvalid = so.m_axis.tvalid && s.parity.can_put(), yi.s_axis.tlast = so.m_axis.tlast;
  copy_lanes(yi.s_axis.tdata, axi::to_bytes(so.m_axis.tdata));
  crc32c::step(s.destination_crc, yi, yo);

  // Queue.
  job_queue::In qi = job_queue::In();
  job_queue::Out qo = job_queue::Out();
  qi.run = (ro.control & luge_card::CONTROL_RUN) != 0, qi.drain = drain, qi.clear = clear;
  qi.ring_base = ro.ring_base, qi.completion_base = ro.completion_base, qi.ring_size = ro.ring_size;
  qi.window_base = ro.window_base, qi.window_end = ro.window_end, qi.timeout = ro.timeout;
  qi.submitted.valid = ro.submitted.valid, qi.submitted.value = ro.submitted.value;
  qi.fence.valid = ro.fence_load.valid, qi.fence.entry = ro.fence_load.value, qi.fence.epoch = ro.fence_epoch;
  qi.m_axi_r = in.m_axi_job_r, qi.m_axi_w = in.m_axi_job_w;
  qi.read_command.ready = s.read_commands.can_put(), qi.write_command.ready = s.write_commands.can_put();
  qi.gather.ready = s.gather_rounds.can_put(), qi.scatter.ready = s.scatter_rounds.can_put();
  qi.read_done.valid = mo.done.valid, qi.read_done.fail = mo.done.fail, qi.write_done.valid = wo.done.valid, qi.write_done.fail = wo.done.fail;
  qi.source_crc.valid = xo.crc.valid, qi.source_crc.value = xo.crc.value, qi.destination_crc.valid = yo.crc.valid, qi.destination_crc.value = yo.crc.value;
#ifdef HLS_MUTANTS
  qi.mutant = in.mutant <= 25 ? ap_uint<6>(in.mutant) : in.mutant == 33 ? ap_uint<6>(26) : ap_uint<6>(0);
#endif
  job_queue::step(s.queue, qi, qo);
  out.m_axi_job_r = qo.m_axi_r, out.m_axi_job_w = qo.m_axi_w;
  ci.load.valid = qo.load.valid, ci.load.select = qo.load.select, ci.load.row = qo.load.row, ci.load.source = qo.load.source, ci.load.value = qo.load.value;
  erasure_coder::step(s.coder, ci, co);

  // Counters and what the registers show.
  bool idle = qo.idle && mo.idle && wo.idle;
  s.cycles = s.cycles + 1;
  if (!idle) s.busy = s.busy + 1;
  if (mo.beat) s.beats_read = s.beats_read + 1;
  if (wo.beat) s.beats_written = s.beats_written + 1;
  if (mo.stall) s.read_stalls = s.read_stalls + 1;
  if (wo.stall) s.write_stalls = s.write_stalls + 1;
  s.seen.build = job_queue::SOURCES | job_queue::ROWS << 8 | job_queue::TABLES << 16 | job_queue::SLOTS << 24;
  s.seen.status = (idle ? luge_card::STATUS_IDLE : 0) | (mo.stopped ? luge_card::STATUS_READ_STOPPED : 0) | (wo.stopped ? luge_card::STATUS_WRITE_STOPPED : 0) |
                  (qo.stopped ? luge_card::STATUS_QUEUE_STOPPED : 0) | (mo.owed ? luge_card::STATUS_READ_OWED : 0) | (wo.owed ? luge_card::STATUS_WRITE_OWED : 0);
  s.set_fault = ap_uint<6>(qo.set_fault) | ap_uint<6>(mo.timed_out && !s.read_was_late ? luge_card::FAULT_READ_TIMEOUT : 0) | ap_uint<6>(wo.timed_out && !s.write_was_late ? luge_card::FAULT_WRITE_TIMEOUT : 0);
  s.read_was_late = mo.timed_out, s.write_was_late = wo.timed_out;
  s.set_interrupt = qo.completion;
  s.seen.log_status = (lo.status.ready ? luge_card::LOG_STATUS_READY : 0) | (lo.status.recording ? luge_card::LOG_STATUS_RECORDING : 0) | (lo.status.settled ? luge_card::LOG_STATUS_SETTLED : 0) |
                      (lo.status.suspended ? luge_card::LOG_STATUS_SUSPENDED : 0) | (lo.status.holding ? luge_card::LOG_STATUS_HOLDING : 0) | (lo.status.overflow ? luge_card::LOG_STATUS_OVERFLOW : 0) |
                      (lo.status.overflowing ? luge_card::LOG_STATUS_OVERFLOWING : 0) | (lo.status.over_watermark ? luge_card::LOG_STATUS_OVER_WATERMARK : 0) |
                      (lo.status.bad_ring ? luge_card::LOG_STATUS_BAD_RING : 0) | (lo.status.bad_head ? luge_card::LOG_STATUS_BAD_HEAD : 0) | (lo.status.record_error ? luge_card::LOG_STATUS_RECORD_ERROR : 0);
  s.seen.log_tail = lo.status.tail, s.seen.log_dirty = lo.dirty;
  s.seen.submitted_now = qo.submitted_now, s.seen.completed = qo.completed, s.seen.jobs_failed = qo.jobs_failed;
  s.seen.cycles = s.cycles, s.seen.busy_cycles = s.busy, s.seen.beats_read = s.beats_read, s.seen.beats_written = s.beats_written;
  s.seen.read_stalls = s.read_stalls, s.seen.write_stalls = s.write_stalls;

  // Channels: both sides as they were at the start of the cycle.
  bool put_arrived = mo.m_axis.tvalid && s.arrived.can_put(), put_columns = go.m_axis.tvalid && s.columns.can_put();
  bool put_coded = co.m_axis.tvalid && s.coded.can_put(), put_parity = so.m_axis.tvalid && s.parity.can_put();
  Word leaving;
  leaving.data = go.m_axis.tdata, leaving.shape = go.m_axis.shape;
  s.read_commands.tick(qo.read_command.valid && s.read_commands.can_put(), qo.read_command.move, mi.command.valid && mo.command.ready);
  s.write_commands.tick(qo.write_command.valid && s.write_commands.can_put(), qo.write_command.move, wi.command.valid && wo.command.ready);
  s.gather_rounds.tick(qo.gather.valid && s.gather_rounds.can_put(), qo.gather.shape, gi.round.valid && go.round.ready);
  s.scatter_rounds.tick(qo.scatter.valid && s.scatter_rounds.can_put(), qo.scatter.shape, si.round.valid && so.round.ready);
  s.arrived.tick(put_arrived, axi::to_words(mo.m_axis.tdata), gi.s_axis.tvalid && go.s_axis.tready);
  s.columns.tick(put_columns, leaving, ci.s_axis.tvalid && co.s_axis.tready);
  s.coded.tick(put_coded, words_of_coder(co.m_axis.tdata), si.s_axis.tvalid && so.s_axis.tready);
  s.parity.tick(put_parity, so.m_axis.tdata, wi.s_axis.tvalid && wo.s_axis.tready);
}
}  // namespace card
