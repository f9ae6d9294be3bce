// The host's side of the words that it shares with a card's controller (docs/firmware.md): who has the ring, commands, what the firmware says of
// itself. Made on two functions that read and write words, so that a test needs no XRT. One thread; nothing here throws but what the two do.
//
// Every wait is bounded. A command that is lost, because the controller was reset, is asked again; a controller that does not answer is left
// alone for ten seconds: the host can do without it.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "card/firmware_text.hpp"

namespace luge::card {

class Firmware {
 public:
  using Read = std::function<std::uint32_t(std::uint32_t offset)>;
  using Write = std::function<void(std::uint32_t offset, std::uint32_t value)>;
  using Words = std::array<std::uint32_t, 16>;
  Firmware(Read read, Write write) : read_(std::move(read)), write_(std::move(write)) {}

  /// Takes the ring for this host and waits until the firmware leaves it alone. False: a controller is there and says that the card is not to be
  /// used, or never comes to rest; why() says what. True without a controller, too.
  bool claim(std::chrono::milliseconds limit);
  /// The firmware may test the card again.
  void release();
  bool there() const { return there_; }
  const std::string& why() const { return why_; }
  /// For people: "firmware 0.1.0 on its controller (RV32), slot A".
  std::string describe();

  struct Answer { std::uint32_t status = 0; Words words{}; };
  /// Nothing: no controller, or it does not answer within `limit`.
  std::optional<Answer> command(int op, std::span<const std::uint32_t> arguments, std::chrono::milliseconds limit);
  /// Coefficients as a load_table descriptor has them. `present`, `wanted`: bit i is chunk i. Nothing: make them yourself.
  std::optional<std::array<std::uint8_t, 64>> table(std::uint32_t k, std::uint32_t m, std::uint32_t present, std::uint32_t wanted);
  std::vector<std::uint32_t> words(std::uint32_t offset, std::uint32_t count);

 private:
  bool look();

  Read read_;
  Write write_;
  bool there_ = false;
  std::chrono::steady_clock::time_point given_up_until_{};
  std::string why_;
};

}  // namespace luge::card
