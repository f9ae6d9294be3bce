// What passes the streams of dma_write_log, for its Vitis wrapper.
#pragma once
#include "hls/lib/vitis.h"

namespace vitis {
struct Write { ap_uint<64> address; ap_uint<8> beats_less_one; ap_uint<6> function; };
struct Data { ap_uint<512> data; ap_uint<64> strobes; bool last; };
struct Window { ap_uint<6> function; bool record; ap_uint<52> first_page, last_page; };
typedef ap_uint<2> Answer;
}  // namespace vitis
