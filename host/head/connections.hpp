// A head's outgoing connections: one Link per other head (replication) and per sled, made when first needed, at the
// addresses that the directory last gave.
#pragma once

#include <functional>
#include <map>
#include <memory>

#include "wire/channel.hpp"
#include "wire/control_link.hpp"

namespace luge::head {

class Connections {
 public:
  Connections(io::World& world, const wire::Identity& self, wire::ControlLink& control)
      : world_(world), self_(self), control_(control) {}

  /// Frames from a peer that answer no call; set before the first use.
  std::function<void(NodeId, wire::Frame)> on_frame;
  std::function<void(NodeId)> on_connect;
  std::function<void(NodeId)> on_disconnect;

  /// Null if the directory does not know the node.
  wire::Link* to(NodeId node);
  bool connected(NodeId node) const;
  io::Task<Result<wire::Frame>> call(NodeId node, wire::Frame request, io::Duration timeout);
  bool send(NodeId node, wire::Frame frame);
  /// The directory changed: follow addresses.
  void refresh();
  void stop();

 private:
  io::World& world_;
  const wire::Identity& self_;
  wire::ControlLink& control_;
  std::map<NodeId, std::unique_ptr<wire::Link>> links_;
};

}  // namespace luge::head
