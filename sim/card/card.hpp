// The card behind one interface: from native step functions, from its verilated RTL, or both in lock-step. A call of cycle() is one
// clock cycle; the lock-step card ends the process at the first output that differs, with the registers of both sides.
#pragma once
#include <memory>
#include <string>

#include "hls/card/step.hpp"

namespace luge::sim {

enum class CardKind { native, rtl, lockstep };

struct Trace {
  std::string path;
  bool ports_only = false;  // a file a hundredth as large
  uint64_t cycles = 0;      // after which the file is complete; 0: at the end
};

class Card {
 public:
  virtual ~Card() = default;
  virtual card::Out cycle(const card::In &in) = 0;
  /// As after power-up.
  virtual void reset() = 0;
  /// Waveforms of the RTL from here on; nothing on a native card.
  virtual void trace(const Trace &) {}
  void trace(const std::string &path) { trace(Trace{path}); }
};

std::unique_ptr<Card> make_card(CardKind kind);
std::unique_ptr<Card> make_native_card();  // links without the RTL

}  // namespace luge::sim
