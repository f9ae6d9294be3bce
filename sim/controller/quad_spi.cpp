#include "sim/controller/quad_spi.hpp"

namespace luge::sim {
namespace {

constexpr std::size_t kFifo = 16;
constexpr std::uint32_t kEnable = 2, kMaster = 4, kClearTransmit = 0x20, kClearReceive = 0x40, kInhibit = 0x100;
constexpr std::uint8_t kRead4 = 0x13, kProgram4 = 0x12, kErase4k = 0x21, kErase64k = 0xDC, kWriteEnable = 0x06, kReadStatus = 0x05;
constexpr std::size_t kHead = 5;  // op and address
constexpr unsigned kBusy = 5;

}  // namespace

std::uint32_t QuadSpi::load(std::uint32_t offset) {
  switch (offset) {
    case 0x60: return control_;
    case 0x64: return (receive_.empty() ? 1u : 0) | (receive_.size() == kFifo ? 2u : 0) | (transmit_.empty() ? 4u : 0) | (transmit_.size() == kFifo ? 8u : 0);
    case 0x6C: {
      if (receive_.empty()) return 0;
      const std::uint8_t b = receive_.front();
      receive_.pop_front();
      return b;
    }
    case 0x70: return select_;
  }
  return 0;
}

void QuadSpi::store(std::uint32_t offset, std::uint32_t v) {
  switch (offset) {
    case 0x40:
      if (v == 0xA) control_ = 0x180, transmit_.clear(), receive_.clear();
      break;
    case 0x60:
      if (v & kClearTransmit) transmit_.clear();
      if (v & kClearReceive) receive_.clear();
      control_ = v & ~(kClearTransmit | kClearReceive);
      break;
    case 0x68:
      if (transmit_.size() < kFifo) transmit_.push_back(static_cast<std::uint8_t>(v));
      break;
    case 0x70:
      if (!(select_ & 1) && v & 1) deselected();
      select_ = v;
      break;
  }
  transfer();
}

void QuadSpi::transfer() {
  if ((control_ & (kEnable | kMaster | kInhibit)) != (kEnable | kMaster)) return;
  while (!transmit_.empty()) {
    const std::uint8_t in = select_ & 1 ? 0xff : exchange(transmit_.front());
    transmit_.pop_front();
    if (receive_.size() < kFifo) receive_.push_back(in);
  }
}

std::uint8_t QuadSpi::exchange(std::uint8_t out) {
  command_.push_back(out);
  const std::uint8_t op = command_[0];
  if (op == kReadStatus && command_.size() > 1) {
    if (busy_ > 0) --busy_;
    return static_cast<std::uint8_t>((busy_ > 0 ? 1 : 0) | (write_enabled_ ? 2 : 0));
  }
  if (op != kRead4 || command_.size() <= kHead || busy_ > 0) return 0xff;
  const std::uint32_t at = static_cast<std::uint32_t>(command_[1]) << 24 | command_[2] << 16 | command_[3] << 8 | command_[4];
  return flash_.read(at + static_cast<std::uint32_t>(command_.size() - kHead - 1));
}

void QuadSpi::deselected() {
  const std::vector<std::uint8_t> c = std::exchange(command_, {});
  if (c.empty() || busy_ > 0) return;
  if (c[0] == kWriteEnable) write_enabled_ = true;
  const bool programs = c[0] == kProgram4, erases = c[0] == kErase4k || c[0] == kErase64k;
  if (!write_enabled_ || c.size() < kHead || !(programs || erases)) return;
  const std::uint32_t at = static_cast<std::uint32_t>(c[1]) << 24 | c[2] << 16 | c[3] << 8 | c[4];
  write_enabled_ = false, busy_ = kBusy;
  if (erases) {
    const std::uint32_t bytes = c[0] == kErase4k ? 4096 : 65536;
    flash_.erase(at / bytes * bytes, bytes);
    return;
  }
  // Beyond the page's end it goes on at its beginning; what was sent first is lost to what was sent last.
  std::vector<std::uint8_t> page(256, 0xff);
  for (std::size_t i = kHead; i < c.size(); ++i) page[(at + i - kHead) % 256] = c[i];
  flash_.program(at / 256 * 256, page);
}

}  // namespace luge::sim
