// The images in a board's own flash, as the controller sees them: which one is on trial, how often it has started, whether it is good. update/slots.hpp
// has the rules. On a board without a flash of its own nothing is there, and a host keeps them.
#pragma once
#include <stdint.h>

namespace fw {

/// Once after power-up: the slot that boots, by the rules; an attempt is counted before it starts. kNoSlot: the board has no flash of its own.
uint32_t choose_image(bool& fell_back);
/// What runs, from `slot`, has passed its self-test. False: the flash did not take it.
bool image_is_good(uint32_t slot);

}  // namespace fw
