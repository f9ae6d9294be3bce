// What a primary (or a candidate) may ask of a head that holds a replica. Every answer rests on what is durable here.
#include "base/logging.hpp"
#include "head/partition.hpp"
#include "head/primary.hpp"
#include "switches/paths.hpp"
#include "switches/switches.hpp"

namespace luge::head {

using namespace std::chrono_literals;

Code Partition::check_epoch(Epoch epoch) const {
  bool taken = broken(Switch::old_epoch_taken) && synced_epoch == designation().epoch;
  if (epoch < designation().epoch) return taken ? Code::ok : Code::fenced;  // proves its sender is a primary of the past (WR-13)
  if (epoch > designation().epoch || synced_epoch != epoch) return Code::unavailable;
  return Code::ok;
}

io::Task<wire::Frame> Partition::collect(const fbs::Collect& request) {
  Designation d = Designation::from(*request.designation());
  Status s;
  if (d.epoch < designation().epoch)
    s = Status(Code::fenced, "epoch " + std::to_string(designation().epoch) + " has begun");
  else
    s = co_await adopt(d);
  if (s.ok() && d.epoch == designation().epoch) heard_primary = ctx.world.now();
  std::vector<fbs::EpochStartEntry> starts;
  for (const EpochStart& e : replica.starts()) starts.emplace_back(e.epoch, e.lsn);
  fbs::LogPoint last(replica.last().epoch, replica.last().lsn);
  co_return wire::make_frame(wire::Kind::collect_reply, [&](auto& b) {
    auto text = b.CreateString(s.text());
    auto starts_vector = b.CreateVectorOfStructs(starts);
    return fbs::CreateCollectReply(b, static_cast<std::uint16_t>(s.code()), text, designation().epoch,
                                   designation().revision, &last, replica.commit(), starts_vector, replica.suspect,
                                   replica.window());
  });
}

void Partition::replicate_state(const fbs::VpState& state) {
  heard_primary = ctx.world.now();
  granted_until = std::max(granted_until, heard_primary + kLease);
  replica.advance_commit(std::min(state.commit(), replica.last().lsn));
}

bool Partition::inside(const Record& record) const {
  std::uint64_t size = designation().blocks, blocks = record.header.blocks();
  return blocks <= size && record.header.lba() <= size - blocks;
}

Code Partition::replicate_record(RecordPtr record) {
  Lsn next = replica.last().lsn + 1;
  witnessed(Fact::record_taken, replica.vp(), synced_epoch);
  // A larger size comes with the designation, which a synchronisation brings.
  if (!inside(*record)) return Code::unavailable;
  if (record->lsn() == next) {
    append(std::move(record));
    return Code::ok;
  }
  if (record->lsn() > next) return Code::unavailable;  // a gap: synchronise again
  RecordPtr held = replica.find(record->lsn());
  bool same = held ? held->epoch() == record->epoch() && held->header.crc() == record->header.crc()
                   : replica.epoch_at(record->lsn()) == record->epoch();
  if (same || broken(Switch::diverged_unchecked)) return Code::ok;
  reached(Path::diverged_refused);
  logging::error("VP {:x}: LSN {} from the primary is not the record held here: diverged", replica.vp(), record->lsn());
  return Code::diverged;
}

fbs::AckState Partition::ack_state(Code code, std::uint64_t granted) const {
  return fbs::AckState(replica.vp(), designation().epoch, replica.durable(), replica.oldest_unflushed(), granted,
                       static_cast<std::uint16_t>(code), 0, 0);
}

io::Task<wire::Frame> Partition::fetch_tail(Epoch epoch, Lsn after, std::uint32_t limit) {
  PackedRecords packed;
  Status s;
  if (epoch < designation().epoch) s = Status(Code::fenced, "epoch " + std::to_string(designation().epoch) + " has begun");
  Lsn lsn = after + 1;
  std::size_t bytes = 0;
  for (; s.ok() && lsn <= replica.last().lsn && (bytes == 0 || bytes < limit); ++lsn) {
    RecordPtr r = replica.find(lsn);
    if (!r) {
      s = Status(Code::not_found, "record " + std::to_string(lsn) + " is not kept any more");
      break;
    }
    Buffer blocks;
    if (r->payload_blocks() != 0) {
      auto p = co_await sound_payload(r, limit != kOneRecord);
      if (!p.ok()) {
        s = p.status();
        break;
      }
      blocks = std::move(*p);
    }
    packed.add(*r, blocks);
    bytes += blocks.size() + r->body.size() + sizeof(RecordHeader);
  }
  bool last = lsn > replica.last().lsn;
  wire::Frame f = wire::make_frame(wire::Kind::tail, [&](auto& b) {
    auto text = b.CreateString(s.text());
    auto headers = b.CreateVectorOfStructs(packed.headers);
    auto bodies = b.CreateVector(reinterpret_cast<const std::uint8_t*>(packed.bodies.data()), packed.bodies.size());
    return fbs::CreateTail(b, static_cast<std::uint16_t>(s.code()), text, headers, bodies, last);
  });
  f.payload = std::move(packed.payload);
  co_return f;
}

namespace {

wire::Frame sync_reply(const Status& s, LogPoint last) {
  fbs::LogPoint point(last.epoch, last.lsn);
  return wire::make_frame(wire::Kind::sync_reply, [&](auto& b) {
    auto text = b.CreateString(s.text());
    return fbs::CreateSyncReply(b, static_cast<std::uint16_t>(s.code()), text, &point);
  });
}

Status not_in_epoch(Epoch epoch, Epoch held) {
  if (epoch < held) return Status(Code::fenced, "epoch " + std::to_string(held) + " has begun");
  return Status(Code::unavailable, "epoch " + std::to_string(epoch) + " is not known here yet: collect first");
}

}  // namespace

Status Partition::refused(SyncTurn turn) const {
  if (turn.epoch != designation().epoch) return not_in_epoch(turn.epoch, designation().epoch);
  if (turn != sync_turn_ && !broken(Switch::late_sync_taken)) return Status(Code::unavailable, "another synchronisation has begun");
  return Status();
}

// Aside: what is held here stays what it is.
io::Task<wire::Frame> Partition::load_checkpoint(Epoch epoch, CheckpointQuery query) {
  Status s = epoch == designation().epoch ? Status() : not_in_epoch(epoch, designation().epoch);
  if (s.ok() && ctx.options.checkpoints == Options::Checkpoints::none) s = Status(Code::not_found, "checkpoints are not used here");
  query.history = designation().history;
  query.blocks = designation().blocks;
  LogPoint point;
  std::uint64_t bytes = 0;
  if (s.ok()) {
    auto loaded = co_await load_newest_checkpoint(ctx, std::move(query));
    if (loaded.ok()) {
      point = loaded->point;
      bytes = loaded->bytes;
      loaded_ = std::move(*loaded);
    } else {
      s = loaded.status();
    }
  }
  fbs::LogPoint at(point.epoch, point.lsn);
  co_return wire::make_frame(wire::Kind::checkpoint_loaded, [&](auto& b) {
    auto text = b.CreateString(s.text());
    return fbs::CreateCheckpointLoaded(b, static_cast<std::uint16_t>(s.code()), text, &at, bytes);
  });
}

io::Task<wire::Frame> Partition::sync_begin(SyncTurn turn, LogPoint agreed, SyncFrom from) {
  bool late = turn.epoch == designation().epoch && turn <= sync_turn_ && !broken(Switch::late_sync_taken);
  if (late) reached(Path::late_sync_refused);
  if (late) co_return sync_reply(Status(Code::unavailable, "a later synchronisation has begun"), replica.last());
  if (turn.epoch == designation().epoch) sync_turn_ = turn;
  auto guard = co_await rebuilding_.lock();
  Status s = co_await begin_sync(turn, agreed, from);
  co_return sync_reply(s, replica.last());
}

// The primary has found the checkpoint's point on its own history. What it says comes into memory alone: the image that the
// primary adds to it makes both durable.
io::Task<Status> Partition::take_over_checkpoint(LogPoint point) {
  if (!loaded_ || loaded_->point != point) co_return Status(Code::not_found, "no checkpoint of that point has been loaded");
  LoadedCheckpoint checkpoint = std::move(*loaded_);
  loaded_.reset();
  if (Status s = co_await wait_durable(replica.last().lsn); !s.ok()) co_return s;
  if (Status s = co_await forget_all(); !s.ok()) co_return s;
  if (!load_chain(replica, checkpoint.chain)) co_return Status(Code::internal, "the checkpoint does not load any more");
  replica.image_not_in_log();
  stands_on_ = point.lsn;
  sources.checkpoint = checkpoint.bytes;
  sources.author = checkpoint.author;
  sources.lsn = point.lsn;
  stood_on_ = replica.logged();
  logging::info("VP {:x}: stands on the checkpoint of node {} up to LSN {} ({} bytes)", replica.vp(), checkpoint.author, point.lsn, checkpoint.bytes);
  co_return Status();
}

// Nothing of what was held may be replayed on top of what comes in its place. That it is gone is written down first: should this head
// restart before something whole has come, what is left of before (an image, say) is no replica, however sound it looks.
io::Task<Status> Partition::forget_all() {
  ++resets_;
  if (auto guard = co_await adopting_.lock(); !unsound && !broken(Switch::rebuild_not_noted)) {
    Status s = co_await ctx.meta_store->put(std::vector<io::MetaStore::Change>{{unsound_key(replica.vp()), "it was being rebuilt"}});
    if (!s.ok()) co_return s;
    unsound = true;
  }
  if (Status s = co_await void_everything(); !s.ok()) co_return s;
  replica.reset();
  forget_incoming_image();
  co_return Status();
}

io::Task<Status> Partition::begin_sync(SyncTurn turn, LogPoint agreed, SyncFrom from) {
  if (Status s = refused(turn); !s.ok()) co_return s;
  if (ctx.failed() && !broken(Switch::failed_log_answers)) co_return Status(Code::io_error, "this head's log or metadata store has failed");
  synced_epoch = 0;
  stands_on_ = 0;
  if (from != SyncFrom::own_log) sources = {};
  replica.abandon_loading();
  if (from != SyncFrom::checkpoint) loaded_.reset();
  if (from != SyncFrom::own_log) {
    // What is held stays readable in the log until the image that replaces it is complete; it just no longer counts.
    replica.suspect = true;
    replica.suspect_reason = "being rebuilt from the primary";
    witnessed(Fact::rebuild_begun, replica.vp(), turn.epoch);
    forget_incoming_image();
    co_return from == SyncFrom::checkpoint ? co_await take_over_checkpoint(agreed) : Status();
  }
  if (agreed.lsn < replica.commit()) {
    reached(Path::diverged_refused);
    co_return Status(Code::diverged, "record " + std::to_string(agreed.lsn + 1) + " is committed here");
  }
  if (Status s = co_await truncate_locked(agreed); !s.ok()) co_return s;
  // From here the primary counts what is held as acknowledged: it must be on the medium.
  if (Status s = co_await wait_durable(replica.last().lsn); !s.ok()) co_return s;
  if (Status s = refused(turn); !s.ok()) co_return s;
  synced_epoch = turn.epoch;
  co_return Status();
}

void Partition::forget_incoming_image() {
  for (std::uint32_t segment : std::exchange(incoming_image_segments_, {})) ctx.meta_log->release(segment);
}

// A whole image replaces all that this replica has; one with a base adds to what it has up to there.
io::Task<Status> Partition::begin_image(const RecordPtr& record) {
  const auto* begin = flatbuffers::GetRoot<fbs::ImageBegin>(record->body.data());
  flatbuffers::Verifier v(reinterpret_cast<const std::uint8_t*>(record->body.data()), record->body.size());
  if (!v.VerifyBuffer<fbs::ImageBegin>(nullptr)) co_return Status(Code::corrupt, "the image does not parse");
  Lsn base = begin->base();
  synced_epoch = 0;  // nothing is appended in between
  // Nothing in flight may end up behind the image.
  if (Status s = co_await wait_durable(replica.last().lsn); !s.ok()) co_return s;
  if (base != 0) {
    if (stands_on_ == 0) sources = {};
    bool stands = base == replica.last().lsn && (!replica.suspect || base == stands_on_);
    if (!stands) co_return Status(Code::diverged, "this replica does not end at LSN " + std::to_string(base));
    replica.advance_commit(base);  // the primary has it committed: it lies below its image
    co_return replica.commit() == base ? Status() : Status(Code::internal, "LSN " + std::to_string(base) + " is not durable here");
  }
  co_return co_await forget_all();
}

// The parts of a whole image go to the log like everything else; those of one with a base wait in memory.
io::Task<Status> Partition::image_record(const RecordPtr& record) {
  RecordKind kind = record->kind();
  std::string body = record->body;
  if (kind == RecordKind::image_begin)
    if (Status s = co_await begin_image(record); !s.ok()) co_return s;
  if (kind == RecordKind::image_end && replica.missing_unflushed_while_loading() != 0)
    co_return Status(Code::invalid, "the image names unflushed records that have not been sent");
  bool whole = kind == RecordKind::image_begin ? flatbuffers::GetRoot<fbs::ImageBegin>(body.data())->base() == 0 : replica.loading_base() == 0;
  if (whole) {
    std::uint32_t segment = 0;
    if (Status s = co_await append_local(record, &segment); !s.ok()) co_return s;
    incoming_image_segments_.push_back(segment);
  }
  if (!replica.load_image(kind, body)) co_return Status(Code::corrupt, "the image does not parse");
  sources.metadata += body.size();
  if (kind == RecordKind::image_part) sources.index_pages = replica.loading_pages();
  co_return Status();
}

// Held back until the image that names them is complete, then adopted below its point.
// What there is no room for is refused: waiting, this replica might wait for itself, for what it has in the log is often given back by
// the very synchronisation. The primary flushes and comes again.
io::Task<Status> Partition::unflushed_records(std::vector<RecordPtr> records) {
  std::uint64_t bytes = 0;
  for (const RecordPtr& r : records) bytes += r->payload.size();
  if (bytes != 0 && !ctx.data_log->has_room(bytes) && !broken(Switch::sync_waits_for_space)) {
    reached(Path::sync_without_room);
    co_return Status(Code::no_space, "the log has no room for " + std::to_string(bytes) + " bytes of unflushed data");
  }
  for (const RecordPtr& r : records) {
    bool with_base = replica.loading_base() != 0;
    bool below = with_base && r->lsn() <= replica.loading_base() && stands_on_ == 0;
    if (!replica.loading_image() || r->lsn() > replica.loading_point() || below)
      co_return Status(Code::invalid, "record " + std::to_string(r->lsn()) + " does not belong to an image");
    sources.unflushed += r->payload.size();
    if (with_base) replica.stage(r);
    else replica.adopt_unflushed(r);
    ctx.data_log->append(r);
  }
  for (const RecordPtr& r : records) {
    while (!r->durable && !ctx.data_log->failed() && !dropped) co_await durable_changed.wait();
    if (!r->durable) co_return Status(Code::io_error, "the log has failed");
  }
  co_return Status();
}

io::Task<wire::Frame> Partition::sync_part(SyncTurn turn, std::vector<RecordPtr> records) {
  auto guard = co_await rebuilding_.lock();
  Status s = co_await take_part(turn, std::move(records));
  co_return sync_reply(s, replica.last());
}

io::Task<Status> Partition::take_part(SyncTurn turn, std::vector<RecordPtr> records) {
  std::vector<RecordPtr> unflushed;
  for (RecordPtr& r : records) {
    if (r->lsn() != 0) {
      if (!inside(*r)) co_return Status(Code::invalid, "record " + std::to_string(r->lsn()) + " lies beyond the end of the VP");
      if (r->kind() == RecordKind::data) unflushed.push_back(std::move(r));
      continue;
    }
    if (Status s = refused(turn); !s.ok()) co_return s;
    if (Status s = co_await unflushed_records(std::exchange(unflushed, {})); !s.ok()) co_return s;
    if (Status s = refused(turn); !s.ok()) co_return s;
    if (Status s = co_await image_record(r); !s.ok()) co_return s;
  }
  if (Status s = refused(turn); !s.ok()) co_return s;
  co_return co_await unflushed_records(std::move(unflushed));
}

// Until the image is durable this replica has neither the old state nor the new one for certain: suspect.
io::Task<Status> Partition::complete_delta(SyncTurn turn) {
  Lsn base = replica.loading_base();
  replica.suspect = true;
  replica.suspect_reason = "catching up";
  witnessed(Fact::rebuild_begun, replica.vp(), designation().epoch);
  replica.apply_delta();
  if (replica.missing_unflushed() != 0) co_return Status(Code::corrupt, "the index names records that have not been sent");
  Status s;
  do {
    s = co_await write_image();
    if (s.code() == Code::unavailable) co_await ctx.world.sleep(10ms);  // one of before is still being written
  } while (s.code() == Code::unavailable && !dropped);
  if (s.ok()) s = refused(turn);  // its mark would be another history's
  if (s.ok()) s = co_await sound_again();
  if (!s.ok()) co_return s;
  if (std::exchange(stands_on_, 0) != 0) {
    sources.records = replica.logged() - std::min(replica.logged(), stood_on_);
    reached(Path::checkpoint_loaded);
  }
  logging::info("VP {:x}: caught up from LSN {} to {}", replica.vp(), base, replica.commit());
  co_return s;
}

io::Task<Status> Partition::complete_image(LogPoint point) {
  if (replica.commit() != point.lsn || replica.loading_image() || replica.missing_unflushed() != 0)
    co_return Status(Code::corrupt, "the image is not complete");
  replica.recount();
  replica.image_durable(point, std::exchange(incoming_image_segments_, {}));
  if (Status s = co_await sound_again(); !s.ok()) co_return s;
  reached(Path::image_rebuild);
  logging::info("VP {:x}: rebuilt from the primary up to LSN {}", replica.vp(), point.lsn);
  co_return Status();
}

io::Task<wire::Frame> Partition::sync_end(SyncTurn turn, LogPoint point) {
  auto guard = co_await rebuilding_.lock();
  Status s = refused(turn);
  bool delta = replica.delta_complete() && replica.loading_point() == point.lsn;
  if (s.ok() && delta) s = co_await complete_delta(turn);
  else if (s.ok()) s = co_await complete_image(point);
  if (s.ok()) witnessed(Fact::image_taken, replica.vp(), turn.epoch);
  if (s.ok()) s = refused(turn);
  if (s.ok()) synced_epoch = turn.epoch;
  co_return sync_reply(s, replica.last());
}

wire::Frame Partition::alive_query(Epoch, Revision) const {
  bool primary_here = primary != nullptr && !primary->deposed();
  bool heard = primary_here || (synced_epoch == designation().epoch && ctx.world.now() - heard_primary < 3 * ctx.options.heartbeat);
  if (broken(Switch::heard_primary_denied)) heard = primary_here;
  return wire::make_frame(wire::Kind::alive_reply, [&](auto& b) {
    auto d = designation().to(b);
    auto text = b.CreateString(replica.suspect || ctx.failed() ? "suspect" : "");
    return fbs::CreateAliveReply(b, 0, text, designation().epoch, designation().revision, heard, d);
  });
}

}  // namespace luge::head
