// Linked into every program, not into the room: what the programs ask of their allocator.
//
// Payloads come and go at the rate of writes. Pages that go back to the kernel for a moment cost a fault each: a tenth of a primary's
// processor time with the 25 ms that are mimalloc's default. A second; MIMALLOC_DECOMMIT_DELAY (milliseconds) wins over it.
#include <mimalloc.h>

#include <cstdlib>

namespace {

[[maybe_unused]] const bool asked = [] {
#if MI_MALLOC_VERSION < 210
  const mi_option_t delay = mi_option_decommit_delay;
#else
  const mi_option_t delay = mi_option_purge_delay;
#endif
  if (std::getenv("MIMALLOC_DECOMMIT_DELAY") == nullptr && std::getenv("MIMALLOC_PURGE_DELAY") == nullptr) mi_option_set(delay, 1000);
  return true;
}();

}  // namespace
