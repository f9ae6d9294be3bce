// What makes a device on the host a card of ours: it is on PCI or PCI Express, and it answers there.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.hpp"

namespace luge::card {

/// `address`: as the runtime says it; of a function on PCI and PCI Express it is DOMAIN:BUS:DEVICE.FUNCTION. `identity`: what was read through
/// its window on the bus, where a device that isn't there reads as all ones. invalid: which of them is wrong.
Status check_on_bus(const std::string& address, std::uint32_t identity, std::uint32_t expected);

}  // namespace luge::card
