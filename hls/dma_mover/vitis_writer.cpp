// dma_writer for Vitis HLS: `count` commands, each takes its words from `words`.
#include "hls/dma_mover/vitis.h"
#include "hls/dma_mover/writer.hpp"

extern "C" void luge_dma_writer(vitis::Port memory, hls::stream<vitis::Move> &commands, hls::stream<vitis::Beat> &words, hls::stream<ap_uint<3> > &fails, ap_uint<32> count) {
#pragma HLS INTERFACE m_axi port=memory bundle=write offset=slave max_write_burst_length=64 num_write_outstanding=16 latency=64
#pragma HLS INTERFACE axis port=commands
#pragma HLS INTERFACE axis port=words
#pragma HLS INTERFACE axis port=fails
#pragma HLS INTERFACE s_axilite port=memory
#pragma HLS INTERFACE s_axilite port=count
#pragma HLS INTERFACE s_axilite port=return
  static dma_writer::State s;
#pragma HLS RESET variable=s
  vitis::Writes writes;
  vitis::Offer<vitis::Move> command;
  vitis::Offer<vitis::Beat> word;
  ap_uint<32> told = 0;
  while (told != count) {
#pragma HLS PIPELINE II=1
    dma_writer::In in = dma_writer::In();
    dma_writer::Out out = dma_writer::Out();
    command.fetch(commands), word.fetch(words), writes.before(memory);
    in.timeout = 0xffffff;
    in.command.valid = command.valid, in.s_axis.tvalid = word.valid;
    if (command.valid) in.command.address = command.data.address, in.command.length = command.data.length;
    if (word.valid) vitis::bytes_of_wide(in.s_axis.tdata, word.data.data), in.s_axis.tlast = word.data.last != 0;
    in.m_axi.awready = true, in.m_axi.wready = writes.can_send(), in.m_axi.bvalid = writes.answer, in.m_axi.bresp = axi::OKAY;
    dma_writer::step(s, in, out);
    command.done(out.command.ready), word.done(out.s_axis.tready);
    writes.after(memory, out.m_axi.awvalid, out.m_axi.awaddr, out.m_axi.awlen, out.m_axi.wvalid && in.m_axi.wready, vitis::wide_of_bytes(out.m_axi.wdata), out.m_axi.wstrb, out.m_axi.wlast);
    if (out.done.valid) fails.write(out.done.fail), told = told + 1;
  }
}
