// Coefficients for an erasure pattern: what the card multiplies by to make the wanted chunks of a stripe from k that are there.
//
// Only the e x e matrix of lost data chunks against the parity chunks that replace them is inverted, not the k x k matrix of the
// survivors: what is there of the data needs no solving.
#pragma once
#include <stdint.h>

namespace fw {

struct Pattern {
  uint32_t k = 0, m = 0;
  uint32_t present = 0, wanted = 0;  // bit i: chunk i of k + m
  bool operator==(const Pattern&) const = default;
};

inline constexpr unsigned kRows = 4, kSources = 16, kTableBytes = kRows * kSources;

enum class TableResult { made, cached, bad, not_enough };

/// Fills `out` as a load_table descriptor has it: row r, source j at 16 r + j; rows in the order of the wanted chunks, sources the first k that are
/// present. bad: k not 1..16, m not 0..4, nothing or more than 4 wanted, bits beyond the layout.
TableResult make_table(const Pattern& p, uint8_t out[kTableBytes]);

/// The same out of a cache of the last few patterns, as words. The pointer is to the cache: good until the next call; null unless made or cached.
TableResult table_for(const Pattern& p, const uint32_t*& out);
void forget_tables();

}  // namespace fw
