// Writes checkpoints of one replica's metadata to the sleds: the primary's and each reserve's own, on triggers of their own and
// beside flushes (protocol 9). A checkpoint holds committed records only. It lies in stripes of the VP's layout, in columns that
// are kept for this node's checkpoints.
//
// Invariants
// - It counts when it has been read back from the sleds, all chunks of it, and is what was written.
// - Two that count are kept, with all that they stand on; what else is in this node's columns is freed after that, and never before.
// - No more is written than options.checkpoint_percent of the metadata records since this process started, and no more than half of that
//   for those that say what has changed: else a whole one would never be affordable.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "head/checkpoint_format.hpp"
#include "head/columns.hpp"
#include "head/partition.hpp"

namespace luge::head {

class Checkpoints {
 public:
  Checkpoints(Context& ctx, Partition& partition) : ctx_(ctx), partition_(partition) {}
  void start();
  /// JSON object, for the head's report.
  std::string report() const;
  struct Counters {
    std::uint64_t written = 0, whole = 0, failed = 0, freed_slots = 0;
    std::uint64_t bytes = 0;        ///< of checkpoints, as they were encoded
    std::uint64_t stored_bytes = 0; ///< on sleds: padding, headers and parity included
  };
  const Counters& counters() const { return counters_; }
  /// Point of the newest that counts; zeros: none.
  LogPoint newest() const { return chain_.empty() ? LogPoint{} : chain_.back().head.point(); }

 private:
  struct Kept {
    CheckpointHead head;
    std::uint64_t bytes = 0;
  };
  io::Task<void> run();
  bool mine() const;
  bool due() const;
  bool held_back_by_flush() const;
  Lsn base() const;
  enum class Kind { whole, changes };
  std::uint64_t allowance(Kind kind) const;
  std::uint64_t stripe_bytes() const;
  std::uint64_t stored_size(std::uint64_t bytes) const;
  io::Task<Status> write_one();
  io::Task<Status> store(CheckpointHead head, const std::string& bytes);
  io::Task<Result<StripeRow>> store_stripe(const CheckpointHead& head, Buffer data, std::uint32_t first_block, std::uint32_t blocks);
  void keep(Kept kept);
  Lsn older() const;
  bool left_behind(const StoredCheckpoint& stored) const;
  io::Task<void> free_others();
  io::Task<bool> free_chunks(const StoredCheckpoint& stored);
  io::Task<bool> free_chunk(Columns& of, StripeId stripe, fbs::ChunkPlace place);

  Context& ctx_;
  Partition& partition_;
  std::shared_ptr<Columns> columns_;
  Epoch epoch_ = 0;                 // of columns_
  std::uint64_t resets_ = 0;        // of the partition, when the chain was begun
  std::vector<Kept> chain_;         // a whole one and what stands on it
  std::vector<Kept> chain_before_;  // kept until two of chain_ count
  std::uint64_t logged_ = 0;        // metadata records when the newest was begun
  std::uint64_t changes_stored_ = 0;  // of counters_.stored_bytes, for those that say what has changed
  std::uint64_t wait_until_ = 0;    // ... and before so many nothing fits the allowance
  io::Time written_at_{};
  bool others_ = true;              // there may be something in this node's columns that is to be freed
  Counters counters_;
};

}  // namespace luge::head
