// Members of the VP as its primary sees them: bringing them up to date, removing and adding them to `required`
// (protocol 3.1 - 3.4).
#include "base/logging.hpp"
#include "head/outbox.hpp"
#include "head/primary.hpp"
#include "switches/paths.hpp"
#include "switches/switches.hpp"

namespace luge::head {

using namespace std::chrono_literals;

void Primary::make_members() {
  members_of_ = partition_.designation().reserves;
  for (NodeId n : partition_.designation().reserves) {
    auto [it, fresh] = members_.try_emplace(n);
    if (!fresh) continue;
    Member& m = it->second;
    m.id = n;
    m.left_live = m.last_ack = m.progress = m.heard = ctx_.world.now();
    ctx_.connections->to(n);
  }
}

Primary::Member* Primary::member(NodeId id) {
  auto it = members_.find(id);
  return it == members_.end() ? nullptr : &it->second;
}

void Primary::set_state(Member& m, MemberState s) {
  if (m.state == s) return;
  if (m.state == MemberState::live) m.left_live = ctx_.world.now();
  m.state = s;
  m.joining = false;
  if (s == MemberState::live) latency_.follow(m.id, partition_.replica.last().lsn);
  else latency_.unfollow(m.id);
  m.last_ack = m.progress = ctx_.world.now();
  members_changed_.notify_all();
}

std::string Primary::members_report() const {
  std::string s;
  for (const auto& [id, m] : members_) {
    const char* state = m.state == MemberState::live ? "live" : m.state == MemberState::syncing ? "catching_up" : "away";
    s += fmt::format(R"({}{{"node":{},"state":"{}","acked":{},"lag":{},"awaited":{},"slow":{},"latency_us":{}}})", s.empty() ? "" : ",", id, state, m.acked,
                     partition_.replica.last().lsn - std::min(partition_.replica.last().lsn, m.acked),
                     awaited(id) || m.joining, latency_.slow(id),
                     std::chrono::duration_cast<std::chrono::microseconds>(latency_.latency(id)).count());
  }
  return s;
}

void Primary::on_connected(NodeId id) { start_sync(id); }

void Primary::on_disconnected(NodeId id) {
  Member* m = member(id);
  if (!m) return;
  ctx_.outbox->clear(id);
  set_state(*m, MemberState::away);
}

void Primary::start_sync(NodeId id) {
  Member* m = member(id);
  // Before EpochStart is in this log there is nothing to bring anybody up to.
  if (deposed_ || !m || m->state == MemberState::live || partition_.synced_epoch != epoch_) return;
  // One that goes on for a head that was a member before would void what this one does, and this one that.
  if (!syncing_.insert(id).second) return;
  ctx_.world.spawn("sync member", sync_member(shared_from_this(), id));
}

io::Task<void> Primary::sync_member(std::shared_ptr<Primary> self, NodeId id) {
  while (!deposed_) {
    Member* m = member(id);
    if (!m || m->state == MemberState::live) break;
    ctx_.connections->to(id);
    if (ctx_.connections->connected(id)) {
      set_state(*m, MemberState::syncing);
      m->data_fill = 0;  // known again by its first answer as a live member
      bool ok = co_await sync_once(id);
      partition_.replica.pin(id, 0);
      m = member(id);
      if (!m || deposed_) break;
      if (ok && m->state == MemberState::live) break;
      if (m->state == MemberState::syncing) set_state(*m, MemberState::away);
    }
    if (m && m->data_fill == kFull) co_await ctx_.world.sleep(500ms);
    co_await members_changed_.wait_for(50ms + io::Duration(ctx_.world.random_below(50'000'000)));
  }
  syncing_.erase(id);
  members_changed_.notify_all();
}

// As if it had reported a full log: a flush makes what is to be sent less.
void Primary::no_room_at(NodeId id) {
  if (Member* m = member(id)) m->data_fill = kFull;
  flush_wake_.notify_all();
}

namespace {

constexpr std::size_t kMostQueued = 8 << 20;  // on the way to a member that is brought up to date

LogPoint point_of(const fbs::LogPoint* p) { return p ? LogPoint{p->epoch(), p->lsn()} : LogPoint{}; }

wire::Frame sync_begin_frame(VpId vp, Epoch epoch, std::uint64_t turn, LogPoint agreed, Partition::SyncFrom from) {
  fbs::LogPoint point(agreed.epoch, agreed.lsn);
  return wire::make_frame(wire::Kind::sync_begin, [&](auto& b) {
    return fbs::CreateSyncBegin(b, vp, epoch, &point, from != Partition::SyncFrom::own_log, turn, from == Partition::SyncFrom::checkpoint);
  });
}

Status sync_status(const Result<wire::Frame>& answer) {
  if (!answer.ok()) return answer.status();
  const auto* r = answer->as<fbs::SyncReply>();
  if (answer->kind != wire::Kind::sync_reply || !r) return wire::status_of(*answer);
  return wire::make_status(r->code(), r->text());
}

}  // namespace

void Primary::note_answer(NodeId id, Code code) {
  Member* m = member(id);
  if (m == nullptr) return;
  m->heard = ctx_.world.now();
  m->failed = code == Code::io_error;
}

// A process that stands still keeps its connections.
bool Primary::unheard(const Member& m) const {
  return ctx_.world.now() - m.heard > ctx_.options.silent_member && !broken(Switch::frozen_member_awaited);
}

// Agree on a point; then the records behind it, where this replica still has them all. Else the metadata that changed
// behind the point (all of it for a member that cannot be built upon), what is unflushed of that, and the records behind.
io::Task<bool> Primary::sync_once(NodeId id) {
  Replica& replica = partition_.replica;
  VpId vp = replica.vp();
  auto answer = co_await ctx_.connections->call(id, wire::make_frame(wire::Kind::collect, [&](auto& b) {
    auto d = partition_.designation().to(b);
    return fbs::CreateCollect(b, d);
  }), 1s);
  if (deposed_ || !answer.ok()) co_return false;
  const auto* c = answer->as<fbs::CollectReply>();
  if (answer->kind != wire::Kind::collect_reply || !c) co_return false;
  if (c->epoch() > epoch_) {
    depose("node " + std::to_string(id) + " knows epoch " + std::to_string(c->epoch()));
    co_return false;
  }
  note_answer(id, static_cast<Code>(c->code()));
  if (c->code() != 0) co_return false;
  std::vector<EpochStart> starts;
  if (c->starts())
    for (const auto* s : *c->starts()) starts.push_back({s->epoch(), s->lsn()});
  LogPoint last = point_of(c->last());
  LogPoint agreed = replica.common_point(starts, last);
  bool whole = c->suspect() || (agreed.lsn == 0 && last.lsn != 0) || agreed.lsn < c->commit();
  // Who is required has had all that is committed, and has lost it: filled up record by record it would look as if it were whole before it is.
  whole = whole || (partition_.designation().requires_node(id) && agreed.lsn < replica.commit() && !broken(Switch::half_a_log_counts));
  bool image = whole || agreed.lsn + 1 < replica.window();
  if (agreed.lsn == 0 || agreed.lsn < replica.lowest_base()) whole = true;
  using From = Partition::SyncFrom;
  From from = image && whole ? From::nothing : From::own_log;
  if (from == From::nothing) {
    LogPoint checkpoint = co_await ask_for_checkpoint(id);
    if (deposed_) co_return false;
    if (checkpoint.lsn != 0) from = From::checkpoint, agreed = checkpoint;
  }
  replica.pin(id, std::max<Lsn>(1, image ? replica.commit() + 1 : agreed.lsn + 1));
  if (Member* m = member(id); !m || m->state != MemberState::syncing) co_return false;  // it was let go while it was asked
  std::uint64_t turn = ++sync_turns_;
  Status s = sync_status(co_await ctx_.connections->call(id, sync_begin_frame(vp, epoch_, turn, agreed, from), 5s));
  if (s.code() != Code::timed_out && s.code() != Code::unavailable) note_answer(id, s.code());
  if (deposed_ || !s.ok()) co_return false;
  if (image && !co_await send_image(id, turn, from, agreed)) co_return false;
  Member* m = member(id);
  if (!m || m->state != MemberState::syncing) co_return false;
  m->acked = agreed.lsn;
  for (Lsn next = agreed.lsn + 1; next <= replica.last().lsn; ++next) {
    RecordPtr r = replica.find(next);
    if (!r) co_return false;  // freed meanwhile: begin again
    Buffer blocks;
    if (r->payload_blocks() != 0) {
      auto p = co_await partition_.sound_payload(r);
      if (!p.ok()) co_return false;
      blocks = std::move(*p);
    }
    m = member(id);
    if (deposed_ || !m || m->state != MemberState::syncing) co_return false;
    ctx_.outbox->add(id, fbs::VpState(vp, epoch_, replica.commit()), *r, blocks);
    auto channel = ctx_.connections->to(id)->channel();
    if (channel && !co_await takes(channel)) co_return false;
    m = member(id);
    if (deposed_ || !m || m->state != MemberState::syncing) co_return false;
  }
  ctx_.outbox->add(id, fbs::VpState(vp, epoch_, replica.commit()));
  set_state(*m, MemberState::live);
  recompute_commit();  // it may hold everything already, and then its acknowledgements say nothing new
  co_return true;
}

// What a member that stands still has not taken would hold the log for as long as it does.
io::Task<bool> Primary::takes(std::shared_ptr<wire::Channel> channel) {
  std::size_t left = channel->queued_bytes();
  io::Time taken = ctx_.world.now();
  while (channel->open() && !deposed_ && channel->queued_bytes() > kMostQueued) {
    if (channel->queued_bytes() < left) left = channel->queued_bytes(), taken = ctx_.world.now();
    if (ctx_.world.now() - taken > ctx_.options.stuck_member && !broken(Switch::frozen_member_awaited)) co_return false;
    co_await ctx_.world.sleep(1ms);
  }
  co_return !deposed_;
}

// The point of the newest checkpoint that the member has found, if it lies on this replica's history; else zeros.
io::Task<LogPoint> Primary::ask_for_checkpoint(NodeId id) {
  const Replica& replica = partition_.replica;
  if (ctx_.options.checkpoints == Options::Checkpoints::none || broken(Switch::checkpoint_not_asked_for)) co_return LogPoint{};
  std::vector<fbs::EpochStartEntry> starts;
  for (const EpochStart& s : replica.starts()) starts.emplace_back(s.epoch, s.lsn);
  reached(Path::checkpoint_asked_for);
  auto answer = co_await ctx_.connections->call(id, wire::make_frame(wire::Kind::load_checkpoint, [&](auto& b) {
    auto list = b.CreateVectorOfStructs(starts);
    return fbs::CreateLoadCheckpoint(b, replica.vp(), epoch_, partition_.designation().history, list, replica.lowest_base(), replica.commit());
  }), 20s);
  const auto* c = answer.ok() && answer->kind == wire::Kind::checkpoint_loaded ? answer->as<fbs::CheckpointLoaded>() : nullptr;
  if (!c || c->code() != 0 || !c->point()) {
    std::string why = !c ? "it does not answer" : c->text() ? c->text()->str() : "";
    logging::info("VP {:x}: node {} loads no checkpoint: {}", replica.vp(), id, why);
    co_return LogPoint{};
  }
  LogPoint point = point_of(c->point());
  bool ours = point.lsn <= replica.commit() && replica.epoch_at(point.lsn) == point.epoch && point.lsn >= replica.lowest_base();
  co_return ours || broken(Switch::checkpoint_of_another_history) ? point : LogPoint{};
}

// `point`: of what the member stands on; it becomes the image's.
io::Task<bool> Primary::send_image(NodeId id, std::uint64_t turn, Partition::SyncFrom from, LogPoint& point) {
  Replica& replica = partition_.replica;
  VpId vp = replica.vp();
  Lsn base = from == Partition::SyncFrom::nothing ? 0 : point.lsn;
  Lsn held_to = from == Partition::SyncFrom::own_log ? base : 0;  // a checkpoint has no payload
  ImageCut image = replica.cut_image(base, Replica::ImageFor::member);
  replica.pin(id, image.point().lsn + 1);
  reached(Path::image_sent);
  std::vector<RecordPtr> unflushed;
  std::vector<std::shared_ptr<void>> held;  // their log space, should they be flushed or overwritten before they are sent
  for (const auto& [lsn, r] : replica.records()) {
    if (lsn <= held_to || lsn > image.point().lsn || r->kind() != RecordKind::data || (r->live == 0 && !broken(Switch::flushed_data_moves))) continue;
    if (broken(Switch::unflushed_left_out)) continue;
    unflushed.push_back(r);
    held.push_back(partition_.hold(*r));
  }
  logging::info("VP {:x}: {} node {} from LSN {} to {}: {} index pages, {} entries, {} stripes, {} unflushed records", vp,
                base == 0 ? "rebuilding" : "catching up", id, base, image.point().lsn, image.pages(), image.entries(), image.stripes(), unflushed.size());
  auto send_part = [](Primary& p, NodeId to, std::uint64_t turn, PackedRecords packed) -> io::Task<bool> {
    wire::Frame f = wire::make_frame(wire::Kind::sync_part, [&](auto& b) {
      auto headers = b.CreateVectorOfStructs(packed.headers);
      auto bodies = b.CreateVector(reinterpret_cast<const std::uint8_t*>(packed.bodies.data()), packed.bodies.size());
      return fbs::CreateSyncPart(b, p.partition_.replica.vp(), p.epoch_, headers, bodies, turn);
    });
    f.payload = std::move(packed.payload);
    Status s = sync_status(co_await p.ctx_.connections->call(to, std::move(f), 10s));
    if (!s.ok()) logging::warn("VP {:x}: node {} does not take the image: {}", p.partition_.replica.vp(), to, s.to_string());
    if (s.ok()) p.note_answer(to, Code::ok);
    if (s.code() == Code::no_space) p.no_room_at(to);
    co_return s.ok() && !p.deposed_ && p.member(to) != nullptr;
  };
  // Head first, records next, image_end last: an image is complete only with all it names.
  std::optional<ImageCut::Body> body = image.next();
  for (; body->first != RecordKind::image_end; body = image.next()) {
    PackedRecords packed;
    packed.add(*make_record(vp, {image.point().epoch, 0}, body->first, 0, 0, {}, std::move(body->second), {}), {});
    if (!co_await send_part(*this, id, turn, std::move(packed))) co_return false;
  }
  PackedRecords packed;
  for (const RecordPtr& r : unflushed) {
    auto p = co_await partition_.sound_payload(r);
    if (!p.ok() || deposed_) co_return false;
    packed.add(*r, *p);
    if (packed.payload_bytes < (1u << 20)) continue;
    if (!co_await send_part(*this, id, turn, std::exchange(packed, {}))) co_return false;
  }
  packed.add(*make_record(vp, {image.point().epoch, 0}, body->first, 0, 0, {}, std::move(body->second), {}), {});
  if (!co_await send_part(*this, id, turn, std::move(packed))) co_return false;
  fbs::LogPoint p(image.point().epoch, image.point().lsn);
  Status s = sync_status(co_await ctx_.connections->call(id, wire::make_frame(wire::Kind::sync_end, [&](auto& b) {
    return fbs::CreateSyncEnd(b, vp, epoch_, &p, turn);
  }), 10s));
  point = image.point();
  co_return s.ok() && !deposed_;
}

void Primary::on_ack(NodeId id, const fbs::AckState& ack, std::uint16_t data_fill, std::uint16_t meta_fill) {
  Member* m = member(id);
  if (!m || deposed_) return;
  m->heard = ctx_.world.now();
  auto code = static_cast<Code>(ack.code());
  if (ack.epoch() > epoch_) {
    depose("node " + std::to_string(id) + " has fenced this epoch off");
    return;
  }
  if (ack.epoch() != epoch_ || code == Code::fenced || m->state == MemberState::away) return;
  m->last_ack = ctx_.world.now();
  m->data_fill = data_fill;
  m->meta_fill = meta_fill;
  if (code != Code::ok) {
    if (m->state == MemberState::live) {
      logging::warn("VP {:x}: node {} asks to be synchronised again ({})", partition_.replica.vp(), id, code_name(code));
      set_state(*m, MemberState::away);
      start_sync(id);
    }
    return;
  }
  io::Time now = ctx_.world.now();
  io::Time granted = broken(Switch::lease_from_receipt) && ack.granted() != 0 ? now : io::Time(io::Duration(static_cast<std::int64_t>(ack.granted())));
  if (granted <= now) m->granted = std::max(m->granted, granted);
  if (ack.durable() <= m->acked) return;
  latency_.durable(id, ack.durable(), now);
  m->acked = std::min(ack.durable(), partition_.replica.last().lsn);
  m->progress = now;
  recompute_commit();
  members_changed_.notify_all();
}

void Primary::heartbeat() {
  fbs::VpState state(partition_.replica.vp(), epoch_, partition_.replica.commit());
  for (auto& [id, m] : members_)
    if (m.state == MemberState::live) ctx_.outbox->add(id, state);
}

// The control plane may take its time, or be gone: leases, and with them reads, must not depend on its answers (protocol 4.8).
io::Task<void> Primary::beat(std::shared_ptr<Primary> self, std::uint64_t turn) {
  for (;;) {
    co_await ctx_.world.sleep(ctx_.options.heartbeat);
    if (deposed_ || turn != beat_turn_) co_return;
    heartbeat();
  }
}

// A newcomer that takes every record is waited for as soon as it is as far as the others were a moment ago: one whose answers come a
// little later than theirs would else never be seen to hold all that is committed.
void Primary::let_join(Member& m) {
  const Designation& d = partition_.designation();
  Replica& replica = partition_.replica;
  bool wanted = open_ && m.state == MemberState::live && !d.requires_node(m.id) && !moving_.contains(m.id) && (!latency_.slow(m.id) || d.required.size() < d.min_copies);
  if (wanted && m.commit_seen != 0 && m.acked >= m.commit_seen) m.joining = true;
  if (!wanted || !up_to_date(m)) m.joining = false;
  m.commit_seen = wanted ? replica.commit() : 0;
}

// Who should be in `required` now.
std::vector<NodeId> Primary::wanted_required(std::string& why) const {
  const Designation& d = partition_.designation();
  io::Time now = ctx_.world.now();
  Lsn last = partition_.replica.last().lsn;
  std::vector<NodeId> keep, gone, slow, moving;
  for (NodeId n : d.required) {
    auto it = members_.find(n);
    if (n == ctx_.options.id || it == members_.end()) {
      if (n == ctx_.options.id) keep.push_back(n);
      continue;
    }
    const Member& m = it->second;
    bool away = m.state != MemberState::live && now - m.left_live > ctx_.options.short_loss &&
                (!ctx_.connections->connected(n) || unheard(m) ||
                 (partition_.synced_epoch == epoch_ && now - m.left_live > ctx_.options.silent_member));
    bool silent = m.state == MemberState::live && now - m.last_ack > ctx_.options.silent_member && (m.acked < last || !broken(Switch::frozen_member_awaited));
    (away || silent ? gone : moving_.contains(n) ? moving : latency_.slow(n) || stuck(m) ? slow : keep).push_back(n);
  }
  // A slow copy is a copy: without it there must be enough others.
  if (keep.size() < d.min_copies && !broken(Switch::slow_below_min_copies)) keep.insert(keep.end(), slow.begin(), slow.end()), slow.clear();
  for (; keep.size() < d.min_copies && !moving.empty(); moving.pop_back()) keep.push_back(moving.back());
  std::vector<NodeId> all = gone;
  all.insert(all.end(), slow.begin(), slow.end());
  all.insert(all.end(), moving.begin(), moving.end());
  if (!all.empty()) why = fmt::format("leaving: node {}", fmt::join(all, " "));
  bool leaving = !why.empty();
  bool enough = keep.size() >= d.min_copies || (gone.empty() && broken(Switch::slow_below_min_copies));
  if (leaving && enough) return keep;
  for (const auto& [n, m] : members_) {
    bool caught_up = m.joining && m.acked >= partition_.replica.commit() && partition_.replica.commit() > 0;
    if (broken(Switch::join_before_acks)) caught_up = true;
    if (!d.requires_node(n) && m.state == MemberState::live && caught_up && open_ && !moving_.contains(n)) {
      why += (why.empty() ? "" : ", ") + ("joining: node " + std::to_string(n));
      keep.push_back(n);
    }
  }
  if (!leaving || keep.size() >= d.min_copies) return keep;
  why.clear();  // too few would be left: what is there now is waited for
  return d.required;
}

// Too few of `required` are left to let the others go by a revision: writes wait (protocol 3.3), and reads would wait for
// members that are gone, or whose disk has failed. Whoever holds everything may begin an epoch alone, and serve reads in it.
bool Primary::left_alone() {
  const Designation& d = partition_.designation();
  bool alone = d.epoch == epoch_ && d.required.size() > 1 && ctx_.control->connected();
  std::size_t gone = 0;
  for (NodeId n : d.required) {
    if (n == ctx_.options.id) continue;
    auto it = members_.find(n);
    if (it == members_.end()) continue;
    const Member& m = it->second;
    bool away = m.state == MemberState::away;
    bool silent = unheard(m) || (away && !ctx_.connections->connected(n));
    gone += (away && m.failed && !broken(Switch::failed_member_awaited)) || (silent && !ctx_.alive(n));
  }
  alone = alone && gone != 0 && d.required.size() - gone < d.min_copies;
  if (!alone) alone_since_.reset();
  else if (!alone_since_) alone_since_ = ctx_.world.now();
  return alone && ctx_.world.now() - *alone_since_ > kAlonePatience;
}

io::Task<void> Primary::tend(std::shared_ptr<Primary> self) {
  while (!deposed_) {
    follow_members();  // a designation may have come by the control plane's own word, before its answer or without it
    for (auto& [id, m] : members_) start_sync(id);
    heartbeat();
    for (auto& [id, m] : members_) let_join(m);
    recompute_commit();  // who was to join and does not any more is not waited for; nothing else may come that says so
    co_await judge_latency();
    if (deposed_) break;
    std::string why;
    std::vector<NodeId> want = wanted_required(why);
    const Designation& d = partition_.designation();
    if (why.empty() && wanted_blocks_ > d.blocks) {
      why = "the volume grows";
      want = d.required;
    }
    if (why.empty() && fate_unknown()) {
      why = "how the last proposal has ended is not known";
      want = d.required;
    }
    if (why.empty() && begun_ && !d.opened && !broken(Switch::first_opening_unrecorded)) {
      why = "it opens for the first time";
      want = d.required;
    }
    note_replacements();
    std::vector<NodeId> reserves = d.reserves;
    if (why.empty() && also_required_.empty()) {
      reserves = wanted_reserves(why);
      want = d.required;
    }
    bool asks = !why.empty() && d.epoch == epoch_;
    if ((asks || !also_required_.empty()) && !broken(Switch::silent_while_asking)) ctx_.world.spawn("heartbeats", beat(self, beat_turn_));
    // What was asked for may have come by the control plane's own word: then nobody waits for its answer any more.
    if (why.empty() && also_required_.empty() && !broken(Switch::control_pause_stays)) partition_.waits.clear(Wait::control_plane);
    if (asks) co_await propose(std::move(want), std::move(reserves), why);
    else if (!also_required_.empty()) co_await inform_kept();
    ++beat_turn_;
    if (deposed_) break;
    if (left_alone()) depose("the other members are gone: a new epoch begins without them");
    pump();
    co_await ctx_.world.sleep(ctx_.options.heartbeat);
  }
}

// While the answer is unknown, commits wait for the union of both sets (protocol 3.2).
io::Task<Status> Primary::grow(std::shared_ptr<Primary> self, std::uint64_t blocks) {
  wanted_blocks_ = std::max(wanted_blocks_, blocks);
  for (int i = 0; i < 50 && !deposed_; ++i) {
    if (partition_.designation().blocks >= blocks && also_required_.empty()) co_return Status();
    co_await ctx_.world.sleep(ctx_.options.heartbeat);
  }
  co_return Status(Code::unavailable, deposed_ ? "this head is not the primary any more" : "the larger size is not agreed upon yet");
}

io::Task<void> Primary::propose(std::vector<NodeId> required, std::vector<NodeId> reserves, const std::string& why) {
  Designation next = partition_.designation();
  next.revision += 1;
  next.required = std::move(required);
  next.reserves = std::move(reserves);
  if (broken(Switch::replacement_joins_at_once))
    for (NodeId n : next.reserves)
      if (!partition_.designation().has_member(n)) next.required.push_back(n);
  next.blocks = std::max(next.blocks, wanted_blocks_);
  next.opened |= begun_;
  // Both sets are waited for until it is known how this has ended, and all that are kept know it (protocol 3.2, 5.1): what the
  // store has decided may also become known here by the control plane's word, before its answer or without it.
  for (const std::vector<NodeId>& set : {next.required, partition_.designation().required})
    for (NodeId n : set)
      if (n != ctx_.options.id) also_required_.insert(n);
  Revision expected = partition_.designation().revision;
  open_proposal_ = expected;
  if (broken(Switch::ack_before_shrink)) {
    partition_.replica.designation.required = next.required;
    recompute_commit();
  }
  reached(Path::proposal_sent);
  auto answer = co_await ctx_.control->call(wire::make_frame(wire::Kind::propose, [&](auto& b) {
    auto d = next.to(b);
    return fbs::CreatePropose(b, expected, d);
  }), 1s);
  if (deposed_) co_return;
  const auto* p = answer.ok() && answer->kind == wire::Kind::propose_reply ? answer->as<fbs::ProposeReply>() : nullptr;
  if (!p) {
    reached(Path::proposal_answer_lost);
    partition_.waits.set(Wait::control_plane, "the control plane does not answer (" + why + ")");
    co_return;  // asked again from tend(); the union stays in force
  }
  Designation result = next;
  if (p->current()) {  // what is stored, and signed
    result = Designation::from(*p->current());
    if (result.vp != next.vp) co_return;
  }
  if (p->code() != 0) {
    // A store that was restored may know nothing of the size that was asked for. Insisted on, it would keep all else from being taken; who
    // wants it asks again.
    if (static_cast<Code>(p->code()) == Code::invalid) wanted_blocks_ = 0;
    if (!p->current()) {
      partition_.waits.set(Wait::control_plane, "the control plane refuses: " + std::string(p->text() ? p->text()->str() : "") + " (" + why + ")");
      co_return;
    }
  }
  partition_.waits.clear(Wait::control_plane);
  // The store has left the revision that was expected: no earlier proposal that expects it can still be taken.
  if (result.epoch != epoch_ || result.revision > expected) open_proposal_.reset();
  if (result.epoch == epoch_ && result.revision >= next.revision)
    logging::info("VP {:x}: revision {}, required {} ({})", next.vp, result.revision, fmt::join(result.required, " "), why);
  std::size_t before = partition_.designation().required.size();
  std::uint64_t blocks = partition_.designation().blocks;
  Status s = co_await partition_.adopt(std::move(result));
  if (deposed_ || !s.ok()) co_return;
  if (partition_.designation().blocks > blocks) reached(Path::volume_grown);
  follow_members();
  members_changed_.notify_all();
  note_replacements();
  std::size_t after = partition_.designation().required.size();
  if (after != before) reached(after > before ? Path::member_joined : Path::member_left);
  co_await inform_kept();
}

// The last proposal may have been taken, or may be yet: its answer has not come, and the revision that it expects is still the newest
// that is known here.
bool Primary::fate_unknown() const {
  return open_proposal_ && *open_proposal_ >= partition_.designation().revision && !broken(Switch::union_forgotten);
}

io::Task<bool> Primary::inform_kept() {
  Designation d = partition_.designation();
  if (d.epoch != epoch_ || fate_unknown()) co_return false;
  for (NodeId n : d.required) {
    if (n == ctx_.options.id) continue;
    auto answer = co_await ctx_.connections->call(n, wire::make_frame(wire::Kind::collect, [&](auto& b) {
      auto offset = d.to(b);
      return fbs::CreateCollect(b, offset);
    }), 300ms);
    if (deposed_) co_return false;
    const auto* c = answer.ok() && answer->kind == wire::Kind::collect_reply ? answer->as<fbs::CollectReply>() : nullptr;
    if (!c || c->code() != 0 || c->revision() < d.revision) co_return false;
  }
  if (partition_.designation().revision != d.revision || fate_unknown()) co_return false;
  also_required_.clear();
  recompute_commit();
  pump();
  members_changed_.notify_all();
  co_return true;
}

}  // namespace luge::head
