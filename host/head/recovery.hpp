// Start of a head: from its directory to replicas (protocol 10.2).
#pragma once

#include "head/context.hpp"

namespace luge::head {

/// Opens the metadata store and both log portions, replays them in the order the batches were written, and leaves one
/// Partition per VP this head holds a designation for. Nothing of it is served before the control plane or a primary
/// says in which epoch.
io::Task<Status> recover(Context& ctx);

}  // namespace luge::head
