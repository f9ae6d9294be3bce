#include "firmware/firmware.hpp"

#include "firmware/faults.hpp"
#include "firmware/fences.hpp"
#include "firmware/hal/hal.hpp"
#include "firmware/bist.hpp"
#include "firmware/images.hpp"
#include "firmware/rules.hpp"
#include "firmware/table.hpp"
#include "firmware/telemetry.hpp"
#include "firmware/update/slots.hpp"
#include "firmware/watchdog.hpp"

namespace fw {
namespace {

using namespace luge_card;

#ifdef __riscv
constexpr uint32_t kProcessor = 1;
#else
constexpr uint32_t kProcessor = 2;
#endif
constexpr uint32_t kLookEvery = 64;  // rounds between two looks at sensors and fault bits

Counts counts;
uint32_t rounds, seen_faults;

uint32_t argument(unsigned i) { return hal::shared(SHARED_ARGUMENT + 4 * i); }
uint64_t argument64(unsigned i) { return argument(i) | static_cast<uint64_t>(argument(i + 1)) << 32; }
void set_answer(unsigned i, uint32_t v) { hal::set_shared(SHARED_ANSWER + 4 * i, v); }

bool quiet() { return hal::shared(SHARED_OWNER) == 0 || !kept(Rule::respect_owner); }

bool tested() {
  watchdog::restart();
  hal::set_shared(SHARED_STATE, FirmwareState::testing);
  Failure f = self_test(quiet());
  watchdog::restart();
  seen_faults = hal::reg(REG_FAULT);
  if (f) {
    ++counts.tests_failed;
    record_fault(f);
    set_answer(0, static_cast<uint32_t>(f.kind)), set_answer(1, f.detail[0]), set_answer(2, f.detail[1]);
  } else {
    ++counts.tests_passed;
    log_event(Event::self_test_passed, self_test_jobs(), 0);
  }
  hal::set_shared(SHARED_STATE, f && kept(Rule::fail_closed) ? FirmwareState::failed : FirmwareState::ready);
  return !f;
}

// Whether an epoch may ask for something of a partition; 0 is nobody's.
bool admitted(uint64_t partition, uint64_t epoch) {
  const uint64_t fence = partition ? fence_of(partition) : 0;
  if (epoch >= fence || !kept(Rule::refuse_old_epochs)) return true;
  ++counts.fenced;
  log_event(Event::fenced, static_cast<uint32_t>(partition), static_cast<uint32_t>(epoch));
  set_answer(0, static_cast<uint32_t>(fence)), set_answer(1, static_cast<uint32_t>(fence >> 32));
  return false;
}

int answer_table() {
  if (!admitted(argument64(4), argument64(6))) return AnswerStatus::fenced;
  const uint32_t* table;
  switch (table_for({argument(0), argument(1), argument(2), argument(3)}, table)) {
    case TableResult::bad: return AnswerStatus::bad_argument;
    case TableResult::not_enough: return AnswerStatus::not_enough;
    case TableResult::made: ++counts.tables_made; break;
    case TableResult::cached: ++counts.tables_found; break;
  }
  for (unsigned i = 0; i < kTableBytes / 4; ++i) set_answer(i, table[i]);
  return AnswerStatus::ok;
}

int answer_fence() {
  const uint64_t partition = argument64(0), epoch = argument64(2);
  if (partition == 0) return AnswerStatus::bad_argument;
  if (!raise_fence(partition, epoch)) return AnswerStatus::full;
  log_event(Event::fence, static_cast<uint32_t>(partition), static_cast<uint32_t>(epoch));
  const uint64_t now = fence_of(partition);
  set_answer(0, static_cast<uint32_t>(now)), set_answer(1, static_cast<uint32_t>(now >> 32)), set_answer(2, fence_entry(partition));
  return AnswerStatus::ok;
}

int answer() {
  switch (hal::shared(SHARED_OP)) {
    case Command::table: return answer_table();
    case Command::fence: return answer_fence();
    case Command::ping: set_answer(0, kVersion); return AnswerStatus::ok;
    case Command::self_test: return !quiet() ? AnswerStatus::busy : tested() ? AnswerStatus::ok : AnswerStatus::failed;
    case Command::forget_fault: forget_fault(); return AnswerStatus::ok;
    case Command::restart: return AnswerStatus::ok;
  }
  return AnswerStatus::unknown;
}

// When power comes, not at a reset of the controller, which is no start of an image.
void choose_slot() {
  if (hal::shared(SHARED_SLOT) != kNoSlot) return;
  bool fell_back;
  const uint32_t slot = choose_image(fell_back);
  if (slot == kNoSlot) return;
  log_event(Event::slot_chosen, slot, fell_back);
  hal::set_shared(SHARED_SLOT, slot);
}

void keep_image() {
  const uint32_t slot = hal::shared(SHARED_SLOT);
  if (!image_is_good(slot)) record_fault({FaultKind::flash, {slot, 0}});
}

void look_around() {
  const uint32_t bits = hal::reg(REG_FAULT), fresh = bits & ~seen_faults & ~FAULT_JOB_FAILED;
  seen_faults = bits;
  if (fresh) record_fault({FaultKind::card, {fresh, hal::reg(REG_STATUS)}});
  write_telemetry(counts);
}

}  // namespace

void boot() {
  hal::set_shared(SHARED_STATE, FirmwareState::booting);
  counts = Counts{}, rounds = 0;
  forget_tables();
  if (!kept(Rule::fences_outlive_reset)) forget_fences();
  if (!kept(Rule::faults_outlive_reset)) forget_fault();
  hal::set_shared(SHARED_BOOTS, hal::shared(SHARED_BOOTS) + 1);
  hal::set_shared(SHARED_FIRMWARE_VERSION, kVersion);
  hal::set_shared(SHARED_PROCESSOR, kProcessor);
  hal::set_shared(SHARED_BOARD, hal::load(MAP_BOARD)), hal::set_shared(SHARED_REVISION, hal::load(MAP_BOARD + 4));
  hal::set_shared(SHARED_MAGIC, SHARED_MAGIC_VALUE);
  load_fences();
  log_event(Event::boot, kVersion, hal::shared(SHARED_BOOTS));
  if (watchdog::has_reset()) record_fault({FaultKind::watchdog, {hal::shared(SHARED_HEARTBEAT), hal::shared(SHARED_BOOTS)}});
  watchdog::begin();
  // A command that was open is lost: its sender sees `boots` change.
  hal::set_shared(SHARED_ANSWERED, hal::shared(SHARED_COMMAND));
  choose_slot();
  const bool passed = tested();
  if (passed || !kept(Rule::good_after_test)) keep_image();
  write_telemetry(counts);
}

void poll() {
  const uint32_t command = hal::shared(SHARED_COMMAND);
  if (command != hal::shared(SHARED_ANSWERED)) {
    const uint32_t op = hal::shared(SHARED_OP);
    hal::set_shared(SHARED_ANSWER_STATUS, static_cast<uint32_t>(answer()));
    hal::set_shared(SHARED_ANSWERED, command);
    if (op == Command::restart) {
      log_event(Event::restart, 0, 0);
      hal::restart();
    }
  }
  hal::set_shared(SHARED_HEARTBEAT, hal::shared(SHARED_HEARTBEAT) + 1);
  watchdog::restart();
  if (++rounds % kLookEvery == 0) look_around();
}

void trapped(uint32_t cause, uint32_t where) {
  record_fault({FaultKind::trap, {cause, where}});
  hal::restart();
}

void lose_power() { forget_fences(), forget_tables(), seen_faults = 0; }

}  // namespace fw
