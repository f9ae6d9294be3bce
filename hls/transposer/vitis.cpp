// transposer for Vitis HLS: `count` rounds, rows to columns or back.
#include "hls/lib/vitis.h"
#include "hls/transposer/step.hpp"

extern "C" void luge_transposer(hls::stream<transposer::Round> &rounds, hls::stream<vitis::Beat> &arriving, hls::stream<vitis::Beat> &leaving, bool to_columns, ap_uint<32> count) {
#pragma HLS INTERFACE axis port=rounds
#pragma HLS INTERFACE axis port=arriving
#pragma HLS INTERFACE axis port=leaving
#pragma HLS INTERFACE s_axilite port=to_columns
#pragma HLS INTERFACE s_axilite port=count
#pragma HLS INTERFACE s_axilite port=return
  static transposer::State s;
#pragma HLS RESET variable=s
  vitis::Offer<transposer::Round> round;
  vitis::Offer<vitis::Beat> word;
  ap_uint<32> taken = 0;
  while (true) {
#pragma HLS PIPELINE II=1
    transposer::In in = transposer::In();
    transposer::Out out = transposer::Out();
    if (taken != count) round.fetch(rounds);
    word.fetch(arriving);
    in.to_columns = to_columns, in.round.valid = round.valid, in.s_axis.tvalid = word.valid;
    if (round.valid) in.round.shape = round.data;
    if (word.valid) in.s_axis.tdata = vitis::words_of_wide(word.data.data);
    in.m_axis.tready = !leaving.full();
    transposer::step(s, in, out);
    if (round.valid && out.round.ready) taken = taken + 1;
    round.done(out.round.ready), word.done(out.s_axis.tready);
    if (out.m_axis.tvalid && in.m_axis.tready) leaving.write(vitis::beat(vitis::wide_of_words(out.m_axis.tdata), out.m_axis.tlast));
    if (taken == count && out.idle && !in.round.valid) break;
  }
}
