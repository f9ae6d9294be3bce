// What the numbers of a card's firmware (hls/registers/card.toml) mean, for people.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace luge::card {

/// "coding, 0x1004, 0x1 (start 1, ...)" of the last fault record's words. Empty: there was none, or the record is cut.
std::string fault_text(std::span<const std::uint32_t> record);
std::string firmware_version_text(std::uint32_t version);
std::string firmware_state_text(std::uint32_t state);
std::string event_text(std::uint32_t event);

}  // namespace luge::card
