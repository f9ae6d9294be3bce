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
  unsigned a[in.a];
  a[0] = in.i, a[in.a - 1] = 5;
  out.y = a[in.i];
}
}
HLS_TOP(k);
