// Who serves a VP (architecture A1), as a value. The wire and disk form is fbs::Designation.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/ids.hpp"
#include "base/status.hpp"
#include "wire/common_generated.h"

namespace luge::wire {

/// So many epochs, as a power of two, are a history's own.
inline constexpr unsigned kHistoryEpochBits = 20;

struct Designation {
  VpId vp = 0;
  Epoch epoch = 0;
  Revision revision = 0;
  std::uint64_t history = 0;
  NodeId primary = 0;
  std::vector<NodeId> reserves;  ///< in the order in which they take over
  std::vector<NodeId> required;  ///< must acknowledge; contains the primary
  Layout layout;
  std::uint32_t min_copies = 2;
  std::uint64_t blocks = 0;  ///< size of the VP
  std::uint64_t unit = 0;     ///< these four are the control plane's to fill in, whatever is proposed
  std::string volume;         ///< name
  std::uint64_t vp_bytes = 0; ///< of the volume
  bool opened = false;        ///< a primary has opened the VP, or was about to: all of `required` held an epoch's start; stays true
  std::string signature;      ///< 64 bytes (unit_key.hpp); empty: not signed

  bool operator==(const Designation&) const = default;

  static Designation from(const fbs::Designation& d);
  flatbuffers::Offset<fbs::Designation> to(flatbuffers::FlatBufferBuilder& b) const;
  std::string serialize() const;
  static Result<Designation> parse(std::string_view bytes);

  /// What is signed: everything but the signature, in one way only (docs/formats.md).
  std::string signed_bytes() const;
  std::vector<NodeId> members() const;  ///< primary first
  bool has_member(NodeId n) const;
  bool requires_node(NodeId n) const;
  /// By epoch, then by revision.
  bool newer_than(const Designation& o) const {
    return epoch != o.epoch ? epoch > o.epoch : revision > o.revision;
  }
  /// Another VP of the same number: one that was made anew, by a store that had not heard of this one. A history that follows another begins
  /// with an accepted loss, and that in an epoch beyond all of the one before it (kHistoryEpochBits).
  bool made_anew_beside(const Designation& o) const {
    return history != 0 && o.history != 0 && history != o.history && (epoch >> kHistoryEpochBits) == 0 && (o.epoch >> kHistoryEpochBits) == 0;
  }
  /// Members distinct, required among them and holding the primary, limits kept. invalid says what is not.
  Status well_formed() const;
};

}  // namespace luge::wire
