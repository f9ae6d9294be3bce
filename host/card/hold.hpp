// A card taken out of service for maintenance: a lock on DIR/cardN.hold. The daemon that has the card looks for it, lets its jobs end, codes by itself and
// gives up DIR/cardN.lock; when the hold is gone it opens and tests the card again. The lock goes with its process, so a hold can't be forgotten.
#pragma once

#include <memory>

#include "base/status.hpp"
#include "card/card.hpp"

namespace luge::card {

class Hold {
 public:
  /// Holds the card from now on; returns when no host has it any more, at the latest after `limit`. exists: somebody else holds it. timed_out.
  static io::Task<Result<std::unique_ptr<Hold>>> take(io::World& world, const CardOptions& options, io::Duration limit);
  ~Hold();
  /// Whether a host had the card when the hold was taken.
  bool drained() const { return drained_; }

 private:
  int fd_ = -1;
  bool drained_ = false;
};

/// Somebody holds it. Always false without a directory.
bool card_held(const CardOptions& options);
/// A host has it.
bool card_in_use(const CardOptions& options);

}  // namespace luge::card
