// The firmware's host build as the controller: one round of its loop a run; what it counts are its loads and stores.
#include <cstring>
#include <exception>
#include <stdexcept>

#include "firmware/firmware.hpp"
#include "firmware/hal/host/world.hpp"
#include "sim/controller/controller.hpp"

namespace luge::sim {
namespace {

class Native final : public Controller, private fw::host::World {
 public:
  using Controller::Controller;

 private:
  struct Cut {};
  void start() override { booted_ = false; }
  void lose_memory() override { fw::lose_power(); }
  bool execute(std::uint64_t) override {
    fw::host::use(*this);
    try {
      if (!booted_) fw::boot(), booted_ = true;
      else fw::poll();
    } catch (const fw::host::Restart&) {
      booted_ = false;
      return true;
    } catch (const Cut&) {
    }
    return false;
  }
  std::uint32_t load(std::uint32_t a) override {
    if (!count()) return 0;
    if (a < luge_card::MAP_SCRATCH) return Controller::load(a);
    std::uint32_t v;
    std::memcpy(&v, settings_.scratch + (a - luge_card::MAP_SCRATCH), 4);
    return v;
  }
  void store(std::uint32_t a, std::uint32_t v) override {
    if (!count()) return;
    if (a < luge_card::MAP_SCRATCH) Controller::store(a, v);
    else std::memcpy(settings_.scratch + (a - luge_card::MAP_SCRATCH), &v, 4);
  }
  // False: it has been cut, and what destructors still do on the way out does not happen.
  bool count() {
    if (cut() && std::uncaught_exceptions() != 0) return false;
    if (cut()) throw Cut();
    ++retired_;
    return true;
  }
  bool booted_ = false;
};

}  // namespace

std::unique_ptr<Controller> make_native_controller(CardBus& bus, ControllerSettings settings) {
  // It runs its own, but an image that the controller could not run does not start here either.
  if (std::string why = settings.image.empty() ? "" : not_a_firmware(settings.image); !why.empty()) throw std::runtime_error(why);
  auto c = std::make_unique<Native>(bus, std::move(settings));
  c->power_on();
  return c;
}

}  // namespace luge::sim
