#include "control/replicas.hpp"
#include "control/status.hpp"

#include <algorithm>
#include <boost/json.hpp>

#include "control/loss.hpp"
#include "control/reports.hpp"

namespace luge::control {
namespace {

namespace json = boost::json;

// What of a VP, or of a volume, lies on one sled.
struct SledShare {
  std::uint64_t live_bytes = 0, chunks = 0;
};

// How far a member is behind, as the primary sees it.
struct Lag {
  std::uint64_t records = 0, latency_us = 0;
  bool slow = false;
};

struct VpState {
  std::string state = "unknown", reason;
  bool known = false;
  std::uint64_t copies = 0, unflushed = 0, degraded = 0, commit = 0;
  std::map<NodeId, SledShare> sleds;
  std::map<NodeId, Lag> lags;
  std::vector<Reach> members;
  std::map<NodeId, json::object> metadata;  // of each member: its checkpoints, and what it was put together from
  json::array replacements;                 // of heads that were lost, by the present primary
};

// Said of an open VP, too: it cannot lose a head until it is over.
std::string why_doubted(const Control& control, VpId vp) {
  std::vector<NodeId> missing = control.volumes().doubting(vp);
  if (missing.empty()) return "";
  std::string s = "the store was restored from an older copy: no head is made primary or let go before these have said what they know:";
  for (NodeId n : missing) s += " " + control.registry().name(n);
  return s + "; to go on without them: luge volume recover --accept-loss";
}

VpState state_of(const Control& control, const Reports& reports, const Designation& d) {
  VpState s;
  s.members = reach_of(control.registry(), reports, d);
  s.reason = "no report from the primary, " + control.registry().name(d.primary);
  reports.each(d.vp, [&](NodeId node, bool fresh, const json::value& e) {
    for (const char* key : {"checkpoint", "put_together_from"})
      if (const json::value* v = report_member(e, key)) s.metadata[node][key] = *v;
    if (node != d.primary || !fresh || report_string(e, "role") != "primary" || report_number(e, "epoch") != d.epoch) return;
    s.known = true;
    s.state = report_string(e, "state");
    s.reason = report_string(e, "reason");
    s.copies = report_number(e, "copies");
    s.unflushed = report_number(e, "unflushed_bytes");
    s.degraded = report_number(e, "degraded_stripes");
    s.commit = report_number(e, "commit");
    if (const json::value* list = report_member(e, "replacements"); list && list->is_array()) s.replacements = list->get_array();
    if (const json::value* list = report_member(e, "members"); list && list->is_array())
      for (const json::value& m : list->get_array()) {
        const json::value* slow = report_member(m, "slow");
        s.lags[static_cast<NodeId>(report_number(m, "node"))] = {report_number(m, "lag"), report_number(m, "latency_us"), slow && slow->is_bool() && slow->get_bool()};
      }
    const json::value* sleds = report_member(e, "sleds");
    if (sleds == nullptr || !sleds->is_array()) return;
    for (const json::value& share : sleds->get_array())
      s.sleds[static_cast<NodeId>(report_number(share, "sled"))] = {report_number(share, "live_bytes"), report_number(share, "chunks")};
  });
  if (closed(s.members)) {
    s.state = "closed";
    s.reason = why_closed(control.registry(), s.members);
  }
  for (const std::string& why : {why_different(control.registry(), reports, d), why_doubted(control, d.vp)})
    if (!why.empty()) s.reason = s.reason.empty() ? why : why + "; " + s.reason;
  return s;
}

json::array names(const Control& control, const std::vector<NodeId>& ids) {
  json::array out;
  for (NodeId n : ids) out.emplace_back(control.registry().name(n));
  return out;
}

// With names in place of ids; 0 is nobody.
json::value named(const Control& control, json::value v, std::initializer_list<const char*> keys) {
  if (json::object* o = v.if_object())
    for (const char* key : keys)
      if (json::value* id = o->if_contains(key)) {
        auto node = static_cast<NodeId>(report_number(v, key));
        *id = json::string(node == 0 ? std::string() : control.registry().name(node));
      }
  return v;
}

void add(json::object& sums, const json::value& entry, std::string_view group) {
  const json::value* figures = report_member(entry, group);
  for (auto& [key, sum] : sums)
    sum = sum.to_number<std::uint64_t>() + (figures ? report_number(*figures, key) : 0);
}

json::object designation_json(const Control& control, const Designation& d) {
  return {{"epoch", d.epoch}, {"revision", d.revision}, {"primary", control.registry().name(d.primary)},
          {"reserves", names(control, d.reserves)}, {"required", names(control, d.required)}};
}

json::object vp_json(const Control& control, const Designation& d, const VpState& s) {
  json::object o = designation_json(control, d);
  o["vp"] = d.vp;
  o["state"] = s.state;
  if (!s.reason.empty()) o["reason"] = s.reason;
  if (s.known) {
    o["commit"] = s.commit;
    o["copies"] = s.copies;
    o["unflushed_bytes"] = s.unflushed;
    o["degraded_stripes"] = s.degraded;
  }
  json::array members;
  for (const Reach& m : s.members) {
    json::object row{{"head", control.registry().name(m.node)}, {"required", m.required},
                     {"state", !m.up ? "down" : m.state}, {"lsn", m.last}, {"commit", m.commit}};
    if (!m.reason.empty()) row["reason"] = m.reason;
    if (auto it = s.metadata.find(m.node); it != s.metadata.end())
      for (const auto& [key, value] : it->second) row[key] = named(control, value, {"author"});
    if (auto it = s.lags.find(m.node); it != s.lags.end()) {
      row["lag"] = it->second.records;
      row["latency_us"] = it->second.latency_us;
      row["slow"] = it->second.slow;
    }
    members.push_back(std::move(row));
  }
  o["members"] = std::move(members);
  json::array replacements;
  for (const json::value& r : s.replacements) replacements.push_back(named(control, r, {"lost", "by"}));
  if (!replacements.empty()) o["replacements"] = std::move(replacements);
  return o;
}

void add_detail(const Control& control, const Reports& reports, const Volume& v, json::object& out) {
  json::object read{{"memory", 0}, {"log", 0}, {"sled", 0}, {"reconstructed", 0}};
  json::object written{{"user", 0}, {"log", 0}, {"data_chunks", 0}, {"parity_chunks", 0}};
  std::multimap<std::int64_t, json::object> events;  // by time; equal times stay in order of arrival
  json::array vps, placement;
  std::map<NodeId, SledShare> sleds;
  for (std::uint32_t i = 0; i < v.vps(); ++i) {
    VpId vp = make_vp(v.id, i);
    reports.each(vp, [&](NodeId node, bool, const json::value& e) {
      add(read, e, "read_bytes");
      add(written, e, "written_bytes");
      const json::value* list = report_member(e, "events");
      if (list == nullptr || !list->is_array()) return;
      for (const json::value& event : list->get_array()) {
        auto wall = static_cast<std::int64_t>(report_number(event, "wall_ns"));
        events.emplace(wall, json::object{{"wall_ns", wall}, {"node", control.registry().name(node)},
                                          {"text", report_string(event, "text")}});
      }
    });
    auto it = control.store().image().designations.find(vp);
    if (it == control.store().image().designations.end()) continue;
    VpState state = state_of(control, reports, it->second);
    vps.push_back(vp_json(control, it->second, state));
    for (const auto& [sled, share] : state.sleds) {
      sleds[sled].live_bytes += share.live_bytes;
      sleds[sled].chunks += share.chunks;
    }
  }
  for (const auto& [sled, share] : sleds)
    placement.push_back(json::object{{"sled", control.registry().name(sled)}, {"live_bytes", share.live_bytes}, {"chunks", share.chunks}});
  json::array sorted;
  for (auto& [wall, e] : events) sorted.push_back(std::move(e));
  out["read_bytes"] = std::move(read);
  out["written_bytes"] = std::move(written);
  out["placement"] = std::move(placement);
  out["vps"] = std::move(vps);
  out["events"] = std::move(sorted);
}

json::object volume_json(const Control& control, const Reports& reports, const Volume& v, bool detail) {
  const Image& image = control.store().image();
  json::object o{{"name", v.name}, {"id", v.id}, {"size", v.bytes}, {"layout", to_string(v.layout)}};
  VpState sum;
  bool first = true, known = true;
  for (std::uint32_t i = 0; i < v.vps(); ++i) {
    auto it = image.designations.find(make_vp(v.id, i));
    if (it == image.designations.end()) continue;
    if (first)
      for (auto& [key, value] : designation_json(control, it->second)) o[key] = value;
    VpState s = state_of(control, reports, it->second);
    // The first VP that is not open speaks for the volume.
    if (first || (sum.state == "open" && s.state != "open")) {
      sum.state = s.state;
      sum.reason = s.reason;
    }
    sum.copies = first ? s.copies : std::min(sum.copies, s.copies);
    sum.unflushed += s.unflushed;
    sum.degraded += s.degraded;
    known = known && s.known;
    first = false;
  }
  if (first) known = false;
  o["state"] = sum.state;
  o["reason"] = sum.reason;
  o["copies"] = known ? json::value(sum.copies) : json::value();
  o["unflushed_bytes"] = known ? json::value(sum.unflushed) : json::value();
  o["degraded_stripes"] = known ? json::value(sum.degraded) : json::value();
  auto a = image.attachments.find(v.id);
  auto e = image.exports.find(v.id);
  o["attached_by"] = a != image.attachments.end() && a->second.holder ? json::value(control.registry().name(a->second.holder))
                                                                     : json::value();
  o["nbd"] = e != image.exports.end() ? json::value(e->second.nbd) : json::value();
  if (detail) add_detail(control, reports, v, o);
  return o;
}

// "up": connected and answering; "silent": connected, no answer; "away": not connected, not yet given up; "unknown": the
// same, and not heard of since this control plane started; "down".
std::string_view state_of(const Node& n) {
  if (n.unknown()) return "unknown";
  if (!n.alive) return n.connected() ? "silent" : "down";
  return n.connected() ? "up" : "away";
}

json::object node_json(const Node& n) {
  json::object o{{"name", n.row.name}, {"id", n.row.id}, {"role", n.row.role},
                 {"pid", n.connected() ? n.pid : 0},  // of a daemon that is gone it may be another's by now
                 {"state", state_of(n)}, {"address", n.row.address}};
  if (n.is("sled")) {
    json::array devices;
    for (const DeviceInfo& d : n.devices)
      devices.push_back(json::object{{"index", d.index}, {"bytes", d.bytes}, {"columns", d.columns},
                                     {"free_columns", d.free_columns}, {"state", d.state}, {"reason", d.reason}});
    o["devices"] = std::move(devices);
  }
  if (n.report.empty()) return o;
  json::value report = parse_report(n.report);
  for (std::string_view key : {"log", "devices", "coder", "coding", "coded_bytes", "exports", "credentials"})  // fresher than the registration
    if (const json::value* v = report_member(report, key)) o[key] = *v;
  return o;
}

// What a person must look into: somebody has shown a sled what was not made for it, or the unit's keys do not fit together.
json::array alarms_json(const Control& control) {
  json::array out;
  for (const auto& [id, n] : control.registry().nodes()) {
    if (!n.is("sled") || n.report.find("\"credentials\":") == std::string::npos) continue;
    json::value report = parse_report(n.report);
    const json::value* c = report_member(report, "credentials");
    if (c == nullptr) continue;
    std::uint64_t refused = 0;
    for (const char* key : {"forged", "other_unit", "not_permitted", "expired"}) refused += report_number(*c, key);
    if (refused != 0)
      out.emplace_back(n.row.name + " has refused " + std::to_string(refused) + " requests for their designation or credential, the last one: " + report_string(*c, "last_refusal"));
    if (std::string other = report_string(*c, "other_key"); !other.empty())
      out.emplace_back(n.row.name + " does not obey this control plane: it knows another key of the unit. If the key was made anew, start the sled once with --unit-key " + other);
    if (n.connected() && report_string(*c, "unit_key").empty()) out.emplace_back(n.row.name + " has not learned the unit's key: it changes nothing");
  }
  if (control.store().image().lost)
    out.emplace_back("the store is not the one that the unit had: heads hold volumes that it does not know; `luge control rebuild` takes them up");
  else if (control.store().image().older)
    out.emplace_back("the store is an older copy: no volume gets new partitions before `luge control rebuild` has asked all heads what they hold");
  return out;
}

}  // namespace

json::object status_json(const Control& control) {
  Reports reports(control.world(), control.registry());
  json::array nodes, volumes;
  nodes.push_back(json::object{{"name", control.options().name}, {"id", control.options().id}, {"role", "control"},
                               {"pid", control.options().pid}, {"state", "up"}, {"address", control.address()}});
  for (const auto& [id, n] : control.registry().nodes()) nodes.push_back(node_json(n));
  std::size_t removing = 0;
  for (const auto& [id, v] : control.store().image().volumes) {
    if (v.removing)
      ++removing;
    else
      volumes.push_back(volume_json(control, reports, v, false));
  }
  return {{"unit", control.store().image().unit}, {"version", LUGE_VERSION}, {"nodes", std::move(nodes)},
          {"volumes", std::move(volumes)}, {"volumes_being_removed", removing},
          {"removals_pending", control.store().image().removals.size()}, {"alarms", alarms_json(control)}};
}

json::object volume_json(const Control& control, const Volume& volume, bool detail) {
  return volume_json(control, Reports(control.world(), control.registry()), volume, detail);
}

json::array events_json(const Control& control) {
  json::array out;
  for (const auto& e : control.events().all()) out.push_back(json::object{{"wall_ns", e.wall_ns}, {"text", e.text}});
  return out;
}

}  // namespace luge::control
