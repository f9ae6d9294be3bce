// What must hold of a unit, whatever happened to it, beyond what clients see (history.hpp):
//  - who has promised an epoch takes nothing under an older one, also after a crash: heads records, sleds changes;
//  - what the store has answered it still holds when the control plane starts again, unless it was set back;
//  - what a replica has let go of does not come back to it by a restart;
//  - a replica on a disk that keeps its promises is never found suspect after a crash;
//  - no write is acknowledged while fewer than min_copies are required to hold it;
//  - required replicas of a VP are equal up to the commit LSN: index, stripes, and the records that only logs hold;
//  - what only logs hold is in the log of each of them, as its disk is;
//  - every chunk of a live stripe is whole on its sled's medium, unless this seed has damaged it there, and its parity is that of its data;
//  - no sled says that it lacks a chunk which nothing has happened to.
#pragma once

#include <map>
#include <set>
#include <string>

#include "sim/cluster/damage.hpp"
#include "sim/cluster/media.hpp"
#include "switches/paths.hpp"

namespace luge::sim {

class Judge {
 public:
  Judge(Simulation& sim, const Unit& unit, const Media& media, const Damage& damage)
      : sim_(sim), unit_(unit), damage_(damage), media_(media) {}

  /// From on_witnessed(). The first broken promise stays in broken_promise().
  void witness(Fact fact, VpId vp, std::uint64_t value, std::uint64_t more);
  const std::string& broken_promise() const { return broken_promise_; }

  /// Empty, or how the required replicas of some VP differ. Meaningful when nothing is written.
  std::string disagreement() const;
  /// Empty, or which record that only logs hold is not whole in the log of a head that is required to have it: on its disk, whatever its
  /// memory says.
  std::string not_in_log() const;
  /// Empty, or what is wrong with a live stripe. Meaningful when no sled writes.
  std::string bad_stripe() const;
  /// Could every live stripe be read with these sleds gone too?
  bool can_lose(const std::vector<Node>& sleds) const;


 private:
  void store_holds(Fact fact, VpId vp, Epoch epoch, Revision revision);
  void leases_have_run_out(VpId vp, Epoch epoch);
  void chunk_was_lost(Node head, StripeId stripe, std::uint32_t chunk);
  bool may_lack(const head::StripeRow& row, std::uint32_t chunk) const;
  bool device_serves(const fbs::ChunkPlace& place) const;
  template <class F>
  void each_live_stripe(F f) const;

  Simulation& sim_;
  const Unit& unit_;
  const Damage& damage_;
  const Media& media_;
  struct Dropped {
    Lsn beyond;
    Epoch epoch;
  };
  void broken(const std::string& promise) { if (broken_promise_.empty()) broken_promise_ = promise; }

  std::map<std::pair<Node, VpId>, Epoch> promised_;
  std::map<std::pair<Node, VpId>, Dropped> dropped_;  // and nothing taken since
  std::map<VpId, std::pair<Epoch, Revision>> stored_;  // since the store was set back last
  std::uint64_t set_backs_ = 0;
  std::set<std::pair<Node, VpId>> rebuilt_;           // at present
  std::string broken_promise_;
};

}  // namespace luge::sim
