#include "sim/controller/controller.hpp"

#include <cstring>
#include <fstream>
#include <iterator>

namespace luge::sim {

using namespace luge_card;

namespace {
constexpr std::uint32_t kWatchdogReset = 8, kWatchdogState = 4, kWatchdogEnable = 2;
constexpr std::uint64_t kWatchdogRuns = 1000;  // of run() without a restart
// What a card in a cool room reads: 45 degrees, 0.85 V, 1.8 V (docs/firmware.md has the scale).
constexpr std::uint32_t kTemperature = 0xA3A0, kCore = 0x4889, kAuxiliary = 0x999A;
}  // namespace

void Controller::power_on() {
  shared_.fill(0);
  set_shared(SHARED_SLOT, settings_.slot);
  watchdog_ = 0;
  lose_memory();
  reset();
}

void Controller::reset() {
  ++resets_;
  hung_ = false, unwatched_ = 0, cut_at_ = 0;
  start();
}

bool Controller::run(std::uint64_t instructions) {
  if (watchdog_ & kWatchdogEnable && ++unwatched_ > kWatchdogRuns) {
    watchdog_ = kWatchdogReset;
    reset();
  }
  if (hung_) return false;
  const bool more = execute(retired_ + instructions);
  if (!cut()) return more;
  if (cut_is_brown_out_) bus_.power_lost(), power_on();
  else reset();
  return true;
}

std::uint32_t Controller::load(std::uint32_t a) {
  std::uint32_t v = 0xffffffff;
  if (settings_.owner_hidden && a == MAP_REGISTERS + SHARED_OWNER) return 0;
  if (a - MAP_SHARED < MAP_SHARED_BYTES) return shared_[(a - MAP_SHARED) / 4];
  if (a - MAP_REGISTERS < MAP_REGISTERS_BYTES) return bus_.read(a - MAP_REGISTERS, v) ? v : 0xffffffff;
  if (spi_ && a - MAP_FLASH < MAP_FLASH_BYTES) return spi_->load(a - MAP_FLASH);
  switch (a) {
    case MAP_WATCHDOG: return watchdog_;
    case MAP_SENSORS + 0x400: return kTemperature;
    case MAP_SENSORS + 0x404: return kCore;
    case MAP_SENSORS + 0x408: return kAuxiliary;
    case MAP_BOARD: return settings_.board;
    case MAP_BOARD + 4: return settings_.revision;
    case MAP_BOARD + 8: return static_cast<std::uint32_t>(settings_.scratch_address);
    case MAP_BOARD + 12: return static_cast<std::uint32_t>(settings_.scratch_address >> 32);
    case MAP_BOARD + 16: return spi_ ? settings_.slot_bytes : 0;
    case MAP_BOARD + 20: return spi_ ? settings_.sector_bytes : 0;
  }
  return 0;
}

void Controller::store(std::uint32_t a, std::uint32_t v) {
  if (a - MAP_SHARED < MAP_SHARED_BYTES) {
    shared_[(a - MAP_SHARED) / 4] = v;
  } else if (a - MAP_REGISTERS < MAP_REGISTERS_BYTES) {
    bus_.write(a - MAP_REGISTERS, v);
  } else if (spi_ && a - MAP_FLASH < MAP_FLASH_BYTES) {
    spi_->store(a - MAP_FLASH, v);
  } else if (a == MAP_WATCHDOG) {
    if (v & kWatchdogReset) watchdog_ &= ~kWatchdogReset;
    if (v & kWatchdogState) unwatched_ = 0;
    watchdog_ = (watchdog_ & kWatchdogReset) | (v & kWatchdogEnable);
  }
}

std::string not_a_firmware(const std::vector<std::uint8_t>& image) {
  constexpr std::uint32_t kMagic = 0x4957464C;  // "LFWI", behind the first instruction (firmware/hal/card/start.S)
  std::uint32_t header[5];
  if (image.size() < sizeof header) return "the firmware is not there, or cut";
  std::memcpy(header, image.data(), sizeof header);
  if (header[1] != kMagic || header[3] != image.size() || image.size() > MAP_LOCAL_BYTES) return "not a firmware of the controller's, or cut";
  return "";
}

std::vector<std::uint8_t> read_image(const std::string& path) {
  std::ifstream f(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(f), std::istreambuf_iterator<char>()};
}

}  // namespace luge::sim
