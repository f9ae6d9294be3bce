// Integers of any width for kernels, on the compiler's _BitInt: ap_uint<N> and ap_int<N>, with the names, result widths
// and implicit conversions of Xilinx's ap_int.h, so that a kernel compiles against either header and gives the same bits.
//
// Invariant: a value holds exactly N bits; every operator returns a type wide enough for its exact result (a + b has one
// bit more than its wider operand), except shifts, which keep the type of their left operand. Assignment truncates or
// extends. Shift amounts are non-negative; shifting by the width or more gives 0 (or the sign).
// Subset: arithmetic, logic, comparison, shifts, [bit], range(hi, lo) and (hi, lo), (a, b) concatenation, reductions.
// Not here, on purpose: fixed point, strings, division of operands wider than 128 bits. ap_int<1> doesn't exist.
// Conversion to a builtin keeps the low 64 bits; write `x != 0` for a wide x.
#pragma once
#if defined(HLS_XILINX_AP_INT)
#include <ap_int.h>  // Xilinx's own
#else

#include <type_traits>

template <int W> struct ap_uint;
template <int W> struct ap_int;

namespace ap_detail {
template <int W, bool S> struct raw { typedef unsigned _BitInt(W) type; };
template <int W> struct raw<W, true> { typedef _BitInt(W) type; };
template <int W, bool S> struct select { typedef ap_uint<W> type; };
template <int W> struct select<W, true> { typedef ap_int<W> type; };
constexpr int max(int a, int b) { return a > b ? a : b; }
constexpr int min(int a, int b) { return a < b ? a : b; }
// The builtin a value converts to: the smallest that holds it, 64 bits at most.
template <int W, bool S> struct builtin {
  typedef typename std::conditional<
      W <= 8, typename std::conditional<S, signed char, unsigned char>::type,
      typename std::conditional<
          W <= 16, typename std::conditional<S, short, unsigned short>::type,
          typename std::conditional<W <= 32, typename std::conditional<S, int, unsigned>::type,
                                    typename std::conditional<S, long long, unsigned long long>::type>::type>::type>::type
      type;
};
template <bool S> struct builtin<1, S> { typedef bool type; };
}  // namespace ap_detail

template <int W, bool S> struct ap_base {
  static_assert(W >= (S ? 2 : 1), "ap_uint needs 1 bit or more, ap_int 2 bits or more");
  typedef typename ap_detail::raw<W, S>::type raw_type;
  typedef typename ap_detail::builtin<W, S>::type builtin_type;
  static const int width = W;
  raw_type V;

  ap_base() = default;
  template <class T, class = typename std::enable_if<std::is_integral<T>::value>::type>
  constexpr ap_base(T x) : V((raw_type)x) {}
  template <int W2, bool S2> constexpr ap_base(const ap_base<W2, S2> &x) : V((raw_type)x.V) {}
  static ap_base of(raw_type v) { ap_base r; r.V = v; return r; }

  constexpr operator builtin_type() const { return (builtin_type)V; }
  constexpr bool operator!() const { return V == 0; }
  constexpr unsigned to_uint() const { return (unsigned)V; }
  constexpr int to_int() const { return (int)V; }
  constexpr unsigned long long to_uint64() const { return (unsigned long long)V; }
  constexpr long long to_int64() const { return (long long)V; }
  constexpr int length() const { return W; }

  typedef typename ap_detail::raw<W, false>::type bits_type;
  static bits_type mask(int n) { return n >= W ? (bits_type)~(bits_type)0 : (bits_type)(((bits_type)1 << n) - 1); }

  struct bit_ref {
    ap_base &p; int i;
    operator bool() const { return ((bits_type)p.V >> i) & 1; }
    bit_ref &operator=(bool b) {
      p.V = (raw_type)(((bits_type)p.V & ~(bits_type)((bits_type)1 << i)) | (bits_type)((bits_type)b << i));
      return *this;
    }
    bit_ref &operator=(const bit_ref &o) { return *this = (bool)o; }
  };
  struct range_ref {
    ap_base &p; int hi, lo;
    operator ap_uint<W>() const { ap_uint<W> r; r.V = ((bits_type)p.V >> lo) & mask(hi - lo + 1); return r; }
    template <int W2, bool S2> range_ref &operator=(const ap_base<W2, S2> &x) {
      bits_type m = mask(hi - lo + 1);
      p.V = (raw_type)(((bits_type)p.V & ~(bits_type)(m << lo)) | (bits_type)(((bits_type)x.V & m) << lo));
      return *this;
    }
    template <class T> typename std::enable_if<std::is_integral<T>::value, range_ref &>::type operator=(T x) {
      return *this = ap_uint<64>(x);
    }
    range_ref &operator=(const range_ref &o) { return *this = ap_uint<W>(o); }
    unsigned to_uint() const { return ap_uint<W>(*this).to_uint(); }
    unsigned long long to_uint64() const { return ap_uint<W>(*this).to_uint64(); }
  };
  bool operator[](int i) const { return ((bits_type)V >> i) & 1; }
  bit_ref operator[](int i) { return bit_ref{*this, i}; }
  bool test(int i) const { return ((bits_type)V >> i) & 1; }
  range_ref range(int hi, int lo) { return range_ref{*this, hi, lo}; }
  range_ref operator()(int hi, int lo) { return range_ref{*this, hi, lo}; }
  ap_uint<W> range(int hi, int lo) const {
    ap_uint<W> r; r.V = ((bits_type)V >> lo) & mask(hi - lo + 1); return r;
  }
  ap_uint<W> operator()(int hi, int lo) const { return range(hi, lo); }

  bool or_reduce() const { return V != 0; }
  bool and_reduce() const { return (bits_type)~(bits_type)V == 0; }
  bool xor_reduce() const {
    bool p = false;
    for (int i = 0; i < W; i += 64) p ^= (bool)__builtin_parityll((unsigned long long)((bits_type)V >> i));
    return p;
  }
};

template <int W> struct ap_uint : ap_base<W, false> {
  typedef ap_base<W, false> base;
  ap_uint() = default;
  template <class T, class = typename std::enable_if<std::is_integral<T>::value>::type> constexpr ap_uint(T x) : base(x) {}
  template <int W2, bool S2> constexpr ap_uint(const ap_base<W2, S2> &x) : base(x) {}
  template <int W2> constexpr ap_uint(const ap_uint<W2> &x) : base((const ap_base<W2, false> &)x) {}
};
template <int W> struct ap_int : ap_base<W, true> {
  typedef ap_base<W, true> base;
  ap_int() = default;
  template <class T, class = typename std::enable_if<std::is_integral<T>::value>::type> constexpr ap_int(T x) : base(x) {}
  template <int W2, bool S2> constexpr ap_int(const ap_base<W2, S2> &x) : base(x) {}
  template <int W2> constexpr ap_int(const ap_int<W2> &x) : base((const ap_base<W2, true> &)x) {}
};

namespace ap_detail {
template <class T> struct of_builtin {
  typedef typename select<std::is_same<T, bool>::value ? 1 : 8 * (int)sizeof(T), std::is_signed<T>::value>::type type;
};
}  // namespace ap_detail

// R is the result type of the operator on <W1,S1> and <W2,S2>; operands are widened to it first.
#define AP_BINARY(op, RW, RS)                                                                                   \
  template <int W1, bool S1, int W2, bool S2>                                                                    \
  inline typename ap_detail::select<(RW), (RS)>::type operator op(const ap_base<W1, S1> &a, const ap_base<W2, S2> &b) { \
    typename ap_detail::select<(RW), (RS)>::type r;                                                              \
    typedef typename ap_detail::raw<(RW), (RS)>::type T;                                                         \
    r.V = (T)((T)a.V op (T)b.V);                                                                                 \
    return r;                                                                                                    \
  }                                                                                                              \
  AP_WITH_BUILTIN(op)
#define AP_WITH_BUILTIN(op)                                                                                      \
  template <int W1, bool S1, class T, class = typename std::enable_if<std::is_integral<T>::value>::type>         \
  inline auto operator op(const ap_base<W1, S1> &a, T b)->decltype(a op typename ap_detail::of_builtin<T>::type(b)) { \
    return a op typename ap_detail::of_builtin<T>::type(b);                                                      \
  }                                                                                                              \
  template <int W1, bool S1, class T, class = typename std::enable_if<std::is_integral<T>::value>::type>         \
  inline auto operator op(T b, const ap_base<W1, S1> &a)->decltype(typename ap_detail::of_builtin<T>::type(b) op a) { \
    return typename ap_detail::of_builtin<T>::type(b) op a;                                                      \
  }
#define AP_LOGIC_W ap_detail::max(W1 + (S2 && !S1), W2 + (S1 && !S2))
AP_BINARY(+, AP_LOGIC_W + 1, S1 || S2)
AP_BINARY(-, AP_LOGIC_W + 1, true)
AP_BINARY(*, W1 + W2, S1 || S2)
AP_BINARY(&, AP_LOGIC_W, S1 || S2)
AP_BINARY(|, AP_LOGIC_W, S1 || S2)
AP_BINARY(^, AP_LOGIC_W, S1 || S2)
#undef AP_BINARY

// Division and remainder are computed at the width that holds both operands.
#define AP_DIVIDE(op, RW, RS)                                                                                    \
  template <int W1, bool S1, int W2, bool S2>                                                                    \
  inline typename ap_detail::select<(RW), (RS)>::type operator op(const ap_base<W1, S1> &a, const ap_base<W2, S2> &b) { \
    typedef typename ap_detail::raw<AP_LOGIC_W, S1 || S2>::type T;                                               \
    typename ap_detail::select<(RW), (RS)>::type r;                                                              \
    r.V = (typename ap_detail::raw<(RW), (RS)>::type)((T)a.V op (T)b.V);                                         \
    return r;                                                                                                    \
  }                                                                                                              \
  AP_WITH_BUILTIN(op)
AP_DIVIDE(/, W1 + S2, S1 || S2)
AP_DIVIDE(%, ap_detail::min(W1, W2 + (!S2 && S1)), S1)
#undef AP_DIVIDE

#define AP_COMPARE(op)                                                                                           \
  template <int W1, bool S1, int W2, bool S2>                                                                    \
  inline bool operator op(const ap_base<W1, S1> &a, const ap_base<W2, S2> &b) {                                  \
    typedef typename ap_detail::raw<AP_LOGIC_W, S1 || S2>::type T;                                               \
    return (T)a.V op (T)b.V;                                                                                     \
  }                                                                                                              \
  AP_WITH_BUILTIN(op)
AP_COMPARE(==) AP_COMPARE(!=) AP_COMPARE(<) AP_COMPARE(<=) AP_COMPARE(>) AP_COMPARE(>=)
#undef AP_COMPARE
#undef AP_WITH_BUILTIN
#undef AP_LOGIC_W

template <int W, bool S> inline typename ap_detail::select<W, S>::type operator~(const ap_base<W, S> &a) {
  typename ap_detail::select<W, S>::type r; r.V = (typename ap_base<W, S>::raw_type)~a.V; return r;
}
template <int W, bool S> inline ap_int<W + 1> operator-(const ap_base<W, S> &a) {
  ap_int<W + 1> r; r.V = (typename ap_detail::raw<W + 1, true>::type)(0 - (typename ap_detail::raw<W + 1, true>::type)a.V); return r;
}
// Shifts by a constant fold away; by a variable they cost a barrel shifter.
template <int W, bool S> inline typename ap_detail::select<W, S>::type ap_shl(const ap_base<W, S> &a, unsigned long long n) {
  typedef typename ap_base<W, S>::bits_type B;
  typename ap_detail::select<W, S>::type r;
  r.V = n >= (unsigned long long)W ? (typename ap_base<W, S>::raw_type)0 : (typename ap_base<W, S>::raw_type)(B)((B)a.V << n);
  return r;
}
template <int W, bool S> inline typename ap_detail::select<W, S>::type ap_shr(const ap_base<W, S> &a, unsigned long long n) {
  typedef typename ap_base<W, S>::raw_type R;
  typename ap_detail::select<W, S>::type r;
  r.V = n >= (unsigned long long)W ? (R)(S && a.V < 0 ? -1 : 0) : (R)(a.V >> n);
  return r;
}
template <int W, bool S, int W2, bool S2> inline typename ap_detail::select<W, S>::type operator<<(const ap_base<W, S> &a, const ap_base<W2, S2> &n) { return ap_shl(a, (unsigned long long)n.V); }
template <int W, bool S, int W2, bool S2> inline typename ap_detail::select<W, S>::type operator>>(const ap_base<W, S> &a, const ap_base<W2, S2> &n) { return ap_shr(a, (unsigned long long)n.V); }
template <int W, bool S, class T, class = typename std::enable_if<std::is_integral<T>::value>::type> inline typename ap_detail::select<W, S>::type operator<<(const ap_base<W, S> &a, T n) { return ap_shl(a, (unsigned long long)n); }
template <int W, bool S, class T, class = typename std::enable_if<std::is_integral<T>::value>::type> inline typename ap_detail::select<W, S>::type operator>>(const ap_base<W, S> &a, T n) { return ap_shr(a, (unsigned long long)n); }

#define AP_ASSIGN(op)                                                                                            \
  template <int W, class T> inline ap_uint<W> &operator op##=(ap_uint<W> &a, const T &b) { a = ap_uint<W>(a op b); return a; } \
  template <int W, class T> inline ap_int<W> &operator op##=(ap_int<W> &a, const T &b) { a = ap_int<W>(a op b); return a; }
AP_ASSIGN(+) AP_ASSIGN(-) AP_ASSIGN(*) AP_ASSIGN(&) AP_ASSIGN(|) AP_ASSIGN(^) AP_ASSIGN(<<) AP_ASSIGN(>>)
#undef AP_ASSIGN
template <int W> inline ap_uint<W> &operator++(ap_uint<W> &a) { a = a + 1; return a; }
template <int W> inline ap_uint<W> &operator--(ap_uint<W> &a) { a = a - 1; return a; }
template <int W> inline ap_uint<W> operator++(ap_uint<W> &a, int) { ap_uint<W> o = a; a = a + 1; return o; }
template <int W> inline ap_uint<W> operator--(ap_uint<W> &a, int) { ap_uint<W> o = a; a = a - 1; return o; }

// (a, b): a above b.
template <int W1, bool S1, int W2, bool S2> inline ap_uint<W1 + W2> operator,(const ap_base<W1, S1> &a, const ap_base<W2, S2> &b) {
  typedef typename ap_detail::raw<W1 + W2, false>::type T;
  ap_uint<W1 + W2> r;
  r.V = (T)((T)(typename ap_base<W1, S1>::bits_type)a.V << W2) | (T)(typename ap_base<W2, S2>::bits_type)b.V;
  return r;
}
#endif
