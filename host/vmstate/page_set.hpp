// A set of pages that one thread may add to while another takes all of them: how dirty pages are gathered during a copy.
//
// Invariant: what is added is in the set until some take() hands it out; take() leaves nothing that it did not hand out.
#pragma once

#include <atomic>
#include <bit>
#include <cstdint>
#include <vector>

#include "base/check.hpp"

namespace luge::vmstate {

inline constexpr std::uint64_t kPage = 4096;

class PageSet {
 public:
  explicit PageSet(std::uint64_t pages = 0) : pages_(pages), words_((pages + 63) / 64) {}

  std::uint64_t pages() const { return pages_; }
  void add(std::uint64_t page) {
    LUGE_CHECK(page < pages_);
    word(page / 64).fetch_or(std::uint64_t{1} << (page % 64), std::memory_order_acq_rel);
  }
  /// REQUIRES: [first, first + count) within pages().
  void add(std::uint64_t first, std::uint64_t count) {
    LUGE_CHECK(first <= pages_ && count <= pages_ - first);
    while (count != 0) {
      const std::uint64_t bit = first % 64, n = std::min(count, 64 - bit);
      word(first / 64).fetch_or((n == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << n) - 1) << bit, std::memory_order_acq_rel);
      first += n, count -= n;
    }
  }
  void add_all() { add(0, pages_); }
  void add(const PageSet& other) {
    LUGE_CHECK(other.pages_ == pages_);
    for (std::size_t i = 0; i < words_.size(); ++i)
      if (std::uint64_t w = other.peek(i)) word(i).fetch_or(w, std::memory_order_acq_rel);
  }
  bool contains(std::uint64_t page) const { return page < pages_ && (peek(page / 64) >> (page % 64) & 1) != 0; }
  void remove(std::uint64_t page) {
    LUGE_CHECK(page < pages_);
    word(page / 64).fetch_and(~(std::uint64_t{1} << (page % 64)), std::memory_order_acq_rel);
  }
  void clear() {
    for (std::size_t i = 0; i < words_.size(); ++i) word(i).store(0, std::memory_order_release);
  }
  /// Hands over what is in the set and leaves it empty.
  PageSet take() {
    PageSet out(pages_);
    for (std::size_t i = 0; i < words_.size(); ++i)
      if (peek(i) != 0) out.words_[i] = word(i).exchange(0, std::memory_order_acq_rel);
    return out;
  }
  std::uint64_t count() const {
    std::uint64_t n = 0;
    for (std::size_t i = 0; i < words_.size(); ++i) n += static_cast<std::uint64_t>(std::popcount(peek(i)));
    return n;
  }
  /// How many are in both.
  std::uint64_t count_common(const PageSet& other) const {
    std::uint64_t n = 0;
    for (std::size_t i = 0; i < words_.size() && i < other.words_.size(); ++i) n += static_cast<std::uint64_t>(std::popcount(peek(i) & other.peek(i)));
    return n;
  }
  bool empty() const {
    for (std::size_t i = 0; i < words_.size(); ++i)
      if (peek(i) != 0) return false;
    return true;
  }
  /// f(page) in rising order.
  template <class F>
  void for_each(F f) const {
    for (std::size_t i = 0; i < words_.size(); ++i)
      for (std::uint64_t w = peek(i); w != 0; w &= w - 1) f(i * 64 + static_cast<std::uint64_t>(std::countr_zero(w)));
  }

 private:
  std::atomic_ref<std::uint64_t> word(std::size_t i) { return std::atomic_ref<std::uint64_t>(words_[i]); }
  std::uint64_t peek(std::size_t i) const { return std::atomic_ref<std::uint64_t>(const_cast<std::uint64_t&>(words_[i])).load(std::memory_order_acquire); }
  std::uint64_t pages_;
  std::vector<std::uint64_t> words_;
};

}  // namespace luge::vmstate
