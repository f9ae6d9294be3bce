// channel<T>: a ready/valid queue of two between kernels. Both its sides come from registers, so that kernels joined by channels
// have no combinational path into each other and may be stepped in any order within a cycle.
//
// In a step: look at can_put() and can_take() (and front()) as they were at the start of the cycle, then call tick() once.
// REQUIRES: put only if can_put(), take only if can_take().
#pragma once
#include "hls/lib/ap_int.h"

template <class T> struct channel {
  bool full0 = false, full1 = false;
  T d0, d1;
  bool can_put() const { return !full1; }
  bool can_take() const { return full0; }
  const T &front() const { return d0; }
  bool empty() const { return !full0; }
  void tick(bool put, const T &x, bool take) {
    if (take || !full0) {
      bool second = full1;
      if (second) d0 = d1; else d0 = x;
      full0 = second || put;
      full1 = false;
    } else if (put) {
      d1 = x, full1 = true;
    }
  }
};
