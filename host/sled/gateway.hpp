// Codes a stripe and spreads it: k data chunks in, m parity chunks made, every chunk to its sled, an answer when all are
// durable (architecture section 2 step 5). The coder is not trusted (A10), and guarded (coding/guarded_coder.hpp).
#pragma once

#include <functional>
#include <span>

#include "coding/guarded_coder.hpp"
#include "io/budget.hpp"
#include "sled/peers.hpp"
#include "sled/sled.hpp"
#include "wire/channel.hpp"
#include "wire/sled_generated.h"

namespace luge::sled {

class Gateway {
 public:
  /// fenced, if this sled knows of a greater epoch; as Credentials::check for the places on this sled itself.
  using Permitted = std::function<Status(VpId, Epoch, std::span<const fbs::ChunkPlace>, std::span<const fbs::Credential>)>;
  /// Writes one chunk to this sled itself.
  using LocalWrite = std::function<io::Task<Status>(const fbs::ChunkPlace&, Epoch, const fbs::Credential*, Buffer header_area, Buffer chunk)>;
  /// All references outlive the gateway.
  Gateway(io::World& world, const wire::Identity& self, const Options& options, Counters& counters, coding::GuardedCoder& coder, Peers& peers,
          Permitted permitted, LocalWrite local);
  ~Gateway();
  /// The whole answer, whatever happened. `request` outlives the call.
  io::Task<wire::Frame> write_stripe(const wire::Frame& request);

 private:
  struct Job;
  Status parse(const wire::Frame& request, Job& job) const;
  Status check_places(const Job& job) const;
  io::Task<Status> check_blocks(const Job& job);
  io::Task<Status> code(Job& job);
  io::Task<void> spread(std::shared_ptr<Job> job);
  io::Task<void> send_chunk(std::shared_ptr<Job> job, std::uint32_t chunk);

  io::World& world_;
  const wire::Identity& self_;
  const Options& options_;
  Counters& counters_;
  coding::GuardedCoder& coder_;
  Peers& peers_;
  Permitted permitted_;
  LocalWrite local_;
  io::Budget memory_;
};

}  // namespace luge::sled
