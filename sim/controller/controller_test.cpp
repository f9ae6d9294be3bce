// The firmware with the card's real kernels (compiled): its image in Unicorn and its host build, the same tests for both.
//
//   controller_test [gtest options] [--seed=N] [--resets=N]
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <random>

#include "coding/matrix.hpp"
#include "hls/registers/card.h"
#include "firmware/update/slots.hpp"
#include "sim/card/card.hpp"
#include "sim/controller/model_flash.hpp"
#include "sim/xrt/machine.hpp"
#include "switches/switches.hpp"

namespace {

using namespace luge_card;
using luge::xrt_sim::Machine;
using luge::sim::ControllerSettings;

unsigned seed = 1, resets = 1000;
constexpr std::uint64_t kHost = 0x100000, kRing = kHost, kCompletions = kHost + 0x10000, kChunks = kHost + 0x20000, kHostBytes = 0x100000;
constexpr std::uint32_t kRingLog2 = 4, kLength = 1024;

constexpr std::uint32_t kSlotBytes = 16 << 10, kSectorBytes = 4096;  // of the board's flash, where it has one

enum class Kind { native, rv32 };

// A machine with a controller, and a host that uses ring and shared words.
class Bench {
 public:
  Machine machine{luge::sim::make_native_card(), 0, 0};
  std::uint32_t submitted = 0;

  explicit Bench(Kind kind, std::vector<std::uint8_t> image = {}, bool owner_hidden = false, luge::sim::ModelFlash* flash = nullptr) {
    machine.memory.allocate(kHost, kHostBytes);
    ControllerSettings s;
    s.image = image.empty() ? luge::sim::read_image(LUGE_FIRMWARE_IMAGE) : image, s.board = 7, s.revision = 3, s.owner_hidden = owner_hidden || luge::broken(luge::Switch::ring_owner_ignored);
    if (flash) s.flash = flash, s.slot_bytes = kSlotBytes, s.sector_bytes = kSectorBytes;
    machine.add_controller(kind == Kind::rv32 ? luge::sim::make_rv32_controller : luge::sim::make_native_controller, std::move(s));
  }
  std::uint32_t peek(std::uint32_t offset) {
    std::uint32_t v = 0;
    EXPECT_TRUE(machine.read_register(offset, v));
    return v;
  }
  void poke(std::uint32_t offset, std::uint32_t v) { EXPECT_TRUE(machine.write_register(offset, v)); }
  void poke64(std::uint32_t offset, std::uint64_t v) { poke(offset, static_cast<std::uint32_t>(v)), poke(offset + 4, static_cast<std::uint32_t>(v >> 32)); }
  std::uint8_t* at(std::uint64_t address) {
    EXPECT_TRUE(machine.memory.holds(address, 1));
    return machine.memory.at(address);
  }
  void go() {
    machine.run_controller();
    if (machine.busy()) machine.run(64);
  }
  bool settled() {
    for (int i = 0; i < 5000; ++i) {
      std::uint32_t state = peek(SHARED_STATE);
      if (state == FirmwareState::ready || state == FirmwareState::failed) return state == FirmwareState::ready;
      go();
    }
    return false;
  }
  // -1: no answer, or the controller started anew.
  int command(int op, const std::vector<std::uint32_t>& arguments, int rounds = 200) {
    const std::uint32_t boots = peek(SHARED_BOOTS), number = peek(SHARED_COMMAND) + 1;
    for (unsigned i = 0; i < arguments.size(); ++i) poke(SHARED_ARGUMENT + 4 * i, arguments[i]);
    poke(SHARED_OP, static_cast<std::uint32_t>(op)), poke(SHARED_COMMAND, number);
    for (; rounds > 0 && peek(SHARED_ANSWERED) != number; --rounds) go();
    if (peek(SHARED_ANSWERED) != number || peek(SHARED_BOOTS) != boots) return -1;
    return static_cast<int>(peek(SHARED_ANSWER_STATUS));
  }
  std::vector<std::uint8_t> answer() {
    std::vector<std::uint8_t> bytes(64);
    for (unsigned i = 0; i < 16; ++i) {
      std::uint32_t w = peek(SHARED_ANSWER + 4 * i);
      std::memcpy(&bytes[4 * i], &w, 4);
    }
    return bytes;
  }

  // The host's ring, as host/card has it: owner first, then the firmware must have come to rest.
  void take_ring() {
    poke(SHARED_OWNER, 1);
    ASSERT_TRUE(settled());
    poke64(REG_RING_BASE, kRing), poke64(REG_COMPLETION_BASE, kCompletions), poke(REG_RING_SIZE, kRingLog2);
    poke64(REG_WINDOW_BASE, kHost), poke64(REG_WINDOW_END, kHost + kHostBytes), poke(REG_CONTROL, CONTROL_RUN);
    submitted = peek(REG_SUBMITTED);
  }
  void put(const Descriptor& d) { std::memcpy(at(kRing + submitted++ % (1u << kRingLog2) * sizeof d), &d, sizeof d); }
  void load(std::uint8_t table, const std::vector<std::uint8_t>& coefficients) {
    Descriptor d{};
    d.version = 1, d.op = Op::load_table, d.table = table;
    std::memcpy(d.destination, coefficients.data(), 64);
    put(d);
  }
  void code(std::uint8_t table, unsigned sources, unsigned rows, std::uint64_t from, std::uint64_t to) {
    Descriptor d{};
    d.version = 1, d.op = Op::code, d.table = table, d.sources = static_cast<std::uint8_t>(sources), d.rows = static_cast<std::uint8_t>(rows), d.length = kLength;
    for (unsigned i = 0; i < sources; ++i) d.source[i] = from + i * kLength;
    for (unsigned i = 0; i < rows; ++i) d.destination[i] = to + i * kLength;
    put(d);
  }
  void ring() { poke(REG_SUBMITTED, submitted); }
  bool finished(int rounds = 20000) {
    for (; rounds > 0 && peek(REG_COMPLETED) != submitted; --rounds) go();
    return peek(REG_COMPLETED) == submitted;
  }
  std::uint16_t status_of_last() {
    Completion c;
    std::memcpy(&c, at(kCompletions + (submitted - 1) % (1u << kRingLog2) * sizeof c), sizeof c);
    return c.status;
  }
};

std::vector<std::uint8_t> by_software(luge::Layout l, std::uint32_t present, std::uint32_t wanted) {
  std::vector<std::uint32_t> sources, chunks;
  for (std::uint32_t i = 0; i < l.width(); ++i) {
    if (present >> i & 1 && sources.size() < l.k) sources.push_back(i);
    if (wanted >> i & 1) chunks.push_back(i);
  }
  std::vector<std::uint8_t> rows = *luge::coding::coefficients(l, sources, chunks), table(64);
  for (std::size_t r = 0; r < chunks.size(); ++r) std::copy_n(rows.begin() + static_cast<long>(r * l.k), l.k, table.begin() + static_cast<long>(16 * r));
  return table;
}

class ControllerTest : public ::testing::TestWithParam<Kind> {};

TEST_P(ControllerTest, BootsTestsTheKernelsAndIsReady) {
  Bench b(GetParam());
  ASSERT_TRUE(b.settled());
  EXPECT_EQ(b.peek(SHARED_MAGIC), SHARED_MAGIC_VALUE);
  EXPECT_EQ(b.peek(SHARED_BOOTS), 1u);
  EXPECT_EQ(b.peek(SHARED_PROCESSOR), GetParam() == Kind::rv32 ? 1u : 2u);
  EXPECT_EQ(b.peek(SHARED_BOARD), 7u);
  EXPECT_EQ(b.peek(SHARED_REVISION), 3u);
  EXPECT_EQ(b.peek(REG_COMPLETED), 8u);  // tables, encodes and decodes of two layouts went through the kernels
  EXPECT_EQ(b.peek(SHARED_LAST_FAULT), 0u);
  std::printf("boot and self-test: %llu instructions, %llu cycles of the card\n", static_cast<unsigned long long>(b.machine.controller()->retired()),
              static_cast<unsigned long long>(b.machine.cycles()));
}

TEST_P(ControllerTest, ATableOfTheFirmwareDecodesOnTheKernels) {
  Bench b(GetParam());
  ASSERT_TRUE(b.settled());
  b.take_ring();
  std::mt19937 random(seed);
  const luge::Layout l{16, 4};
  const std::uint32_t all = 0xFFFFF;
  for (unsigned i = 0; i < 16 * kLength; ++i) *b.at(kChunks + i) = static_cast<std::uint8_t>(random());
  b.load(0, by_software(l, 0xFFFF, 0xF0000));
  b.code(0, 16, 4, kChunks, kChunks + 16 * kLength), b.ring();
  ASSERT_TRUE(b.finished());
  ASSERT_EQ(b.command(Command::table, {16, 4, all & ~0xFu, 0xF, 1, 0, 5, 0}), AnswerStatus::ok);
  EXPECT_EQ(b.answer(), by_software(l, all & ~0xFu, 0xF));
  b.load(1, b.answer());
  b.code(1, 16, 4, kChunks + 4 * kLength, kChunks + 20 * kLength), b.ring();
  ASSERT_TRUE(b.finished());
  EXPECT_EQ(b.status_of_last(), JobStatus::ok);
  EXPECT_EQ(std::memcmp(b.at(kChunks), b.at(kChunks + 20 * kLength), 4 * kLength), 0);
}

// The controller reset before any instruction, now and then with the whole card (a brown-out), while a host has it make tables and uses them: what is
// lost is asked for again, nothing is wrong, and the card is back each time.
class ResetBench : public Bench {
 public:
  unsigned lost = 0, reopened = 0;
  using Bench::Bench;

  // Until it is answered.
  int ask(int op, const std::vector<std::uint32_t>& arguments) {
    for (int tries = 0; tries < 50; ++tries) {
      if (int status = command(op, arguments); status != -1) return status;
      ++lost, settled();
    }
    return -1;
  }
  // A host that finds the card without an owner has lost everything on it: as after opening.
  void hold_ring() {
    if (owned_ && peek(SHARED_OWNER) == 1) return;
    reopened += owned_, owned_ = true;
    take_ring();
  }
  // Decodes `gone` of the 16+4 stripe at kChunks to behind it; again until the card has done it.
  bool decode(const std::vector<std::uint8_t>& table, std::uint32_t present) {
    for (int tries = 0; tries < 5; ++tries) {
      hold_ring();
      load(1, table);
      Descriptor d{};
      d.version = 1, d.op = Op::code, d.table = 1, d.sources = 16, d.rows = 4, d.length = kLength;
      for (unsigned i = 0, at = 0; i < 20 && at < 16; ++i)
        if (present >> i & 1) d.source[at++] = kChunks + i * kLength;
      for (unsigned r = 0; r < 4; ++r) d.destination[r] = kChunks + (20 + r) * kLength;
      put(d), ring();
      if (finished(3000) && peek(SHARED_OWNER) == 1) return status_of_last() == JobStatus::ok;
    }
    return false;
  }
  bool right(std::uint32_t gone) {
    for (unsigned i = 0, r = 0; i < 16; ++i)
      if (gone >> i & 1 && std::memcmp(at(kChunks + i * kLength), at(kChunks + (20 + r++) * kLength), kLength) != 0) return false;
    return true;
  }

 private:
  bool owned_ = false;
};

// Nothing, or what went wrong first.
std::string under_resets(ResetBench& b, unsigned wanted) {
  if (!b.settled()) return "no start";
  b.hold_ring();
  std::mt19937 random(seed);
  const luge::Layout l{16, 4};
  unsigned refused = 0;
  for (unsigned i = 0; i < 16 * kLength; ++i) *b.at(kChunks + i) = static_cast<std::uint8_t>(random());
  b.load(0, by_software(l, 0xFFFF, 0xF0000));
  b.code(0, 16, 4, kChunks, kChunks + 16 * kLength), b.ring();
  if (!b.finished()) return "the stripe is not coded";
  for (unsigned n = 0; n < wanted; ++n) {
    std::uint32_t gone = 0;
    while (__builtin_popcount(gone) < 4) gone |= 1u << random() % 16;
    const std::uint32_t present = 0xFFFFF & ~gone, epoch = 100 + n;
    const bool brown_out = n % 10 == 9;
    const std::uint64_t before = b.machine.controller()->resets();
    b.machine.controller()->reset_in(1 + random() % 12000, brown_out);  // most in the middle of a command, some after it
    std::memset(b.at(kChunks + 20 * kLength), 0xEE, 4 * kLength);
    if (b.ask(Command::table, {16, 4, present, gone, 42, 0, epoch, 0}) != AnswerStatus::ok) return "no table";
    const auto table = b.answer();
    if (table != by_software(l, present, gone)) return "a wrong table";
    if (!b.decode(table, present)) return "a job failed";
    if (!b.right(gone)) return "wrong bytes";
    for (int i = 0; b.machine.controller()->resets() == before && i < 5000; ++i) b.go();
    if (b.machine.controller()->resets() == before) return "no reset";
    b.hold_ring();
    if (!b.settled()) return "the card does not come back";
    // A fence stays over a reset; after a brown-out the host sets it anew.
    if ((n == 0 || brown_out) && b.ask(Command::fence, {42, 0, epoch, 0}) != AnswerStatus::ok) return "no fence";
    if (b.ask(Command::table, {16, 4, present, gone, 42, 0, 99, 0}) != AnswerStatus::fenced) return "an old epoch is admitted";
    ++refused;
  }
  std::printf("%u resets before random instructions, %u of the whole card: %u commands asked for again, %u commands of an old epoch refused, no byte wrong\n", wanted, b.reopened,
              b.lost, refused);
  return "";
}

// Requirement: CF-09 switch=ring-owner-ignored
TEST_P(ControllerTest, ResetsUnderLoadCostNoByte) {
  ResetBench b(GetParam());
  EXPECT_EQ(under_resets(b, GetParam() == Kind::rv32 ? resets : 200), "");
}

// The twin: a firmware that does not see that a host has the ring tests the card under its jobs.
TEST_P(ControllerTest, AFirmwareThatIgnoresTheOwnerIsNoticed) {
  ResetBench b(GetParam(), {}, true);
  EXPECT_NE(under_resets(b, 200), "");
}

TEST_P(ControllerTest, AHungControllerIsResetByItsWatchdogAndSaysSo) {
  Bench b(GetParam());
  ASSERT_TRUE(b.settled());
  b.machine.controller()->hang();
  for (int i = 0; i < 500; ++i) b.go();
  EXPECT_EQ(b.command(Command::ping, {}, 10), -1);
  for (int i = 0; i < 3000 && b.peek(SHARED_BOOTS) == 1; ++i) b.go();
  ASSERT_TRUE(b.settled());
  EXPECT_EQ(b.peek(SHARED_BOOTS), 2u);
  EXPECT_EQ(b.peek(SHARED_LAST_FAULT + 4), static_cast<std::uint32_t>(FaultKind::watchdog));
  EXPECT_EQ(b.command(Command::ping, {}), AnswerStatus::ok);
}

TEST_P(ControllerTest, ARestartByCommandComesBack) {
  Bench b(GetParam());
  ASSERT_TRUE(b.settled());
  b.command(Command::restart, {});
  for (int i = 0; i < 1000 && b.peek(SHARED_BOOTS) == 1; ++i) b.go();
  ASSERT_TRUE(b.settled());
  EXPECT_EQ(b.peek(SHARED_BOOTS), 2u);
}

// The images in a board's own flash, by the firmware: through its driver, the Quad SPI and a flash that may be cut.
class FlashBench {
 public:
  luge::image::FlashModel model{luge::image::flash_layout(kSlotBytes, kSectorBytes)};
  luge::sim::ModelFlash flash{model};
  using Medium = fw::FlashMedium<luge::image::FlashModel>;

  fw::Record record() { return Medium(model, model.layout()).newest(); }
  // As a host's updater writes it: onto the slot that is not the last good one.
  void update(std::uint32_t version) {
    std::vector<std::uint8_t> bytes(3000 + version * 700);
    std::mt19937 random(version);
    for (auto& b : bytes) b = static_cast<std::uint8_t>(random());
    fw::Sha256 sha;
    sha.add(bytes.data(), static_cast<std::uint32_t>(bytes.size()));
    auto get = [&](std::uint32_t at, std::uint8_t* to, std::uint32_t n) { std::copy_n(bytes.begin() + at, n, to); };
    Medium medium(model, model.layout());
    ASSERT_EQ(fw::Slots<Medium>(medium).update({static_cast<std::uint32_t>(bytes.size()), version, sha.end()}, get, [](std::uint32_t, std::uint32_t) {}), fw::UpdateResult::done);
  }
  // A good image of version 1 in slot A, one of version 2 on trial in B.
  void prepare(Kind kind) {
    ASSERT_TRUE(model.write_golden(std::vector<std::uint8_t>(1000, 9)));
    update(1);
    Bench b(kind, {}, false, &flash);
    ASSERT_TRUE(b.settled());
    ASSERT_TRUE(good(b));
    update(2);
  }
  // The mark follows the state.
  bool good(Bench& b) {
    for (int i = 0; i < 2000 && !record().good; ++i) b.go();
    return record().good;
  }
};

std::uint32_t events(Bench& b, int event) {
  std::uint32_t n = 0;
  for (std::uint32_t i = 0; i < SHARED_LOG_WORDS; i += 4) n += b.peek(SHARED_LOG + 4 * i) != 0 && b.peek(SHARED_LOG + 4 * i + 4) == static_cast<std::uint32_t>(event);
  return n;
}

// Requirement: CF-03
TEST_P(ControllerTest, AnImageOnTrialIsCountedAndMarkedGoodOrFallsBack) {
  FlashBench f;
  f.prepare(GetParam());
  // Its power goes before it has passed its self-test. (The host build starts in one piece: it is cut elsewhere.)
  for (unsigned starts = 1; GetParam() == Kind::rv32 && starts <= fw::kAttempts; ++starts) {
    Bench b(GetParam(), {}, false, &f.flash);
    for (int i = 0; i < 5000 && b.peek(SHARED_STATE) != FirmwareState::testing; ++i) b.go();
    ASSERT_EQ(b.peek(SHARED_SLOT), std::uint32_t{fw::kSlotB});
    ASSERT_EQ(f.record().attempts, starts);
    ASSERT_FALSE(f.record().good);
  }
  {
    Bench b(GetParam(), {}, false, &f.flash);
    ASSERT_TRUE(b.settled());
    EXPECT_EQ(b.peek(SHARED_SLOT), std::uint32_t{GetParam() == Kind::rv32 ? fw::kSlotA : fw::kSlotB});
    EXPECT_EQ(events(b, Event::slot_chosen), 1u);
    b.command(Command::restart, {});  // no start of an image
    ASSERT_TRUE(b.settled());
    EXPECT_EQ(events(b, Event::slot_chosen), 1u);
  }
  f.update(3);
  Bench b(GetParam(), {}, false, &f.flash);
  ASSERT_TRUE(b.settled());
  EXPECT_EQ(b.peek(SHARED_SLOT), std::uint32_t{GetParam() == Kind::rv32 ? fw::kSlotB : fw::kSlotA});
  EXPECT_TRUE(f.good(b));
  EXPECT_EQ(f.record().attempts, 1u);
  EXPECT_EQ(b.peek(SHARED_LAST_FAULT), 0u);
  EXPECT_FALSE(f.model.golden_touched());
}

// Power goes in each of the firmware's own writes: what boots then is the good image or the one on trial, whole, and it is marked good.
// Requirement: CF-02
TEST_P(ControllerTest, PowerThatGoesInAWriteOfTheFirmwareLosesNoImage) {
  FlashBench base;
  base.prepare(GetParam());
  unsigned cuts = 0;
  for (unsigned n = 1, lost = 1; lost != 0; ++n) {
    lost = 0;
    for (unsigned seed = 0; seed < 6; ++seed) {
      FlashBench f;
      f.model = base.model;
      f.model.cut_at(n, 100 * n + seed);
      {
        Bench b(GetParam(), {}, false, &f.flash);
        for (int i = 0; i < 5000 && !f.flash.lost && b.peek(SHARED_STATE) != FirmwareState::ready; ++i) b.go();
        for (int i = 0; i < 300; ++i) b.go();
      }
      lost += f.flash.lost, cuts += f.flash.lost;
      f.flash.power_on();
      Bench b(GetParam(), {}, false, &f.flash);
      ASSERT_TRUE(b.settled());
      ASSERT_EQ(b.peek(SHARED_SLOT), std::uint32_t{fw::kSlotB}) << n << " " << seed;
      ASSERT_TRUE(f.good(b)) << n << " " << seed;
      ASSERT_FALSE(f.model.golden_touched());
    }
  }
  EXPECT_GE(cuts, 12u);
  std::printf("%u cuts in the firmware's own writes to its flash: the right image boots\n", cuts);
}

// Reset before a random instruction while it chooses, tests and marks.
// Requirement: CF-02, CF-09
TEST_P(ControllerTest, AResetWhileItChoosesCostsAnAttemptAtMost) {
  FlashBench base;
  base.prepare(GetParam());
  std::mt19937 random(seed);
  for (int n = 0; n < 40; ++n) {
    FlashBench f;
    f.model = base.model;
    Bench b(GetParam(), {}, false, &f.flash);
    b.machine.controller()->reset_in(1 + random() % (GetParam() == Kind::rv32 ? 3000000 : 600000), false);
    ASSERT_TRUE(b.settled());
    ASSERT_TRUE(f.good(b)) << n;
    ASSERT_EQ(b.peek(SHARED_SLOT), std::uint32_t{fw::kSlotB}) << n;
    ASSERT_LE(f.record().attempts, 2u) << n;
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, ControllerTest, ::testing::Values(Kind::native, Kind::rv32), [](const auto& i) { return i.param == Kind::native ? "native" : "rv32"; });

// From the doorbell to the table, and of one that is in the cache: the whole of what the controller does, its loop included.
TEST(ControllerFigures, InstructionsOfATable) {
  Bench b(Kind::rv32);
  ASSERT_TRUE(b.settled());
  for (int i = 0; i < 10; ++i) b.go();
  auto cost = [&](std::uint32_t present, std::uint32_t wanted) {
    const std::uint64_t before = b.machine.controller()->retired();
    EXPECT_EQ(b.command(Command::table, {16, 4, present, wanted, 0, 0, 0, 0}), AnswerStatus::ok);
    return b.machine.controller()->retired() - before;
  };
  std::uint64_t worst = 0, worst_cached = 0;
  std::mt19937 random(seed);
  for (int n = 0; n < 200; ++n) {
    std::uint32_t gone = 0;
    while (__builtin_popcount(gone) < 4) gone |= 1u << random() % 16;
    const std::uint64_t made = cost(0xFFFFF & ~gone, gone), again = cost(0xFFFFF & ~gone, gone);
    worst = std::max(worst, made), worst_cached = std::max(worst_cached, again);
  }
  std::printf("instructions from doorbell to table, 16+4 with 4 lost: %llu (bar 25000); cached: %llu (bar 500)\n", static_cast<unsigned long long>(worst),
              static_cast<unsigned long long>(worst_cached));
  EXPECT_LE(worst, 25000u);
  EXPECT_LE(worst_cached, 500u);
}

// Of a symbol, from the linker's map.
std::uint32_t address_of(const std::string& symbol) {
  std::ifstream map(LUGE_FIRMWARE_MAP);
  for (std::string line; std::getline(map, line);)
    if (auto where = line.find("0x"); where != std::string::npos && line.find(symbol) != std::string::npos) return static_cast<std::uint32_t>(std::stoul(line.substr(where), nullptr, 16));
  return 0;
}

TEST(ControllerImage, WhatIsNoImageIsRefused) {
  auto image = luge::sim::read_image(LUGE_FIRMWARE_IMAGE);
  image.pop_back();
  EXPECT_THROW(Bench(Kind::rv32, image), std::runtime_error);
  image.push_back(0), image[4] ^= 1;
  EXPECT_THROW(Bench(Kind::rv32, image), std::runtime_error);
}

// Code that is no code (all zeros is an illegal instruction) where the first command leads: the firmware traps, says so and starts over.
TEST(ControllerImage, ATrapIsRecordedAndTheControllerComesBack) {
  auto image = luge::sim::read_image(LUGE_FIRMWARE_IMAGE);
  const std::uint32_t at = address_of("fw::make_table(fw::Pattern");
  ASSERT_NE(at, 0u);
  std::memset(image.data() + at, 0, 4);
  Bench b(Kind::rv32, image);
  // The self-test makes tables too: the firmware traps while it boots, again and again, and each time says where.
  for (int i = 0; i < 400; ++i) b.go();
  EXPECT_GT(b.peek(SHARED_BOOTS), 2u);
  EXPECT_EQ(b.peek(SHARED_LAST_FAULT + 4), static_cast<std::uint32_t>(FaultKind::trap));
  EXPECT_EQ(b.peek(SHARED_LAST_FAULT + 12), 2u);  // illegal instruction
  EXPECT_EQ(b.peek(SHARED_LAST_FAULT + 16), at);
  EXPECT_NE(b.peek(SHARED_STATE), static_cast<std::uint32_t>(FirmwareState::ready));
}

}  // namespace

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  for (int i = 1; i < argc; ++i) {
    if (std::strncmp(argv[i], "--seed=", 7) == 0) seed = static_cast<unsigned>(std::atoi(argv[i] + 7));
    if (std::strncmp(argv[i], "--resets=", 9) == 0) resets = static_cast<unsigned>(std::atoi(argv[i] + 9));
  }
  return RUN_ALL_TESTS();
}
