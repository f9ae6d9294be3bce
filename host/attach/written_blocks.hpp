// Which blocks of a volume its guest has written: a filter before the volume, for a VMC whose checkpoints have the disk in them.
//
// A block is noted after its write has ended, whatever its end: who takes the notes and then reads finds the data, or the note again.
// The notes are a bitmap in a memfd, a bit for each 4 KiB; the VMC clears words by atomic exchange. Threads: the World's.
#pragma once

#include <memory>

#include "card/dirty_log.hpp"
#include "client/block_target.hpp"

namespace luge::attach {

class WrittenBlocks final : public client::BlockTarget {
 public:
  /// What it stands before; null: nothing may be asked of it.
  void set_target(client::BlockTarget* target) { target_ = target; }
  client::BlockTarget* target() const { return target_; }
  /// From now on, with an empty bitmap for `bytes`. Its descriptor, the caller's.
  Result<int> track(std::uint64_t bytes);
  void untrack() { log_ = nullptr; }

  std::uint64_t size_bytes() const override { return target_->size_bytes(); }
  void write(std::uint64_t offset, Buffer image, std::uint32_t length, Done done) override;
  void read(std::uint64_t offset, std::uint32_t length, ReadDone done) override { target_->read(offset, length, std::move(done)); }
  void trim(std::uint64_t offset, std::uint32_t length, Done done) override;
  void zero(std::uint64_t offset, std::uint32_t length, Done done) override;
  void map(std::uint64_t offset, std::uint32_t length, MapDone done) override { target_->map(offset, length, std::move(done)); }

 private:
  Done noting(std::uint64_t offset, std::uint32_t length, Done done);
  client::BlockTarget* target_ = nullptr;
  std::shared_ptr<card::DirtyLog> log_;
};

}  // namespace luge::attach
