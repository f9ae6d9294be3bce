// The shared part of a Volume: what its tasks and connections hold on to. Private to host/client.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "client/volume.hpp"
#include "client/vp_session.hpp"

namespace luge::client {

struct VolumeState : std::enable_shared_from_this<VolumeState> {
  VolumeState(io::World& w, wire::Identity& s, wire::ControlLink& c) : world(w), self(s), control(c), idle(w) {}

  /// Takes the answer to AttachVolume. corrupt: it contradicts itself.
  Status accept(const fbs::VolumeView& view);

  void submit_write(fbs::OpKind kind, std::uint64_t offset, Buffer image, std::uint32_t length, BlockTarget::Done done);
  void submit_read(std::uint64_t offset, std::uint32_t length, BlockTarget::ReadDone done);
  void submit_map(std::uint64_t offset, std::uint32_t length, BlockTarget::MapDone done);
  /// A part has been answered. Gives it back to the pool; runs the callback with the last one.
  void finish(Part* part, const Status& status);
  void mark_dirty(VpSession& s);
  /// The permanent end: everything open and to come fails with `status`.
  void fail(const Status& status);
  /// Ends all tasks without running callbacks.
  void shut_down();
  bool ended() const { return !failed.ok() || down; }

  /// The connection to a head, made when there is none. `fresh`: give up on one that is not connected.
  std::shared_ptr<wire::Link> link_to(const std::string& address, bool fresh, bool& is_new);
  void on_frame(const std::shared_ptr<wire::Channel>& channel, const wire::Frame& frame);

  io::World& world;
  wire::Identity& self;
  wire::ControlLink& control;
  std::string name;
  VolumeId id = 0;
  std::uint64_t bytes = 0, vp_bytes = 0;
  std::uint64_t attachment = 0, incarnation = 0;
  std::vector<std::unique_ptr<VpSession>> sessions;  // by index in the volume
  std::map<std::string, std::shared_ptr<wire::Link>> links;
  Pool<Request> requests;
  Pool<Part> parts;
  std::size_t open_requests = 0;
  io::Event idle;  // open_requests became 0
  std::vector<VpSession*> dirty, sending;
  Status failed;
  bool down = false;
  bool closing = false;
  bool detached = false;  // here; the control plane may not have heard so
  std::function<void(const Status&)> lost;
  Volume::Stats stats;

 private:
  Status check(std::uint64_t offset, std::uint64_t length) const;
  void drop_unused_links(const std::string& keep);
  VpSession* session_of(VpId vp);
};

}  // namespace luge::client
