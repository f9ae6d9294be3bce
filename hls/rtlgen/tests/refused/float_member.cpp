#include "hls/lib/ap_int.h"
#include "hls/lib/ram.h"
#include "hls/lib/top.h"
namespace k {
struct In { unsigned a; int i; };
struct Out { unsigned y; };
struct State {
  float f;
};
static inline void step(State &s, const In &in, Out &out) {
  out.y = (unsigned)s.f;
}
}
HLS_TOP(k);
