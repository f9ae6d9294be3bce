// The card and its memory in the simulator: registers behind AXI4-Lite, four memory ports without stalls, and what can be made to go
// wrong in them. Cycles pass only while there is something to do; the registers' counters count those.
//
// Faults are words in a file, looked at a few times a second (LUGE_CARD_FAULTS; docs/xrt.md):
//   read-error | write-error   every read or write of data answers SLVERR
//   lost                       reads of data are never answered
//   flip N                     one data beat in N that the card writes has a wrong bit, by chance
//   flip-each N                every Nth data beat that the card writes from N/2 on, counted from its start; each adds a line to FILE.flipped
//   all-ones                   registers read as all ones, as of a card that has fallen off its bus
//   hang                       no call is answered
//   controller-hang            the controller executes nothing (its watchdog resets it)
//   controller-reset N         it is reset within every N instructions, and sooner when it has slept: then within one of its next rounds or commands
//   controller-brown-out N     in the same way it loses its power, and everything that power holds
// None when the file is gone or empty.
#pragma once
#include <cstdint>
#include <memory>
#include <random>
#include <string>

#include "sim/card/card.hpp"
#include "sim/card/memory.hpp"
#include "sim/controller/controller.hpp"
#include "hls/registers/card.h"
#include "sim/xrt/memory.hpp"

namespace luge::xrt_sim {

class Machine : private sim::CardBus {
 public:
  Memory memory;
  /// Where the card has memory that only its controller uses: behind every bank that XRT is told of.
  static constexpr std::uint64_t kScratch = 0x200000000ull;

  /// `version`: what the version register reads, 0: the card's own. `mutant`: of a card built with mutants.
  Machine(std::unique_ptr<sim::Card> card, std::uint32_t version, unsigned mutant);

  /// Gives the card a controller, which starts. `make` is make_native_controller or make_rv32_controller, whose exception passes.
  using MakeController = std::unique_ptr<sim::Controller> (*)(sim::CardBus&, sim::ControllerSettings);
  void add_controller(MakeController make, sim::ControllerSettings settings);
  sim::Controller* controller() { return controller_.get(); }

  /// As the host does it: registers, and the words shared with the controller behind them. False: the bus answers with an error.
  bool write_register(std::uint32_t offset, std::uint32_t value);
  bool read_register(std::uint32_t offset, std::uint32_t& value);

  /// Whether anything may still happen without a call.
  bool busy() const { return now_ < awake_until_; }
  void run(int cycles);
  /// Lets the controller go on for a while, or look whether there is something to do.
  void run_controller();
  bool controller_busy() const { return controller_awake_; }
  std::uint64_t cycles() const { return now_; }

  void watch_faults(std::string path) { fault_file_ = std::move(path); }
  /// Reads the file again if it is time. True while `hang` is wanted.
  bool look_at_faults();

 private:
  void cycle();
  void flip_some();
  void hasten_reset(std::int64_t now_ms);
  bool read(std::uint32_t offset, std::uint32_t& value) override;
  bool write(std::uint32_t offset, std::uint32_t value) override;
  void power_lost() override;
  static bool is_shared(std::uint32_t offset) { return offset - luge_card::SHARED_MAGIC < luge_card::MAP_SHARED_BYTES; }

  std::unique_ptr<sim::Card> card_;
  std::unique_ptr<sim::Controller> controller_;
  bool controller_awake_ = false;
  std::mt19937_64 random_{1};
  sim::ReadPortOf<Memory> read_, job_read_;
  sim::WritePortOf<Memory> write_, job_write_;
  std::uint32_t version_;
  unsigned mutant_;
  card::In in_;
  axi::LiteIn answer_;
  std::uint64_t now_ = 0, awake_until_ = 0;
  // faults
  std::string fault_file_;
  std::int64_t looked_at_ = 0;
  bool read_error_ = false, write_error_ = false, lost_ = false, all_ones_ = false, hang_ = false;
  std::uint64_t flip_in_ = 0, flip_each_ = 0, beats_ = 0;
  std::uint64_t reset_within_ = 0, resets_ = 0;
  std::uint64_t hastened_ = 0;  // the count of resets at which the next one was hastened
  std::int64_t slept_at_ = 0;   // when it was awake last
  bool brown_out_ = false;
};

}  // namespace luge::xrt_sim
