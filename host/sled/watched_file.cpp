#include "sled/watched_file.hpp"

#include "io/within.hpp"

namespace luge::sled {
namespace {

using FilePtr = std::shared_ptr<io::BlockFile>;

// These outlive their caller when they are given up: all that they use is theirs.
io::Task<Result<std::unique_ptr<io::BlockFile>>> open_file(io::World& world, std::string path, io::OpenOptions options) {
  co_return co_await world.files().open(std::move(path), options);
}

io::Task<Status> read_file(FilePtr file, std::uint64_t offset, Buffer into) {
  co_return co_await file->read(offset, into.mutable_bytes());
}

io::Task<Status> write_file(FilePtr file, std::uint64_t offset, std::vector<Buffer> buffers, io::Durability d) {
  std::vector<Bytes> parts;
  for (const Buffer& b : buffers) parts.push_back(b.bytes());
  co_return co_await file->write(offset, parts, d);
}

io::Task<Status> sync_file(FilePtr file) { co_return co_await file->sync(); }

Status given_up(const std::string& path, io::Duration limit) {
  return Status(Code::io_error, path + ": an operation has not returned for " + std::to_string(limit / std::chrono::milliseconds(1)) +
                                    " ms: the device hangs");
}

}  // namespace

io::Task<Result<std::unique_ptr<WatchedFile>>> WatchedFile::open(io::World& world, std::string path, io::OpenOptions options, io::Duration limit) {
  auto opened = co_await io::within(world, limit, open_file(world, path, options));
  if (!opened) co_return given_up(path, limit);
  if (!opened->ok()) co_return opened->status();
  co_return std::make_unique<WatchedFile>(world, std::move(**opened), path, limit);
}

Status WatchedFile::refusal() const { return given_up(path_, limit_); }

io::Task<Status> WatchedFile::watch(io::Task<Status> operation) {
  auto status = co_await io::within(world_, limit_, std::move(operation));
  if (status) co_return *status;
  hung_ = true;
  co_return refusal();
}

io::Task<Status> WatchedFile::read(std::uint64_t offset, Buffer into) {
  if (hung_) co_return refusal();
  co_return co_await watch(read_file(file_, offset, std::move(into)));
}

io::Task<Status> WatchedFile::read(std::uint64_t offset, MutableBytes into) {
  Buffer b = Buffer::allocate(into.size());
  Status s = co_await read(offset, b);
  if (s.ok() && !into.empty()) std::memcpy(into.data(), b.data(), into.size());
  co_return s;
}

io::Task<Status> WatchedFile::write(std::uint64_t offset, std::vector<Buffer> parts, io::Durability d) {
  if (hung_) co_return refusal();
  co_return co_await watch(write_file(file_, offset, std::move(parts), d));
}

io::Task<Status> WatchedFile::write(std::uint64_t offset, Buffer part, io::Durability d) {
  std::vector<Buffer> parts;
  parts.push_back(std::move(part));
  co_return co_await write(offset, std::move(parts), d);
}

io::Task<Status> WatchedFile::write(std::uint64_t offset, std::span<const Bytes> parts, io::Durability d) {
  std::vector<Buffer> copies;
  for (Bytes p : parts) copies.push_back(Buffer::copy_of(p));
  co_return co_await write(offset, std::move(copies), d);
}

io::Task<Status> WatchedFile::sync() {
  if (hung_) co_return refusal();
  co_return co_await watch(sync_file(file_));
}

}  // namespace luge::sled
