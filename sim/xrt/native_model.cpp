#include "sim/xrt/model.hpp"

#include <cstdlib>
#include <stdexcept>
#include <string_view>

namespace luge::xrt_sim {
std::unique_ptr<sim::Card> make_model() { return sim::make_native_card(); }
std::unique_ptr<sim::Controller> make_controller(sim::CardBus& bus, sim::ControllerSettings settings) {
  const char* wanted = std::getenv("LUGE_CARD_CONTROLLER");
  if (wanted == nullptr || std::string_view(wanted) != "rv32") return sim::make_native_controller(bus, std::move(settings));
#ifdef LUGE_RV32
  return sim::make_rv32_controller(bus, std::move(settings));
#else
  throw std::runtime_error("LUGE_CARD_CONTROLLER=rv32: this simulator was built without Unicorn or the firmware's cross compiler (hls/PACKAGES)");
#endif
}
}  // namespace luge::xrt_sim
