// ram<T, N>: a memory with one write and one read port, a cycle of latency, which becomes block RAM.
//
// In a step: call read() at most on one address and before write(), at most one write() on any path; q holds what the
// read() of an earlier cycle found. A read() of the address written in the same cycle gives the old content.
// T is a scalar (ap_uint, bool, builtin integer).
#pragma once
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
