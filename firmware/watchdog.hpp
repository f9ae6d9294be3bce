// The watchdog, which resets the controller unless it is restarted in time: by the main loop, and by what may rightly take long.
#pragma once
#include "firmware/hal/hal.hpp"

namespace fw::watchdog {

inline constexpr uint32_t kReset = 8, kState = 4, kEnable = 2;

inline bool has_reset() { return (hal::load(luge_card::MAP_WATCHDOG) & kReset) != 0; }
inline void restart() { hal::store(luge_card::MAP_WATCHDOG, kState | kEnable); }
inline void begin() {
  hal::store(luge_card::MAP_WATCHDOG, kReset | kState | kEnable);
  hal::store(luge_card::MAP_WATCHDOG + 4, 1);
}

}  // namespace fw::watchdog
