// Leveled logs, one line an event, to standard error (spdlog). Set up once by main; usable before that.
#pragma once

#include <spdlog/fmt/fmt.h>
#include <spdlog/spdlog.h>

#include <string>

namespace luge::logging {

using spdlog::debug;
using spdlog::error;
using spdlog::info;
using spdlog::warn;

/// level: trace, debug, info, warn, error. False: no such level.
bool setup(const std::string& program, const std::string& level);

}  // namespace luge::logging
