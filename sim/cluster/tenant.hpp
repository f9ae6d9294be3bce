// A volume and those who use it: clients on nodes of their own that attach it, work, and attach it again when they have
// lost it.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "sim/cluster/unit.hpp"
#include "sim/cluster/workload.hpp"

namespace luge::client {
class Volume;
}

namespace luge::sim {

struct Tenant {
  std::string name;
  std::unique_ptr<Workload> load;
  std::vector<Node> clients;
  std::uint64_t partition_bytes = 0;
  Target* present = nullptr;  ///< of the attachment that holds the volume
  client::Volume* volume = nullptr;  ///< of the same
  Node present_node = 0;
  struct Open {
    io::World* client = nullptr;
    io::Time since{};
  };
  std::list<Open> open;       ///< requests without an answer
  Duration longest_wait{0};   ///< of a request that has been answered, by its client's clock
  /// The same, counting those that have no answer yet for as long as they have waited until now.
  Duration waited() const;
  std::uint64_t incarnation = 0;  ///< of the present attachment, or the last one
  bool rivals = false;        ///< its clients may take the volume from each other
  std::function<bool()> rivalry;  ///< do they now?
  std::function<void(const std::string&)> fail;
};

/// Adds a client to the tenant, on a new node. A rival waits for Tenant::rivalry. `tenant` outlives the node.
void add_client(Simulation& sim, Tenant& tenant, NodeId id, bool rival);

}  // namespace luge::sim
