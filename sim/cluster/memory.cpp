#include "sim/cluster/memory.hpp"

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>

#ifdef LUGE_MIMALLOC
#include <mimalloc.h>
#else
#include <malloc.h>

#include "base/check.hpp"
#endif

namespace luge::sim {

#ifndef LUGE_MIMALLOC

void keep_freed_memory() {
  LUGE_CHECK(mallopt(M_MMAP_THRESHOLD, 32 << 20) == 1);  // more is refused
  LUGE_CHECK(mallopt(M_TRIM_THRESHOLD, 1 << 30) == 1);
}

void take_large_pages() {}

#else

void keep_freed_memory() {
#if MI_MALLOC_VERSION < 210
  mi_option_disable(mi_option_allow_decommit);
#else
  mi_option_set(mi_option_purge_delay, -1);
#endif
}

// mimalloc's own option asks the kernel for reserved large pages, which nobody has set aside. What does not fit here it takes as ever.
void take_large_pages() {
  constexpr std::size_t kBytes = std::size_t{4} << 30, kAlignment = 64 << 20;  // at least a segment's of mimalloc
  void* p = ::mmap(nullptr, kBytes + kAlignment, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) return;
  void* start = reinterpret_cast<void*>((reinterpret_cast<std::uintptr_t>(p) + kAlignment - 1) / kAlignment * kAlignment);
  (void)::madvise(start, kBytes, MADV_HUGEPAGE);  // only faster
  (void)mi_manage_os_memory(start, kBytes, true, false, true, -1);
}

#endif

}  // namespace luge::sim
