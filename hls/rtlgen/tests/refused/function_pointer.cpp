#include "hls/lib/ap_int.h"
#include "hls/lib/ram.h"
#include "hls/lib/top.h"
static unsigned g(unsigned x) { return x + 1; }
static unsigned h(unsigned x) { return x ^ 5; }
namespace k {
struct In { unsigned a; int i; };
struct Out { unsigned y; };
struct State {
  unsigned x = 0;
};
static inline void step(State &s, const In &in, Out &out) {
  unsigned (*f)(unsigned) = in.a & 1 ? g : h;
  out.y = f(in.a);
}
}
HLS_TOP(k);
