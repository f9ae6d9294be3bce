// erasure_coder for Vitis HLS: loads a table of coefficients (row r, source j at 16 r + j, ISA-L's plain bytes), then turns `columns` columns
// of k source words each into columns of `rows` destination words.
#include "hls/erasure_coder/step.hpp"
#include "hls/lib/vitis.h"

extern "C" void luge_erasure_coder(hls::stream<vitis::Beat> &sources, hls::stream<vitis::Beat> &destinations, const ap_uint<8> coefficients[64], ap_uint<5> k, ap_uint<3> rows, ap_uint<32> columns) {
#pragma HLS INTERFACE axis port=sources
#pragma HLS INTERFACE axis port=destinations
#pragma HLS INTERFACE s_axilite port=coefficients
#pragma HLS INTERFACE s_axilite port=k
#pragma HLS INTERFACE s_axilite port=rows
#pragma HLS INTERFACE s_axilite port=columns
#pragma HLS INTERFACE s_axilite port=return
  static erasure_coder::State s;
#pragma HLS RESET variable=s
#pragma HLS ARRAY_PARTITION variable=s.column complete
#pragma HLS ARRAY_PARTITION variable=s.sum complete
#pragma HLS ARRAY_PARTITION variable=s.matrix complete
  if (k == 0 || k > erasure_coder::SOURCES || rows == 0 || rows > erasure_coder::ROWS) return;  // the kernel would refuse every word
  for (int i = 0; i < 64; i++) {
#pragma HLS PIPELINE II=1
    erasure_coder::In in = erasure_coder::In();
    erasure_coder::Out out = erasure_coder::Out();
    in.load.valid = true, in.load.row = i >> 4, in.load.source = i & 15, in.load.value = coefficients[i];
    erasure_coder::step(s, in, out);
  }
  vitis::Offer<vitis::Beat> word;
  ap_uint<32> left = columns;
  while (left != 0) {
#pragma HLS PIPELINE II=1
    erasure_coder::In in = erasure_coder::In();
    erasure_coder::Out out = erasure_coder::Out();
    word.fetch(sources);
    in.job.k = k, in.job.rows = rows, in.s_axis.tvalid = word.valid;
    if (word.valid) vitis::bytes_of_wide(in.s_axis.tdata, word.data.data);
    in.m_axis.tready = !destinations.full();
    erasure_coder::step(s, in, out);
    word.done(out.s_axis.tready);
    if (out.m_axis.tvalid && in.m_axis.tready) {
      destinations.write(vitis::beat(vitis::wide_of_bytes(out.m_axis.tdata), out.m_axis.tlast));
      if (out.m_axis.tlast) left = left - 1;
    }
  }
}
