// Checkpoints kept in a directory: DIR/MACHINE/NUMBER.lvck, the oldest with every page, each other with what changed since the one before.
//
// Invariants
// - A checkpoint is there when its file has its name; it gets it after its bytes are durable (`durable`), in order. What a crash leaves
//   behind (*.part) is removed by the next begin().
// - From begin() to its end a writer has the lock (flock) of DIR/MACHINE: another's begin() is a conflict. So a sender that has given up
//   waiting, and comes again, meets no writer whose commit goes on.
// - A checkpoint's chain is complete: trim() merges the oldest two into one, in place: until the merged header is written, the newer of the
//   two is still there, and what it has not is untouched.
// - A page is only handed out if its CRC is right; corrupt names the page and the file.
// Threads: one writer, in whatever process; readers in other processes find committed files only.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "vmstate/checkpoint_format.hpp"
#include "vmstate/entry_table.hpp"
#include "vmstate/target.hpp"

namespace luge::vmstate {

struct StoredCheckpoint {
  std::uint64_t sequence = 0, parent = 0, created_ns = 0;
  std::uint64_t entries = 0, bytes = 0;  ///< pages in its file; of the file, as it is allocated
  Shape shape;
};

class Store {
 public:
  explicit Store(std::string directory) : directory_(std::move(directory)) {}

  /// Oldest first. What was never committed isn't among them; a file that can't be read ends the list with its error.
  Result<std::vector<StoredCheckpoint>> list(const std::string& machine) const;
  Result<std::vector<std::string>> machines() const;

  struct Files {
    std::string memory, state, description, disk;  ///< paths to write; disk empty: not wanted
    /// Memory goes into the file that is there: a QEMU that waits has it mapped. Else a new file takes its place: a machine may run in it.
    bool in_place = false;
  };
  /// Writes the state as of checkpoint `sequence` (0: the newest). Files get their names when all is written.
  Result<StoredCheckpoint> restore(const std::string& machine, std::uint64_t sequence, const Files& to) const;
  /// Until at most `keep` are left.
  Status trim(const std::string& machine, std::size_t keep, bool durable);

  std::string folder(const std::string& machine) const { return directory_ + "/" + machine; }

 private:
  friend class StoreTarget;
  Result<StoredCheckpoint> write(const std::string& machine, std::uint64_t sequence, const Files& to) const;
  std::string directory_;
};

/// What `write` does, into files that get the names of `to` when it has gone well; or none does.
Result<StoredCheckpoint> write_and_name(const Store::Files& to, const std::function<Result<StoredCheckpoint>(const Store::Files&)>& write);

/// Letters, digits, - and _, at most 63.
Status check_machine_name(const std::string& name);

class StoreTarget final : public Target {
 public:
  struct Options {
    std::size_t keep = 4;
    bool durable = true;  ///< false: survives this process's end, not the host's (a standby's store, where two hosts don't die at once)
  };
  StoreTarget(std::string directory, Options options) : store_(std::move(directory)), options_(options) {}
  ~StoreTarget() override;
  Result<std::uint64_t> newest(const std::string& machine) override;
  Status begin(const Begin& begin) override;
  Status put(const PageBatch& batch) override;
  Status commit(const std::string& device_state, const std::string& description) override;
  void abandon() override;

 private:
  Status lock(const std::string& folder);
  Status open_part(const Begin& begin, const std::string& folder);
  void let_go();
  Store store_;
  const Options options_;
  Begin begin_;
  std::string path_, part_;
  int fd_ = -1, lock_ = -1;
  EntryTable table_;
  std::uint64_t slots_ = 0;
};

}  // namespace luge::vmstate
