// A device's life: open, recognise or format, load the tables, fail.
#include "sled/device.hpp"

#include <algorithm>
#include <charconv>

#include "base/crc32c.hpp"
#include "base/logging.hpp"

namespace luge::sled {
namespace {

std::uint32_t super_crc(Superblock s) {
  s.crc = 0;
  return crc32c(Bytes(reinterpret_cast<const std::byte*>(&s), sizeof s));
}

bool all_zero(const Buffer& b) {
  return std::all_of(b.data(), b.data() + b.size(), [](std::byte x) { return x == std::byte{0}; });
}

// The number behind the prefix of a metadata key, or nothing.
std::optional<std::uint64_t> number_after(std::string_view key, std::string_view prefix) {
  key.remove_prefix(prefix.size());
  std::uint64_t n = 0;
  auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), n);
  if (error != std::errc() || end != key.data() + key.size()) return std::nullopt;
  return n;
}

}  // namespace

Device::Device(io::World& world, DeviceSpec spec, std::uint16_t index, std::uint64_t unit, NodeId sled, std::uint64_t column_bytes)
    : world_(world), spec_(std::move(spec)), index_(index), unit_(unit), sled_(sled), column_bytes_(column_bytes),
      fencing_(world), changed_(world) {}

std::string_view Device::state_name() const {
  switch (state_) {
    case State::ok: return "ok";
    case State::in_use: return "in_use";
    case State::closed: return "closed";
    default: return "failed";
  }
}

Status Device::health() const {
  if (state_ == State::ok) return Status();
  return Status(Code::io_error, failure_.ok() ? spec_.path + ": the device is not open" : failure_.text());
}

Status Device::fail(const Status& status) {
  ++counters_.errors;
  if (state_ != State::failed) {
    state_ = State::failed;
    failure_ = Status(Code::io_error, spec_.path + ": " + status.text());
    logging::error("device {} has failed and is left out from now on: {}", spec_.path, status.to_string());
  }
  return failure_;
}

io::Task<Status> Device::open() {
  Status s = co_await open_file();
  bool found = false;
  if (s.ok()) s = co_await find_superblock(found);
  if (s.ok() && !found) s = co_await format();
  if (s.ok()) s = co_await load_tables();
  if (s.ok()) {
    state_ = State::ok;
    co_return s;
  }
  if (!s.text().starts_with(spec_.path)) s = s.with(spec_.path);
  state_ = s.code() == Code::exists ? State::in_use : State::failed;
  failure_ = s;
  ++counters_.errors;
  co_return s;
}

io::Task<Status> Device::open_file() {
  io::OpenOptions options{.create = spec_.create_bytes != 0, .size = spec_.create_bytes, .lock = true};
  auto file = co_await world_.files().open(spec_.path, options);
  if (!file.ok()) co_return file.status();
  file_ = std::move(*file);
  std::uint64_t least = kMetaOffset + meta_mib_for(1) * kMiB + column_bytes_;
  if (file_->size() < least)
    co_return Status(Code::invalid, std::to_string(file_->size()) + " bytes are too small for a device with columns of " +
                                        std::to_string(column_bytes_) + " bytes; it needs at least " + std::to_string(least));
  co_return Status();
}

// Either copy will do: a copy that was cut off while it was written is passed over.
io::Task<Status> Device::find_superblock(bool& found) {
  Buffer b = Buffer::allocate(kBlockBytes);
  bool damaged = false;
  std::uint32_t other_version = 0;
  for (std::uint64_t at : {std::uint64_t{0}, kSecondSuperblock}) {
    if (Status s = co_await file_->read(at, b.mutable_bytes()); !s.ok()) co_return s;
    Superblock s;
    std::memcpy(&s, b.data(), sizeof s);
    if (s.magic != kSuperMagic) continue;
    if (s.version != kSuperVersion) other_version = s.version;
    else if (super_crc(s) != s.crc) damaged = true;
    else {
      found = true;
      co_return adopt(s);
    }
  }
  if (other_version != 0)
    co_return Status(Code::wrong_version, "device format " + std::to_string(other_version) + " is not known to this program, which knows format " +
                                              std::to_string(kSuperVersion));
  if (damaged) co_return Status(Code::corrupt, "the superblock is damaged; the device is left as it is");
  co_return Status();
}

// The checksum may be right and the bytes hostile: nothing is allocated or divided by before this.
Status Device::check_geometry(const Superblock& s) {
  std::uint64_t begin = kMetaOffset + std::uint64_t{s.meta_mib} * kMiB;
  if (s.column_bytes == 0 || s.column_bytes % kBlockBytes != 0 || s.columns == 0 || s.columns > kMaxColumns || s.meta_mib == 0 ||
      s.meta_mib > 1024 || begin > file_->size() || s.columns > (file_->size() - begin) / s.column_bytes)
    return Status(Code::invalid, "the superblock names " + std::to_string(s.columns) + " columns of " + std::to_string(s.column_bytes) +
                                     " bytes, which do not fit the device's " + std::to_string(file_->size()) +
                                     " bytes: has it been cut short or copied to a smaller one?");
  return Status();
}

Status Device::adopt(const Superblock& s) {
  if (s.unit != unit_)
    return Status(Code::wrong_unit, "the device belongs to storage unit " + std::to_string(s.unit) + ", this sled to " + std::to_string(unit_));
  if (s.sled != sled_ || s.device != index_)
    return Status(Code::invalid, "this is device " + std::to_string(s.device) + " of sled " + std::to_string(s.sled) + ", not device " +
                                     std::to_string(index_) + " of sled " + std::to_string(sled_) + ": check the order of the devices");
  if (Status g = check_geometry(s); !g.ok()) return g;
  column_bytes_ = s.column_bytes;
  meta_bytes_ = s.meta_mib * kMiB;
  columns_ = std::vector<Column>(s.columns);
  return Status();
}

io::Task<Result<bool>> Device::blank() {
  Buffer b = Buffer::allocate(kMiB);
  for (std::uint64_t at : {std::uint64_t{0}, (file_->size() - b.size()) / kBlockBytes * kBlockBytes}) {
    if (Status s = co_await file_->read(at, b.mutable_bytes()); !s.ok()) co_return s;
    if (!all_zero(b)) co_return false;
  }
  co_return true;
}

// What stood in the middle of a device that was wiped at its ends may be an old metadata store: it must not be found.
io::Task<Status> Device::clear_metadata() {
  Buffer b = Buffer::allocate(kMiB), zeros = Buffer::zeros(kMiB);
  Bytes part = zeros.bytes();
  for (std::uint64_t at = 0; at < meta_bytes_; at += b.size()) {
    if (Status s = co_await file_->read(kMetaOffset + at, b.mutable_bytes()); !s.ok()) co_return s;
    if (all_zero(b)) continue;
    if (Status s = co_await file_->write(kMetaOffset + at, std::span(&part, 1), io::Durability::durable); !s.ok()) co_return s;
  }
  co_return Status();
}

// The superblock comes last: a device whose formatting was cut off is blank still.
io::Task<Status> Device::format() {
  auto empty = co_await blank();
  if (!empty.ok()) co_return empty.status();
  if (!*empty)
    co_return Status(Code::invalid, "the device is not blank and not ours; if it may be overwritten, clear its first and last MiB");
  std::uint64_t most = (file_->size() - kMetaOffset) / column_bytes_;
  Superblock s;
  s.unit = unit_;
  s.sled = sled_;
  s.device = index_;
  s.column_bytes = column_bytes_;
  s.meta_mib = meta_mib_for(std::min<std::uint64_t>(most, kMaxColumns));
  s.columns = static_cast<std::uint32_t>(std::min<std::uint64_t>((file_->size() - kMetaOffset - s.meta_mib * kMiB) / column_bytes_, kMaxColumns));
  s.crc = super_crc(s);
  if (most > kMaxColumns)
    logging::warn("{}: only {} columns are used; format it with larger column-bytes to use all of it", spec_.path, s.columns);
  if (Status a = adopt(s); !a.ok()) co_return a;
  if (Status c = co_await clear_metadata(); !c.ok()) co_return c;
  Buffer b = Buffer::zeros(kBlockBytes);
  std::memcpy(b.data(), &s, sizeof s);
  Bytes part = b.bytes();
  for (std::uint64_t at : {kSecondSuperblock, std::uint64_t{0}})
    if (Status w = co_await file_->write(at, std::span(&part, 1), io::Durability::durable); !w.ok()) co_return w;
  logging::info("{}: formatted, {} columns of {} bytes", spec_.path, s.columns, s.column_bytes);
  co_return Status();
}

io::Task<Status> Device::load_tables() {
  auto meta = co_await io::MetaStore::open(world_, *file_, kMetaOffset, meta_bytes_);
  if (!meta.ok()) co_return meta.status();
  meta_ = std::move(*meta);
  for (auto [key, value] : meta_->list("column/")) {
    auto n = number_after(key, "column/");
    ColumnRow row;
    if (n && *n < columns_.size() && value.size() == sizeof row) std::memcpy(&row, value.data(), sizeof row);
    else co_return Status(Code::corrupt, "the column table does not parse");
    bool sized = row.slot_bytes != 0 && row.slot_bytes % kBlockBytes == 0 && row.slot_bytes <= column_bytes_;
    if (row.owner != 0 && !sized) co_return Status(Code::corrupt, "the column table names a slot size that cannot be");
    columns_[*n].row = row;
  }
  for (auto [key, value] : meta_->list("fence/")) {
    auto vp = number_after(key, "fence/");
    if (!vp || value.size() != sizeof(Epoch)) co_return Status(Code::corrupt, "the fence table does not parse");
    std::memcpy(&fences_[*vp], value.data(), sizeof(Epoch));
  }
  co_return Status();
}

}  // namespace luge::sled
