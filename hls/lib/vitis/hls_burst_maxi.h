// Stand-in for Xilinx's hls_burst_maxi.h: a memory port with requests of its own, for tests without Vitis. Ends the process when it is
// used in a way that AXI or the real class does not allow.
#pragma once
#include <cstdlib>
#include <deque>

#include "hls/lib/ap_int.h"

namespace hls {
template <class T> class burst_maxi {
 public:
  explicit burst_maxi(T *memory) : memory_(memory) {}
  void read_request(std::size_t offset, std::size_t length) { check(offset, length), reads_.push_back({offset, length}); }
  T read() {
    if (reads_.empty()) std::abort();
    Burst &b = reads_.front();
    T x = memory_[b.offset++];
    if (--b.length == 0) reads_.pop_front();
    return x;
  }
  void write_request(std::size_t offset, std::size_t length) { check(offset, length), writes_.push_back({offset, length}); }
  void write(const T &x, ap_uint<64> byte_enable = ~ap_uint<64>(0)) {
    if (writes_.empty()) std::abort();
    Burst &b = writes_.front();
    for (int i = 0; i < 64; i++)
      if (byte_enable[i]) memory_[b.offset].range(8 * i + 7, 8 * i) = x.range(8 * i + 7, 8 * i);
    b.offset++;
    if (--b.length == 0) writes_.pop_front(), answers_++;
  }
  void write_response() {
    if (answers_ == 0) std::abort();
    answers_--;
  }

 private:
  struct Burst { std::size_t offset, length; };
  T *memory_;
  std::deque<Burst> reads_, writes_;
  int answers_ = 0;
  static void check(std::size_t offset, std::size_t length) {
    if (length == 0 || length > 64 || offset / 64 != (offset + length - 1) / 64) std::abort();
  }
};
}  // namespace hls
