#include "sim/xrt/model.hpp"

#include <cstdlib>
#include <string_view>

namespace luge::xrt_sim {
std::unique_ptr<sim::Card> make_model() { return sim::make_card(sim::CardKind::rtl); }
std::unique_ptr<sim::Controller> make_controller(sim::CardBus& bus, sim::ControllerSettings settings) {
  const char* wanted = std::getenv("LUGE_CARD_CONTROLLER");
  if (wanted != nullptr && std::string_view(wanted) == "native") return sim::make_native_controller(bus, std::move(settings));
  return sim::make_rv32_controller(bus, std::move(settings));
}
}  // namespace luge::xrt_sim
