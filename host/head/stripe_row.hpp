// A row of a VP's stripe table: what a stripe is and where its chunks are.
#pragma once

#include <cstdint>

#include "base/ids.hpp"
#include "head/places.hpp"

namespace luge::head {

struct StripeRow {
  StripeId id;
  Layout layout;
  std::uint32_t chunk_bytes = 0;
  std::uint32_t live_blocks = 0;
  Places places;
  Lsn changed = 0;  ///< last record that changed the row (not the live blocks)
  bool narrower() const;  ///< written with fewer chunks than the layout asks for
  /// The sled with data block `block` of the stripe; 0: none has it.
  NodeId sled_of(std::uint32_t block) const;
};

}  // namespace luge::head
