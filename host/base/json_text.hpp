// Text inside a JSON string: what the daemons' reports put between quotes.
#pragma once

#include <string>
#include <string_view>

namespace luge {

/// Quotes and backslashes are escaped, control characters become spaces.
std::string json_text(std::string_view s);

}  // namespace luge
