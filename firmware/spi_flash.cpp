#include "firmware/spi_flash.hpp"

#include "firmware/hal/hal.hpp"
#include "firmware/watchdog.hpp"

namespace fw {
namespace {

using luge_card::MAP_FLASH;

constexpr uint32_t kSoftReset = MAP_FLASH + 0x40, kControl = MAP_FLASH + 0x60, kStatus = MAP_FLASH + 0x64, kTransmit = MAP_FLASH + 0x68, kReceive = MAP_FLASH + 0x6C,
                   kSelect = MAP_FLASH + 0x70;
constexpr uint32_t kEnable = 2, kMaster = 4, kClearFifos = 0x60, kManualSelect = 0x80, kInhibit = 0x100;  // of the control register
constexpr uint32_t kTransmitEmpty = 4;                                                                    // of the status register
constexpr uint32_t kResetKey = 0xA, kChip0 = ~1u, kNoChip = ~0u;
constexpr uint32_t kFifo = 16;
constexpr uint8_t kRead4 = 0x13, kProgram4 = 0x12, kErase4k = 0x21, kErase64k = 0xDC, kWriteEnable = 0x06, kReadStatus = 0x05;
constexpr uint8_t kWriting = 1, kMayWrite = 2;  // of the flash's status
constexpr uint32_t kPolls = 10000;              // of the controller; a FIFO is out in some hundred cycles
constexpr uint32_t kStatusReads = 2000000;      // of the flash; a sector takes a second or two

constexpr uint32_t kRun = kEnable | kMaster | kManualSelect;

// Chip select from here to the end of the object: one command.
class Selected {
 public:
  Selected() {
    hal::store(kSoftReset, kResetKey);
    hal::store(kControl, kRun | kInhibit | kClearFifos);
    hal::store(kSelect, kChip0);
  }
  ~Selected() noexcept(false) {  // on the host an access may be where a test cuts
    hal::store(kSelect, kNoChip);
    hal::store(kControl, kRun | kInhibit);
  }
  Selected(const Selected&) = delete;
  // Sends `bytes` (0s without `out`) and keeps what comes back, if wanted.
  bool exchange(const uint8_t* out, uint8_t* in, uint32_t bytes) {
    for (uint32_t at = 0; at < bytes;) {
      const uint32_t n = bytes - at < kFifo ? bytes - at : kFifo;
      for (uint32_t i = 0; i < n; ++i) hal::store(kTransmit, out ? out[at + i] : 0);
      hal::store(kControl, kRun);
      uint32_t polls = 0;
      while (!(hal::load(kStatus) & kTransmitEmpty))
        if (++polls == kPolls) return false;
      hal::store(kControl, kRun | kInhibit);
      for (uint32_t i = 0; i < n; ++i) {
        const uint8_t b = static_cast<uint8_t>(hal::load(kReceive));
        if (in) in[at + i] = b;
      }
      at += n;
    }
    return true;
  }
  bool command(uint8_t op, uint32_t address) {
    const uint8_t bytes[] = {op, static_cast<uint8_t>(address >> 24), static_cast<uint8_t>(address >> 16), static_cast<uint8_t>(address >> 8), static_cast<uint8_t>(address)};
    return exchange(bytes, nullptr, sizeof bytes);
  }
};

bool status(uint8_t& s) {
  Selected chip;
  return chip.exchange(&kReadStatus, nullptr, 1) && chip.exchange(nullptr, &s, 1);
}

}  // namespace

bool SpiFlash::ready() {
  uint8_t s = 0;
  for (uint32_t i = 0; i < kStatusReads; ++i) {
    if (!status(s)) return false;
    if (!(s & kWriting)) return true;
    watchdog::restart();
  }
  return false;
}

// A flash that does not take the write enable is not there, or is protected.
bool SpiFlash::enabled() {
  {
    Selected chip;
    if (!chip.exchange(&kWriteEnable, nullptr, 1)) return false;
  }
  uint8_t s = 0;
  return status(s) && (s & kMayWrite) && !(s & kWriting);
}

bool SpiFlash::read(uint32_t at, uint8_t* to, uint32_t bytes) {
  watchdog::restart();
  Selected chip;
  return chip.command(kRead4, at) && chip.exchange(nullptr, to, bytes);
}

bool SpiFlash::program(uint32_t at, const uint8_t* data, uint32_t bytes) {
  if (!enabled()) return false;
  {
    Selected chip;
    if (!chip.command(kProgram4, at) || !chip.exchange(data, nullptr, bytes)) return false;
  }
  return ready();
}

bool SpiFlash::erase(uint32_t sector_at) {
  if (!enabled()) return false;
  {
    Selected chip;
    if (!chip.command(sector_ == 4096 ? kErase4k : kErase64k, sector_at)) return false;
  }
  return ready();
}

}  // namespace fw
