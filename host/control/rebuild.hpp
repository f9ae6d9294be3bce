// A store that was lost, made anew of what heads and sleds hold (protocol 5.2): the designations with their volumes' names, the
// columns that are claimed, what attach daemons serve.
//
// What a new store may not do is to promote: a member that has not answered may know a greater epoch. So a VP is doubted (store.hpp)
// until every member of the greatest designation that was found has answered, or an operator accepts the loss.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "control/registry.hpp"
#include "control/store.hpp"
#include "wire/unit_key.hpp"

namespace luge::control {

struct HeldVp {
  Designation designation;
  std::uint64_t incarnation = 0;  ///< greatest of a client session that the head knows
};

/// What those that are up have answered.
struct Findings {
  std::map<NodeId, std::map<VpId, HeldVp>> heads;
  std::set<SandboxRow> columns;  ///< claimed, by a sled's word, or recommended, by a head's
  std::vector<std::string> silent;
};

struct Plan {
  Change change;
  std::vector<std::string> left;
  bool waiting = false;  ///< for somebody who may have more
};

/// Asks all heads and sleds that are up.
io::Task<Findings> gather_findings(io::World& world, Registry& registry);
/// What becomes of it. `verifier`: only designations that it finds genuine count; null: all.
Plan plan_rebuild(const Registry& registry, const Image& image, const Findings& found, const wire::Verifier* verifier, bool accept_loss);

}  // namespace luge::control
