// The card that a simulator program holds: defined by what it is linked with.
#pragma once
#include <memory>

#include "sim/card/card.hpp"
#include "sim/controller/controller.hpp"

namespace luge::xrt_sim {
std::unique_ptr<sim::Card> make_model();
/// Its controller: the image in Unicorn for the verilated card; the firmware's host build for the native one, or as LUGE_CARD_CONTROLLER says, native or rv32.
std::unique_ptr<sim::Controller> make_controller(sim::CardBus& bus, sim::ControllerSettings settings);
}
