// The model of a flash (host/image/flash_model.hpp) behind the controller's Quad SPI. After a cut it takes nothing and reads as ones until power is back.
#pragma once
#include "image/flash_model.hpp"
#include "sim/controller/quad_spi.hpp"

namespace luge::sim {

class ModelFlash final : public SerialFlash {
 public:
  explicit ModelFlash(image::FlashModel& model) : model_(model) {}
  std::uint8_t read(std::uint32_t at) override {
    std::uint8_t b = 0xff;
    if (!lost && at < model_.bytes().size()) model_.read(at, &b, 1);
    return b;
  }
  void program(std::uint32_t at, const std::vector<std::uint8_t>& data) override {
    if (at + data.size() <= model_.bytes().size()) change([&] { model_.program(at, data.data(), static_cast<std::uint32_t>(data.size())); });
  }
  void erase(std::uint32_t at, std::uint32_t bytes) override {
    for (std::uint32_t i = 0; i < bytes && at + i < model_.bytes().size(); i += model_.layout().sector) change([&] { model_.erase(at + i); });
  }
  void power_on() { model_.power_on(), lost = false; }
  bool lost = false;

 private:
  template <class F>
  void change(F f) {
    if (lost) return;
    try {
      f();
    } catch (const image::PowerLost&) {
      lost = true;  // a thrown exception may not pass the emulated processor
    }
  }
  image::FlashModel& model_;
};

}  // namespace luge::sim
