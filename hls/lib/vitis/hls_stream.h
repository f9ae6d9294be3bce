// Stand-in for Xilinx's hls_stream.h: as much of hls::stream as the wrappers use, for tests without Vitis. Never full.
#pragma once
#include <cstdlib>
#include <deque>

namespace hls {
template <class T> class stream {
 public:
  bool empty() const { return items_.empty(); }
  bool full() const { return false; }
  bool read_nb(T &x) {
    if (items_.empty()) return false;
    x = items_.front(), items_.pop_front();
    return true;
  }
  T read() {
    if (items_.empty()) std::abort();  // in hardware: waits for ever
    T x = items_.front();
    items_.pop_front();
    return x;
  }
  void write(const T &x) { items_.push_back(x); }
  std::size_t size() const { return items_.size(); }

 private:
  std::deque<T> items_;
};
}  // namespace hls
