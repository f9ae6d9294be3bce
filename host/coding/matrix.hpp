// The code's coefficients, for whatever multiplies by them (erasure_coder.hpp says which code): a row for each wanted chunk, its k
// coefficients in the order of the sources.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/ids.hpp"
#include "base/status.hpp"

namespace luge::coding {

/// Row-major, wanted.size() x k, plain bytes. sources: indices (0 .. k + m - 1) of the k chunks that are there, ascending; wanted: of
/// those to make. Encoding: sources 0 .. k - 1, wanted k .. k + m - 1. internal: the sources' matrix is singular (no set of k is).
/// REQUIRES: k 1..16, m 0..4, indices of the layout.
Result<std::vector<std::uint8_t>> coefficients(Layout layout, std::span<const std::uint32_t> sources, std::span<const std::uint32_t> wanted);

/// The first k of `present` that are not empty, all of one size, or why there are none: degraded, invalid.
Result<std::vector<std::uint32_t>> choose_sources(Layout layout, std::span<const std::span<const std::byte>> present);

/// invalid: not 1..16 data and 0..4 parity chunks.
Status check_layout(Layout layout);

}  // namespace luge::coding
