#include "firmware/faults.hpp"

#include "firmware/gf.hpp"
#include "firmware/hal/hal.hpp"

namespace fw {

using namespace luge_card;

// An entry's number is written last, and is what says that the entry is whole.
void log_event(int event, uint32_t a, uint32_t b) {
  uint32_t newest = 0;
  for (uint32_t i = 0; i < SHARED_LOG_WORDS; i += 4) {
    uint32_t n = hal::shared(SHARED_LOG + 4 * i);
    if (n > newest) newest = n;
  }
  const uint32_t at = SHARED_LOG + 16 * (newest % (SHARED_LOG_WORDS / 4));
  hal::set_shared(at, 0);
  hal::set_shared(at + 4, static_cast<uint32_t>(event)), hal::set_shared(at + 8, a), hal::set_shared(at + 12, b);
  hal::set_shared(at, newest + 1);
}

void record_fault(const Failure& f) {
  const uint32_t words[] = {hal::shared(SHARED_LAST_FAULT) + 1, static_cast<uint32_t>(f.kind), hal::shared(SHARED_BOOTS), f.detail[0], f.detail[1],
                            hal::reg(REG_STATUS), hal::reg(REG_FAULT), hal::reg(REG_COMPLETED)};
  uint32_t crc = ~0u, at = SHARED_LAST_FAULT;
  for (uint32_t w : words) {
    crc = gf::crc_word(crc, w);
    hal::set_shared(at, w), at += 4;
  }
  hal::set_shared(SHARED_LAST_FAULT + 4 * (SHARED_LAST_FAULT_WORDS - 1), ~crc);
  log_event(Event::fault, words[1], words[3]);
}

void forget_fault() {
  for (uint32_t i = 1; i < SHARED_LAST_FAULT_WORDS; ++i) hal::set_shared(SHARED_LAST_FAULT + 4 * i, 0);  // the count stays
}

uint32_t faults_seen() { return hal::shared(SHARED_LAST_FAULT); }

}  // namespace fw
