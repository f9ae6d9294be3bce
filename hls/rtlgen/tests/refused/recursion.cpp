#include "hls/lib/ap_int.h"
#include "hls/lib/ram.h"
#include "hls/lib/top.h"
static unsigned f(unsigned n) { return n < 2 ? 1 : n * f(n - 1) ^ f(n - 2); }
namespace k {
struct In { unsigned a; int i; };
struct Out { unsigned y; };
struct State {
  unsigned x = 0;
};
static inline void step(State &s, const In &in, Out &out) {
  out.y = f(in.a);
}
}
HLS_TOP(k);
