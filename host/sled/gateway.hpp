// Codes a stripe and spreads it: k data chunks in, m parity chunks made, every chunk to its sled, an answer when all are
// durable (architecture section 2 step 5). The coder is not trusted (A10): its parity is compared with software's before
// anything is written. Where they differ software's is written, and the coder is suspect: not used again.
#pragma once

#include <functional>
#include <map>
#include <memory>

#include "coding/erasure_coder.hpp"
#include "sled/budget.hpp"
#include "sled/sled.hpp"
#include "wire/channel.hpp"
#include "wire/sled_generated.h"

namespace luge::sled {

class Gateway {
 public:
  /// fenced, if this sled knows of a greater epoch.
  using Permitted = std::function<Status(VpId, Epoch)>;
  /// Writes one chunk to this sled itself.
  using LocalWrite = std::function<io::Task<Status>(const fbs::ChunkPlace&, Epoch, Buffer header_area, Buffer chunk)>;
  /// All references outlive the gateway.
  Gateway(io::World& world, const wire::Identity& self, const Options& options, Counters& counters, Permitted permitted, LocalWrite local);
  ~Gateway();
  /// The whole answer, whatever happened. `request` outlives the call.
  io::Task<wire::Frame> write_stripe(const wire::Frame& request);
  std::string_view coder() const { return coder_->name(); }
  bool suspect() const { return suspect_; }
  void stop();

 private:
  struct Job;
  struct Peer {
    std::shared_ptr<wire::Link> link;
    std::uint64_t last_use = 0;
  };
  Status parse(const wire::Frame& request, Job& job) const;
  Status check_places(const Job& job) const;
  io::Task<Status> check_blocks(const Job& job);
  io::Task<Status> encode(coding::ErasureCoder& coder, const Job& job, std::span<Buffer> parity);
  io::Task<Status> code(Job& job);
  io::Task<Status> verify(Job& job);
  void distrust(const Job& job, const std::string& why);
  io::Task<void> spread(std::shared_ptr<Job> job);
  io::Task<void> send_chunk(std::shared_ptr<Job> job, std::uint32_t chunk);
  std::shared_ptr<wire::Link> link(const std::string& address);

  io::World& world_;
  const wire::Identity& self_;
  const Options& options_;
  Counters& counters_;
  Permitted permitted_;
  LocalWrite local_;
  std::shared_ptr<coding::ErasureCoder> coder_, software_;
  bool suspect_ = false;
  std::uint64_t stripes_ = 0;
  std::map<std::string, Peer> peers_;
  std::uint64_t uses_ = 0;
  Budget memory_;
};

}  // namespace luge::sled
