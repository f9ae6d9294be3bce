// Checkpoints of machines on a volume: several kept, each with what changed since the one before, the oldest with every page.
//
// On the volume (docs/formats.md): block 0 and kDirectoryBlocks hold a directory each, the rest is blocks of 4096 bytes for pages, tables of
// pages, device states and descriptions. A directory names all checkpoints; the one of the higher generation that is whole counts.
//
// Invariants
// - A block that the directory on the volume names is never written. What a commit writes goes to other blocks; they are durable before the
//   other directory is written, and what that one doesn't name any more is free when it is durable. So there is always one that counts, and
//   all that it names is there, wherever the power fails.
// - A chain is complete: dropping the oldest checkpoint joins its table with that of the next; no page moves.
// - A page is only handed out if its CRC is right.
// - One writer at a time, which whoever sets it up sees to: a commit of another since open() is noticed (Code::conflict) before anything is
//   written for a checkpoint and before a directory is, but not what two write in the same moment.
// Threads: one.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "vmstate/block_file.hpp"
#include "vmstate/entry_table.hpp"
#include "vmstate/store.hpp"
#include "vmstate/target.hpp"

namespace luge::vmstate {

class VolumeStore {
 public:
  static constexpr std::uint64_t kDirectoryBlocks = 64;
  struct Extent {
    std::uint64_t block = 0, bytes = 0;
    std::uint32_t crc = 0;
    std::uint64_t blocks() const { return (bytes + kPage - 1) / kPage; }
  };
  struct Checkpoint {
    std::string machine;
    std::uint64_t sequence = 0, parent = 0, created_ns = 0;
    Shape shape;
    Extent table, state, description;
    std::vector<CheckpointEntry> entries;  ///< by page; slot: block of the volume
  };

  /// An empty volume becomes a store with the first commit. conflict: it has something else on it; corrupt: no directory is whole.
  static Result<std::unique_ptr<VolumeStore>> open(std::unique_ptr<BlockFile> file);

  std::vector<std::string> machines() const;
  /// Oldest first.
  std::vector<StoredCheckpoint> list(const std::string& machine) const;
  Result<StoredCheckpoint> restore(const std::string& machine, std::uint64_t sequence, const Store::Files& to);

  /// conflict: another has committed since open().
  Status check_alone();
  /// A free block, for this commit; no_space.
  Result<std::uint64_t> take() { return take_run(1); }
  /// Content of pages in blocks that were taken.
  Status write(std::uint64_t block, Bytes content);
  /// The blocks of a checkpoint that comes to nothing.
  void give_up(const std::vector<CheckpointEntry>& entries);
  /// `c.entries` are written; a checkpoint without a parent replaces all of its machine. At most `keep` of the machine stay.
  Status commit(Checkpoint c, const std::string& state, const std::string& description, std::size_t keep);

 private:
  Result<StoredCheckpoint> write(const std::string& machine, std::uint64_t sequence, const Store::Files& to);
  explicit VolumeStore(std::unique_ptr<BlockFile> file) : file_(std::move(file)), used_(file_->bytes() / kPage) {}
  Status load();
  Result<std::uint64_t> take_run(std::uint64_t blocks);
  Result<Extent> write_extent(Bytes content);
  bool inside(const Extent& e) const;
  Result<std::vector<std::byte>> read_extent(const Extent& e);
  Status join_oldest(std::vector<Checkpoint>& all, const std::string& machine);
  Status write_directory(const std::vector<Checkpoint>& all);
  void mark_used();

  std::unique_ptr<BlockFile> file_;
  std::uint64_t generation_ = 0;  // 0: there is no directory yet
  std::vector<Checkpoint> checkpoints_;  // of each machine in the order of their numbers
  std::vector<bool> used_;               // a bit a block: named by the directory on the volume, or taken since
  std::uint64_t next_ = 0;
};

/// Keeps a machine's checkpoints. A store that fails is opened anew for the next one: what it then has on it counts.
class VolumeTarget final : public Target {
 public:
  using Open = std::function<Result<std::unique_ptr<BlockFile>>()>;
  VolumeTarget(Open open, std::size_t keep) : open_store_(std::move(open)), keep_(keep) {}
  ~VolumeTarget() override { abandon(); }
  Result<std::uint64_t> newest(const std::string& machine) override;
  Status begin(const Begin& begin) override;
  Status put(const PageBatch& batch) override;
  Status commit(const std::string& device_state, const std::string& description) override;
  void abandon() override;

 private:
  Status failed(Status s);
  const Open open_store_;
  const std::size_t keep_;
  std::unique_ptr<VolumeStore> store_;
  bool open_ = false;
  Begin begin_;
  EntryTable table_;
};

}  // namespace luge::vmstate
