#include "sim/cluster/memory.hpp"

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

#else

void keep_freed_memory() {
#if MI_MALLOC_VERSION < 210
  mi_option_disable(mi_option_allow_decommit);
#else
  mi_option_set(mi_option_purge_delay, -1);
#endif
}

#endif

}  // namespace luge::sim
