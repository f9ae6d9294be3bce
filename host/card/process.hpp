// Starting a card process and ending it. Private to host/card.
#pragma once

#include <sys/types.h>

#include <string>

#include "base/status.hpp"
#include "card/card.hpp"
#include "firmware/update/slots.hpp"

namespace luge::card {

class Process {
 public:
  /// `fault`: why not.
  static Result<std::unique_ptr<Process>> start(const CardOptions& options, Fault& fault);
  /// Kills it and all that it has started; waits for its end (which does not take long: nothing of it is left to run).
  ~Process();
  pid_t pid() const { return pid_; }
  int socket() const { return socket_; }  ///< this end, non-blocking; closed by the destructor
  /// Asks it to end by closing the socket, waits up to `milliseconds`.
  void close(int milliseconds);
  /// It has ended, with this status of waitpid().
  bool ended(int& status);
  /// The card is open: the image that it was booted from is good, if it was on trial.
  void came_up();
  /// The last lines that it or the runtime wrote, for people.
  std::string last_words() const;

 private:
  Process() = default;
  pid_t pid_ = 0;
  int socket_ = -1;
  bool reaped_ = false;
  int status_ = 0;
  std::string directory_, log_;
  bool own_directory_ = false;
  unsigned device_ = 0;
  fw::Slot slot_ = fw::kNoSlot;
};

}  // namespace luge::card
