// What a sled answers (wire/sled.fbs): epochs are checked here, before a device is touched.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "sled/gateway.hpp"
#include "sled/sled.hpp"
#include "wire/control_link.hpp"

namespace luge::sled {

class Service {
 public:
  Service(io::World& world, Options options);
  ~Service();
  io::Task<Status> start();
  void stop();
  std::string address() const { return server_.address(); }
  std::string report() const;

 private:
  using ChannelPtr = std::shared_ptr<wire::Channel>;
  io::Task<Status> open_devices();
  void start_control();
  io::Task<void> answer(ChannelPtr channel, wire::Frame frame);
  io::Task<wire::Frame> fence(const fbs::Fence& m);
  io::Task<wire::Frame> list(const fbs::ListColumns& m);
  io::Task<wire::Frame> claim(const fbs::ClaimColumn& m);
  io::Task<Status> release(const fbs::ReleaseColumns& m);
  io::Task<Status> write_chunk(const wire::Frame& frame, const fbs::WriteChunk& m);
  io::Task<Status> store_chunk(fbs::ChunkPlace place, Epoch epoch, Bytes header_area, Bytes chunk);
  io::Task<wire::Frame> read_chunk(const fbs::ReadChunk& m);
  Status check_epoch(VpId vp, Epoch epoch);
  Device* device(std::uint16_t index);
  void count(const Status& s);

  io::World& world_;
  Options options_;
  wire::Identity identity_;
  wire::Server server_;
  std::unique_ptr<wire::ControlLink> control_;
  std::vector<std::unique_ptr<Device>> devices_;
  std::map<VpId, Epoch> epochs_;  // the greatest that any device holds
  Counters counters_;
  std::unique_ptr<Gateway> gateway_;
};

}  // namespace luge::sled
