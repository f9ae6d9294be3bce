#include "hls/lib/ap_int.h"
#include "hls/lib/ram.h"
#include "hls/lib/top.h"
namespace k {
struct In { unsigned a; int i; };
struct Out { unsigned y; };
struct State {
  _Complex float c;
};
static inline void step(State &s, const In &in, Out &out) {
  out.y = (unsigned)__real__ s.c;
}
}
HLS_TOP(k);
