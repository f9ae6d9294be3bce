// The driver itself on the real XRT, in this process: what a daemon's card process never does must not harm the card either.
//   device_test KIND TREE     (native or rtl; KIND not built: skipped)
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <random>
#include <regex>

#include "card/environment.hpp"
#include "coding/matrix.hpp"
#include "card/xrt/device.hpp"

namespace luge::card {
namespace {

using namespace luge_card;

std::unique_ptr<Device> open() {
  DeviceOptions o;
  o.xclbin = ::getenv("LUGE_CARD_XCLBIN");
  o.mapped = true;
  o.pool_bytes = 4u << 20;
  return std::make_unique<Device>(o);
}

JobMessage xor_job(Device& d, std::uint32_t id, std::uint32_t length) {
  JobMessage m;
  m.header.id = id;
  m.sources = 3, m.rows = 1, m.length = length;
  for (std::uint32_t i = 0; i < 3; ++i) m.source[i] = i * 65536ull, m.coefficients[i] = 1;
  m.destination[0] = 3 * 65536ull + id % 8 * 65536ull;
  return m;
}

std::uint16_t finish(Device& d, std::uint32_t id) {
  for (int i = 0; i < 100000; ++i) {
    if (auto done = d.reap()) {
      EXPECT_EQ(done->id, id);
      return done->status;
    }
    ::usleep(200);
  }
  ADD_FAILURE() << "no completion";
  return 0xffff;
}

void expect_xor(Device& d, const JobMessage& m) {
  const std::uint8_t* p = d.pool();
  for (std::uint32_t i = 0; i < m.length; ++i)
    ASSERT_EQ(p[m.destination[0] + i], p[m.source[0] + i] ^ p[m.source[1] + i] ^ p[m.source[2] + i]) << i;
}

// A decode names its pattern: the card's firmware makes the coefficients (those in the message are wrong here, and are used only where there is no firmware).
TEST(Device, TheFirmwareMakesTheTableOfADecode) {
  auto d = open();
  ASSERT_TRUE(d->firmware().there());
  const Layout l{4, 2};
  const std::uint32_t data[] = {0, 1, 2, 3}, parity[] = {4, 5}, sources[] = {1, 3, 4, 5}, lost[] = {0, 2};
  std::mt19937_64 rng(5);
  for (std::size_t i = 0; i < 8 * 65536; ++i) d->pool()[i] = static_cast<std::uint8_t>(rng());
  JobMessage m;
  m.header.id = 1, m.sources = 4, m.rows = 2, m.length = 4096;
  auto rows = *coding::coefficients(l, data, parity);
  for (std::size_t r = 0; r < 2; ++r) std::copy_n(rows.begin() + static_cast<long>(4 * r), 4, m.coefficients + 16 * r), m.destination[r] = (4 + r) * 65536;
  for (std::size_t j = 0; j < 4; ++j) m.source[j] = j * 65536;
  d->submit(m);
  ASSERT_EQ(finish(*d, 1), JobStatus::ok);
  JobMessage n;
  n.header.id = 2, n.sources = 4, n.rows = 2, n.length = 4096, n.decode = 1, n.k = 4, n.m = 2, n.present = 0b111010, n.wanted = 0b000101;
  for (std::size_t j = 0; j < 4; ++j) n.source[j] = sources[j] * 65536;
  for (std::size_t r = 0; r < 2; ++r) n.destination[r] = (6 + r) * 65536;
  n.coefficients[0] = 77;
  d->submit(n);
  ASSERT_EQ(finish(*d, 2), JobStatus::ok);
  for (std::size_t r = 0; r < 2; ++r) EXPECT_EQ(std::memcmp(d->pool() + lost[r] * 65536, d->pool() + (6 + r) * 65536, 4096), 0) << r;
  const auto counts = d->firmware().words(SHARED_TELEMETRY, 8);
  EXPECT_EQ(counts[0] > 40000 && counts[0] < 50000, true) << counts[0];  // the emulated room is at 45 degrees
}

// A host that is killed leaves the owner's word; the next one has the ring all the same, and a restart of the firmware meanwhile disturbs no job.
TEST(Device, ARestartOfTheControllerUnderJobsCostsNothing) {
  auto d = open();
  for (std::uint32_t id = 1; id <= 40; ++id) {
    JobMessage m = xor_job(*d, id, 4096);
    d->submit(m);
    if (id % 8 == 0) d->firmware().command(Command::restart, {}, std::chrono::milliseconds(200));
    ASSERT_EQ(finish(*d, id), JobStatus::ok);
    expect_xor(*d, m);
  }
  EXPECT_GE(d->read(SHARED_BOOTS), 5u);
  EXPECT_EQ(d->read(SHARED_OWNER), 1u);
}

// The first job under an epoch raises the card's fence; what is still on its way under an older one writes nothing. The controller's reset changes nothing of that.
// Requirement: CF-10
TEST(Device, AJobUnderAnEpochBelowTheCardsIsRefusedOnTheCard) {
  auto d = open();
  std::uint32_t id = 0;
  auto status_under = [&](std::uint64_t partition, std::uint64_t epoch) {
    JobMessage m = xor_job(*d, ++id, 4096);
    m.partition = partition, m.epoch = epoch;
    std::memset(d->pool() + m.destination[0], 0x5a, 4096);
    d->submit(m);
    const std::uint16_t status = finish(*d, id);
    const std::uint8_t* at = d->pool() + m.destination[0];
    if (status == JobStatus::ok) expect_xor(*d, m);
    else EXPECT_TRUE(std::all_of(at, at + 4096, [](std::uint8_t b) { return b == 0x5a; }));
    return status;
  };
  constexpr std::uint64_t kLarge = 1ull << 40;
  EXPECT_EQ(status_under(77, 5), JobStatus::ok);
  EXPECT_EQ(status_under(77, 4), JobStatus::fenced);
  EXPECT_EQ(status_under(77, kLarge + 6), JobStatus::ok);
  EXPECT_EQ(status_under(77, kLarge + 5), JobStatus::fenced);
  EXPECT_EQ(status_under(77, 7), JobStatus::fenced);
  EXPECT_EQ(status_under(78, 1), JobStatus::ok);
  EXPECT_EQ(status_under(0, 0), JobStatus::ok);  // nobody's
  d->firmware().command(Command::restart, {}, std::chrono::seconds(5));
  EXPECT_EQ(status_under(77, kLarge + 5), JobStatus::fenced);
  EXPECT_EQ(status_under(77, kLarge + 6), JobStatus::ok);
  Code code;
  std::string text;
  Device::fault_of(JobStatus::fenced, code, text);
  EXPECT_EQ(code, Code::fenced);
}

// It has an address of the form of PCI and PCI Express, its registers are reached through its window on the bus (none answers there of a card
// that is not on it: BadInput.AllOnes), and it is a master: what it writes is in memory that this process has mapped, without a call.
// Requirement: DWR-14, DWR-15
TEST(Device, IsOnTheHostsPcieBus) {
  auto d = open();
  EXPECT_TRUE(std::regex_match(d->bus_address(), std::regex("[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\\.[0-7]"))) << d->bus_address();
  EXPECT_EQ(d->read(REG_ID), ID_VALUE);
  JobMessage m = xor_job(*d, 1, 4096);
  std::memset(d->pool(), 0x5a, 4 * 65536);
  d->submit(m);
  EXPECT_EQ(finish(*d, 1), JobStatus::ok);
  expect_xor(*d, m);
}

TEST(Device, SurvivesARingOverrun) {
  auto d = open();
  std::mt19937_64 rng(3);
  for (std::size_t i = 0; i < 3 * 65536; ++i) d->pool()[i] = static_cast<std::uint8_t>(rng());
  JobMessage m = xor_job(*d, 1, 5000);
  d->submit(m);
  EXPECT_EQ(finish(*d, 1), JobStatus::ok);
  expect_xor(*d, m);
  // A doorbell further ahead than the ring is long, and one that goes back: ignored, and said.
  for (std::uint32_t wild : {d->submitted() + 65, d->submitted() - 1, d->submitted() + 0x80000000u}) {
    std::uint32_t before = d->submitted();
    d->write(REG_SUBMITTED, wild);
    EXPECT_TRUE(d->read(REG_FAULT) & FAULT_BAD_DOORBELL) << wild;
    EXPECT_EQ(d->read(REG_SUBMITTED), before);
    d->write(REG_FAULT, FAULT_BAD_DOORBELL);
    EXPECT_FALSE(d->read(REG_FAULT) & FAULT_BAD_DOORBELL);
  }
  m = xor_job(*d, 2, 4097);
  d->submit(m);
  EXPECT_EQ(finish(*d, 2), JobStatus::ok);
  expect_xor(*d, m);
  // As many as the ring takes, and no more; several turns of it.
  std::uint32_t next = 3, reaped = 3;
  while (reaped < 300) {
    while (next < 300 && d->room()) d->submit(xor_job(*d, next++, 64));
    EXPECT_LE(d->outstanding(), 64u);
    EXPECT_EQ(finish(*d, reaped++), JobStatus::ok);
  }
  EXPECT_FALSE(d->read(REG_FAULT) & FAULT_BAD_DOORBELL);
}

TEST(Device, RefusesJobsBesideThePool) {
  auto d = open();
  auto refused = [&](JobMessage m) {
    try {
      d->submit(m);
      return false;
    } catch (const Failure& f) {
      return f.fault == Fault::refused;
    }
  };
  JobMessage good = xor_job(*d, 1, 4096), m = good;
  m.source[1] = d->pool_bytes() - 4095;
  EXPECT_TRUE(refused(m));
  m = good, m.destination[0] = ~0ull - 100;
  EXPECT_TRUE(refused(m));
  m = good, m.sources = 17;
  EXPECT_TRUE(refused(m));
  m = good, m.rows = 0;
  EXPECT_TRUE(refused(m));
  m = good, m.length = 0;
  EXPECT_TRUE(refused(m));
  // What overlaps is for the card to refuse, and it goes on.
  m = good, m.destination[0] = m.source[0] + 100;
  d->submit(m);
  EXPECT_EQ(finish(*d, 1), JobStatus::overlap);
  d->submit(good);
  EXPECT_EQ(finish(*d, 1), JobStatus::ok);
  EXPECT_EQ(d->counters().values[1], 1u) << "jobs_failed";
}

}  // namespace
}  // namespace luge::card

// XRT takes its options from the environment at start, and its handlers signal the whole process group: both are set here, before any
// of it is used.
int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  luge::card::CardOptions o;
  if (argc > 1) o.kind = argv[1];
  if (argc > 2) o.tree = argv[2];
  auto env = luge::card::card_environment(o);
  if (!env.ok()) return std::fprintf(stderr, "skipped: %s\n", env.status().text().c_str()), 77;
  for (auto& [k, v] : *env) ::setenv(k.c_str(), v.c_str(), 1);
  char directory[] = "/tmp/luge-test-XXXXXX";
  if (!::mkdtemp(directory) || ::chdir(directory) != 0) return 1;
  ::setenv("SDACCEL_EM_RUN_DIR", directory, 1);
  pid_t child = ::fork();
  if (child == 0) {
    ::setsid();
    ::_exit(RUN_ALL_TESTS());
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  std::error_code ignored;
  std::filesystem::remove_all(directory, ignored);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
