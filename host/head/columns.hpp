// Where a primary may write stripes: the columns it has claimed on the sleds and their free slots.
//
// Invariants
// - A sled is used in an epoch only after it has persisted that epoch (Fence) and listed its slots (protocol 8.2).
// - A sled's columns are known with the credentials that it gave out for them (architecture A8), on presentation of the designation.
// - A slot is handed out once and never again, whatever became of the attempt (protocol 8.1).
// - Columns of one stripe are on different sleds, always (FL-01).
// - Inside the sandbox nobody but the sled is asked for a column (FL-08). Outside it the control plane is asked for more, and, if it has
//   none or does not answer, the sled for any that is free (FL-09, CP-08).
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "head/partition.hpp"
#include "wire/sled_generated.h"

namespace luge::head {

class Columns {
 public:
  /// role: of the columns: 0 for data; for a replica's checkpoints its node's id.
  Columns(Context& ctx, Partition& partition, Epoch epoch, NodeId role = 0) : ctx_(ctx), partition_(partition), epoch_(epoch), role_(role), one_(ctx.world) {}

  /// k + m places on different sleds; down to k + 1, the missing ones with sled = 0 (a narrower stripe, protocol 8.5).
  /// degraded: too few sleds, the text names who is missing. fenced: this primary's epoch is over.
  io::Task<Result<std::vector<fbs::ChunkPlace>>> allocate(Layout layout, std::uint32_t chunk_bytes);
  /// Places for the chunks that `row` lacks, in their positions, on sleds that hold none of it; as many as there are, all
  /// other positions with sled = 0. Errors as allocate().
  io::Task<Result<std::vector<fbs::ChunkPlace>>> allocate_missing(StripeRow row);
  /// The sled has freed the slot: it may be handed out again, in its next generation.
  void freed(const fbs::ChunkPlace& place);
  /// The sled refused or did not answer: not used again for a while.
  void avoid(NodeId sled);
  /// Of the place's column, for this epoch; null: none has been given out by the sled.
  struct Counters {
    std::uint64_t requests = 0;         ///< for columns, to the control plane
    std::uint64_t outside_space = 0;    ///< columns claimed outside the sandbox: it had no more on that sled
    std::uint64_t outside_domain = 0;   ///< ... it never had one there, and k + m different sleds were needed
  };
  const Counters& counters() const { return counters_; }
  const fbs::Credential* credential(const fbs::ChunkPlace& place) const;
  std::vector<fbs::Credential> credentials(const std::vector<fbs::ChunkPlace>& places) const;
  /// The same, after asking the sled for those of all its columns if need be.
  io::Task<Result<fbs::Credential>> ask_credential(fbs::ChunkPlace place);
  /// A write to these was refused: if for its credentials, the sleds are asked for others before they are used again.
  void refused(const std::vector<fbs::ChunkPlace>& places, const Status& why);
  /// A sled that came back may be used at once.
  void retry_all() { avoid_until_.clear(); }

 private:
  struct Column {
    std::uint16_t device = 0;
    std::uint32_t number = 0;
    Generation generation = 0;
    std::uint32_t slot_bytes = 0;
    fbs::Credential credential;
    std::vector<std::pair<std::uint32_t, Generation>> free;  // slot, its generation; taken from the back
  };
  struct Sled {
    bool listed = false;
    bool renew = false;  // its credentials
    std::vector<Column> columns;
    std::uint64_t handed_out = 0;
    bool full = false;
  };
  io::Task<Status> prepare(NodeId sled);
  /// Usable sleds, those that the sandbox or what is claimed already has room on first, then those with the fewest chunks of this VP; `missing` gets the names of the others.
  std::vector<NodeId> candidates(std::uint32_t slot_bytes, std::string& missing) const;
  io::Task<Status> take_on(NodeId sled, std::uint32_t slot_bytes, fbs::ChunkPlace& place);
  io::Task<Status> list(NodeId sled, Sled& into);
  io::Task<Status> renew(NodeId sled);
  io::Task<Status> claim(NodeId sled, std::uint32_t slot_bytes);
  io::Task<Status> claim_inside(NodeId sled, std::uint32_t slot_bytes);
  io::Task<Status> claim_outside(NodeId sled, std::uint32_t slot_bytes);
  io::Task<Status> claim_column(NodeId sled, std::uint16_t device, std::uint32_t column, std::uint32_t slot_bytes);
  io::Task<void> more_sandbox();
  bool inside(NodeId sled, std::uint32_t slot_bytes) const;
  bool known(NodeId sled, const fbs::SandboxColumn& column) const;
  bool take(NodeId sled, std::uint32_t slot_bytes, fbs::ChunkPlace& place);
  void learn(Sled& sled, const fbs::Column& column);

  Context& ctx_;
  Partition& partition_;
  Epoch epoch_;
  NodeId role_;
  io::Mutex one_;  // asks at a time: listing a sled anew beside one that takes its slots would hand them out twice
  std::map<NodeId, Sled> sleds_;
  std::map<NodeId, io::Time> avoid_until_;
  Counters counters_;
  std::uint64_t turn_ = 0;  // of the stripes allocated
  std::set<std::pair<NodeId, std::pair<std::uint16_t, std::uint32_t>>> tried_;  // sandbox columns asked for already
};

}  // namespace luge::head
