#include "hls/lib/ap_int.h"
#include "hls/lib/ram.h"
#include "hls/lib/top.h"
static inline unsigned divide(unsigned a, unsigned b) { return a / b; }
static inline unsigned share(unsigned a, unsigned b) {
  return divide(a, b | 1);
}
namespace k {
struct In { unsigned a; int i; };
struct Out { unsigned y; };
struct State {
  unsigned x = 0;
};
static inline void step(State &s, const In &in, Out &out) {
  out.y = share(in.a, s.x);
}
}
HLS_TOP(k);
