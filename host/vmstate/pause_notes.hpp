// Which machines luge-vmstated has paused, in files beside its sockets: whoever starts after it has been killed knows what stands still, and
// whether that may be let run. They need to outlive the daemon, not the host, whose machines end with it: nothing is synced.
//
// Threads: any; one machine's notes from one at a time.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.hpp"

namespace luge::vmstate {

struct PauseNote {
  enum class Kind {
    goes_on,       ///< it runs nowhere else: let it run
    handing_over,  ///< it may run elsewhere: a person decides
  };
  std::string machine, qmp;   ///< its name; the socket of its QEMU's monitor
  int process = 0;            ///< that QEMU
  std::uint64_t started = 0;  ///< when, as the kernel counts: ids are used again
  Kind kind = Kind::goes_on;

  /// True: it isn't known that this QEMU has ended.
  bool lives() const;
};

/// When a process was started, as the kernel counts; 0: there is none.
std::uint64_t started(int process);

class PauseNotes {
 public:
  /// `directory`: the daemon's.
  explicit PauseNotes(const std::string& directory) : directory_(directory + "/paused") {}
  Status write(const PauseNote& note) const;
  void remove(const std::string& machine) const;
  /// Those that can be read.
  std::vector<PauseNote> all() const;

 private:
  const std::string directory_;
};

}  // namespace luge::vmstate
