// A whole storage unit in the simulator: control plane, heads, sleds and clients, the same objects as the daemons run.
// One seed decides the topology, the sizes, the workload and the faults; the same seed gives the same history.
//
// A run: start the unit, make the volumes, let clients work while faults come and go, heal, and then ask that
//  - every request is answered within a bound, without an error that a client sees (liveness);
//  - no copy is missing, and a copy can be moved (where operators are at work), before anything is started anew;
//  - after a flush, after a cold start of all heads, and with as many sleds gone as the layout allows, everything reads back;
//  - writes go on after that, after an operator's flush and after a cold start of everything, and read back as well;
//  - each block's whole history is linearizable (history.hpp): nothing acknowledged is lost, nothing comes back;
//  - what judge.hpp says of promises, replicas and stripes.
// What disks lose on the way is bounded (damage.hpp), so that all of this may be demanded.
//
// What these oracles prove; with a switch: one of the first 500 seeds fails when the rule is broken.
// Requirement: FO-01, HN-07, MC-23
// Requirement: MC-07 switch=free-at-append
// Requirement: WR-03 switch=lost-ack
// Requirement: RD-02 switch=stale-read
// Requirement: RD-03 switch=wrong-parity
// Requirement: P-8.7 switch=card-parity-unverified
// Requirement: FL-06, FL-20 switch=skip-flush
// Requirement: FL-20 switch=parity-never-written
// Requirement: P-2.5 switch=clear-stops-at-page
// Requirement: HN-07 switch=far-parts-forgotten
// Requirement: WR-03 switch=log-tail-unwritten
// Requirement: P-2.2 switch=read-at-append
// Requirement: P-2.3 switch=no-duplicate-table
// Requirement: P-2.4 switch=merge-without-block-lock
// Requirement: P-3.1 switch=ack-before-shrink
// Requirement: P-3.2 switch=join-before-acks
// Requirement: P-3.3 switch=acknowledges-one-copy
// Requirement: P-3.1, P-3.5, WR-08 switch=slow-without-revision
// Requirement: WR-08, WR-09 switch=slow-never-restored
// Requirement: P-4.1 switch=anybody-stands
// Requirement: P-4.3 switch=truncate-not-durable
// Requirement: P-4.4 switch=open-before-all-hold-tail
// Requirement: P-5.1 switch=store-loses-last-transaction
// Requirement: P-5.2 switch=restored-store-promotes
// Requirement: P-6.0 switch=reads-unconfirmed
// Requirement: P-6.1 switch=lease-of-any-one
// Requirement: P-6.1 switch=lease-from-receipt
// Requirement: P-6.2 switch=lease-forgotten-at-restart
// Requirement: P-10.2 switch=suspect-promoted
// Requirement: P-4.5 switch=restarted-primary-keeps-epoch
// Requirement: P-7.2 switch=unconditional-index-record
// Requirement: P-8.1 switch=retry-on-same-slots
// Requirement: P-8.2 switch=no-sled-fence
// Requirement: P-10.2 switch=segment-generation-unchecked
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "base/ids.hpp"
#include "io/world.hpp"

namespace luge::sim {

struct ClusterOptions {
  std::uint64_t seed = 1;
  std::uint32_t heads = 4, sleds = 7, devices = 1, volumes = 1, partitions = 1;
  Layout layout{4, 2};
  std::uint64_t volume_bytes = 2 << 20;
  std::uint64_t device_bytes = 64 << 20;  ///< of each of a sled's devices
  std::uint64_t column_bytes = 2 << 20, segment_bytes = 512 << 10;
  double wide = 0;                 ///< so many of the requests are long, or lie across an end of a partition or of a page of the index
  std::uint64_t requests = 600;    ///< at least so many in all ...
  io::Duration least{0};           ///< ... and for so long under faults, ...
  io::Duration most = std::chrono::seconds(20);  ///< ... but no longer than this
  bool rival = false;              ///< a second client that takes the volume over now and then
  bool calm = false;               ///< clients pause between requests
  std::string schedule;            ///< the directed fault that comes again and again (schedules.hpp); empty: none
  bool operators = false;          ///< volumes are made larger, and copies are moved (operators.hpp)
  bool quiet = false;              ///< no faults, and nothing that would need one (quiet.hpp)
  bool faults = true;
  bool heads_code = false;         ///< stripes are coded by heads, not by sleds
  bool flush = true;               ///< ask for a flush and read from the sleds at the end
  bool trace = false;

  /// What the seed draws. Quick: 3 to 5 heads, hundreds of requests. Long: at least 60 s under faults and 5000 requests
  /// on 3 to 9 heads and 6 to 24 sleds.
  static ClusterOptions from_seed(std::uint64_t seed, bool is_long = false);
  /// No faults, no rivals, no operators: whatever else the seed draws.
  void be_quiet();
  std::string describe() const;
  void widen(std::uint64_t seed, bool is_long);
  /// REQUIRES: `name` is one of Schedules::names().
  void direct(const std::string& name);
};

struct ClusterResult {
  std::string failure;  ///< empty: all held
  std::uint64_t trace_hash = 0;
  std::uint64_t events = 0, answered = 0, faults = 0;
  double virtual_seconds = 0;
  std::string fault_summary;
};

ClusterResult run_cluster(const ClusterOptions& options);

}  // namespace luge::sim
