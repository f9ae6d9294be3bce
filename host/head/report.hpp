// What a head tells the control plane of itself with every pong: JSON, docs/formats.md, "reports".
#pragma once

#include <string>

#include "head/context.hpp"

namespace luge::head {
std::string make_report(Context& ctx);
}
