// The last fault and the log of events, in the words shared with the host: both outlive a reset of the controller.
#pragma once
#include <stdint.h>

namespace fw {

struct Failure {
  int kind = 0;  // luge_card::FaultKind
  uint32_t detail[2] = {0, 0};
  explicit operator bool() const { return kind != 0; }
};

void log_event(int event, uint32_t a, uint32_t b);
/// Writes the record of the last fault, its CRC last: a record that a reset has cut is seen to be cut.
void record_fault(const Failure& f);
void forget_fault();
/// How many faults were recorded since power-up.
uint32_t faults_seen();

}  // namespace fw
