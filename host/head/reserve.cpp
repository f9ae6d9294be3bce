// What a primary (or a candidate) may ask of a head that holds a replica. Every answer rests on what is durable here.
#include "base/logging.hpp"
#include "head/partition.hpp"
#include "head/primary.hpp"
#include "switches/switches.hpp"

namespace luge::head {

using namespace std::chrono_literals;

Code Partition::check_epoch(Epoch epoch) const {
  if (epoch < designation().epoch) return Code::fenced;  // proves its sender is a primary of the past (WR-13)
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

void Partition::replicate_state(const fbs::VpState& state, NodeId) {
  heard_primary = ctx.world.now();
  replica.advance_commit(std::min(state.commit(), replica.last().lsn));
}

Code Partition::replicate_record(RecordPtr record) {
  Lsn next = replica.last().lsn + 1;
  if (record->lsn() == next) {
    append(std::move(record));
    return Code::ok;
  }
  if (record->lsn() > next) return Code::unavailable;  // a gap: synchronise again
  RecordPtr held = replica.find(record->lsn());
  bool same = held ? held->epoch() == record->epoch() && held->header.crc() == record->header.crc()
                   : replica.epoch_at(record->lsn()) == record->epoch();
  if (same || broken(Switch::diverged_unchecked)) return Code::ok;
  logging::error("VP {:x}: LSN {} from the primary is not the record held here: diverged", replica.vp(), record->lsn());
  return Code::diverged;
}

fbs::AckState Partition::ack_state(Code code) const {
  return fbs::AckState(replica.vp(), designation().epoch, replica.durable(), replica.oldest_unflushed(),
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
      auto p = co_await payload(r, 0, r->payload_blocks());
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

io::Task<wire::Frame> Partition::sync_begin(Epoch epoch, LogPoint agreed, bool reset) {
  if (epoch != designation().epoch) co_return sync_reply(not_in_epoch(epoch, designation().epoch), replica.last());
  synced_epoch = 0;
  Status s;
  if (reset) {
    // What is held stays readable in the log until the image that replaces it is complete; it just no longer counts.
    replica.suspect = true;
    replica.suspect_reason = "being rebuilt from the primary";
    incoming_image_segments_.clear();
  } else if (agreed.lsn < replica.commit()) {
    s = Status(Code::diverged, "record " + std::to_string(agreed.lsn + 1) + " is committed here");
  } else {
    s = co_await truncate(agreed);
  }
  if (s.ok() && epoch != designation().epoch) s = not_in_epoch(epoch, designation().epoch);
  if (s.ok() && !reset) synced_epoch = epoch;
  co_return sync_reply(s, replica.last());
}

// The parts of an image go to the log like everything else; unflushed records are held back until the image is
// complete, then adopted below its point.
io::Task<wire::Frame> Partition::sync_part(Epoch epoch, std::vector<RecordPtr> records) {
  Status s;
  if (epoch != designation().epoch) s = not_in_epoch(epoch, designation().epoch);
  for (RecordPtr& r : records) {
    if (!s.ok()) break;
    if (r->lsn() == 0) {
      if (r->kind() == RecordKind::image_begin) {
        // Nothing in flight may end up behind the image, and nothing from before it may be replayed on top of it.
        if (s = co_await wait_durable(replica.last().lsn); !s.ok()) break;
        if (s = co_await void_everything(); !s.ok()) break;
        replica.reset();
        incoming_image_segments_.clear();
      }
      std::string body = r->body;
      RecordKind kind = r->kind();
      std::uint32_t segment = 0;
      if (kind == RecordKind::image_end && replica.missing_unflushed_while_loading() != 0)
        s = Status(Code::invalid, "the image names unflushed records that have not been sent");
      else
        s = co_await append_local(r, &segment);
      if (s.ok()) incoming_image_segments_.push_back(segment);
      if (s.ok() && !replica.load_image(kind, body)) s = Status(Code::corrupt, "the image does not parse");
    } else if (r->kind() == RecordKind::data) {
      RecordPtr record = r;
      replica.adopt_unflushed(record);
      ctx.data_log->append(record);
      while (!record->durable && !ctx.data_log->failed()) co_await durable_changed.wait();
      if (!record->durable) s = Status(Code::io_error, "the log has failed");
    }
    if (s.ok() && epoch != designation().epoch) s = not_in_epoch(epoch, designation().epoch);
  }
  co_return sync_reply(s, replica.last());
}

io::Task<wire::Frame> Partition::sync_end(Epoch epoch, LogPoint point) {
  Status s;
  if (epoch != designation().epoch) s = not_in_epoch(epoch, designation().epoch);
  else if (replica.commit() != point.lsn || replica.loading_image() || replica.missing_unflushed() != 0)
    s = Status(Code::corrupt, "the image is not complete");
  if (s.ok()) {
    replica.recount();
    replica.image_durable(point, std::exchange(incoming_image_segments_, {}));
    replica.suspect = false;
    replica.suspect_reason.clear();
    synced_epoch = epoch;
    logging::info("VP {:x}: rebuilt from the primary up to LSN {}", replica.vp(), point.lsn);
  }
  co_return sync_reply(s, replica.last());
}

wire::Frame Partition::alive_query(Epoch, Revision) const {
  bool primary_here = primary != nullptr && !primary->deposed();
  bool heard = primary_here || (synced_epoch == designation().epoch && ctx.world.now() - heard_primary < 3 * ctx.options.heartbeat);
  return wire::make_frame(wire::Kind::alive_reply, [&](auto& b) {
    auto d = designation().to(b);
    auto text = b.CreateString(replica.suspect ? "suspect" : "");
    return fbs::CreateAliveReply(b, 0, text, designation().epoch, designation().revision, heard, d);
  });
}

}  // namespace luge::head
