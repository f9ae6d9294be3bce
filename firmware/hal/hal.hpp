// What the firmware sees of the world: words at the addresses of hls/registers/card.h (MAP_*), sleep, and starting over. Resolved when
// linking: hal/card for the controller, hal/host for a process. No virtual functions, so that the stack's bound can be read off the
// call graph.
#pragma once
#include <stdint.h>

#include "hls/registers/card.h"

namespace fw::hal {

/// A word of the address map; `address` is a multiple of 4. A store is seen by the card before the next load or store.
#ifdef __riscv
inline uint32_t load(uint32_t address) { return *reinterpret_cast<const volatile uint32_t*>(address); }
inline void store(uint32_t address, uint32_t value) { *reinterpret_cast<volatile uint32_t*>(address) = value; }
#else
uint32_t load(uint32_t address);
void store(uint32_t address, uint32_t value);
#endif
/// Returns when there may be something to do: a doorbell, or time has passed.
void idle();
/// As after a reset of the controller. Does not return.
[[noreturn]] void restart();

inline uint32_t reg(uint32_t offset) { return load(luge_card::MAP_REGISTERS + offset); }
inline void set_reg(uint32_t offset, uint32_t value) { store(luge_card::MAP_REGISTERS + offset, value); }
// Shared words are named by their offset from the card's registers, as the host sees them.
inline uint32_t shared(uint32_t offset) { return load(luge_card::MAP_REGISTERS + offset); }
inline void set_shared(uint32_t offset, uint32_t value) { store(luge_card::MAP_REGISTERS + offset, value); }

}  // namespace fw::hal
