#include "control/placement.hpp"

#include <algorithm>
#include <tuple>

namespace luge::control {
namespace {

constexpr std::uint32_t kStripeSetsAtLeast = 4;
constexpr std::uint32_t kStripeSetsAtMost = 64;

struct DeviceUse {
  NodeId sled = 0;
  std::uint16_t device = 0;
  std::uint32_t columns = 0;
  std::uint64_t vp_here = 0;   // recommended to this VP on this sled
  std::uint64_t used = 0;      // recommended to anybody on this device
  std::uint32_t next = 0;      // columns below have been tried
};

}  // namespace

std::vector<NodeId> place_replicas(const std::map<VpId, Designation>& designations,
                                   const std::vector<const Node*>& heads, std::uint32_t copies) {
  if (copies == 0 || heads.size() < copies) return {};
  std::map<NodeId, std::uint64_t> primaries, memberships;
  for (const auto& [vp, d] : designations) {
    ++primaries[d.primary];
    for (NodeId n : d.members()) ++memberships[n];
  }
  std::vector<NodeId> ids;
  for (const Node* n : heads) ids.push_back(n->row.id);
  auto as_primary = [&](NodeId n) { return std::tuple(primaries[n], memberships[n], n); };
  auto as_reserve = [&](NodeId n) { return std::tuple(memberships[n], n); };
  std::sort(ids.begin(), ids.end(), [&](NodeId a, NodeId b) { return as_primary(a) < as_primary(b); });
  std::sort(ids.begin() + 1, ids.end(), [&](NodeId a, NodeId b) { return as_reserve(a) < as_reserve(b); });
  ids.resize(copies);
  return ids;
}

std::vector<SandboxRow> recommend_columns(const Sandboxes& recommended, const Sandboxes& more, const std::vector<const Node*>& sleds,
                                          VpId vp, std::uint32_t count) {
  std::set<std::tuple<NodeId, std::uint16_t, std::uint32_t>> mine;
  std::map<NodeId, std::uint64_t> vp_on_sled;
  for (const SandboxRow& r : recommended.of(vp)) {
    mine.insert({r.sled, r.device, r.column});
    ++vp_on_sled[r.sled];
  }
  std::vector<DeviceUse> devices;
  for (const Node* s : sleds)
    for (const DeviceInfo& d : s->devices)
      if (d.has_room()) devices.push_back({s->row.id, d.index, d.columns, 0, recommended.used(s->row.id, d.index) + more.used(s->row.id, d.index), 0});

  std::vector<SandboxRow> out;
  for (bool overlapping : {false, true}) {
    for (DeviceUse& d : devices) d.next = 0;
    std::vector<DeviceUse*> open;
    for (DeviceUse& d : devices) open.push_back(&d);
    while (out.size() < count && !open.empty()) {
      // The sled that serves this VP least, then its least used device.
      auto best = std::min_element(open.begin(), open.end(), [&](const DeviceUse* a, const DeviceUse* b) {
        return std::tuple(vp_on_sled[a->sled], a->used, a->sled, a->device) <
               std::tuple(vp_on_sled[b->sled], b->used, b->sled, b->device);
      });
      DeviceUse& d = **best;
      auto free = [&](std::uint32_t c) {
        if (mine.contains({d.sled, d.device, c})) return false;
        return overlapping || (!recommended.taken(d.sled, d.device, c) && !more.taken(d.sled, d.device, c));
      };
      while (d.next < d.columns && !free(d.next)) ++d.next;
      if (d.next == d.columns) {
        open.erase(best);
        continue;
      }
      mine.insert({d.sled, d.device, d.next});
      out.push_back({vp, d.sled, d.device, d.next});
      ++vp_on_sled[d.sled];
      ++d.used;
    }
  }
  return out;
}

std::uint32_t initial_columns(std::uint64_t bytes, Layout layout, const std::vector<const Node*>& sleds) {
  std::uint64_t column_bytes = 0;
  for (const Node* s : sleds)
    for (const DeviceInfo& d : s->devices)
      if (d.has_room() && d.column_bytes > 0)
        column_bytes = column_bytes == 0 ? d.column_bytes : std::min(column_bytes, d.column_bytes);
  std::uint64_t sets = kStripeSetsAtLeast;
  if (column_bytes > 0) sets += bytes / layout.k / column_bytes;
  std::uint32_t bounded = static_cast<std::uint32_t>(std::min<std::uint64_t>(sets, kStripeSetsAtMost));
  // Evenly over all sleds, so that any k + m of them can make a stripe.
  std::uint32_t width = std::max<std::uint32_t>(layout.width(), static_cast<std::uint32_t>(sleds.size()));
  return bounded * width;
}

}  // namespace luge::control
