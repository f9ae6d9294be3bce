// A VP with no complete member left (protocol 4.6): who would open it, how far the others reach, and the designation with
// which an operator accepts the loss of what only the missing ones have.
#pragma once

#include <string>
#include <vector>

#include "control/reports.hpp"
#include "control/store.hpp"

namespace luge::control {

/// A member as it is known now.
struct Reach {
  NodeId node = 0;
  bool required = false;  ///< holds all that was acknowledged, unless it is suspect
  bool up = false;        ///< and has said how far it reaches
  bool unknown = false;   ///< it is there, or may be (the control plane has just started), and has not said what it holds
  bool suspect = false;
  bool serving = false;   ///< is the primary, open or about to be
  std::string state, reason;
  Lsn last = 0, commit = 0;
  /// Opens the VP by itself, or helps to, without any loss.
  bool complete() const { return required && up && !suspect && last != 0; }
};

/// Of all members, primary first.
std::vector<Reach> reach_of(const Registry& registry, const Reports& reports, const Designation& d);
/// No member that is up could open it.
bool closed(const std::vector<Reach>& members);
/// A sentence for an operator: who would open it, and how far the others reach.
std::string why_closed(const Registry& registry, const std::vector<Reach>& members);

/// May `head`'s replica be made the truth? `force`: also where a complete member is up.
Status check_loss(const Registry& registry, const Designation& d, const std::vector<Reach>& members, NodeId head, bool force);
/// The designation that begins a new history with `head`'s replica. Its epoch lies above any that the old history can have
/// reached without the store's knowledge; the other members catch up from nothing.
Designation accept_loss(const Designation& d, NodeId head, std::uint64_t random_history, std::uint64_t random_epoch);

}  // namespace luge::control
