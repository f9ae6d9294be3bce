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
  unsigned r; asm("mov %1, %0" : "=r"(r) : "r"(in.a));
  out.y = r;
}
}
HLS_TOP(k);
