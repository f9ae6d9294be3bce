// Blocks of a chunk that nobody can read, rebuilt here from any k others of the stripe: so the head that wants them decodes
// nothing and hears one chunk's worth of blocks instead of k. What the coder gives is compared with the checksums that every
// chunk's header carries (protocol 8.6). One set of k is tried; when it does not match, the head tries the others.
#pragma once

#include <functional>

#include "coding/guarded_coder.hpp"
#include "io/budget.hpp"
#include "sled/peers.hpp"
#include "sled/sled.hpp"
#include "wire/sled_generated.h"

namespace luge::sled {

class Rebuilder {
 public:
  /// Reads from this sled itself: the answer as another sled would get it.
  using LocalRead = std::function<io::Task<wire::Frame>(const fbs::ReadChunk&)>;
  /// All references outlive it.
  Rebuilder(io::World& world, const wire::Identity& self, const Options& options, Counters& counters, coding::GuardedCoder& coder, Peers& peers, LocalRead local);
  /// The whole answer, a Chunk. `request` outlives the call.
  io::Task<wire::Frame> rebuild(const fbs::Rebuild& request);

 private:
  struct Job;
  static Status parse(const fbs::Rebuild& request, Job& job);
  io::Task<Status> gather(std::shared_ptr<Job> job);
  io::Task<void> read(std::shared_ptr<Job> job, std::uint32_t chunk);
  static Status take(Job& job, std::uint32_t chunk, const wire::Frame& answer);
  io::Task<Status> decode(Job& job);

  io::World& world_;
  const wire::Identity& self_;
  Counters& counters_;
  coding::GuardedCoder& coder_;
  Peers& peers_;
  LocalRead local_;
  io::Budget memory_;
};

}  // namespace luge::sled
