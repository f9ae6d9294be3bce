// A daemon's side of its conversation with the control plane: register, answer pings, hear designations and the
// directory, ask. Everything works on without it: the daemon keeps what it last heard and reconnects with back-off.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "wire/channel.hpp"
#include "wire/control_generated.h"
#include "wire/unit_key.hpp"

namespace luge::wire {

/// Who is there, as the control plane last said.
struct NodeRecord {
  NodeId id = 0;
  std::string name, role, address;
  std::uint32_t pid = 0;
  bool alive = false;
  std::uint64_t incarnation = 0;
};

class ControlLink {
 public:
  struct Self {
    NodeId id = 0;
    std::string name, role, address;  ///< address: where peers reach this daemon's Server
    std::uint64_t incarnation = 0;    ///< random, new at each start
    std::uint32_t pid = 0;            ///< of the process, for `luge status`; 0 in the simulator
  };
  /// All run on the loop. Each may be empty.
  struct Callbacks {
    /// JSON object for `luge status` (docs/formats.md, "reports").
    std::function<std::string()> report;
    /// What a sled adds to its registration and to each pong.
    std::function<std::vector<flatbuffers::Offset<fbs::Device>>(flatbuffers::FlatBufferBuilder&)> devices;
    /// What a head adds to it.
    std::function<std::vector<flatbuffers::Offset<fbs::Designation>>(flatbuffers::FlatBufferBuilder&)> designations;
    /// And of what it has given up; the number that says whether it remembers all of these (head/recollection.hpp).
    std::function<std::vector<flatbuffers::Offset<fbs::Designation>>(flatbuffers::FlatBufferBuilder&)> left;
    std::function<std::uint64_t()> recollection;
    /// The directory changed (also once after each registration).
    std::function<void()> directory;
    /// Registered, for the first time or again: what the two told one another before may be out of date.
    std::function<void()> registered;
    /// Sent by the control plane: after a swap, and after registration for each VP this node takes part in.
    std::function<void(const fbs::Designate&)> designate;
    /// Any other request (flush_vp, drop_vp, export_volume ...); answer with channel->reply().
    Channel::Handler request;
  };

  ControlLink(io::World& world, Identity& identity, std::string address, Self self, Callbacks callbacks);
  ~ControlLink();
  /// The first registration fills identity.unit if it is 0. An answer of wrong_unit is final: `refused()` says why.
  void start();
  void stop();
  bool connected() const;
  const Status& refused() const;
  io::Task<bool> wait_registered(io::Duration timeout);
  io::Task<Result<Frame>> call(Frame request, io::Duration timeout);
  /// The unit's public key, as the control plane showed it at the last registration.
  std::optional<KeyBytes> unit_key() const;
  const std::map<NodeId, NodeRecord>& nodes() const;
  const NodeRecord* node(NodeId id) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace luge::wire
