// A coder that is not trusted, guarded by ISA-L (A10): a card or an OpenCL device may be wrong, hang, refuse or be gone, and
// what is coded is right all the same, within a bounded time.
//
//   opening   coded by software until the device is open and has passed its self-test
//   healthy   coded by the device; its parity compared with software's: all of it, or a sample
//   suspect   it came back after a fault and has passed its self-test: all of its parity compared, until `probation` jobs in
//             a row were right
//   out       coded by software. The device is reset and tested again and again, with a growing pause between, and becomes
//             suspect when it passes
//
// A fault is wrong parity, an error, or no answer within the deadline; the first one puts the device out. What the device did
// meanwhile for other jobs is compared before it is used. Memory that a hung job may still write is not used again: the
// job keeps it until the device has answered or has been reset.
// One World, one thread. Outlives the tasks of the World.
#pragma once

#include <functional>
#include <optional>

#include "coding/erasure_coder.hpp"
#include "io/world.hpp"

namespace luge::coding {

class GuardedCoder {
 public:
  struct Options {
    bool verify_all = true;          ///< else every `sample`th job, so that wrong parity may be used until it is found out
    std::uint64_t sample = 16;
    io::Duration deadline = std::chrono::milliseconds(1800);  ///< of one job at the device
    unsigned in_flight = 4;          ///< jobs at the device at once; others wait, and a wait counts for no deadline
    io::Duration first_pause = std::chrono::seconds(1), longest_pause = std::chrono::seconds(60);  ///< before a self-test
    std::uint64_t probation = 32;
  };
  enum class State { opening, healthy, suspect, out };
  enum class Fault { wrong, hung, refused };
  struct Share {
    std::uint64_t jobs = 0, source_bytes = 0;
  };
  struct Counters {
    Share device, software;                      ///< who made what was used
    std::uint64_t fallbacks = 0;                 ///< jobs of `software` that were the device's to do
    std::uint64_t compared = 0;                  ///< jobs of the device
    std::uint64_t wrong = 0, hung = 0, refused = 0;
    std::uint64_t tests_passed = 0, tests_failed = 0;
    io::Duration longest_wait{};                 ///< of a job at a device that then did not do it: how late software was
  };
  struct Coded {
    std::vector<Buffer> chunks;
    bool by_device = false;
  };

  /// `device` null: software alone, which is compared with nothing.
  GuardedCoder(io::World& world, std::shared_ptr<ErasureCoder> device, Options options);
  ~GuardedCoder();

  /// Opens the device and tests it. Not ok: it is out, why, and will be tried again. Everything is coded meanwhile.
  io::Task<Status> start();
  /// The m parity chunks of k data chunks; all of one size, a multiple of 64. invalid: sizes or layout are not possible.
  /// fenced: the device has seen a greater epoch of the partition; that is no fault of its, and nothing is coded.
  io::Task<Result<Coded>> encode(Layout layout, std::vector<Buffer> data, Authority who = {});
  /// Rebuilds the chunks `wanted` from the first k of `present` that are not empty. `right` says whether what was rebuilt
  /// matches its checksums: if it does not, software decides whose fault that is, and its result is returned.
  using Right = std::function<bool(const std::vector<Buffer>&)>;
  io::Task<Result<Coded>> reconstruct(Layout layout, std::vector<Buffer> present, std::vector<std::uint32_t> wanted, Right right);

  bool has_device() const { return device_ != nullptr; }
  State state() const { return state_; }
  /// Who would code now.
  std::string_view name() const { return usable() ? device_->name() : software_->name(); }
  std::string_view device_name() const { return device_ ? device_->name() : software_->name(); }
  std::string_view software_name() const { return software_->name(); }
  /// Why it was put out last; empty: never.
  const std::string& last_fault() const { return last_fault_; }
  const Counters& counters() const { return counters_; }
  ErasureCoder::Figures figures() const { return device_ ? device_->figures() : ErasureCoder::Figures{}; }
  /// Memory that the device need not copy.
  Buffer allocate(std::size_t bytes) { return device_ ? device_->allocate(bytes) : Buffer::allocate(bytes); }

 private:
  struct Job;
  bool usable() const { return state_ == State::healthy || state_ == State::suspect; }
  static io::Task<Status> attempt(std::shared_ptr<ErasureCoder> device, std::shared_ptr<Job> job);
  io::Task<bool> by_device(std::shared_ptr<Job> job);
  io::Task<Result<Coded>> by_software(const Job& job);
  void count_software(const Job& job);
  Coded taken_from_device(Job& job);
  io::Task<Status> run_software(const Job& job, std::vector<Buffer>& out);
  io::Task<Result<Coded>> compared(std::shared_ptr<Job> job);
  std::shared_ptr<Job> make_job(Layout layout, std::vector<Buffer> from, std::vector<std::uint32_t> wanted);
  bool compare_due();
  void fault(Fault kind, const std::string& text);
  io::Task<void> bring_back();
  io::Task<Status> self_test();
  io::Task<Status> test_layout(Layout layout, std::size_t bytes);

  io::World& world_;
  Options options_;
  std::shared_ptr<ErasureCoder> device_, software_;
  State state_ = State::opening;
  std::uint64_t outage_ = 0;   // how often it was put out: a job that began before the last time is compared
  bool bringing_back_ = false;
  io::Duration pause_;
  std::uint64_t good_ = 0;     // jobs compared in a row
  std::uint64_t sampled_ = 0;
  std::uint64_t test_pattern_ = 0x9e3779b97f4a7c15u;
  unsigned in_flight_ = 0;
  io::Event room_;
  std::string last_fault_;
  Counters counters_;
};

std::string_view state_name(GuardedCoder::State s);

}  // namespace luge::coding
