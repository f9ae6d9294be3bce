#include "head/recovery.hpp"

#include <algorithm>

#include "base/logging.hpp"
#include "head/partition.hpp"
#include "head/recollection.hpp"
#include "switches/paths.hpp"
#include "switches/switches.hpp"

namespace luge::head {
namespace {

// Which image of a VP counts: the last complete one. Everything before its begin is history.
struct Images {
  struct Span {
    std::uint64_t begin_order = 0;  // 0: none
    std::uint64_t end_order = 0;
    Lsn lsn = 0;
  };
  std::map<VpId, Span> complete;
};

Lsn image_lsn(const Record& r) {
  flatbuffers::Verifier v(reinterpret_cast<const std::uint8_t*>(r.body.data()), r.body.size());
  if (!v.VerifyBuffer<fbs::ImageEnd>(nullptr)) return 0;
  const auto* end = flatbuffers::GetRoot<fbs::ImageEnd>(r.body.data());
  return end->point() ? end->point()->lsn() : 0;
}

Images find_images(const std::vector<RecoveredBatch>& batches) {
  Images out;
  std::map<VpId, std::uint64_t> begun;
  for (const RecoveredBatch& b : batches)
    for (const RecordPtr& r : b.records) {
      if (r->kind() == RecordKind::image_begin) begun[r->header.vp()] = b.order;
      if (r->kind() == RecordKind::image_end && begun.contains(r->header.vp()))
        out.complete[r->header.vp()] = {begun[r->header.vp()], b.order, image_lsn(*r)};
    }
  return out;
}

class Replay {
 public:
  Replay(Context& ctx, Images images) : ctx_(ctx), images_(std::move(images)) {}

  // The images first: whatever its batches' order says, a record is judged against what the image covers.
  void images(RecoveredBatch& b) {
    for (RecordPtr& r : b.records) {
      Partition* p = ctx_.partition(r->header.vp());
      if (p != nullptr && is_image(*r)) image_record(*p, r, b.order, images_.complete[r->header.vp()]);
    }
  }

  void batch(RecoveredBatch& b) {
    for (const CommitEntry& c : b.commits) {
      Lsn& known = commits_[c.vp];
      known = std::max(known, c.commit);
    }
    for (std::size_t i = 0; i < b.records.size(); ++i) {
      RecordPtr& r = b.records[i];
      if (is_image(*r) && ctx_.partition(r->header.vp()) != nullptr) continue;
      Partition* p = ctx_.partition(r->header.vp());
      if (p == nullptr) {
        ctx_.log(r->portion()).release(r->position.segment);  // of a VP that was removed
        continue;
      }
      if (b.rotten[i]) rotten_[r->header.vp()].push_back(r);
      record(*p, r);
    }
  }

  // "Replay that ends below a commit LSN it has seen anywhere": acknowledged records are gone.
  void finish() {
    for (auto& [vp, p] : ctx_.partitions) {
      Replica& replica = p->replica;
      for (auto& [lsn, r] : waiting_[vp]) forget(r);  // behind a hole; whether it matters the commit LSN tells
      for (auto& [lsn, held] : held_below_[vp]) replica.adopt_unflushed(held);
      replica.recount();
      Lsn known = commits_[vp];
      if (known > replica.last().lsn)
        suspect(*p, "the log ends at LSN " + std::to_string(replica.last().lsn) + ", but " + std::to_string(known) + " was committed");
      replica.advance_commit(std::min(known, replica.last().lsn));
      if (replica.missing_unflushed() != 0) suspect(*p, "the index names records that the log does not have");
      replica.recount();
      for (const RecordPtr& r : rotten_[vp])  // what has been superseded is of no use to anybody
        if (replica.find(r->lsn()) == r) suspect(*p, "a record's payload does not match its CRC (LSN " + std::to_string(r->lsn()) + ")");
      if (replica.suspect) {
        reached(Path::suspect_after_replay);
        witnessed(Fact::found_suspect, vp, 0);
      }
      witnessed(Fact::recovered, vp, replica.last().lsn, replica.last().epoch);
      logging::info("VP {:x}: recovered, log up to {}, committed to {}, epoch {}{}", vp, to_string(replica.last()),
                    replica.commit(), replica.designation.epoch, replica.suspect ? ", SUSPECT: " + replica.suspect_reason : "");
    }
  }

 private:
  void suspect(Partition& p, const std::string& why) {
    if (p.replica.suspect) return;
    logging::error("VP {:x}: {}; this replica will be repaired from another", p.replica.vp(), why);
    p.replica.suspect = true;
    p.replica.suspect_reason = why;
  }

  void forget(const RecordPtr& r) { ctx_.log(r->portion()).release(r->position.segment); }

  void record(Partition& p, RecordPtr& r) {
    Replica& replica = p.replica;
    Images::Span image = images_.complete[replica.vp()];
    if (r->lsn() == 0) {
      truncate(p, r);
      return;
    }
    // Below the image only data that its index may still name is of interest.
    if (r->lsn() <= image.lsn) {
      if (r->kind() == RecordKind::data) {
        // The one that was written later, whatever its epoch: with an accepted loss a log may have come back whose epochs are lower.
        auto [it, fresh] = held_below_[replica.vp()].try_emplace(r->lsn(), r);
        if (!fresh) {
          forget(it->second);
          it->second = r;
        }
      } else {
        forget(r);
      }
      return;
    }
    if (r->lsn() <= replica.last().lsn) {
      RecordPtr held = replica.find(r->lsn());
      if (!held || !newer(*r, *held) || r->lsn() <= replica.commit()) {
        forget(r);
        return;
      }
      // Written later under a newer epoch: what stood here was behind a hole that a crash had left, and is void.
      replica.truncate({replica.epoch_at(r->lsn() - 1), r->lsn() - 1});
    }
    // The two portions have writers of their own: a metadata record may stand in an earlier batch than the data
    // record before it. It waits here for its turn.
    auto& waiting = waiting_[replica.vp()];
    if (auto it = waiting.find(r->lsn()); it != waiting.end() && newer(*r, *it->second)) {
      forget(it->second);
      it->second = r;
    } else if (!waiting.emplace(r->lsn(), r).second) {
      forget(r);
    }
    take_waiting(replica);
  }

  void take_waiting(Replica& replica) {
    auto& waiting = waiting_[replica.vp()];
    for (auto it = waiting.begin(); it != waiting.end() && it->first == replica.last().lsn + 1; it = waiting.erase(it)) {
      RecordPtr r = it->second;
      if (r->epoch() < replica.last().epoch) {
        forget(r);  // epochs never fall along a log: left behind a hole by a primary of the past
        continue;
      }
      replica.append(r);
      if (r->portion() == Portion::meta) replica.note_meta(r->lsn(), r->position.segment);
      replica.on_durable(*r);
    }
  }

  static bool newer(const Record& a, const Record& b) { return a.epoch() > b.epoch(); }

  static bool is_image(const Record& r) { return r.lsn() == 0 && r.kind() != RecordKind::truncate; }

  // A truncation is kept for as long as there are records that it voids, or its batch knows of a commit that no image has: one of long
  // ago, whose records the image covers, would hold its segment until the next image, and with one in each segment there would be no
  // room to write that.
  void truncate(Partition& p, RecordPtr& r) {
    Replica& replica = p.replica;
    Lsn voided = std::max(replica.last().lsn, commits_[replica.vp()]);
    bool needed = voided > images_.complete[replica.vp()].lsn;
    flatbuffers::Verifier v(reinterpret_cast<const std::uint8_t*>(r->body.data()), r->body.size());
    if (v.VerifyBuffer<fbs::Truncate>(nullptr)) {
      const auto* t = flatbuffers::GetRoot<fbs::Truncate>(r->body.data());
      if (t->to() && drop_beyond(p, {t->to()->epoch(), t->to()->lsn()})) needed = true;
    }
    if (needed) replica.note_meta(voided, r->position.segment);
    else forget(r);
  }

  void image_record(Partition& p, RecordPtr& r, std::uint64_t order, const Images::Span& image) {
    Replica& replica = p.replica;
    if (image.begin_order == 0 || order < image.begin_order || order > image.end_order) {
      forget(r);  // of an image that was not completed or has been followed by another
      return;
    }
    image_segments_[replica.vp()].push_back(r->position.segment);
    if (!replica.load_image(r->kind(), r->body)) suspect(p, "its image does not parse");
    if (replica.loading_base() != 0) suspect(p, "its image is not a whole one");
    if (r->kind() == RecordKind::image_end)
      replica.image_durable({0, image.lsn}, std::exchange(image_segments_[replica.vp()], {}));
  }

  // True: some of what is not in the replica's own log went, too.
  bool drop_beyond(Partition& p, LogPoint to) {
    Replica& replica = p.replica;
    if (to.lsn < replica.last().lsn) replica.truncate({to.epoch, std::max(to.lsn, replica.commit())});
    bool dropped = false;
    for (auto* records : {&waiting_[replica.vp()], &held_below_[replica.vp()]})
      for (auto it = records->upper_bound(to.lsn); it != records->end(); it = records->erase(it)) {
        forget(it->second);
        dropped = true;
      }
    return dropped;
  }

  Context& ctx_;
  Images images_;
  std::map<VpId, Lsn> commits_;
  std::map<VpId, std::map<Lsn, RecordPtr>> held_below_;
  std::map<VpId, std::map<Lsn, RecordPtr>> waiting_;
  std::map<VpId, std::vector<RecordPtr>> rotten_;
  std::map<VpId, std::vector<std::uint32_t>> image_segments_;
};

io::Task<Status> open_stores(Context& ctx) {
  auto file = co_await ctx.world.files().open("meta", {.create = true, .size = ctx.options.meta_store_bytes, .prewrite = true});
  if (!file.ok()) co_return file.status();
  ctx.meta_file = std::make_unique<io::WatchedFile>(ctx.world, std::move(*file), "meta", ctx.options.io_timeout);
  auto store = co_await io::MetaStore::open(ctx.world, *ctx.meta_file, 0, ctx.options.meta_store_bytes);
  if (!store.ok()) co_return store.status();
  ctx.meta_store = std::move(*store);
  if (Status s = co_await begin_recollection(ctx); !s.ok()) co_return s;
  const Options& o = ctx.options;
  SegmentLog::Options data{.portion = Portion::data, .path = "log-data", .bytes = o.log_bytes, .segment_bytes = o.segment_bytes, .node = o.id, .io_timeout = o.io_timeout};
  SegmentLog::Options meta{.portion = Portion::meta, .path = "log-meta", .bytes = o.meta_bytes, .segment_bytes = o.meta_segment_bytes, .node = o.id,
                           .most_bytes = o.meta_bytes_most, .io_timeout = o.io_timeout};
  ctx.data_log = std::make_unique<SegmentLog>(ctx.world, *ctx.meta_store, ctx.log_order, std::move(data));
  ctx.meta_log = std::make_unique<SegmentLog>(ctx.world, *ctx.meta_store, ctx.log_order, std::move(meta));
  co_return Status();
}

// Which VPs lack something now cannot be told, so all are suspect, until each has been repaired; that is written down, so that
// the damage need not be met again.
io::Task<Status> note_damage(Context& ctx, const SegmentLog::Recovery& data, const SegmentLog::Recovery& meta) {
  if (data.damage.empty() && meta.damage.empty()) co_return Status();
  const std::string& why = data.damage.empty() ? meta.why : data.why;
  logging::error("the log is damaged: {}; all replicas on this head will be repaired from others", why);
  std::vector<io::MetaStore::Change> changes;
  ctx.data_log->remember_damage(data.damage, changes);
  ctx.meta_log->remember_damage(meta.damage, changes);
  for (auto& [vp, p] : ctx.partitions) {
    changes.emplace_back(unsound_key(vp), why);
    p->unsound = true;
    p->replica.suspect = true;
    p->replica.suspect_reason = why;
  }
  co_return co_await ctx.meta_store->put(std::move(changes));
}

}  // namespace

io::Task<Status> recover(Context& ctx) {
  if (Status s = co_await open_stores(ctx); !s.ok()) co_return s;
  for (auto [key, value] : ctx.meta_store->list("designation/")) {
    auto d = Designation::parse(value);
    if (!d.ok()) co_return d.status().with(key);
    auto p = std::make_unique<Partition>(ctx, d->vp);
    if (!broken(Switch::restarted_primary_keeps_epoch)) p->ended_epoch = d->epoch;
    p->replica.designation = std::move(*d);
    if (auto why = ctx.meta_store->get(unsound_key(p->replica.vp()))) {
      p->unsound = p->replica.suspect = true;
      p->stranger = *why == kGivenUp;
      p->replica.suspect_reason = *why;
    }
    ctx.partitions[p->replica.vp()] = std::move(p);
  }
  auto data = co_await ctx.data_log->open();
  if (!data.ok()) co_return data.status();
  auto meta = co_await ctx.meta_log->open();
  if (!meta.ok()) co_return meta.status();
  std::vector<RecoveredBatch> batches = std::move(data->batches);
  std::move(meta->batches.begin(), meta->batches.end(), std::back_inserter(batches));
  std::sort(batches.begin(), batches.end(), [](const auto& a, const auto& b) { return a.order < b.order; });
  Replay replay(ctx, find_images(batches));
  for (RecoveredBatch& b : batches) replay.images(b);
  for (RecoveredBatch& b : batches) replay.batch(b);
  if (Status s = co_await note_damage(ctx, *data, *meta); !s.ok()) co_return s;
  replay.finish();
  co_return Status();
}

}  // namespace luge::head
