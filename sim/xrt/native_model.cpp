#include "sim/xrt/model.hpp"

namespace luge::xrt_sim {
std::unique_ptr<sim::Card> make_model() { return sim::make_native_card(); }
}  // namespace luge::xrt_sim
