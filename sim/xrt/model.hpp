// The card that a simulator program holds: defined by what it is linked with.
#pragma once
#include <memory>

#include "sim/card/card.hpp"

namespace luge::xrt_sim {
std::unique_ptr<sim::Card> make_model();
}
