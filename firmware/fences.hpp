// The lowest epoch that may still ask for something, by volume partition. Rises only. Outlives a reset of the controller at any
// instruction (an entry has two copies of its epoch, and one word says which counts); not the loss of power: the host sets it anew then.
#pragma once
#include <stdint.h>

namespace fw {

inline constexpr unsigned kFences = 64;

/// False: there is no room for another partition. A lower epoch than the one that is there changes nothing.
bool raise_fence(uint64_t partition, uint64_t epoch);
/// 0: none.
uint64_t fence_of(uint64_t partition);
/// As after power-up.
void forget_fences();

}  // namespace fw
