// A member that is gone for good makes room for another head (MC-08, MC-20 to 22, FO-02, FO-05): the replacement is always a
// reserve. The primary of each VP acts on the failure agent's word, from the designations that it holds itself; when the
// primary was lost, that is the survivor who has been promoted, so exactly one acts for a VP, and the store's swap breaks ties.
//
// Rules
// - Only who is not in `required` is replaced, and nobody enters `required` by being a replacement: it joins when it has caught
//   up, like any other (protocol 3.2). The VP serves all the while.
// - Who comes back before its replacement has caught up has less to catch up with, and takes its place again.
// - A member that answers that its log has failed is as good as gone; it is no spare until it has been started again.
#include "base/logging.hpp"
#include "head/primary.hpp"
#include "switches/paths.hpp"
#include "switches/switches.hpp"

namespace luge::head {

namespace {

constexpr std::size_t kMostReported = 32;  // replacements, the latest

}  // namespace

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
    auto failed = failed_heads_.find(id);
    if (failed != failed_heads_.end() && failed->second == node.incarnation) continue;
    if (best == 0 || rank(id) > rank(best)) best = id;
  }
  return best;
}

bool Primary::lost(NodeId n) const {
  auto it = members_.find(n);
  // Its log has failed, and stays so until it is started again: it answers, and will hold nothing.
  if (it != members_.end() && it->second.failed && it->second.state != MemberState::live && !awaited(n) && !broken(Switch::failed_member_kept)) return true;
  bool silent = !ctx_.connections->connected(n) || (it != members_.end() && unheard(it->second));
  return !ctx_.alive(n) && silent && !awaited(n);
}

// The reserves as they should be now; `why` is empty if they are as they should be. One change at a time.
std::vector<NodeId> Primary::wanted_reserves(std::string& why) {
  std::vector<NodeId> reserves = partition_.designation().reserves;
  if (!ctx_.control->connected() || !open_) return reserves;
  io::Time now = ctx_.world.now();
  for (NodeId& n : reserves) {
    auto replaced = replaced_.find(n);
    Member* m = member(n);
    bool incomplete = m && m->state != MemberState::live && !awaited(n);
    if (replaced != replaced_.end() && incomplete && ctx_.alive(replaced->second) && !partition_.designation().has_member(replaced->second)) {
      why = fmt::format("node {} is back before node {} could replace it", replaced->second, n);
      reached(Path::replaced_came_back);
      n = replaced->second;
      return reserves;
    }
    if (auto moving = moving_.find(n); moving != moving_.end() && !awaited(n) && may_go(n).ok() && can_take(moving->second)) {
      why = fmt::format("node {} takes the place of node {}, as an operator wants it", moving->second, n);
      n = moving->second;
      return reserves;
    }
    if (!lost(n)) {
      lost_since_.erase(n);
      continue;
    }
    io::Time since = lost_since_.try_emplace(n, now).first->second;
    NodeId spare = broken(Switch::no_spare_chosen) ? 0 : now - since >= ctx_.options.replace_after ? spare_head() : 0;
    if (spare == 0) continue;
    why = fmt::format("node {} replaces node {}, which is lost", spare, n);
    n = spare;
    return reserves;
  }
  return reserves;
}

// members_ follows the designation, by whatever way that has come.
void Primary::follow_members() {
  const std::vector<NodeId>& now = partition_.designation().reserves;
  const std::vector<NodeId> before = members_of_;
  if (before == now || partition_.designation().epoch != epoch_) return;
  for (std::size_t i = 0; i < before.size(); ++i) {
    NodeId gone = before[i];
    if (std::find(now.begin(), now.end(), gone) != now.end()) continue;
    latency_.unfollow(gone);
    const Member* was = member(gone);
    const wire::NodeRecord* node = ctx_.control->node(gone);
    bool failed = was && was->failed;
    if (failed && node) failed_heads_[gone] = node->incarnation;
    members_.erase(gone);
    partition_.replica.pin(gone, 0);
    bool newcomer = i < now.size() && std::find(before.begin(), before.end(), now[i]) == before.end();
    auto word = lost_since_.find(gone);
    if (newcomer && word != lost_since_.end()) replacements_.push_back({gone, now[i], word->second, ctx_.world.now(), {}});
    if (replacements_.size() > kMostReported) replacements_.erase(replacements_.begin());
    lost_since_.erase(gone);
    // Who was moved away or has failed does not come back by being there, and who gets its own place back has replaced nobody: the two would
    // change places for ever, each before the other has caught up.
    auto stood_in = replaced_.find(gone);
    bool returns = newcomer && stood_in != replaced_.end() && stood_in->second == now[i] && !broken(Switch::places_change_hands_for_ever);
    if (newcomer && !moving_.contains(gone) && !returns && !failed) replaced_[now[i]] = gone;
    if (newcomer && moving_.contains(gone)) reached(Path::copy_moved);
    replaced_.erase(gone);
    moving_.erase(gone);
  }
  make_members();
  for (auto& [id, m] : members_) start_sync(id);
  reached(Path::member_replaced);
  members_changed_.notify_all();
}

void Primary::note_replacements() {
  // It holds everything: whoever it has replaced has no place to come back to.
  std::erase_if(replaced_, [this](const auto& r) { return partition_.designation().requires_node(r.first); });
  for (Replacement& r : replacements_)
    if (r.joined == io::Time{} && partition_.designation().requires_node(r.by)) {
      r.joined = ctx_.world.now();
      auto ms = [](io::Duration d) { return std::chrono::duration_cast<std::chrono::milliseconds>(d).count(); };
      logging::info("VP {:x}: node {} has replaced node {}, {} ms after it was chosen, {} ms after the failure agent's word", partition_.replica.vp(), r.by, r.lost,
                    ms(r.joined - r.chosen), ms(r.joined - r.word));
    }
}

std::string Primary::replacements_report() const {
  auto ms = [](io::Duration d) { return std::chrono::duration_cast<std::chrono::milliseconds>(d).count(); };
  std::string s;
  for (const Replacement& r : replacements_) {
    s += fmt::format(R"({}{{"lost":{},"by":{},"waited_ms":{})", s.empty() ? "" : ",", r.lost, r.by, ms(r.chosen - r.word));
    s += r.joined == io::Time{} ? std::string("}") : fmt::format(R"(,"took_ms":{}}})", ms(r.joined - r.chosen));
  }
  return s;
}

}  // namespace luge::head
