// The firmware as part of a process: whoever runs it says what its loads and stores reach.
#pragma once
#include <stdint.h>

namespace fw::host {

class World {
 public:
  virtual ~World() = default;
  virtual uint32_t load(uint32_t address) = 0;
  virtual void store(uint32_t address, uint32_t value) = 0;
};

/// Thrown out of boot() or poll() when the firmware starts over.
struct Restart {};

/// From now on; until the next call.
void use(World& world);

}  // namespace fw::host
