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

// The number behind the prefix of a metadata key, or nothing.
std::optional<std::uint64_t> number_after(std::string_view key, std::string_view prefix) {
  key.remove_prefix(prefix.size());
  std::uint64_t n = 0;
  auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), n);
  if (error != std::errc() || end != key.data() + key.size()) return std::nullopt;
  return n;
}

}  // namespace

Device::Device(io::World& world, DeviceSpec spec, std::uint16_t index, DeviceOptions options)
    : world_(world), spec_(std::move(spec)), index_(index), unit_(options.unit), sled_(options.sled), column_bytes_(options.column_bytes),
      io_timeout_(options.io_timeout), fencing_(world), read_memory_(world, options.memory), write_memory_(world, options.memory), known_(options.known_bytes),
      changed_(world) {}

std::string_view Device::state_name() const {
  switch (state_) {
    case State::ok: return "ok";
    case State::full: return "full";
    case State::in_use: return "in_use";
    case State::closed: return "closed";
    default: return "failed";
  }
}

Status Device::health() const {
  if (usable()) return Status();
  return Status(Code::io_error, failure_.ok() ? spec_.path + ": the device is not open" : failure_.text());
}

Status Device::fail(const Status& status) {
  ++counters_.errors;
  if (state_ != State::failed) {
    state_ = State::failed;
    failure_ = Status(Code::io_error, status.text().starts_with(spec_.path) ? status.text() : spec_.path + ": " + status.text());
    logging::error("device {} has failed and is left out from now on: {}", spec_.path, status.to_string());
  }
  return failure_;
}

io::Task<Status> Device::open(Expected expected) {
  Status s = co_await recognise(expected);
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

std::string Device::place_name() const { return "device " + std::to_string(index_) + " of sled " + std::to_string(sled_); }

namespace {

std::string how_to_replace(std::uint16_t index) {
  return "; if it is lost for good, give it up with --replace-device " + std::to_string(index) + " and a blank device in its place";
}

}  // namespace

// What stands at the path is the device that the sled knows, or becomes a device if the sled knows none. A known device
// that is not there is never made anew unasked: what it knew, and what was on it, would be gone without a word.
io::Task<Status> Device::recognise(const Expected& expected) {
  const auto& known = expected.known;
  bool may_format = !known || expected.replacement;
  Status s = co_await open_file(may_format);
  if (s.code() == Code::not_found && !may_format)
    co_return Status(s.code(), s.text() + ": " + place_name() + ", formatted as " + to_string_id(*known) + ", was here; put it back" + how_to_replace(index_));
  if (!s.ok()) co_return s;
  bool found = false;
  s = co_await find_superblock(expected, found);
  if (!s.ok() || found) co_return s;
  if (!may_format)
    co_return Status(Code::invalid, "the device has no superblock, but " + place_name() + " was formatted as " + to_string_id(*known) +
                                        ": it has been wiped, or is another one; put the old one back" + how_to_replace(index_));
  if (known) logging::warn("{}: takes the place of {}, which was formatted as {}, by the operator's word", spec_.path, place_name(), to_string_id(*known));
  co_return co_await format(expected.replacement.value_or(world_.random() | 1));
}

io::Task<Status> Device::open_file(bool create) {
  io::OpenOptions options{.create = create && spec_.create_bytes != 0, .size = spec_.create_bytes, .lock = true};
  auto file = co_await io::WatchedFile::open(world_, spec_.path, options, io_timeout_);
  if (!file.ok()) co_return file.status();
  file_ = std::move(*file);
  std::uint64_t least = kMetaOffset + meta_mib_for(1) * kMiB + column_bytes_;
  if (file_->size() < least)
    co_return Status(Code::invalid, std::to_string(file_->size()) + " bytes are too small for a device with columns of " +
                                        std::to_string(column_bytes_) + " bytes; it needs at least " + std::to_string(least));
  co_return Status();
}

/// One copy of the superblock as it stands on the medium.
struct Device::Copy {
  enum class Kind { none, good, damaged, other_version };
  Kind kind = Kind::none;
  Superblock content;
};

io::Task<Result<Device::Copy>> Device::read_copy(std::uint64_t at) {
  Buffer b = Buffer::allocate(kBlockBytes);
  if (Status s = co_await file_->read(at, b); !s.ok()) co_return s;
  Copy c;
  std::memcpy(&c.content, b.data(), sizeof c.content);
  if (c.content.magic != kSuperMagic) c.kind = Copy::Kind::none;
  else if (c.content.version != kSuperVersion) c.kind = Copy::Kind::other_version;
  else c.kind = super_crc(c.content) == c.content.crc ? Copy::Kind::good : Copy::Kind::damaged;
  co_return c;
}

// Either copy will do: one that was cut off while it was written, or has gone bad, is passed over.
io::Task<Status> Device::find_superblock(const Expected& expected, bool& found) {
  Copy copies[2];
  const Copy* good = nullptr;
  for (int i = 0; i < 2; ++i) {
    auto c = co_await read_copy(i == 0 ? 0 : kSecondSuperblock);
    if (!c.ok()) co_return c.status();
    copies[i] = *c;
    if (!good && copies[i].kind == Copy::Kind::good) good = &copies[i];
  }
  auto any = [&](Copy::Kind k) { return copies[0].kind == k || copies[1].kind == k; };
  if (good) {
    found = true;
    bool both = copies[0].kind == copies[1].kind;
    if (both && copies[0].content.crc != copies[1].content.crc) co_return Status(Code::corrupt, "its two superblocks contradict one another; the device is left as it is");
    if (Status s = adopt(good->content, expected); !s.ok()) co_return s;
    co_return co_await repair_copies(*good, copies);
  }
  if (any(Copy::Kind::other_version)) {
    const Copy& other = copies[copies[0].kind == Copy::Kind::other_version ? 0 : 1];
    co_return Status(Code::wrong_version, "device format " + std::to_string(other.content.version) + " is not known to this program, which knows format " +
                                              std::to_string(kSuperVersion));
  }
  if (any(Copy::Kind::damaged)) co_return Status(Code::corrupt, "the superblock is damaged; the device is left as it is");
  co_return Status();
}

// The next damage must find two copies again. A copy of another version is left alone: it is not known what it says.
io::Task<Status> Device::repair_copies(const Copy& good, const Copy copies[2]) {
  for (int i = 0; i < 2; ++i) {
    if (copies[i].kind == Copy::Kind::good) continue;
    bool unknown = copies[i].kind == Copy::Kind::other_version;
    logging::warn("{}: superblock {} of 2 {}", spec_.path, i + 1, unknown ? "is of an unknown version; left as it is" : "is damaged; written anew from the other");
    if (unknown) continue;
    if (Status s = co_await write_superblock(i == 0 ? 0 : kSecondSuperblock, good.content); !s.ok()) co_return s;
  }
  co_return Status();
}

io::Task<Status> Device::write_superblock(std::uint64_t at, const Superblock& s) {
  Buffer b = Buffer::zeros(kBlockBytes);
  std::memcpy(b.data(), &s, sizeof s);
  co_return co_await file_->write(at, b, io::Durability::durable);
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

Status Device::adopt(const Superblock& s, const Expected& expected) {
  if (s.unit != unit_)
    return Status(Code::wrong_unit, "the device belongs to storage unit " + std::to_string(s.unit) + ", this sled to " + std::to_string(unit_));
  if (s.sled != sled_ || s.device != index_)
    return Status(Code::invalid, "this is device " + std::to_string(s.device) + " of sled " + std::to_string(s.sled) + ", not " + place_name() +
                                     ": check the order of the devices");
  if (expected.known && s.id != *expected.known && s.id != expected.replacement)
    return Status(Code::invalid, "this device was formatted as " + to_string_id(s.id) + ", but " + place_name() + " is " + to_string_id(*expected.known) +
                                     ": one of an earlier life, or a copy; put the right one back" + how_to_replace(index_));
  if (s.id == 0) return Status(Code::corrupt, "the superblock has no id");
  if (Status g = check_geometry(s); !g.ok()) return g;
  id_ = s.id;
  column_bytes_ = s.column_bytes;
  meta_bytes_ = s.meta_mib * kMiB;
  columns_ = std::vector<Column>(s.columns);
  free_columns_ = s.columns;
  return Status();
}

io::Task<Result<bool>> Device::blank() {
  Buffer b = Buffer::allocate(kMiB);
  for (std::uint64_t at : {std::uint64_t{0}, (file_->size() - b.size()) / kBlockBytes * kBlockBytes}) {
    if (Status s = co_await file_->read(at, b); !s.ok()) co_return s;
    if (!all_zero(b.bytes())) co_return false;
  }
  co_return true;
}

// What stood in the middle of a device that was wiped at its ends may be an old metadata store: it must not be found.
io::Task<Status> Device::clear_metadata() {
  Buffer b = Buffer::allocate(kMiB), zeros = Buffer::zeros(kMiB);
  for (std::uint64_t at = 0; at < meta_bytes_; at += b.size()) {
    if (Status s = co_await file_->read(kMetaOffset + at, b); !s.ok()) co_return s;
    if (all_zero(b.bytes())) continue;
    if (Status s = co_await file_->write(kMetaOffset + at, zeros, io::Durability::durable); !s.ok()) co_return s;
  }
  co_return Status();
}

// The superblock comes last: a device whose formatting was cut off is blank still.
io::Task<Status> Device::format(DeviceId id) {
  auto empty = co_await blank();
  if (!empty.ok()) co_return empty.status();
  if (!*empty)
    co_return Status(Code::invalid, "the device is not blank and not ours; if it may be overwritten, clear its first and last MiB");
  std::uint64_t most = (file_->size() - kMetaOffset) / column_bytes_;
  Superblock s;
  s.unit = unit_;
  s.sled = sled_;
  s.device = index_;
  s.id = id;
  s.column_bytes = column_bytes_;
  s.meta_mib = meta_mib_for(std::min<std::uint64_t>(most, kMaxColumns));
  s.columns = static_cast<std::uint32_t>(std::min<std::uint64_t>((file_->size() - kMetaOffset - s.meta_mib * kMiB) / column_bytes_, kMaxColumns));
  s.crc = super_crc(s);
  if (most > kMaxColumns)
    logging::warn("{}: only {} columns are used; format it with larger column-bytes to use all of it", spec_.path, s.columns);
  if (Status a = adopt(s, {}); !a.ok()) co_return a;
  if (Status c = co_await clear_metadata(); !c.ok()) co_return c;
  for (std::uint64_t at : {kSecondSuperblock, std::uint64_t{0}})
    if (Status w = co_await write_superblock(at, s); !w.ok()) co_return w;
  formatted_ = true;
  logging::info("{}: formatted as {}, {} columns of {} bytes", spec_.path, to_string_id(s.id), s.columns, s.column_bytes);
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
    set_row(columns_[*n], row);
  }
  if (!read_fences(*meta_, fences_)) co_return Status(Code::corrupt, "the fence table does not parse");
  // There from the beginning, so that there is room for it when there is none for anything else.
  auto missed = meta_->get(kMissedFences);
  missed_fences_ = missed == "1";
  if (missed) co_return Status();
  co_return co_await meta_->put(std::string(kMissedFences), "0");
}

}  // namespace luge::sled
