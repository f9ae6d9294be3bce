// Stand-in for Xilinx's ap_axi_sdata.h: a beat of an AXI stream, for tests without Vitis.
#pragma once
#include "hls/lib/ap_int.h"

template <int D, int U, int TI, int TD> struct ap_axiu {
  ap_uint<D> data;
  ap_uint<D / 8> keep, strb;
  ap_uint<1> last;
};
