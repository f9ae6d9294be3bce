// dma_write_log for Vitis HLS: between a writer, at the streams, and `memory`, which has the guests' pages and the ring of records. Loads
// `windows` windows, records, passes `count` writes on, then suspends and returns when the marker is in the ring.
#include "hls/dma_write_log/step.hpp"
#include "hls/dma_write_log/vitis.h"

extern "C" void luge_dma_write_log(vitis::Port memory, hls::stream<vitis::Write> &writes, hls::stream<vitis::Data> &data, hls::stream<vitis::Answer> &answers, hls::stream<vitis::Window> &windows,
                                   hls::stream<ap_uint<32> > &examined, ap_uint<64> ring_base, ap_uint<5> log2_slots, ap_uint<24> patience, bool at_scheduling, ap_uint<32> window_count, ap_uint<32> count) {
#pragma HLS INTERFACE m_axi port=memory bundle=write offset=slave max_write_burst_length=64 num_write_outstanding=32
#pragma HLS INTERFACE axis port=writes
#pragma HLS INTERFACE axis port=data
#pragma HLS INTERFACE axis port=answers
#pragma HLS INTERFACE axis port=windows
#pragma HLS INTERFACE axis port=examined
#pragma HLS INTERFACE s_axilite port=memory
#pragma HLS INTERFACE s_axilite port=ring_base
#pragma HLS INTERFACE s_axilite port=log2_slots
#pragma HLS INTERFACE s_axilite port=patience
#pragma HLS INTERFACE s_axilite port=at_scheduling
#pragma HLS INTERFACE s_axilite port=window_count
#pragma HLS INTERFACE s_axilite port=count
#pragma HLS INTERFACE s_axilite port=return
  static dma_write_log::State s;
#pragma HLS RESET variable=s
  vitis::Writes port;
  vitis::Offer<vitis::Write> write;
  vitis::Offer<vitis::Data> word;
  vitis::Offer<vitis::Window> window;
  ap_uint<32> loaded = 0, answered = 0;
  bool settled = false, suspended = false;
  while (!suspended) {
#pragma HLS PIPELINE II=1
    dma_write_log::In in = dma_write_log::In();
    dma_write_log::Out out = dma_write_log::Out();
    bool ready = loaded == window_count;
    if (!ready) window.fetch(windows);
    if (settled) write.fetch(writes), word.fetch(data);
    port.before(memory);
    in.control.enable = ready, in.control.suspend = settled && answered == count, in.control.at_scheduling = at_scheduling;
    in.ring.base = ring_base, in.ring.log2_slots = log2_slots, in.ring.patience = patience;
    in.load.valid = window.valid && !ready;
    if (in.load.valid) in.load.function = window.data.function, in.load.record = window.data.record, in.load.first_page = window.data.first_page, in.load.last_page = window.data.last_page;
    ap_uint<32> head;
    in.examined.valid = settled && examined.read_nb(head);
    if (in.examined.valid) in.examined.head = head;
    in.s_axi.awvalid = write.valid, in.s_axi.wvalid = word.valid, in.s_axi.bready = !answers.full();
    if (write.valid) in.s_axi.awaddr = write.data.address, in.s_axi.awlen = write.data.beats_less_one, in.s_axi_awuser = write.data.function;
    if (word.valid) vitis::bytes_of_wide(in.s_axi.wdata, word.data.data), in.s_axi.wstrb = word.data.strobes, in.s_axi.wlast = word.data.last;
    in.m_axi.awready = true, in.m_axi.wready = port.can_send(), in.m_axi.bvalid = port.answer, in.m_axi.bresp = axi::OKAY;
    dma_write_log::step(s, in, out);
    port.after(memory, out.m_axi.awvalid, out.m_axi.awaddr, out.m_axi.awlen, out.m_axi.wvalid && in.m_axi.wready, vitis::wide_of_bytes(out.m_axi.wdata), out.m_axi.wstrb, out.m_axi.wlast);
    if (in.load.valid && out.status.ready) loaded = loaded + 1;
    window.done(in.load.valid && out.status.ready);
    write.done(out.s_axi.awready), word.done(out.s_axi.wready);
    if (out.s_axi.bvalid && in.s_axi.bready) answers.write(out.s_axi.bresp), answered = answered + 1;
    settled = settled || (out.status.recording && out.status.settled);
    suspended = settled && out.status.suspended && in.control.suspend;
  }
}
