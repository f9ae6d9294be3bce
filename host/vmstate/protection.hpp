// One machine whose state is copied: QEMU's monitor, the recorders of its disks, the passes, and the target; for as long as it is protected.
//
// Threads: every call from any thread; one works at a time, give_up() and status() don't wait.
#pragma once

#include <atomic>
#include <boost/json.hpp>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "vmstate/qmp.hpp"
#include "vmstate/vhost_recorder.hpp"

namespace luge::vmstate {

struct ProtectionOptions {
  std::string machine;              ///< name
  std::string qmp;                  ///< socket of its monitor
  std::vector<std::string> disks;   ///< sockets of its vhost-user disks; the recorder's is beside each
  std::string target;               ///< dir:PATH, the NBD address of a volume, or the address of another host's luge-vmstated
  std::chrono::milliseconds every{0};  ///< a checkpoint each; 0: when asked
  std::size_t keep = 4;             ///< checkpoints; for dir: and a volume
  bool durable = true;              ///< for dir:
  bool with_disk = false;           ///< the disk's blocks are in the checkpoints
  std::string writes = "auto";      ///< of the processors: pagemap, compare, auto
  ReplicationOptions replication;
};
/// A member of a request. invalid: it is no whole number from 0 to `most`.
Result<std::uint64_t> number_of(const boost::json::object& request, std::string_view key, std::uint64_t fallback, std::uint64_t most);
/// Of the members of a request; invalid: which is wrong.
Result<ProtectionOptions> parse_protection(const boost::json::object& request);

class Protection {
 public:
  /// Recording is on when it returns. `directory`: for sockets.
  static Result<std::unique_ptr<Protection>> open(ProtectionOptions options, const std::string& directory);
  ~Protection();

  /// A checkpoint now; its report. `stay_paused`: QEMU isn't told to go on.
  Result<boost::json::object> checkpoint(bool stay_paused = false);
  /// To the machine that waits behind `address`. After it this QEMU is ended.
  Result<boost::json::object> migrate(const std::string& address);
  /// Ends what is under way; nothing new begins.
  void give_up();
  /// Periodic checkpoints, if `every` says so.
  void run();
  /// Recording off. A machine of which it isn't known whether it has arrived elsewhere stays paused.
  Status stop();
  /// The same, said by a person: such a machine goes on here.
  Status release();
  bool waits_for_a_person() const;
  boost::json::object status() const;

 private:
  Protection(ProtectionOptions options, std::unique_ptr<Qmp> qmp, const std::string& directory);
  Status attach();
  Result<Report> one(Target& target, Replicator::Then then);
  void note(const Result<Report>& r);
  void loop();
  std::string description() const;

  const ProtectionOptions options_;
  std::unique_ptr<Qmp> qmp_;
  QemuMachine machine_;
  std::vector<std::unique_ptr<VhostRecorder>> recorders_;
  std::shared_ptr<MachineMemory> memory_;
  std::unique_ptr<Replicator> replicator_;
  std::unique_ptr<Target> target_;
  std::uint64_t parent_ = 0;
  std::mutex working_, stopping_;
  std::thread thread_;
  std::condition_variable wake_;
  std::mutex sleeping_;
  bool ending_ = false;
  std::atomic<bool> under_way_{false};
  // What status() says; guarded by noted_.
  mutable std::mutex noted_;
  std::string state_ = "protected", last_error_;
  std::uint64_t checkpoints_ = 0, failures_ = 0;
  Report last_;
  std::vector<double> pauses_;  // of the last checkpoints
};

boost::json::object to_json(const Report& report);
/// What a person is told whose machine may run elsewhere.
Status undecided(const std::string& machine);

}  // namespace luge::vmstate
