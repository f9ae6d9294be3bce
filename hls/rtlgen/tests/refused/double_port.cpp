#include "hls/lib/ap_int.h"
#include "hls/lib/ram.h"
#include "hls/lib/top.h"
namespace k {
struct In { double d; };
struct Out { unsigned y; };
struct State {
  unsigned x = 0;
};
static inline void step(State &s, const In &in, Out &out) {
  out.y = (unsigned)in.d;
}
}
HLS_TOP(k);
