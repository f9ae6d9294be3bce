// AXI Quad SPI (PG153, standard mode, FIFOs of 16) with a serial flash on its one chip select: what the firmware's driver meets. The flash keeps to its rules:
// nothing is written without a write enable, it is busy for a while after, a program wraps within its page of 256 bytes. One thread.
#pragma once
#include <cstdint>
#include <deque>
#include <utility>
#include <vector>

namespace luge::sim {

/// Where the bytes are. An implementation that has lost its power ignores what changes it.
class SerialFlash {
 public:
  virtual ~SerialFlash() = default;
  virtual std::uint8_t read(std::uint32_t at) = 0;
  /// Within a page of 256 bytes.
  virtual void program(std::uint32_t at, const std::vector<std::uint8_t>& data) = 0;
  virtual void erase(std::uint32_t at, std::uint32_t bytes) = 0;
};

class QuadSpi {
 public:
  explicit QuadSpi(SerialFlash& flash) : flash_(flash) {}
  std::uint32_t load(std::uint32_t offset);
  void store(std::uint32_t offset, std::uint32_t value);

 private:
  void transfer();
  std::uint8_t exchange(std::uint8_t out);
  void deselected();

  SerialFlash& flash_;
  std::uint32_t control_ = 0x180, select_ = ~0u;
  std::deque<std::uint8_t> transmit_, receive_;
  std::vector<std::uint8_t> command_;  // what was sent since the chip was selected
  bool write_enabled_ = false;
  unsigned busy_ = 0;                  // looks at the status until it is not any more
};

}  // namespace luge::sim
