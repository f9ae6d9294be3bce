// The head daemon: takes the writes of the VPs it is primary of, keeps replicas of those it is a reserve of, flushes to
// the sleds. Uses nothing but the World it is given; one event loop; the World outlives it and is stopped before it.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "head/options.hpp"
#include "io/world.hpp"
#include "base/status.hpp"

namespace luge::head {

struct Context;
class HeadServer;
class Replica;

class Head {
 public:
  Head(io::World& world, Options options);
  ~Head();
  /// Opens and replays the log, listens, registers. Returns once it serves; the control plane may still be unreachable.
  io::Task<Status> start();
  /// SIGTERM: stops taking requests, gets what is logged acknowledged, leaves the rest to the takeover.
  io::Task<void> drain();
  std::string address() const;
  /// JSON object (docs/formats.md, "reports").
  std::string report() const;

  /// For oracles: what the replica of a VP holds as committed.
  struct Digest {
    Lsn commit = 0;
    std::uint64_t index = 0;
    Epoch epoch = 0;
    bool primary_open = false;
    bool suspect = false;
    bool lease = false;  ///< primary, and would answer a read now without asking
  };
  std::optional<Digest> digest(VpId vp) const;
  /// Stripes of the VPs this head is primary of that lack chunks which could never be written.
  std::uint64_t narrow_stripes() const;
  /// Null: no replica here. Valid until the loop runs again.
  const Replica* replica(VpId vp) const;

 private:
  std::unique_ptr<Context> ctx_;
  std::unique_ptr<HeadServer> server_;
};

}  // namespace luge::head
