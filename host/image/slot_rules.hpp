// Slots whose rules a test may break by a switch (host/switches); in the product none can be.
#pragma once

#include "firmware/update/slots.hpp"
#include "switches/switches.hpp"

namespace luge::image {

struct SlotRules {
  static bool kept(fw::Rule rule) {
    switch (rule) {
      case fw::Rule::verify_before_flip: return !broken(Switch::flip_before_verify);
      case fw::Rule::count_attempts: return !broken(Switch::attempts_not_counted);
      case fw::Rule::whole_before_boot: return !broken(Switch::torn_image_booted);
      default: return true;
    }
  }
};

template <class Medium>
using Slots = fw::Slots<Medium, SlotRules>;

}  // namespace luge::image
