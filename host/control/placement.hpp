// Who serves a new VP, and which columns it should use. Pure functions of what is known: same input, same answer.
#pragma once

#include <vector>

#include "control/registry.hpp"
#include "control/store.hpp"

namespace luge::control {

/// `copies` distinct heads of `heads`, primary first: the one with the fewest primaries, then the least loaded; ties go
/// to the lower id. Empty: too few heads.
std::vector<NodeId> place_replicas(const std::map<VpId, Designation>& designations,
                                   const std::vector<const Node*>& heads, std::uint32_t copies);

/// Up to `count` further columns for `vp`, spread over all devices of `sleds` that are in order and have free columns.
/// Columns that nobody has been recommended come first; when there are none left, columns of other VPs are recommended too (CP-07: it is no
/// allocation, the sleds arbitrate).
/// `more`: what is being recommended beside those, to other VPs.
std::vector<SandboxRow> recommend_columns(const Sandboxes& recommended, const Sandboxes& more, const std::vector<const Node*>& sleds,
                                          VpId vp, std::uint32_t count);

/// A first sandbox: enough for `bytes` of data with some air, at least a few stripe sets, bounded.
std::uint32_t initial_columns(std::uint64_t bytes, Layout layout, const std::vector<const Node*>& sleds);

}  // namespace luge::control
