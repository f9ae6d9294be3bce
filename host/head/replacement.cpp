// A member that is gone for good makes room for another head (MC-08, MC-20 to 22, FO-02, FO-05): the replacement is always a
// reserve. The primary of each VP acts on the failure agent's word, from the designations that it holds itself; when the
// primary was lost, that is the survivor who has been promoted, so exactly one acts for a VP, and the store's swap breaks ties.
//
// Rules
// - Only who is not in `required` is replaced, and nobody enters `required` by being a replacement: it joins when it has caught
//   up, like any other (protocol 3.2). The VP serves all the while.
// - Who comes back before its replacement has caught up has less to catch up with, and takes its place again.
#include "base/logging.hpp"
#include "head/primary.hpp"
#include "switches/paths.hpp"

namespace luge::head {

// The same VP asks the same heads in the same order, and different VPs different ones: what one head had is spread over the others.
NodeId Primary::spare_head() const {
  auto rank = [this](NodeId n) {
    std::uint64_t x = (partition_.replica.vp() * 0x9E3779B97F4A7C15u) ^ (n * 0xC2B2AE3D27D4EB4Fu);
    x = (x ^ (x >> 31)) * 0xD6E8FEB86659FD93u;
    return x ^ (x >> 32);
  };
  NodeId best = 0;
  for (const auto& [id, node] : ctx_.control->nodes()) {
    if (node.role != "head" || !node.alive || partition_.designation().has_member(id)) continue;
    if (best == 0 || rank(id) > rank(best)) best = id;
  }
  return best;
}

bool Primary::lost(NodeId n) const {
  return !ctx_.alive(n) && !ctx_.connections->connected(n) && !partition_.designation().requires_node(n) && !also_required_.contains(n);
}

// The reserves as they should be now; `why` is empty if they are as they should be. One change at a time.
std::vector<NodeId> Primary::wanted_reserves(std::string& why) {
  std::vector<NodeId> reserves = partition_.designation().reserves;
  if (!ctx_.control->connected() || !open_) return reserves;
  io::Time now = ctx_.world.now();
  for (NodeId& n : reserves) {
    auto replaced = replaced_.find(n);
    Member* m = member(n);
    bool incomplete = m && m->state != MemberState::live && !partition_.designation().requires_node(n) && !also_required_.contains(n);
    if (replaced != replaced_.end() && incomplete && ctx_.alive(replaced->second)) {
      why = fmt::format("node {} is back before node {} could replace it", replaced->second, n);
      reached(Path::replaced_came_back);
      n = replaced->second;
      return reserves;
    }
    if (!lost(n)) {
      lost_since_.erase(n);
      continue;
    }
    io::Time since = lost_since_.try_emplace(n, now).first->second;
    NodeId spare = now - since >= ctx_.options.replace_after ? spare_head() : 0;
    if (spare == 0) continue;
    why = fmt::format("node {} replaces node {}, which is lost", spare, n);
    n = spare;
    return reserves;
  }
  return reserves;
}

// members_ follows the designation.
void Primary::change_members(const std::vector<NodeId>& before) {
  const std::vector<NodeId>& now = partition_.designation().reserves;
  if (before == now) return;
  for (std::size_t i = 0; i < before.size(); ++i) {
    NodeId gone = before[i];
    if (std::find(now.begin(), now.end(), gone) != now.end()) continue;
    members_.erase(gone);
    partition_.replica.pin(gone, 0);
    lost_since_.erase(gone);
    if (i < now.size() && std::find(before.begin(), before.end(), now[i]) == before.end()) replaced_[now[i]] = gone;
    replaced_.erase(gone);
  }
  make_members();
  reached(Path::member_replaced);
  members_changed_.notify_all();
}

}  // namespace luge::head
