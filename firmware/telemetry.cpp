#include "firmware/telemetry.hpp"

#include "firmware/faults.hpp"
#include "firmware/hal/hal.hpp"

namespace fw {

using namespace luge_card;

// raw * 507.592 / 65536 - 279.427, in integers; the product stays below 2^31.
int32_t celsius_1000(uint32_t raw) { return static_cast<int32_t>((raw & 0xffff) * 31725u / 4096u) - 279427; }
// raw * 3 V / 65536.
uint32_t millivolts(uint32_t raw) { return (raw & 0xffff) * 3000u / 65536u; }

void write_telemetry(const Counts& c) {
  const uint32_t words[] = {static_cast<uint32_t>(celsius_1000(hal::load(MAP_SENSORS + 0x400))), millivolts(hal::load(MAP_SENSORS + 0x404)),
                            millivolts(hal::load(MAP_SENSORS + 0x408)), hal::reg(REG_COMPLETED), hal::reg(REG_JOBS_FAILED), c.tables_made, c.tables_found,
                            c.fenced, c.tests_passed, c.tests_failed, faults_seen()};
  uint32_t at = SHARED_TELEMETRY;
  for (uint32_t w : words) hal::set_shared(at, w), at += 4;
}

}  // namespace fw
