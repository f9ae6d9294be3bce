// QEMU's monitor (QMP) over its unix socket: one command after the other, blocking, each within a limit.
// Threads: one.
#pragma once

#include <boost/json.hpp>
#include <chrono>
#include <memory>
#include <string>

#include "base/status.hpp"
#include "vmstate/pause_notes.hpp"
#include "vmstate/replicator.hpp"

namespace luge::vmstate {

class Qmp {
 public:
  /// not_found: nobody listens there.
  static Result<std::unique_ptr<Qmp>> open(const std::string& path, std::chrono::milliseconds patience = std::chrono::seconds(5));
  ~Qmp();
  /// The command's `return`. Errors of QEMU's: `invalid` with its words.
  Result<boost::json::value> run(std::string_view command, boost::json::object arguments = {}, std::chrono::milliseconds limit = std::chrono::seconds(20));
  /// Process id of the QEMU at the other end.
  int pid() const { return pid_; }
  const std::string& path() const { return path_; }

 private:
  Qmp(std::string path, int fd, int pid) : path_(std::move(path)), fd_(fd), pid_(pid) {}
  Result<boost::json::object> next(std::chrono::steady_clock::time_point deadline);
  const std::string path_;
  const int fd_, pid_;
  std::string heard_;
  std::int64_t last_id_ = 0;
};

/// What QEMU says of its machine: "running", "paused", "postmigrate", "inmigrate", ...
Result<std::string> qemu_status(Qmp& qmp);

/// The machine that a QEMU runs. Its memory must be a backend with share=on: device state is then all that QEMU saves (capability x-ignore-shared).
class QemuMachine final : public Machine {
 public:
  /// `directory`: for the socket over which state comes.
  /// What is paused is noted there as the machine `name`.
  QemuMachine(Qmp& qmp, std::string name, std::string directory);
  Result<bool> pause(bool goes_on) override;
  Status resume() override;
  Status hand_over() override;
  /// Its own migrations take the memory along again, whatever one of us who was killed has left.
  static void memory_belongs(Qmp& qmp);
  /// This QEMU has been told to end.
  void ended() { notes_.remove(note_.machine); }
  Result<std::string> device_state() override;
  /// What can be asked of QEMU before the pause; release() undoes it.
  Status prepare();
  void release();
  /// Gives `state` to a QEMU that was started with `-incoming defer`; it is paused then. `directory`: for a socket.
  static Status load(Qmp& qmp, const std::string& state, const std::string& directory);

 private:
  Result<std::string> save();
  Qmp& qmp_;
  const std::string directory_;
  const PauseNotes notes_;
  PauseNote note_;
  std::int64_t bandwidth_ = -1;  // QEMU's before prepare(); -1: as it is
};

}  // namespace luge::vmstate
