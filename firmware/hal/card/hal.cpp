// The controller itself: sleep, starting over, and where it begins.
#include "firmware/hal/hal.hpp"

#include "firmware/firmware.hpp"

extern "C" void fw_sleep();
extern "C" [[noreturn]] void fw_start();

namespace fw::hal {
void idle() { fw_sleep(); }
void restart() { fw_start(); }
}  // namespace fw::hal

extern "C" void fw_main() {
  fw::boot();
  for (;;) {
    fw::poll();
    fw::hal::idle();
  }
}

extern "C" void fw_trap(uint32_t cause, uint32_t where) { fw::trapped(cause, where); }
