// Random clients of one volume: reads, writes, sub-block writes, trims and zeroes that collide on a few hot blocks,
// all recorded in a History. Runs on a client's node; survives its crashes (each attachment is a client of its own in
// the history, and fences the ones before it).
#pragma once

#include <memory>
#include <string>

#include "sim/cluster/history.hpp"
#include "sim/cluster/simulation.hpp"

namespace luge::sim {

/// A volume as the workload sees it. Calls may overlap. Memory stays valid until the call returns.
class Target {
 public:
  virtual ~Target() = default;
  virtual io::Task<Status> read(std::uint64_t offset, MutableBytes into) = 0;
  virtual io::Task<Status> write(std::uint64_t offset, Bytes bytes) = 0;
  virtual io::Task<Status> trim(std::uint64_t offset, std::uint64_t bytes) = 0;
  virtual io::Task<Status> zero(std::uint64_t offset, std::uint64_t bytes) = 0;
  /// For reports: what it waits for.
  virtual std::string waiting() const { return ""; }
  /// Rises with each attachment; 0: the present one has learned that another has taken its place.
  virtual std::uint64_t attachment() const { return 1; }
};

class Workload {
 public:
  struct Options {
    std::uint64_t volume_bytes = 8 << 20;
    std::uint64_t hot_blocks = 64;  ///< most requests go to as many blocks at the start of the volume
    std::uint32_t workers = 6;
    std::uint64_t requests = ~std::uint64_t{0};  ///< in all; then the workers end
    std::uint32_t longest = 8;      ///< blocks a request
    Duration pause = 3ms;           ///< longest time between a worker's requests
    bool linger = false;            ///< an attachment that has been replaced and does not know it goes on reading
    Duration rest{0};               ///< after each 300 ms of work
    double wide = 0;                ///< so many requests are of up to `widest` blocks, half of those across an edge
    std::uint32_t widest = 256;
    std::uint64_t partition_bytes = 0;
    double reads = 0.4, sub_block = 0.15, trims = 0.03, zeroes = 0.03;
  };

  Workload(Simulation& sim, Options options) : sim_(sim), options_(options), random_(sim.random().fork()) {}

  /// From the client's node, when its volume is open: fences earlier attachments and starts the workers.
  /// `target` lives as long as the World's tasks.
  void attach(io::World& world, Target& target);
  /// Bursts of many trims and little else: metadata grows as fast as it can. Before the first attach().
  void storm() {
    options_.workers = 24;
    options_.hot_blocks = 256;
    options_.pause = Duration(1000);
    options_.rest = 1200ms;
    options_.reads = 0.02;
    options_.trims = 0.9;
  }
  /// No new requests. Those under way go on.
  void stop() { stopped_ = true; }
  bool attached() const { return client_ != 0; }
  void detached() { client_ = 0; }
  /// Requests asked and not answered by the present attachment.
  std::size_t open() const { return history_.open(); }
  bool done() const { return started_ >= options_.requests; }
  /// After stop(): so many requests more, from the client that is attached or the next one.
  void go_on(io::World& world, Target& target, std::uint64_t requests);
  std::uint64_t started() const { return started_; }
  /// Reads the whole volume through `target` into the history, all of it at once: what cannot be read holds nothing
  /// else up. Errors are kept in error().
  io::Task<void> read_back(io::World& world, Target& target);

  /// The first error that a client saw, if any: it should see pauses only.
  const std::string& error() const { return error_; }
  const History& history() const { return history_; }
  std::uint64_t answered() const { return history_.completed(); }

 private:
  io::Task<void> worker(io::World& world, Target& target, std::uint32_t client);
  io::Task<void> reader(io::World& world, Target& target, std::uint32_t client);
  struct Range {
    std::uint64_t offset, bytes;
  };
  Range near_or_far();
  Range wide();
  io::Task<void> request(Target& target, std::uint32_t client);
  io::Task<void> read(Target& target, std::uint32_t client, std::uint64_t offset, std::uint64_t bytes);
  void answer(History::Op op, const Status& s, Bytes read = {});

  Simulation& sim_;
  Options options_;
  Random random_;
  History history_;
  std::uint32_t client_ = 0, clients_ = 0;
  std::uint64_t started_ = 0;
  bool stopped_ = false;
  std::string error_;
};

}  // namespace luge::sim
