// Sensors and counts, in the words shared with the host.
#pragma once
#include <stdint.h>

namespace fw {

struct Counts { uint32_t tables_made, tables_found, fenced, tests_passed, tests_failed; };  // since the controller started

void write_telemetry(const Counts& c);

/// What the device's monitor says of 16 bits (SYSMONE4, UG580): 1/1000 degrees Celsius, mV.
int32_t celsius_1000(uint32_t raw);
uint32_t millivolts(uint32_t raw);

}  // namespace fw
