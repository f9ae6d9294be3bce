// The controller itself: loads, stores, sleep; and where it begins.
#include "firmware/hal/hal.hpp"

#include "firmware/firmware.hpp"

extern "C" void fw_sleep();
extern "C" [[noreturn]] void fw_start();

namespace fw::hal {
uint32_t load(uint32_t address) { return *reinterpret_cast<const volatile uint32_t*>(address); }
void store(uint32_t address, uint32_t value) { *reinterpret_cast<volatile uint32_t*>(address) = value; }
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
