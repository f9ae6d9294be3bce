// What passes the streams of job_queue, for its Vitis wrapper.
#pragma once
#include "hls/lib/vitis.h"

namespace vitis {
typedef ap_uint<3> Fail;
typedef ap_uint<32> Crc;
struct Coefficient { ap_uint<2> select, row; ap_uint<4> source; ap_uint<8> value; };
}  // namespace vitis
