// Pings every node and tells the others when one does not answer (MC-18, MC-19). The agent only informs: survivors
// work out what it means for the VPs they hold, and act (architecture A5).
//
// A node has failed when its pings have gone unanswered for `suspicion`, or when its connection has ended and has not
// come back within its patience. Time during which this process itself did not run is never held against a node: the
// agent measures how late its own ticks are and gives that time to everyone.
#pragma once

#include "control/registry.hpp"

namespace luge::control {

class FailureAgent {
 public:
  struct Options {
    io::Duration heartbeat = std::chrono::milliseconds(100);
    io::Duration suspicion = std::chrono::milliseconds(500);
  };
  FailureAgent(io::World& world, Registry& registry, Options options)
      : world_(world), registry_(registry), options_(options) {}

  void start() { world_.spawn("failure agent", run()); }
  void stop() { running_ = false; }

 private:
  io::Task<void> run();
  io::Task<void> ping(NodeId id, std::shared_ptr<wire::Channel> channel);
  void forgive(io::Duration lost);
  void judge(NodeId id, const Node& n);

  io::World& world_;
  Registry& registry_;
  Options options_;
  bool running_ = true;
};

}  // namespace luge::control
