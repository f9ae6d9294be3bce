// Which daemons there are, over which connection each is reached, and whether the failure agent takes it for alive.
//
// Invariant: every change of the list or of an `alive` goes out as a Directory to all connected nodes, in order.
// A node counts as alive from its registration until the failure agent (failure_agent.hpp) says otherwise.
// After a start of the control plane it has heard nothing yet of the nodes in its store: they are `unknown` until they
// register, or until the time that they are given for that is up. The directory says `alive` of them meanwhile, because
// "not alive" is an instruction: survivors stand for the next epoch at once, and sleds are passed over. Were it said of
// all nodes whenever the control plane starts, every VP would change hands. Nothing is fenced by it either way: epochs
// fence, and a head that hears nothing of an unknown primary stands without this word, only later (head/takeover.cpp).
// In this room nothing is decided in favour of a node that is unknown: placement, removals and attachments take only nodes
// that are connected.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "control/events.hpp"
#include "control/store.hpp"
#include "wire/channel.hpp"
#include "wire/control_generated.h"

namespace luge::control {

struct DeviceInfo {
  std::uint16_t index = 0;
  std::uint64_t bytes = 0, column_bytes = 0;
  std::uint32_t columns = 0, free_columns = 0;
  std::string state, reason;  ///< as the sled says; docs/operations.md has the states

  bool ok() const { return state == "ok"; }
  /// May columns of it be recommended?
  bool has_room() const { return ok() && columns != 0 && free_columns != 0; }
};

struct Node {
  NodeRow row;
  std::uint32_t pid = 0;
  std::uint64_t incarnation = 0;
  std::string version;
  std::uint64_t recollection = 0;  ///< of a head, as it registered
  std::vector<DeviceInfo> devices;  ///< as last reported
  std::shared_ptr<wire::Channel> channel;  ///< null: not connected
  bool alive = true;    ///< the failure agent's word
  bool heard = false;   ///< it has registered since our start
  io::Time last_heard;   ///< registration or pong
  io::Time silent_since; ///< not connected since then
  io::Duration patience{0};  ///< how long it may stay unconnected before it counts as failed
  io::Time last_ping;
  bool ping_open = false;
  std::string report;  ///< of the last pong: what the node says of itself
  std::string coder;   ///< of it, the beginning of a sled's "coding": device and state
  io::Time report_time;

  bool connected() const { return channel != nullptr && channel->open(); }
  bool unknown() const { return alive && !heard; }
  bool is(std::string_view role) const { return row.role == role; }
};

class Registry {
 public:
  struct Options {
    NodeId self = 0;
    io::Duration close_grace{0};  ///< a connection that ended may come back within this
    io::Duration start_grace{0};  ///< the same for nodes known from the store, after our start
  };
  /// A node has registered: its reply and the directory are on their way.
  using Joined = std::function<void(const Node&, const fbs::RegisterNode&)>;

  Registry(io::World& world, Store& store, Events& events, Options options, Joined joined);

  /// Answers a register_node frame and, if it is accepted, binds the channel to the node.
  void register_node(const std::shared_ptr<wire::Channel>& channel, const wire::Frame& frame);
  void closed(const std::shared_ptr<wire::Channel>& channel);
  /// The failure agent's word.
  void set_alive(NodeId id, bool alive, const std::string& why);

  std::map<NodeId, Node>& nodes() { return nodes_; }
  const std::map<NodeId, Node>& nodes() const { return nodes_; }
  const Node* find(NodeId id) const;
  const Node* find(const std::shared_ptr<wire::Channel>& channel) const;
  const Node* find_name(const std::string& name) const;
  /// Connected and alive, by id.
  std::vector<const Node*> alive(std::string_view role) const;
  std::string name(NodeId id) const;  ///< "head-2", or "node 12" if unknown

  /// Pings a node; its pong becomes its report. Ends quietly when there is no answer.
  io::Task<void> ping(NodeId id, io::Duration timeout);

  bool send(NodeId to, wire::Frame frame);
  io::Task<Result<wire::Frame>> call(NodeId to, wire::Frame request, io::Duration timeout);

 private:
  Result<NodeRow> check(const std::shared_ptr<wire::Channel>& channel, const wire::Frame& frame,
                        const fbs::RegisterNode* r) const;
  Status bind(const std::shared_ptr<wire::Channel>& channel, const NodeRow& row, const fbs::RegisterNode& r);
  void take_devices(Node& node, std::vector<DeviceInfo> devices);
  void take_coder(Node& node);
  wire::Frame registered(const Status& status) const;
  void push_directory();
  std::vector<flatbuffers::Offset<fbs::NodeInfo>> node_infos(flatbuffers::FlatBufferBuilder& b) const;

  io::World& world_;
  Store& store_;
  Events& events_;
  Options options_;
  Joined joined_;
  std::map<NodeId, Node> nodes_;
  std::uint64_t version_ = 0;
};

/// 1..64 of [A-Za-z0-9._-], not starting with '-' or '.'. For volumes and nodes. invalid says what is wrong.
Status check_name(const std::string& name);

}  // namespace luge::control
