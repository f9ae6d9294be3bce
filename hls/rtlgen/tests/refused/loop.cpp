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
  for (unsigned i = 0; i < in.a; i++)
    s.x = s.x * 3 + i;
  out.y = s.x;
}
}
HLS_TOP(k);
