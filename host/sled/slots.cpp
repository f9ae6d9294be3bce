// Chunk slots of a device: free -> written(stripe) -> free(generation + 1). What a slot is, is told by its header on the
// medium; the headers of a column are read when it is first touched and known from then on.
#include <algorithm>

#include "base/crc32c.hpp"
#include "base/logging.hpp"
#include "coding/checkpoint_block.hpp"
#include "sled/device.hpp"
#include "switches/switches.hpp"

namespace luge::sled {
namespace {

constexpr std::size_t kUnreadableInARow = 16;  // different places, with none between them that reads

}  // namespace

// Keeps a column from changing hands while an operation is in it.
class Device::Use {
 public:
  Use() = default;
  Use(const Use&) = delete;
  ~Use() {
    if (column_ && --column_->users == 0) device_->changed_.notify_all();
  }
  void begin(Device& device, Column& column) {
    device_ = &device;
    column_ = &column;
    ++column.users;
  }
  Column& column() { return *column_; }

 private:
  Device* device_ = nullptr;
  Column* column_ = nullptr;
};

Status Device::enter(const fbs::ChunkPlace& p, Use& use) {
  if (Status s = health(); !s.ok()) return s;
  if (p.column() >= columns_.size()) return Status(Code::invalid, spec_.path + " has " + std::to_string(columns_.size()) + " columns");
  Column& c = columns_[p.column()];
  if (c.row.owner == 0 || c.changing) return Status(Code::stale, "column " + std::to_string(p.column()) + " belongs to nobody");
  if (p.slot() >= slots_in(c.row.slot_bytes))
    return Status(Code::invalid, "column " + std::to_string(p.column()) + " has " + std::to_string(slots_in(c.row.slot_bytes)) + " slots");
  use.begin(*this, c);
  return Status();
}

// What cannot be read takes nothing else of the device away: whoever asks has the other chunks of the stripe, and they lie on devices with
// bad sectors of their own. A device that hangs, or where nothing reads any more, is gone.
io::Task<Status> Device::read_at(std::uint64_t offset, Buffer into) {
  Status s = co_await file_->read(offset, std::move(into));
  if (s.ok()) {
    unreadable_.clear();
    co_return s;
  }
  unreadable_.insert(offset);
  if (file_->hung() || unreadable_.size() > kUnreadableInARow || broken(Switch::bad_sector_fails_device)) co_return fail(s);
  ++counters_.errors;
  logging::warn("{}: cannot read at {}: {}", spec_.path, offset, s.to_string());
  co_return s.text().starts_with(spec_.path) ? s : s.with(spec_.path);
}

io::Task<Result<coding::ChunkHeader>> Device::read_header(std::uint64_t offset, std::uint32_t slot_bytes, Buffer* area) {
  Buffer b = Buffer::allocate(kBlockBytes);
  if (Status s = co_await read_at(offset, b); !s.ok()) co_return s;
  std::uint32_t bytes = coding::claimed_header_bytes(b.bytes(), slot_bytes);
  if (bytes > b.size()) {
    Buffer whole = Buffer::allocate(bytes);
    if (Status s = co_await read_at(offset, whole); !s.ok()) co_return s;
    b = std::move(whole);
  }
  if (area) *area = b;
  co_return coding::parse_chunk_header(b.bytes());
}

// Strict: a slot counts as free only if it is blank or says so itself. A column is cleared when it is claimed, so
// nothing of an earlier owner is ever found here.
Device::Slot Device::judge(const ColumnRow& row, const Result<coding::ChunkHeader>& header) const {
  Slot slot;
  slot.generation = first_slot_generation(row.generation);
  if (header.code() == Code::not_found) return slot;
  slot.state = SlotState::unreadable;
  if (!header.ok()) return slot;
  const coding::ChunkHeaderFields& f = header->fields();
  if (f.unit != unit_ || f.generation < slot.generation || f.generation >= first_slot_generation(row.generation + 1)) return slot;
  if (f.written && f.stripe.vp != row.owner) return slot;
  slot.generation = f.generation;
  slot.state = f.written ? SlotState::written : SlotState::free;
  if (f.written) slot.stripe = f.stripe;
  return slot;
}

io::Task<Status> Device::load_slot(Column& c, std::uint32_t slot, std::uint64_t offset) {
  auto header = co_await read_header(offset, c.row.slot_bytes);
  if (!usable()) co_return health();
  c.slots[slot] = judge(c.row, header);
  co_return Status();
}

// REQUIRES: a Use of the column.
io::Task<Status> Device::load(Column& c, std::uint32_t number) {
  while (c.loading) co_await changed_.wait();
  if (Status s = health(); !s.ok()) co_return s;
  if (c.loaded) co_return Status();
  c.loading = true;
  c.slots.assign(slots_in(c.row.slot_bytes), Slot());
  std::function<io::Task<Status>(std::uint32_t, std::uint64_t)> f = [this, &c](std::uint32_t slot, std::uint64_t offset) {
    return load_slot(c, slot, offset);
  };
  Status s = co_await for_each_slot(number, c.row.slot_bytes, f);
  c.loaded = s.ok();
  c.loading = false;
  changed_.notify_all();
  co_return s;
}

io::Task<Result<std::vector<Device::Slot>>> Device::slots(VpId vp, std::uint32_t column) {
  Use use;
  fbs::ChunkPlace place(sled_, column, 0, index_, 0, 0);
  if (Status s = enter(place, use); !s.ok()) co_return s;
  if (use.column().row.owner != vp) co_return Status(Code::not_found, "the column is not this volume partition's");
  if (Status s = co_await load(use.column(), column); !s.ok()) co_return s;
  co_return use.column().slots;
}

io::Task<Result<coding::ChunkHeader>> Device::header_of(VpId vp, std::uint32_t column, std::uint32_t slot) {
  Use use;
  fbs::ChunkPlace place(sled_, column, slot, index_, 0, 0);
  if (Status s = enter(place, use); !s.ok()) co_return s;
  const ColumnRow& row = use.column().row;
  if (row.owner != vp) co_return Status(Code::not_found, "the column is not this volume partition's");
  auto header = co_await read_header(slot_offset(column, slot, row.slot_bytes), row.slot_bytes);
  if (header.ok() && !header->fields().written) co_return Status(Code::stale, "the slot is free");
  co_return header;
}

// The very same write again (its first answer was lost) is what it was; anything else is not. Header and chunk: a
// write that was cut off may have left the header alone.
io::Task<Status> Device::same_chunk(std::uint64_t offset, Bytes header_area, Bytes chunk) {
  Buffer b = Buffer::allocate(header_area.size() + chunk.size());
  if (Status s = co_await read_at(offset, b); !s.ok()) co_return s;
  bool same = std::memcmp(b.data(), header_area.data(), header_area.size()) == 0 &&
              std::memcmp(b.data() + header_area.size(), chunk.data(), chunk.size()) == 0;
  co_return same ? Status() : Status(Code::stale, "the slot holds other bytes under this stripe's name");
}

io::Task<Status> Device::write_chunk(fbs::ChunkPlace place, const coding::ChunkHeader& header, Buffer header_area, Buffer chunk, Permit permit) {
  Use use;
  if (Status s = enter(place, use); !s.ok()) co_return s;
  Column& c = use.column();
  if (c.row.owner != header.stripe().vp) co_return Status(Code::stale, "the column belongs to another volume partition");
  if ((c.row.role != 0) != coding::is_checkpoint_lba(header.identity(0, 0).lba()))
    co_return Status(Code::invalid, c.row.role == 0 ? "a checkpoint does not belong into a column of data" : "data does not belong into a column of checkpoints");
  if (header_area.size() + chunk.size() > c.row.slot_bytes)
    co_return Status(Code::invalid, "header and chunk do not fit a slot of " + std::to_string(c.row.slot_bytes) + " bytes");
  if (Status s = co_await load(c, place.column()); !s.ok()) co_return s;
  Slot& slot = c.slots[place.slot()];
  std::uint64_t offset = slot_offset(place.column(), place.slot(), c.row.slot_bytes);
  if (slot.busy) co_return Status(Code::unavailable, "the slot is being written");
  if (slot.state == SlotState::written && slot.stripe == header.stripe() && slot.generation == place.generation()) {
    Status s = co_await same_chunk(offset, header_area.bytes(), chunk.bytes());
    co_return s;
  }
  if (slot.state == SlotState::unreadable) co_return Status(Code::stale, "the slot's header cannot be read; it is not used until its column is released");
  if (slot.state != SlotState::free || slot.generation != place.generation())
    co_return Status(Code::stale, "the slot is " + std::string(slot.state == SlotState::free ? "free" : "written") + " in generation " +
                                      std::to_string(slot.generation) + ", not free in " + std::to_string(place.generation()));
  if (Status s = permit(); !s.ok()) co_return s;
  slot.busy = true;
  known_.forget(offset);
  std::vector<Buffer> parts{header_area, chunk};
  Status s = co_await file_->write(offset, std::move(parts), io::Durability::durable);
  slot.busy = false;
  if (!s.ok()) {
    slot.state = SlotState::unreadable;
    known_.forget(offset);
    co_return fail(s);
  }
  slot.state = SlotState::written;
  slot.stripe = header.stripe();
  known_.put(offset, std::make_shared<KnownChunk>(header));
  ++counters_.chunks_written;
  counters_.chunk_bytes += chunk.size();
  co_return Status();
}

io::Task<Status> Device::free_slot(VpId vp, fbs::ChunkPlace place, StripeId stripe, Permit permit) {
  Use use;
  if (Status s = enter(place, use); !s.ok()) co_return s;
  Column& c = use.column();
  if (c.row.owner != vp || stripe.vp != vp) co_return Status(Code::stale, "the column belongs to another volume partition");
  if (Status s = co_await load(c, place.column()); !s.ok()) co_return s;
  Slot& slot = c.slots[place.slot()];
  if (slot.busy) co_return Status(Code::unavailable, "the slot is being written");
  if (slot.state != SlotState::written || slot.stripe != stripe || slot.generation != place.generation())
    co_return Status(Code::stale, "the slot does not hold this stripe in this generation");
  Generation next = slot.generation + (broken(Switch::free_without_generation) ? 0 : 1);
  if (next >= first_slot_generation(c.row.generation + 1))
    co_return Status(Code::no_space, "the slot has used up its generations; it is free again when its column is released");
  slot.busy = true;
  Status s = co_await mark_free(slot_offset(place.column(), place.slot(), c.row.slot_bytes), next, permit);
  slot.busy = false;
  if (s.ok()) slot = Slot{SlotState::free, false, next, {}};
  else if (!usable()) slot.state = SlotState::unreadable;
  co_return s;
}

// Only the sector with the mark changes: were the rest of the block cleared too, a write that is cut off could leave
// the old mark over half a header, and the slot unreadable.
io::Task<Status> Device::mark_free(std::uint64_t offset, Generation generation, const Permit& permit) {
  Buffer b = Buffer::allocate(kBlockBytes);
  if (Status s = co_await read_at(offset, b); !s.ok()) co_return s;
  Buffer mark = coding::encode_free_header(unit_, generation);
  std::memcpy(b.data(), mark.data(), sizeof(coding::ChunkHeaderHead));
  if (Status s = permit(); !s.ok()) co_return s;
  known_.forget(offset);
  Status s = co_await file_->write(offset, b, io::Durability::durable);
  known_.forget(offset);
  co_return s.ok() ? s : fail(s);
}

// From memory, where the header has been seen before; else, or if the header itself is wanted, from the medium.
io::Task<Status> Device::know_chunk(std::uint64_t offset, std::uint32_t slot_bytes, bool want_header, ReadResult& out) {
  if (!want_header) out.chunk = known_.find(offset);
  if (out.chunk) co_return Status();
  KnownChunks::Loading loading(known_, offset);
  Buffer area;
  auto header = co_await read_header(offset, slot_bytes, &area);
  if (header.code() == Code::not_found) co_return Status(Code::stale, "the slot was never written");
  if (!header.ok()) co_return header.status().with(spec_.path);
  out.chunk = std::make_shared<KnownChunk>(*header);
  if (out.chunk->fields.written) loading.done(out.chunk);
  if (want_header) out.header_area = area.slice(0, header->header_bytes());
  co_return Status();
}

io::Task<Result<Device::ReadResult>> Device::read_chunk(fbs::ChunkPlace place, StripeId stripe, std::uint32_t chunk, std::uint32_t first,
                                                        std::uint32_t blocks, bool want_header) {
  Use use;
  if (Status s = enter(place, use); !s.ok()) co_return s;
  std::uint32_t slot_bytes = use.column().row.slot_bytes;
  std::uint64_t offset = slot_offset(place.column(), place.slot(), slot_bytes);
  ReadResult out;
  if (Status s = co_await know_chunk(offset, slot_bytes, want_header, out); !s.ok()) co_return s;
  const coding::ChunkHeaderFields& f = out.chunk->fields;
  if (broken(Switch::chunk_denied) && ++denied_ % 64 == 0) co_return Status(Code::stale, "the slot holds another stripe, it says");
  if (!f.written || f.unit != unit_ || f.stripe != stripe || f.generation != place.generation() || f.chunk_index != chunk)
    co_return Status(Code::stale, f.written ? "the slot holds stripe " + to_string(f.stripe) + " in generation " + std::to_string(f.generation)
                                            : "the slot is free in generation " + std::to_string(f.generation));
  if (out.chunk->header_bytes + std::uint64_t{f.chunk_bytes} > slot_bytes) co_return Status(Code::corrupt, spec_.path + ": the chunk does not fit its slot");
  std::size_t has = out.chunk->blocks.size();
  if (first > has || blocks > has - first) co_return Status(Code::invalid, "the chunk has " + std::to_string(has) + " blocks");
  if (blocks != 0)
    if (Status s = co_await read_blocks(offset, first, blocks, out); !s.ok()) co_return s;
  ++counters_.chunks_read;
  counters_.read_bytes += out.blocks.size();
  co_return out;
}

io::Task<Status> Device::read_blocks(std::uint64_t slot, std::uint32_t first, std::uint32_t blocks, ReadResult& out) {
  out.blocks = Buffer::allocate(std::size_t{blocks} * kBlockBytes);
  if (Status s = co_await read_at(slot + out.chunk->header_bytes + std::uint64_t{first} * kBlockBytes, out.blocks); !s.ok()) co_return s;
  std::uint32_t good = 0;
  while (good < blocks && crc32c(out.blocks.bytes().subspan(std::size_t{good} * kBlockBytes, kBlockBytes)) == out.chunk->blocks[first + good].crc()) ++good;
  if (good == blocks) co_return Status();
  // Freed and written again since its header was read: not damage.
  auto now = co_await read_header(slot, out.chunk->header_bytes);
  const coding::ChunkHeaderFields& f = out.chunk->fields;
  bool same = now.ok() && now->fields().written && now->stripe() == f.stripe && now->fields().generation == f.generation;
  if (now.ok() && !same) co_return Status(Code::stale, "the slot was freed while it was read");
  co_return Status(Code::corrupt, spec_.path + ": block " + std::to_string(first + good) + " of the chunk does not match its checksum");
}

}  // namespace luge::sled
