#include "client/vp_session.hpp"

#include <algorithm>

#include "base/crc32c.hpp"
#include "base/logging.hpp"
#include "client/volume_state.hpp"

namespace luge::client {
namespace {

constexpr std::size_t kBatchBytes = 1 << 20;
constexpr io::Duration kFirstRetry = std::chrono::milliseconds(10);
constexpr io::Duration kLastRetry = std::chrono::milliseconds(500);
constexpr io::Duration kWorthALine = std::chrono::milliseconds(200);

// The answer may be another one elsewhere or later.
bool may_pass(Code code) {
  return code == Code::unavailable || code == Code::fenced || code == Code::timed_out || code == Code::degraded;
}

std::string text_of(Code code, const flatbuffers::String* text) {
  return text != nullptr && text->size() != 0 ? text->str() : std::string(code_name(code));
}

constexpr std::uint32_t kMostDamaged = 4;

// A write's payload came to the head as something else than it is here: another time it may come through.
bool damaged_on_the_way(Part& p) { return p.checksums() == p.crcs && ++p.damaged <= kMostDamaged; }

}  // namespace

VpSession::VpSession(VolumeState& volume, VpId vp) : v_(volume), vp_(vp), wake_(volume.world) {}

void VpSession::submit(Part* part) {
  if (outstanding() == 0) last_progress_ = v_.world.now();
  ++submitted_;
  if (part->is_read) {
    part->id = next_tag_++;
    reads_.emplace(part->id, part);
    unsent_reads_.push_back(part);
  } else {
    queued_.push_back(part);
  }
  if (!std::exchange(running_, true))
    v_.world.spawn("volume partition", run(v_.shared_from_this(), *this));
  else if (sleeping_)
    wake();
  if (channel_) v_.mark_dirty(*this);
}

void VpSession::send() {
  if (!channel_ || !channel_->open()) return;  // all of it goes out when the next session is open
  send_writes();
  send_reads();
}

void VpSession::send_writes() {
  while (!queued_.empty() && next_ - low_ < kSessionWindow) {
    Part* p = queued_.front();
    queued_.pop_front();
    p->id = next_++;
    window_[p->id % kSessionWindow] = p;
    ++in_window_;
  }
  if (unsent_ == next_) return;
  io::Time now = v_.world.now();
  std::size_t bytes = 0;
  batch_.clear();
  for (; unsent_ != next_; ++unsent_) {
    Part* p = window_[unsent_ % kSessionWindow];
    if (p == nullptr) continue;
    if (bytes != 0 && bytes + p->image.size() > kBatchBytes) {
      emit_writes(batch_);
      bytes = 0;
    }
    if (p->attempts++ != 0) ++v_.stats.resent;
    p->sent = now;
    bytes += p->image.size();
    batch_.push_back(p);
  }
  emit_writes(batch_);
}

void VpSession::emit_writes(std::vector<Part*>& batch) {
  if (batch.empty()) return;
  ops_.clear();
  crcs_.clear();
  std::vector<Buffer> payload;
  payload.reserve(batch.size());
  for (Part* p : batch) {
    ops_.emplace_back(p->id, p->offset, p->length, p->kind, 0, 0);
    crcs_.insert(crcs_.end(), p->crcs.begin(), p->crcs.end());
    if (!p->image.empty()) payload.push_back(p->image);
  }
  flatbuffers::FlatBufferBuilder b(256 + ops_.size() * sizeof(fbs::WriteOp) + crcs_.size() * 4);
  auto ops = b.CreateVectorOfStructs(ops_);
  auto crcs = b.CreateVector(crcs_);
  b.Finish(fbs::CreateWriteBatch(b, vp_, epoch_, v_.attachment, v_.incarnation, low_, ops, crcs));
  wire::Frame f = wire::finish_frame(wire::Kind::write_batch, b);
  f.payload = std::move(payload);
  ++v_.stats.batches;
  channel_->send(std::move(f));
  batch.clear();
}

void VpSession::send_reads() {
  if (unsent_reads_.empty()) return;
  io::Time now = v_.world.now();
  std::uint64_t blocks = 0;
  batch_.clear();
  for (Part* p : unsent_reads_) {
    if (p->is_map) {
      if (p->attempts++ != 0) ++v_.stats.resent;
      p->sent = now;
      emit_map(*p);
      continue;
    }
    if (blocks != 0 && blocks + p->blocks() > kMaxReadBlocks) {
      emit_reads(batch_);
      batch_.clear();
      blocks = 0;
    }
    if (p->attempts++ != 0) ++v_.stats.resent;
    p->sent = now;
    blocks += p->blocks();
    batch_.push_back(p);
  }
  if (!batch_.empty()) emit_reads(batch_);
  unsent_reads_.clear();
}

void VpSession::emit_reads(const std::vector<Part*>& batch) {
  read_ops_.clear();
  for (Part* p : batch) read_ops_.emplace_back(p->id, p->lba(), p->blocks(), p->damaged != 0);
  flatbuffers::FlatBufferBuilder b(256 + read_ops_.size() * sizeof(fbs::ReadOp));
  auto ops = b.CreateVectorOfStructs(read_ops_);
  b.Finish(fbs::CreateReadBatch(b, vp_, epoch_, ops));
  channel_->send(wire::finish_frame(wire::Kind::read_batch, b));
}

void VpSession::emit_map(const Part& p) {
  channel_->send(wire::make_frame(wire::Kind::map_query, [&](auto& b) { return fbs::CreateMapQuery(b, vp_, epoch_, p.id, p.lba(), p.blocks()); }));
}

bool VpSession::note_epoch(Epoch epoch) {
  if (epoch < seen_epoch_) {
    ++v_.stats.late_replies;
    return false;
  }
  seen_epoch_ = epoch;
  return true;
}

void VpSession::on_write_replies(const fbs::WriteReplies& r) {
  if (r.results() == nullptr || !note_epoch(r.epoch())) return;
  bool answered = false;
  for (const fbs::WriteResult* result : *r.results()) {
    std::uint64_t sequence = result->sequence();
    Part* p = sequence >= low_ && sequence < next_ ? window_[sequence % kSessionWindow] : nullptr;
    if (p == nullptr) continue;  // answered before
    Code code = static_cast<Code>(result->code());
    if (code == Code::closed_session)
      return v_.fail(Status(code, "volume '" + v_.name + "' has been attached elsewhere; this attachment is closed"));
    if (may_pass(code) || (code == Code::corrupt && damaged_on_the_way(*p))) {
      trouble(text_of(code, r.text()), r.epoch());
      continue;
    }
    answered = true;
    window_[sequence % kSessionWindow] = nullptr;
    --in_window_;
    v_.finish(p, code == Code::ok ? Status() : Status(code, text_of(code, r.text())));
    if (v_.ended()) return;
  }
  while (low_ != next_ && window_[low_ % kSessionWindow] == nullptr) ++low_;
  unsent_ = std::max(unsent_, low_);
  if (answered) progress();
  if (!queued_.empty() && channel_) v_.mark_dirty(*this);
}

bool VpSession::on_read_replies(const fbs::ReadReplies& r, const Buffer& payload) {
  if (r.results() == nullptr) return true;
  // The sizes must add up before any of it is used.
  std::uint64_t blocks = 0;
  for (const fbs::ReadResult* result : *r.results())
    if (result->code() == 0 && !result->zero()) blocks += result->blocks();
  if (blocks * kBlockBytes != payload.size() || (r.crcs() ? r.crcs()->size() : 0) != blocks) return false;
  if (!note_epoch(r.epoch())) return true;
  std::uint64_t at = 0;
  bool answered = false;
  for (const fbs::ReadResult* result : *r.results()) {
    Code code = static_cast<Code>(result->code());
    bool has_data = code == Code::ok && !result->zero();
    std::uint64_t first = at;
    if (has_data) at += result->blocks();
    auto it = reads_.find(result->tag());
    if (it == reads_.end()) continue;  // answered before
    Part* p = it->second;
    if (p->is_map) return false;
    if (code == Code::ok && result->blocks() != p->blocks()) return false;
    if (code == Code::degraded) {
      reason_ = text_of(code, r.text());
      retry_read(p);
      continue;
    }
    if (may_pass(code)) {
      trouble(text_of(code, r.text()), r.epoch());
      continue;
    }
    bool sound = true;
    for (std::uint32_t i = 0; has_data && sound && i < p->blocks(); ++i)
      sound = crc32c({payload.data() + (first + i) * kBlockBytes, kBlockBytes}) ==
              r.crcs()->Get(static_cast<flatbuffers::uoffset_t>(first + i));
    if (!sound) {
      ++v_.stats.corrupt_replies;
      ++p->damaged;
      reason_ = "block " + std::to_string(p->lba()) + " came with a wrong checksum from " + address_;
      logging::warn("volume {}: partition {}: {}; asked again", v_.name, index_of(vp_), reason_);
      retry_read(p);
      continue;
    }
    if (code == Code::ok)
      p->request->data[p->index] = has_data ? payload.slice(first * kBlockBytes + p->offset % kBlockBytes, p->length)
                                            : shared_zeros(p->length);
    answered = true;
    answered_read(p, code == Code::ok ? Status() : Status(code, text_of(code, r.text())));
    if (v_.ended()) return true;
  }
  if (answered) progress();
  return true;
}

bool VpSession::on_map_reply(const fbs::MapReply& r) {
  if (!note_epoch(r.epoch())) return true;
  auto it = reads_.find(r.tag());
  if (it == reads_.end()) return true;  // answered before
  Part* p = it->second;
  Code code = static_cast<Code>(r.code());
  if (!p->is_map) return false;
  if (may_pass(code)) {
    trouble(text_of(code, r.text()), r.epoch());
    return true;
  }
  if (code == Code::ok) {
    std::uint64_t sum = 0;
    if (r.runs() == nullptr) return false;
    for (std::uint32_t run : *r.runs()) sum += run;
    if (sum != p->blocks()) return false;
    std::uint64_t at = p->offset / kBlockBytes * kBlockBytes, end = p->offset + p->length;
    bool data = false;
    for (std::uint32_t run : *r.runs()) {
      std::uint64_t from = std::max(at, p->offset), to = std::min(at += std::uint64_t{run} * kBlockBytes, end);
      if (from < to) p->request->runs[p->index].push_back({to - from, data});
      data = !data;
    }
  }
  answered_read(p, code == Code::ok ? Status() : Status(code, text_of(code, r.text())));
  if (!v_.ended()) progress();
  return true;
}

void VpSession::answered_read(Part* p, const Status& status) {
  reads_.erase(p->id);
  std::erase(unsent_reads_, p);
  std::erase(delayed_reads_, p);
  v_.finish(p, status);
}

void VpSession::retry_read(Part* p) {
  if (std::find(delayed_reads_.begin(), delayed_reads_.end(), p) != delayed_reads_.end()) return;
  io::Duration wait = std::min(kFirstRetry * (1 << std::min(p->attempts, 6u)), kLastRetry);
  p->due = v_.world.now() + wait / 2 + io::Duration(v_.world.random_below(wait.count()));
  delayed_reads_.push_back(p);
  wake();
}

void VpSession::release_delayed_reads(io::Time now) {
  for (std::size_t n = delayed_reads_.size(); n != 0; --n) {
    Part* p = delayed_reads_.front();
    delayed_reads_.pop_front();
    (p->due <= now ? unsent_reads_ : delayed_reads_).push_back(p);
  }
  if (!unsent_reads_.empty() && channel_) v_.mark_dirty(*this);
}

void VpSession::progress() {
  io::Time now = v_.world.now();
  io::Duration gap = now - last_progress_;
  last_progress_ = now;
  attempts_ = 0;
  v_.stats.longest_pause = std::max(v_.stats.longest_pause, gap);
  if (said_ || gap >= kWorthALine)
    logging::info("volume {}: partition {}: I/O went on after a pause of {} ms ({})", v_.name, index_of(vp_),
                  gap / std::chrono::milliseconds(1), reason_.empty() ? "slow answer" : reason_);
  said_ = false;
  if (delayed_reads_.empty()) reason_.clear();
}

void VpSession::trouble(std::string reason, Epoch epoch) {
  reason_ = std::move(reason);
  epoch_ = std::max(epoch_, epoch);
  channel_.reset();
  look_up_first_ = true;
  wake();
}

void VpSession::abandon(std::vector<Part*>& out) {
  for (; low_ != next_; ++low_)
    if (Part* p = std::exchange(window_[low_ % kSessionWindow], nullptr)) out.push_back(p);
  unsent_ = next_;
  in_window_ = 0;
  out.insert(out.end(), queued_.begin(), queued_.end());
  queued_.clear();
  std::size_t first_read = out.size();
  for (auto& [tag, p] : reads_) out.push_back(p);
  std::sort(out.begin() + first_read, out.end(), [](Part* a, Part* b) { return a->id < b->id; });
  reads_.clear();
  unsent_reads_.clear();
  delayed_reads_.clear();
  channel_.reset();
  wake();
}

bool VpSession::paused(io::Time now) const {
  return outstanding() != 0 && (!channel_ || !delayed_reads_.empty() || now - last_progress_ > std::chrono::seconds(1));
}

}  // namespace luge::client
