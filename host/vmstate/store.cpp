#include "vmstate/store.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <map>
#include <optional>

#include "base/crc32c.hpp"
#include "switches/switches.hpp"

namespace luge::vmstate {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSuffix = ".lvck";

Status io_error(const std::string& path) { return Status(Code::io_error, path + ": " + std::strerror(errno)); }

std::string file_of(const std::string& folder, std::uint64_t sequence) {
  char name[32];
  std::snprintf(name, sizeof name, "%012llu", static_cast<unsigned long long>(sequence));
  return folder + "/" + name + kSuffix;
}

class File {
 public:
  File() = default;
  explicit File(std::string path, int flags) : path_(std::move(path)), fd_(::open(path_.c_str(), flags | O_CLOEXEC, 0600)) {}
  File(File&& o) noexcept : path_(std::move(o.path_)), fd_(std::exchange(o.fd_, -1)) {}
  File& operator=(File&& o) noexcept {
    std::swap(path_, o.path_), std::swap(fd_, o.fd_);
    return *this;
  }
  ~File() { if (fd_ >= 0) ::close(fd_); }
  bool open() const { return fd_ >= 0; }
  int fd() const { return fd_; }
  const std::string& path() const { return path_; }
  Status read(std::uint64_t at, void* to, std::size_t n) const {
    for (auto* p = static_cast<char*>(to); n != 0;) {
      const ssize_t r = ::pread(fd_, p, n, static_cast<off_t>(at));
      if (r < 0 && errno == EINTR) continue;
      if (r < 0) return io_error(path_);
      if (r == 0) return Status(Code::corrupt, path_ + ": shorter than it says");
      p += r, at += static_cast<std::uint64_t>(r), n -= static_cast<std::size_t>(r);
    }
    return Status();
  }

 private:
  std::string path_;
  int fd_ = -1;
};

Status write_all(int fd, const std::string& path, std::uint64_t at, const void* from, std::size_t n) {
  for (auto* p = static_cast<const char*>(from); n != 0;) {
    const ssize_t w = ::pwrite(fd, p, n, static_cast<off_t>(at));
    if (w < 0 && errno == EINTR) continue;
    if (w <= 0) return io_error(path);
    p += w, at += static_cast<std::uint64_t>(w), n -= static_cast<std::size_t>(w);
  }
  return Status();
}

Bytes bytes_of(const auto& v) { return std::as_bytes(std::span(v)); }
Bytes bytes_of(const CheckpointHeader& h) { return {reinterpret_cast<const std::byte*>(&h), sizeof h}; }

std::uint32_t header_crc(CheckpointHeader h) {
  h.crc = 0;
  return crc32c(bytes_of(h));
}

struct Loaded {
  File file;
  CheckpointHeader header;
  std::vector<CheckpointEntry> entries;
  std::string state, description;
};

std::uint64_t table_at(const CheckpointHeader& h) { return kSlotsAt + h.slots * kPage; }
std::uint64_t tail_at(const CheckpointHeader& h) { return table_at(h) + h.entries * sizeof(CheckpointEntry); }

// Checks all of the header against itself and the file before any of it is used.
Result<CheckpointHeader> read_header(const File& f) {
  CheckpointHeader h;
  if (Status s = f.read(0, &h, sizeof h); !s.ok()) return s;
  if (h.magic != kCheckpointMagic) return Status(Code::corrupt, f.path() + ": not a checkpoint");
  if (h.version != kCheckpointVersion) return Status(Code::wrong_version, f.path() + ": a checkpoint of version " + std::to_string(h.version));
  struct stat st {};
  if (::fstat(f.fd(), &st) != 0) return io_error(f.path());
  const auto size = static_cast<std::uint64_t>(st.st_size);
  const std::uint64_t pages = h.memory_pages + h.disk_pages;
  if (h.crc != header_crc(h) || h.memory_pages > kMostPages || h.disk_pages > kMostPages || h.entries > pages || h.slots > size / kPage ||
      h.state_bytes > size || h.description_bytes > size || h.sequence == 0 || h.parent >= h.sequence || h.machine[sizeof h.machine - 1] != 0 ||
      tail_at(h) + h.state_bytes + h.description_bytes > size)
    return Status(Code::corrupt, f.path() + ": its header is damaged");
  return h;
}

Result<Loaded> load(const std::string& path, bool with_tail) {
  Loaded l;
  l.file = File(path, O_RDONLY);
  if (!l.file.open()) return io_error(path);
  auto h = read_header(l.file);
  if (!h.ok()) return h.status();
  l.header = *h;
  l.entries.resize(h->entries);
  if (Status s = l.file.read(table_at(*h), l.entries.data(), h->entries * sizeof(CheckpointEntry)); !s.ok()) return s;
  if (crc32c(bytes_of(l.entries)) != h->table_crc) return Status(Code::corrupt, path + ": its table of pages is damaged");
  for (const CheckpointEntry& e : l.entries)
    if (e.page >= h->memory_pages + h->disk_pages || (e.slot != kNoSlot && e.slot >= h->slots)) return Status(Code::corrupt, path + ": its table of pages is damaged");
  if (!with_tail) return l;
  l.state.resize(h->state_bytes), l.description.resize(h->description_bytes);
  if (Status s = l.file.read(tail_at(*h), l.state.data(), l.state.size()); !s.ok()) return s;
  if (Status s = l.file.read(tail_at(*h) + l.state.size(), l.description.data(), l.description.size()); !s.ok()) return s;
  if (crc32c(as_bytes(l.description), crc32c(as_bytes(l.state))) != h->tail_crc) return Status(Code::corrupt, path + ": its device state is damaged");
  return l;
}

// Table, tail and header behind the slots that are written already; the header last.
Status finish_file(int fd, const std::string& path, CheckpointHeader h, std::vector<CheckpointEntry> entries, const std::string& state, const std::string& description,
                   bool durable) {
  std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.page < b.page; });
  h.entries = entries.size(), h.state_bytes = state.size(), h.description_bytes = description.size();
  h.table_crc = crc32c(bytes_of(entries)), h.tail_crc = crc32c(as_bytes(description), crc32c(as_bytes(state)));
  h.crc = header_crc(h);
  Status s = write_all(fd, path, table_at(h), entries.data(), entries.size() * sizeof(CheckpointEntry));
  if (s.ok()) s = write_all(fd, path, tail_at(h), state.data(), state.size());
  if (s.ok()) s = write_all(fd, path, tail_at(h) + state.size(), description.data(), description.size());
  const std::uint64_t end = tail_at(h) + state.size() + description.size();
  struct stat st {};  // what is behind `end` belongs to the header that is still there
  if (s.ok() && (::fstat(fd, &st) != 0 || (static_cast<std::uint64_t>(st.st_size) < end && ::ftruncate(fd, static_cast<off_t>(end)) != 0))) s = io_error(path);
  if (s.ok() && durable && ::fdatasync(fd) != 0) s = io_error(path);
  if (s.ok()) s = write_all(fd, path, 0, &h, sizeof h);
  if (s.ok() && durable && ::fdatasync(fd) != 0) s = io_error(path);
  if (s.ok() && static_cast<std::uint64_t>(st.st_size) > end && ::ftruncate(fd, static_cast<off_t>(end)) != 0) s = io_error(path);
  return s;
}

Status sync_folder(const std::string& folder) {
  File f(folder, O_RDONLY | O_DIRECTORY);
  return f.open() && ::fsync(f.fd()) == 0 ? Status() : io_error(folder);
}

// Sequence numbers of the files of a machine, rising.
std::vector<std::uint64_t> numbers(const std::string& folder) {
  std::vector<std::uint64_t> out;
  std::error_code e;
  for (const auto& entry : fs::directory_iterator(folder, e)) {
    const std::string name = entry.path().filename();
    if (name.size() == 12 + 5 && name.ends_with(kSuffix) && std::all_of(name.begin(), name.begin() + 12, [](char c) { return c >= '0' && c <= '9'; }))
      out.push_back(std::stoull(name.substr(0, 12)));
  }
  std::sort(out.begin(), out.end());
  return out;
}

// The files that together are checkpoint `sequence` (0: the newest), oldest first.
Result<std::vector<Loaded>> chain(const std::string& folder, std::uint64_t sequence) {
  const auto all = numbers(folder);
  if (all.empty()) return Status(Code::not_found, folder + ": no checkpoint");
  if (sequence == 0) sequence = all.back();
  std::vector<Loaded> out;
  for (std::uint64_t at = sequence; at != 0;) {
    if (!std::binary_search(all.begin(), all.end(), at))
      return Status(Code::not_found, folder + ": no checkpoint " + std::to_string(at) + (at == sequence ? "" : ", which " + std::to_string(sequence) + " builds upon"));
    auto l = load(file_of(folder, at), out.empty());
    if (!l.ok()) return l.status();
    at = l->header.parent;
    out.push_back(std::move(*l));
  }
  std::reverse(out.begin(), out.end());
  for (const Loaded& l : out)
    if (l.header.memory_pages != out[0].header.memory_pages || l.header.disk_pages != out[0].header.disk_pages)
      return Status(Code::corrupt, l.file.path() + ": of a machine of another shape than the checkpoint before");
  return out;
}

// Where in a file whose header, table and tail must stay as they are new slots and another table may lie.
class FreeSlots {
 public:
  explicit FreeSlots(const Loaded& l) : old_(l.header), used_(l.header.slots) {
    for (const CheckpointEntry& e : l.entries)
      if (e.slot != kNoSlot) used_[e.slot] = true;
    behind_ = (tail_at(old_) + old_.state_bytes + old_.description_bytes - kSlotsAt + kPage - 1) / kPage;
  }
  std::uint64_t take() {
    while (next_ < used_.size() && used_[next_]) ++next_;
    return next_ < used_.size() ? next_++ : behind_++;
  }
  /// Number of slots for the header: the table begins behind them. Before the old table if it fits there, so that the file doesn't grow.
  std::uint64_t table_place(const std::vector<CheckpointEntry>& entries, std::uint64_t tail) const {
    std::uint64_t end = 0;
    for (const CheckpointEntry& e : entries)
      if (e.slot != kNoSlot) end = std::max(end, e.slot + 1);
    const bool fits = kSlotsAt + end * kPage + entries.size() * sizeof(CheckpointEntry) + tail <= table_at(old_);
    return fits ? end : std::max(end, behind_);
  }

 private:
  const CheckpointHeader old_;
  std::vector<bool> used_;
  std::uint64_t next_ = 0, behind_;
};

// Of one begin() alone, in whatever process.
std::string part_of(const std::string& path) {
  static std::atomic<std::uint64_t> count{0};
  if (broken(Switch::senders_share_a_part)) return path + ".part";
  return path + "." + std::to_string(::getpid()) + "-" + std::to_string(++count) + ".part";
}

Status write_file(const std::string& path, const std::string& content) {
  File f(path, O_WRONLY | O_CREAT | O_TRUNC);
  return f.open() ? write_all(f.fd(), path, 0, content.data(), content.size()) : io_error(path);
}

// Pages [first, first + count) of the newest entries to a file of that size.
Status write_image(const std::string& path, std::uint64_t first, std::uint64_t count, const std::vector<Loaded>& chain,
                   const std::vector<std::pair<const Loaded*, const CheckpointEntry*>>& newest) {
  File f(path, O_RDWR | O_CREAT);
  if (!f.open() || ::ftruncate(f.fd(), 0) != 0 || ::ftruncate(f.fd(), static_cast<off_t>(count * kPage)) != 0) return io_error(path);
  std::byte page[kPage];
  for (std::uint64_t p = first; p < first + count; ++p) {
    const auto& [loaded, entry] = newest[p];
    if (entry == nullptr) return Status(Code::corrupt, chain[0].file.path() + ": page " + std::to_string(p) + " is in no checkpoint");
    if (entry->slot == kNoSlot) continue;
    if (Status s = loaded->file.read(kSlotsAt + entry->slot * kPage, page, kPage); !s.ok()) return s;
    if (!broken(Switch::page_checksums_unchecked) && crc32c({page, kPage}) != entry->crc)
      return Status(Code::corrupt, loaded->file.path() + ": page " + std::to_string(p) + " is damaged");
    if (Status s = write_all(f.fd(), path, (p - first) * kPage, page, kPage); !s.ok()) return s;
  }
  return Status();
}

}  // namespace

Status check_machine_name(const std::string& name) {
  const bool good = !name.empty() && name.size() <= 63 && std::all_of(name.begin(), name.end(), [](unsigned char c) { return std::isalnum(c) || c == '-' || c == '_'; });
  return good ? Status() : Status(Code::invalid, "'" + name + "' is no name of a machine: letters, digits, - and _, at most 63");
}

Result<std::vector<std::string>> Store::machines() const {
  std::vector<std::string> out;
  std::error_code e;
  for (const auto& entry : fs::directory_iterator(directory_, e))
    if (entry.is_directory() && check_machine_name(entry.path().filename()).ok() && !numbers(entry.path()).empty()) out.push_back(entry.path().filename());
  std::sort(out.begin(), out.end());
  return out;
}

Result<std::vector<StoredCheckpoint>> Store::list(const std::string& machine) const {
  if (Status s = check_machine_name(machine); !s.ok()) return s;
  std::vector<StoredCheckpoint> out;
  for (std::uint64_t n : numbers(folder(machine))) {
    File f(file_of(folder(machine), n), O_RDONLY);
    if (!f.open()) return io_error(f.path());
    auto h = read_header(f);
    if (!h.ok()) return h.status();
    struct stat st {};
    (void)::fstat(f.fd(), &st);
    out.push_back({h->sequence, h->parent, h->created_ns, h->entries, static_cast<std::uint64_t>(st.st_blocks) * 512, {h->memory_pages, h->disk_pages}});
  }
  return out;
}

namespace {
// Where a link of a person's leads: a memory file is often one, to a file system in memory.
std::string followed(fs::path path) {
  std::error_code e;
  for (int i = 0; i < 16 && fs::is_symlink(path, e); ++i) {
    const fs::path next = fs::read_symlink(path, e);
    path = next.is_absolute() ? next : path.parent_path() / next;
  }
  return path;
}
}  // namespace

Result<StoredCheckpoint> write_and_name(const Store::Files& to, const std::function<Result<StoredCheckpoint>(const Store::Files&)>& write) {
  Store::Files fresh = to;
  std::vector<std::pair<std::string, std::string>> names;
  for (std::string Store::Files::*file : {&Store::Files::memory, &Store::Files::disk, &Store::Files::state, &Store::Files::description}) {
    if ((to.*file).empty() || (file == &Store::Files::memory && (to.in_place || broken(Switch::memory_restored_in_place)))) continue;
    const std::string path = followed(to.*file);
    fresh.*file = path + ".new";
    names.emplace_back(fresh.*file, path);
  }
  auto r = write(fresh);
  std::error_code e, failed;
  for (auto& [from, path] : names) {
    if (!r.ok()) fs::remove(from, e);
    else if (fs::exists(from, e)) fs::rename(from, path, e), failed = failed ? failed : e;  // a disk that it has not leaves none
  }
  if (failed) return Status(Code::io_error, to.memory + ": " + failed.message());
  return r;
}

Result<StoredCheckpoint> Store::restore(const std::string& machine, std::uint64_t sequence, const Files& to) const {
  return write_and_name(to, [&](const Files& fresh) { return write(machine, sequence, fresh); });
}

Result<StoredCheckpoint> Store::write(const std::string& machine, std::uint64_t sequence, const Files& to) const {
  if (Status s = check_machine_name(machine); !s.ok()) return s;
  auto files = chain(folder(machine), sequence);
  if (!files.ok()) return files.status();
  const CheckpointHeader& h = files->back().header;
  std::vector<std::pair<const Loaded*, const CheckpointEntry*>> newest(h.memory_pages + h.disk_pages);
  for (const Loaded& l : *files)
    for (const CheckpointEntry& e : l.entries) newest[e.page] = {&l, &e};
  if (Status s = write_image(to.memory, 0, h.memory_pages, *files, newest); !s.ok()) return s;
  if (!to.disk.empty() && h.disk_pages != 0)
    if (Status s = write_image(to.disk, h.memory_pages, h.disk_pages, *files, newest); !s.ok()) return s;
  if (Status s = write_file(to.state, files->back().state); !s.ok()) return s;
  if (Status s = write_file(to.description, files->back().description); !s.ok()) return s;
  return StoredCheckpoint{h.sequence, h.parent, h.created_ns, h.entries, 0, {h.memory_pages, h.disk_pages}};
}

// The second oldest goes into the oldest: its pages over those there or behind them, then its table and header.
Status Store::trim(const std::string& machine, std::size_t keep, bool durable) {
  const std::string f = folder(machine);
  auto all = numbers(f);
  while (all.size() > std::max<std::size_t>(keep, 1)) {
    auto base = load(file_of(f, all[0]), false);
    if (!base.ok()) return base.status();
    auto next = load(file_of(f, all[1]), true);
    if (!next.ok()) return next.status();
    if (next->header.parent == 0) {  // has every page itself
      ::unlink(base->file.path().c_str());
      all.erase(all.begin());
      continue;
    }
    if (next->header.memory_pages != base->header.memory_pages || next->header.disk_pages != base->header.disk_pages)
      return Status(Code::corrupt, next->file.path() + ": it is of a machine of another size than the checkpoint that it is upon");
    File out(base->file.path(), O_RDWR);
    if (!out.open()) return io_error(base->file.path());
    std::vector<std::uint32_t> where(base->header.memory_pages + base->header.disk_pages);
    for (std::size_t i = 0; i < base->entries.size(); ++i) where[base->entries[i].page] = static_cast<std::uint32_t>(i + 1);
    std::byte page[kPage];
    CheckpointHeader h = next->header;
    h.parent = 0;
    FreeSlots free(*base);
    std::vector<CheckpointEntry> entries = base->entries;
    for (const CheckpointEntry& e : next->entries) {
      if (where[e.page] == 0) {
        entries.push_back({e.page, kNoSlot, 0, 0});
        where[e.page] = static_cast<std::uint32_t>(entries.size());
      }
      CheckpointEntry& mine = entries[where[e.page] - 1];
      mine.crc = e.crc;
      if (e.slot == kNoSlot) {
        mine.slot = kNoSlot;
        continue;
      }
      if (Status s = next->file.read(kSlotsAt + e.slot * kPage, page, kPage); !s.ok()) return s;
      if (crc32c({page, kPage}) != e.crc) return Status(Code::corrupt, next->file.path() + ": page " + std::to_string(e.page) + " is damaged");
      if (mine.slot == kNoSlot) mine.slot = free.take();
      if (Status s = write_all(out.fd(), out.path(), kSlotsAt + mine.slot * kPage, page, kPage); !s.ok()) return s;
    }
    h.slots = free.table_place(entries, next->state.size() + next->description.size());
    if (Status s = finish_file(out.fd(), out.path(), h, std::move(entries), next->state, next->description, durable); !s.ok()) return s;
    // Its name is that of what it is now; the newer file goes with that.
    if (::rename(out.path().c_str(), next->file.path().c_str()) != 0) return io_error(next->file.path());
    if (durable)
      if (Status s = sync_folder(f); !s.ok()) return s;
    all.erase(all.begin());
  }
  return Status();
}

// ---- StoreTarget ----

StoreTarget::~StoreTarget() { abandon(); }

Result<std::uint64_t> StoreTarget::newest(const std::string& machine) {
  if (Status s = check_machine_name(machine); !s.ok()) return s;
  const auto all = numbers(store_.folder(machine));
  return all.empty() ? 0 : all.back();
}

Status StoreTarget::begin(const Begin& b) {
  abandon();
  if (Status s = check_machine_name(b.machine); !s.ok()) return s;
  if (b.sequence == 0 || b.parent >= b.sequence) return Status(Code::invalid, "checkpoint " + std::to_string(b.sequence) + " upon " + std::to_string(b.parent));
  const std::string folder = store_.folder(b.machine);
  std::error_code e;
  fs::create_directories(folder, e);
  if (e) return Status(Code::io_error, folder + ": " + e.message());
  Status s = lock(folder);
  if (s.ok()) s = open_part(b, folder);
  if (!s.ok()) let_go();
  return s;
}

// Two connections may send the same machine: the source of one has given up waiting for its commit.
Status StoreTarget::lock(const std::string& folder) {
  lock_ = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (lock_ < 0) return io_error(folder);
  if (broken(Switch::senders_share_a_part) || ::flock(lock_, LOCK_EX | LOCK_NB) == 0) return Status();
  if (errno != EWOULDBLOCK) return io_error(folder);
  return Status(Code::conflict, folder + ": a checkpoint that has come over another connection is still being written");
}

void StoreTarget::let_go() {
  for (int* fd : {&fd_, &lock_}) {
    if (*fd >= 0) ::close(*fd);
    *fd = -1;
  }
}

// REQUIRES: locked, so that nobody writes the parts that are there.
Status StoreTarget::open_part(const Begin& b, const std::string& folder) {
  std::error_code e;
  for (const auto& entry : fs::directory_iterator(folder, e))
    if (entry.path().extension() == ".part") fs::remove(entry.path(), e);
  const auto all = numbers(folder);
  if (b.parent != 0 && !std::binary_search(all.begin(), all.end(), b.parent))
    return Status(Code::stale, folder + " doesn't have checkpoint " + std::to_string(b.parent) + ": a full one is needed");
  if (b.parent != 0) {
    auto parent = read_header(File(file_of(folder, b.parent), O_RDONLY));
    if (!parent.ok()) return parent.status();
    if (parent->memory_pages != b.shape.memory_pages || parent->disk_pages != b.shape.disk_pages)
      return Status(Code::stale, folder + " has checkpoint " + std::to_string(b.parent) + " of a machine of another size: a full one is needed");
  }
  if (!all.empty() && b.sequence <= all.back()) return Status(Code::exists, folder + " has checkpoint " + std::to_string(all.back()) + " already");
  begin_ = b, path_ = file_of(folder, b.sequence), part_ = part_of(path_);
  fd_ = ::open(part_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd_ < 0) return io_error(part_);
  table_.begin(b.shape), slots_ = 0;
  return Status();
}

Status StoreTarget::put(const PageBatch& batch) {
  if (fd_ < 0) return Status(Code::invalid, "no checkpoint has begun");
  const std::byte* from = batch.content.data();
  for (const auto& e : batch.entries) {
    auto entry = table_.add(e);
    if (!entry.ok()) return entry.status();
    CheckpointEntry& mine = **entry;
    if (e.zero) {
      mine.slot = kNoSlot;
      continue;
    }
    if (mine.slot == kNoSlot) mine.slot = slots_++;
    if (Status s = write_all(fd_, part_, kSlotsAt + mine.slot * kPage, from, kPage); !s.ok()) return s;
    from += kPage;
  }
  return Status();
}

Status StoreTarget::commit(const std::string& device_state, const std::string& description) {
  if (fd_ < 0) return Status(Code::invalid, "no checkpoint has begun");
  if (Status s = table_.check_complete(begin_); !s.ok()) return s;
  CheckpointHeader h;
  h.sequence = begin_.sequence, h.parent = begin_.parent, h.memory_pages = begin_.shape.memory_pages, h.disk_pages = begin_.shape.disk_pages, h.slots = slots_;
  h.created_ns = static_cast<std::uint64_t>(std::chrono::system_clock::now().time_since_epoch() / std::chrono::nanoseconds(1));
  std::memcpy(h.machine, begin_.machine.data(), begin_.machine.size());
  Status s = finish_file(fd_, part_, h, table_.take(), device_state, description, options_.durable);
  if (s.ok() && ::rename(part_.c_str(), path_.c_str()) != 0) s = io_error(path_);
  if (s.ok() && options_.durable) s = sync_folder(store_.folder(begin_.machine));
  if (!s.ok()) return s;
  if (begin_.parent == 0)  // a new chain: what was before it is of another run
    for (std::uint64_t n : numbers(store_.folder(begin_.machine)))
      if (n != begin_.sequence) ::unlink(file_of(store_.folder(begin_.machine), n).c_str());
  s = store_.trim(begin_.machine, options_.keep, options_.durable);
  let_go();
  return s;
}

void StoreTarget::abandon() {
  if (fd_ < 0) return;
  if (broken(Switch::checkpoint_half_kept)) {
    CheckpointHeader h;
    h.sequence = begin_.sequence, h.parent = begin_.parent, h.memory_pages = begin_.shape.memory_pages, h.disk_pages = begin_.shape.disk_pages, h.slots = slots_;
    (void)finish_file(fd_, part_, h, table_.take(), "", "", false);
    ::rename(part_.c_str(), path_.c_str());
  } else {
    ::unlink(part_.c_str());
  }
  let_go();
}

}  // namespace luge::vmstate
