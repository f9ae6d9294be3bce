#include "hls/lib/ap_int.h"
#include "hls/lib/ram.h"
#include "hls/lib/top.h"
namespace k {
struct In { struct { unsigned b; } a; };
struct Out { unsigned a_b; };
struct State {
  unsigned x = 0;
};
static inline void step(State &s, const In &in, Out &out) {
  out.a_b = in.a.b;
}
}
HLS_TOP(k);
