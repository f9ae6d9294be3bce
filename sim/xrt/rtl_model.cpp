#include "sim/xrt/model.hpp"

namespace luge::xrt_sim {
std::unique_ptr<sim::Card> make_model() { return sim::make_card(sim::CardKind::rtl); }
std::unique_ptr<sim::Controller> make_controller(sim::CardBus& bus, sim::ControllerSettings settings) {
  return sim::make_rv32_controller(bus, std::move(settings));
}
}  // namespace luge::xrt_sim
