// A file whose operations end: one that has not returned within the limit is given up with io_error, and so is everything
// asked of the file after it.
//
// An operation that the kernel has cannot be taken back. It stays behind in a task of its own, with the memory that it
// uses, until the kernel returns it: nobody waits for it, and nothing that it might still touch is used again.
//
// One task watches all operations of a file: it looks at them in turns of an eighth of the limit, and a turn counts once however long it
// took. Time in which this process itself stood still (stopped, suspended) is not held against the file.
#pragma once

#include <list>
#include <memory>
#include <string>
#include <vector>

#include "io/files.hpp"

namespace luge::io {

class WatchedFile final : public BlockFile {
 public:
  WatchedFile(World& world, std::unique_ptr<BlockFile> file, std::string path, Duration limit);
  ~WatchedFile() override;

  /// Opens within the limit: a device may hang as soon as that. Making a file takes as long as it takes: pass one that is open.
  static Task<Result<std::unique_ptr<WatchedFile>>> open(World& world, std::string path, OpenOptions options, Duration limit);

  std::uint64_t size() const override;
  /// Through a copy: the caller's memory is the caller's again when these return, whatever became of the operation.
  Task<Status> read(std::uint64_t offset, MutableBytes into) override;
  Task<Status> write(std::uint64_t offset, std::span<const Bytes> parts, Durability d) override;
  Task<Status> sync() override;
  /// Not watched: it takes as long as what is new is large.
  Task<Status> grow(std::uint64_t bytes) override;
  /// Without a copy: shares the memory until the operation has ended. After an error nobody may use it again.
  Task<Status> read(std::uint64_t offset, Buffer into) override;
  Task<Status> write(std::uint64_t offset, std::vector<Buffer> parts, Durability d);
  Task<Status> write(std::uint64_t offset, Buffer part, Durability d);
  /// The same for parts of memory that `owner` keeps.
  Task<Status> write(std::uint64_t offset, std::vector<Bytes> parts, std::shared_ptr<const void> owner, Durability d);

  bool hung() const;

 private:
  struct Operation;
  struct Shared;
  using SharedPtr = std::shared_ptr<Shared>;
  using FilePtr = std::shared_ptr<BlockFile>;
  using OperationPtr = std::shared_ptr<Operation>;
  static Task<void> read_file(FilePtr file, OperationPtr op, std::uint64_t offset, Buffer into);
  static Task<void> write_file(FilePtr file, OperationPtr op, std::uint64_t offset, std::vector<Bytes> parts, std::shared_ptr<const void> owner, Durability d);
  static Task<void> sync_file(FilePtr file, OperationPtr op);
  static Task<void> watch(SharedPtr shared);
  template <class Begin>
  Task<Status> watched(Begin begin);

  SharedPtr shared_;
};

}  // namespace luge::io
