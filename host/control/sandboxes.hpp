// Which columns have been recommended to which VPs. Beside the rows it counts how often each column and each device is among them: a
// recommendation costs what the VP has and what it asks for, however many others there are.
#pragma once

#include <absl/container/flat_hash_map.h>

#include <cstdint>
#include <initializer_list>
#include <map>
#include <ranges>
#include <set>
#include <tuple>
#include <utility>

#include "base/ids.hpp"

namespace luge::control {

/// A column recommended to a VP. Neither an allocation nor a limit: sleds arbitrate claims.
struct SandboxRow {
  VpId vp = 0;
  NodeId sled = 0;
  std::uint16_t device = 0;
  std::uint32_t column = 0;
  auto operator<=>(const SandboxRow&) const = default;
};

class Sandboxes {
 public:
  using Rows = std::set<SandboxRow>;  ///< by VP, sled, device, column
  Sandboxes() = default;
  Sandboxes(std::initializer_list<SandboxRow> rows) {
    for (const SandboxRow& r : rows) insert(r);
  }

  void insert(const SandboxRow& r) {
    if (!rows_.insert(r).second) return;
    ++columns_[{r.sled, r.device, r.column}];
    ++devices_[{r.sled, r.device}];
  }
  /// All of a VP.
  void erase(VpId vp) {
    auto [first, last] = range(vp);
    for (auto it = first; it != last; ++it) forget(*it);
    rows_.erase(first, last);
  }
  void erase(const SandboxRow& r) {
    if (rows_.erase(r) != 0) forget(r);
  }

  const Rows& rows() const { return rows_; }
  std::size_t size() const { return rows_.size(); }
  bool empty() const { return rows_.empty(); }
  auto of(VpId vp) const {
    auto [first, last] = range(vp);
    return std::ranges::subrange(first, last);
  }
  /// Is it recommended to any VP?
  bool taken(NodeId sled, std::uint16_t device, std::uint32_t column) const { return columns_.contains({sled, device, column}); }
  /// Recommendations of the device's columns, to all VPs.
  std::uint64_t used(NodeId sled, std::uint16_t device) const {
    auto it = devices_.find({sled, device});
    return it == devices_.end() ? 0 : it->second;
  }
  bool operator==(const Sandboxes& o) const { return rows_ == o.rows_; }

 private:
  std::pair<Rows::const_iterator, Rows::const_iterator> range(VpId vp) const { return {rows_.lower_bound({vp}), rows_.lower_bound({vp + 1})}; }
  void forget(const SandboxRow& r) {
    drop(columns_, std::tuple(r.sled, r.device, r.column));
    drop(devices_, std::pair(r.sled, r.device));
  }
  template <class Map, class Key>
  static void drop(Map& counts, const Key& key) {
    auto it = counts.find(key);
    if (--it->second == 0) counts.erase(it);
  }

  Rows rows_;
  absl::flat_hash_map<std::tuple<NodeId, std::uint16_t, std::uint32_t>, std::uint32_t> columns_;
  std::map<std::pair<NodeId, std::uint16_t>, std::uint64_t> devices_;
};

}  // namespace luge::control
