#include "control/reports.hpp"

namespace luge::control {
namespace {

namespace json = boost::json;

// A report older than this says nothing about now.
constexpr io::Duration kFresh = std::chrono::seconds(2);

}  // namespace

json::value parse_report(const std::string& report) {
  boost::system::error_code error;
  json::value v = json::parse(report, error);
  return error || !v.is_object() ? json::value(json::object()) : v;
}

const json::value* report_member(const json::value& v, std::string_view key) {
  const auto* o = v.if_object();
  return o ? o->if_contains(key) : nullptr;
}

std::uint64_t report_number(const json::value& v, std::string_view key) {
  const json::value* n = report_member(v, key);
  if (n == nullptr || !n->is_number()) return 0;
  boost::system::error_code error;
  auto value = n->to_number<std::uint64_t>(error);
  return error ? 0 : value;
}

std::string report_string(const json::value& v, std::string_view key) {
  const json::value* s = report_member(v, key);
  return s && s->is_string() ? std::string(s->get_string()) : std::string();
}

Reports::Reports(io::World& world, const Registry& registry) {
  for (const auto& [id, n] : registry.nodes()) {
    if (!n.is("head") || n.report.empty()) continue;
    bool fresh = n.alive && n.connected() && world.now() - n.report_time < kFresh;
    reports_.push_back({id, fresh, parse_report(n.report)});
  }
  for (const Report& r : reports_) {
    const json::value* vps = report_member(r.value, "vps");
    if (vps == nullptr || !vps->is_array()) continue;
    for (const json::value& e : vps->get_array()) entries_[report_number(e, "vp")].push_back({&r, &e});
  }
}

}  // namespace luge::control
