// job_queue for Vitis HLS: from the descriptors of the ring up to `submitted` to their completions. The movers, the transposers, the coder and
// the CRC kernels are at the streams; `rings` is the memory of both rings and of the CRC lines.
#include "hls/job_queue/step.hpp"
#include "hls/job_queue/vitis.h"

extern "C" void luge_job_queue(vitis::Port rings, hls::stream<job_queue::Move> &reads, hls::stream<job_queue::Move> &writes, hls::stream<transposer::Round> &gathers, hls::stream<transposer::Round> &scatters,
                               hls::stream<vitis::Coefficient> &coefficients, hls::stream<vitis::Fail> &read_fails, hls::stream<vitis::Fail> &write_fails, hls::stream<vitis::Crc> &source_crcs,
                               hls::stream<vitis::Crc> &destination_crcs, ap_uint<64> ring_base, ap_uint<64> completion_base, ap_uint<4> ring_size, ap_uint<64> window_base, ap_uint<64> window_end, ap_uint<32> submitted) {
#pragma HLS INTERFACE m_axi port=rings bundle=job offset=slave max_read_burst_length=4 max_write_burst_length=1 num_read_outstanding=4 num_write_outstanding=8
#pragma HLS INTERFACE axis port=reads
#pragma HLS INTERFACE axis port=writes
#pragma HLS INTERFACE axis port=gathers
#pragma HLS INTERFACE axis port=scatters
#pragma HLS INTERFACE axis port=coefficients
#pragma HLS INTERFACE axis port=read_fails
#pragma HLS INTERFACE axis port=write_fails
#pragma HLS INTERFACE axis port=source_crcs
#pragma HLS INTERFACE axis port=destination_crcs
#pragma HLS INTERFACE s_axilite port=rings
#pragma HLS INTERFACE s_axilite port=ring_base
#pragma HLS INTERFACE s_axilite port=completion_base
#pragma HLS INTERFACE s_axilite port=ring_size
#pragma HLS INTERFACE s_axilite port=window_base
#pragma HLS INTERFACE s_axilite port=window_end
#pragma HLS INTERFACE s_axilite port=submitted
#pragma HLS INTERFACE s_axilite port=return
  static job_queue::State s;
#pragma HLS RESET variable=s
  vitis::Reads<8> port_reads;
  vitis::Writes port_writes;
  // Commands and rows given out and not told of: what the streams say before that would be lost.
  ap_uint<32> reading = 0, writing = 0, source_blocks = 0, destination_blocks = 0;
  bool first = true, complete = false;
  while (!complete) {
#pragma HLS PIPELINE II=1
    job_queue::In in = job_queue::In();
    job_queue::Out out = job_queue::Out();
    port_reads.before(rings), port_writes.before(rings);
    in.run = true, in.timeout = 0xffffff;
    in.ring_base = ring_base, in.completion_base = completion_base, in.ring_size = ring_size, in.window_base = window_base, in.window_end = window_end;
    in.submitted.valid = first, in.submitted.value = submitted, first = false;
    in.m_axi_r.arready = port_reads.can_ask(), in.m_axi_r.rvalid = port_reads.valid, in.m_axi_r.rlast = port_reads.last, in.m_axi_r.rresp = axi::OKAY;
    if (port_reads.valid) in.m_axi_r.rdata = vitis::words_of_wide(port_reads.data);
    in.m_axi_w.awready = true, in.m_axi_w.wready = port_writes.can_send(), in.m_axi_w.bvalid = port_writes.answer, in.m_axi_w.bresp = axi::OKAY;
    in.read_command.ready = !reads.full(), in.write_command.ready = !writes.full(), in.gather.ready = !gathers.full(), in.scatter.ready = !scatters.full();
    vitis::Fail fail;
    vitis::Crc crc;
    if (reading != 0 && read_fails.read_nb(fail)) in.read_done.valid = true, in.read_done.fail = fail, reading = reading - 1;
    if (writing != 0 && write_fails.read_nb(fail)) in.write_done.valid = true, in.write_done.fail = fail, writing = writing - 1;
    if (source_blocks != 0 && source_crcs.read_nb(crc)) in.source_crc.valid = true, in.source_crc.value = crc, source_blocks = source_blocks - 1;
    if (destination_blocks != 0 && destination_crcs.read_nb(crc)) in.destination_crc.valid = true, in.destination_crc.value = crc, destination_blocks = destination_blocks - 1;
    job_queue::step(s, in, out);
    port_reads.after(rings, out.m_axi_r.arvalid, out.m_axi_r.araddr, out.m_axi_r.arlen, out.m_axi_r.rready);
    port_writes.after(rings, out.m_axi_w.awvalid, out.m_axi_w.awaddr, out.m_axi_w.awlen, out.m_axi_w.wvalid && in.m_axi_w.wready, vitis::wide_of_words(out.m_axi_w.wdata), out.m_axi_w.wstrb, out.m_axi_w.wlast);
    if (out.read_command.valid && in.read_command.ready) reads.write(out.read_command.move), reading = reading + 1, source_blocks = source_blocks + 1;
    if (out.write_command.valid && in.write_command.ready) writes.write(out.write_command.move), writing = writing + 1;
    if (out.gather.valid && in.gather.ready) gathers.write(out.gather.shape);
    if (out.scatter.valid && in.scatter.ready) scatters.write(out.scatter.shape), destination_blocks = destination_blocks + out.scatter.shape.rows;
    if (out.load.valid) {
      vitis::Coefficient c;
      c.select = out.load.select, c.row = out.load.row, c.source = out.load.source, c.value = out.load.value;
      coefficients.write(c);
    }
    complete = out.completed == submitted && out.idle && !in.submitted.valid;
  }
}
