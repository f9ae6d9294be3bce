// The checkpoints of a VP as the sleds have them, found without their authors, and the newest of them that may be used
// (protocol 9.1, 9.3). Any head may ask; nothing is changed.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "head/checkpoint_format.hpp"
#include "head/context.hpp"
#include "head/replica.hpp"

namespace luge::head {

/// The stripes of one checkpoint, by the number of their first block. More than one for a number: attempts of unknown end.
struct StoredCheckpoint {
  NodeId author = 0;
  std::uint64_t id = 0;
  Lsn lsn = 0;
  std::multimap<std::uint32_t, StripeRow> stripes;
};

struct CheckpointCatalog {
  std::map<std::pair<NodeId, std::uint64_t>, StoredCheckpoint> stored;  ///< by author and id
  std::vector<NodeId> answered;                                          ///< the sleds that have told all they have
};

/// Asks all sleds that are up.
io::Task<CheckpointCatalog> list_checkpoints(Context& ctx, VpId vp);

/// What there is to read of one: as little as it takes, or each chunk that has a place; corrupt then also if one of them cannot be
/// read though the others are enough.
enum class ReadChunks { enough, all };
struct ReadCheckpoint {
  Checkpoint checkpoint;
  std::uint64_t bytes = 0;  ///< that the sleds have sent, padding included
};
io::Task<Result<ReadCheckpoint>> read_checkpoint(Context& ctx, VpId vp, const StoredCheckpoint& stored, ReadChunks which);

/// Which checkpoints lie on a survivor's history.
struct CheckpointQuery {
  VpId vp = 0;
  std::uint64_t history = 0;
  std::vector<EpochStart> starts;
  Lsn lowest = 0;   ///< of older ones the survivor cannot tell all changes since
  Lsn commit = 0;
  std::uint64_t blocks = 0;  ///< size of the VP
};

/// invalid: of another volume; stale: of another history, or beyond what is committed in this one, or too old.
Status check_history(const CheckpointQuery& query, const CheckpointHead& head);

struct LoadedCheckpoint {
  LogPoint point;
  NodeId author = 0;
  std::vector<ImageBodies> chain;  ///< the whole one, then what changed; each verified, and loaded once for a try
  std::uint64_t bytes = 0;         ///< read for it
};

/// The newest that is complete, verifies with all of its chain and fits `query`; older ones if it does not. not_found: none.
io::Task<Result<LoadedCheckpoint>> load_newest_checkpoint(Context& ctx, CheckpointQuery query);

/// False: what the bodies say is no state that a replica can be in. REQUIRES: `replica` holds nothing.
bool load_chain(Replica& replica, const std::vector<ImageBodies>& chain);

}  // namespace luge::head
