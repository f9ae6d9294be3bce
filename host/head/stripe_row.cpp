#include "head/stripe_row.hpp"

namespace luge::head {

bool StripeRow::narrower() const {
  for (std::size_t i = 0; i < places.size(); ++i)
    if (places.sled_of(i) == 0) return true;
  return false;
}

NodeId StripeRow::sled_of(std::uint32_t block) const {
  std::uint32_t per_chunk = chunk_bytes / kBlockBytes;
  std::uint32_t chunk = per_chunk == 0 ? layout.k : block / per_chunk;
  return chunk < layout.k && chunk < places.size() ? places.sled_of(chunk) : 0;
}

}  // namespace luge::head
