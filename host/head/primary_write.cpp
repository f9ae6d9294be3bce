// Writes (protocol 2, architecture section 2 steps 2 and 3): admit, give an LSN, append here and send to the reserves
// in the same breath, answer when committed. No coding, no sled, no control plane on this path (WR-04).
#include "base/crc32c.hpp"
#include "base/logging.hpp"
#include "head/outbox.hpp"
#include "head/primary.hpp"
#include "switches/paths.hpp"
#include "switches/switches.hpp"

namespace luge::head {

using namespace std::chrono_literals;

namespace {

constexpr std::size_t kInFlight = 16u << 20;  // payload admitted and not committed yet, of all VPs of this head

wire::Frame session_reply(const Status& s, Epoch epoch) {
  return wire::make_frame(wire::Kind::session_reply, [&](auto& b) {
    return fbs::CreateSessionReply(b, static_cast<std::uint16_t>(s.code()), b.CreateString(s.text()), epoch);
  });
}

}  // namespace

// All replicas remember every attachment in memory and in each image. That of the volume itself (the control plane gives out no other) always
// has room.
Status Primary::room_for(std::uint64_t attachment) const {
  const Sessions& sessions = partition_.replica.sessions;
  const VolumeId own = volume_of(partition_.replica.vp());
  const std::size_t others = sessions.size() - (sessions.incarnation(own) != 0);
  if (attachment == own || others < ctx_.options.most_attachments || broken(Switch::attachments_unbounded)) return Status();
  return Status(Code::no_space, "this volume partition remembers " + std::to_string(others) + " attachments besides the volume's own, and takes no more");
}

void Primary::open_session(ChannelPtr channel, wire::Frame frame, const fbs::OpenSession& request) {
  Replica& replica = partition_.replica;
  Status s;
  std::uint64_t now_open = replica.sessions.incarnation(request.attachment());
  if (request.epoch() != epoch_) s = Status(Code::unavailable, "this is epoch " + std::to_string(epoch_));
  else if (!open()) s = Status(Code::unavailable, state_);
  else if (request.incarnation() == 0) s = Status(Code::invalid, "incarnation 0");
  else if (request.incarnation() < now_open)
    s = Status(Code::closed_session, "incarnation " + std::to_string(now_open) + " of the attachment has taken over");
  else if (now_open == 0) s = room_for(request.attachment());
  if (!s.ok()) {
    channel->reply(frame, session_reply(s, epoch_));
    return;
  }
  auto wait_and_reply = [](std::shared_ptr<Primary> self, ChannelPtr channel, wire::Frame frame, Lsn lsn) -> io::Task<void> {
    bool ok = co_await self->wait_commit(lsn);
    channel->reply(frame, session_reply(ok ? Status() : Status(Code::unavailable, "the epoch has ended"), self->epoch_));
  };
  Lsn lsn = replica.last().lsn;
  // What this head remembers may stand on a record that was truncated, and then no other replica knows it.
  const bool logged = replica.sessions.logged(request.attachment()) || broken(Switch::truncated_opening_counts);
  if (request.incarnation() > now_open || !logged) {
    // Closes the older incarnations on every replica before the first request of this one runs (protocol 2.3).
    RequestId id{request.attachment(), request.incarnation(), 0, 0};
    lsn = append(RecordKind::session_open, 0, 0, id, {}, {})->lsn();
  }
  ctx_.world.spawn("open session", wait_and_reply(shared_from_this(), channel, std::move(frame), lsn));
}

RecordPtr Primary::append(RecordKind kind, Lba lba, std::uint32_t blocks, const RequestId& request, std::string body, Buffer payload) {
  Replica& replica = partition_.replica;
  auto record = make_record(replica.vp(), {epoch_, replica.last().lsn + 1}, kind, lba, blocks, request, std::move(body), std::move(payload));
  counters_.written_log += record->payload.size();
  if (!record->payload.empty()) {
    in_flight_.emplace_back(record->lsn(), record->payload.size());
    in_flight_bytes_ += record->payload.size();
    ctx_.in_flight += record->payload.size();
  }
  ++appended_;
  io::Time now = ctx_.world.now();
  latency_.appended(record->lsn(), now);
  partition_.append(record);
  fbs::VpState state(replica.vp(), epoch_, replica.commit());
  for (auto& [id, m] : members_) {
    if (m.state != MemberState::live || (latency_.slow(id) && broken(Switch::slow_member_cut_off))) continue;
    if (m.acked + 1 == record->lsn()) m.last_ack = m.progress = now;  // silence is counted from the first unanswered
    if (behind_too_far(m)) set_state(m, MemberState::away);
    else ctx_.outbox->add(id, state, *record, record->payload);
  }
  return record;
}

namespace {

// What the ops of a batch bring along lies one behind the other, that of an op that is refused too.
std::uint64_t blocks_brought(const fbs::WriteOp& w) { return w.kind() == fbs::OpKind::write ? touched_blocks(w.offset(), w.length()) : 0; }

bool brings_what_it_names(const fbs::WriteBatch& batch, std::size_t bytes) {
  std::uint64_t blocks = 0;
  for (const fbs::WriteOp* w : *batch.ops()) {
    if (blocks_brought(*w) > kMaxOpBlocks) return false;
    blocks += blocks_brought(*w);
  }
  return blocks * kBlockBytes == bytes && blocks == (batch.crcs() ? batch.crcs()->size() : 0);
}

}  // namespace

void Primary::write(const ChannelPtr& channel, const fbs::WriteBatch& batch, const Buffer& payload) {
  if (!batch.ops()) return;
  if (!brings_what_it_names(batch, payload.size())) {
    logging::warn("{}: write batch whose payload does not fit its ops; connection closed", channel->peer());
    return channel->close();
  }
  std::uint64_t at = 0;  // in blocks
  const Sessions& sessions = partition_.replica.sessions;
  for (const fbs::WriteOp* w : *batch.ops()) {
    Op op;
    op.channel = channel;
    op.request = {batch.attachment(), batch.incarnation(), w->sequence(), batch.low()};
    op.offset = w->offset();
    op.length = w->length();
    op.kind = w->kind();
    Status s = check_op(op);
    const std::uint64_t first = at, blocks = blocks_brought(*w);
    if (s.ok() || !broken(Switch::refused_op_brings_nothing)) at += blocks;
    if (s.ok() && blocks != 0) {
      op.payload = payload.slice(first * kBlockBytes, blocks * kBlockBytes);
      for (std::uint64_t i = first; i < first + blocks; ++i) op.crcs.push_back(batch.crcs()->Get(static_cast<std::uint32_t>(i)));
    }
    // At most W requests are open (protocol 2.3): what is remembered of a session would grow with one that never says what it has heard.
    if (s.ok() && (w->sequence() < batch.low() || w->sequence() - batch.low() >= kSessionWindow))
      s = Status(Code::invalid, "more requests are open than a session may have");
    if (batch.epoch() != epoch_ || !open()) s = Status(Code::unavailable, state_);
    else if (sessions.incarnation(batch.attachment()) != batch.incarnation() && !broken(Switch::no_session_fence))
      s = Status(sessions.incarnation(batch.attachment()) > batch.incarnation() ? Code::closed_session : Code::unavailable,
                 "open the session first");
    if (!s.ok()) {
      if (s.code() == Code::closed_session) reached(Path::late_write_of_old_session);
      answer(channel, op.request, s.code());
      continue;
    }
    auto known = sessions.find(batch.attachment(), batch.incarnation(), w->sequence());
    if (known && !broken(Switch::no_duplicate_table)) {
      // Applied already: answered when that record is committed, never applied twice.
      ++counters_.duplicates;
      if (partition_.replica.epoch_at(*known) < epoch_) reached(Path::retry_over_promotion);
      if (*known <= partition_.replica.commit() && enough_copies()) answer(channel, op.request, Code::ok);
      else {
        auto place = std::upper_bound(pending_acks_.begin(), pending_acks_.end(), *known,
                                      [](Lsn l, const PendingAck& a) { return l < a.lsn; });
        pending_acks_.insert(place, {*known, channel, op.request});
      }
      continue;
    }
    admit(std::move(op));
  }
  pump();
}

Status Primary::check_op(const Op& op) const {
  if (op.length == 0) return Status(Code::invalid, "a request for no bytes");
  if (!inside(op.offset, op.length, partition_.designation().blocks * kBlockBytes)) return beyond_end();
  if (op.kind != fbs::OpKind::write && op.kind != fbs::OpKind::trim && op.kind != fbs::OpKind::zero)
    return Status(Code::invalid, "unknown kind of operation");
  return Status();
}

// Clients have their size from the control plane. Who asks for more than this head knows of has seen the partition grow, under a primary
// that this one has not heard of yet.
Status Primary::beyond_end() const {
  return Status(broken(Switch::older_size_is_final) ? Code::invalid : Code::unavailable,
                "beyond the " + std::to_string(partition_.designation().blocks) + " blocks that this head knows the partition to have");
}

void Primary::admit(Op op) {
  // The same request again while the first has no LSN yet (a reconnect): the first will do, but answers here.
  auto [it, fresh] = queued_.try_emplace({op.request.incarnation, op.request.sequence}, op.channel);
  if (!fresh) {
    it->second = op.channel;
    return;
  }
  incoming_.push_back(std::move(op));
}

void Primary::unqueue(Op& op) {
  auto it = queued_.find({op.request.incarnation, op.request.sequence});
  if (it == queued_.end()) return;
  op.channel = it->second;
  queued_.erase(it);
}

// Space for new data here and at every receiving member; between slow and high writes are let through one by one.
Primary::Room Primary::room_for_data(bool& slow) const {
  std::uint32_t fill = ctx_.data_log->fill();
  std::uint32_t meta = ctx_.meta_log->fill();
  for (const auto& [id, m] : members_) {
    if (!partition_.designation().requires_node(id)) continue;
    fill = std::max<std::uint32_t>(fill, m.data_fill);
    meta = std::max<std::uint32_t>(meta, m.meta_fill);
  }
  slow = fill >= ctx_.options.slow_fill;
  // The last part of the metadata portion belongs to index records, epochs and cleaning (protocol 10.3).
  std::uint32_t meta_high = broken(Switch::index_without_reserve) ? 1000 : ctx_.options.meta_high_fill;
  if (meta >= meta_high) return Room::no_metadata;  // of both the one to name: data waits for metadata, never the other way round
  return fill < ctx_.options.high_fill ? Room::there : Room::no_data;
}

// What is on its way to the reserves is not in the fills they have reported. It must fit above their high mark: a reserve
// whose log is full could not take the index record either that would free it.
bool Primary::too_much_in_flight() const {
  return ctx_.in_flight >= std::min<std::size_t>(kInFlight, ctx_.data_log->bytes() / 16);
}

bool Primary::enough_copies() const {
  const Designation& d = partition_.designation();
  return d.required.size() >= d.min_copies || broken(Switch::acknowledges_one_copy);
}

void Primary::pump() {
  if (!open() || held_) return;
  bool slow = false;
  if (enough_copies()) partition_.waits.clear(Wait::copies);
  while (!incoming_.empty() && !handing_over_) {
    if (!enough_copies()) {
      const Designation& d = partition_.designation();
      partition_.waits.set(Wait::copies, "writes wait: " + std::to_string(d.required.size()) + " of the " + std::to_string(d.min_copies) + " copies that they need are complete");
      break;
    }
    if (too_much_in_flight()) break;
    if (broken(Switch::writes_wait_for_flush) && partition_.replica.unflushed_blocks() != 0) break;
    if (Room room = room_for_data(slow); room != Room::there) {
      partition_.waits.set(Wait::log_space, room == Room::no_data ? "the log is full: writes wait for the flush to the sleds" :
                                            "a head's metadata log is full: writes wait until it has been cleaned or can grow (luge status shows whose, that head's log says why)");
      flush_wake_.notify_all();
      break;
    }
    Op op = std::move(incoming_.front());
    incoming_.pop_front();
    if (touches_locked(op)) {
      if (op.aligned()) reached(Path::write_waits_for_merge);
      blocked_.push_back(std::move(op));
    } else if (!begin_op(op)) break;
    if (slow) break;
  }
  if (incoming_.empty()) partition_.waits.clear(Wait::log_space);
  if (!incoming_.empty() && !std::exchange(pump_armed_, true)) {
    auto later = [](std::shared_ptr<Primary> self) -> io::Task<void> {
      co_await self->ctx_.world.sleep(self->enough_copies() ? 1ms : 20ms);
      self->pump_armed_ = false;
      self->pump();
    };
    ctx_.world.spawn("slowed writes", later(shared_from_this()));
  }
}

bool Primary::touches_locked(const Op& op) const {
  if (locked_.empty()) return false;
  auto next = locked_.lower_bound(op.first_lba());
  if (next != locked_.end() && next->first < op.end_lba()) return true;
  return next != locked_.begin() && std::prev(next)->second > op.first_lba();
}

bool Primary::begin_op(Op& op) {
  last_write_ = ctx_.world.now();
  // It may have waited for space while a newer attachment took over: after that it must not run any more (2.3).
  if (partition_.replica.sessions.incarnation(op.request.attachment) != op.request.incarnation && !broken(Switch::no_session_fence)) {
    unqueue(op);
    answer(op.channel, op.request, Code::closed_session);
    return true;
  }
  if (op.aligned()) {
    write_aligned(op);
    return true;
  }
  if (!broken(Switch::merge_without_block_lock)) {
    // Edges are merged with their newest version; until that has its LSN nobody else writes any of its blocks (2.4): one that
    // has read its base before a trim gets its LSN would bring back what the trim clears.
    locked_[op.first_lba()] = op.end_lba();
  }
  ctx_.in_flight += op.payload.size();
  ctx_.world.spawn("merge", merge(shared_from_this(), std::move(op)));
  return true;
}

void Primary::write_aligned(Op& op) {
  std::uint32_t blocks = static_cast<std::uint32_t>(op.end_lba() - op.first_lba());
  unqueue(op);
  if (op.kind != fbs::OpKind::write) {
    RecordPtr r = append(RecordKind::trim, op.first_lba(), blocks, op.request, {}, {});
    pending_acks_.push_back({r->lsn(), op.channel, op.request});
    counters_.written_user += op.length;
    return;
  }
  for (std::uint32_t i = 0; i < blocks; ++i) {
    if (crc32c(op.payload.bytes().subspan(std::size_t{i} * kBlockBytes, kBlockBytes)) == op.crcs[i]) continue;
    answer(op.channel, op.request, Code::corrupt);
    return;
  }
  counters_.written_user += op.length;
  if (broken(Switch::lost_ack) && op.request.sequence % 97 == 0) {
    answer(op.channel, op.request, Code::ok);
    return;
  }
  std::string body(reinterpret_cast<const char*>(op.crcs.data()), op.crcs.size() * sizeof(std::uint32_t));
  RecordPtr r = append(RecordKind::data, op.first_lba(), blocks, op.request, std::move(body), std::move(op.payload));
  pending_acks_.push_back({r->lsn(), op.channel, op.request});
}

// What it gives is about to be summed anew, so this is the last that can see a block that has changed in memory.
io::Task<Result<Buffer>> Primary::newest_block(Lba lba) {
  Replica::Newest n = partition_.replica.newest(lba);
  const Lsn lsn = n.tail != 0 ? n.tail : n.committed.is_lsn() ? n.committed.lsn() : 0;
  RecordPtr r = lsn != 0 ? partition_.replica.find(lsn) : nullptr;
  if (n.tail != 0) {
    LUGE_CHECK(r != nullptr);
    if (r->kind() != RecordKind::data) co_return Buffer::zeros(kBlockBytes);
  }
  if (r) {
    const auto at = static_cast<std::uint32_t>(lba - r->header.lba());
    auto changed = [&] {
      return !r->payload.empty() && !broken(Switch::merge_trusts_memory) && crc32c(r->payload.bytes().subspan(std::size_t{at} * kBlockBytes, kBlockBytes)) != r->block_crc(at);
    };
    const bool bad = changed();
    if (bad) partition_.check_memory(lsn);
    if (bad && changed()) co_return Status(Code::unavailable, "LSN " + std::to_string(lsn) + " has changed in this head's memory before it was logged");
    co_return co_await partition_.payload(r, at, 1);
  }
  Fetched out;
  std::vector<Source> sources{source_of(n.committed)};
  Status s = co_await fetch(std::move(sources), lba, out);
  if (!s.ok()) co_return s;
  co_return std::move(out.pieces.front());
}

// The block `lba` as the op leaves it: its newest version with the op's bytes laid over it.
io::Task<Result<Buffer>> Primary::merged_block(const Op& op, Lba lba) {
  std::uint64_t start = lba * kBlockBytes;
  std::uint64_t from = std::max(op.offset, start) - start;
  std::uint64_t to = std::min(op.offset + op.length, start + kBlockBytes) - start;
  Buffer merged = Buffer::allocate(kBlockBytes);
  while (from != 0 || to != kBlockBytes) {
    auto base = co_await newest_block(lba);
    if (deposed_) co_return Status(Code::unavailable, "no longer primary");
    if (base.ok()) {
      partition_.waits.clear(Wait::block);
      std::memcpy(merged.data(), base->data(), kBlockBytes);
      break;
    }
    // No copy is good any more: writing the whole block is the cure.
    if (base.status().code() == Code::corrupt) co_return Status(Code::io_error, base.status().text());
    // An error would be worse than a pause: the base comes back when its sleds do.
    partition_.waits.set(Wait::block, "a partial write waits for its block: " + base.status().text());
    co_await ctx_.world.sleep(200ms);
  }
  if (op.kind != fbs::OpKind::write) {
    std::memset(merged.data() + from, 0, to - from);
    co_return merged;
  }
  Lba index = lba - op.first_lba();
  Bytes piece = op.payload.bytes().subspan(index * kBlockBytes + from, to - from);
  if (crc32c(piece) != op.crcs[index]) co_return Status(Code::corrupt, "payload does not match its CRC");
  std::memcpy(merged.data() + from, piece.data(), piece.size());
  co_return merged;
}

// Read, modify, write of an op with ragged edges: what is logged is whole blocks. The op is answered with its last record.
io::Task<void> Primary::merge(std::shared_ptr<Primary> self, Op op) {
  ++counters_.merges;
  std::size_t bytes = op.payload.size();
  Lba first = op.first_lba(), end = op.end_lba();
  bool is_write = op.kind == fbs::OpKind::write;
  std::map<Lba, Buffer> blocks;  // a write: all; trims and zeroes: just the ragged ones
  Status s;
  for (Lba l = first; l < end && s.ok(); ++l) {
    if (!is_write && l > first && l + 1 < end) {
      l = end - 2;
      continue;
    }
    bool whole = op.offset <= l * kBlockBytes && op.offset + op.length >= (l + 1) * kBlockBytes;
    if (!is_write && whole) continue;
    auto block = co_await merged_block(op, l);
    if (block.ok()) blocks[l] = std::move(*block);
    else s = block.status();
  }
  unqueue(op);
  ctx_.in_flight -= bytes;
  locked_.erase(first);
  if (s.ok() && partition_.replica.sessions.incarnation(op.request.attachment) != op.request.incarnation)
    s = Status(Code::closed_session, "taken over");
  if (deposed_) s = Status(Code::unavailable, "no longer primary");
  if (s.ok()) append_merged(op, blocks);
  else answer(op.channel, op.request, s.code());
  std::vector<Op> retry = std::move(blocked_);
  blocked_.clear();
  for (auto it = retry.rbegin(); it != retry.rend(); ++it) incoming_.push_front(std::move(*it));
  pump();
}

// One record per run of blocks (and one for the whole blocks in the middle of a trim). Only the last carries the
// request: a repeat after a failover in between applies all of it again, which is the same.
void Primary::append_merged(const Op& op, const std::map<Lba, Buffer>& blocks) {
  counters_.written_user += op.length;
  struct Piece {
    Lba lba;
    std::uint32_t count;
    Buffer payload;  // empty: a hole
  };
  std::vector<Piece> pieces;
  for (Lba l = op.first_lba(); l < op.end_lba();) {
    auto it = blocks.find(l);
    if (it == blocks.end()) {
      Lba next = blocks.upper_bound(l) == blocks.end() ? op.end_lba() : blocks.upper_bound(l)->first;
      pieces.push_back({l, static_cast<std::uint32_t>(next - l), {}});
      l = next;
      continue;
    }
    std::uint32_t n = 1;
    while (n < kMaxOpBlocks && blocks.contains(l + n)) ++n;
    Buffer payload = Buffer::allocate(std::size_t{n} * kBlockBytes);
    for (std::uint32_t i = 0; i < n; ++i) std::memcpy(payload.data() + std::size_t{i} * kBlockBytes, blocks.at(l + i).data(), kBlockBytes);
    pieces.push_back({l, n, std::move(payload)});
    l += n;
  }
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    Piece& p = pieces[i];
    RequestId id = op.request;
    if (i + 1 != pieces.size()) id.sequence = 0;
    RecordPtr r;
    if (p.payload.empty()) {
      r = append(RecordKind::trim, p.lba, p.count, id, {}, {});
    } else {
      std::vector<std::uint32_t> crcs;
      crc32c_blocks(p.payload.bytes(), crcs);
      std::string body(reinterpret_cast<const char*>(crcs.data()), crcs.size() * sizeof(std::uint32_t));
      r = append(RecordKind::data, p.lba, p.count, id, std::move(body), std::move(p.payload));
    }
    if (i + 1 == pieces.size()) pending_acks_.push_back({r->lsn(), op.channel, op.request});
  }
}

void Primary::on_own_durable() {
  latency_.durable(ctx_.options.id, partition_.replica.durable(), ctx_.world.now());
  recompute_commit();
}

void Primary::recompute_commit() {
  if (deposed_) return;
  Replica& replica = partition_.replica;
  Lsn commit = replica.durable();
  auto held = [this](NodeId n) -> Lsn {
    auto it = members_.find(n);
    return it == members_.end() ? 0 : it->second.acked;
  };
  auto left_out = [this](NodeId n) { return n == ctx_.options.id || (latency_.slow(n) && broken(Switch::slow_without_revision)); };
  for (NodeId n : partition_.designation().required)
    if (!left_out(n)) commit = std::min(commit, held(n));
  if (!broken(Switch::ack_before_shrink))
    for (NodeId n : also_required_)
      if (!left_out(n)) commit = std::min(commit, held(n));
  for (const auto& [n, m] : members_)
    if (m.joining) commit = std::min(commit, m.acked);
  // Nothing of this epoch is committed before its EpochStart is held by all (protocol 4.4).
  if (!open_ && replica.epoch_at(commit) != epoch_) return;
  Lsn before = replica.commit();
  replica.advance_commit(commit);
  while (enough_copies() && !pending_acks_.empty() && pending_acks_.front().lsn <= replica.commit()) {
    answer(pending_acks_.front().channel, pending_acks_.front().request, Code::ok);
    pending_acks_.pop_front();
  }
  if (replica.commit() == before) return;
  while (!in_flight_.empty() && in_flight_.front().first <= replica.commit()) {
    in_flight_bytes_ -= in_flight_.front().second;
    ctx_.in_flight -= in_flight_.front().second;
    in_flight_.pop_front();
  }
  if (!incoming_.empty()) pump();
  commit_changed_.notify_all();
}

io::Task<bool> Primary::wait_commit(Lsn lsn) {
  while (!deposed_ && partition_.replica.commit() < lsn) co_await commit_changed_.wait();
  co_return !deposed_;
}

// Answers of one turn of the loop leave in one message per connection.
void Primary::answer(const std::weak_ptr<wire::Channel>& channel, const RequestId& request, Code code) {
  if (code == Code::ok) witnessed(Fact::acknowledged, partition_.replica.vp(), partition_.designation().required.size());
  answers_.push_back({channel, request, code});
  if (std::exchange(answers_posted_, true)) return;
  ctx_.world.post([self = shared_from_this()] { self->flush_answers(); });
}

void Primary::flush_answers() {
  answers_posted_ = false;
  std::vector<Answer> answers = std::move(answers_);
  answers_.clear();
  std::vector<bool> done(answers.size());
  for (std::size_t i = 0; i < answers.size(); ++i) {
    if (done[i]) continue;
    ChannelPtr channel = answers[i].channel.lock();
    std::vector<fbs::WriteResult> results;
    for (std::size_t j = i; j < answers.size(); ++j) {
      if (done[j] || answers[j].channel.lock() != channel || answers[j].request.incarnation != answers[i].request.incarnation ||
          answers[j].request.attachment != answers[i].request.attachment)
        continue;
      done[j] = true;
      results.emplace_back(answers[j].request.sequence, static_cast<std::uint16_t>(answers[j].code), 0, 0);
    }
    if (!channel || !channel->open()) continue;
    channel->send(wire::make_frame(wire::Kind::write_replies, [&](auto& b) {
      auto list = b.CreateVectorOfStructs(results);
      return fbs::CreateWriteReplies(b, partition_.replica.vp(), epoch_, answers[i].request.attachment,
                                     answers[i].request.incarnation, list);
    }));
  }
}

}  // namespace luge::head
