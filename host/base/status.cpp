#include "base/status.hpp"

#include <array>
#include <cstdio>
#include <cstdlib>

#include "base/ids.hpp"

namespace luge {

void check_failed(const char* file, int line, const char* expression) {
  std::fprintf(stderr, "%s:%d: invariant does not hold: %s\n", file, line, expression);
  std::abort();
}

std::string_view code_name(Code code) {
  static constexpr std::array<std::string_view, 21> names = {
      "ok",    "invalid",  "not_found",      "exists",   "unavailable", "timed_out",
      "fenced", "stale",   "diverged",       "closed_session", "no_space", "io_error",
      "corrupt", "wrong_unit", "wrong_version", "conflict", "degraded", "internal",
      "forged", "not_permitted", "expired"};
  auto i = static_cast<std::size_t>(code);
  return i < names.size() ? names[i] : "unknown";
}

std::string Status::to_string() const {
  std::string s(code_name(code_));
  if (!text_.empty()) s += ": " + text_;
  return s;
}

Status Status::with(std::string_view where) const {
  return Status(code_, std::string(where) + ": " + text_);
}

std::string to_string(const StripeId& id) {
  return std::to_string(id.vp) + "/" + std::to_string(id.epoch) + "/" + std::to_string(id.counter);
}
std::string to_string(LogPoint p) { return std::to_string(p.epoch) + ":" + std::to_string(p.lsn); }
std::string to_string(Layout l) { return std::to_string(l.k) + "+" + std::to_string(l.m); }

}  // namespace luge
