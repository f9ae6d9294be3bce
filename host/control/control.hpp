// The local control plane of a unit: registrations, failure agent, designations, sandboxes, attachments (A5, A18).
// No client I/O passes through it, and none waits for it while nothing fails.
//
// The same object runs in the daemon (SqliteStore) and in the simulator (MemoryStore). One World, one thread.
// It outlives its tasks: stop the World and let them end before destroying it.
#pragma once

#include <memory>
#include <string>

#include "control/failure_agent.hpp"
#include "io/node_options.hpp"
#include "control/registry.hpp"
#include "control/store.hpp"
#include "control/volumes.hpp"

namespace luge::control {

/// Its unit, remember_unit and fail are the store's business, and it has no control plane above it.
struct Options : io::NodeOptions {
  Options(io::NodeOptions node = {.id = 1, .name = "control-1"}) : io::NodeOptions(std::move(node)) {}
  io::Duration heartbeat = std::chrono::milliseconds(100);
  io::Duration suspicion = std::chrono::milliseconds(500);
  io::Duration close_grace = std::chrono::milliseconds(250);  ///< a connection that ended may come back within this
  io::Duration start_grace = std::chrono::seconds(5);         ///< nodes known before our start may come back within this
  std::uint64_t vp_bytes = 64ull << 30;
  std::uint32_t copies = 3;
  std::shared_ptr<const wire::Signer> signer;  ///< of designations; none: no sled obeys them
};

class Control {
 public:
  Control(io::World& world, Options options, std::unique_ptr<Store> store);

  io::Task<Status> start();
  io::Task<void> drain();
  std::string address() const { return server_.address(); }
  /// A JSON object, as daemons give in their pongs.
  std::string report() const;

  const Options& options() const { return options_; }
  const Store& store() const { return *store_; }
  const Registry& registry() const { return registry_; }
  const Events& events() const { return events_; }
  Volumes& volumes() { return volumes_; }
  const Volumes& volumes() const { return volumes_; }
  io::World& world() const { return world_; }

 private:
  void on_frame(const std::shared_ptr<wire::Channel>& channel, wire::Frame frame);
  io::Task<void> expect_registration(std::weak_ptr<wire::Channel> channel);

  io::World& world_;
  Options options_;
  std::unique_ptr<Store> store_;
  wire::Identity identity_;
  Events events_;
  Registry registry_;
  FailureAgent agent_;
  Volumes volumes_;
  wire::Server server_;
};

}  // namespace luge::control
