#include "hls/lib/ap_int.h"
#include "hls/lib/ram.h"
#include "hls/lib/top.h"
namespace k {
struct In { unsigned a; int i; };
struct Out { unsigned y; };
struct State {
  volatile unsigned v;
};
static inline void step(State &s, const In &in, Out &out) {
  s.v = in.a;
  out.y = 0;
}
}
HLS_TOP(k);
