// AXI bundles, as a manager sees them: `Out` is what a manager drives, `In` what it is driven with. A kernel that is a manager
// puts `axi::ReadOut m_axi` into its Out and `axi::ReadIn m_axi` into its In; a subordinate puts `axi::ReadOut s_axi` into its In.
// A member's path is the port's name: m_axi.arvalid is m_axi_arvalid.
//
// Invariants of every memory port of the card, which the checkers of sim/card hold it to:
// - 64-byte beats, INCR, at most 64 beats, never across 4 KiB; arlen and awlen are beats - 1, as on the bus
// - addresses of bursts are multiples of 64; bytes outside a write are masked by wstrb
// - one ID: responses come in the order of the requests
// - valid, once high, stays with an unchanged payload until ready; valid never waits for ready
// size (64 bytes), burst (INCR), cache and prot are constants, which the packaging ties.
#pragma once
#include "hls/lib/ap_int.h"

namespace axi {

static const int BYTES = 64;       // of a beat
static const int MAX_BEATS = 64;   // of a burst
static const int BOUNDARY = 4096;  // that no burst crosses
static const int OKAY = 0, EXOKAY = 1, SLVERR = 2, DECERR = 3;

// 512 bits by bytes (for arithmetic on bytes) and by words (for memories and queues): the same bits in the same order.
struct Bytes { ap_uint<8> lane[64]; };
struct Words { ap_uint<64> lane[8]; };

struct ReadOut { bool arvalid; ap_uint<64> araddr; ap_uint<8> arlen; bool rready; };
template <class D> struct ReadInOf { bool arready; bool rvalid; D rdata; ap_uint<2> rresp; bool rlast; };
typedef ReadInOf<Bytes> ReadIn;

template <class D> struct WriteOutOf {
  bool awvalid; ap_uint<64> awaddr; ap_uint<8> awlen;
  bool wvalid; D wdata; ap_uint<64> wstrb; bool wlast;
  bool bready;
};
typedef WriteOutOf<Bytes> WriteOut;
struct WriteIn { bool awready, wready, bvalid; ap_uint<2> bresp; };

// AXI4-Lite, 32 bits, 64 KiB.
struct LiteOut {
  bool awvalid; ap_uint<16> awaddr; bool wvalid; ap_uint<32> wdata; ap_uint<4> wstrb; bool bready;
  bool arvalid; ap_uint<16> araddr; bool rready;
};
struct LiteIn {
  bool awready, wready, bvalid; ap_uint<2> bresp;
  bool arready, rvalid; ap_uint<32> rdata; ap_uint<2> rresp;
};

// AXI-Stream of 64-byte words.
template <class D> struct StreamOutOf { bool tvalid; D tdata; bool tlast; };
typedef StreamOutOf<Bytes> StreamOut;
struct StreamIn { bool tready; };

// Bytes <-> words, lane 0 lowest. Natively both are the same 64 bytes of memory.
#if defined(HLS_RTL) || defined(HLS_XILINX_AP_INT)
static inline Words to_words(const Bytes &b) {
  Words w;
  for (int i = 0; i < 8; i++) {
    ap_uint<64> v = 0;
    for (int j = 0; j < 8; j++) v = v | (ap_uint<64>(b.lane[8 * i + j]) << (8 * j));
    w.lane[i] = v;
  }
  return w;
}
static inline Bytes to_bytes(const Words &w) {
  Bytes b;
  for (int i = 0; i < 64; i++) b.lane[i] = w.lane[i / 8] >> (8 * (i % 8));
  return b;
}
#else
static_assert(sizeof(Bytes) == 64 && sizeof(Words) == 64, "");
static inline Words to_words(const Bytes &b) { Words w; __builtin_memcpy((void *)&w, &b, 64); return w; }
static inline Bytes to_bytes(const Words &w) { Bytes b; __builtin_memcpy((void *)&b, &w, 64); return b; }
#endif

// Beats of the burst that starts at `address` when `beats` are left: to the 4 KiB boundary at most.
static inline ap_uint<7> burst_beats(ap_uint<64> address, ap_uint<32> beats) {
  ap_uint<7> room = ap_uint<7>(MAX_BEATS - (address.to_uint() >> 6 & 63));
  bool many = (beats >> 6) != 0;  // 64 or more: what is left of the page
  ap_uint<6> few = beats;
  return many || few >= room ? room : ap_uint<7>(few);
}
// Where the next burst starts, if there is one, in units of 64 bytes: a burst that isn't the last ends with its page.
static inline ap_uint<58> next_burst(ap_uint<58> line) { return (ap_uint<52>((line >> 6) + 1), ap_uint<6>(0)); }

}  // namespace axi
