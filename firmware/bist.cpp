#include "firmware/bist.hpp"

#include <string.h>

#include "firmware/gf.hpp"
#include "firmware/hal/hal.hpp"
#include "firmware/known.hpp"
#include "firmware/rules.hpp"
#include "firmware/table.hpp"

namespace fw {
namespace {

using namespace luge_card;

constexpr uint32_t kPolls = 200000;   // reads of a register that a job or a drain may take; each takes the bus some cycles
constexpr uint32_t kTimeout = 65536;  // cycles, for the kernels' own bus time-out
constexpr uint32_t kRing = 0, kCompletions = 0x1000, kChunks = 0x2000, kRingLog2 = 2;
constexpr uint32_t kAddresses[] = {REG_WINDOW_BASE, REG_WINDOW_END, REG_RING_BASE, REG_COMPLETION_BASE};
constexpr uint32_t kMarchWords = MAP_SCRATCH_BYTES / 4;

uint32_t jobs;

uint64_t card_address(uint32_t at) { return (hal::load(MAP_BOARD + 8) | static_cast<uint64_t>(hal::load(MAP_BOARD + 12)) << 32) + at; }
uint32_t chunk(unsigned i) { return kChunks + kChunkBytes * i; }
void set_reg64(uint32_t offset, uint64_t v) { hal::set_reg(offset, static_cast<uint32_t>(v)), hal::set_reg(offset + 4, static_cast<uint32_t>(v >> 32)); }

Failure identity(bool quiet) {
  const uint32_t id = hal::reg(REG_ID), version = hal::reg(REG_VERSION), build = hal::reg(REG_BUILD);
  if (id != ID_VALUE) return {FaultKind::identity, {REG_ID, id}};
  if (version >> 16 != VERSION_VALUE >> 16) return {FaultKind::identity, {REG_VERSION, version}};
  if ((build & BUILD_SOURCES) == 0 || (build & BUILD_ROWS) == 0 || (build & BUILD_TABLES) == 0) return {FaultKind::identity, {REG_BUILD, build}};
  if (!quiet) return {};
  constexpr uint32_t patterns[] = {0x55555000u, 0xAAAAA000u, 0u};
  for (uint32_t offset : kAddresses)
    for (uint32_t v : patterns) {
      hal::set_reg(offset, v);
      if (uint32_t got = hal::reg(offset); got != v) return {FaultKind::identity, {offset, got}};
    }
  return {};
}

Failure march_up(uint32_t expected, uint32_t next, bool check, bool write) {
  for (uint32_t i = 0; i < kMarchWords; ++i) {
    if (check)
      if (uint32_t got = hal::load(MAP_SCRATCH + 4 * i); got != expected) return {FaultKind::memory, {4 * i, got}};
    if (write) hal::store(MAP_SCRATCH + 4 * i, next);
  }
  return {};
}
Failure march_down(uint32_t expected, uint32_t next) {
  for (uint32_t i = kMarchWords; i-- > 0;) {
    if (uint32_t got = hal::load(MAP_SCRATCH + 4 * i); got != expected) return {FaultKind::memory, {4 * i, got}};
    hal::store(MAP_SCRATCH + 4 * i, next);
  }
  return {};
}
// March C-: stuck and coupled bits and wrong addressing.
Failure march() {
  constexpr uint32_t a = 0x33CC55AA, b = ~a;
  march_up(0, a, false, true);
  if (Failure f = march_up(a, b, true, true)) return f;
  if (Failure f = march_up(b, a, true, true)) return f;
  if (Failure f = march_down(a, b)) return f;
  if (Failure f = march_down(b, a)) return f;
  return march_up(a, 0, true, true);
}

bool at_rest() {
  for (uint32_t i = 0; i < kPolls; ++i)
    if (hal::reg(REG_STATUS) & STATUS_IDLE) return true;
  return false;
}

// Whatever was under way ends, and the queue forgets what it has not completed.
Failure calm() {
  hal::set_reg(REG_CONTROL, CONTROL_DRAIN);
  const bool rests = at_rest();
  hal::set_reg(REG_CONTROL, 0);
  hal::set_reg(REG_CLEAR, CLEAR_GO);
  if (!rests) return {FaultKind::timeout, {0, hal::reg(REG_STATUS)}};
  return {};
}

Failure prepare() {
  if (Failure f = calm()) return f;
  set_reg64(REG_RING_BASE, card_address(kRing));
  set_reg64(REG_COMPLETION_BASE, card_address(kCompletions));
  hal::set_reg(REG_RING_SIZE, kRingLog2);
  set_reg64(REG_WINDOW_BASE, card_address(kChunks));
  set_reg64(REG_WINDOW_END, card_address(MAP_SCRATCH_BYTES));
  hal::set_reg(REG_TIMEOUT, kTimeout);
  hal::set_reg(REG_FAULT, ~0u);
  hal::set_reg(REG_CONTROL, CONTROL_RUN);
  return {};
}

// The job ring as any host uses it, one job at a time.
Failure run(const Descriptor& d) {
  const uint32_t number = hal::reg(REG_SUBMITTED), entry = number % (1u << kRingLog2);
  uint32_t words[sizeof d / 4];
  memcpy(words, &d, sizeof d);
  for (uint32_t i = 0; i < sizeof d / 4; ++i) hal::store(MAP_SCRATCH + kRing + entry * sizeof d + 4 * i, words[i]);
  hal::set_reg(REG_SUBMITTED, number + 1);
  ++jobs;
  for (uint32_t i = 0; hal::reg(REG_COMPLETED) != number + 1; ++i)
    if (i == kPolls * (kept(Rule::bounded_waits) ? 1 : 100)) return {FaultKind::timeout, {number, hal::reg(REG_STATUS)}};
  const uint32_t at = MAP_SCRATCH + kCompletions + entry * sizeof(Completion);
  const uint32_t status = hal::load(at + offsetof(Completion, status)) & 0xffff;
  if (hal::load(at + offsetof(Completion, index)) != number || status != JobStatus::ok) return {FaultKind::job_status, {number, status}};
  return {};
}

Failure load_table(const Pattern& p) {
  Descriptor d;
  memset(&d, 0, sizeof d);
  d.version = 1, d.op = Op::load_table;
  uint8_t table[kTableBytes];
  if (make_table(p, table) != TableResult::made) return {FaultKind::coding, {p.k << 8 | p.m, 9}};
  memcpy(d.destination, table, sizeof table);
  return run(d);
}

Failure code(unsigned sources, unsigned rows, const uint8_t* source, unsigned first_destination) {
  Descriptor d;
  memset(&d, 0, sizeof d);
  d.version = 1, d.op = Op::code, d.sources = static_cast<uint8_t>(sources), d.rows = static_cast<uint8_t>(rows), d.length = kChunkBytes;
  for (unsigned i = 0; i < sources; ++i) d.source[i] = card_address(chunk(source[i]));
  for (unsigned i = 0; i < rows; ++i) d.destination[i] = card_address(chunk(first_destination + i));
  return run(d);
}

// Encodes a known stripe, then makes its first m data chunks again from the others: chunks 0 .. k+m-1 are the stripe, those behind it the decoded.
Failure known_answer(const Known& n) {
  const uint32_t layout = static_cast<uint32_t>(n.k) << 8 | n.m;
  uint32_t seed = known_seed(n);
  for (uint32_t at = chunk(0); at < chunk(n.k); at += 4) hal::store(MAP_SCRATCH + at, next_pattern(seed));
  for (uint32_t at = chunk(n.k); at < chunk(n.k + 2u * n.m); at += 4) hal::store(MAP_SCRATCH + at, 0xDEADDEADu);
  const uint32_t all = (1u << (n.k + n.m)) - 1, data = (1u << n.k) - 1, lost = (1u << n.m) - 1;
  uint8_t source[kSources];
  for (unsigned i = 0; i < n.k; ++i) source[i] = static_cast<uint8_t>(i);
  if (Failure f = load_table({n.k, n.m, data, all & ~data})) return f;
  if (Failure f = code(n.k, n.m, source, n.k)) return f;
  uint32_t crc = ~0u;
  for (uint32_t at = chunk(n.k); at < chunk(static_cast<unsigned>(n.k) + n.m); at += 4) crc = gf::crc_word(crc, hal::load(MAP_SCRATCH + at));
  if (~crc != n.parity_crc) return {FaultKind::coding, {layout, 1}};
  for (unsigned i = 0; i < n.k; ++i) source[i] = static_cast<uint8_t>(n.m + i);
  if (Failure f = load_table({n.k, n.m, all & ~lost, lost})) return f;
  if (Failure f = code(n.k, n.m, source, n.k + n.m)) return f;
  for (uint32_t at = 0; at < chunk(n.m) - chunk(0); at += 4)
    if (hal::load(MAP_SCRATCH + chunk(0) + at) != hal::load(MAP_SCRATCH + chunk(static_cast<unsigned>(n.k) + n.m) + at)) return {FaultKind::coding, {layout, 2}};
  return {};
}

Failure coding() {
  const uint32_t build = hal::reg(REG_BUILD), sources = build & BUILD_SOURCES, rows = (build & BUILD_ROWS) >> 8;
  if (Failure f = prepare()) return f;
  for (const Known& n : kKnown) {
    if (n.k > sources || n.m > rows) continue;
    if (Failure f = known_answer(n)) return f;
  }
  return {};
}

}  // namespace

Failure self_test(bool quiet) {
  jobs = 0;
  if (Failure f = identity(quiet)) return f;
  if (Failure f = march()) return f;
  if (!quiet) return {};
  Failure f = coding();
  Failure after = calm();  // the card is left as after power-up
  for (uint32_t offset : kAddresses) set_reg64(offset, 0);
  return f ? f : after;
}

uint32_t self_test_jobs() { return jobs; }

}  // namespace fw
