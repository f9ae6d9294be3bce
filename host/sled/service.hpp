// What a sled answers (wire/sled.fbs). Epochs are checked here and, through a permit, again at the moment of the write.
//
// Invariant of the fence: its answer means that the epoch is durable in the sled's own metadata (and on every device that
// has room for it), that nothing older is permitted any more, and that nothing older is still on its way to a device that
// is in use. What hangs in a device that was given up may land there yet: this process uses that device no more, and as
// long as the kernel has the operation no other can lock it.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "io/budget.hpp"
#include "sled/credentials.hpp"
#include "sled/gateway.hpp"
#include "sled/rebuilder.hpp"
#include "sled/sled.hpp"
#include "wire/control_link.hpp"
#include "wire/unit_key.hpp"

namespace luge::sled {

class Service {
 public:
  Service(io::World& world, Options options);
  ~Service();
  io::Task<Status> start();
  io::Task<void> drain();
  std::string unfinished() const;
  std::string address() const { return server_.address(); }
  std::string report() const;

 private:
  using ChannelPtr = std::shared_ptr<wire::Channel>;
  class Work;

  // service.cpp
  io::Task<Status> learn_unit();
  io::Task<Status> open_devices();
  Status check_devices() const;
  io::Task<Status> take_in();
  void make_control_link();
  void make_gateway();
  io::Task<void> open_coder();
  std::vector<flatbuffers::Offset<fbs::Device>> device_rows(flatbuffers::FlatBufferBuilder& b) const;
  // requests.cpp
  io::Task<void> answer(ChannelPtr channel, wire::Frame frame);
  io::Task<wire::Frame> answer_to(const wire::Frame& frame);
  io::Task<wire::Frame> fence(const fbs::Fence& m, NodeId from);
  io::Task<Status> keep_fence(VpId vp, Epoch epoch);
  io::Task<Status> raise_epoch(VpId vp, Epoch epoch);
  io::Task<wire::Frame> list(const fbs::ListColumns& m, NodeId from);
  io::Task<wire::Frame> list_checkpoints(const fbs::ListCheckpoints& m);
  static io::Task<void> checkpoint_rows(Device& d, VpId vp, std::uint32_t column, std::vector<fbs::CheckpointSlot>& out);
  io::Task<wire::Frame> claim(const fbs::ClaimColumn& m, NodeId from);
  io::Task<Status> release(const fbs::ReleaseColumns& m, NodeId from);
  io::Task<Status> write_chunk(const wire::Frame& frame, const fbs::WriteChunk& m);
  io::Task<Status> store_chunk(fbs::ChunkPlace place, Epoch epoch, const fbs::Credential* credential, Buffer header_area, Buffer chunk);
  Status check_chunk(const coding::ChunkHeader& header, const fbs::ChunkPlace& place, Epoch epoch, Bytes header_area, Bytes chunk) const;
  io::Task<wire::Frame> read_chunk(const fbs::ReadChunk& m);
  io::Task<Status> free_slot(const fbs::FreeSlot& m);
  Epoch held(VpId vp) const;
  Status check_epoch(VpId vp, Epoch epoch) const;
  Result<Device*> device(NodeId sled, std::uint16_t index);
  Result<Device*> emptiest_device();
  void count(const Status& s);
  // authorise.cpp
  Status check_presented(const fbs::Designation* d, NodeId holder, VpId vp, Epoch epoch, NodeId role);
  Status check_credential(const fbs::Credential* c, const Device& d, std::uint32_t column, VpId vp, Epoch epoch);
  Status check_stripe(VpId vp, Epoch epoch, std::span<const fbs::ChunkPlace> places, std::span<const fbs::Credential> credentials);
  fbs::Credential credential_for(const Device& d, std::uint32_t column, NodeId holder, VpId vp, Epoch epoch);
  Status refused(Status s);
  io::Task<Status> take_secret();
  io::Task<void> learn_key();
  io::Task<Status> take_key(wire::KeyBytes key);
  std::string credentials_json() const;
  wire::Frame held_columns(const fbs::ListHeld& m) const;
  void on_control(const ChannelPtr& channel, const wire::Frame& frame);

  io::World& world_;
  Options options_;
  wire::Identity identity_;
  wire::Server server_;
  std::unique_ptr<wire::ControlLink> control_;
  std::vector<std::unique_ptr<Device>> devices_;
  std::unique_ptr<SledMeta> meta_;
  Fences epochs_;  // as `meta_` holds them, less what has no durable answer yet
  std::map<std::pair<VpId, Epoch>, std::uint32_t> working_;  // changes in progress
  io::Event work_done_;
  Counters counters_;
  std::unique_ptr<Credentials> credentials_;
  std::optional<wire::Verifier> unit_key_;
  std::map<VpId, wire::Designation> verified_;  // the last one of each VP whose signature was found good
  Refusals refusals_;
  std::uint64_t issued_ = 0;
  std::string last_refusal_;
  std::string other_key_;  // that the control plane has shown, and is not ours
  coding::GuardedCoder coder_;
  Peers peers_;
  std::unique_ptr<Gateway> gateway_;
  std::unique_ptr<Rebuilder> rebuilder_;
  std::uint64_t requests_ = 0;
  bool draining_ = false;
};

}  // namespace luge::sled
