// The controller of a simulated card: firmware, and the peripherals of its address map. Two kinds behind one interface: the RV32 image in Unicorn,
// instruction by instruction, and the firmware's host build in this process.
//
// Time passes for it only in run(): whoever simulates the card calls that between the host's calls. What it does with the card's registers goes
// through CardBus, as AXI-Lite transactions that take the card cycles. One thread.
#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "hls/registers/card.h"
#include "sim/controller/quad_spi.hpp"

namespace luge::sim {

/// What the controller reaches of the card.
class CardBus {
 public:
  virtual ~CardBus() = default;
  /// False: the bus answers with an error.
  virtual bool read(std::uint32_t offset, std::uint32_t& value) = 0;
  virtual bool write(std::uint32_t offset, std::uint32_t value) = 0;
  /// The controller lost its power, and with it the card has.
  virtual void power_lost() = 0;
};

struct ControllerSettings {
  std::vector<std::uint8_t> image;          ///< firmware.bin; the host build needs none
  std::uint32_t board = 0, revision = 1;    ///< what the region `board` reads
  std::uint64_t scratch_address = 0;        ///< of the region `scratch` on the card
  std::uint8_t* scratch = nullptr;          ///< its bytes: luge_card::MAP_SCRATCH_BYTES, page-aligned
  bool owner_hidden = false;                ///< the firmware reads 0 where the host says that it has the ring: a twin for tests
  std::uint32_t slot = 3;                   ///< from which the image was booted; 3 with a flash: the firmware chooses
  SerialFlash* flash = nullptr;             ///< of a board with `update = qspi`; null: none of its own
  std::uint32_t slot_bytes = 0, sector_bytes = 0;  ///< of that flash
};

class Controller {
 public:
  Controller(CardBus& bus, ControllerSettings settings) : bus_(bus), settings_(std::move(settings)) {
    if (settings_.flash) spi_ = std::make_unique<QuadSpi>(*settings_.flash);
  }
  virtual ~Controller() = default;

  /// Everything that power holds is 0, the image is loaded, the processor at its beginning. Also a brown-out.
  void power_on();
  /// The processor at its beginning; its memory and the shared words stay.
  void reset();
  /// It executes nothing any more, until the watchdog or somebody else resets it.
  void hang() { hung_ = true; }

  /// Until the firmware sleeps (false) or this many instructions have gone (true: it would go on).
  bool run(std::uint64_t instructions);
  /// A reset before the nth instruction from now (0: never), a brown-out instead if `brown_out`.
  void reset_in(std::uint64_t instructions, bool brown_out) { cut_at_ = instructions ? retired_ + instructions : 0, cut_is_brown_out_ = brown_out; }

  /// Instructions retired since the beginning; the host build counts its loads and stores instead.
  std::uint64_t retired() const { return retired_; }
  std::uint64_t resets() const { return resets_; }

  /// The shared words, as the host sees them: offsets from luge_card::SHARED_MAGIC's.
  std::uint32_t shared(std::uint32_t offset) const { return shared_[(offset - luge_card::SHARED_MAGIC) / 4 % shared_.size()]; }
  void set_shared(std::uint32_t offset, std::uint32_t v) { shared_[(offset - luge_card::SHARED_MAGIC) / 4 % shared_.size()] = v; }

 protected:
  virtual void start() = 0;        ///< processor at its beginning
  virtual void lose_memory() = 0;  ///< local memory 0, image loaded
  /// Until it sleeps (false), `until` instructions have been retired, or cut() says so.
  virtual bool execute(std::uint64_t until) = 0;

  std::uint32_t load(std::uint32_t address);
  void store(std::uint32_t address, std::uint32_t value);
  /// Whether the reset that was asked for is due. Called before every instruction.
  bool cut() const { return cut_at_ != 0 && retired_ >= cut_at_; }

  CardBus& bus_;
  ControllerSettings settings_;
  std::uint64_t retired_ = 0;

 private:
  std::array<std::uint32_t, luge_card::MAP_SHARED_BYTES / 4> shared_{};
  std::unique_ptr<QuadSpi> spi_;
  std::uint32_t watchdog_ = 0;       // its status and control word
  std::uint64_t unwatched_ = 0;      // runs since it was restarted
  std::uint64_t resets_ = 0, cut_at_ = 0;
  bool hung_ = false, cut_is_brown_out_ = false;
};

std::unique_ptr<Controller> make_native_controller(CardBus& bus, ControllerSettings settings);
/// Throws std::runtime_error: the image is not a firmware's.
std::unique_ptr<Controller> make_rv32_controller(CardBus& bus, ControllerSettings settings);

/// Why the bytes are no firmware of the controller's; empty: they are.
std::string not_a_firmware(const std::vector<std::uint8_t>& image);
/// The whole file; empty if it is not there.
std::vector<std::uint8_t> read_image(const std::string& path);

}  // namespace luge::sim
