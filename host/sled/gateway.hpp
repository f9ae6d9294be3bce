// Codes a stripe and spreads it: k data chunks in, m parity chunks made, every chunk to its sled, an answer when all are
// durable (architecture section 2 step 5). The coder is not trusted (A10): with verify_all its parity is compared with
// software's before anything is written; what differs is counted and software's bytes are used.
#pragma once

#include <functional>
#include <map>
#include <memory>

#include "coding/erasure_coder.hpp"
#include "sled/sled.hpp"
#include "wire/channel.hpp"
#include "wire/sled_generated.h"

namespace luge::sled {

class Gateway {
 public:
  /// Writes one chunk to this sled itself.
  using LocalWrite = std::function<io::Task<Status>(const fbs::ChunkPlace&, Epoch, Bytes header_area, Bytes chunk)>;
  Gateway(io::World& world, const wire::Identity& self, const Options& options, Counters& counters, LocalWrite local);
  ~Gateway();
  /// The whole answer, whatever happened.
  io::Task<wire::Frame> write_stripe(wire::Frame request);
  std::string_view coder() const { return coder_->name(); }

 private:
  struct Job;
  Status parse(const wire::Frame& request, Job& job) const;
  io::Task<Status> code(Job& job);
  io::Task<void> send_chunk(std::shared_ptr<Job> job, std::uint32_t chunk);
  wire::Link& link(const std::string& address);

  io::World& world_;
  const wire::Identity& self_;
  const Options& options_;
  Counters& counters_;
  LocalWrite local_;
  std::unique_ptr<coding::ErasureCoder> coder_, software_;
  std::map<std::string, std::unique_ptr<wire::Link>> links_;
  std::uint64_t in_flight_ = 0;
  io::Event room_;
};

}  // namespace luge::sled
