// A device's fences and its column table: who owns which column, durably before anybody acts upon it.
#include <algorithm>

#include "base/logging.hpp"
#include "sled/device.hpp"

namespace luge::sled {
namespace {

// Headers of a column are read or cleared by this many at once.
constexpr std::uint32_t kSlotsAtOnce = 8;

template <class T>
std::string value_of(const T& t) { return std::string(reinterpret_cast<const char*>(&t), sizeof t); }

std::string column_key(std::uint32_t n) { return "column/" + std::to_string(n); }

}  // namespace

// A full metadata region refuses this change, and others that need room; anything else that goes wrong with it fails the
// device.
Status Device::metadata_error(const Status& status) {
  if (status.code() != Code::no_space) return fail(status);
  Status s = status.with(spec_.path);
  if (state_ != State::ok) return s;
  state_ = State::full;
  failure_ = s;
  logging::error("{}: it keeps no more fences and should get no new columns; what is on it stays usable", s.text());
  return s;
}

io::Task<Status> Device::put(std::vector<io::MetaStore::Change> changes) {
  Status s = co_await meta_->put(std::move(changes));
  co_return s.ok() ? s : metadata_error(s);
}

// One at a time: of two epochs on their way to the medium the lower might land last.
io::Task<Status> Device::raise(Fences fences) {
  io::Mutex::Guard guard = co_await fencing_.lock();
  if (Status s = health(); !s.ok()) co_return s;
  Status s = co_await write_fences(*meta_, fences_, std::move(fences));
  if (s.ok()) co_return s;
  s = metadata_error(s);
  if (s.code() != Code::no_space || std::exchange(missed_fences_, true)) co_return s;
  std::vector<io::MetaStore::Change> change;
  change.emplace_back(kMissedFences, "1");
  Status marked = co_await put(std::move(change));
  co_return marked.ok() ? s : marked;
}

void Device::set_row(Column& column, const ColumnRow& row) {
  free_columns_ += column.row.owner != 0;
  free_columns_ -= row.owner != 0;
  column.row = row;
}

std::vector<std::uint32_t> Device::owned_by(VpId vp) const {
  std::vector<std::uint32_t> out;
  for (std::uint32_t n = 0; n < columns_.size(); ++n)
    if (columns_[n].row.owner == vp) out.push_back(n);
  return out;
}

std::uint32_t Device::free_column() const {
  std::uint32_t n = 0;
  while (n < columns_.size() && (columns_[n].row.owner != 0 || columns_[n].changing)) ++n;
  return n;
}

std::uint32_t Device::slots_in(std::uint32_t slot_bytes) const {
  return slot_bytes == 0 ? 0 : static_cast<std::uint32_t>(column_bytes_ / slot_bytes);
}

std::uint64_t Device::slot_offset(std::uint32_t column, std::uint32_t slot, std::uint32_t slot_bytes) const {
  return kMetaOffset + meta_bytes_ + column * column_bytes_ + std::uint64_t{slot} * slot_bytes;
}

// The first error, after all have ended.
io::Task<Status> Device::for_each_slot(std::uint32_t column, std::uint32_t slot_bytes,
                                       std::function<io::Task<Status>(std::uint32_t, std::uint64_t)> f) {
  struct Shared {
    std::uint32_t next = 0, end;
    Status status;
  } shared{0, slots_in(slot_bytes), {}};
  auto worker = [](Device& d, Shared& s, std::uint32_t column, std::uint32_t slot_bytes, auto& f) -> io::Task<void> {
    while (s.next < s.end && s.status.ok()) {
      std::uint32_t slot = s.next++;
      Status one = co_await f(slot, d.slot_offset(column, slot, slot_bytes));
      if (!one.ok()) s.status = one;
    }
  };
  io::TaskGroup group(world_);
  for (std::uint32_t i = 0; i < std::min(kSlotsAtOnce, shared.end); ++i)
    group.spawn("slots of a column", worker(*this, shared, column, slot_bytes, f));
  co_await group.join();
  co_return shared.status;
}

// Where slots will begin there may be the headers, or the data, of earlier owners with slots of another size.
io::Task<Status> Device::clear_headers(std::uint32_t column, std::uint32_t slot_bytes) {
  static const Buffer zeros = Buffer::zeros(kBlockBytes);
  auto clear = [this](std::uint32_t, std::uint64_t offset) -> io::Task<Status> {
    Buffer b = Buffer::allocate(kBlockBytes);
    // One that cannot be read is written: a disk then gives the sector another place.
    Status found = co_await read_at(offset, b);
    if (!usable()) co_return health();
    if (found.ok() && std::memcmp(b.data(), zeros.data(), b.size()) == 0) co_return Status();
    known_.forget(offset);
    Status s = co_await file_->write(offset, zeros, io::Durability::durable);
    known_.forget(offset);
    co_return s.ok() ? s : fail(s);
  };
  std::function<io::Task<Status>(std::uint32_t, std::uint64_t)> f = clear;  // keeps the closure while its tasks run
  Status result = co_await for_each_slot(column, slot_bytes, f);
  co_return result;
}

io::Task<Status> Device::claim(VpId vp, Epoch epoch, std::uint32_t column, std::uint32_t slot_bytes, Permit permit, NodeId role) {
  if (Status s = health(); !s.ok()) co_return s;
  if (column >= columns_.size()) co_return Status(Code::invalid, spec_.path + " has " + std::to_string(columns_.size()) + " columns");
  if (slot_bytes < 2 * kBlockBytes || slot_bytes % kBlockBytes != 0 || slot_bytes > column_bytes_)
    co_return Status(Code::invalid, "slots of " + std::to_string(slot_bytes) + " bytes do not fit a column of " + std::to_string(column_bytes_));
  if (slots_in(slot_bytes) > kMaxSlots)
    co_return Status(Code::invalid, "a column of " + std::to_string(column_bytes_) + " bytes has more than " + std::to_string(kMaxSlots) +
                                        " slots of " + std::to_string(slot_bytes) + ": use larger chunks, or format with smaller columns");
  Column& c = columns_[column];
  while (c.changing) co_await changed_.wait();
  if (Status s = health(); !s.ok()) co_return s;
  if (c.row.owner == vp && c.row.role != role) co_return Status(Code::exists, "the column is kept for " + std::string(c.row.role == 0 ? "data" : "checkpoints of node " + std::to_string(c.row.role)));
  if (c.row.owner == vp) co_return c.row.slot_bytes == slot_bytes ? Status() : Status(Code::exists, "claimed already, with another slot size");
  if (c.row.owner != 0) co_return Status(Code::exists, "the column belongs to another volume partition");
  if (Status s = permit(); !s.ok()) co_return s;
  c.changing = true;
  ColumnRow next{vp, epoch, c.row.generation + 1, slot_bytes, role};
  Status s = co_await clear_headers(column, slot_bytes);
  if (s.ok()) s = permit();
  if (s.ok()) {
    std::vector<io::MetaStore::Change> change;
    change.emplace_back(column_key(column), value_of(next));
    s = co_await put(std::move(change));
  }
  if (s.ok()) {
    set_row(c, next);
    Slot fresh;
    fresh.generation = first_slot_generation(next.generation);
    c.slots.assign(slots_in(slot_bytes), fresh);
    c.loaded = true;
  }
  c.changing = false;
  changed_.notify_all();
  co_return s;
}

// What is in progress in the column ends first; nothing new begins.
io::Task<Status> Device::release_column(std::uint32_t column) {
  Column& c = columns_[column];
  c.changing = true;
  while (c.users != 0) co_await changed_.wait();
  std::vector<io::MetaStore::Change> change;
  ColumnRow next{0, 0, c.row.generation, 0, 0};
  change.emplace_back(column_key(column), value_of(next));
  Status s = health();
  if (s.ok()) s = co_await put(std::move(change));
  if (s.ok()) {
    for (std::uint32_t i = 0; i < slots_in(c.row.slot_bytes); ++i) known_.forget(slot_offset(column, i, c.row.slot_bytes));
    set_row(c, next);
    c.slots = {};
    c.loaded = false;
  }
  c.changing = false;
  changed_.notify_all();
  co_return s;
}

io::Task<Status> Device::release(VpId vp, Permit permit) {
  if (Status s = health(); !s.ok()) co_return s;
  for (std::uint32_t n = 0; n < columns_.size(); ++n) {
    while (columns_[n].changing) co_await changed_.wait();
    if (columns_[n].row.owner != vp) continue;
    if (Status s = permit(); !s.ok()) co_return s;
    if (Status s = co_await release_column(n); !s.ok()) co_return s;
  }
  co_return Status();
}

}  // namespace luge::sled
