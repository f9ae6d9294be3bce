// ram<T, N>: a memory with one write and one read port, a cycle of latency, which becomes block RAM.
//
// In a step: call read() at most on one address and before write(), at most one write() on any path; q holds what the
// read() of an earlier cycle found. A read() of the address written in the same cycle gives the old content.
// T is a scalar (ap_uint, bool, builtin integer).
//
// rams<T, N, W> is ram<T, N>[W] for memories that are read and written at the same address. Natively what belongs together lies
// together: a wide word is one line of the processor's cache instead of W.
#pragma once
#include "hls/lib/ap_int.h"
#include "hls/lib/top.h"

template <class T, int N> struct ram {
  T mem[N];
  T q;
#ifdef HLS_NATIVE
  unsigned char apart[64];  // the same place of rams that lie side by side must not be in one set of the processor's cache
#endif
  template <class A> void read(const A &address) { q = mem[(unsigned)address]; }
  template <class A> void write(const A &address, const T &value) { mem[(unsigned)address] = value; }
};

#if defined(HLS_RTL) || defined(HLS_XILINX_AP_INT)
template <class T, int N, int W> using rams = ram<T, N>[W];
#else
template <class T, int N, int W> struct rams {
  T mem[N][W];
  T found[W];
  struct one {
    rams &all;
    int i;
    T &q;
    template <class A> void read(const A &address) { q = all.mem[(unsigned)address][i]; }
    template <class A> void write(const A &address, const T &value) { all.mem[(unsigned)address][i] = value; }
  };
  struct seen { const T &q; };
  one operator[](int i) { return one{*this, i, found[i]}; }
  seen operator[](int i) const { return seen{found[i]}; }
};
#endif
