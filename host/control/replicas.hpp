// Are a VP's replicas the same? Copies that part company without anybody's noticing are what a failover would bring to light, so
// they are compared all the time: every head reports, for each VP, the digest of its index (head/index.hpp) at its commit LSN, and
// where two that follow one history stand at the same LSN, the digests must be equal.
#pragma once

#include <string>

#include "control/registry.hpp"
#include "control/reports.hpp"
#include "wire/designation.hpp"

namespace luge::control {

/// Empty: no two replicas have been seen to differ at one LSN. Else who stands against whom. It cannot tell who is right; nothing is
/// done about it but to say so.
std::string why_different(const Registry& registry, const Reports& reports, const wire::Designation& d);

}  // namespace luge::control
