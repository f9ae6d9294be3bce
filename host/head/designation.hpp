// Who serves a VP (architecture A1), as a value. The wire form is fbs::Designation.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "base/ids.hpp"
#include "wire/common_generated.h"

namespace luge::head {

struct Designation {
  VpId vp = 0;
  Epoch epoch = 0;
  Revision revision = 0;
  std::uint64_t history = 0;
  NodeId primary = 0;
  std::vector<NodeId> reserves;
  std::vector<NodeId> required;  ///< must acknowledge; contains the primary
  Layout layout;
  std::uint32_t min_copies = 2;
  std::uint64_t blocks = 0;      ///< size of the VP

  static Designation from(const fbs::Designation& d);
  flatbuffers::Offset<fbs::Designation> to(flatbuffers::FlatBufferBuilder& b) const;
  std::string serialize() const;
  static bool parse(std::string_view bytes, Designation& out);

  bool requires_node(NodeId n) const { return std::find(required.begin(), required.end(), n) != required.end(); }
  bool has_member(NodeId n) const {
    return n == primary || std::find(reserves.begin(), reserves.end(), n) != reserves.end();
  }
  /// Newer than `o`: by epoch, then by revision.
  bool newer_than(const Designation& o) const {
    return epoch != o.epoch ? epoch > o.epoch : revision > o.revision;
  }
};

}  // namespace luge::head
