// Unix sockets on which descriptors are passed: what io::Network does not do.
#pragma once

#include <string>

#include "io/descriptor.hpp"
#include "base/status.hpp"

namespace luge::attach {

/// Listens at `path` for the user of this process alone. What a process that has ended left there is removed; exists: another is listening.
Result<io::Descriptor> listen_unix(const std::string& path, int type);

}  // namespace luge::attach
