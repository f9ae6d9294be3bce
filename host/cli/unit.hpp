// A storage unit on one machine: a directory with one subdirectory per daemon, and the processes that serve it.
//
//   D/unit.json           what the unit is made of
//   D/NAME/config.toml    of each daemon; NAME/log, NAME/pid, NAME/data, and of sleds NAME/device-K
//   D/run/                sockets
//
// Only processes that were started from here are ever signalled: pid, start time and program must agree.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "base/ids.hpp"
#include "base/status.hpp"
#include "cli/process.hpp"

namespace luge::cli {

struct UnitShape {
  std::uint32_t heads = 4, sleds = 8, devices = 2;
  std::uint64_t device_bytes = 4ull << 30;  ///< sparse files
  std::uint64_t log_bytes = 512ull << 20;   ///< volume-data portion of a head's log
  std::uint64_t meta_bytes = 64ull << 20;
  std::uint64_t column_bytes = 16ull << 20;
  std::uint64_t segment_bytes = 16ull << 20;
  std::string card = "none", coding = "isal", verify = "all";  ///< of every sled, as luge-sled's options of these names; coding = head: of every head
  bool operator==(const UnitShape&) const = default;
};

struct Daemon {
  std::string name, role;
  NodeId id = 0;
};

class Unit {
 public:
  /// Makes D and everything in it. exists: D is not empty.
  static Result<Unit> create(const std::string& directory, const UnitShape& shape, const std::string& bin);
  /// Ok if a unit may be made in it: it is not there, or empty. exists: something else is in it.
  static Status is_free(const std::string& directory);
  /// not_found: no such directory. invalid: not a unit's. wrong_version: made by another version.
  static Result<Unit> open(const std::string& directory);

  const std::string& directory() const { return directory_; }
  const UnitShape& shape() const { return shape_; }
  std::uint64_t id() const { return id_; }
  std::string http() const { return "unix:" + directory_ + "/run/api.s"; }
  const std::vector<Daemon>& daemons() const { return daemons_; }
  const Daemon* find(const std::string& name) const;
  /// In the order in which they are started: control, sleds, heads, attach.
  std::vector<Daemon> of_role(const std::string& role) const;

  /// Programs come from here from now on.
  Status set_bin(const std::string& bin);
  const std::string& bin() const { return bin_; }

  std::string program(const Daemon& d) const { return bin_ + "/luge-" + d.role; }
  std::string log_of(const Daemon& d) const { return directory_ + "/" + d.name + "/log"; }
  /// 0: does not run.
  pid_t pid_of(const Daemon& d) const;
  /// Nothing if it runs already.
  Status start(const Daemon& d) const;
  /// True: a signal was sent. False: it does not run.
  Result<bool> signal(const Daemon& d, int number) const;
  /// SIGTERM to all, SIGKILL to what runs after `patience`; until none runs.
  Status stop(const std::vector<Daemon>& daemons, std::chrono::milliseconds patience) const;
  /// The last line that a daemon logged.
  std::string last_words(const Daemon& d) const;

  /// Keeps other invocations that start or stop out; held until destroyed.
  class Lock {
   public:
    explicit Lock(int fd) : fd_(fd) {}
    Lock(Lock&& o) noexcept : fd_(std::exchange(o.fd_, -1)) {}
    ~Lock();

   private:
    int fd_;
  };
  static Result<Lock> lock(const std::string& directory);

 private:
  Status save() const;
  Status write_configs() const;
  void name_daemons();
  std::string config_of(const Daemon& d) const;
  std::string socket(const Daemon& d) const;

  std::string directory_, bin_;
  std::uint64_t id_ = 0;
  UnitShape shape_;
  std::vector<Daemon> daemons_;
};

}  // namespace luge::cli
