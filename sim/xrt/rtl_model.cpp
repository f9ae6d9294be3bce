#include "sim/xrt/model.hpp"

namespace luge::xrt_sim {
std::unique_ptr<sim::Card> make_model() { return sim::make_card(sim::CardKind::rtl); }
}  // namespace luge::xrt_sim
