#include "firmware/table.hpp"

#include <string.h>

#include "firmware/gf.hpp"

namespace fw {
namespace {

constexpr unsigned kCached = 8;

// Everything about a pattern's sources: which are data, which parity, and which data chunk each parity chunk stands in for.
struct Sources {
  uint8_t known[kSources], known_at[kSources];  // data chunks that are there, and their place among the sources
  uint8_t lost[kRows];                          // data chunks that are not
  uint8_t parity[kRows], parity_at[kRows];      // parity chunks among the sources: as many as are lost
  unsigned knowns = 0, losts = 0;
};

bool find_sources(const Pattern& p, Sources& s) {
  unsigned at = 0, parities = 0;
  for (unsigned i = 0; i < p.k + p.m && at < p.k; ++i) {
    if (p.present >> i & 1) {
      if (i < p.k) s.known[s.knowns] = static_cast<uint8_t>(i), s.known_at[s.knowns++] = static_cast<uint8_t>(at);
      else s.parity[parities] = static_cast<uint8_t>(i), s.parity_at[parities++] = static_cast<uint8_t>(at);
      ++at;
    } else if (i < p.k) {
      if (s.losts == p.m) return false;
      s.lost[s.losts++] = static_cast<uint8_t>(i);
    }
  }
  return at == p.k;
}

// Gauss-Jordan in place. Every leading minor of a Cauchy matrix is one itself, so a pivot is never 0.
void invert(uint8_t a[kRows][kRows], unsigned n) {
  for (unsigned c = 0; c < n; ++c) {
    uint8_t scale = gf::inverse(a[c][c]);
    a[c][c] = 1;
    for (unsigned j = 0; j < n; ++j) a[c][j] = gf::mul(a[c][j], scale);
    for (unsigned r = 0; r < n; ++r) {
      uint8_t f = a[r][c];
      if (r == c || f == 0) continue;
      a[r][c] = 0;
      for (unsigned j = 0; j < n; ++j) a[r][j] ^= gf::mul(f, a[c][j]);
    }
  }
}

}  // namespace

TableResult make_table(const Pattern& p, uint8_t out[kTableBytes]) {
  if (p.k < 1 || p.k > kSources || p.m > kRows || p.wanted == 0 || (p.present | p.wanted) >> (p.k + p.m) != 0) return TableResult::bad;
  unsigned rows = 0;
  for (uint32_t w = p.wanted; w != 0; w &= w - 1) ++rows;
  if (rows > kRows) return TableResult::bad;
  Sources s;
  if (!find_sources(p, s)) return TableResult::not_enough;

  // Rows that make the lost data chunks.
  uint8_t solve[kRows][kRows], lost_rows[kRows][kSources];
  for (unsigned i = 0; i < s.losts; ++i)
    for (unsigned l = 0; l < s.losts; ++l) solve[i][l] = gf::cauchy(s.parity[i], s.lost[l]);
  invert(solve, s.losts);
  memset(lost_rows, 0, sizeof lost_rows);
  for (unsigned i = 0; i < s.losts; ++i) {
    for (unsigned l = 0; l < s.losts; ++l) lost_rows[l][s.parity_at[i]] = solve[l][i];
    for (unsigned j = 0; j < s.knowns; ++j) {
      uint8_t c = gf::cauchy(s.parity[i], s.known[j]);
      for (unsigned l = 0; l < s.losts; ++l) lost_rows[l][s.known_at[j]] ^= gf::mul(solve[l][i], c);
    }
  }

  memset(out, 0, kTableBytes);
  unsigned r = 0;
  for (unsigned w = 0; w < p.k + p.m; ++w) {
    if (!(p.wanted >> w & 1)) continue;
    uint8_t* row = out + kSources * r++;
    unsigned lost = 0;
    while (lost < s.losts && s.lost[lost] != w) ++lost;
    if (lost < s.losts) {
      memcpy(row, lost_rows[lost], kSources);
    } else if (w < p.k) {
      for (unsigned j = 0; j < s.knowns; ++j)
        if (s.known[j] == w) row[s.known_at[j]] = 1;
    } else {
      for (unsigned j = 0; j < s.knowns; ++j) row[s.known_at[j]] = gf::cauchy(w, s.known[j]);
      for (unsigned l = 0; l < s.losts; ++l) {
        uint8_t c = gf::cauchy(w, s.lost[l]);
        for (unsigned j = 0; j < p.k; ++j) row[j] ^= gf::mul(c, lost_rows[l][j]);
      }
    }
  }
  return TableResult::made;
}

namespace {
struct Entry { Pattern pattern; uint32_t words[kTableBytes / 4] = {}; };
constinit Entry cache[kCached];
unsigned next_entry;
}  // namespace

TableResult table_for(const Pattern& p, const uint32_t*& out) {
  for (Entry& e : cache)
    if (e.pattern == p && p.k != 0) {
      out = e.words;
      return TableResult::cached;
    }
  Entry& e = cache[next_entry];
  e.pattern = Pattern{};  // while it is made it is nobody's
  TableResult r = make_table(p, reinterpret_cast<uint8_t*>(e.words));
  out = nullptr;
  if (r != TableResult::made) return r;
  e.pattern = p, out = e.words;
  next_entry = (next_entry + 1) % kCached;
  return r;
}

void forget_tables() {
  for (Entry& e : cache) e.pattern = Pattern{};
}

}  // namespace fw
