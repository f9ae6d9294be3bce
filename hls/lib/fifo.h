// fifo<T, N>: a queue in registers, N a power of two, for a handful of narrow entries. front() is a mux over all of them.
//
// In a step write the consumer (empty, front, take) before the producer (full, put): a put of this cycle is then seen in the next.
// REQUIRES: take only if !empty(), put only if !full().
#pragma once
#include "hls/lib/ap_int.h"

namespace fifo_detail {
template <int N> struct log2 { static const int value = 1 + log2<N / 2>::value; };
template <> struct log2<1> { static const int value = 0; };
}  // namespace fifo_detail

template <class T, int N> struct fifo {
  static const int BITS = fifo_detail::log2<N>::value;
  T item[N];
  ap_uint<BITS> head = 0, tail = 0;
  ap_uint<BITS + 1> count = 0;
  bool empty() const { return count == 0; }
  bool full() const { return count == N; }
  const T &front() const { return item[head.to_uint()]; }
  void take() { head = head + 1, count = count - 1; }
  void put(const T &x) { item[tail.to_uint()] = x, tail = tail + 1, count = count + 1; }
};
