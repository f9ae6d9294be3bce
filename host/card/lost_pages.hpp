// Mapped files of another process, which may shrink them at any time: an access to a page that is gone would end this process by SIGBUS.
// Between add() and remove() such a page becomes one of zeros that nobody else sees, and `lost` is set.
//
// Threads: any, one at a time; the handler of SIGBUS, installed by the first add(), on whichever touches the page.
#pragma once

#include <atomic>
#include <cstdint>

namespace luge::card {

class LostPages {
 public:
  /// `fd`: of the file. False: too many are mapped.
  static bool add(void* at, std::uint64_t bytes, int fd, std::atomic<bool>* lost);
  static void remove(std::atomic<bool>* lost);
};

}  // namespace luge::card
