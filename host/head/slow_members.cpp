// Members that answer, but late, and a primary whose own log is the slow one (protocol 3.5). latency.hpp says who is slow; here is
// what is done about it.
#include <spdlog/fmt/fmt.h>

#include "base/logging.hpp"
#include "head/primary.hpp"
#include "switches/paths.hpp"
#include "switches/switches.hpp"

namespace luge::head {

using namespace std::chrono_literals;

namespace {

// Longer than what is under way takes in a unit that is as slow as the one this is for; who asks is served by the next primary.
constexpr io::Duration kDrainTime = 1s;
// What a member that is not waited for may be behind, in records as long as they were so far: beyond that it gets no more until it
// has caught up, or its memory would have to hold whatever the others can write.
constexpr std::uint64_t kMostBehind = 64 << 20;

std::string milliseconds(io::Duration d) {
  return fmt::format("{:.1f} ms", std::chrono::duration<double, std::milli>(d).count());
}

}  // namespace

std::string Primary::slow_members() const {
  std::string s;
  for (const auto& [id, m] : members_)
    if (latency_.slow(id) && !partition_.designation().requires_node(id))
      s += fmt::format("{}node {} is slow: it takes {} where this head's own log takes {}, and writes do not wait for it", s.empty() ? "" : "; ", id,
                       milliseconds(latency_.latency(id)), milliseconds(latency_.latency(ctx_.options.id)));
  return s;
}

// A disk that hangs gives no latency that could be compared.
bool Primary::own_log_stuck() const {
  auto stuck = [this](const SegmentLog& log) { return log.writing_since() && ctx_.world.now() - *log.writing_since() > ctx_.options.stuck_member; };
  return !broken(Switch::stuck_log_kept) && (stuck(*ctx_.data_log) || stuck(*ctx_.meta_log));
}

io::Task<void> Primary::judge_latency() {
  if (!open() || !ctx_.control->connected()) co_return;  // nobody could agree to it
  if (NodeId next = own_log_stuck() ? live_reserve() : 0; next != 0) {
    logging::warn("VP {:x}: this head's disk has not returned a write for {}: node {} shall be primary", partition_.replica.vp(), milliseconds(ctx_.options.stuck_member), next);
    co_return co_await hand_over(next);
  }
  auto change = latency_.judge(partition_.designation(), ctx_.world.now());
  if (!change) co_return;
  std::string medians;
  for (const auto& [id, m] : members_) medians += fmt::format(", node {} {}", id, milliseconds(latency_.latency(id)));
  medians = "own log " + milliseconds(latency_.latency(ctx_.options.id)) + medians;
  VpId vp = partition_.replica.vp();
  switch (change->kind) {
    case LatencyWatch::Kind::leave:
      logging::warn("VP {:x}: node {} is slow ({}): writes shall not wait for it", vp, change->node, medians);
      reached(Path::slow_left);
      if (broken(Switch::slow_without_revision)) recompute_commit();
      break;
    case LatencyWatch::Kind::back:
      logging::info("VP {:x}: node {} is not slow any more ({})", vp, change->node, medians);
      reached(Path::slow_back);
      break;
    case LatencyWatch::Kind::hand_over:
      logging::warn("VP {:x}: this head's own log is slower than all reserves ({}): node {} shall be primary", vp, medians, change->node);
      co_await hand_over(change->node);
  }
}

bool Primary::behind_too_far(const Member& m) const {
  if (awaited(m.id) || m.joining) return false;
  Lsn last = partition_.replica.last().lsn;
  if (last <= m.acked) return false;
  std::uint64_t each = counters_.written_log / std::max<Lsn>(1, appended_) + sizeof(RecordHeader);
  return (last - m.acked) * each > std::min<std::uint64_t>(kMostBehind, ctx_.data_log->bytes() / 4);
}

// Clean: what has been begun is committed or stays unanswered, and the store's swap ends this epoch. Whatever of it fails, this head
// goes on; should the swap have happened all the same, the next epoch fences this one as it does any other.
io::Task<void> Primary::hand_over(NodeId to) {
  handing_over_ = true;
  io::Time until = ctx_.world.now() + kDrainTime;
  auto busy = [this] { return partition_.replica.commit() < partition_.replica.last().lsn || !locked_.empty(); };
  while (!deposed_ && busy() && ctx_.world.now() < until) co_await commit_changed_.wait_until(until);
  Designation next = partition_.designation();
  Member* m = member(to);
  bool may = !deposed_ && next.epoch == epoch_ && next.requires_node(to) && m && m->state == MemberState::live;
  if (may) {
    Revision expected = next.revision;
    next.epoch += 1;
    next.revision += 1;
    next.primary = to;
    std::erase(next.reserves, to);
    next.reserves.push_back(ctx_.options.id);
    // What is acknowledged is with the others of `required`, too, and nobody can wait for what hangs here.
    if (own_log_stuck() && next.required.size() > next.min_copies) std::erase(next.required, ctx_.options.id);
    auto answer = co_await ctx_.control->call(wire::make_frame(wire::Kind::propose, [&](auto& b) {
      auto d = next.to(b);
      return fbs::CreatePropose(b, expected, d);
    }), 1s);
    const auto* p = answer.ok() && answer->kind == wire::Kind::propose_reply ? answer->as<fbs::ProposeReply>() : nullptr;
    if (p && p->code() == 0) {
      reached(Path::handed_over);
      logging::info("VP {:x}: handed over to node {} in epoch {}", next.vp, to, next.epoch);
    }
    if (p && p->current()) {
      next = Designation::from(*p->current());
    }
    bool known = p && (p->code() == 0 || p->current()) && next.vp == partition_.replica.vp();
    if (known && !deposed_) {
      Status s = co_await partition_.adopt(std::move(next));
      if (!s.ok()) logging::error("VP {:x}: cannot persist the designation: {}", partition_.replica.vp(), s.to_string());
    }
  }
  handing_over_ = false;
  pump();
}

}  // namespace luge::head
