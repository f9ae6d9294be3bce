// What must hold of a seed without faults, beyond all else: nobody takes over, no member is let go, nobody is found slow, and no request waits for
// long. A time-out that a loaded unit comes close to shows here first, long before a client would see more than a pause.
#pragma once

#include <string>

#include "sim/cluster/simulation.hpp"
#include "switches/paths.hpp"

namespace luge::sim {

class Quiet {
 public:
  /// Beside what disks stall and what a flush that makes room takes.
  static constexpr Duration kLongestWait = 1s;

  /// From on_reached() and on_witnessed(), since the volumes are open and until all that clients have asked is answered.
  void on_path(Path p) {
    if (p == Path::member_left) note("a member was let go");
    if (p == Path::slow_left) note("a member was found slow");
    if (p == Path::handed_over) note("a primary was found slow");
    if (p == Path::suspect_after_replay) note("a replica was found suspect");
  }
  void witness(Fact fact, VpId vp, std::uint64_t value) {
    if (fact == Fact::opened && value > 1) note("VP " + std::to_string(vp) + " was opened anew, in epoch " + std::to_string(value));
  }
  void waited(const std::string& volume, Duration longest) {
    if (longest > kLongestWait) note("a request of " + volume + " waited for " + std::to_string(longest.count() / 1'000'000) + " ms");
  }
  /// The first that should not have been; empty: all was quiet.
  const std::string& disturbance() const { return disturbance_; }

 private:
  void note(const std::string& what) {
    if (disturbance_.empty()) disturbance_ = "no fault, and yet " + what;
  }
  std::string disturbance_;
};

}  // namespace luge::sim
