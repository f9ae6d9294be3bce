#include "coding/matrix.hpp"

#include <isa-l/erasure_code.h>

#include <algorithm>
#include <string>

#include "coding/erasure_coder.hpp"

namespace luge::coding {

Status check_layout(Layout l) {
  if (l.k == 0 || l.k > kMaxData || l.m > kMaxParity)
    return Status(Code::invalid, "layout " + to_string(l) + " is outside 1..16 data and 0..4 parity chunks");
  return Status();
}

// Rows of the inverse of the sources' matrix give the data chunks; a parity chunk is its row times that inverse.
Result<std::vector<std::uint8_t>> coefficients(Layout l, std::span<const std::uint32_t> sources, std::span<const std::uint32_t> wanted) {
  std::vector<unsigned char> a(l.width() * l.k), sub(l.k * l.k), inverse(l.k * l.k), rows(wanted.size() * l.k);
  gf_gen_cauchy1_matrix(a.data(), static_cast<int>(l.width()), static_cast<int>(l.k));
  for (std::uint32_t r = 0; r < l.k; ++r) std::copy_n(a.begin() + sources[r] * l.k, l.k, sub.begin() + r * l.k);
  if (gf_invert_matrix(sub.data(), inverse.data(), static_cast<int>(l.k)) != 0) return Status(Code::internal, "survivor matrix is singular");
  for (std::size_t w = 0; w < wanted.size(); ++w)
    for (std::uint32_t c = 0; c < l.k; ++c) {
      unsigned char sum = 0;
      for (std::uint32_t j = 0; j < l.k; ++j) sum ^= gf_mul(a[wanted[w] * l.k + j], inverse[j * l.k + c]);
      rows[w * l.k + c] = sum;
    }
  return rows;
}

Result<std::vector<std::uint32_t>> choose_sources(Layout l, std::span<const std::span<const std::byte>> present) {
  std::vector<std::uint32_t> sources;
  for (std::uint32_t i = 0; i < l.width() && sources.size() < l.k; ++i)
    if (!present[i].empty()) sources.push_back(i);
  if (sources.size() < l.k)
    return Status(Code::degraded, std::to_string(sources.size()) + " chunks are there, " + std::to_string(l.k) + " are needed");
  for (std::uint32_t i : sources)
    if (present[i].size() != present[sources[0]].size()) return Status(Code::invalid, "chunks differ in size");
  return sources;
}

}  // namespace luge::coding
