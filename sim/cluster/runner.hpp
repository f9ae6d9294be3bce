// Runs seeds, each in a process of its own: a failed check or a hang of one is one failed seed.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "sim/cluster/cluster.hpp"
#include "switches/paths.hpp"

namespace luge::sim {

/// What a command line changes of what the seed draws.
struct Overrides {
  std::uint64_t seconds = 0, requests = 0;
  std::uint32_t heads = 0, sleds = 0;
  bool is_long = false, trace = false, no_faults = false, no_flush = false, heads_code = false, operators = false, quiet = false;
  std::string broken;    ///< a switch
  std::string schedule;  ///< a directed fault

  ClusterOptions options(std::uint64_t seed) const;
  std::string arguments() const;  ///< as they would have to be given again
};

using PathCounts = std::array<std::uint64_t, static_cast<std::size_t>(Path::count_)>;

struct SeedResult {
  std::uint64_t seed = 0;
  bool ok = false;
  std::string text;         ///< a line, and if it failed the story
  double virtual_seconds = 0, cpu_seconds = 0;
  PathCounts paths{};
  /// The first line of what went wrong.
  std::string reason() const;
};

/// False, and a line on stderr: there is no such switch.
bool break_rule(const std::string& name);
/// In this process. Prints nothing but the trace, if asked for.
SeedResult run_here(std::uint64_t seed, const Overrides& overrides);
/// Runs the seeds, `jobs` at a time, in order, each for at most `limit` seconds. `done` gets each result in order; false: stop.
void run_seeds(const std::vector<std::uint64_t>& seeds, const Overrides& overrides, std::size_t jobs, unsigned limit,
               const std::function<bool(const SeedResult&)>& done);

}  // namespace luge::sim
