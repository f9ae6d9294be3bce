#include "head/server.hpp"

#include <algorithm>
#include <set>

#include "base/logging.hpp"
#include "head/outbox.hpp"
#include "head/primary.hpp"
#include "head/recollection.hpp"
#include "switches/paths.hpp"
#include "switches/switches.hpp"
#include "wire/sled_generated.h"

namespace luge::head {

using namespace std::chrono_literals;

namespace {
constexpr std::uint64_t kImagesInPortion = 4;  // so many times the images of all partitions the metadata portion is to hold
constexpr std::uint64_t kBlocksOfAnImage = 4;  // beside what it tells
constexpr std::uint64_t kWorthAnImage = 32;  // bytes of data log given back for each byte of images
}

HeadServer::HeadServer(Context& ctx) : ctx_(ctx), server_(ctx.world, ctx.identity) {}
HeadServer::~HeadServer() = default;

io::Task<Status> HeadServer::start(std::function<std::string()> report) {
  for (SegmentLog* log : {ctx_.data_log.get(), ctx_.meta_log.get()}) {
    log->on_durable = [this](const std::vector<RecordPtr>& records) { on_log_durable(records); };
    log->commit_of = [this](VpId vp) {
      Partition* p = ctx_.partition(vp);
      return p ? p->replica.commit() : 0;
    };
    log->covered = [this](VpId vp, Lsn lsn) {
      Partition* p = ctx_.partition(vp);
      return p == nullptr || p->replica.image_point() >= lsn;
    };
    log->on_space = [this] {
      for (auto& [vp, p] : ctx_.partitions)
        if (p->primary) ctx_.world.post([p = std::weak_ptr<Primary>(p->primary)] { if (auto s = p.lock()) s->pump(); });
    };
    log->on_failed = [this](const Status&) {
      for (auto& [vp, p] : ctx_.partitions) {
        p->wake();
        p->durable_changed.notify_all();
      }
    };
  }
  Status s = server_.listen(ctx_.options.listen, [this](const ChannelPtr& c, wire::Frame f) { on_request(c, std::move(f)); });
  if (!s.ok()) co_return s;
  start_control(std::move(report));
  ctx_.connections = std::make_unique<Connections>(ctx_.world, ctx_.identity, *ctx_.control);
  ctx_.outbox = std::make_unique<Outbox>(ctx_);
  ctx_.connections->on_frame = [this](NodeId n, wire::Frame f) { on_peer_frame(n, std::move(f)); };
  ctx_.connections->on_connect = [this](NodeId n) {
    for (auto& [vp, p] : ctx_.partitions)
      if (p->primary) p->primary->on_connected(n);
  };
  ctx_.connections->on_disconnect = [this](NodeId n) {
    for (auto& [vp, p] : ctx_.partitions)
      if (p->primary) p->primary->on_disconnected(n);
  };
  ctx_.data_log->start();
  ctx_.meta_log->start();
  for (auto& [vp, p] : ctx_.partitions) p->start();
  keep_room_for_images();
  ctx_.control->start();
  ctx_.world.spawn("housekeeping", housekeeping());
  co_return Status();
}

void HeadServer::start_control(std::function<std::string()> report) {
  wire::ControlLink::Self self{ctx_.options.id, ctx_.options.name, "head", server_.address(), ctx_.world.random() | 1, ctx_.options.pid};
  wire::ControlLink::Callbacks callbacks;
  callbacks.report = std::move(report);
  // The store adopts a designation that is newer than its own (it may have lost its last transaction).
  callbacks.designations = [this](flatbuffers::FlatBufferBuilder& b) {
    std::vector<flatbuffers::Offset<fbs::Designation>> held;
    for (auto& [vp, p] : ctx_.partitions)
      if (!p->dropped && p->designation().epoch != 0) held.push_back(p->designation().to(b));
    return held;
  };
  callbacks.left = [this](flatbuffers::FlatBufferBuilder& b) {
    std::vector<flatbuffers::Offset<fbs::Designation>> left;
    for (const Designation& d : left_partitions(*ctx_.meta_store))
      if (const Partition* p = ctx_.partition(d.vp); !p || p->designation().epoch == 0) left.push_back(d.to(b));
    return left;
  };
  callbacks.recollection = [this] { return recollection(*ctx_.meta_store); };
  callbacks.directory = [this] {
    if (ctx_.connections) ctx_.connections->refresh();
    for (auto& [vp, p] : ctx_.partitions) p->wake();
  };
  callbacks.designate = [this](const fbs::Designate& d) {
    if (!d.designation()) return;
    std::vector<fbs::SandboxColumn> sandbox;
    if (d.sandbox())
      for (const auto* c : *d.sandbox()) sandbox.push_back(*c);
    ctx_.world.spawn("designate", designate(Designation::from(*d.designation()), std::move(sandbox)));
  };
  callbacks.request = [this](const ChannelPtr& c, wire::Frame f) { on_control(c, std::move(f)); };
  ctx_.control = std::make_unique<wire::ControlLink>(ctx_.world, ctx_.identity, ctx_.options.control, std::move(self), std::move(callbacks));
}

void HeadServer::stop() {
  server_.close();
  ctx_.control->stop();
  ctx_.connections->stop();
}

Partition& HeadServer::make_partition(VpId vp) {
  auto& p = ctx_.partitions[vp];
  if (!p || p->dropped) {
    if (p) ctx_.removed.push_back(std::move(p));
    p = std::make_unique<Partition>(ctx_, vp);
    p->start();
  }
  return *p;
}

io::Task<void> HeadServer::designate(Designation d, std::vector<fbs::SandboxColumn> sandbox) {
  if (!d.has_member(ctx_.options.id) && !ctx_.partition(d.vp)) co_return;
  const VpId vp = d.vp;
  Partition& p = make_partition(vp);
  if (!d.made_anew_beside(p.designation())) p.sandbox = std::move(sandbox);
  Status s = co_await p.adopt(std::move(d));
  if (!s.ok()) logging::error("VP {:x}: a designation is not adopted: {}", vp, s.to_string());
}

void HeadServer::on_request(const ChannelPtr& channel, wire::Frame frame) {
  switch (frame.kind) {
    case wire::Kind::open_session:
    case wire::Kind::write_batch:
    case wire::Kind::read_batch:
    case wire::Kind::map_query: on_client(channel, std::move(frame)); return;
    case wire::Kind::replicate: on_replicate(channel, frame); return;
    case wire::Kind::confirm: on_confirm(channel, frame); return;
    case wire::Kind::collect:
    case wire::Kind::fetch_tail:
    case wire::Kind::load_checkpoint:
    case wire::Kind::sync_begin:
    case wire::Kind::sync_part:
    case wire::Kind::sync_end:
    case wire::Kind::alive_query: ctx_.world.spawn("peer request", answer_peer(channel, std::move(frame))); return;
    default:
      channel->reply(frame, wire::reply_frame(Status(Code::invalid, "a head does not answer '" + std::string(wire::kind_name(frame.kind)) + "'")));
  }
}

void HeadServer::on_client(const ChannelPtr& channel, wire::Frame frame) {
  auto primary_of = [this](VpId vp) -> Primary* {
    Partition* p = ctx_.partition(vp);
    return p && p->primary && !p->primary->deposed() && !ctx_.draining ? p->primary.get() : nullptr;
  };
  auto epoch_of = [this](VpId vp) {
    Partition* p = ctx_.partition(vp);
    return p ? p->designation().epoch : 0;
  };
  auto refused = static_cast<std::uint16_t>(Code::unavailable);
  if (frame.kind == wire::Kind::open_session) {
    const auto* m = frame.as<fbs::OpenSession>();
    if (!m) return channel->close();
    if (Primary* primary = primary_of(m->vp())) return primary->open_session(channel, std::move(frame), *m);
    channel->reply(frame, wire::make_frame(wire::Kind::session_reply, [&](auto& b) {
      return fbs::CreateSessionReply(b, refused, b.CreateString("this head is not the primary"), epoch_of(m->vp()));
    }));
  } else if (frame.kind == wire::Kind::write_batch) {
    const auto* m = frame.as<fbs::WriteBatch>();
    if (!m) return channel->close();
    if (Primary* primary = primary_of(m->vp())) return primary->write(channel, *m, frame.data());
    std::vector<fbs::WriteResult> results;
    if (m->ops())
      for (const auto* op : *m->ops()) results.emplace_back(op->sequence(), refused, 0, 0);
    channel->send(wire::make_frame(wire::Kind::write_replies, [&](auto& b) {
      auto list = b.CreateVectorOfStructs(results);
      return fbs::CreateWriteReplies(b, m->vp(), epoch_of(m->vp()), m->attachment(), m->incarnation(), list);
    }));
  } else if (frame.kind == wire::Kind::map_query) {
    const auto* m = frame.as<fbs::MapQuery>();
    if (!m) return channel->close();
    if (Primary* primary = primary_of(m->vp())) return primary->map(channel, *m);
    channel->send(wire::make_frame(wire::Kind::map_reply, [&](auto& b) { return fbs::CreateMapReply(b, m->vp(), epoch_of(m->vp()), m->tag(), refused); }));
  } else {
    const auto* m = frame.as<fbs::ReadBatch>();
    if (!m) return channel->close();
    if (Primary* primary = primary_of(m->vp())) return primary->read(channel, *m);
    std::vector<fbs::ReadResult> results;
    if (m->ops())
      for (const auto* op : *m->ops()) results.emplace_back(op->tag(), op->blocks(), refused, false, 0);
    channel->send(wire::make_frame(wire::Kind::read_replies, [&](auto& b) {
      auto list = b.CreateVectorOfStructs(results);
      return fbs::CreateReadReplies(b, m->vp(), epoch_of(m->vp()), list);
    }));
  }
}

// ---- reserve

void HeadServer::on_replicate(const ChannelPtr& channel, const wire::Frame& frame) {
  const auto* m = frame.as<fbs::Replicate>();
  if (!m) return channel->close();
  std::set<VpId> accepted;
  if (m->states()) {
    for (const fbs::VpState* s : *m->states()) {
      Partition* p = ctx_.partition(s->vp());
      Code code = p ? p->check_epoch(s->epoch()) : Code::unavailable;
      // It would be waited for, and never have anything durable. That no newer epoch is known here it still tells (on_confirm).
      if (code == Code::ok && ctx_.failed() && !broken(Switch::failed_log_answers)) code = Code::unavailable;
      AckTarget& ack = acks_[s->vp()];
      ack.channel = channel;
      ack.code = code;
      ack.epoch = s->epoch();
      ack.granted = 0;
      if (code == Code::ok) accepted.insert(s->vp());
    }
  }
  auto records = unpack_records(m->records(), m->bodies(), frame.data());
  if (!records.ok()) {
    logging::warn("{}: {}; connection closed", channel->peer(), records.status().to_string());
    return channel->close();
  }
  std::set<VpId> to_disk;  // answered when their records are durable
  for (RecordPtr& r : *records) {
    VpId vp = r->header.vp();
    if (!accepted.contains(vp)) continue;
    Code code = ctx_.partition(vp)->replicate_record(std::move(r));
    if (code == Code::ok) {
      if (ctx_.partition(vp)->replica.last().lsn > ctx_.partition(vp)->replica.durable()) to_disk.insert(vp);
      continue;
    }
    acks_[vp].code = code;
    accepted.erase(vp);
  }
  if (m->states()) {
    for (const fbs::VpState* s : *m->states()) {
      bool good = accepted.contains(s->vp());
      if (good) {
        ctx_.partition(s->vp())->replicate_state(*s);
        acks_[s->vp()].granted = m->sent();
      }
      // Heartbeats are answered too: an idle reserve is heard.
      if (!good || !to_disk.contains(s->vp())) acks_[s->vp()].due = true;
    }
  }
  if (!std::exchange(acks_posted_, true)) ctx_.world.post([this] { send_acks(); });
}

void HeadServer::on_log_durable(const std::vector<RecordPtr>& records) {
  std::set<VpId> touched;
  for (const RecordPtr& r : records) {
    if (Partition* p = ctx_.partition(r->header.vp())) {
      p->settle(r);
    } else {
      r->given_back = true;
      ctx_.log(r->portion()).release(r->position.segment);
    }
  }
  for (const RecordPtr& r : records) {
    Partition* p = ctx_.partition(r->header.vp());
    if (!p) continue;
    p->on_durable(r);
    touched.insert(r->header.vp());
  }
  for (VpId vp : touched) {
    Partition* p = ctx_.partition(vp);
    if (p->primary) {
      p->primary->on_own_durable();
    } else if (auto it = acks_.find(vp); it != acks_.end() && it->second.epoch == p->designation().epoch && it->second.code == Code::ok) {
      // Only to a sender of this epoch whose last message was taken: what an old primary was told says nothing to a new one
      // on the same connection.
      it->second.due = true;
      if (!std::exchange(acks_posted_, true)) ctx_.world.post([this] { send_acks(); });
    }
  }
}

void HeadServer::send_acks() {
  acks_posted_ = false;
  std::vector<std::pair<ChannelPtr, std::vector<fbs::AckState>>> by_channel;
  for (auto& [vp, ack] : acks_) {
    if (!std::exchange(ack.due, false)) continue;
    ChannelPtr channel = ack.channel.lock();
    if (!channel || !channel->open()) continue;
    Partition* p = ctx_.partition(vp);
    fbs::AckState state = p ? p->ack_state(ack.code, ack.granted) : fbs::AckState(vp, 0, 0, 0, 0, static_cast<std::uint16_t>(Code::unavailable), 0, 0);
    auto it = std::find_if(by_channel.begin(), by_channel.end(), [&](const auto& e) { return e.first == channel; });
    if (it == by_channel.end()) it = by_channel.insert(it, {channel, {}});
    it->second.push_back(state);
  }
  for (auto& [channel, states] : by_channel)
    channel->send(wire::make_frame(wire::Kind::replicate_ack, [&](auto& b) {
      auto list = b.CreateVectorOfStructs(states);
      return fbs::CreateReplicateAck(b, list, static_cast<std::uint16_t>(ctx_.data_log->fill()), static_cast<std::uint16_t>(ctx_.meta_log->fill()));
    }));
}

void HeadServer::on_confirm(const ChannelPtr& channel, const wire::Frame& frame) {
  const auto* m = frame.as<fbs::Confirm>();
  if (!m) return channel->close();
  std::vector<fbs::AckState> states;
  if (m->states()) {
    for (const fbs::VpState* s : *m->states()) {
      Partition* p = ctx_.partition(s->vp());
      Code code = p ? p->check_epoch(s->epoch()) : Code::unavailable;
      if (code == Code::ok) p->heard_primary = ctx_.world.now();
      states.push_back(p ? p->ack_state(code) : fbs::AckState(s->vp(), 0, 0, 0, 0, static_cast<std::uint16_t>(code), 0, 0));
    }
  }
  channel->reply(frame, wire::make_frame(wire::Kind::confirm_reply, [&](auto& b) {
    auto list = b.CreateVectorOfStructs(states);
    return fbs::CreateConfirmReply(b, list);
  }));
}

bool HeadServer::primary_of_another(VpId vp) const {
  return std::any_of(ctx_.partitions.begin(), ctx_.partitions.end(), [vp](const auto& p) { return p.first != vp && p.second->primary; });
}

io::Task<void> HeadServer::answer_peer(ChannelPtr channel, wire::Frame frame) {
  auto not_here = [&](VpId vp) {
    channel->reply(frame, wire::reply_frame(Status(Code::not_found, "VP " + std::to_string(vp) + " has no replica here")));
  };
  wire::Frame answer;
  if (frame.kind == wire::Kind::collect) {
    const auto* m = frame.as<fbs::Collect>();
    if (!m || !m->designation()) co_return channel->close();
    if (!Designation::from(*m->designation()).has_member(ctx_.options.id)) co_return not_here(m->designation()->vp());
    if (broken(Switch::one_role_per_head) && primary_of_another(m->designation()->vp())) co_return not_here(m->designation()->vp());
    answer = co_await make_partition(m->designation()->vp()).collect(*m);
  } else if (frame.kind == wire::Kind::fetch_tail) {
    const auto* m = frame.as<fbs::FetchTail>();
    if (!m) co_return channel->close();
    Partition* p = ctx_.partition(m->vp());
    if (!p) co_return not_here(m->vp());
    answer = co_await p->fetch_tail(m->epoch(), m->after(), m->limit_bytes());
  } else if (frame.kind == wire::Kind::sync_begin) {
    const auto* m = frame.as<fbs::SyncBegin>();
    if (!m || !m->agreed()) co_return channel->close();
    Partition* p = ctx_.partition(m->vp());
    if (!p) co_return not_here(m->vp());
    using From = Partition::SyncFrom;
    From from = !m->reset() ? From::own_log : m->checkpoint() ? From::checkpoint : From::nothing;
    answer = co_await p->sync_begin({m->epoch(), m->turn()}, {m->agreed()->epoch(), m->agreed()->lsn()}, from);
  } else if (frame.kind == wire::Kind::load_checkpoint) {
    const auto* m = frame.as<fbs::LoadCheckpoint>();
    if (!m || !m->starts()) co_return channel->close();
    Partition* p = ctx_.partition(m->vp());
    if (!p) co_return not_here(m->vp());
    CheckpointQuery query{m->vp(), m->history(), {}, m->lowest(), m->commit(), 0};
    for (const auto* s : *m->starts()) query.starts.push_back({s->epoch(), s->lsn()});
    answer = co_await p->load_checkpoint(m->epoch(), std::move(query));
  } else if (frame.kind == wire::Kind::sync_part) {
    const auto* m = frame.as<fbs::SyncPart>();
    if (!m) co_return channel->close();
    Partition* p = ctx_.partition(m->vp());
    if (!p) co_return not_here(m->vp());
    auto records = unpack_records(m->records(), m->bodies(), frame.data());
    bool ours = records.ok() && std::all_of(records->begin(), records->end(), [&](const RecordPtr& r) { return r->header.vp() == m->vp(); });
    if (!ours) co_return channel->close();
    answer = co_await p->sync_part({m->epoch(), m->turn()}, std::move(*records));
  } else if (frame.kind == wire::Kind::sync_end) {
    const auto* m = frame.as<fbs::SyncEnd>();
    if (!m || !m->point()) co_return channel->close();
    Partition* p = ctx_.partition(m->vp());
    if (!p) co_return not_here(m->vp());
    answer = co_await p->sync_end({m->epoch(), m->turn()}, {m->point()->epoch(), m->point()->lsn()});
  } else {
    const auto* m = frame.as<fbs::AliveQuery>();
    if (!m) co_return channel->close();
    Partition* p = ctx_.partition(m->vp());
    if (!p) co_return not_here(m->vp());
    answer = p->alive_query(m->epoch(), m->revision());
  }
  channel->reply(frame, std::move(answer));
}

// ---- primary: answers of the reserves

void HeadServer::on_peer_frame(NodeId peer, wire::Frame frame) {
  if (frame.kind != wire::Kind::replicate_ack) return;
  const auto* m = frame.as<fbs::ReplicateAck>();
  if (!m || !m->states()) return;
  for (const fbs::AckState* s : *m->states()) {
    Partition* p = ctx_.partition(s->vp());
    if (p && p->primary) p->primary->on_ack(peer, *s, m->data_fill(), m->meta_fill());
  }
}

// ---- control plane

void HeadServer::on_control(const ChannelPtr& channel, wire::Frame frame) {
  if (frame.kind == wire::Kind::flush_vp) {
    const auto* m = frame.as<fbs::FlushVp>();
    if (!m) return channel->close();
    VpId vp = m->vp();
    ctx_.world.spawn("flush request", flush_vp(channel, std::move(frame), vp));
  } else if (frame.kind == wire::Kind::grow_vp) {
    const auto* m = frame.as<fbs::GrowVp>();
    if (!m) return channel->close();
    VpId vp = m->vp();
    std::uint64_t blocks = m->blocks();
    ctx_.world.spawn("grow VP", grow_vp(channel, std::move(frame), vp, blocks));
  } else if (frame.kind == wire::Kind::move_vp) {
    const auto* m = frame.as<fbs::MoveVp>();
    if (!m) return channel->close();
    VpId vp = m->vp();
    NodeId from = m->from(), to = m->to();
    ctx_.world.spawn("move a copy", move_vp(channel, std::move(frame), vp, from, to));
  } else if (frame.kind == wire::Kind::drop_vp) {
    const auto* m = frame.as<fbs::DropVp>();
    if (!m) return channel->close();
    VpId vp = m->vp();
    std::optional<Designation> stored;
    if (m->designation() && m->designation()->vp() == vp) stored = Designation::from(*m->designation());
    ctx_.world.spawn("drop VP", drop_vp(channel, std::move(frame), vp, std::move(stored)));
  } else if (frame.kind == wire::Kind::list_held) {
    channel->reply(frame, held());
  } else {
    channel->reply(frame, wire::reply_frame(Status(Code::invalid, "a head does not answer '" + std::string(wire::kind_name(frame.kind)) + "'")));
  }
}

std::shared_ptr<Primary> HeadServer::primary_of(VpId vp) {
  Partition* p = ctx_.partition(vp);
  return p ? p->primary : nullptr;
}

io::Task<void> HeadServer::grow_vp(ChannelPtr channel, wire::Frame frame, VpId vp, std::uint64_t blocks) {
  std::shared_ptr<Primary> primary = primary_of(vp);
  Status s(Code::unavailable, "this head is not the primary");
  if (primary) s = co_await primary->grow(primary, blocks);
  channel->reply(frame, wire::reply_frame(s));
}

io::Task<void> HeadServer::move_vp(ChannelPtr channel, wire::Frame frame, VpId vp, NodeId from, NodeId to) {
  std::shared_ptr<Primary> primary = primary_of(vp);
  Status s(Code::unavailable, "this head is not the primary");
  if (primary) s = co_await primary->move_copy(primary, from, to);
  channel->reply(frame, wire::reply_frame(s));
}

io::Task<void> HeadServer::flush_vp(ChannelPtr channel, wire::Frame frame, VpId vp) {
  std::shared_ptr<Primary> primary = primary_of(vp);
  Status s(Code::unavailable, "this head is not the primary");
  if (primary) s = co_await primary->flush_everything(primary);
  std::uint64_t left = primary ? primary->partition().replica.unflushed_blocks() * kBlockBytes : 0;
  channel->reply(frame, wire::make_frame(wire::Kind::flush_reply, [&](auto& b) {
    auto text = b.CreateString(s.text());
    return fbs::CreateFlushReply(b, static_cast<std::uint16_t>(s.code()), text, left);
  }));
}

// For a control plane whose store was lost.
wire::Frame HeadServer::held() const {
  return wire::make_frame(wire::Kind::held, [&](flatbuffers::FlatBufferBuilder& b) {
    std::vector<flatbuffers::Offset<fbs::HeldVp>> rows;
    for (const auto& [vp, p] : ctx_.partitions) {
      if (p->dropped || p->designation().epoch == 0) continue;
      auto d = p->designation().to(b);
      auto sandbox = b.CreateVectorOfStructs(p->sandbox);
      rows.push_back(fbs::CreateHeldVp(b, d, p->replica.sessions.incarnation(volume_of(vp)), sandbox));
    }
    return fbs::CreateHeld(b, 0, 0, b.CreateVector(rows));
  });
}

io::Task<void> HeadServer::give_columns_back(NodeId sled, const Designation& d) {
  auto fenced = co_await ctx_.connections->call(sled, wire::make_frame(wire::Kind::fence, [&](auto& b) {
    auto presented = d.to(b);
    return fbs::CreateFence(b, d.vp, d.epoch, presented);
  }), 2s);
  auto released =
      co_await ctx_.connections->call(sled, wire::make_frame(wire::Kind::release_columns, [&](auto& b) {
        auto presented = d.to(b);
        return fbs::CreateReleaseColumns(b, d.vp, d.epoch, presented);
      }), 5s);
  if (!fenced.ok() || !released.ok()) logging::warn("sled {} did not give back the columns of VP {:x}; they stay claimed", sled, d.vp);
}

// The primary gives the columns back before anybody forgets the VP.
io::Task<void> HeadServer::drop_vp(ChannelPtr channel, wire::Frame frame, VpId vp, std::optional<Designation> stored) {
  Partition* p = ctx_.partition(vp);
  Status s;
  if (p && p->designation().primary == ctx_.options.id) {
    const Designation d = stored && stored->newer_than(p->designation()) ? *stored : p->designation();  // a copy, as is the list
    std::vector<NodeId> sleds;  // a copy: the control plane's list is replaced while these calls wait
    for (const auto& [id, node] : ctx_.control->nodes())
      if (node.role == "sled" && node.alive) sleds.push_back(id);
    for (NodeId id : sleds) co_await give_columns_back(id, d);
  }
  p = ctx_.partition(vp);
  if (p) s = co_await forget(*p, "the volume was removed", true);
  channel->reply(frame, wire::reply_frame(s));
}

// ---- housekeeping

io::Task<void> HeadServer::housekeeping() {
  while (true) {
    co_await ctx_.world.sleep(100ms);
    bound_memory();
    co_await leave_partitions();
    keep_room_for_images();
    bool data_waits = ctx_.data_log->fill() >= ctx_.options.image_fill && ctx_.data_log->drained() >= worth_an_image();
    if (metadata_to_clean() || data_waits) co_await clean_metadata();
  }
}

// What is kept for images may be more than what clean_fill leaves.
bool HeadServer::metadata_to_clean() const {
  const std::uint32_t from = ctx_.options.clean_fill;
  return ctx_.meta_log->fill() >= from || (ctx_.meta_log->waits_for_room() && from <= 1000);
}

// An image has to fit beside the one that it replaces, and beside the records of the time between. Of a portion that images half fill they
// would be written all the time. Nobody waits for it here.
void HeadServer::keep_room_for_images() {
  const std::uint64_t bytes = image_bytes(), needed = kImagesInPortion * bytes;
  // Its begin, its end and each of its parts are batches of their own: what a small one takes is the rounding.
  const auto held = std::count_if(ctx_.partitions.begin(), ctx_.partitions.end(), [](const auto& p) { return !p.second->dropped; });
  ctx_.meta_log->expect_images(bytes + static_cast<std::uint64_t>(held) * kBlocksOfAnImage * kBlockBytes);
  if (needed > ctx_.meta_log->bytes()) ctx_.meta_log->start_growing(needed + needed / 4);
}

// So many segments of data are worth it that images are written to have them back. An image is the whole metadata each time, so it has to
// give back many times what it takes: with one for every two segments a large volume would write little else. What waits for images must not
// look like a log that is full, for then the flush hurries: half the way from image_fill to flush_fill may be waiting. When space is short a
// single segment counts.
std::uint32_t HeadServer::worth_an_image() const {
  const Options& o = ctx_.options;
  if (ctx_.data_log->fill() >= o.slow_fill) return 1;
  std::uint64_t segments = o.log_bytes / o.segment_bytes, may_wait = o.flush_fill > o.image_fill ? segments * (o.flush_fill - o.image_fill) / 2000 : 0;
  std::uint64_t worth = kWorthAnImage * image_bytes() / o.segment_bytes;
  return static_cast<std::uint32_t>(std::clamp<std::uint64_t>(worth, 2, std::max<std::uint64_t>(may_wait, 2)));
}

std::uint64_t HeadServer::image_bytes() const {
  std::uint64_t sum = 0;
  for (const auto& [vp, p] : ctx_.partitions) sum += p->replica.image_bytes();
  return sum;
}

// Payloads beyond the budget are dropped from memory, oldest first; they can be read from the log.
void HeadServer::bound_memory() {
  std::uint64_t bytes = 0;
  for (auto& [vp, p] : ctx_.partitions) bytes += p->replica.payload_bytes_in_memory();
  for (auto& [vp, p] : ctx_.partitions) {
    if (bytes <= ctx_.options.memory_bytes) return;
    bytes -= p->replica.drop_payloads(bytes - ctx_.options.memory_bytes);
  }
}

io::Task<void> HeadServer::clean_metadata() {
  SegmentLog& log = *ctx_.meta_log;
  co_await write_images(Images::of_what_changed);
  if (!metadata_to_clean() || broken(Switch::idle_images_stay)) co_return;
  // Images of partitions that have not changed since hold the segments that they lie in, one each perhaps: all are written anew, behind
  // one another. Not again before as much has been written as could have scattered them, or, while writes wait, for a while: not all may
  // have been able to take part. Where images are so large that it cannot help, growing alone does.
  bool helps = image_bytes() * 1000 < log.bytes() * ctx_.options.clean_fill;
  bool scattered = !gathered_ || log.appended_bytes() > gathered_->appended + log.bytes() / 8 ||
                   ((log.fill() >= ctx_.options.meta_high_fill || log.waits_for_room()) && ctx_.world.now() > gathered_->at + 10s);
  if (scattered && helps) {
    reached(Path::metadata_gathered);
    co_await write_images(Images::all);
  }
  if (scattered) gathered_ = Gathered{log.appended_bytes(), ctx_.world.now()};
  if (log.fill() >= ctx_.options.clean_fill && (scattered || !log.cannot_grow().empty())) log.start_growing(log.bytes() + log.bytes() / 4);
}

io::Task<void> HeadServer::write_images(Images which) {
  std::vector<VpId> vps;
  for (auto& [vp, p] : ctx_.partitions) vps.push_back(vp);
  for (VpId vp : vps) {
    Partition* p = ctx_.partition(vp);
    if (!p || p->replica.suspect || p->replica.loading_image() || p->replica.blank()) continue;
    if (which == Images::of_what_changed && p->replica.commit() <= p->replica.image_point()) continue;
    Status s = co_await p->write_image();
    if (!s.ok()) logging::warn("VP {:x}: metadata cleaning: {}", vp, s.to_string());
  }
  ctx_.data_log->recheck();
}

}  // namespace luge::head
