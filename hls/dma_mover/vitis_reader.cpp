// dma_reader for Vitis HLS: `count` commands; words of each on `words`, tlast on its last.
#include "hls/dma_mover/reader.hpp"
#include "hls/dma_mover/vitis.h"

extern "C" void luge_dma_reader(vitis::Port memory, hls::stream<vitis::Move> &commands, hls::stream<vitis::Beat> &words, hls::stream<ap_uint<3> > &fails, ap_uint<32> count) {
#pragma HLS INTERFACE m_axi port=memory bundle=read offset=slave max_read_burst_length=64 num_read_outstanding=16 latency=64
#pragma HLS INTERFACE axis port=commands
#pragma HLS INTERFACE axis port=words
#pragma HLS INTERFACE axis port=fails
#pragma HLS INTERFACE s_axilite port=memory
#pragma HLS INTERFACE s_axilite port=count
#pragma HLS INTERFACE s_axilite port=return
  static dma_reader::State s;
#pragma HLS RESET variable=s
  vitis::Reads<dma_reader::BURSTS> reads;
  vitis::Offer<vitis::Move> command;
  ap_uint<32> told = 0;
  while (told != count) {
#pragma HLS PIPELINE II=1
    dma_reader::In in = dma_reader::In();
    dma_reader::Out out = dma_reader::Out();
    command.fetch(commands), reads.before(memory);
    in.timeout = 0xffffff;
    in.command.valid = command.valid;
    if (command.valid) in.command.address = command.data.address, in.command.length = command.data.length;
    in.m_axi.arready = reads.can_ask(), in.m_axi.rvalid = reads.valid, in.m_axi.rlast = reads.last, in.m_axi.rresp = axi::OKAY;
    if (reads.valid) vitis::bytes_of_wide(in.m_axi.rdata, reads.data);
    in.m_axis.tready = !words.full();
    dma_reader::step(s, in, out);
    command.done(out.command.ready);
    reads.after(memory, out.m_axi.arvalid, out.m_axi.araddr, out.m_axi.arlen, out.m_axi.rready);
    if (out.m_axis.tvalid && in.m_axis.tready) words.write(vitis::beat(vitis::wide_of_bytes(out.m_axis.tdata), out.m_axis.tlast));
    if (out.done.valid) fails.write(out.done.fail), told = told + 1;
  }
}
