#include "hls/lib/ap_int.h"
#include "hls/lib/ram.h"
#include "hls/lib/top.h"
struct Base { unsigned x; virtual void f() {} };
namespace k {
struct In { unsigned a; int i; };
struct Out { unsigned y; };
struct State {
  Base b;
};
static inline void step(State &s, const In &in, Out &out) {
  out.y = s.b.x;
}
}
HLS_TOP(k);
