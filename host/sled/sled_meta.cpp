#include "sled/sled_meta.hpp"

#include <charconv>
#include <cstdio>
#include <cstring>

namespace luge::sled {
namespace {

// Half of it holds about 120 000 fences, 34 bytes each. Read whole at start.
constexpr std::uint64_t kMetaBytes = 8 << 20;
constexpr std::size_t kFencesAtOnce = 1024;

template <class T>
std::string value_of(T t) { return std::string(reinterpret_cast<const char*>(&t), sizeof t); }

template <class T>
std::optional<T> number_in(std::string_view value) {
  T t;
  if (value.size() != sizeof t) return std::nullopt;
  std::memcpy(&t, value.data(), sizeof t);
  return t;
}

template <class T>
std::optional<T> number_after(std::string_view key, std::string_view prefix) {
  key.remove_prefix(prefix.size());
  T n = 0;
  auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), n);
  if (error != std::errc() || end != key.data() + key.size()) return std::nullopt;
  return n;
}

}  // namespace

std::string to_string_id(DeviceId id) {
  char text[20];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(id));
  return text;
}

bool read_fences(const io::MetaStore& store, Fences& fences) {
  for (auto [key, value] : store.list("fence/")) {
    auto vp = number_after<VpId>(key, "fence/");
    auto epoch = number_in<Epoch>(value);
    if (!vp || !epoch) return false;
    fences[*vp] = *epoch;
  }
  return true;
}

io::Task<Status> write_fences(io::MetaStore& store, Fences& held, Fences wanted) {
  std::vector<io::MetaStore::Change> changes;
  Fences writing;
  for (auto it = wanted.begin(); it != wanted.end();) {
    auto [vp, epoch] = *it++;
    if (auto h = held.find(vp); h == held.end() || h->second < epoch) {
      changes.emplace_back("fence/" + std::to_string(vp), value_of(epoch));
      writing[vp] = epoch;
    }
    if (changes.empty() || (it != wanted.end() && changes.size() < kFencesAtOnce)) continue;
    Status s = co_await store.put(std::exchange(changes, {}));
    if (!s.ok()) co_return s;
    for (auto [v, e] : std::exchange(writing, {})) held[v] = e;
  }
  co_return Status();
}

io::Task<Result<std::unique_ptr<SledMeta>>> SledMeta::open(io::World& world, io::Duration io_timeout) {
  io::OpenOptions options{.create = true, .size = kMetaBytes, .prewrite = true, .lock = true};
  auto file = co_await io::WatchedFile::open(world, "meta", options, io_timeout);
  if (!file.ok()) co_return file.status().with("the sled's data directory");
  std::unique_ptr<SledMeta> meta(new SledMeta(world, std::move(*file)));
  auto store = co_await io::MetaStore::open(world, *meta->file_, 0, kMetaBytes);
  Status s = store.status();
  if (s.ok()) {
    meta->store_ = std::move(*store);
    s = meta->load();
  }
  if (s.code() == Code::corrupt)
    co_return s.with("the file `meta` of the sled's data directory is damaged; moved away, it is made anew from the devices, "
                     "all of which must be usable then");
  if (!s.ok()) co_return s.with("the file `meta` of the sled's data directory");
  co_return std::move(meta);
}

Status SledMeta::load() {
  for (auto [key, value] : store_->list("device/")) {
    auto index = number_after<std::uint16_t>(key, "device/");
    auto id = number_in<DeviceId>(value);
    if (!index || !id || *id == 0) return Status(Code::corrupt, "the list of devices does not parse");
    devices_[*index] = *id;
  }
  return read_fences(*store_, fences_) ? Status() : Status(Code::corrupt, "the fences do not parse");
}

io::Task<Status> SledMeta::set_complete() {
  if (complete()) co_return Status();
  co_return co_await store_->put("complete", "1");
}

std::optional<DeviceId> SledMeta::device(std::uint16_t index) const {
  auto it = devices_.find(index);
  return it == devices_.end() ? std::nullopt : std::optional(it->second);
}

io::Task<Status> SledMeta::remember(std::uint16_t index, DeviceId id) {
  if (device(index) == id) co_return Status();
  std::vector<io::MetaStore::Change> changes;
  changes.emplace_back("device/" + std::to_string(index), value_of(id));
  changes.emplace_back("replacement/" + std::to_string(index), std::nullopt);
  Status s = co_await store_->put(std::move(changes));
  if (s.ok()) devices_[index] = id;
  co_return s;
}

io::Task<Result<DeviceId>> SledMeta::replacement(std::uint16_t index) {
  std::string key = "replacement/" + std::to_string(index);
  if (auto row = store_->get(key))
    if (auto id = number_in<DeviceId>(*row); id && *id != 0) co_return *id;
  DeviceId id = world_.random() | 1;
  if (Status s = co_await store_->put(key, value_of(id)); !s.ok()) co_return s;
  co_return id;
}

io::Task<Result<std::array<std::uint8_t, 32>>> SledMeta::secret() {
  using Secret = std::array<std::uint8_t, 32>;
  if (auto row = store_->get("secret"))
    if (auto secret = number_in<Secret>(*row)) co_return *secret;
  Secret drawn = world_.secret();
  if (Status s = co_await store_->put("secret", value_of(drawn)); !s.ok()) co_return s;
  co_return drawn;
}

std::optional<std::array<std::uint8_t, 32>> SledMeta::unit_key() const {
  auto row = store_->get("unit-key");
  return row ? number_in<std::array<std::uint8_t, 32>>(*row) : std::nullopt;
}

io::Task<Status> SledMeta::remember_unit_key(std::array<std::uint8_t, 32> key) { co_return co_await store_->put("unit-key", value_of(key)); }

io::Task<Status> SledMeta::raise(Fences fences) {
  io::Mutex::Guard guard = co_await raising_.lock();
  co_return co_await write_fences(*store_, fences_, std::move(fences));
}

}  // namespace luge::sled
