// What a card says of itself while a host uses it. The card process listens on DIR/cardN.ask: who connects gets a HelloMessage (without the pool) and a
// FirmwareReport, and the end. A connection is the whole question, so that nobody who asks can keep the card process waiting, and nothing can be changed this way.
#pragma once

#include <chrono>
#include <string>

#include "base/status.hpp"
#include "card/card.hpp"
#include "card/messages.hpp"

namespace luge::card {

/// What a card says of itself.
struct Said {
  HelloMessage hello;
  FirmwareReport firmware;
};

/// Of the card that a host uses; blocks for `limit` at most. not_found: nobody listens. timed_out: the card process is busy with a card that does not answer.
Result<Said> inquire(const CardOptions& options, std::chrono::milliseconds limit);

/// The card process's end.
class Inquiries {
 public:
  /// Listens on `path`, empty: on nothing. Where that is not possible it says so on standard error: the card works all the same.
  explicit Inquiries(const std::string& path);
  ~Inquiries();
  Inquiries(const Inquiries&) = delete;
  /// To be polled for reading; -1: none.
  int descriptor() const { return fd_; }
  /// Who has connected, or -1; to be answered with give() and closed by it.
  int next();
  static void give(int caller, const Said& said);

 private:
  std::string path_;
  int fd_ = -1;
};

}  // namespace luge::card
