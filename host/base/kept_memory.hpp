// Memory of objects that come and go with each request, of a few sizes: what is freed is kept, by size, for the next of the same thread.
// The general allocator takes an aligned block the long way round each time, and gives back memory that has gone cold.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <new>

namespace luge {

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define LUGE_MEMORY_IS_WATCHED 1
#endif
#endif

#ifdef LUGE_MEMORY_IS_WATCHED
inline constexpr bool kMemoryIsKept = false;  // a sanitizer is to see that something is used after its end
#else
inline constexpr bool kMemoryIsKept = true;
#endif

/// Sizes are rounded up to multiples of `kStep` bytes; of each below `kSizes` steps at most `kMostKept` pieces and (but for
/// one) `kMostBytes` are kept. Not thread-safe: an object per thread (thread_local). Memory may be given back to another object of the same type than
/// it was taken from.
template <std::size_t kStep, std::size_t kSizes, std::size_t kMostKept, std::size_t kMostBytes, std::size_t kAlignment = alignof(std::max_align_t)>
class KeptMemory {
 public:
  /// Uninitialised, aligned to `kAlignment`. Throws std::bad_alloc.
  void* take(std::size_t bytes) {
    std::size_t n = steps(bytes);
    if (!kMemoryIsKept || n >= kSizes || shelves_[n].first == nullptr) return ::operator new(n * kStep, std::align_val_t(kAlignment));
    Shelf& shelf = shelves_[n];
    --shelf.count;
    Kept* k = shelf.first;
    shelf.first = k->next;
    return k;
  }

  /// `bytes`: as taken.
  void give(void* memory, std::size_t bytes) noexcept {
    std::size_t n = steps(bytes);
    if (!kMemoryIsKept || n >= kSizes || shelves_[n].count >= most(n)) return ::operator delete(memory, std::align_val_t(kAlignment));
    Shelf& shelf = shelves_[n];
    shelf.first = new (memory) Kept{shelf.first};
    ++shelf.count;
  }

  constexpr KeptMemory() = default;
  KeptMemory(const KeptMemory&) = delete;
  KeptMemory& operator=(const KeptMemory&) = delete;
  ~KeptMemory() {
    for (Shelf& shelf : shelves_) {
      while (Kept* k = shelf.first) {
        shelf.first = k->next;
        ::operator delete(k, std::align_val_t(kAlignment));
      }
      shelf.count = kMostKept;  // what the thread frees after this is not kept
    }
  }

 private:
  struct Kept {
    Kept* next;
  };
  struct Shelf {
    Kept* first = nullptr;
    std::size_t count = 0;
  };
  static constexpr std::size_t steps(std::size_t bytes) { return std::max<std::size_t>((bytes + kStep - 1) / kStep, 1); }
  static constexpr std::size_t most(std::size_t n) { return std::min(kMostKept, std::max<std::size_t>(kMostBytes / (n * kStep), 1)); }
  std::array<Shelf, kSizes> shelves_{};
};

}  // namespace luge
