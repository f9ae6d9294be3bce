// crc32c for Vitis HLS: CRCs of `blocks` blocks of 64-byte words, the last word of each with tlast.
#include "hls/crc32c/step.hpp"
#include "hls/lib/vitis.h"

extern "C" void luge_crc32c(hls::stream<vitis::Beat> &words, hls::stream<ap_uint<32> > &crcs, ap_uint<32> blocks) {
#pragma HLS INTERFACE axis port=words
#pragma HLS INTERFACE axis port=crcs
#pragma HLS INTERFACE s_axilite port=blocks
#pragma HLS INTERFACE s_axilite port=return
  static crc32c::State s;
#pragma HLS RESET variable=s
  ap_uint<32> told = 0;
  while (told != blocks) {
#pragma HLS PIPELINE II=1
    crc32c::In in = crc32c::In();
    crc32c::Out out = crc32c::Out();
    vitis::Beat b;
    in.s_axis.tvalid = words.read_nb(b);
    if (in.s_axis.tvalid) vitis::bytes_of_wide(in.s_axis.tdata, b.data), in.s_axis.tlast = b.last != 0;
    crc32c::step(s, in, out);
    if (out.crc.valid) crcs.write(out.crc.value), told = told + 1;
  }
}
