// The card, seen from a daemon: opened, its identity checked, its memory shared, its jobs asynchronous.
//
// XRT lives in a process of its own, `luge-card` (card_main.cpp says why): the runtime ends its process when a device or
// a simulator goes wrong, and a sled must not end with it. A Card is the daemon's end: a socket for small messages and a
// memfd pool mapped by both sides, so that a stripe is never carried in a message between them.
//
//   Result<std::unique_ptr<Card>> card = co_await open_card(world, {.kind = "native"});
//   Buffer chunk = (*card)->allocate(128 << 10);                  // or any other memory: it is copied into the pool
//   Status s = co_await (*card)->coder()->encode(layout, data, parity);
//
// Errors. Every call ends within its limit, whatever the card, the runtime or the simulator does:
//   code           fault()              what happened                                                   the Card afterwards
//   io_error       bus_error            the card's memory answered a read or write of the job with an error     goes on
//   timed_out      hang                 no completion within `job_limit`, or the card's own bus time-out        lost
//   unavailable    died                 the card process ended, or its simulator or device did                  lost
//   unavailable    died                 its firmware says that the card is not to be used: its self-test failed         (not opened)
//   wrong_version  wrong_version        register map, descriptor or xclbin of a version not known here          (not opened)
//   invalid        not_a_card           all-ones, or another identity, or a file that is not an xclbin          (not opened)
//   not_found      no_runtime           XRT, the card program, the xclbin or the environment file is missing    (not opened)
//   exists         in_use               another host has the card                                               (not opened)
//   internal       refused              the card refused a descriptor that was made here                        goes on
//   invalid        (none)               sizes or a layout that cannot be: the caller's error, nothing was sent   goes on
// After any error of a job its output is undefined. A lost Card answers every later call at once with the same Status; to
// have the card back destroy it (which ends the card process), open_card() again and see self_test() pass.
//
// One World, one thread; only a RealWorld's loop can wait for the card process, so nothing here runs in sim/cluster.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/buffer.hpp"
#include "base/status.hpp"
#include "coding/erasure_coder.hpp"
#include "io/world.hpp"

namespace luge::card {

enum class Fault : std::uint8_t { none, bus_error, hang, died, wrong_version, not_a_card, no_runtime, in_use, refused };
std::string_view fault_name(Fault fault);  ///< "bus_error", ...

struct CardOptions {
  /// Whose environment file (see `tree`) the card process gets: "native", "rtl"; "hw" gets none.
  std::string kind = "native";
  unsigned device = 0;             ///< of those that XRT shows
  std::string xclbin;              ///< empty: TREE/KIND.xclbin
  std::string tree;                ///< holds KIND.env and KIND.xclbin; empty: $LUGE_XRT, else ../xrt beside the running program
  std::string program;             ///< of the card process; empty: `luge-card` beside the running program
  std::string memory;              ///< "mapped" (the card's own memory, nothing is copied) or "copied"; empty: the environment file's, else copied
  std::string directory;           ///< where the runtime may put its files; empty: a temporary one, removed with the Card
  std::size_t pool_bytes = 64u << 20;  ///< shared memory, on the card and here; a multiple of 4096
  io::Duration start_limit = std::chrono::seconds(20);
  io::Duration job_limit = std::chrono::milliseconds(1500);   ///< from submission while nothing completes
};

/// Since the card was opened.
struct CardCounters {
  std::uint64_t jobs = 0, jobs_failed = 0;             ///< code jobs completed by the card; of them with another status than ok
  std::uint64_t encode_jobs = 0, decode_jobs = 0;
  std::uint64_t tables_loaded = 0;
  std::uint64_t source_bytes = 0, result_bytes = 0;    ///< coded on the card
  std::uint64_t copied_bytes = 0;                      ///< between callers' memory and the pool; 0: zero-copy
  std::uint64_t to_card_ns = 0, on_card_ns = 0, from_card_ns = 0;  ///< wall time of H2D, of waiting for completions, of D2H
  // The card's own registers, widened to 64 bits.
  std::uint64_t completed = 0, cycles = 0, busy_cycles = 0, beats_read = 0, beats_written = 0, read_stalls = 0, write_stalls = 0, failed = 0;
};

class Card {
 public:
  virtual ~Card() = default;  ///< ends the card process; jobs that wait for it must have ended

  /// "card-native", "card-rtl", "card-hw": also the coder's name().
  virtual std::string_view name() const = 0;
  /// For people: device, bitstream, register map, limits.
  virtual std::string describe() const = 0;

  /// Codes on this Card; lives with it (a shared_ptr may outlive the Card: it then answers `unavailable`). k 1..16, m 1..4 wanted
  /// chunks at once per job, any size the interface allows; several calls at once are queued on the card's ring.
  virtual std::shared_ptr<coding::ErasureCoder> coder() = 0;

  /// Memory of the pool: coded without a copy. Falls back to ordinary memory when the pool is full; freed with its last Buffer,
  /// which may outlive the Card.
  virtual Buffer allocate(std::size_t bytes) = 0;

  /// Known answers in every layout the card was built for, encode and decode, odd sizes, read back and compared: passes or says what
  /// differs (corrupt), or the fault. At most job_limit per job.
  virtual io::Task<Status> self_test() = 0;

  virtual io::Task<Result<CardCounters>> counters() = 0;

  /// ok while the Card takes jobs; else why it does not any more.
  virtual Status status() const = 0;
  /// The last fault met, of a job or of the Card.
  virtual Fault fault() const = 0;
  /// Pid of the card process; for tests and `luge status`. 0: gone.
  virtual int process() const = 0;
};

/// Starts the card process, opens the device, loads the xclbin, checks identity and versions, loads the ring. REQUIRES: a RealWorld.
io::Task<Result<std::unique_ptr<Card>>> open_card(io::World& world, CardOptions options);
/// The same, with the fault beside the Status when it fails.
io::Task<Result<std::unique_ptr<Card>>> open_card(io::World& world, CardOptions options, Fault& fault);

/// A coder for GuardedCoder: closed at first (every call: unavailable); reset() ends the card process, if there is one, and opens
/// the card anew, allocate() gives memory of its pool while there is one, figures() the counters as last heard (by the names of
/// CardCounters, over all the cards opened by it, and "opened").
std::shared_ptr<coding::ErasureCoder> make_card_coder(io::World& world, CardOptions options);

}  // namespace luge::card
