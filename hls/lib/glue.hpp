// Bits between kernel types and a Verilated model's ports. For test benches (C++20), not for kernels.
#pragma once
#include <verilated.h>

#include <cstdint>
#include <cstdio>
#include <initializer_list>
#include <string>
#include <type_traits>

#include "hls/lib/ap_int.h"

namespace hls {

// Bits [at, at + 64) of a value.
template <int W, bool S> inline uint64_t chunk(const ap_base<W, S> &x, int at) {
  return (uint64_t)((typename ap_base<W, S>::bits_type)x.V >> at);
}
template <class T> inline typename std::enable_if<std::is_integral<T>::value || std::is_enum<T>::value, uint64_t>::type chunk(const T &x, int at) {
  return at ? 0 : (uint64_t)x;
}
constexpr uint64_t ones(int n) { return n >= 64 ? ~0ull : (1ull << n) - 1; }

template <std::size_t N> inline uint64_t port_bits(const VlWide<N> &p, int at, int n) {
  uint64_t v = 0;
  for (int got = 0; got < n;) {
    int word = (at + got) / 32, bit = (at + got) % 32, take = 32 - bit < n - got ? 32 - bit : n - got;
    v |= ((uint64_t)(p[word] >> bit) & ones(take)) << got;
    got += take;
  }
  return v;
}
template <class P> inline typename std::enable_if<std::is_integral<P>::value, uint64_t>::type port_bits(const P &p, int at, int n) {
  return ((uint64_t)p >> at) & ones(n);
}
template <std::size_t N> inline void set_port_bits(VlWide<N> &p, int at, int n, uint64_t v) {
  for (int done = 0; done < n;) {
    int word = (at + done) / 32, bit = (at + done) % 32, take = 32 - bit < n - done ? 32 - bit : n - done;
    p[word] = (uint32_t)((p[word] & ~(ones(take) << bit)) | ((v >> done & ones(take)) << bit));
    done += take;
  }
}
template <class P> inline typename std::enable_if<std::is_integral<P>::value>::type set_port_bits(P &p, int at, int n, uint64_t v) {
  p = (P)(((uint64_t)p & ~(ones(n) << at)) | (v & ones(n)) << at);
}

// Bits [LO + W - 1 : LO] of the port <-> the value.
template <int LO, int W, class P, class T> inline void put(P &port, const T &x) {
  for (int at = 0; at < W; at += 64) set_port_bits(port, LO + at, W - at < 64 ? W - at : 64, chunk(x, at));
}
template <int LO, int W, class P, int N, bool S> inline void take_ap(const P &port, ap_base<N, S> &x) {
  typename ap_base<N, S>::bits_type v = 0;
  for (int at = 0; at < W; at += 64) v |= (typename ap_base<N, S>::bits_type)port_bits(port, LO + at, W - at < 64 ? W - at : 64) << at;
  x.V = (typename ap_base<N, S>::raw_type)v;
}
template <int LO, int W, class P, int N> inline void take(const P &port, ap_uint<N> &x) { take_ap<LO, W>(port, x); }
template <int LO, int W, class P, int N> inline void take(const P &port, ap_int<N> &x) { take_ap<LO, W>(port, x); }
template <int LO, int W, class P, class T> inline typename std::enable_if<std::is_integral<T>::value || std::is_enum<T>::value>::type take(const P &port, T &x) {
  x = (T)port_bits(port, LO, W);
}

// A value out of 64-bit parts, the lowest first.
template <int N> inline void set(ap_uint<N> &x, std::initializer_list<unsigned long long> parts) {
  x = 0;
  int at = 0;
  for (auto p : parts) x.V |= (decltype(x.V))((unsigned _BitInt(N < 64 ? 64 : N))p << at), at += 64;
}
template <int N> inline void set(ap_int<N> &x, std::initializer_list<unsigned long long> parts) {
  ap_uint<N> bits;
  set(bits, parts);
  x.V = (typename ap_int<N>::raw_type)bits.V;
}
template <class T> inline typename std::enable_if<std::is_integral<T>::value || std::is_enum<T>::value>::type set(T &x, std::initializer_list<unsigned long long> parts) { x = (T)*parts.begin(); }

template <int W, class T> inline std::string hex(const T &x) {
  std::string s;
  char digits[20];
  for (int at = (W - 1) / 64 * 64; at >= 0; at -= 64) {
    std::snprintf(digits, sizeof digits, s.empty() ? "%llx" : "%016llx", (unsigned long long)(chunk(x, at) & ones(W - at < 64 ? W - at : 64)));
    s += digits;
  }
  return s;
}

}  // namespace hls
