#include "io/watched_file.hpp"

#include "io/within.hpp"

namespace luge::io {
namespace {

constexpr int kTurns = 8;

Status given_up(const std::string& path, Duration limit) {
  return Status(Code::io_error, path + ": an operation has not returned for " + std::to_string(limit / std::chrono::milliseconds(1)) +
                                    " ms: the device hangs");
}

// Outlives its caller when it is given up: all that it uses is its own.
Task<Result<std::unique_ptr<BlockFile>>> open_file(World& world, std::string path, OpenOptions options) {
  co_return co_await world.files().open(std::move(path), options);
}

}  // namespace

struct WatchedFile::Operation {
  explicit Operation(World& world) : ended(world) {}
  void end(Status s) {
    result = std::move(s);
    ended.notify_all();
  }
  Event ended;
  std::optional<Status> result;
  int turns = 0;  // of the watching task that it has lasted
};

struct WatchedFile::Shared {
  World& world;
  std::shared_ptr<BlockFile> file;  // also of the operations that were given up; not of who watches
  std::string path;
  Duration limit;
  std::list<OperationPtr> waited_for{};
  bool hung = false, watching = false;
};

WatchedFile::WatchedFile(World& world, std::unique_ptr<BlockFile> file, std::string path, Duration limit)
    : shared_(std::make_shared<Shared>(world, std::move(file), std::move(path), limit)) {}

WatchedFile::~WatchedFile() { shared_->file.reset(); }

Task<Result<std::unique_ptr<WatchedFile>>> WatchedFile::open(World& world, std::string path, OpenOptions options, Duration limit) {
  auto opened = co_await within(world, limit, open_file(world, path, options));
  if (!opened) co_return given_up(path, limit);
  if (!opened->ok()) co_return opened->status();
  co_return std::make_unique<WatchedFile>(world, std::move(**opened), path, limit);
}

std::uint64_t WatchedFile::size() const { return shared_->file->size(); }
bool WatchedFile::hung() const { return shared_->hung; }

// It ends when it finds nothing to watch; where one operation follows another there is one such task all the time.
Task<void> WatchedFile::watch(SharedPtr shared) {
  while (!shared->waited_for.empty()) {
    co_await shared->world.sleep(shared->limit / kTurns);
    for (const OperationPtr& op : shared->waited_for) {
      if (op->result || ++op->turns <= kTurns) continue;
      shared->hung = true;
      op->end(given_up(shared->path, shared->limit));
    }
  }
  shared->watching = false;
}

template <class Begin>
Task<Status> WatchedFile::watched(Begin begin) {
  SharedPtr shared = shared_;
  if (shared->hung) co_return given_up(shared->path, shared->limit);
  auto op = std::make_shared<Operation>(shared->world);
  struct Leave {
    Shared& shared;
    std::list<OperationPtr>::iterator at;
    ~Leave() { shared.waited_for.erase(at); }
  } leave{*shared, shared->waited_for.insert(shared->waited_for.end(), op)};
  shared->world.spawn("file", begin(shared->file, op));
  if (!std::exchange(shared->watching, true)) shared->world.spawn("file watch", watch(shared));
  while (!op->result) co_await op->ended.wait();
  co_return std::move(*op->result);
}

// What is given up has its result, and whatever the kernel says of it later is nobody's.
Task<void> WatchedFile::read_file(FilePtr file, OperationPtr op, std::uint64_t offset, Buffer into) {
  Status s = co_await file->read(offset, into.mutable_bytes());
  if (!op->result) op->end(std::move(s));
}

Task<void> WatchedFile::write_file(FilePtr file, OperationPtr op, std::uint64_t offset, std::vector<Bytes> parts, std::shared_ptr<const void> owner, Durability d) {
  Status s = co_await file->write(offset, parts, d);
  if (!op->result) op->end(std::move(s));
}

Task<void> WatchedFile::sync_file(FilePtr file, OperationPtr op) {
  Status s = co_await file->sync();
  if (!op->result) op->end(std::move(s));
}

Task<Status> WatchedFile::read(std::uint64_t offset, Buffer into) {
  return watched([offset, into = std::move(into)](FilePtr file, OperationPtr op) { return read_file(std::move(file), std::move(op), offset, into); });
}

Task<Status> WatchedFile::read(std::uint64_t offset, MutableBytes into) {
  Buffer b = Buffer::allocate(into.size());
  Status s = co_await read(offset, b);
  if (s.ok() && !into.empty()) std::memcpy(into.data(), b.data(), into.size());
  co_return s;
}

Task<Status> WatchedFile::write(std::uint64_t offset, std::vector<Bytes> parts, std::shared_ptr<const void> owner, Durability d) {
  return watched([offset, parts = std::move(parts), owner = std::move(owner), d](FilePtr file, OperationPtr op) mutable {
    return write_file(std::move(file), std::move(op), offset, std::move(parts), std::move(owner), d);
  });
}

Task<Status> WatchedFile::write(std::uint64_t offset, std::vector<Buffer> buffers, Durability d) {
  auto owner = std::make_shared<const std::vector<Buffer>>(std::move(buffers));
  std::vector<Bytes> parts;
  for (const Buffer& b : *owner) parts.push_back(b.bytes());
  return write(offset, std::move(parts), std::move(owner), d);
}

Task<Status> WatchedFile::write(std::uint64_t offset, Buffer part, Durability d) {
  std::vector<Buffer> parts;
  parts.push_back(std::move(part));
  return write(offset, std::move(parts), d);
}

Task<Status> WatchedFile::write(std::uint64_t offset, std::span<const Bytes> parts, Durability d) {
  std::vector<Buffer> copies;
  for (Bytes p : parts) copies.push_back(Buffer::copy_of(p));
  return write(offset, std::move(copies), d);
}

Task<Status> WatchedFile::sync() {
  return watched([](FilePtr file, OperationPtr op) { return sync_file(std::move(file), std::move(op)); });
}

Task<Status> WatchedFile::grow(std::uint64_t bytes) { co_return co_await shared_->file->grow(bytes); }

}  // namespace luge::io
