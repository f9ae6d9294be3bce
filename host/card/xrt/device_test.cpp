// The driver itself on the real XRT, in this process: what a daemon's card process never does must not harm the card either.
//   device_test KIND TREE     (native or rtl; KIND not built: skipped)
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <random>
#include <regex>

#include "card/environment.hpp"
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
