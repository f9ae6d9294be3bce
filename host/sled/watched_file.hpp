// A file whose operations end: one that has not returned within the limit is given up with io_error, and so is everything
// asked of the file after it.
//
// An operation that the kernel has cannot be taken back. It stays behind in a task of its own, with the memory that it
// uses, until the kernel returns it: nobody waits for it, and nothing that it might still touch is used again.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "io/files.hpp"

namespace luge::sled {

class WatchedFile final : public io::BlockFile {
 public:
  WatchedFile(io::World& world, std::unique_ptr<io::BlockFile> file, std::string path, io::Duration limit)
      : world_(world), file_(std::move(file)), path_(std::move(path)), limit_(limit) {}

  /// Opens within the limit: a device may hang as soon as that.
  static io::Task<Result<std::unique_ptr<WatchedFile>>> open(io::World& world, std::string path, io::OpenOptions options, io::Duration limit);

  std::uint64_t size() const override { return file_->size(); }
  /// Through a copy: the caller's memory is the caller's again when these return, whatever became of the operation.
  io::Task<Status> read(std::uint64_t offset, MutableBytes into) override;
  io::Task<Status> write(std::uint64_t offset, std::span<const Bytes> parts, io::Durability d) override;
  io::Task<Status> sync() override;
  /// Without a copy: shares the memory until the operation has ended. After an error nobody may use it again.
  io::Task<Status> read(std::uint64_t offset, Buffer into);
  io::Task<Status> write(std::uint64_t offset, std::vector<Buffer> parts, io::Durability d);
  io::Task<Status> write(std::uint64_t offset, Buffer part, io::Durability d);

  bool hung() const { return hung_; }

 private:
  io::Task<Status> watch(io::Task<Status> operation);
  Status refusal() const;

  io::World& world_;
  std::shared_ptr<io::BlockFile> file_;  // also of the operations that were given up
  std::string path_;
  io::Duration limit_;
  bool hung_ = false;
};

}  // namespace luge::sled
