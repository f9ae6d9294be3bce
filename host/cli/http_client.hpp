// One request to the control plane's HTTP API over "unix:PATH" or "tcp:HOST:PORT"; waits for the answer.
#pragma once

#include <boost/json/value.hpp>
#include <chrono>
#include <string>

#include "base/status.hpp"

namespace luge::cli {

/// The JSON of an answer below 400; else the Status that {"error": ...} names. unavailable: nobody answers there.
/// `http_status` (may be null) gets the answer's status.
Result<boost::json::value> http_request(const std::string& address, const std::string& method,
                                        const std::string& target, const boost::json::value* body,
                                        std::chrono::seconds timeout, unsigned* http_status = nullptr);

}  // namespace luge::cli
