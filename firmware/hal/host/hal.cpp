#include "firmware/hal/hal.hpp"

#include "firmware/hal/host/world.hpp"

namespace fw {
namespace {
host::World* world;
}
void host::use(World& w) { world = &w; }

uint32_t hal::load(uint32_t address) { return world->load(address); }
void hal::store(uint32_t address, uint32_t value) { world->store(address, value); }
void hal::idle() {}
void hal::restart() { throw host::Restart(); }
}  // namespace fw
