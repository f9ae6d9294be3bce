#include "hls/lib/ap_int.h"
#include "hls/lib/ram.h"
#include "hls/lib/top.h"
extern "C" unsigned long strlen(const char *);
namespace k {
struct In { char b[8]; };
struct Out { unsigned y; };
struct State {
  unsigned x = 0;
};
static inline void step(State &s, const In &in, Out &out) {
  out.y = strlen((const char *)in.b);
}
}
HLS_TOP(k);
