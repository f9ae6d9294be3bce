// The firmware as part of this process: tables against ISA-L, fences, the self-test on a card of memory and arithmetic, and what it does when
// that card is wrong. The RV32 image and the real kernels have their test in sim/controller.
#include <gtest/gtest.h>
#include <isa-l/erasure_code.h>

#include <cstring>
#include <map>
#include <random>
#include <vector>

#include "firmware/faults.hpp"
#include "firmware/fences.hpp"
#include "firmware/firmware.hpp"
#include "firmware/gf.hpp"
#include "firmware/hal/host/world.hpp"
#include "firmware/known.hpp"
#include "firmware/table.hpp"
#include "firmware/telemetry.hpp"
#include "firmware/rules.hpp"
#include "hls/registers/card.h"
#include "sim/controller/model_flash.hpp"
#include "switches/switches.hpp"

bool fw::kept(Rule rule) {
  using luge::Switch, luge::broken;
  switch (rule) {
    case Rule::fail_closed:
    case Rule::good_after_test: return !broken(Switch::failed_card_ready);
    case Rule::respect_owner: return !broken(Switch::ring_owner_ignored);
    case Rule::refuse_old_epochs: return !broken(Switch::card_fence_ignored);
    case Rule::fences_outlive_reset: return !broken(Switch::card_fence_forgotten);
    case Rule::faults_outlive_reset: return !broken(Switch::card_fault_forgotten);
    case Rule::bounded_waits: return !broken(Switch::card_waits_long);
    default: return true;
  }
}

namespace {

using namespace luge_card;
using Bytes = std::vector<unsigned char>;

// What ISA-L's matrices say: rows that make `wanted` of the first k of `present`.
Bytes from_isal(unsigned k, unsigned m, uint32_t present, uint32_t wanted) {
  Bytes a((k + m) * k), sub(k * k), inverse(k * k), out(64);
  gf_gen_cauchy1_matrix(a.data(), static_cast<int>(k + m), static_cast<int>(k));
  unsigned at = 0;
  for (unsigned i = 0; i < k + m && at < k; ++i)
    if (present >> i & 1) std::copy_n(a.begin() + i * k, k, sub.begin() + at++ * k);
  EXPECT_EQ(gf_invert_matrix(sub.data(), inverse.data(), static_cast<int>(k)), 0);
  unsigned r = 0;
  for (unsigned w = 0; w < k + m; ++w) {
    if (!(wanted >> w & 1)) continue;
    for (unsigned c = 0; c < k; ++c) {
      unsigned char sum = 0;
      for (unsigned j = 0; j < k; ++j) sum ^= gf_mul(a[w * k + j], inverse[j * k + c]);
      out[16 * r + c] = sum;
    }
    ++r;
  }
  return out;
}

void expect_table(unsigned k, unsigned m, uint32_t present, uint32_t wanted) {
  uint8_t got[fw::kTableBytes];
  ASSERT_EQ(fw::make_table({k, m, present, wanted}, got), fw::TableResult::made) << k << "+" << m << " " << present << " " << wanted;
  ASSERT_EQ(Bytes(got, got + sizeof got), from_isal(k, m, present, wanted)) << k << "+" << m << " " << present << " " << wanted;
}

TEST(FirmwareTable, EveryLossPatternOfSmallLayoutsIsAsIsalSays) {
  for (unsigned k = 1; k <= 8; ++k)
    for (unsigned m = 1; m <= 4; ++m)
      for (uint32_t lost = 1; lost < 1u << (k + m); ++lost)
        if (static_cast<unsigned>(__builtin_popcount(lost)) <= m) expect_table(k, m, ((1u << (k + m)) - 1) & ~lost, lost);
}

TEST(FirmwareTable, RandomPatternsOfAllLayoutsAreAsIsalSays) {
  std::mt19937 random(7);
  for (int n = 0; n < 20000; ++n) {
    unsigned k = 1 + random() % 16, m = 1 + random() % 4;
    uint32_t all = (1u << (k + m)) - 1, lost = 0, wanted = 0;
    for (unsigned i = random() % (m + 1); i > 0; --i) lost |= 1u << random() % (k + m);
    while (wanted == 0 || __builtin_popcount(wanted) > 4) wanted = random() & all & random();  // also of chunks that are there
    expect_table(k, m, all & ~lost, wanted);
  }
}

TEST(FirmwareTable, WhatCannotBeIsRefused) {
  uint8_t out[fw::kTableBytes];
  using R = fw::TableResult;
  EXPECT_EQ(fw::make_table({0, 2, 3, 1}, out), R::bad);
  EXPECT_EQ(fw::make_table({17, 2, 3, 1}, out), R::bad);
  EXPECT_EQ(fw::make_table({4, 5, 15, 1}, out), R::bad);
  EXPECT_EQ(fw::make_table({4, 2, 15, 0}, out), R::bad);
  EXPECT_EQ(fw::make_table({4, 2, 15, 64}, out), R::bad);
  EXPECT_EQ(fw::make_table({4, 2, 64 | 15, 1}, out), R::bad);
  EXPECT_EQ(fw::make_table({8, 4, 255, 31}, out), R::bad);
  EXPECT_EQ(fw::make_table({4, 2, 7, 8}, out), R::not_enough);
  EXPECT_EQ(fw::make_table({4, 2, 0, 1}, out), R::not_enough);
}

TEST(FirmwareTable, TheCacheGivesWhatWasMadeAndForgets) {
  fw::forget_tables();
  const uint32_t *first, *again;
  auto bytes = [](const uint32_t* w) { return Bytes(reinterpret_cast<const uint8_t*>(w), reinterpret_cast<const uint8_t*>(w + fw::kTableBytes / 4)); };
  for (uint32_t i = 0; i < 20; ++i) {  // more patterns than it holds
    fw::Pattern p{16, 4, 0xFFFFF & ~(1u << i), 1u << i};
    ASSERT_EQ(fw::table_for(p, first), fw::TableResult::made);
    Bytes made = bytes(first);
    ASSERT_EQ(fw::table_for(p, again), fw::TableResult::cached);
    ASSERT_EQ(made, bytes(again));
    ASSERT_EQ(made, from_isal(16, 4, p.present, p.wanted));
  }
  fw::forget_tables();
  ASSERT_EQ(fw::table_for({16, 4, 0xFFFFF & ~(1u << 19), 1u << 19}, again), fw::TableResult::made);
  ASSERT_EQ(fw::table_for({4, 2, 7, 8}, again), fw::TableResult::not_enough);
  ASSERT_EQ(again, nullptr);
}

TEST(FirmwareTelemetry, SensorsInUnits) {
  EXPECT_NEAR(fw::celsius_1000(0), -279427, 1);
  EXPECT_NEAR(fw::celsius_1000(0x9770), 0x9770 * 507.5921310 / 65.536 - 279426.5768, 20);
  EXPECT_NEAR(fw::celsius_1000(0xFFFF), 65535 * 507.5921310 / 65.536 - 279426.5768, 40);
  EXPECT_EQ(fw::millivolts(0x4889), 850u);  // 0.85 V
}

// A card of memory and arithmetic: registers as the kernels have them, jobs done at the doorbell by ISA-L.
class FakeCard : public fw::host::World {
 public:
  static constexpr uint64_t kScratch = 0x200000000ull;
  std::map<uint32_t, uint32_t> words;  // registers, shared words and peripherals, by address of the map
  Bytes scratch = Bytes(MAP_SCRATCH_BYTES);
  std::map<unsigned, Bytes> tables;
  std::map<uint32_t, uint64_t> fences;
  uint32_t stuck_bit_at = ~0u;
  bool wrong_parity = false, hangs = false, never_rests = false, answers_zero = false, refuses = false;
  uint64_t accesses = 0;

  FakeCard() { words[MAP_SENSORS + 0x400] = 0x9770, words[MAP_SENSORS + 0x404] = 0x4889, words[MAP_SENSORS + 0x408] = 0x9999; }

  uint32_t load(uint32_t a) override {
    ++accesses;
    if (a >= MAP_SCRATCH) {
      uint32_t v;
      std::memcpy(&v, &scratch.at(a - MAP_SCRATCH), 4);
      return a - MAP_SCRATCH == stuck_bit_at ? v | 0x100 : v;
    }
    if (a == MAP_BOARD + 8) return static_cast<uint32_t>(kScratch);
    if (a == MAP_BOARD + 12) return kScratch >> 32;
    switch (a - MAP_REGISTERS) {
      case REG_ID: return answers_zero ? 0 : ID_VALUE;
      case REG_VERSION: return VERSION_VALUE;
      case REG_BUILD: return 0x04040410;
      case REG_STATUS: return never_rests || (hangs && words[MAP_REGISTERS + REG_SUBMITTED] != words[MAP_REGISTERS + REG_COMPLETED] && !drained()) ? 0 : STATUS_IDLE;
    }
    return words[a];
  }
  void store(uint32_t a, uint32_t v) override {
    ++accesses;
    if (a >= MAP_SCRATCH) return void(std::memcpy(&scratch.at(a - MAP_SCRATCH), &v, 4));
    if (a == MAP_REGISTERS + REG_FAULT) return void(words[a] &= ~v);
    words[a] = v;
    if (a == MAP_REGISTERS + REG_FENCE_LOAD) fences[v] = wide(REG_FENCE_EPOCH);
    if (a == MAP_REGISTERS + REG_CLEAR) words[MAP_REGISTERS + REG_COMPLETED] = words[MAP_REGISTERS + REG_SUBMITTED];
    if (a == MAP_REGISTERS + REG_SUBMITTED && !hangs) do_job(v - 1);
  }
  uint32_t shared(uint32_t offset) { return words[MAP_REGISTERS + offset]; }
  void set_shared(uint32_t offset, uint32_t v) { words[MAP_REGISTERS + offset] = v; }
  uint32_t command(int op, std::vector<uint32_t> arguments = {}) {
    for (unsigned i = 0; i < arguments.size(); ++i) set_shared(SHARED_ARGUMENT + 4 * i, arguments[i]);
    set_shared(SHARED_OP, static_cast<uint32_t>(op)), set_shared(SHARED_COMMAND, shared(SHARED_COMMAND) + 1);
    fw::poll();
    EXPECT_EQ(shared(SHARED_ANSWERED), shared(SHARED_COMMAND));
    return shared(SHARED_ANSWER_STATUS);
  }

 private:
  bool drained() { return (words[MAP_REGISTERS + REG_CONTROL] & CONTROL_DRAIN) != 0; }
  uint8_t* at(uint64_t card_address) { return &scratch.at(card_address - kScratch); }
  uint64_t wide(uint32_t reg) { return words[MAP_REGISTERS + reg] | static_cast<uint64_t>(words[MAP_REGISTERS + reg + 4]) << 32; }
  void do_job(uint32_t number) {
    Descriptor d;
    uint32_t entry = number & ((1u << words[MAP_REGISTERS + REG_RING_SIZE]) - 1);
    std::memcpy(&d, at(wide(REG_RING_BASE) + entry * sizeof d), sizeof d);
    if (d.op == Op::load_table) {
      auto* c = reinterpret_cast<const unsigned char*>(d.destination);
      tables[d.table] = Bytes(c, c + 64);
    } else if (d.op == Op::code) {
      for (unsigned r = 0; r < d.rows; ++r)
        for (unsigned b = 0; b < d.length; ++b) {
          unsigned char sum = 0;
          for (unsigned j = 0; j < d.sources; ++j) sum ^= gf_mul(tables[d.table][16 * r + j], at(d.source[j])[b]);
          at(d.destination[r])[b] = static_cast<uint8_t>(sum ^ (wrong_parity && b == 100 ? 1 : 0));
        }
    }
    Completion c{};
    c.index = number, c.status = refuses ? JobStatus::read_error : JobStatus::ok;
    std::memcpy(at(wide(REG_COMPLETION_BASE) + entry * sizeof c), &c, sizeof c);
    words[MAP_REGISTERS + REG_COMPLETED] = number + 1;
  }
};

class FirmwareTest : public ::testing::Test {
 protected:
  void SetUp() override { fw::host::use(card), fw::lose_power(); }
  FakeCard card;
  void expect_fault(int kind) {
    EXPECT_EQ(card.shared(SHARED_STATE), static_cast<uint32_t>(FirmwareState::failed));
    EXPECT_EQ(card.shared(SHARED_LAST_FAULT + 4), static_cast<uint32_t>(kind));
    uint32_t crc = ~0u;
    for (unsigned i = 0; i < 8; ++i) crc = fw::gf::crc_word(crc, card.shared(SHARED_LAST_FAULT + 4 * i));
    EXPECT_EQ(~crc, card.shared(SHARED_LAST_FAULT + 60));
  }
};

TEST_F(FirmwareTest, BootsTestsAndIsReady) {
  fw::boot();
  EXPECT_EQ(card.shared(SHARED_MAGIC), SHARED_MAGIC_VALUE);
  EXPECT_EQ(card.shared(SHARED_STATE), static_cast<uint32_t>(FirmwareState::ready));
  EXPECT_EQ(card.shared(SHARED_BOOTS), 1u);
  EXPECT_EQ(card.shared(SHARED_LAST_FAULT), 0u);
  EXPECT_EQ(card.load(MAP_REGISTERS + REG_CONTROL), 0u);
  EXPECT_EQ(card.shared(SHARED_LOG + 4), static_cast<uint32_t>(Event::boot));
  EXPECT_EQ(card.shared(SHARED_LOG + 20), static_cast<uint32_t>(Event::self_test_passed));
  EXPECT_EQ(card.shared(SHARED_LOG + 24), 8u);  // two layouts: two tables, an encode and a decode
  EXPECT_EQ(card.shared(SHARED_TELEMETRY + 4), 850u);
}

TEST_F(FirmwareTest, KnownAnswersAreIsals) {
  for (const fw::Known& n : fw::kKnown) {
    Bytes matrix((n.k + n.m) * n.k);
    gf_gen_cauchy1_matrix(matrix.data(), n.k + n.m, n.k);
    uint32_t seed = fw::known_seed(n), crc = ~0u;
    std::vector<uint32_t> data;
    for (unsigned i = 0; i < n.k * fw::kChunkBytes / 4; ++i) data.push_back(fw::next_pattern(seed));
    auto* bytes = reinterpret_cast<unsigned char*>(data.data());
    for (unsigned r = 0; r < n.m; ++r)
      for (unsigned b = 0; b < fw::kChunkBytes; b += 4) {
        unsigned char sum[4] = {};
        for (unsigned j = 0; j < n.k; ++j)
          for (unsigned i = 0; i < 4; ++i) sum[i] ^= gf_mul(matrix[(n.k + r) * n.k + j], bytes[j * fw::kChunkBytes + b + i]);
        uint32_t w;
        std::memcpy(&w, sum, 4);
        crc = fw::gf::crc_word(crc, w);
      }
    EXPECT_EQ(~crc, n.parity_crc) << int(n.k);
  }
}

// Requirement: CF-07 switch=failed-card-ready
TEST_F(FirmwareTest, ACardThatIsWrongFailsAndTheRecordSaysHow) {
  card.answers_zero = true, fw::boot(), expect_fault(FaultKind::identity);
  card.answers_zero = false, card.stuck_bit_at = 0x1230, fw::boot(), expect_fault(FaultKind::memory);
  EXPECT_EQ(card.shared(SHARED_LAST_FAULT + 12), 0x1230u);
  card.stuck_bit_at = ~0u, card.wrong_parity = true, fw::boot(), expect_fault(FaultKind::coding);
  card.wrong_parity = false, card.refuses = true, fw::boot(), expect_fault(FaultKind::job_status);
  EXPECT_EQ(card.shared(SHARED_LAST_FAULT), 4u);
  card.refuses = false, fw::boot();
  EXPECT_EQ(card.shared(SHARED_STATE), static_cast<uint32_t>(FirmwareState::ready));
}

// Requirement: CF-07 switch=card-waits-long
TEST_F(FirmwareTest, AJobThatNeverEndsCostsABoundedTimeAndIsCleared) {
  card.hangs = true, fw::boot(), expect_fault(FaultKind::timeout);
  EXPECT_LT(card.accesses, 2000000u);
  EXPECT_EQ(card.load(MAP_REGISTERS + REG_CONTROL), 0u);
  EXPECT_EQ(card.load(MAP_REGISTERS + REG_COMPLETED), card.load(MAP_REGISTERS + REG_SUBMITTED));  // cleared
  card.hangs = false;
  EXPECT_EQ(card.command(Command::self_test), static_cast<uint32_t>(AnswerStatus::ok));
  EXPECT_EQ(card.shared(SHARED_STATE), static_cast<uint32_t>(FirmwareState::ready));
  card.never_rests = true;
  EXPECT_EQ(card.command(Command::self_test), static_cast<uint32_t>(AnswerStatus::failed));
  EXPECT_EQ(card.shared(SHARED_ANSWER), static_cast<uint32_t>(FaultKind::timeout));
}

// Requirement: CF-08 switch=ring-owner-ignored
TEST_F(FirmwareTest, AHostsRingIsLeftAlone) {
  card.set_shared(SHARED_OWNER, 1);
  card.store(MAP_REGISTERS + REG_CONTROL, CONTROL_RUN), card.store(MAP_REGISTERS + REG_WINDOW_BASE, 0x1234);
  fw::boot();
  EXPECT_EQ(card.shared(SHARED_STATE), static_cast<uint32_t>(FirmwareState::ready));
  EXPECT_EQ(card.load(MAP_REGISTERS + REG_CONTROL), CONTROL_RUN);
  EXPECT_EQ(card.load(MAP_REGISTERS + REG_WINDOW_BASE), 0x1234u);
  EXPECT_EQ(card.load(MAP_REGISTERS + REG_SUBMITTED), 0u);
  EXPECT_EQ(card.command(Command::self_test), static_cast<uint32_t>(AnswerStatus::busy));
}

// What the card has of them is what its kernels hold jobs against (CF-10 of sim/card/card_test.cpp).
TEST_F(FirmwareTest, FencesRiseOnlyAreBoundedAndAreOnTheCard) {
  EXPECT_EQ(fw::fence_of(5), 0u);
  EXPECT_TRUE(fw::raise_fence(5, 7));
  EXPECT_TRUE(fw::raise_fence(5, 3));
  EXPECT_EQ(fw::fence_of(5), 7u);
  EXPECT_TRUE(fw::raise_fence(5, 1ull << 40));
  EXPECT_EQ(fw::fence_of(5), 1ull << 40);
  EXPECT_EQ(card.fences, (std::map<uint32_t, uint64_t>{{1, 1ull << 40}}));
  for (uint64_t p = 100; p < 100 + fw::kFences - 1; ++p) EXPECT_TRUE(fw::raise_fence(p, p));
  EXPECT_FALSE(fw::raise_fence(1000, 1));
  EXPECT_TRUE(fw::raise_fence(100, 1000));
  EXPECT_EQ(fw::fence_entry(100), 2u);
  EXPECT_EQ(fw::fence_entry(1000), 0u);
  const auto before = card.fences;
  EXPECT_EQ(before.size(), fw::kFences);
  EXPECT_EQ(before.at(2), 1000u);
  card.fences.clear();  // a card that was configured anew
  fw::boot();
  EXPECT_EQ(card.fences, before);
}

// Requirement: CF-10 switch=card-fence-ignored
// Requirement: CF-10 switch=card-fence-forgotten
TEST_F(FirmwareTest, TablesByCommandUnderAFence) {
  fw::boot();
  const std::vector<uint32_t> pattern = {16, 4, 0xFFFF0, 0xF, 77, 0, 9, 0};
  ASSERT_EQ(card.command(Command::table, pattern), static_cast<uint32_t>(AnswerStatus::ok));
  Bytes got(64);
  for (unsigned i = 0; i < 16; ++i) {
    uint32_t w = card.shared(SHARED_ANSWER + 4 * i);
    std::memcpy(&got[4 * i], &w, 4);
  }
  EXPECT_EQ(got, from_isal(16, 4, 0xFFFF0, 0xF));
  ASSERT_EQ(card.command(Command::fence, {77, 0, 10, 0}), static_cast<uint32_t>(AnswerStatus::ok));
  EXPECT_EQ(card.command(Command::table, pattern), static_cast<uint32_t>(AnswerStatus::fenced));
  EXPECT_EQ(card.shared(SHARED_ANSWER), 10u);
  fw::boot();  // a reset of the controller forgets no fence
  EXPECT_EQ(card.command(Command::table, pattern), static_cast<uint32_t>(AnswerStatus::fenced));
  EXPECT_EQ(card.command(Command::table, {16, 4, 0xFFFF0, 0xF, 77, 0, 10, 0}), static_cast<uint32_t>(AnswerStatus::ok));
  EXPECT_EQ(card.command(Command::table, {16, 4, 0xFFFF0, 0xF, 78, 0, 1, 0}), static_cast<uint32_t>(AnswerStatus::ok));
  EXPECT_EQ(card.command(Command::table, {16, 4, 0xFF, 0xF, 78, 0, 1, 0}), static_cast<uint32_t>(AnswerStatus::not_enough));
  EXPECT_EQ(card.command(99), static_cast<uint32_t>(AnswerStatus::unknown));
}

TEST_F(FirmwareTest, ARestartIsAnsweredFirstAndAnOpenCommandIsLost) {
  fw::boot();
  card.set_shared(SHARED_OP, Command::restart), card.set_shared(SHARED_COMMAND, 1);
  EXPECT_THROW(fw::poll(), fw::host::Restart);
  EXPECT_EQ(card.shared(SHARED_ANSWERED), 1u);
  card.set_shared(SHARED_COMMAND, 2);
  fw::boot();
  EXPECT_EQ(card.shared(SHARED_BOOTS), 2u);
  EXPECT_EQ(card.shared(SHARED_ANSWERED), 2u);
}

// Requirement: CF-11 switch=card-fault-forgotten
TEST_F(FirmwareTest, AFaultOfTheCardIsRecordedOnceAndAWatchdogResetToo) {
  fw::boot();
  card.words[MAP_REGISTERS + REG_FAULT] = FAULT_READ_TIMEOUT | FAULT_JOB_FAILED;
  for (int i = 0; i < 300; ++i) fw::poll();
  EXPECT_EQ(card.shared(SHARED_LAST_FAULT), 1u);
  EXPECT_EQ(card.shared(SHARED_LAST_FAULT + 4), static_cast<uint32_t>(FaultKind::card));
  EXPECT_EQ(card.shared(SHARED_LAST_FAULT + 12), FAULT_READ_TIMEOUT);
  fw::boot();  // a reset of the controller forgets no fault
  EXPECT_EQ(card.shared(SHARED_LAST_FAULT + 4), static_cast<uint32_t>(FaultKind::card));
  card.words[MAP_WATCHDOG] = 8;
  fw::boot();
  EXPECT_EQ(card.shared(SHARED_LAST_FAULT + 4), static_cast<uint32_t>(FaultKind::watchdog));
  EXPECT_EQ(card.command(Command::forget_fault), static_cast<uint32_t>(AnswerStatus::ok));
  EXPECT_EQ(card.shared(SHARED_LAST_FAULT + 4), 0u);
}

// A card with a flash of its own, of small slots.
class FlashCard : public FakeCard {
 public:
  static constexpr uint32_t kSlot = 8192, kSector = 4096;
  luge::image::FlashModel model{luge::image::flash_layout(kSlot, kSector)};
  luge::sim::ModelFlash flash{model};
  luge::sim::QuadSpi spi{flash};
  using Medium = fw::FlashMedium<luge::image::FlashModel>;

  uint32_t load(uint32_t a) override {
    if (a - MAP_FLASH < MAP_FLASH_BYTES) return spi.load(a - MAP_FLASH);
    return a == MAP_BOARD + 16 ? kSlot : a == MAP_BOARD + 20 ? kSector : FakeCard::load(a);
  }
  void store(uint32_t a, uint32_t v) override {
    if (a - MAP_FLASH < MAP_FLASH_BYTES) spi.store(a - MAP_FLASH, v);
    else FakeCard::store(a, v);
  }
  void power_on() {
    set_shared(SHARED_SLOT, fw::kNoSlot);
    fw::lose_power(), fw::boot();
  }
  fw::Record record() { return Medium(model, model.layout()).newest(); }
  void update(uint32_t version) {
    const Bytes bytes(5000, static_cast<unsigned char>(version));
    fw::Sha256 sha;
    sha.add(bytes.data(), 5000);
    Medium medium(model, model.layout());
    auto get = [&](uint32_t at, uint8_t* to, uint32_t n) { std::copy_n(bytes.begin() + at, n, to); };
    ASSERT_EQ(fw::Slots<Medium>(medium).update({5000, version, sha.end()}, get, [](uint32_t, uint32_t) {}), fw::UpdateResult::done);
  }
};

// Requirement: CF-03 switch=failed-card-ready
TEST(FirmwareImages, OneThatFailsItsSelfTestIsNeverGoodAndFallsBack) {
  FlashCard card;
  fw::host::use(card);
  card.update(1), card.power_on();
  EXPECT_EQ(card.shared(SHARED_SLOT), uint32_t{fw::kSlotA});
  EXPECT_TRUE(card.record().good);
  card.update(2), card.wrong_parity = true;
  for (uint32_t starts = 1; starts <= fw::kAttempts; ++starts) {
    card.power_on();
    ASSERT_EQ(card.shared(SHARED_SLOT), uint32_t{fw::kSlotB});
    ASSERT_EQ(card.record().attempts, starts);
    ASSERT_FALSE(card.record().good);
  }
  card.wrong_parity = false, card.power_on();
  EXPECT_EQ(card.shared(SHARED_SLOT), uint32_t{fw::kSlotA});
  EXPECT_EQ(card.shared(SHARED_STATE), static_cast<uint32_t>(FirmwareState::ready));
  EXPECT_FALSE(card.model.golden_touched());
}

// Every wait for the flash ends.
TEST(FirmwareImages, AFlashThatIsNotThereCostsABoundedTime) {
  class Absent : public FakeCard {
   public:
    uint32_t load(uint32_t a) override { return a == MAP_BOARD + 16 ? 8192u : a == MAP_BOARD + 20 ? 4096u : FakeCard::load(a); }
  } card;
  fw::host::use(card);
  card.set_shared(SHARED_SLOT, fw::kNoSlot);
  fw::lose_power(), fw::boot();
  EXPECT_LT(card.accesses, 20000000u);
  EXPECT_EQ(card.shared(SHARED_SLOT), uint32_t{fw::kGolden});
  EXPECT_EQ(card.shared(SHARED_STATE), static_cast<uint32_t>(FirmwareState::ready));
}

TEST_F(FirmwareTest, TheLogKeepsTheNewest) {
  fw::boot();
  for (uint32_t i = 1; i <= 200; ++i) card.command(Command::fence, {9, 0, i, 0});
  uint32_t newest = 0;
  for (uint32_t i = 0; i < 64; ++i) newest = std::max(newest, card.shared(SHARED_LOG + 16 * i));
  EXPECT_EQ(newest, 202u);
  EXPECT_EQ(card.shared(SHARED_LOG + 16 * ((newest - 1) % 64) + 12), 200u);
}

}  // namespace
