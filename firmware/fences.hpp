// The lowest epoch that may still ask for something, by volume partition. Rises only. Outlives a reset of the controller at any
// instruction (an entry has two copies of its epoch, and one word says which counts); not the loss of power: the host sets it anew then.
#pragma once
#include <stdint.h>

namespace fw {

inline constexpr unsigned kFences = 63;  // entries of the card, of which 0 is none

/// In force on the card, too, when it returns. False: there is no room for another partition. A lower epoch than the one that is there changes nothing.
bool raise_fence(uint64_t partition, uint64_t epoch);
/// 0: none.
uint64_t fence_of(uint64_t partition);
/// The entry of the card's fence table, 1 to kFences, that descriptors name; 0: none.
uint32_t fence_entry(uint64_t partition);
/// Puts all fences into the card's table, where jobs of the ring meet them. After a start: the card may have lost it.
void load_fences();
/// As after power-up.
void forget_fences();

}  // namespace fw
