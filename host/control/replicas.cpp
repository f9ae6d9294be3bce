#include "control/replicas.hpp"

#include <map>

namespace luge::control {

std::string why_different(const Registry& registry, const Reports& reports, const wire::Designation& d) {
  std::map<std::uint64_t, std::map<std::string, std::string>> heads;  // at which LSN, with which digest
  reports.each(d.vp, [&](NodeId node, bool fresh, const boost::json::value& e) {
    std::string state = report_string(e, "state"), digest = report_string(e, "digest");
    bool follows = state == "open" || state == "waiting" || state == "live";
    if (!fresh || !follows || digest.empty() || !d.has_member(node) || report_number(e, "epoch") != d.epoch) return;
    std::string& names = heads[report_number(e, "commit")][digest];
    names += (names.empty() ? "" : " ") + registry.name(node);
  });
  for (const auto& [lsn, groups] : heads) {
    if (groups.size() < 2) continue;
    std::string s = "the replicas differ at LSN " + std::to_string(lsn) + ":";
    for (const auto& [digest, names] : groups) s += (s.back() == ':' ? " " : " against ") + names;
    return s;
  }
  return "";
}

}  // namespace luge::control
