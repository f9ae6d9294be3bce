// Errors are values. A Status says what went wrong in a code that programs act on and a sentence that a
// person reads: what was wrong, where, and what to do. Exceptions are kept for one thing, io::Stopped.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "base/check.hpp"

namespace luge {

/// On the wire as u16: never renumber. Codes marked * are final for the asker, the others may be retried.
enum class Code : std::uint16_t {
  ok = 0,
  invalid = 1,        ///< * malformed or out of range request
  not_found = 2,      ///< *
  exists = 3,         ///< * name or attachment already there
  unavailable = 4,    ///< peer down, not open yet, moved: ask again (maybe elsewhere)
  timed_out = 5,      ///< no answer; whether it happened is unknown
  fenced = 6,         ///< * the asker's epoch is older than one held here: it has been fenced off
  stale = 7,          ///< * slot generation or stripe id is not the one named
  diverged = 8,       ///< * same LSN, other content
  closed_session = 9, ///< * a newer incarnation of the attachment has been opened
  no_space = 10,
  io_error = 11,      ///< the device or file answered with an error
  corrupt = 12,       ///< a checksum or an identity did not match
  wrong_unit = 13,    ///< * message of another storage unit
  wrong_version = 14, ///< * format or protocol version not known here
  conflict = 15,      ///< * compare-and-swap lost; the answer carries the newer value
  degraded = 16,      ///< too few members or sleds at present; the text names them
  internal = 17,
  forged = 18,        ///< * a designation or credential that was not made by who alone makes them, or none at all
  not_permitted = 19, ///< * a genuine one, for something else: another role, another column
  expired = 20,       ///< * a genuine one, for a claim of the column that is over
};

std::string_view code_name(Code code);

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string text) : code_(code), text_(std::move(text)) {}
  bool ok() const { return code_ == Code::ok; }
  explicit operator bool() const { return ok(); }
  Code code() const { return code_; }
  const std::string& text() const { return text_; }
  std::string to_string() const;  ///< "fenced: text"
  Status with(std::string_view where) const;  ///< prefixes the text: "where: text"

 private:
  Code code_ = Code::ok;
  std::string text_;
};

/// A value or the Status that explains its absence. value() of an error is a bug and ends the process.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : v_(std::move(value)) {}
  Result(Status status) : v_(std::move(status)) { LUGE_CHECK(!std::get<Status>(v_).ok()); }
  Result(Code code, std::string text) : Result(Status(code, std::move(text))) {}
  bool ok() const { return std::holds_alternative<T>(v_); }
  explicit operator bool() const { return ok(); }
  T& value() { LUGE_CHECK(ok()); return std::get<T>(v_); }
  const T& value() const { LUGE_CHECK(ok()); return std::get<T>(v_); }
  T& operator*() { return value(); }
  const T& operator*() const { return value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  Status status() const { return ok() ? Status() : std::get<Status>(v_); }
  Code code() const { return ok() ? Code::ok : std::get<Status>(v_).code(); }

 private:
  std::variant<T, Status> v_;
};

}  // namespace luge
