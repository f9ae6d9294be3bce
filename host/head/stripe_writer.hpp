// Hands a stripe to its gateway sled, or codes it here (coding = head): new ones (flush) and chunks that an existing one lacks (widen).
#pragma once

#include <vector>

#include "base/buffer.hpp"
#include "coding/chunk_header.hpp"
#include "head/context.hpp"

namespace luge::head {

struct StripeWrite {
  VpId vp = 0;
  Epoch epoch = 0;                              ///< of the primary that asks
  StripeId id;
  Layout layout;
  std::uint32_t chunk_bytes = 0;
  std::vector<fbs::BlockIdentity> identities;   ///< of all k * chunk_bytes / 4096 blocks, in order
  std::vector<Buffer> payload;                  ///< the same blocks
  std::vector<fbs::ChunkPlace> places;          ///< k + m; sled = 0: not to be written
  std::vector<fbs::Credential> credentials;     ///< of their columns, as many (Columns::credentials)
  bool widen = false;                           ///< the stripe exists; only what `places` names is added to it
};

/// ok: every chunk that has a place is durable and verified. Else what became of the attempt is not known for
/// certain, and its slots must not be used again (protocol 8.1). fenced: a sled knows a newer epoch.
io::Task<Status> write_stripe(Context& ctx, StripeWrite& stripe, NodeId gateway);

}  // namespace luge::head
