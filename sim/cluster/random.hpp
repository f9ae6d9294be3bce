// The only source of chance in the simulator: xoshiro256**, seeded through splitmix64. The same seed gives the same
// numbers on every machine (the standard library's distributions do not promise that).
#pragma once

#include <cstdint>

namespace luge::sim {

class Random {
 public:
  explicit Random(std::uint64_t seed) {
    for (auto& s : s_) {
      seed += 0x9e3779b97f4a7c15;
      std::uint64_t z = seed;
      z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
      z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
      s = z ^ (z >> 31);
    }
  }
  std::uint64_t next() {
    std::uint64_t result = rotl(s_[1] * 5, 7) * 9, t = s_[1] << 17;
    s_[2] ^= s_[0];
    s_[3] ^= s_[1];
    s_[1] ^= s_[2];
    s_[0] ^= s_[3];
    s_[2] ^= t;
    s_[3] = rotl(s_[3], 45);
    return result;
  }
  /// Uniform in [0, bound); 0 for bound 0.
  std::uint64_t below(std::uint64_t bound) { return bound == 0 ? 0 : next() % bound; }
  /// Uniform in [low, high].
  std::uint64_t between(std::uint64_t low, std::uint64_t high) { return low + below(high - low + 1); }
  double unit() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }
  bool chance(double p) { return p > 0 && unit() < p; }
  /// Log-uniform in [low, high]: as many short as long. REQUIRES: low > 0.
  std::uint64_t spread(std::uint64_t low, std::uint64_t high);
  /// A generator of its own, so that one part's draws do not shift another's.
  Random fork() { return Random(next()); }

 private:
  static std::uint64_t rotl(std::uint64_t x, int k) { return x << k | x >> (64 - k); }
  std::uint64_t s_[4];
};

inline std::uint64_t Random::spread(std::uint64_t low, std::uint64_t high) {
  // Doubling steps instead of log() and exp(): those may round differently on another machine.
  std::uint64_t steps = 0;
  for (std::uint64_t x = low; x < high; x *= 2) ++steps;
  std::uint64_t from = low << below(steps == 0 ? 1 : steps);
  std::uint64_t to = from * 2 < high ? from * 2 : high;
  return between(from, to);
}

}  // namespace luge::sim
