// One front end (QEMU) of a vhost-user disk: its messages, taken one after the other, each to its end before the next.
//
// Errors: a message that breaks the protocol ends the connection, a ring that breaks virtio's rules stops the device; either way with
// one log line. What is in flight then is ended first; it is still in the front end's inflight area if it cannot be.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "io/descriptor.hpp"
#include "attach/inflight.hpp"
#include "attach/vhost_protocol.hpp"
#include "attach/virtio_blk.hpp"
#include "io/real_world.hpp"

namespace luge::attach {

/// What a session needs of the disk that it serves.
class VhostOwner {
 public:
  virtual ~VhostOwner() = default;
  virtual VirtioBlk& device() = 0;
  virtual card::DmaPath& dma_path() = 0;
  virtual const std::string& called() const = 0;
  /// A ring runs now: the volume is to be attached.
  virtual void rings_started() = 0;
  /// None does any more, and nothing is in flight: when this ends the volume is not attached by this disk.
  virtual io::Task<void> rings_stopped() = 0;
  virtual void memory_changed() = 0;
};

class VhostSession : public std::enable_shared_from_this<VhostSession> {
 public:
  VhostSession(io::RealWorld& world, VhostOwner& owner, io::Descriptor socket);
  ~VhostSession();
  void start();
  /// Ends the connection; ended() follows when the rings have stopped.
  void close();
  bool ended() const { return ended_; }
  void on_end(std::function<void()> f) { on_end_ = std::move(f); }
  /// Tells the guest that the configuration (the size) is another, if it can be told.
  void config_changed();

 private:
  struct Incoming {
    vhost::Header header;
    std::vector<std::byte> payload;
    std::vector<io::Descriptor> descriptors;
  };
  struct Ring {
    std::uint32_t entries = 0;
    std::uint16_t base = 0;
    vhost::RingAddress address{};
    bool has_address = false;
    io::Descriptor error;
  };
  struct Waiter;
  void listen();
  bool hear();
  static io::Task<void> serve(std::shared_ptr<VhostSession> self, Incoming m);
  io::Task<Status> handle(Incoming& m);
  io::Task<Status> control(Incoming& m);
  io::Task<Status> queue_message(Incoming& m);
  io::Task<Status> set_memory(Incoming& m);
  io::Task<Status> set_log(Incoming& m);
  io::Task<Status> set_features(std::uint64_t features);
  io::Task<Status> stop_ring(std::uint32_t index);
  Status start_ring(std::uint32_t index, io::Descriptor kick);
  Status set_call(std::uint32_t index, io::Descriptor call);
  Status set_inflight(Incoming& m);
  Status get_inflight(Incoming& m);
  Status get_config(Incoming& m);
  Result<Vring::Place> place(std::uint32_t index) const;
  io::Task<void> barrier();
  void wait_kick(std::uint32_t index);
  void use_dirty_log();
  void reply(const Incoming& m, const void* payload, std::size_t bytes, int descriptor = -1);
  void reply_u64(const Incoming& m, std::uint64_t v) { reply(m, &v, sizeof v); }
  void complain(const Status& s);
  static io::Task<void> end(std::shared_ptr<VhostSession> self);

  io::RealWorld& world_;
  VhostOwner& owner_;
  std::unique_ptr<Waiter> waiter_;
  // A message that has come in part.
  Incoming next_;
  std::vector<std::byte> in_;
  bool serving_ = false, ending_ = false, ended_ = false;
  std::uint64_t features_ = 0, protocol_features_ = 0;
  std::array<Ring, VirtioBlk::kMostQueues> rings_;
  std::unique_ptr<card::DirtyLog> next_log_;  // given, and not yet in use: LOG_ALL is off
  io::Descriptor backend_requests_;
  std::function<void()> on_end_;
};

}  // namespace luge::attach
