// An operator takes the copy of a VP away from a head, whose machine is to go or is not trusted, and another head takes its place. The
// steps are those of a loss, each by a revision of its own: out of `required`, out of the members, and the newcomer joins when it has
// caught up (replacement.cpp). The VP serves all the while.
//
// Rules
// - Never the last whole copy, and never below min_copies: there is no way to be asked for it twice. What an operator loses by going on
//   without it is said, and `luge volume recover --accept-loss` is where it is given up.
// - It is the word of one primary in one epoch: should that end half-way, who asked asks the next one.
#include <spdlog/fmt/fmt.h>

#include "base/logging.hpp"
#include "head/primary.hpp"
#include "switches/switches.hpp"

namespace luge::head {

namespace {

constexpr int kMoveTurns = 200;  // heartbeats, until a move is given up

}  // namespace

// It answers, and lacks nothing for longer than a short loss.
bool Primary::up_to_date(const Member& m) const {
  bool lags = m.acked < partition_.replica.last().lsn && ctx_.world.now() - m.last_ack > ctx_.options.short_loss;
  return m.state == MemberState::live && !lags && !stuck(m) && !unheard(m);
}

// It answers, and has nothing durable: its disk hangs.
bool Primary::stuck(const Member& m) const {
  return m.state == MemberState::live && m.acked < partition_.replica.last().lsn && ctx_.world.now() - m.progress > ctx_.options.stuck_member && !broken(Switch::stuck_member_awaited);
}

// Counting who is there now: a member of `required` that is away may hold everything, but nobody can read it there. Who has left
// `required` on the way out is needed still while it is whole and others are not.
Status Primary::may_go(NodeId n) const {
  const Designation& d = partition_.designation();
  std::size_t left = 0;
  for (NodeId other : d.required) {
    auto it = members_.find(other);
    left += other != n && !moving_.contains(other) && (other == ctx_.options.id || (it != members_.end() && up_to_date(it->second)));
  }
  auto it = members_.find(n);
  bool whole = d.requires_node(n) || (it != members_.end() && it->second.state == MemberState::live && it->second.acked >= partition_.replica.commit());
  if (!whole || left >= d.min_copies || broken(Switch::last_copy_moves)) return Status();
  double mib = static_cast<double>(partition_.replica.unflushed_blocks() * kBlockBytes) / (1 << 20);
  if (left == 0)
    return Status(Code::conflict, fmt::format("it is the last whole copy: without it {:.2f} MiB that were acknowledged and are on no sled are lost, and what is newer than the last checkpoint of the "
                                              "metadata. Start another head that held everything, or wait until one has caught up (luge volume show)", mib));
  return Status(Code::conflict, fmt::format("{} whole cop{} would be left of at least {}: no write would be answered until another head has caught up, and {:.2f} MiB that are on no sled would "
                                            "hang on it. Wait until the others have caught up (luge volume show), or flush and wait",
                                            left, left == 1 ? "y" : "ies", d.min_copies, mib));
}

NodeId Primary::live_reserve() const {
  for (const auto& [id, m] : members_)
    if (up_to_date(m) && partition_.designation().requires_node(id) && !moving_.contains(id)) return id;
  return 0;
}

bool Primary::can_take(NodeId n) const {
  const wire::NodeRecord* node = ctx_.control->node(n);
  return node != nullptr && node->role == "head" && node->alive && !partition_.designation().has_member(n);
}

io::Task<Status> Primary::move_copy(std::shared_ptr<Primary> self, NodeId from, NodeId to) {
  if (deposed_ || !open_) co_return Status(Code::unavailable, "this head does not serve the partition (yet)");
  follow_members();
  if (!partition_.designation().has_member(from)) co_return Status();
  if (Status s = may_go(from); !s.ok()) co_return s;
  if (partition_.designation().has_member(to)) co_return Status(Code::conflict, "the head that is to take it has a copy already");
  if (to == 0) to = spare_head();
  if (to == 0) co_return Status(Code::degraded, "no other head is there to take it");
  if (!can_take(to)) co_return Status(Code::degraded, "the head that is to take it is not up");
  if (auto it = moving_.find(from); it != moving_.end() && it->second != to) co_return Status(Code::conflict, "it is being moved to another head");
  logging::info("VP {:x}: an operator wants node {} in the place of node {}", partition_.replica.vp(), to, from);
  if (from == ctx_.options.id) {
    if (NodeId next = live_reserve(); next != 0) co_await hand_over(next);
    co_return Status(Code::unavailable, "this head has handed the partition over, or tried to");
  }
  moving_[from] = to;
  Status s;
  for (int i = 0; i < kMoveTurns && s.ok() && !deposed_; ++i) {
    if (!partition_.designation().has_member(from)) co_return Status();
    s = may_go(from);
    if (s.ok() && !can_take(to)) s = Status(Code::degraded, "the head that is to take it is not up any more");
    if (s.ok()) co_await ctx_.world.sleep(ctx_.options.heartbeat);
  }
  moving_.erase(from);
  if (!s.ok()) co_return s;
  co_return Status(Code::unavailable, deposed_ ? "this head is not the primary any more" : "the members have not changed yet");
}

}  // namespace luge::head
