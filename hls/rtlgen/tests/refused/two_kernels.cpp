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
  out.y = in.a;
}
}
namespace l { using k::State; using k::In; using k::Out; using k::step; }
HLS_TOP(k);
HLS_TOP(l);
