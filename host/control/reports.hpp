// What heads last said of themselves (their pongs), parsed once for one answer. Advisory: nothing is decided by a report
// that a replica's durable state does not confirm.
#pragma once

#include <absl/container/flat_hash_map.h>
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
  Reports(const Reports&) = delete;  // entries point into it
  Reports& operator=(const Reports&) = delete;
  /// f(node, fresh, entry) for each head that reports something of the VP, in the order of their ids. Fresh: it speaks of now.
  template <class F>
  void each(VpId vp, F f) const {
    auto it = entries_.find(vp);
    if (it == entries_.end()) return;
    for (const Entry& e : it->second) f(e.report->node, e.report->fresh, *e.value);
  }

 private:
  struct Report {
    NodeId node;
    bool fresh;
    boost::json::value value;
  };
  struct Entry {
    const Report* report;
    const boost::json::value* value;
  };
  std::vector<Report> reports_;
  absl::flat_hash_map<VpId, std::vector<Entry>> entries_;  // a status goes through all VPs: each must not go through all reports
};

}  // namespace luge::control
