// The sled daemon: devices, fences, chunk slots, and the gateway that codes stripes. Uses nothing but its World; one
// event loop; the World outlives it and is stopped before it.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.hpp"
#include "base/status.hpp"
#include "coding/guarded_coder.hpp"
#include "io/node_options.hpp"
#include "io/world.hpp"
#include "sled/device.hpp"
#include "wire/unit_key.hpp"

namespace luge::sled {

/// The unit is learned at the first registration if it is not given, before a device is marked with it.
struct Options : io::NodeOptions {
  std::vector<DeviceSpec> devices;
  std::uint64_t column_bytes = 32 << 20;
  std::optional<wire::KeyBytes> unit_key;  ///< public; given: takes the place of what the sled remembers. Else: as heard first
  io::Duration io_timeout = std::chrono::seconds(15);  ///< a device whose operation takes longer has failed
  std::function<std::shared_ptr<coding::ErasureCoder>(io::World&)> make_coder;  ///< the device that codes; empty: ISA-L does
  coding::GuardedCoder::Options guard;      ///< how that device is watched; guard.verify_all: protocol 8.7
  std::string verify = "none";              ///< for status: none (software codes), all or sample
  std::uint64_t stripe_memory = 64 << 20;   ///< bytes of stripes in the gateway at once; others wait
  std::uint64_t device_memory = 64 << 20;   ///< bytes of chunks being read from one device at once, and as much again of chunks being written
  std::size_t list_bytes = 4 << 20;         ///< of one answer to a list of columns; a column that is larger comes alone
  io::Duration peer_timeout = std::chrono::seconds(5);
};

struct Counters {
  std::uint64_t stripes_coded = 0, source_bytes_coded = 0, blocks_rebuilt = 0;
  std::uint64_t fenced = 0, stale = 0, corrupt = 0, io_errors = 0;
};

class Service;

class Sled {
 public:
  Sled(io::World& world, Options options);
  ~Sled();
  /// Listens, opens the devices, registers. A device that is broken, gone, in use by another process, or not the one that
  /// stood in its place, is left out: the report says why. An error if none can be used (the first one's), or if one that is
  /// left out may know of fences that nothing else here knows of.
  io::Task<Status> start();
  /// Takes no more requests and waits until those in progress have been answered.
  io::Task<void> drain();
  std::string unfinished() const;  ///< what drain() waits for
  std::string address() const;
  std::string report() const;  ///< JSON object (docs/formats.md, "reports")

 private:
  std::unique_ptr<Service> service_;
};

}  // namespace luge::sled
