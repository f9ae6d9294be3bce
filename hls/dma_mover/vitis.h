// A command of both movers, for their Vitis wrappers.
#pragma once
#include "hls/lib/vitis.h"

namespace vitis {
struct Move { ap_uint<64> address; ap_uint<24> length; };
}  // namespace vitis
