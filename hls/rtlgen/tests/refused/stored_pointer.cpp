#include "hls/lib/ap_int.h"
#include "hls/lib/ram.h"
#include "hls/lib/top.h"
namespace k {
struct In { unsigned a; int i; };
struct Out { unsigned y; };
struct State {
  unsigned x = 0;
};
static inline void step(State &s, const In &in, Out &out) {
  const unsigned *p[2] = {&s.x, &in.a};
  out.y = *p[in.a & 1];
}
}
HLS_TOP(k);
