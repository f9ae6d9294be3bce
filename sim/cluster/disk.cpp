#include "sim/cluster/disk.hpp"

#include <algorithm>

#include "base/check.hpp"

namespace luge::sim {
namespace {

// In memory that is made once.
std::vector<std::byte> joined(std::span<const Bytes> parts) {
  std::size_t bytes = 0;
  for (Bytes p : parts) bytes += p.size();
  std::vector<std::byte> all;
  all.reserve(bytes);
  for (Bytes p : parts) all.insert(all.end(), p.begin(), p.end());
  return all;
}

using namespace std::chrono_literals;

io::Duration latency(Random& r, const DiskFaults& f, io::Duration low, io::Duration high) {
  std::uint64_t ns = r.spread(static_cast<std::uint64_t>(low.count()), static_cast<std::uint64_t>(high.count()));
  if (r.chance(f.stall)) ns += r.between(5'000'000, 50'000'000);
  return io::Duration(static_cast<std::int64_t>(static_cast<double>(ns) * f.slow));
}

// How much of a write that was cut off reached the medium.
enum class Torn { none, all, prefix, subset };
Torn torn(Random& r) { return static_cast<Torn>(r.below(4)); }

struct KeepAll {
  bool operator()(std::size_t) const { return true; }
};

}  // namespace

FileState::Block& FileState::block(std::uint64_t number) {
  if (number >= blocks_.size()) blocks_.resize(number + 1);
  auto& b = blocks_[number];
  if (!b) b = std::make_unique<Block>();
  return *b;
}

void FileState::read(std::uint64_t offset, MutableBytes into) const {
  for (std::size_t done = 0; done < into.size();) {
    std::uint64_t at = offset + done, in_block = at % 4096;
    std::size_t n = std::min<std::size_t>(4096 - in_block, into.size() - done);
    if (const Block* b = find(at / 4096)) std::memcpy(into.data() + done, b->data() + in_block, n);
    else std::memset(into.data() + done, 0, n);
    done += n;
  }
}

void FileState::read_durable(std::uint64_t offset, MutableBytes into) const {
  read(offset, into);
  for (auto it = durable.lower_bound(offset / 4096); it != durable.end() && it->first * 4096 < offset + into.size(); ++it) {
    std::uint64_t begin = std::max(offset, it->first * 4096), end = std::min(offset + into.size(), (it->first + 1) * 4096);
    std::memcpy(into.data() + (begin - offset), it->second->data() + begin % 4096, end - begin);
  }
}

template <class Keep>
void FileState::write(std::uint64_t offset, Bytes bytes, bool durably, Keep keep) {
  for (std::size_t done = 0, n = 0; done < bytes.size(); done += n) {
    std::uint64_t at = offset + done, number = at / 4096, in_block = at % 4096;
    n = std::min<std::size_t>(4096 - in_block, bytes.size() - done);
    auto old = durable.empty() ? durable.end() : durable.find(number);
    if (find(number) == nullptr && old == durable.end() && all_zero(bytes.subspan(done, n))) continue;
    Block& b = block(number);
    if (!durably && old == durable.end()) old = durable.emplace(number, std::make_unique<Block>(b)).first;
    const std::size_t step = std::is_same_v<Keep, KeepAll> ? n : kSectorBytes;
    for (std::size_t s = 0; s < n; s += step) {
      if (!keep(done + s)) continue;
      std::memcpy(b.data() + in_block + s, bytes.data() + done + s, step);
      if (durably && old != durable.end()) std::memcpy(old->second->data() + in_block + s, bytes.data() + done + s, step);
    }
  }
}

void FileState::write(std::uint64_t offset, Bytes bytes, bool durably) { write(offset, bytes, durably, KeepAll()); }

void Disk::make_file(const std::string& path, std::uint64_t size) { files_[path] = std::make_shared<FileState>(size); }

std::vector<std::string> Disk::paths() const {
  std::vector<std::string> r;
  for (auto& [path, state] : files_) r.push_back(path);
  return r;
}

FileState* Disk::file(const std::string& path) {
  auto it = files_.find(path);
  return it == files_.end() ? nullptr : it->second.get();
}

std::shared_ptr<FileState> Disk::take_out(const std::string& path) {
  auto it = files_.find(path);
  if (it == files_.end()) return nullptr;
  std::shared_ptr<FileState> file = std::move(it->second);
  LUGE_CHECK(file->locked_by == nullptr);
  files_.erase(it);
  return file;
}

void Disk::rot(const std::string& path, std::uint64_t offset) {
  FileState* f = file(path);
  LUGE_CHECK(f != nullptr && offset < f->size);
  std::array<std::byte, kSectorBytes> sector;
  std::uint64_t start = offset / kSectorBytes * kSectorBytes;
  f->read(start, sector);
  sector[offset % kSectorBytes] ^= std::byte(1u << random_.below(8));
  f->write(start, sector, true);
}

void Disk::overwrite(const std::string& path, std::uint64_t offset, Bytes bytes) {
  FileState* f = file(path);
  LUGE_CHECK(f != nullptr && offset + bytes.size() <= f->size);
  f->write(offset, bytes, true);
}

std::uint64_t Disk::bytes_used() const {
  std::uint64_t sum = 0;
  for (auto& [path, f] : files_)
    if (!path.starts_with('/')) sum += f->size;
  return sum;
}

bool Disk::writing() const {
  return std::any_of(files_.begin(), files_.end(), [](auto& f) { return !f.second->in_flight.empty(); });
}

void Disk::crash(bool power) {
  for (auto& [path, f] : files_) {
    f->locked_by = nullptr;
    for (auto& w : f->in_flight) {
      Torn t = torn(random_);
      std::size_t prefix = random_.below(w.bytes.size() / kSectorBytes + 1) * kSectorBytes;
      f->write(w.offset, w.bytes, w.durable, [&](std::size_t at) {
        switch (t) {
          case Torn::none: return false;
          case Torn::all: return true;
          case Torn::prefix: return at < prefix;
          default: return random_.chance(0.5);
        }
      });
    }
    f->in_flight.clear();
    if (!power) continue;
    Torn t = torn(random_);
    auto old = std::move(f->durable);
    f->durable.clear();
    for (auto& [number, content] : old) {
      if (t == Torn::all) break;
      f->write(number * 4096, *content, true, [&](std::size_t) { return t == Torn::none || random_.chance(0.5); });
    }
  }
}

// One open file. Operations finish in the coroutine that asked: a daemon that has been stopped meanwhile never sees
// its memory written.
class SimFile final : public io::BlockFile {
 public:
  SimFile(io::World& world, Disk& disk, std::shared_ptr<FileState> state, std::string path, bool locked)
      : world_(world), disk_(disk), state_(std::move(state)), path_(std::move(path)) {
    if (locked) state_->locked_by = this;
  }
  ~SimFile() override {
    if (state_->locked_by == this) state_->locked_by = nullptr;
  }
  std::uint64_t size() const override { return state_->size; }

  io::Task<Status> read(std::uint64_t offset, MutableBytes into) override {
    check(offset, into.size());
    co_await world_.sleep(latency(disk_.random_, disk_.faults, 20us, 160us));
    disk_.errors_ += state_->hung;
    while (state_->hung) co_await world_.sleep(10ms);
    if (offset + into.size() > state_->size) co_return outside(offset, into.size());
    if (disk_.random_.chance(disk_.faults_for(path_).read_error)) co_return error("read", offset);
    state_->read(offset, into);
    co_return Status();
  }

  io::Task<Status> write(std::uint64_t offset, std::span<const Bytes> parts, io::Durability d) override {
    if (world_.stopped()) throw io::Stopped{};
    Random& r = disk_.random_;
    FileState::InFlight w{offset, joined(parts), d == io::Durability::durable};
    std::size_t bytes = w.bytes.size();
    check(offset, bytes);
    if (offset + bytes > state_->size) co_return outside(offset, bytes);
    if (bytes == 0) co_return Status();
    auto it = state_->in_flight.insert(state_->in_flight.end(), std::move(w));
    // If Stopped is thrown here, the write stays in flight and the crash decides what became of it.
    if (d == io::Durability::durable)
      co_await world_.sleep(latency(r, disk_.faults, 50us, 400us));
    else
      co_await world_.sleep(latency(r, disk_.faults, 5us, 40us));
    disk_.errors_ += state_->hung;
    while (state_->hung) co_await world_.sleep(10ms);
    w = std::move(*it);
    state_->in_flight.erase(it);
    if (r.chance(disk_.faults_for(path_).write_error)) {
      Torn t = torn(r);
      state_->write(w.offset, w.bytes, w.durable, [&](std::size_t) { return t == Torn::all || (t != Torn::none && r.chance(0.5)); });
      co_return error("write", offset);
    }
    if (lies(disk_.faults_for(path_).lost_write)) co_return Status();
    if (lies(disk_.faults_for(path_).misdirected_write)) w.offset = misdirect(w.offset, bytes);
    if (lies(disk_.faults_for(path_).rot)) w.bytes[r.below(bytes)] ^= std::byte(1u << r.below(8));
    state_->write(w.offset, w.bytes, w.durable);
    co_return Status();
  }

  io::Task<Status> grow(std::uint64_t bytes) override {
    if (path_.starts_with('/')) co_return Status(Code::invalid, path_ + ": a device does not grow");
    LUGE_CHECK(bytes >= state_->size && bytes % 4096 == 0);
    const std::uint64_t before = state_->size;  // a crash may leave any part of it
    while (state_->size < bytes) {
      co_await world_.sleep(latency(disk_.random_, disk_.faults, 100us, 4ms));
      disk_.errors_ += state_->hung;
    while (state_->hung) co_await world_.sleep(10ms);
      std::uint64_t step = std::min<std::uint64_t>(64 << 10, bytes - state_->size);
      bool full = disk_.bytes_used() + step > disk_.faults.capacity;
      if (full || disk_.random_.chance(disk_.faults_for(path_).write_error)) {
        state_->size = before;
        co_return full ? Status(Code::no_space, path_ + ": No space left on device") : error("grow", before);
      }
      state_->size += step;
    }
    co_return Status();
  }

  io::Task<Status> sync() override {
    if (world_.stopped()) throw io::Stopped{};
    // Only what had been written when sync was called is promised; what comes later may stay volatile.
    std::vector<std::uint64_t> numbers;
    for (auto& [number, content] : state_->durable) numbers.push_back(number);
    std::vector<std::vector<std::byte>> contents(numbers.size(), std::vector<std::byte>(4096));
    for (std::size_t i = 0; i < numbers.size(); ++i) state_->read(numbers[i] * 4096, contents[i]);
    co_await world_.sleep(latency(disk_.random_, disk_.faults, 100us, 2ms));
    disk_.errors_ += state_->hung;
    while (state_->hung) co_await world_.sleep(10ms);
    if (disk_.random_.chance(disk_.faults_for(path_).sync_error)) co_return error("sync", 0);
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      auto old = state_->durable.find(numbers[i]);
      if (old == state_->durable.end()) continue;
      std::vector<std::byte> now(4096);
      state_->read(numbers[i] * 4096, now);
      if (now == contents[i])
        state_->durable.erase(old);
      else
        std::memcpy(old->second->data(), contents[i].data(), 4096);
    }
    co_return Status();
  }

 private:
  void check(std::uint64_t offset, std::size_t bytes) const { LUGE_CHECK(offset % 4096 == 0 && bytes % 4096 == 0); }
  bool lies(double often) {
    bool now = disk_.random_.chance(often);
    disk_.lies_ += now;
    return now;
  }
  Status error(const char* what, std::uint64_t offset) const {
    ++disk_.errors_;
    return Status(Code::io_error, path_ + ": " + what + " at " + std::to_string(offset) + ": Input/output error");
  }
  Status outside(std::uint64_t offset, std::size_t bytes) const {
    return Status(Code::io_error, path_ + ": " + std::to_string(bytes) + " bytes at " + std::to_string(offset) +
                                      " end beyond the file's " + std::to_string(state_->size));
  }
  std::uint64_t misdirect(std::uint64_t offset, std::size_t bytes) {
    std::uint64_t by = disk_.random_.between(1, 64) * 4096;
    if (offset + by + bytes <= state_->size) return offset + by;
    return offset >= by ? offset - by : offset;
  }

  io::World& world_;
  Disk& disk_;
  std::shared_ptr<FileState> state_;
  std::string path_;
};

Status SimFiles::check_parent(const std::string& path) const {
  auto slash = path.rfind('/');
  if (path.starts_with('/') || slash == std::string::npos || disk_.directories_.count(path.substr(0, slash))) return Status();
  return Status(Code::not_found, path + ": No such file or directory");
}

io::Task<Result<std::unique_ptr<io::BlockFile>>> SimFiles::open(std::string path, io::OpenOptions options) {
  co_await world_.sleep(latency(disk_.random_, disk_.faults, 10us, 100us));
  auto it = disk_.files_.find(path);
  if (it == disk_.files_.end()) {
    if (!options.create) co_return Status(Code::not_found, path + ": No such file or directory");
    if (Status s = check_parent(path); !s.ok()) co_return s;
    if (disk_.bytes_used() + options.size > disk_.faults.capacity)
      co_return Status(Code::no_space, path + ": No space left on device");
    if (options.prewrite) co_await world_.sleep(latency(disk_.random_, disk_.faults, 1ms, 8ms));
    it = disk_.files_.emplace(path, std::make_shared<FileState>(options.size)).first;
  }
  if (options.lock && it->second->locked_by != nullptr)
    co_return Status(Code::exists, path + ": in use by another process");
  co_return std::unique_ptr<io::BlockFile>(std::make_unique<SimFile>(world_, disk_, it->second, path, options.lock));
}

io::Task<Status> SimFiles::remove(std::string path) {
  co_await world_.sleep(latency(disk_.random_, disk_.faults, 50us, 400us));
  if (disk_.files_.erase(path) == 0) co_return Status(Code::not_found, path + ": No such file or directory");
  co_return Status();
}

io::Task<Status> SimFiles::rename(std::string from, std::string to) {
  // Half of the time is before it happens and half after, so that a crash finds either.
  co_await world_.sleep(latency(disk_.random_, disk_.faults, 50us, 400us));
  auto it = disk_.files_.find(from);
  if (it == disk_.files_.end()) co_return Status(Code::not_found, from + ": No such file or directory");
  if (Status s = check_parent(to); !s.ok()) co_return s;
  auto state = it->second;
  disk_.files_.erase(it);
  disk_.files_[to] = std::move(state);
  co_await world_.sleep(latency(disk_.random_, disk_.faults, 50us, 400us));
  co_return Status();
}

io::Task<Result<std::vector<std::string>>> SimFiles::list(std::string directory) {
  co_await world_.sleep(latency(disk_.random_, disk_.faults, 10us, 100us));
  if (!directory.empty() && !disk_.directories_.count(directory))
    co_return Status(Code::not_found, directory + ": No such file or directory");
  std::string prefix = directory.empty() ? "" : directory + "/";
  std::set<std::string> names;
  auto add = [&](const std::string& path) {
    if (path.starts_with('/') || !path.starts_with(prefix)) return;
    std::string rest = path.substr(prefix.size());
    if (!rest.empty() && rest.find('/') == std::string::npos) names.insert(rest);
  };
  for (auto& [path, f] : disk_.files_) add(path);
  for (auto& d : disk_.directories_) add(d);
  co_return std::vector<std::string>(names.begin(), names.end());
}

io::Task<Status> SimFiles::make_directory(std::string path) {
  co_await world_.sleep(latency(disk_.random_, disk_.faults, 50us, 400us));
  if (Status s = check_parent(path); !s.ok()) co_return s;
  disk_.directories_.insert(path);
  co_return Status();
}

}  // namespace luge::sim
