// What a sled does for heads and other sleds, one function a request.
#include <algorithm>

#include "base/crc32c.hpp"
#include "base/logging.hpp"
#include "sled/service.hpp"
#include "switches/paths.hpp"
#include "switches/switches.hpp"

namespace luge::sled {
namespace {

// A peer that asks and does not read the answers is cut off at this much.
constexpr std::size_t kMaxUnreadAnswers = 256 << 20;

constexpr std::uint32_t kAnyColumn = ~std::uint32_t{0};

StripeId stripe_of(const fbs::StripeId& s) { return {s.vp(), s.epoch(), s.counter()}; }

flatbuffers::Offset<fbs::Column> column_row(flatbuffers::FlatBufferBuilder& b, const Device& d, std::uint32_t n, const std::vector<Device::Slot>& slots,
                                            const fbs::Credential& credential) {
  std::vector<fbs::SlotState> states;
  for (std::uint32_t i = 0; i < slots.size(); ++i) {
    const Device::Slot& s = slots[i];
    // What is on its way to the medium is nobody's to use: as good as unreadable.
    Device::SlotState state = s.busy ? Device::SlotState::unreadable : s.state;
    states.emplace_back(s.generation, fbs::StripeId(s.stripe.vp, s.stripe.epoch, s.stripe.counter), i, static_cast<std::uint8_t>(state), 0, 0);
  }
  auto list = b.CreateVectorOfStructs(states);
  return fbs::CreateColumn(b, d.index(), n, d.row(n).generation, d.row(n).slot_bytes, static_cast<std::uint32_t>(slots.size()), list, &credential);
}

}  // namespace

// A change under an epoch, from its first check to its end: a later fence waits for it.
class Service::Work {
 public:
  Work(Service& s, VpId vp, Epoch epoch) : service_(s), key_{vp, epoch} { ++s.working_[key_]; }
  Work(const Work&) = delete;
  ~Work() {
    auto it = service_.working_.find(key_);
    if (--it->second != 0) return;
    service_.working_.erase(it);
    service_.work_done_.notify_all();
  }

 private:
  Service& service_;
  std::pair<VpId, Epoch> key_;
};

Epoch Service::held(VpId vp) const {
  auto it = epochs_.find(vp);
  return it == epochs_.end() ? 0 : it->second;
}

Status Service::check_epoch(VpId vp, Epoch epoch) const {
  if (vp == 0 || epoch == 0) return Status(Code::invalid, "neither volume partition nor epoch is ever 0");
  if (broken(Switch::no_sled_fence)) return Status();
  Epoch now = held(vp);
  if (epoch < now) return Status(Code::fenced, "you have been fenced off: epoch " + std::to_string(now) + " has begun");
  if (epoch > now) return Status(Code::unavailable, "this sled has not been fenced in epoch " + std::to_string(epoch) + " yet: fence first");
  return Status();
}

Result<Device*> Service::device(NodeId sled, std::uint16_t index) {
  if (sled != options_.id) return Status(Code::invalid, "that is a place on sled " + std::to_string(sled) + ", this is sled " + std::to_string(options_.id));
  if (index >= devices_.size()) return Status(Code::invalid, "this sled has " + std::to_string(devices_.size()) + " devices");
  return devices_[index].get();
}

Result<Device*> Service::emptiest_device() {
  Device* best = nullptr;
  for (const auto& d : devices_)
    if (d->state() == Device::State::ok && d->free_columns() != 0 && (!best || d->free_columns() > best->free_columns())) best = d.get();
  if (!best) return Status(Code::no_space, "no device of this sled has a free column");
  return best;
}

void Service::count(const Status& s) {
  if (s.code() == Code::fenced) ++counters_.fenced;
  if (s.code() == Code::stale) ++counters_.stale;
  if (s.code() == Code::corrupt) ++counters_.corrupt;
  if (s.code() == Code::io_error) ++counters_.io_errors;
}

// In the sled's own metadata, which decides, and beside it on every device. One that cannot keep it is degraded by itself,
// at the latest when the I/O timeout is up.
io::Task<Status> Service::keep_fence(VpId vp, Epoch epoch) {
  Status kept;
  io::TaskGroup group(world_);
  group.spawn("keep fence", [](SledMeta& meta, Fences f, Status& kept) -> io::Task<void> { kept = co_await meta.raise(std::move(f)); }(*meta_, {{vp, epoch}}, kept));
  for (auto& d : devices_) {
    if (!d->usable()) continue;
    group.spawn("copy fence", [](Device& d, Fences f) -> io::Task<void> {
      if (Status s = co_await d.raise(std::move(f)); !s.ok()) logging::debug("{}", s.to_string());
    }(*d, {{vp, epoch}}));
  }
  co_await group.join();
  if (!kept.ok()) co_return kept.with("the sled's data directory cannot keep the epoch");
  bool any = std::any_of(devices_.begin(), devices_.end(), [](const auto& d) { return d->usable(); });
  co_return any ? Status() : Status(Code::io_error, "all devices of this sled have failed");
}

io::Task<Status> Service::raise_epoch(VpId vp, Epoch epoch) {
  if (vp == 0 || epoch == 0) co_return Status(Code::invalid, "neither volume partition nor epoch is ever 0");
  if (epoch < held(vp)) co_return check_epoch(vp, epoch);
  if (held(vp) != 0 && epoch >= held(vp) + 2) reached(Path::sled_back_after_epochs);
  if (Status s = co_await keep_fence(vp, epoch); !s.ok()) co_return s;
  reached(Path::fence_persisted);
  Epoch& now = epochs_[vp];
  now = std::max(now, epoch);
  while (true) {
    auto older = working_.lower_bound({vp, 0});
    if (older == working_.end() || older->first >= std::pair(vp, epoch)) break;
    co_await work_done_.wait();
  }
  if (epoch < held(vp)) co_return check_epoch(vp, epoch);
  co_return Status();
}

io::Task<wire::Frame> Service::fence(const fbs::Fence& m, NodeId from) {
  VpId vp = m.vp();
  Status s = check_presented(m.designation(), from, vp, m.epoch(), from);
  if (s.ok()) s = co_await raise_epoch(vp, m.epoch());
  count(s);
  if (s.ok()) witnessed(Fact::sled_fenced, vp, m.epoch());
  Epoch now = held(vp);
  co_return wire::make_frame(wire::Kind::fence_reply, [&](auto& b) {
    auto text = b.CreateString(s.text());
    return fbs::CreateFenceReply(b, static_cast<std::uint16_t>(s.code()), text, now);
  });
}

io::Task<wire::Frame> Service::list(const fbs::ListColumns& m, NodeId from) {
  flatbuffers::FlatBufferBuilder b;
  std::vector<flatbuffers::Offset<fbs::Column>> rows;
  VpId vp = m.vp();
  NodeId role = m.role();
  std::pair<std::uint16_t, std::uint32_t> next{m.device(), m.column()};
  bool more = false;
  Status s = check_epoch(vp, m.epoch());
  if (s.ok()) s = check_presented(m.designation(), from, vp, m.epoch(), role);
  for (std::size_t i = next.first; s.ok() && !more && i < devices_.size(); ++i) {
    Device& d = *devices_[i];
    if (!d.usable()) continue;
    std::vector<std::uint32_t> mine = d.owned_by(vp);
    for (std::uint32_t n : mine) {
      if (std::pair(d.index(), n) < next || d.row(n).role != role) continue;
      auto slots = co_await d.slots(vp, n);
      if (!slots.ok()) continue;
      more = !rows.empty() && b.GetSize() + slots->size() * sizeof(fbs::SlotState) > options_.list_bytes;
      if (more) next = {d.index(), n};
      if (more) break;
      rows.push_back(column_row(b, d, n, *slots, credential_for(d, n, from, vp, m.epoch())));
    }
  }
  if (s.ok()) s = check_epoch(vp, m.epoch());
  if (!s.ok()) rows.clear();
  count(s);
  auto text = b.CreateString(s.text());
  auto list = b.CreateVector(rows);
  b.Finish(fbs::CreateColumns(b, static_cast<std::uint16_t>(s.code()), text, list, s.ok() && more, next.first, next.second));
  co_return wire::finish_frame(wire::Kind::columns, b);
}

// Names no epoch, as reads do not: who looks for a checkpoint may be in none yet.
io::Task<wire::Frame> Service::list_checkpoints(const fbs::ListCheckpoints& m) {
  flatbuffers::FlatBufferBuilder b;
  std::vector<fbs::CheckpointSlot> found;
  VpId vp = m.vp();
  std::pair<std::uint16_t, std::uint32_t> next{m.device(), m.column()};
  bool more = false;
  Status s = vp == 0 ? Status(Code::invalid, "no volume partition is ever 0") : Status();
  for (std::size_t i = next.first; s.ok() && !more && i < devices_.size(); ++i) {
    Device& d = *devices_[i];
    if (!d.usable()) continue;
    std::vector<std::uint32_t> mine = d.owned_by(vp);
    for (std::uint32_t n : mine) {
      if (std::pair(d.index(), n) < next || d.row(n).role == 0) continue;
      more = found.size() * sizeof(fbs::CheckpointSlot) > options_.list_bytes;
      if (more) next = {d.index(), n};
      if (more) break;
      co_await checkpoint_rows(d, vp, n, found);
    }
  }
  auto text = b.CreateString(s.text());
  auto list = b.CreateVectorOfStructs(found);
  b.Finish(fbs::CreateCheckpointSlots(b, static_cast<std::uint16_t>(s.code()), text, list, more, next.first, next.second));
  co_return wire::finish_frame(wire::Kind::checkpoint_slots, b);
}

// What cannot be read is left out: whoever asks has the other chunks of the stripe.
io::Task<void> Service::checkpoint_rows(Device& d, VpId vp, std::uint32_t column, std::vector<fbs::CheckpointSlot>& out) {
  auto slots = co_await d.slots(vp, column);
  if (!slots.ok()) co_return;
  NodeId author = d.row(column).role;
  for (std::uint32_t i = 0; i < slots->size(); ++i) {
    if ((*slots)[i].state != Device::SlotState::written || (*slots)[i].busy) continue;
    auto header = co_await d.header_of(vp, column, i);
    if (!header.ok()) continue;
    const coding::ChunkHeaderFields& f = header->fields();
    fbs::BlockIdentity first = header->identity(0, 0);
    out.emplace_back(fbs::StripeId(f.stripe.vp, f.stripe.epoch, f.stripe.counter), f.generation, first.lba(), first.lsn(), author, column, i, f.chunk_bytes,
                     d.index(), static_cast<std::uint16_t>(f.chunk_index), static_cast<std::uint16_t>(f.layout.k), static_cast<std::uint16_t>(f.layout.m));
  }
}

io::Task<wire::Frame> Service::claim(const fbs::ClaimColumn& m, NodeId from) {
  flatbuffers::FlatBufferBuilder b;
  flatbuffers::Offset<fbs::Column> row;
  VpId vp = m.vp();
  Epoch epoch = m.epoch();
  std::uint32_t n = m.column();
  bool any = n == kAnyColumn;
  auto d = any ? emptiest_device() : device(options_.id, m.device());
  Status s = d.ok() ? check_epoch(vp, epoch) : d.status();
  if (s.ok()) s = check_presented(m.designation(), from, vp, epoch, m.role());
  if (s.ok()) {
    Work work(*this, vp, epoch);
    do {
      if (any) n = (*d)->free_column();
      s = co_await (*d)->claim(vp, epoch, n, m.slot_bytes(), [this, vp, epoch] { return check_epoch(vp, epoch); }, m.role());
    } while (any && s.code() == Code::exists && (*d)->free_columns() != 0);  // another has been quicker
    if (s.ok()) witnessed(Fact::sled_changed, vp, epoch);
    if (s.ok()) {
      auto slots = co_await (*d)->slots(vp, n);
      if (slots.ok()) row = column_row(b, **d, n, *slots, credential_for(**d, n, from, vp, epoch));
      else s = slots.status();
    }
  }
  count(s);
  auto text = b.CreateString(s.text());
  b.Finish(fbs::CreateClaimReply(b, static_cast<std::uint16_t>(s.code()), text, row));
  co_return wire::finish_frame(wire::Kind::claim_reply, b);
}

io::Task<Status> Service::release(const fbs::ReleaseColumns& m, NodeId from) {
  VpId vp = m.vp();
  Epoch epoch = m.epoch();
  Status s = check_epoch(vp, epoch);
  if (s.ok()) s = check_presented(m.designation(), from, vp, epoch, 0);
  if (!s.ok()) co_return s;
  Work work(*this, vp, epoch);
  io::TaskGroup group(world_);
  for (auto& d : devices_) {
    if (!d->usable()) continue;
    group.spawn("release", [](Device& d, VpId vp, Device::Permit permit, Status& s) -> io::Task<void> {
      Status one = co_await d.release(vp, std::move(permit));
      if (s.ok()) s = one;
    }(*d, vp, [this, vp, epoch] { return check_epoch(vp, epoch); }, s));
  }
  co_await group.join();
  co_return s;
}

io::Task<Status> Service::write_chunk(const wire::Frame& frame, const fbs::WriteChunk& m) {
  Buffer data = frame.data();
  if (!m.stripe() || !m.place() || m.header_bytes() == 0 || m.header_bytes() > data.size()) co_return Status(Code::invalid, "the chunk message does not parse");
  Bytes header_area = data.bytes().first(m.header_bytes());
  auto header = coding::parse_chunk_header(header_area);
  if (header.ok() && (header->stripe() != stripe_of(*m.stripe()) || m.vp() != m.stripe()->vp() || header->fields().chunk_index != m.chunk_index()))
    co_return Status(Code::invalid, "the chunk's header is another chunk's");
  auto d = device(m.place()->sled(), m.place()->device());
  if (!d.ok()) co_return d.status();
  io::Budget& memory = (*d)->write_memory();
  if (memory.crowded()) co_return Status(Code::unavailable, (*d)->spec().path + ": more chunks wait to be written than this sled holds; use another");
  io::Budget::Lease lease = co_await memory.take(data.size());
  co_return co_await store_chunk(*m.place(), m.epoch(), m.credential(), data.slice(0, m.header_bytes()), data.slice(m.header_bytes(), data.size() - m.header_bytes()));
}

// Everything that makes a chunk acceptable, whoever sent it.
Status Service::check_chunk(const coding::ChunkHeader& header, const fbs::ChunkPlace& place, Epoch epoch, Bytes header_area, Bytes chunk) const {
  const coding::ChunkHeaderFields& f = header.fields();
  if (f.unit != identity_.unit) return Status(Code::wrong_unit, "the chunk belongs to storage unit " + std::to_string(f.unit));
  // Of an earlier epoch: a chunk that a stripe lacked (protocol 8.5). The message's own epoch is what fences.
  if (!f.written || f.stripe.epoch > epoch || f.generation != place.generation() || f.chunk_bytes != chunk.size() ||
      header.header_bytes() != header_area.size())
    return Status(Code::invalid, "the chunk's header does not fit its message");
  for (std::uint32_t i = 0; i < header.blocks_per_chunk(); ++i)
    if (crc32c(chunk.subspan(std::size_t{i} * kBlockBytes, kBlockBytes)) != header.block_crc(f.chunk_index, i))
      return Status(Code::corrupt, "block " + std::to_string(i) + " of the chunk does not match its checksum");
  return Status();
}

io::Task<Status> Service::store_chunk(fbs::ChunkPlace place, Epoch epoch, const fbs::Credential* credential, Buffer header_area, Buffer chunk) {
  auto header = coding::parse_chunk_header(header_area.bytes());
  if (header.code() == Code::not_found) co_return Status(Code::invalid, "the chunk has no header");
  if (!header.ok()) co_return header.status();
  VpId vp = header->stripe().vp;
  if (Status s = check_epoch(vp, epoch); !s.ok()) co_return s;
  Work work(*this, vp, epoch);
  if (Status s = check_chunk(*header, place, epoch, header_area.bytes(), chunk.bytes()); !s.ok()) co_return s;
  auto d = device(place.sled(), place.device());
  if (!d.ok()) co_return d.status();
  if (Status s = check_credential(credential, **d, place.column(), vp, epoch); !s.ok()) co_return s;
  auto permit = [this, vp, epoch] { return check_epoch(vp, epoch); };
  Status s = co_await (*d)->write_chunk(place, *header, header_area, chunk, permit);
  // An epoch that began while the write was on its way: the writer learns of it here.
  if (s.ok()) s = permit();
  if (s.ok()) witnessed(Fact::sled_changed, vp, epoch);
  co_return s;
}

io::Task<wire::Frame> Service::read_chunk(const fbs::ReadChunk& m) {
  Status s;
  Device::ReadResult got;
  bool want_header = m.want_header();
  std::uint32_t first = m.first_block(), blocks = m.blocks(), chunk = m.chunk_index();
  std::uint64_t bytes = std::min<std::uint64_t>(std::uint64_t{blocks} * kBlockBytes, coding::kMaxChunkBytes);
  if (!m.stripe() || !m.place()) {
    s = Status(Code::invalid, "the request does not parse");
  } else if (auto d = device(m.place()->sled(), m.place()->device()); d.ok()) {
    io::Budget::Lease lease = co_await (*d)->read_memory().take(bytes + kBlockBytes);
    auto r = co_await (*d)->read_chunk(*m.place(), stripe_of(*m.stripe()), chunk, first, blocks, want_header);
    if (r.ok()) got = std::move(*r);
    else s = r.status();
  } else {
    s = d.status();
  }
  count(s);
  std::span<const fbs::BlockIdentity> identities;
  if (s.ok()) identities = std::span(got.chunk->blocks).subspan(first, blocks);
  std::uint32_t header_bytes = s.ok() && want_header ? got.chunk->header_bytes : 0;
  wire::Frame f = wire::make_frame(wire::Kind::chunk, [&](auto& b) {
    auto text = b.CreateString(s.text());
    auto list = b.CreateVectorOfStructs(identities.data(), identities.size());
    return fbs::CreateChunk(b, static_cast<std::uint16_t>(s.code()), text, list, header_bytes);
  });
  if (header_bytes != 0) f.payload.push_back(got.header_area);
  if (s.ok() && !got.blocks.empty()) f.payload.push_back(got.blocks);
  co_return f;
}

io::Task<Status> Service::free_slot(const fbs::FreeSlot& m) {
  if (!m.stripe() || !m.place()) co_return Status(Code::invalid, "the request does not parse");
  VpId vp = m.vp();
  Epoch epoch = m.epoch();
  auto d = device(m.place()->sled(), m.place()->device());
  Status s = d.ok() ? check_epoch(vp, epoch) : d.status();
  if (s.ok()) s = check_credential(m.credential(), **d, m.place()->column(), vp, epoch);
  if (!s.ok()) co_return s;
  Work work(*this, vp, epoch);
  s = co_await (*d)->free_slot(vp, *m.place(), stripe_of(*m.stripe()), [this, vp, epoch] { return check_epoch(vp, epoch); });
  co_return s;
}

// A frame of kind none: the request does not verify as what it says it is.
io::Task<wire::Frame> Service::answer_to(const wire::Frame& frame) {
  wire::Frame out;
  std::optional<Status> s;
  switch (frame.kind) {
    case wire::Kind::fence:
      if (const auto* m = frame.as<fbs::Fence>()) out = co_await fence(*m, frame.source);
      break;
    case wire::Kind::list_columns:
      if (const auto* m = frame.as<fbs::ListColumns>()) out = co_await list(*m, frame.source);
      break;
    case wire::Kind::claim_column:
      if (const auto* m = frame.as<fbs::ClaimColumn>()) out = co_await claim(*m, frame.source);
      break;
    case wire::Kind::release_columns:
      if (const auto* m = frame.as<fbs::ReleaseColumns>()) s = co_await release(*m, frame.source);
      break;
    case wire::Kind::write_stripe:
      out = co_await gateway_->write_stripe(frame);
      break;
    case wire::Kind::write_chunk:
      if (const auto* m = frame.as<fbs::WriteChunk>()) s = co_await write_chunk(frame, *m);
      break;
    case wire::Kind::read_chunk:
      if (const auto* m = frame.as<fbs::ReadChunk>()) out = co_await read_chunk(*m);
      break;
    case wire::Kind::list_checkpoints:
      if (const auto* m = frame.as<fbs::ListCheckpoints>()) out = co_await list_checkpoints(*m);
      break;
    case wire::Kind::rebuild:
      if (const auto* m = frame.as<fbs::Rebuild>()) out = co_await rebuilder_->rebuild(*m);
      break;
    case wire::Kind::free_slot:
      if (const auto* m = frame.as<fbs::FreeSlot>()) s = co_await free_slot(*m);
      break;
    default:
      s = Status(Code::invalid, "a sled does not answer '" + std::string(wire::kind_name(frame.kind)) + "'");
  }
  if (out.kind != wire::Kind::none) co_return out;
  Status status = s ? *s : Status(Code::invalid, "the '" + std::string(wire::kind_name(frame.kind)) + "' does not parse");
  count(status);
  co_return wire::reply_frame(status);
}

io::Task<void> Service::answer(ChannelPtr channel, wire::Frame frame) {
  if (!gateway_ || draining_)
    co_return channel->reply(frame, wire::reply_frame(Status(Code::unavailable, draining_ ? "the sled is going down" : "the sled is starting")));
  if (channel->queued_bytes() > kMaxUnreadAnswers) {
    logging::warn("{} does not read its answers; connection closed", channel->peer());
    co_return channel->close();
  }
  struct Leave {
    Service& s;
    ~Leave() {
      if (--s.requests_ == 0) s.work_done_.notify_all();
    }
  } leave{*this};
  ++requests_;
  wire::Frame out = co_await answer_to(frame);
  channel->reply(frame, std::move(out));
}

}  // namespace luge::sled
