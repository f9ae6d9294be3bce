#include "hls/lib/ap_int.h"
#include "hls/lib/ram.h"
#include "hls/lib/top.h"
extern unsigned somewhere;
namespace k {
struct In { unsigned a; int i; };
struct Out { unsigned y; };
struct State {
  unsigned b = somewhere;
};
static inline void step(State &s, const In &in, Out &out) {
  out.y = s.b;
}
}
HLS_TOP(k);
