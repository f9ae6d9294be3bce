#include "hls/lib/ap_int.h"
#include "hls/lib/ram.h"
#include "hls/lib/top.h"
namespace k {
struct In { unsigned a; int i; };
struct Out { unsigned y; };
struct State {
  ram<ap_uint<32>, 64> m; unsigned x;
};
static inline void step(State &s, const In &in, Out &out) {
  out.y = s.x ^ s.m.q;
  s.m.read(in.a & 63);
  s.x = s.m.q;
  s.m.read((in.a + 1) & 63);
}
}
HLS_TOP(k);
