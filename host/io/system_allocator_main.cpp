// Linked into programs that keep the C library's allocator: those that load drivers of others (luge_program's SYSTEM_ALLOCATOR).
//
// Payload buffers come and go by the megabyte: they stay in the heap instead of being mapped and faulted in anew each.
#include <malloc.h>

namespace {

[[maybe_unused]] const bool asked = [] {
  ::mallopt(M_MMAP_THRESHOLD, 32 << 20);  // the greatest that glibc takes
  ::mallopt(M_TRIM_THRESHOLD, 256 << 20);
  return true;
}();

}  // namespace
