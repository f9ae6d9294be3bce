// The sled controller's program: boot() once after every reset, then poll() for ever. docs/firmware.md.
// One per program (its state is static); on the host one at a time.
#pragma once
#include <stdint.h>

namespace fw {

inline constexpr uint32_t kVersion = 0 << 16 | 1 << 8 | 0;  // major, minor, patch

/// REQUIRES: `state` is not `ready`: sets it to booting, tests the card, then to ready or failed.
void boot();
/// One round: a command if there is one, telemetry now and then.
void poll();
/// From the trap vector.
void trapped(uint32_t cause, uint32_t where);
/// Host only: as at power-up, where the controller's own memory is 0.
void lose_power();

}  // namespace fw
