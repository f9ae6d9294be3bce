#include "sled/device.hpp"

#include <algorithm>

#include "base/crc32c.hpp"
#include "base/logging.hpp"
#include "switches/switches.hpp"

namespace luge::sled {
namespace {

std::uint32_t super_crc(Superblock s) {
  s.crc = 0;
  return crc32c(Bytes(reinterpret_cast<const std::byte*>(&s), sizeof s));
}

template <class T>
std::string row_bytes(const T& t) { return std::string(reinterpret_cast<const char*>(&t), sizeof t); }

std::uint64_t number_after(std::string_view key, std::string_view prefix) {
  return std::strtoull(std::string(key.substr(prefix.size())).c_str(), nullptr, 10);
}

}  // namespace

Status Device::fail(Status status) {
  ++counters_.errors;
  if (failure_.ok()) {
    failure_ = status.with(spec_.path);
    logging::error("device {} has failed and is left out from now on: {}", spec_.path, status.to_string());
  }
  return failure_;
}

io::Task<Result<bool>> Device::blank() {
  Buffer b = Buffer::allocate(1 << 20);
  for (std::uint64_t at : {std::uint64_t{0}, file_->size() - b.size()}) {
    if (Status s = co_await file_->read(at, b.mutable_bytes()); !s.ok()) co_return s;
    if (std::any_of(b.data(), b.data() + b.size(), [](std::byte x) { return x != std::byte{0}; })) co_return false;
  }
  co_return true;
}

io::Task<Status> Device::check_superblock(bool& found) {
  Buffer b = Buffer::allocate(kBlockBytes);
  bool ours = false;
  for (std::uint64_t at : {std::uint64_t{0}, kSecondSuperblock}) {
    if (Status s = co_await file_->read(at, b.mutable_bytes()); !s.ok()) co_return s;
    Superblock s;
    std::memcpy(&s, b.data(), sizeof s);
    if (s.magic != kSuperMagic) continue;
    ours = true;
    if (s.version != kSuperVersion)
      co_return Status(Code::wrong_version, spec_.path + ": device format " + std::to_string(s.version) + " is not known to this version");
    if (super_crc(s) != s.crc) continue;
    if (s.unit != unit_) co_return Status(Code::wrong_unit, spec_.path + ": the device belongs to another storage unit");
    if (s.sled != sled_ || s.device != index_)
      co_return Status(Code::invalid, spec_.path + ": this is device " + std::to_string(s.device) + " of sled " + std::to_string(s.sled) +
                                          ", not device " + std::to_string(index_) + " of sled " + std::to_string(sled_));
    column_bytes_ = s.column_bytes;
    columns_ = s.columns;
    found = true;
    co_return Status();
  }
  if (ours) co_return Status(Code::corrupt, spec_.path + ": both superblocks are damaged");
  co_return Status();
}

io::Task<Status> Device::format() {
  std::uint64_t room = file_->size() - kMetaOffset - kMetaBytes;
  columns_ = static_cast<std::uint32_t>(std::min<std::uint64_t>(room / column_bytes_, 40000));
  Superblock s;
  s.unit = unit_;
  s.sled = sled_;
  s.column_bytes = column_bytes_;
  s.columns = columns_;
  s.device = index_;
  s.crc = super_crc(s);
  Buffer b = Buffer::zeros(kBlockBytes);
  std::memcpy(b.data(), &s, sizeof s);
  Bytes part = b.bytes();
  for (std::uint64_t at : {kSecondSuperblock, std::uint64_t{0}})
    if (Status st = co_await file_->write(at, std::span(&part, 1), io::Durability::durable); !st.ok()) co_return st;
  co_return Status();
}

io::Task<Status> Device::open() {
  auto file = co_await world_.files().open(spec_.path, {.create = spec_.create_bytes != 0, .size = spec_.create_bytes, .lock = true});
  if (!file.ok()) co_return file.status();
  file_ = std::move(*file);
  if (file_->size() < kMetaOffset + kMetaBytes + column_bytes_)
    co_return Status(Code::invalid, spec_.path + ": " + std::to_string(file_->size()) + " bytes are too small for a device; it needs at least " +
                                        std::to_string(kMetaOffset + kMetaBytes + column_bytes_));
  bool found = false;
  if (Status s = co_await check_superblock(found); !s.ok()) co_return s;
  if (!found) {
    auto empty = co_await blank();
    if (!empty.ok()) co_return empty.status();
    if (!*empty) co_return Status(Code::exists, spec_.path + ": the device is not blank and not ours; wipe its first and last MiB if it may be used");
    if (Status s = co_await format(); !s.ok()) co_return s;
  }
  auto meta = co_await io::MetaStore::open(world_, *file_, kMetaOffset, kMetaBytes);
  if (!meta.ok()) co_return meta.status().with(spec_.path);
  meta_ = std::move(*meta);
  rows_.resize(columns_);
  for (auto [key, value] : meta_->list("column/")) {
    std::uint64_t n = number_after(key, "column/");
    if (n >= columns_ || value.size() != sizeof(ColumnRow)) co_return Status(Code::corrupt, spec_.path + ": column table does not parse");
    std::memcpy(&rows_[n], value.data(), sizeof(ColumnRow));
  }
  for (auto [key, value] : meta_->list("fence/")) {
    if (value.size() != sizeof(Epoch)) co_return Status(Code::corrupt, spec_.path + ": fence table does not parse");
    std::memcpy(&fences_[number_after(key, "fence/")], value.data(), sizeof(Epoch));
  }
  co_return Status();
}

io::Task<Status> Device::fence(VpId vp, Epoch epoch) {
  if (failed()) co_return failure_;
  if (fences_[vp] >= epoch) co_return Status();
  if (Status s = co_await meta_->put("fence/" + std::to_string(vp), row_bytes(epoch)); !s.ok()) co_return fail(s);
  fences_[vp] = std::max(fences_[vp], epoch);
  co_return Status();
}

std::uint32_t Device::free_columns() const {
  return static_cast<std::uint32_t>(std::count_if(rows_.begin(), rows_.end(), [](const ColumnRow& r) { return r.owner == 0; }));
}

std::vector<std::uint32_t> Device::owned_by(VpId vp) const {
  std::vector<std::uint32_t> out;
  for (std::uint32_t n = 0; n < rows_.size(); ++n)
    if (rows_[n].owner == vp) out.push_back(n);
  return out;
}

std::uint32_t Device::slots(std::uint32_t column) const {
  return rows_[column].slot_bytes ? static_cast<std::uint32_t>(column_bytes_ / rows_[column].slot_bytes) : 0;
}

io::Task<Status> Device::claim(VpId vp, std::uint32_t column, std::uint32_t slot_bytes) {
  if (failed()) co_return failure_;
  if (column >= columns_ || slot_bytes % kBlockBytes != 0 || slot_bytes == 0 || slot_bytes > column_bytes_)
    co_return Status(Code::invalid, "no such column, or a slot size that does not fit it");
  ColumnRow& row = rows_[column];
  if (row.owner == vp) co_return row.slot_bytes == slot_bytes ? Status() : Status(Code::exists, "claimed with another slot size");
  if (row.owner != 0) co_return Status(Code::exists, "the column belongs to another volume partition");
  ColumnRow next{vp, row.generation + 1, slot_bytes, 0};
  row.owner = vp;  // nobody else gets it while the row is on its way
  if (Status s = co_await meta_->put("column/" + std::to_string(column), row_bytes(next)); !s.ok()) co_return fail(s);
  rows_[column] = next;
  slots_.erase(column);
  co_return Status();
}

io::Task<Status> Device::release(VpId vp) {
  if (failed()) co_return failure_;
  std::vector<io::MetaStore::Change> changes;
  std::vector<std::uint32_t> mine = owned_by(vp);
  for (std::uint32_t n : mine) changes.emplace_back("column/" + std::to_string(n), row_bytes(ColumnRow{0, rows_[n].generation, 0, 0}));
  if (changes.empty()) co_return Status();
  if (Status s = co_await meta_->put(std::move(changes)); !s.ok()) co_return fail(s);
  for (std::uint32_t n : mine) {
    rows_[n].owner = 0;
    slots_.erase(n);
  }
  co_return Status();
}

std::uint64_t Device::slot_offset(const fbs::ChunkPlace& p) const {
  return kMetaOffset + kMetaBytes + p.column() * column_bytes_ + std::uint64_t{p.slot()} * rows_[p.column()].slot_bytes;
}

Status Device::check_place(const fbs::ChunkPlace& p) const {
  if (p.column() >= columns_ || rows_[p.column()].owner == 0 || p.slot() >= slots(p.column()))
    return Status(Code::stale, "the slot is in no claimed column");
  return Status();
}

io::Task<Result<coding::ChunkHeader>> Device::read_header(std::uint64_t offset, std::uint32_t bytes, Buffer* area) {
  Buffer b = Buffer::allocate(bytes);
  if (Status s = co_await file_->read(offset, b.mutable_bytes()); !s.ok()) co_return fail(s);
  if (area) *area = b;
  co_return coding::parse_chunk_header(b.bytes());
}

io::Task<Result<std::vector<Device::Slot>*>> Device::slot_table(std::uint32_t column) {
  if (failed()) co_return failure_;
  if (auto it = slots_.find(column); it != slots_.end()) co_return &it->second;
  ColumnRow row = rows_[column];
  Generation first = first_slot_generation(row.generation);
  std::vector<Slot> table(slots(column));
  for (std::uint32_t s = 0; s < table.size(); ++s) {
    table[s].generation = first;
    fbs::ChunkPlace place(sled_, column, s, index_, 0, 0);
    std::uint64_t offset = slot_offset(place);
    Buffer head = Buffer::allocate(kBlockBytes);
    if (Status st = co_await file_->read(offset, head.mutable_bytes()); !st.ok()) co_return fail(st);
    coding::ChunkHeaderHead h;
    std::memcpy(&h, head.data(), sizeof h);
    if (h.magic == coding::kChunkMagic && h.generation < first) continue;  // of an earlier owner of the column
    bool sane = h.magic == coding::kChunkMagic && h.header_bytes >= kBlockBytes && h.header_bytes <= row.slot_bytes && h.header_bytes % kBlockBytes == 0;
    auto header = sane ? co_await read_header(offset, h.header_bytes) : coding::parse_chunk_header(head.bytes());
    if (header.ok()) {
      table[s].generation = header->fields().generation;
      table[s].state = header->fields().written ? SlotState::written : SlotState::free;
      table[s].stripe = header->stripe();
    } else if (header.code() == Code::io_error) {
      co_return header.status();
    } else if (header.code() != Code::not_found) {
      table[s].state = SlotState::unreadable;  // a torn write: never written to again in this claim
    }
  }
  if (auto it = slots_.find(column); it != slots_.end()) co_return &it->second;  // somebody else read it meanwhile
  co_return &(slots_[column] = std::move(table));
}

io::Task<Status> Device::write_chunk(const fbs::ChunkPlace& place, const coding::ChunkHeader& header, Bytes header_area, Bytes chunk) {
  if (failed()) co_return failure_;
  if (Status s = check_place(place); !s.ok()) co_return s;
  const ColumnRow row = rows_[place.column()];
  if (row.owner != header.stripe().vp) co_return Status(Code::stale, "the column belongs to another volume partition");
  if (header_area.size() + chunk.size() > row.slot_bytes) co_return Status(Code::invalid, "chunk and header do not fit the slot");
  auto table = co_await slot_table(place.column());
  if (!table.ok()) co_return table.status();
  Slot& slot = (**table)[place.slot()];
  if (slot.state == SlotState::written && slot.stripe == header.stripe() && slot.generation == place.generation()) {
    // The very same write again (its first answer was lost) is what it was; anything else is not.
    Buffer stored;
    auto there = co_await read_header(slot_offset(place), header.header_bytes(), &stored);
    bool same = there.ok() && std::memcmp(stored.data(), header_area.data(), header_area.size()) == 0;
    co_return same ? Status() : Status(Code::stale, "the slot holds another chunk");
  }
  if (slot.state != SlotState::free || slot.generation != place.generation())
    co_return Status(Code::stale, "slot generation is " + std::to_string(slot.generation) + ", not free in " + std::to_string(place.generation()));
  bool& busy = writing_[{place.column(), place.slot()}];
  if (busy) co_return Status(Code::stale, "the slot is being written");
  busy = true;
  Bytes parts[2] = {header_area, chunk};
  Status s = co_await file_->write(slot_offset(place), parts, io::Durability::durable);
  writing_.erase({place.column(), place.slot()});
  if (!s.ok()) co_return fail(s);
  auto again = slots_.find(place.column());
  if (again == slots_.end() || rows_[place.column()].generation != row.generation) co_return Status(Code::stale, "the column was released meanwhile");
  again->second[place.slot()] = {SlotState::written, place.generation(), header.stripe()};
  ++counters_.chunks_written;
  counters_.bytes_written += chunk.size();
  co_return Status();
}

io::Task<Result<Device::ReadResult>> Device::read_chunk(const fbs::ChunkPlace& place, StripeId stripe, std::uint32_t chunk,
                                                        std::uint32_t first, std::uint32_t blocks) {
  if (failed()) co_return failure_;
  if (Status s = check_place(place); !s.ok()) co_return s;
  std::uint64_t offset = slot_offset(place);
  std::uint32_t slot_bytes = rows_[place.column()].slot_bytes;
  Buffer head = Buffer::allocate(kBlockBytes);
  if (Status s = co_await file_->read(offset, head.mutable_bytes()); !s.ok()) co_return fail(s);
  coding::ChunkHeaderHead h;
  std::memcpy(&h, head.data(), sizeof h);
  ReadResult out;
  if (h.magic != coding::kChunkMagic || h.header_bytes < kBlockBytes || h.header_bytes > slot_bytes || h.header_bytes % kBlockBytes != 0)
    co_return Status(Code::corrupt, spec_.path + ": the slot's header is damaged");
  auto header = coding::parse_chunk_header(head.bytes());
  out.header_area = head;
  if (h.header_bytes > kBlockBytes) header = co_await read_header(offset, h.header_bytes, &out.header_area);
  if (!header.ok()) co_return header.status().with(spec_.path);
  out.header = std::move(*header);
  const coding::ChunkHeaderFields& f = out.header.fields();
  if (!f.written || f.stripe != stripe || f.generation != place.generation() || f.chunk_index != chunk)
    co_return Status(Code::stale, "the slot holds stripe " + to_string(f.stripe) + " generation " + std::to_string(f.generation));
  if (first > out.header.blocks_per_chunk() || blocks > out.header.blocks_per_chunk() - first)
    co_return Status(Code::invalid, "outside the chunk");
  if (blocks != 0) {
    out.blocks = Buffer::allocate(std::size_t{blocks} * kBlockBytes);
    Status s = co_await file_->read(offset + out.header.header_bytes() + std::uint64_t{first} * kBlockBytes, out.blocks.mutable_bytes());
    if (!s.ok()) co_return fail(s);
    for (std::uint32_t i = 0; i < blocks; ++i)
      if (crc32c(out.blocks.bytes().subspan(std::size_t{i} * kBlockBytes, kBlockBytes)) != out.header.block_crc(chunk, first + i))
        co_return Status(Code::corrupt, spec_.path + ": block " + std::to_string(first + i) + " of a chunk does not match its CRC");
  }
  ++counters_.chunks_read;
  counters_.bytes_read += out.blocks.size();
  co_return out;
}

io::Task<Status> Device::free_slot(const fbs::ChunkPlace& place, StripeId stripe) {
  if (failed()) co_return failure_;
  if (Status s = check_place(place); !s.ok()) co_return s;
  auto table = co_await slot_table(place.column());
  if (!table.ok()) co_return table.status();
  Slot& slot = (**table)[place.slot()];
  if (slot.state != SlotState::written || slot.stripe != stripe || slot.generation != place.generation())
    co_return Status(Code::stale, "the slot holds something else");
  Generation next = slot.generation + (broken(Switch::free_without_generation) ? 0 : 1);
  Buffer b = coding::encode_free_header(unit_, next);
  Bytes part = b.bytes();
  slot.state = SlotState::unreadable;  // nobody uses it until the mark is durable
  if (Status s = co_await file_->write(slot_offset(place), std::span(&part, 1), io::Durability::durable); !s.ok()) co_return fail(s);
  auto again = slots_.find(place.column());
  if (again != slots_.end()) again->second[place.slot()] = {SlotState::free, next, {}};
  co_return Status();
}

}  // namespace luge::sled
