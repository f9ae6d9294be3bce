// What `luge status` shows, as JSON (API.md). Wishes come from the store, facts from what the daemons report of
// themselves: where the primary of a VP has not reported, its state is "unknown" and its figures are null.
#pragma once

#include <boost/json/value.hpp>

#include "control/control.hpp"

namespace luge::control {

boost::json::object status_json(const Control& control);
/// With figures by place, per VP detail and events.
boost::json::object volume_json(const Control& control, const Volume& volume, bool detail);
boost::json::array events_json(const Control& control);

}  // namespace luge::control
