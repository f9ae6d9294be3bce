// What a host does with the card: rings in its memory, doorbell, completions. Keeps the order and checks what comes back for form.
#pragma once
#include <deque>

#include "sim/card/rig.hpp"

namespace luge::sim {

class Driver {
 public:
  uint32_t submitted = 0, reaped = 0;
  int ring_size = 4;  // power of two
  uint64_t ring, completions;

  Driver(Rig &rig, uint64_t ring_at, uint64_t completions_at, Fail fail) : ring(ring_at), completions(completions_at), rig_(rig), fail_(std::move(fail)) {}

  uint32_t entries() const { return 1u << ring_size; }
  void start(uint64_t window_base, uint64_t window_end, uint32_t timeout) {
    submitted = reaped = 0;
    std::memset(rig_.memory.at(completions), 0, 64 * entries());
    rig_.poke64(luge_card::REG_RING_BASE, ring), rig_.poke64(luge_card::REG_COMPLETION_BASE, completions);
    rig_.poke(luge_card::REG_RING_SIZE, (uint32_t)ring_size), rig_.poke(luge_card::REG_TIMEOUT, timeout);
    rig_.poke64(luge_card::REG_WINDOW_BASE, window_base), rig_.poke64(luge_card::REG_WINDOW_END, window_end);
    rig_.poke(luge_card::REG_CONTROL, luge_card::CONTROL_RUN | luge_card::CONTROL_INTERRUPT);
  }
  bool room() const { return submitted - reaped < entries(); }
  void put(const luge_card::Descriptor &d) {
    std::memcpy(rig_.memory.at(ring + 256 * (submitted % entries())), &d, sizeof d);
    submitted++;
  }
  void ring_doorbell() { rig_.poke(luge_card::REG_SUBMITTED, submitted); }
  // The next completion, if it is there.
  bool reap(luge_card::Completion &c) {
    if (reaped == submitted) return false;
    uint8_t *at = rig_.memory.at(completions + 64 * (reaped % entries()));
    if (at[63] != phase(reaped)) return false;  // the memory writes whole lines: the phase and the rest arrive together
    std::memcpy(&c, at, sizeof c);
    if (c.index != reaped) fail_("a completion has the number " + std::to_string(c.index) + " instead of " + std::to_string(reaped));
    reaped++;
    return true;
  }
  // After a completion that could not be written, or `clear` of a stopped queue: what was submitted counts as completed. Entries
  // without a completion hold one of an earlier turn, whose phase would be taken for that of the next turn.
  void forget() {
    for (; reaped != submitted; reaped++) rig_.memory.at(completions + 64 * (reaped % entries()))[63] = phase(reaped);
  }

 private:
  Rig &rig_;
  Fail fail_;
  uint8_t phase(uint32_t index) const { return (index >> ring_size) & 1 ? 0 : 1; }
};

}  // namespace luge::sim
