#include "hls/lib/ap_int.h"
#include "hls/lib/top.h"
namespace scale {
struct Word { ap_uint<16> lane[8]; };
struct In  { struct { bool tvalid; Word tdata; bool tlast; } s_axis;  struct { bool tready; } m_axis; ap_uint<4> shift; };
struct Out { struct { bool tready; } s_axis;  struct { bool tvalid; Word tdata; bool tlast; } m_axis; };
struct State { bool v1 = false, last1; Word d1; };
static inline void step(State &s, const In &in, Out &out) {
  out.m_axis.tvalid = s.v1; out.m_axis.tlast = s.last1;
  for (int i = 0; i < 8; i++) out.m_axis.tdata.lane[i] = s.d1.lane[i];
  bool ready = !s.v1 || in.m_axis.tready; out.s_axis.tready = ready;
  if (ready) { s.v1 = in.s_axis.tvalid; s.last1 = in.s_axis.tlast;
    for (int i = 0; i < 8; i++) s.d1.lane[i] = in.s_axis.tdata.lane[i] << in.shift; }
}
}
HLS_TOP(scale);
