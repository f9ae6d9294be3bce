// Built-in self-test: whether the card does what it is for: identity and registers, the memory, and known answers through the kernels.
#pragma once
#include "firmware/faults.hpp"

namespace fw {

/// `quiet`: nobody else uses the card, so registers may be written and jobs run; else only what disturbs nobody. Every wait is bounded. After a
/// failure the card is drained and cleared: a job of the test that hangs costs nobody else anything.
Failure self_test(bool quiet);
/// Jobs that the last test ran.
uint32_t self_test_jobs();

}  // namespace fw
