#include "hls/lib/ap_int.h"
#include "hls/lib/ram.h"
#include "hls/lib/top.h"
namespace k {
struct In { unsigned a; int i; };
struct Out { unsigned y; };
struct State {
  unsigned x = 0, z = 0;
};
static inline void step(State &s, const In &in, Out &out) {
  const unsigned *p = in.a & 1 ? &s.x : in.i < 0 ? &s.z : nullptr;
  out.y = p != nullptr ? *p : 0;
}
}
HLS_TOP(k);
