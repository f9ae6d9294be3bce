#include "card/firmware_text.hpp"

#include <cstdio>

#include "base/crc32c.hpp"
#include "hls/registers/card.h"

namespace luge::card {
namespace {

template <std::size_t N>
std::string name_of(const char* const (&names)[N], std::uint32_t n) { return n < N ? names[n] : "unknown (" + std::to_string(n) + ")"; }

std::string hex(std::uint32_t v) {
  char b[16];
  std::snprintf(b, sizeof b, "0x%x", v);
  return b;
}

}  // namespace

std::string firmware_version_text(std::uint32_t v) { return std::to_string(v >> 16) + "." + std::to_string(v >> 8 & 255) + "." + std::to_string(v & 255); }

std::string firmware_state_text(std::uint32_t state) {
  static constexpr const char* names[] = {"off", "booting", "testing", "ready", "failed"};
  return name_of(names, state);
}

std::string event_text(std::uint32_t event) {
  static constexpr const char* names[] = {"none", "boot", "self-test passed", "fault", "fence", "fenced", "marked good", "restart", "slot chosen"};
  return name_of(names, event);
}

std::string fault_text(std::span<const std::uint32_t> r) {
  static constexpr const char* names[] = {"none", "identity", "memory", "coding", "timeout", "job status", "card", "watchdog", "trap", "flash"};
  constexpr std::size_t kCovered = 8;
  if (r.size() < luge_card::SHARED_LAST_FAULT_WORDS || r[0] == 0 || r[1] == 0) return "";
  if (crc32c(std::as_bytes(r.first(kCovered))) != r[luge_card::SHARED_LAST_FAULT_WORDS - 1]) return "";
  return name_of(names, r[1]) + ", " + hex(r[3]) + ", " + hex(r[4]) + " (start " + std::to_string(r[2]) + ", card status " + hex(r[5]) + ", fault " + hex(r[6]) + ")";
}

}  // namespace luge::card
