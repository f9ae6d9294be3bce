// What the wrappers for Vitis HLS (hls/*/vitis.cpp) share. A wrapper is a loop of step() calls between hls::streams and memory ports; its
// top function is what hls_config.cfg names. C++14, and nothing of it is used by the RTL that rtlgen makes.
//
// A memory port is hls::burst_maxi, which waits and knows no error responses: behind it time-outs never come, and `fail` is always 0.
// Addresses are offsets in the buffer that the host gives as the port's argument.
#pragma once
#include <ap_axi_sdata.h>
#include <hls_burst_maxi.h>
#include <hls_stream.h>

#include "hls/lib/axi.h"
#include "hls/lib/fifo.h"

namespace vitis {

typedef ap_uint<512> Wide;
typedef ap_axiu<512, 0, 0, 0> Beat;
typedef hls::burst_maxi<Wide> Port;

// What is offered at an input until the kernel takes it.
template <class T> struct Offer {
  T data;
  bool valid = false;
  void fetch(hls::stream<T> &s) { if (!valid) valid = s.read_nb(data); }
  void done(bool taken) { if (taken) valid = false; }
};

template <class L> static inline Wide wide_of_bytes(const L &x) {
  Wide w = 0;
  for (int i = 0; i < 64; i++) {
#pragma HLS UNROLL
    w.range(8 * i + 7, 8 * i) = x.lane[i];
  }
  return w;
}
template <class L> static inline void bytes_of_wide(L &x, const Wide &w) {
  for (int i = 0; i < 64; i++) {
#pragma HLS UNROLL
    x.lane[i] = ap_uint<8>(w.range(8 * i + 7, 8 * i));
  }
}
static inline Wide wide_of_words(const axi::Words &x) {
  Wide w = 0;
  for (int i = 0; i < 8; i++) {
#pragma HLS UNROLL
    w.range(64 * i + 63, 64 * i) = x.lane[i];
  }
  return w;
}
static inline axi::Words words_of_wide(const Wide &w) {
  axi::Words x;
  for (int i = 0; i < 8; i++) {
#pragma HLS UNROLL
    x.lane[i] = ap_uint<64>(w.range(64 * i + 63, 64 * i));
  }
  return x;
}
static inline Beat beat(const Wide &data, bool last) {
  Beat b;
  b.data = data, b.keep = b.strb = ~ap_uint<64>(0), b.last = last;
  return b;
}

// Read channels of a kernel that is a manager, on a Port: call before() and after() around its step.
template <int BURSTS> struct Reads {
  fifo<ap_uint<7>, BURSTS> lengths;  // of the bursts asked for
  ap_uint<7> arrived = 0;
  bool valid = false, last = false;
  Wide data;
  void before(Port &port) {
    if (valid || lengths.empty()) return;
    data = port.read(), valid = true;
    arrived = arrived + 1, last = arrived == lengths.front();
    if (last) arrived = 0, lengths.take();
  }
  bool can_ask() const { return !lengths.full(); }
  void after(Port &port, bool arvalid, ap_uint<64> araddr, ap_uint<8> arlen, bool rready) {
    if (rready) valid = false;
    if (!arvalid || lengths.full()) return;
    port.read_request((araddr >> 6).to_uint64(), arlen.to_uint() + 1);
    lengths.put(ap_uint<7>(arlen + 1));
  }
};

// Write channels: an address is taken at once, data only for addresses taken, answers come one a cycle behind the data.
struct Writes {
  ap_uint<16> granted = 0, owed = 0;  // beats whose address was taken; bursts written and not answered
  bool answer = false;
  void before(Port &port) {
    answer = owed != 0;
    if (answer) port.write_response(), owed = owed - 1;
  }
  bool can_send() const { return granted != 0; }
  void after(Port &port, bool awvalid, ap_uint<64> awaddr, ap_uint<8> awlen, bool wtaken, const Wide &data, ap_uint<64> strobes, bool wlast) {
    if (wtaken) {
      port.write(data, strobes), granted = granted - 1;
      if (wlast) owed = owed + 1;
    }
    if (awvalid) port.write_request((awaddr >> 6).to_uint64(), awlen.to_uint() + 1), granted = granted + awlen + 1;
  }
};

}  // namespace vitis
