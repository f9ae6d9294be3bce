// Breaks each rule in turn and looks for a seed that notices. A table remembers which seeds did, so that the next time they
// come first; it stands in the tree (mutants.txt) and is written by this.
#pragma once

#include <cstdint>
#include <string>

namespace luge::sim {

struct MutantRun {
  std::string only;         ///< just this switch; empty: all
  std::string table;        ///< file with catching seeds; empty: none
  bool known_only = false;  ///< those that the table has; the others are listed as open
  bool write = false;       ///< write the table anew
  std::uint64_t limit = 500;  ///< seeds to try, those of the table first
  std::uint64_t wanted = 1;   ///< catching seeds to look for
  std::size_t jobs = 1;
};

/// Prints a line for each switch and for each mutant of the protocol that has none yet. 0: all were caught.
int run_mutants(const MutantRun& run);

}  // namespace luge::sim
