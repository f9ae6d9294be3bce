#include "head/partition.hpp"

#include "base/logging.hpp"
#include "base/crc32c.hpp"
#include "head/checkpoint.hpp"
#include "head/primary.hpp"
#include "switches/paths.hpp"
#include "switches/switches.hpp"

namespace luge::head {

using namespace std::chrono_literals;

namespace {

constexpr io::Duration kReadsFailPatience = 60s;    // a read that has failed for so long is of a sector that is lost
constexpr io::Duration kReadsFailForgotten = 600s;  // one that is not tried again for so long begins anew

}  // namespace

Partition* Context::partition(VpId vp) {
  auto it = partitions.find(vp);
  return it == partitions.end() || it->second->dropped ? nullptr : it->second.get();
}

Partition::Partition(Context& c, VpId vp)
    : ctx(c), replica(vp), checkpoints(std::make_unique<Checkpoints>(c, *this)), durable_changed(c.world), wake_(c.world), adopting_(c.world), rebuilding_(c.world) {
  replica.release = [this](Portion p, std::uint32_t segment, Lsn at) { ctx.log(p).release(segment, replica.vp(), at); };
  heard_primary = c.world.now();
  if (!broken(Switch::lease_forgotten_at_restart)) granted_until = ctx.started + kLease;
}

Partition::~Partition() = default;

bool Partition::is_primary() const { return primary != nullptr && primary->open(); }

io::Task<Status> Partition::adopt(Designation d) {
  auto guard = co_await adopting_.lock();
  // What is held here stays: it is the only trace of what was acknowledged.
  if (!dropped && d.made_anew_beside(designation()) && !broken(Switch::made_anew_taken)) {
    co_return Status(Code::diverged, fmt::format("an older copy of the control plane's store has made it anew, with another history (epoch {}, revision {}): this head keeps what it holds of epoch {}, revision {}", d.epoch,
                                                 d.revision, designation().epoch, designation().revision));
  }
  // The same, signed by another key: the control plane's old one was lost.
  bool signed_anew = d.epoch == designation().epoch && d.revision == designation().revision && !d.signature.empty() && d.signature != designation().signature;
  if (dropped || (!d.newer_than(designation()) && !signed_anew)) co_return Status();
  bool new_history = designation().history != 0 && d.history != designation().history && !broken(Switch::history_unchecked);
  std::vector<io::MetaStore::Change> changes;
  if (!broken(Switch::designations_not_kept)) changes.emplace_back("designation/" + std::to_string(d.vp), d.serialize());
  if (new_history) changes.emplace_back(unsound_key(d.vp), kGivenUp);
  // Partitions leave half of the store to what cannot be refused: the segments' tables, and what becomes of partitions that are here.
  const bool refusable = designation().epoch == 0 && !broken(Switch::full_store_fails_log);
  Status s = co_await ctx.meta_store->put(std::move(changes), refusable ? io::MetaStore::Kind::refusable : io::MetaStore::Kind::needed);
  if (!s.ok()) co_return refusable && s.code() == Code::no_space ? s.with("this head takes no more partitions") : s;
  if (new_history) become_stranger(d);
  // Known to others and not to this head: it may have served in that epoch before it lost what it held (protocol 4.5).
  if (designation().epoch == 0 && (d.epoch > 1 || d.revision > 1) && !broken(Switch::restarted_primary_keeps_epoch)) ended_epoch = d.epoch;
  bool new_epoch = d.epoch != designation().epoch;
  witnessed(Fact::epoch_adopted, d.vp, d.epoch);
  replica.designation = std::move(d);
  if (new_epoch) {
    heard_primary = ctx.world.now();
    if (primary && primary->epoch() < designation().epoch) {
      primary->depose("epoch " + std::to_string(designation().epoch) + " has begun");
      primary.reset();
    }
    logging::info("VP {:x}: epoch {} revision {}, primary node {}", designation().vp, designation().epoch,
                  designation().revision, designation().primary);
  }
  if (primary) primary->pump();
  wake();
  co_return Status();
}

void Partition::start() {
  ctx.world.spawn("partition", supervise());
  checkpoints->start();
}

// Decides what this head is for the VP whenever something may have changed.
io::Task<void> Partition::supervise() {
  while (!dropped) {
    const Designation& d = designation();
    io::Duration wait = 1s;
    bool mine = d.primary == ctx.options.id;
    bool role_is_over = d.epoch <= ended_epoch;
    if (primary && primary->deposed()) primary.reset();
    if (stranger && mine && !primary && !ctx.failed()) {
      if (Status s = co_await begin_history(); !s.ok()) {
        logging::warn("VP {:x}: the new history is not begun yet: {}", replica.vp(), s.to_string());
        co_await wake_.wait_for(200ms);
      }
      continue;
    }
    if (ctx.failed()) {
      if (primary) primary->depose("this head's log or metadata store has failed");
      primary.reset();
    } else if (mine && !role_is_over) {
      if (!primary && (!replica.suspect || broken(Switch::suspect_promoted))) {
        primary = std::make_shared<Primary>(ctx, *this, d.epoch);
        primary->start();
      }
    } else if (should_stand(ctx.world.now(), wait)) {
      co_await stand();
      wait = 100ms + io::Duration(ctx.world.random_below(50'000'000));
    }
    co_await wake_.wait_for(wait);
  }
}

void Partition::append(RecordPtr record) {
  witnessed(Fact::record_appended, replica.vp(), record->epoch());
  replica.append(record);
  ctx.log(record->portion()).append(std::move(record));
}

void Partition::settle(const RecordPtr& record) {
  if (record->lsn() == 0) return;
  if (replica.staged(*record)) return;
  if (replica.find(record->lsn()) != record) {
    ctx.log(record->portion()).release(record->position.segment);  // truncated while it was being written: stays void
  } else if (record->portion() == Portion::meta) {
    replica.note_meta(record->lsn(), record->position.segment);
  }
}

void Partition::on_durable(const RecordPtr& record) {
  if (record->lsn() != 0) {
    replica.on_durable(*record);
    // A reserve reads its copy from the log in the rare case that it must; memory is the primary's.
    if (!primary) replica.keep_payload(*record, Buffer());
  }
  durable_changed.notify_all();
}

io::Task<Status> Partition::append_local(RecordPtr record, std::uint32_t* segment) {
  SegmentLog& log = *ctx.meta_log;
  log.append(record);
  while (!record->durable) {
    if (log.failed()) co_return Status(Code::io_error, "the log has failed");
    if (dropped) co_return Status(Code::unavailable, "the volume was removed");
    co_await durable_changed.wait();
  }
  if (record->given_back) co_return Status(Code::unavailable, "the volume was removed");
  if (segment) *segment = record->position.segment;
  co_return Status();
}

io::Task<Status> Partition::wait_durable(Lsn lsn) {
  while (replica.durable() < lsn) {
    if (ctx.data_log->failed() || ctx.meta_log->failed()) co_return Status(Code::io_error, "the log has failed");
    if (dropped) co_return Status(Code::unavailable, "the volume was removed");
    co_await durable_changed.wait();
  }
  co_return Status();
}

io::Task<Status> Partition::truncate(LogPoint to) {
  auto guard = co_await rebuilding_.lock();
  co_return co_await truncate_locked(to);
}

io::Task<Status> Partition::truncate_locked(LogPoint to) {
  Epoch epoch = designation().epoch;
  Status moved(Code::unavailable, "another epoch has begun, or the log does not reach LSN " + std::to_string(to.lsn));
  Lsn voided = replica.last().lsn;
  if (to.lsn > voided || replica.epoch_at(to.lsn) != to.epoch) co_return moved;
  if (to.lsn == voided) co_return Status();
  reached(Path::longer_tail_dropped);
  for (Lsn l = to.lsn + 1; l <= voided; ++l)
    if (RecordPtr r = replica.find(l); r && r->kind() == RecordKind::index) reached(Path::index_record_dropped);
  // What is on its way to the log must be there before the record that voids it.
  if (Status s = co_await wait_durable(voided); !s.ok()) co_return s;
  if (epoch != designation().epoch || to.lsn < replica.commit()) co_return moved;
  // From here on it is done, whatever begins meanwhile: a restart would do it too.
  if (!broken(Switch::truncate_not_durable)) {
    if (Status s = co_await log_truncate(to, voided); !s.ok()) co_return s;
  }
  replica.truncate(to);
  witnessed(Fact::tail_dropped, replica.vp(), to.lsn, designation().epoch);
  reached(Path::tail_dropped);
  logging::info("VP {:x}: dropped records {} to {} that are not on the new primary's history", replica.vp(), to.lsn + 1, voided);
  co_return Status();
}

io::Task<Status> Partition::log_truncate(LogPoint to, Lsn voided) {
  flatbuffers::FlatBufferBuilder b;
  fbs::LogPoint point(to.epoch, to.lsn);
  b.Finish(fbs::CreateTruncate(b, &point));
  auto record = make_record(replica.vp(), {designation().epoch, 0}, RecordKind::truncate, 0, 0, {},
                            std::string(reinterpret_cast<const char*>(b.GetBufferPointer()), b.GetSize()), {});
  std::uint32_t segment = 0;
  Status s = co_await append_local(record, &segment);
  if (s.ok()) replica.note_meta(voided, segment);
  reached(Path::truncate_logged);
  co_return s;
}

io::Task<Status> Partition::void_everything() { return log_truncate({}, replica.last().lsn); }

io::Task<Status> Partition::write_image() {
  if (imaging_) co_return Status(Code::unavailable, "an image is being written already");
  imaging_ = true;
  struct Clear {
    bool& flag;
    ~Clear() { flag = false; }
  } clear{imaging_};
  std::uint64_t resets = resets_;
  ImageCut image = replica.cut_image();
  std::vector<std::uint32_t> segments;
  Status s;
  while (auto body = image.next()) {
    auto record = make_record(replica.vp(), {image.point().epoch, 0}, body->first, 0, 0, {}, std::move(body->second), {});
    std::uint32_t segment = 0;
    s = co_await append_local(record, &segment);
    if (s.ok()) segments.push_back(segment);
    // Written on, its end would follow the begin of the image that replaces all this.
    if (s.ok() && resets != resets_) s = Status(Code::unavailable, "the replica is being rebuilt");
    if (!s.ok()) break;
  }
  if (s.ok()) replica.image_durable(image.point(), std::move(segments));
  else
    for (std::uint32_t segment : segments) ctx.meta_log->release(segment);
  co_return s;
}

std::shared_ptr<void> Partition::hold(const Record& record) {
  if (!record.durable) return nullptr;
  std::uint32_t segment = record.position.segment;
  ctx.data_log->retain(segment);
  return std::shared_ptr<void>(&ctx, [segment](void* c) { static_cast<Context*>(c)->data_log->release(segment); });
}

io::Task<Result<Buffer>> Partition::payload(RecordPtr record, std::uint32_t first, std::uint32_t count, bool ask_others) {
  if (!record->payload.empty())
    co_return record->payload.slice(std::size_t{first} * kBlockBytes, std::size_t{count} * kBlockBytes);
  if (!record->durable) co_return Status(Code::internal, "record is neither in memory nor in the log");
  std::shared_ptr<void> held = hold(*record);
  auto read = co_await ctx.data_log->read(*record, first, count);
  bool good = read.ok();
  for (std::uint32_t i = 0; good && i < count; ++i)
    good = crc32c(read->bytes().subspan(std::size_t{i} * kBlockBytes, kBlockBytes)) == record->block_crc(first + i);
  if (read.ok() && !failed_reads_.empty()) failed_reads_.erase(std::tuple(record->epoch(), record->lsn(), first, count));
  if (good) co_return std::move(*read);
  if (read.ok() && record_crc(record->header, as_bytes(record->body)) != record->header.crc() && !broken(Switch::bad_memory_trusted)) {
    auto whole = co_await ctx.data_log->read(*record, 0, record->payload_blocks());
    if (whole.ok() && mend_checksums(*record, whole->bytes())) co_return whole->slice(std::size_t{first} * kBlockBytes, std::size_t{count} * kBlockBytes);
  }
  Status here(read.ok() ? Code::corrupt : failed_read_means(*record, first, count),
              "LSN " + std::to_string(record->lsn()) + " does not read back here" + (read.ok() ? "" : ": " + read.status().text()));
  if (!ask_others) co_return here;
  logging::error("VP {:x}: LSN {} does not read back from this head's log; asking another replica", replica.vp(), record->lsn());
  auto other = co_await fetch_from_member(record);
  if (!other.ok()) co_return Status(here.code() == Code::corrupt ? other.status().code() : Code::degraded, here.text() + "; " + other.status().text());
  reached(Path::repaired_from_member);
  record->body = (*other)->body;  // it may be the checksums that have changed in memory
  replica.keep_payload(*record, (*other)->payload);  // stays in memory: the copy on the medium is not to be trusted
  co_return record->payload.slice(std::size_t{first} * kBlockBytes, std::size_t{count} * kBlockBytes);
}

io::Task<Result<Buffer>> Partition::sound_payload(RecordPtr record, bool ask_others) {
  check_memory(record->lsn());
  std::uint32_t blocks = record->payload_blocks();
  co_return co_await payload(std::move(record), 0, blocks, ask_others);
}

void Partition::check_memory(Lsn lsn) {
  RecordPtr r = replica.find(lsn);
  if (!r || !r->durable || r->payload.empty() || check_payload(r->header, as_bytes(r->body), r->payload.bytes()).ok()) return;
  if (broken(Switch::bad_memory_trusted)) return;
  if (mend_checksums(*r, r->payload.bytes())) return logging::error("VP {:x}: checksums of LSN {} had changed in this head's memory; mended", replica.vp(), lsn);
  logging::error("VP {:x}: LSN {} has changed in this head's memory; it is read from the log from now on", replica.vp(), lsn);
  replica.keep_payload(*r, Buffer());
}

// A disk that does not answer has said nothing of what it holds, and may come to its senses. A sector that stays unreadable is as lost as
// one that has rotted: without an end to that, whoever needs it would wait for ever.
Code Partition::failed_read_means(const Record& record, std::uint32_t first, std::uint32_t count) {
  if (broken(Switch::failed_read_is_loss)) return Code::corrupt;
  io::Time now = ctx.world.now();
  if (now > forget_failed_reads_) {  // not each time: of a disk that reads nothing there are many
    forget_failed_reads_ = now + kReadsFailPatience;
    std::erase_if(failed_reads_, [&](const auto& f) { return now - f.second.last > kReadsFailForgotten; });
  }
  FailedReads& f = failed_reads_.try_emplace(std::tuple(record.epoch(), record.lsn(), first, count), FailedReads{now, now}).first->second;
  f.last = now;
  return now - f.since < kReadsFailPatience ? Code::io_error : Code::corrupt;
}

io::Task<Result<RecordPtr>> Partition::fetch_from_member(RecordPtr record) {
  Status last(Code::corrupt, "no other replica is there");
  bool all_asked = true;
  std::vector<NodeId> members = designation().members();  // who is not in `required` may have it all the same
  for (NodeId n : members) {
    if (n == ctx.options.id) continue;
    auto answer = co_await ctx.connections->call(n, wire::make_frame(wire::Kind::fetch_tail, [&](auto& b) {
      return fbs::CreateFetchTail(b, replica.vp(), designation().epoch, record->lsn() - 1, kOneRecord);
    }), 2s);
    const auto* tail = answer.ok() && answer->kind == wire::Kind::tail ? answer->as<fbs::Tail>() : nullptr;
    if (!tail || tail->code() != 0) {
      last = tail ? wire::make_status(tail->code(), tail->text()) : answer.ok() ? wire::status_of(*answer) : answer.status();
      all_asked = all_asked && (last.code() == Code::corrupt || last.code() == Code::not_found);
      continue;
    }
    auto records = unpack_records(tail->records(), tail->bodies(), answer->data());
    if (!records.ok()) continue;
    for (const RecordPtr& r : *records)
      if (r->lsn() == record->lsn() && r->epoch() == record->epoch() && r->header.crc() == record->header.crc())
        co_return r;
  }
  co_return Status(all_asked ? Code::corrupt : Code::degraded, "VP " + std::to_string(replica.vp()) + " LSN " + std::to_string(record->lsn()) +
                                      " cannot be read here nor from another replica: " + last.text());
}

}  // namespace luge::head
