// How often seeds came to the rare paths of protocol section 12, and how many must.
#pragma once

#include <cstdint>

#include "sim/cluster/runner.hpp"

namespace luge::sim {

class PathTable {
 public:
  void add(const SeedResult& r);
  void print() const;
  /// False, and a line for each: rare paths that fewer than 10 seeds came to. Of fewer than 300 seeds nothing is asked.
  bool enough() const;

 private:
  static bool is_rare(std::size_t path);
  std::uint64_t seeds_ = 0;
  PathCounts reached_by_{};  // seeds
  PathCounts times_{};
};

}  // namespace luge::sim
