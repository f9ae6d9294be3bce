#include "vmstate/volume_store.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "base/crc32c.hpp"
#include "switches/switches.hpp"

namespace luge::vmstate {
namespace {

constexpr std::uint64_t kDirectoryBytes = VolumeStore::kDirectoryBlocks * kPage;
constexpr std::uint64_t kFirstBlock = 2 * VolumeStore::kDirectoryBlocks;
constexpr std::uint64_t kMostCheckpoints = (kDirectoryBytes - sizeof(DirectoryHeader)) / sizeof(DirectoryEntry);
constexpr std::size_t kAtOnce = 256;  // pages read with one request

Bytes bytes_of(const auto& v) { return std::as_bytes(std::span(v)); }

std::uint32_t header_crc(DirectoryHeader h) {
  h.crc = 0;
  return crc32c({reinterpret_cast<const std::byte*>(&h), sizeof h});
}

std::uint64_t place_of(std::uint64_t generation) { return generation % 2 * kDirectoryBytes; }

ExtentOnVolume written(const VolumeStore::Extent& e) { return {e.block, e.bytes, e.crc, 0}; }
VolumeStore::Extent read(const ExtentOnVolume& e) { return {e.block, e.bytes, e.crc}; }

struct Directory {
  enum class Kind { none, torn, foreign, whole } kind = Kind::none;
  DirectoryHeader header;
  std::vector<DirectoryEntry> entries;
};

Result<Directory> read_directory(BlockFile& file, std::uint64_t place) {
  std::vector<std::byte> content(kDirectoryBytes);
  if (Status s = file.read(place, content); !s.ok()) return s;
  Directory d;
  std::memcpy(&d.header, content.data(), sizeof d.header);
  if (d.header.magic != kDirectoryMagic) {
    d.kind = all_zero(Bytes(content).first(kPage)) ? Directory::Kind::none : Directory::Kind::foreign;
    return d;
  }
  d.kind = Directory::Kind::torn;
  if (d.header.crc != header_crc(d.header) || d.header.checkpoints > kMostCheckpoints || place_of(d.header.generation) != place) return d;
  if (d.header.version != kDirectoryVersion) return Status(Code::wrong_version, file.name() + ": a store of version " + std::to_string(d.header.version));
  d.entries.resize(d.header.checkpoints);
  std::memcpy(d.entries.data(), content.data() + sizeof d.header, d.entries.size() * sizeof(DirectoryEntry));
  if (crc32c(bytes_of(d.entries)) == d.header.entries_crc) d.kind = Directory::Kind::whole;
  return d;
}

// A file to restore to.
class Output {
 public:
  explicit Output(const std::string& path, std::uint64_t bytes) : path_(path), fd_(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)) {
    good_ = fd_ >= 0 && ::ftruncate(fd_, 0) == 0 && ::ftruncate(fd_, static_cast<off_t>(bytes)) == 0;
  }
  ~Output() {
    if (fd_ >= 0) ::close(fd_);
  }
  Output(const Output&) = delete;
  Status write(std::uint64_t at, Bytes b) {
    while (good_ && !b.empty()) {
      const ssize_t n = ::pwrite(fd_, b.data(), b.size(), static_cast<off_t>(at));
      if (n < 0 && errno == EINTR) continue;
      good_ = n > 0;
      if (good_) b = b.subspan(static_cast<std::size_t>(n)), at += static_cast<std::uint64_t>(n);
    }
    return status();
  }
  Status status() const { return good_ ? Status() : Status(Code::io_error, path_ + ": " + std::strerror(errno)); }

 private:
  const std::string path_;
  const int fd_;
  bool good_;
};

}  // namespace

// ---- what is on the volume ----

Result<std::unique_ptr<VolumeStore>> VolumeStore::open(std::unique_ptr<BlockFile> file) {
  if (file->bytes() < (kFirstBlock + 16) * kPage) return Status(Code::invalid, file->name() + ": too small for a store of checkpoints");
  std::unique_ptr<VolumeStore> store(new VolumeStore(std::move(file)));
  if (Status s = store->load(); !s.ok()) return s;
  return store;
}

Status VolumeStore::load() {
  const Directory* newest = nullptr;
  Directory both[2];
  for (std::uint64_t i : {0, 1}) {
    auto d = read_directory(*file_, i * kDirectoryBytes);
    if (!d.ok()) return d.status();
    if (d->kind == Directory::Kind::foreign) return Status(Code::conflict, file_->name() + ": there is something else on it; a store of checkpoints begins on an empty volume");
    both[i] = std::move(*d);
    if (both[i].kind == Directory::Kind::whole && (newest == nullptr || both[i].header.generation > newest->header.generation)) newest = &both[i];
  }
  // The first commit of all was cut off: one directory is torn, the other has never been written.
  if (newest == nullptr && both[0].kind == Directory::Kind::torn) return Status(Code::corrupt, file_->name() + ": no directory of the store is whole");
  for (const DirectoryEntry& e : newest != nullptr ? newest->entries : std::vector<DirectoryEntry>()) {
    Checkpoint c{{e.machine, ::strnlen(e.machine, sizeof e.machine)}, e.sequence, e.parent, e.created_ns, {e.memory_pages, e.disk_pages}, read(e.table), read(e.state), read(e.description), {}};
    for (const Extent& e : {c.state, c.description})
      if (!inside(e)) return Status(Code::corrupt, file_->name() + ": checkpoint " + std::to_string(c.sequence) + " of " + c.machine + " has an extent outside the volume");
    if (c.shape.memory_pages > kMostPages || c.shape.disk_pages > kMostPages)
      return Status(Code::corrupt, file_->name() + ": checkpoint " + std::to_string(c.sequence) + " of " + c.machine + " has " + std::to_string(c.shape.memory_pages) + " and " + std::to_string(c.shape.disk_pages) + " pages");
    auto table = read_extent(c.table);
    if (!table.ok()) return table.status().with("the table of checkpoint " + std::to_string(c.sequence) + " of " + c.machine);
    c.entries.resize(table->size() / sizeof(CheckpointEntry));
    std::memcpy(c.entries.data(), table->data(), c.entries.size() * sizeof(CheckpointEntry));
    for (const CheckpointEntry& p : c.entries)
      if (p.page >= c.shape.pages() || (p.slot != kNoSlot && (p.slot < kFirstBlock || p.slot >= used_.size()))) return Status(Code::corrupt, file_->name() + ": a table of pages is damaged");
    checkpoints_.push_back(std::move(c));
  }
  generation_ = newest != nullptr ? newest->header.generation : 0;
  mark_used();
  return Status();
}

bool VolumeStore::inside(const Extent& e) const {
  return e.bytes == 0 || (e.bytes <= used_.size() * kPage && e.block >= kFirstBlock && e.block <= used_.size() - e.blocks());
}

Result<std::vector<std::byte>> VolumeStore::read_extent(const Extent& e) {
  if (!inside(e)) return Status(Code::corrupt, file_->name() + ": an extent outside the volume");
  std::vector<std::byte> content(e.blocks() * kPage);
  if (Status s = file_->read(e.block * kPage, content); !s.ok()) return s;
  content.resize(e.bytes);
  if (crc32c(content) != e.crc) return Status(Code::corrupt, file_->name() + ": " + std::to_string(e.bytes) + " bytes at block " + std::to_string(e.block) + " are damaged");
  return content;
}

std::vector<std::string> VolumeStore::machines() const {
  std::vector<std::string> names;
  for (const Checkpoint& c : checkpoints_)
    if (std::find(names.begin(), names.end(), c.machine) == names.end()) names.push_back(c.machine);
  return names;
}

std::vector<StoredCheckpoint> VolumeStore::list(const std::string& machine) const {
  std::vector<StoredCheckpoint> out;
  for (const Checkpoint& c : checkpoints_) {
    if (c.machine != machine) continue;
    std::uint64_t blocks = c.table.blocks() + c.state.blocks() + c.description.blocks();
    for (const CheckpointEntry& e : c.entries) blocks += e.slot != kNoSlot;
    out.push_back({c.sequence, c.parent, c.created_ns, c.entries.size(), blocks * kPage, c.shape});
  }
  return out;
}

Result<StoredCheckpoint> VolumeStore::restore(const std::string& machine, std::uint64_t sequence, const Store::Files& to) {
  return write_and_name(to, [&](const Store::Files& fresh) { return write(machine, sequence, fresh); });
}

Result<StoredCheckpoint> VolumeStore::write(const std::string& machine, std::uint64_t sequence, const Store::Files& to) {
  const Checkpoint* last = nullptr;
  std::vector<const CheckpointEntry*> newest;
  for (const Checkpoint& c : checkpoints_) {
    if (c.machine != machine || (sequence != 0 && c.sequence > sequence)) continue;
    newest.resize(c.shape.pages());
    for (const CheckpointEntry& e : c.entries) newest[e.page] = &e;
    last = &c;
  }
  if (last == nullptr || (sequence != 0 && last->sequence != sequence)) return Status(Code::not_found, file_->name() + " has no such checkpoint of " + machine);
  auto image = [&](const std::string& path, std::uint64_t first, std::uint64_t count) {
    Output out(path, count * kPage);
    std::vector<std::byte> content(kAtOnce * kPage);
    for (std::uint64_t p = first; p < first + count;) {
      if (newest[p] == nullptr) return Status(Code::corrupt, file_->name() + ": page " + std::to_string(p) + " is in no checkpoint");
      if (newest[p]->slot == kNoSlot) {
        ++p;
        continue;
      }
      std::size_t n = 1;
      while (n < kAtOnce && p + n < first + count && newest[p + n] != nullptr && newest[p + n]->slot == newest[p]->slot + n) ++n;
      const std::span<std::byte> pages(content.data(), n * kPage);
      if (Status s = file_->read(newest[p]->slot * kPage, pages); !s.ok()) return s;
      for (std::size_t i = 0; i < n; ++i)
        if (!broken(Switch::page_checksums_unchecked) && crc32c(pages.subspan(i * kPage, kPage)) != newest[p + i]->crc)
          return Status(Code::corrupt, file_->name() + ": page " + std::to_string(p + i) + " is damaged");
      if (Status s = out.write((p - first) * kPage, pages); !s.ok()) return s;
      p += n;
    }
    return out.status();
  };
  if (Status s = image(to.memory, 0, last->shape.memory_pages); !s.ok()) return s;
  if (!to.disk.empty() && last->shape.disk_pages != 0)
    if (Status s = image(to.disk, last->shape.memory_pages, last->shape.disk_pages); !s.ok()) return s;
  for (auto [extent, path] : {std::pair(&last->state, &to.state), std::pair(&last->description, &to.description)}) {
    auto content = read_extent(*extent);
    if (!content.ok()) return content.status();
    if (Status s = Output(*path, 0).write(0, *content); !s.ok()) return s;
  }
  return StoredCheckpoint{last->sequence, last->parent, last->created_ns, last->entries.size(), 0, last->shape};
}

// ---- blocks ----

void VolumeStore::mark_used() {
  std::fill(used_.begin(), used_.end(), false);
  std::fill(used_.begin(), used_.begin() + static_cast<std::ptrdiff_t>(kFirstBlock), true);
  for (const Checkpoint& c : checkpoints_) {
    for (const Extent& e : {c.table, c.state, c.description})
      for (std::uint64_t b = e.block; b < e.block + e.blocks(); ++b) used_[b] = true;
    for (const CheckpointEntry& e : c.entries)
      if (e.slot != kNoSlot) used_[e.slot] = true;
  }
}

// From where the last one was taken on, once round.
Result<std::uint64_t> VolumeStore::take_run(std::uint64_t blocks) {
  for (std::uint64_t looked = 0, run = 0; looked < used_.size() + blocks; ++looked, ++next_) {
    if (next_ >= used_.size()) next_ = kFirstBlock, run = 0;
    run = used_[next_] ? 0 : run + 1;
    if (run != blocks) continue;
    const std::uint64_t first = ++next_ - blocks;
    std::fill(used_.begin() + static_cast<std::ptrdiff_t>(first), used_.begin() + static_cast<std::ptrdiff_t>(next_), true);
    return first;
  }
  return Status(Code::no_space, file_->name() + ": no " + std::to_string(blocks) + " blocks are free");
}

Status VolumeStore::write(std::uint64_t block, Bytes content) { return file_->write(block * kPage, content); }

void VolumeStore::give_up(const std::vector<CheckpointEntry>& entries) {
  for (const CheckpointEntry& e : entries)
    if (e.slot != kNoSlot) used_[e.slot] = false;
}

Result<VolumeStore::Extent> VolumeStore::write_extent(Bytes content) {
  Extent e{0, content.size(), crc32c(content)};
  auto block = take_run(std::max<std::uint64_t>(e.blocks(), 1));
  if (!block.ok()) return block.status();
  e.block = *block;
  std::vector<std::byte> whole(e.blocks() * kPage);
  std::memcpy(whole.data(), content.data(), content.size());
  if (Status s = write(e.block, whole); !s.ok()) return s;
  return e;
}

// ---- committing ----

// The oldest of a machine goes into the next: that one has every page then.
Status VolumeStore::join_oldest(std::vector<Checkpoint>& all, const std::string& machine) {
  auto mine = [&](const Checkpoint& c) { return c.machine == machine; };
  auto oldest = std::find_if(all.begin(), all.end(), mine);
  auto next = std::find_if(oldest + 1, all.end(), mine);
  std::vector<CheckpointEntry> joined;
  auto a = oldest->entries.begin(), b = next->entries.begin();
  while (a != oldest->entries.end() || b != next->entries.end()) {
    const bool newer = a == oldest->entries.end() || (b != next->entries.end() && b->page <= a->page);
    if (newer && a != oldest->entries.end() && a->page == b->page) ++a;
    joined.push_back(newer ? *b++ : *a++);
  }
  next->entries = std::move(joined), next->parent = 0;
  auto table = write_extent(bytes_of(next->entries));
  if (!table.ok()) return table.status();
  next->table = *table;
  all.erase(oldest);
  return Status();
}

Status VolumeStore::check_alone() {
  std::byte block[kPage];
  for (std::uint64_t place : {std::uint64_t{0}, kDirectoryBytes}) {
    if (Status s = file_->read(place, block); !s.ok()) return s;
    DirectoryHeader h;
    std::memcpy(&h, block, sizeof h);
    if (h.magic == kDirectoryMagic && h.crc == header_crc(h) && h.generation > generation_) return Status(Code::conflict, file_->name() + ": another writes to this store");
  }
  return Status();
}

Status VolumeStore::write_directory(const std::vector<Checkpoint>& all) {
  if (all.size() > kMostCheckpoints) return Status(Code::no_space, file_->name() + ": its directory is full");
  std::vector<DirectoryEntry> entries;
  for (const Checkpoint& c : all) {
    DirectoryEntry e;
    std::memcpy(e.machine, c.machine.data(), std::min(c.machine.size(), sizeof e.machine - 1));
    e.sequence = c.sequence, e.parent = c.parent, e.memory_pages = c.shape.memory_pages, e.disk_pages = c.shape.disk_pages, e.created_ns = c.created_ns;
    e.table = written(c.table), e.state = written(c.state), e.description = written(c.description);
    entries.push_back(e);
  }
  if (Status s = check_alone(); !s.ok()) return s;
  DirectoryHeader h;
  h.generation = generation_ + 1, h.checkpoints = entries.size(), h.entries_crc = crc32c(bytes_of(entries));
  h.crc = header_crc(h);
  std::vector<std::byte> content((sizeof h + entries.size() * sizeof(DirectoryEntry) + kPage - 1) / kPage * kPage);
  std::memcpy(content.data(), &h, sizeof h);
  std::memcpy(content.data() + sizeof h, entries.data(), entries.size() * sizeof(DirectoryEntry));
  if (Status s = file_->write(place_of(h.generation), content); !s.ok()) return s;
  return file_->flush();
}

Status VolumeStore::commit(Checkpoint c, const std::string& state, const std::string& description, std::size_t keep) {
  const std::string machine = c.machine;
  const bool replaces = c.parent == 0;
  std::vector<Checkpoint> all;
  for (const Checkpoint& old : checkpoints_)
    if (!replaces || old.machine != machine) all.push_back(old);
  auto perform = [&]() -> Status {
    std::sort(c.entries.begin(), c.entries.end(), [](const auto& x, const auto& y) { return x.page < y.page; });
    for (auto [extent, content] : {std::pair(&c.table, bytes_of(c.entries)), std::pair(&c.state, as_bytes(state)), std::pair(&c.description, as_bytes(description))}) {
      auto e = write_extent(content);
      if (!e.ok()) return e.status();
      *extent = *e;
    }
    all.push_back(std::move(c));
    for (auto n = static_cast<std::size_t>(std::count_if(all.begin(), all.end(), [&](const Checkpoint& x) { return x.machine == machine; })); n > std::max<std::size_t>(keep, 1); --n) {
      if (broken(Switch::store_space_reused_early)) {
        const Extent& table = std::find_if(all.begin(), all.end(), [&](const Checkpoint& x) { return x.machine == machine; })->table;
        next_ = table.block;
        for (std::uint64_t b = 0; b < table.blocks(); ++b) used_[next_ + b] = false;
      }
      if (Status s = join_oldest(all, machine); !s.ok()) return s;
    }
    if (Status s = file_->flush(); !s.ok()) return s;
    return write_directory(all);
  };
  Status s = perform();
  if (s.ok()) checkpoints_ = std::move(all), ++generation_;
  mark_used();  // what was taken for a commit that failed is free again
  return s;
}

// ---- VolumeTarget ----

Result<std::uint64_t> VolumeTarget::newest(const std::string& machine) {
  if (Status s = check_machine_name(machine); !s.ok()) return s;
  if (!store_) {
    auto file = open_store_();
    if (!file.ok()) return file.status();
    auto store = VolumeStore::open(std::move(*file));
    if (!store.ok()) return store.status();
    store_ = std::move(*store);
  }
  const auto all = store_->list(machine);
  return all.empty() ? 0 : all.back().sequence;
}

Status VolumeTarget::begin(const Begin& b) {
  abandon();
  auto last = newest(b.machine);
  if (!last.ok()) return last.status();
  if (b.sequence == 0 || b.parent >= b.sequence) return Status(Code::invalid, "checkpoint " + std::to_string(b.sequence) + " upon " + std::to_string(b.parent));
  if (b.parent != 0 && b.parent != *last) return Status(Code::stale, "the store's newest checkpoint is " + std::to_string(*last) + ", not " + std::to_string(b.parent) + ": a full one is needed");
  if (b.sequence <= *last) return Status(Code::exists, "the store has checkpoint " + std::to_string(*last) + " already");
  if (Status s = store_->check_alone(); !s.ok()) return failed(s);
  begin_ = b, open_ = true;
  table_.begin(b.shape);
  return Status();
}

Status VolumeTarget::failed(Status s) {
  if (!s.ok()) store_.reset(), open_ = false;
  return s;
}

// Pages that come one after the other get blocks one after the other, as far as there are such, and are written together.
Status VolumeTarget::put(const PageBatch& batch) {
  if (!open_) return Status(Code::invalid, "no checkpoint has begun");
  const std::byte *from = batch.content.data(), *run = from;
  std::uint64_t first = 0, count = 0;
  auto flush = [&] { return count == 0 ? Status() : store_->write(first, {run, count * kPage}); };
  for (const auto& e : batch.entries) {
    auto entry = table_.add(e);
    if (!entry.ok()) return entry.status();
    CheckpointEntry& mine = **entry;
    if (e.zero) {
      store_->give_up({mine});
      mine.slot = kNoSlot;
      continue;
    }
    if (mine.slot == kNoSlot) {
      auto block = store_->take();
      if (!block.ok()) return failed(block.status());
      mine.slot = *block;
    }
    if (count == 0 || mine.slot != first + count) {
      if (Status s = flush(); !s.ok()) return failed(s);
      first = mine.slot, count = 0, run = from;
    }
    ++count, from += kPage;
  }
  return failed(flush());
}

Status VolumeTarget::commit(const std::string& device_state, const std::string& description) {
  if (!open_) return Status(Code::invalid, "no checkpoint has begun");
  if (Status s = table_.check_complete(begin_); !s.ok()) return s;
  open_ = false;
  VolumeStore::Checkpoint c;
  c.machine = begin_.machine, c.sequence = begin_.sequence, c.parent = begin_.parent, c.shape = begin_.shape, c.entries = table_.take();
  c.created_ns = static_cast<std::uint64_t>(std::chrono::system_clock::now().time_since_epoch() / std::chrono::nanoseconds(1));
  return failed(store_->commit(std::move(c), device_state, description, keep_));
}

void VolumeTarget::abandon() {
  if (!std::exchange(open_, false)) return;
  store_->give_up(table_.take());
}

}  // namespace luge::vmstate
