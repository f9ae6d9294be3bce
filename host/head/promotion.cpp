// From designated to open (protocol 4.2 - 4.4).
#include "base/logging.hpp"
#include "head/primary.hpp"
#include "switches/paths.hpp"
#include "switches/switches.hpp"

namespace luge::head {

using namespace std::chrono_literals;

Primary::Primary(Context& ctx, Partition& partition, Epoch epoch)
    : ctx_(ctx), partition_(partition), epoch_(epoch), latency_(ctx.options.latency, ctx.options.id, ctx.world.now()), commit_changed_(ctx.world), members_changed_(ctx.world),
      flush_wake_(ctx.world), round_wake_(ctx.world), columns_(ctx, partition, epoch) {
  last_write_ = last_flush_ = ctx.world.now();
}

Primary::~Primary() = default;

void Primary::start() {
  make_members();
  ctx_.world.spawn("primary", run(shared_from_this()));
  ctx_.world.spawn("tend members", tend(shared_from_this()));
}

void Primary::depose(const std::string& why) {
  if (deposed_) return;
  deposed_ = true;
  open_ = false;
  partition_.ended_epoch = std::max(partition_.ended_epoch, epoch_);
  state_ = "closed";
  logging::info("VP {:x}: no longer primary of epoch {}: {}", partition_.replica.vp(), epoch_, why);
  for (Op& op : incoming_) answer(op.channel, op.request, Code::unavailable);
  for (Op& op : blocked_) answer(op.channel, op.request, Code::unavailable);
  for (PendingAck& a : pending_acks_) answer(a.channel, a.request, Code::unavailable);
  incoming_.clear();
  blocked_.clear();
  pending_acks_.clear();
  in_flight_.clear();
  ctx_.in_flight -= std::exchange(in_flight_bytes_, 0);
  flush_answers();
  commit_changed_.notify_all();
  members_changed_.notify_all();
  flush_wake_.notify_all();
  round_wake_.notify_all();
  partition_.wake();
}

bool Primary::everybody_holds(Lsn lsn) const {
  const Designation& d = partition_.designation();
  for (NodeId n : d.required) {
    if (n == ctx_.options.id) continue;
    auto it = members_.find(n);
    if (it == members_.end() || it->second.state != MemberState::live || it->second.acked < lsn) return false;
  }
  for (NodeId n : also_required_) {
    auto it = members_.find(n);
    if (it == members_.end() || it->second.acked < lsn) return false;
  }
  return partition_.replica.durable() >= lsn;
}

io::Task<void> Primary::run(std::shared_ptr<Primary> self) {
  if (!co_await adopt_greatest_log() || deposed_) co_return;
  Replica& replica = partition_.replica;
  LogPoint start{epoch_, replica.last().lsn + 1};
  // The last record is the start of an epoch that never opened: its primary was lost while it gave its tail to the others.
  if (!replica.starts().empty() && replica.starts().back().lsn == replica.last().lsn && replica.commit() < replica.last().lsn)
    reached(Path::second_promotion_during_tail);
  partition_.append(make_record(replica.vp(), start, RecordKind::epoch_start, 0, 0, {}, {}, {}));
  reached(Path::epoch_start_appended);
  partition_.synced_epoch = epoch_;
  state_ = "opening: waiting until all required members hold the log up to here";
  for (auto& [id, m] : members_) start_sync(id);
  while (!deposed_ && !everybody_holds(start.lsn) && !broken(Switch::open_before_all_hold_tail)) {
    recompute_commit();
    co_await members_changed_.wait_for(100ms);
  }
  if (deposed_) co_return;
  begun_ = true;
  if (!co_await recorded_as_opened() || !co_await wait_out_leases()) co_return;
  if (broken(Switch::open_before_all_hold_tail)) replica.advance_commit(start.lsn);
  recompute_commit();
  open_ = true;
  witnessed(Fact::opened, replica.vp(), epoch_);
  state_ = "open";
  partition_.waits = {};
  reached(Path::primary_opened);
  logging::info("VP {:x}: open in epoch {} from LSN {}, required {}", replica.vp(), epoch_, start.lsn,
                fmt::join(partition_.designation().required, " "));
  ctx_.world.spawn("flush", flush_loop(self));
  ctx_.world.spawn("widen", widen_loop(self));
  ctx_.world.spawn("read rounds", run_rounds(self));
  pump();
}

// Nothing is acknowledged before the store knows that there is something to lose: else a VP that loses all of its disks would pass for one
// that was never open (never_open()). The start of the epoch is everywhere by now, so that a copy which has lost nothing is not empty. tend() proposes it.
io::Task<bool> Primary::recorded_as_opened() {
  while (!deposed_ && !partition_.designation().opened && !broken(Switch::first_opening_unrecorded)) {
    state_ = "opening: the control plane has not noted yet that it is open";
    co_await members_changed_.wait_for(100ms);
  }
  co_return !deposed_;
}

// The primary before may answer reads by a lease until then.
io::Task<bool> Primary::wait_out_leases() {
  if (ctx_.world.now() < ctx_.started + kLease) reached(Path::restarted_inside_lease);
  if (ctx_.world.now() < partition_.granted_until) state_ = "opening: waiting until the lease of the primary before has run out";
  while (!deposed_ && ctx_.world.now() < partition_.granted_until) co_await members_changed_.wait_until(partition_.granted_until);
  co_return !deposed_;
}

// What is let go of was committed, and so durable here too, once: an empty disk in place of the old one. Another member
// stands then, and repairs this replica.
void Primary::lost_records(const std::string& why) {
  logging::error("VP {:x}: {}; this replica will be repaired from another", partition_.replica.vp(), why);
  partition_.replica.suspect = true;
  partition_.replica.suspect_reason = why;
  depose(why);
}

// The answers of some members, which are fenced by being asked.
struct Primary::Collected {
  struct Reply {
    NodeId node;
    LogPoint last;
    Lsn first;  // oldest record that it still has
    Lsn commit;
    std::vector<EpochStart> starts;
  };
  std::vector<Reply> replies;  // of those that count
  std::string missing;         // those that have not answered
};

io::Task<void> Primary::collect_from(NodeId n, const Designation& d, Collected& out) {
  auto answer = co_await ctx_.connections->call(n, wire::make_frame(wire::Kind::collect, [&](auto& b) {
    auto offset = d.to(b);
    return fbs::CreateCollect(b, offset);
  }), 500ms);
  const auto* c = answer.ok() && answer->kind == wire::Kind::collect_reply ? answer->as<fbs::CollectReply>() : nullptr;
  if (!c || !c->last()) {
    out.missing += " " + std::to_string(n);
    co_return;
  }
  note_answer(n, static_cast<Code>(c->code()));
  if (c->epoch() > epoch_) {
    depose("node " + std::to_string(n) + " knows epoch " + std::to_string(c->epoch()));
    co_return;
  }
  if (c->code() != 0 || (c->suspect() && !broken(Switch::suspect_promoted))) co_return;
  Collected::Reply r{n, {c->last()->epoch(), c->last()->lsn()}, c->first(), c->commit(), {}};
  if (c->starts())
    for (const auto* s : *c->starts()) r.starts.push_back({s->epoch(), s->lsn()});
  out.replies.push_back(std::move(r));
}

io::Task<Primary::Collected> Primary::collect_from(std::vector<NodeId> nodes, const Designation& d) {
  Collected got;
  io::TaskGroup asking(ctx_.world);
  for (NodeId n : nodes)
    if (n != ctx_.options.id) asking.spawn("collect", collect_from(n, d, got));
  co_await asking.join();
  std::sort(got.replies.begin(), got.replies.end(), [](const auto& a, const auto& b) { return a.node < b.node; });
  co_return got;
}

// All of `required` have lost what they held, or the VP has never been open: a member missed its first opening, left `required`, and no
// start of an epoch has become durable since. Where all the others are empty, too, no log has anything that was acknowledged; unless
// somebody has come to the VP since it was open, who may not have been given anything yet while who left has it all.
io::Task<bool> Primary::never_open(const Designation& d) {
  std::vector<NodeId> others;
  for (NodeId n : d.members())
    if (!d.requires_node(n)) others.push_back(n);
  if (broken(Switch::blank_promoted)) co_return true;
  if (d.opened && !broken(Switch::newcomers_prove_emptiness)) co_return false;
  if (others.empty()) co_return true;
  if (broken(Switch::only_required_asked)) co_return false;
  Collected got = co_await collect_from(others, d);
  co_return got.replies.size() == others.size() && std::all_of(got.replies.begin(), got.replies.end(), [](const auto& r) { return r.last.lsn == 0; });
}

// Every member of `required` is asked (and so fenced); the greatest (epoch, LSN) is taken over.
io::Task<bool> Primary::adopt_greatest_log() {
  Replica& replica = partition_.replica;
  while (!deposed_) {
    Designation d = partition_.designation();
    Collected got = co_await collect_from(d.required, d);
    if (deposed_) co_return false;
    if (!got.missing.empty()) {
      // tend() removes a member that stays away; until then nobody may be left out (protocol 4.4).
      state_ = "opening: waiting for node" + got.missing;
      co_await members_changed_.wait_for(50ms);
      continue;
    }
    const Collected::Reply* best = nullptr;
    LogPoint greatest = replica.last();
    for (const Collected::Reply& r : got.replies) {
      bool greater = broken(Switch::longest_log_by_length) ? r.last.lsn > greatest.lsn : r.last > greatest;
      if (greater) {
        best = &r;
        greatest = r.last;
      }
    }
    if (greatest.lsn == 0 && !co_await never_open(d)) {
      state_ = d.opened ? "opening: those that must hold everything are empty, though it has served; another head may hold some of it (luge volume recover --accept-loss)"
                        : "opening: every copy that answers is empty; the other heads of the VP are waited for";
      co_await members_changed_.wait_for(100ms);
      continue;
    }
    if (deposed_) co_return false;
    if (best == nullptr) co_return true;
    LogPoint agreed = replica.common_point(best->starts, best->last);
    if (agreed.lsn < replica.commit()) {
      state_ = "closed: this replica and node " + std::to_string(best->node) + " disagree below the commit LSN";
      logging::error("VP {:x}: {}", replica.vp(), state_);
      co_await members_changed_.wait_for(1s);
      continue;
    }
    // Not by taking them over one by one: a log of which half has come would be one that could be opened alone.
    if (agreed.lsn + 1 < best->first || (agreed.lsn < best->commit && !broken(Switch::half_a_log_counts))) {
      lost_records("node " + std::to_string(best->node) + " knows of committed records that are not here");
      co_return false;
    }
    Status cut = co_await partition_.truncate(agreed);
    if (cut.code() == Code::unavailable && !deposed_) {
      co_await members_changed_.wait_for(50ms);
      continue;
    }
    if (!cut.ok() || deposed_) co_return false;
    if (co_await fetch_tail_from(best->node, agreed, best->last)) co_return true;
  }
  co_return false;
}

io::Task<bool> Primary::fetch_tail_from(NodeId member, LogPoint, LogPoint theirs) {
  Replica& replica = partition_.replica;
  while (!deposed_ && replica.last().lsn < theirs.lsn) {
    auto answer = co_await ctx_.connections->call(member, wire::make_frame(wire::Kind::fetch_tail, [&](auto& b) {
      return fbs::CreateFetchTail(b, replica.vp(), epoch_, replica.last().lsn, 1 << 20);
    }), 2s);
    if (deposed_ || !answer.ok()) co_return false;
    const auto* tail = answer->as<fbs::Tail>();
    if (answer->kind != wire::Kind::tail || !tail || tail->code() != 0) {
      logging::warn("VP {:x}: node {} cannot give its tail: {}", replica.vp(), member,
                    tail && tail->text() ? tail->text()->str() : "no answer that parses");
      co_return false;
    }
    auto records = unpack_records(tail->records(), tail->bodies(), answer->data());
    if (!records.ok() || records->empty()) co_return false;
    for (RecordPtr& r : *records) {
      if (r->header.vp() != replica.vp() || r->lsn() != replica.last().lsn + 1 || !partition_.inside(*r)) co_return false;
      partition_.append(std::move(r));
    }
  }
  if (deposed_) co_return false;
  co_return (co_await partition_.wait_durable(replica.last().lsn)).ok();
}

}  // namespace luge::head
