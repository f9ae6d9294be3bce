#include "io/frame_memory.hpp"

#include <array>
#include <new>

namespace luge::io::frame_memory {
namespace {

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define LUGE_FRAMES_ARE_WATCHED 1
#endif
#endif

#ifdef LUGE_FRAMES_ARE_WATCHED
constexpr bool kKeep = false;  // a sanitizer is to see that a frame is used after its end
#else
constexpr bool kKeep = true;
#endif

constexpr std::size_t kStep = 64, kSizes = 48, kMostKept = 256;  // up to 3 KiB, so many of each size

struct Kept {
  Kept* next;
};
struct Shelf {
  Kept* first = nullptr;
  std::size_t count = 0;
};
constinit thread_local std::array<Shelf, kSizes> shelves{};

std::size_t size_class(std::size_t bytes) { return (bytes + kStep - 1) / kStep; }

}  // namespace

void* take(std::size_t bytes) {
  std::size_t n = size_class(bytes);
  if (!kKeep || n >= kSizes) return ::operator new(bytes);
  Shelf& shelf = shelves[n];
  if (shelf.first == nullptr) return ::operator new(n * kStep);
  --shelf.count;
  Kept* k = shelf.first;
  shelf.first = k->next;
  return k;
}

void give(void* frame, std::size_t bytes) noexcept {
  std::size_t n = size_class(bytes);
  if (!kKeep || n >= kSizes || shelves[n].count == kMostKept) return ::operator delete(frame);
  Shelf& shelf = shelves[n];
  shelf.first = new (frame) Kept{shelf.first};
  ++shelf.count;
}

}  // namespace luge::io::frame_memory
