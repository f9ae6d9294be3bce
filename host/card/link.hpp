// The daemon's end of a card process: jobs sent and answered, deadlines, the pool. Private to host/card.
//
// Invariant: memory that the card may still read or write is not given out again: a job pins its pieces of the pool until it is
// answered or its process has ended.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "card/card.hpp"
#include "card/messages.hpp"
#include "card/pool.hpp"
#include "card/process.hpp"
#include "io/real_world.hpp"

namespace luge::card {

struct Job {
  JobMessage message;
  std::vector<std::shared_ptr<void>> pins;
  bool ended = false;
  Status status;
};

class Link : public std::enable_shared_from_this<Link> {
 public:
  Link(io::RealWorld& world, CardOptions options);
  ~Link();

  io::Task<Status> open();
  /// Ends the process. Jobs that wait end `unavailable`. Kindly: a sound one may close its device first, for which the loop waits; else it
  /// is killed.
  void close(bool kindly);

  /// Puts the job on its way; ends at once when the card is lost.
  void start(std::shared_ptr<Job> job);
  io::Task<void> ended(std::shared_ptr<Job> job);
  /// Ends with the next job that ends, whichever; for who waits for memory.
  io::Task<void> any_ended();
  io::Task<Result<CardCounters>> ask_counters();
  /// The firmware's answer to a command (0: none), and what it says of itself.
  io::Task<Result<FirmwareReport>> ask_firmware(int op, std::span<const std::uint32_t> arguments);

  const CardCounters& counters() const { return counters_; }
  CardCounters& counters() { return counters_; }
  const Status& status() const { return status_; }
  Fault fault() const { return fault_; }
  int pid() const { return process_ ? process_->pid() : 0; }
  const HelloMessage& hello() const { return hello_; }
  const std::shared_ptr<Pool>& pool() const { return pool_; }
  std::size_t in_flight() const { return sent_.size() + waiting_.size(); }

 private:
  struct Waiter;
  void listen();
  void hear();
  void hear_one(const char* data, std::size_t n, int descriptor);
  void send_waiting();
  void finish(std::uint32_t id, Status status);
  io::Task<Status> answered(std::uint32_t question, io::Duration limit, const char* what);
  void lose(Fault fault, Status why);
  Status explain_end();
  static io::Task<void> watch(std::shared_ptr<Link> self);

  io::RealWorld& world_;
  CardOptions options_;
  std::unique_ptr<Process> process_;
  std::unique_ptr<Waiter> waiter_;
  std::shared_ptr<Pool> pool_;
  HelloMessage hello_;
  bool open_ = false, closed_ = false;
  Status status_;
  Fault fault_ = Fault::none;
  std::uint32_t next_id_ = 1;
  std::map<std::uint32_t, std::shared_ptr<Job>> sent_;
  std::deque<std::shared_ptr<Job>> waiting_;
  std::map<std::uint32_t, bool> questions_;  // answered?
  CardCounters counters_;
  FirmwareReport report_;
  io::Time progress_;
  io::Event changed_, started_;
};

}  // namespace luge::card
