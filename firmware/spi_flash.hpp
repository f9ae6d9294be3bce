// The configuration flash of a board with `update = qspi`, through AMD's AXI Quad SPI (PG153: standard mode, one chip, FIFOs of 16): what FlashMedium
// wants of a flash. Commands with addresses of 4 bytes; a page is 256 bytes. Every wait is bounded; false: the flash or the bus did not answer in time.
#pragma once
#include <stdint.h>

namespace fw {

class SpiFlash {
 public:
  /// `sector`: bytes that erase() erases, 4096 or 65536.
  explicit SpiFlash(uint32_t sector) : sector_(sector) {}
  bool read(uint32_t at, uint8_t* to, uint32_t bytes);
  /// REQUIRES: `bytes` lie within a page.
  bool program(uint32_t at, const uint8_t* data, uint32_t bytes);
  bool erase(uint32_t sector_at);

 private:
  bool ready();
  bool enabled();
  uint32_t sector_;
};

}  // namespace fw
