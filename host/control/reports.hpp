// What heads last said of themselves (their pongs), parsed once for one answer. Advisory: nothing is decided by a report
// that a replica's durable state does not confirm.
#pragma once

#include <boost/json.hpp>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "control/registry.hpp"

namespace luge::control {

/// An object whatever was reported; empty if it was none.
boost::json::value parse_report(const std::string& report);
/// Members of an object; null, 0 or "" where they are not there or of another kind.
const boost::json::value* report_member(const boost::json::value& v, std::string_view key);
std::uint64_t report_number(const boost::json::value& v, std::string_view key);
std::string report_string(const boost::json::value& v, std::string_view key);

class Reports {
 public:
  Reports(io::World& world, const Registry& registry);
  /// f(node, fresh, entry) for each head that reports something of the VP. Fresh: it speaks of now.
  template <class F>
  void each(VpId vp, F f) const {
    for (const auto& r : reports_) {
      const boost::json::value* vps = report_member(r.value, "vps");
      if (vps == nullptr || !vps->is_array()) continue;
      for (const boost::json::value& e : vps->get_array())
        if (report_number(e, "vp") == vp) f(r.node, r.fresh, e);
    }
  }

 private:
  struct Report {
    NodeId node;
    bool fresh;
    boost::json::value value;
  };
  std::vector<Report> reports_;
};

}  // namespace luge::control
