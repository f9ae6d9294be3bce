#include "hls/lib/ap_int.h"
#include "hls/lib/ram.h"
#include "hls/lib/top.h"
enum class E { minus = -1, zero };
namespace k {
struct In { unsigned a; int i; };
struct Out { unsigned y; };
struct State {
  E e;
};
static inline void step(State &s, const In &in, Out &out) {
  out.y = (unsigned)s.e;
}
}
HLS_TOP(k);
