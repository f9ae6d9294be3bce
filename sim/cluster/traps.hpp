// Faults that wait for a moment: when some node comes to a path (switches/paths.hpp), or a little later, they happen.
#pragma once

#include <functional>
#include <vector>

#include "sim/cluster/chaos.hpp"
#include "switches/paths.hpp"

namespace luge::sim {

class Traps {
 public:
  /// Gets the node that came there.
  using Spring = std::function<void(Node)>;

  explicit Traps(Simulation& sim) : sim_(sim) {}
  /// Springs once. `delay` is from the moment on; zero: before anything else happens.
  void set(Chaos& chaos, Path path, Duration delay, Spring spring) {
    if (set_.size() >= kMost) set_.erase(set_.begin());
    set_.push_back({&chaos, path, delay, std::move(spring)});
  }
  void clear() { set_.clear(); }
  /// From on_reached().
  void on_path(Path path) {
    auto n = sim_.current();
    for (std::size_t i = 0; n && i < set_.size(); ++i) {
      if (set_[i].path != path || !set_[i].chaos->active()) continue;
      Trap trap = std::move(set_[i]);
      set_.erase(set_.begin() + static_cast<std::ptrdiff_t>(i));
      sim_.after(trap.delay, [this, trap = std::move(trap), n = *n] {
        if (!trap.chaos->active()) return;
        if (sim_.tracing()) sim_.log("at " + std::string(path_name(trap.path)) + ":");
        trap.spring(n);
      });
      return;
    }
  }

 private:
  static constexpr std::size_t kMost = 4;  // the oldest gives way
  struct Trap {
    Chaos* chaos;
    Path path;
    Duration delay;
    Spring spring;
  };
  Simulation& sim_;
  std::vector<Trap> set_;
};

}  // namespace luge::sim
