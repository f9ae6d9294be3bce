// Bytes of several parts as one, in memory that is made once.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "base/buffer.hpp"

namespace luge::sim {

inline std::vector<std::byte> joined(std::span<const Bytes> parts) {
  std::size_t bytes = 0;
  for (Bytes p : parts) bytes += p.size();
  std::vector<std::byte> all;
  all.reserve(bytes);
  for (Bytes p : parts) all.insert(all.end(), p.begin(), p.end());
  return all;
}

}  // namespace luge::sim
