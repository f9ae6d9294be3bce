// The guest's disk against a driver that counts what it is told, and against guests that break the rules.
#include <fcntl.h>
#include <gtest/gtest.h>

#include <set>

#include "attach/vhost_testing.hpp"
#include "io/descriptor.hpp"
#include "sim/cluster/simulation.hpp"
#include "switches/switches.hpp"

namespace luge::attach {
namespace {

using namespace std::chrono_literals;
using testing::Driver;
using testing::MemoryDisk;

enum : std::uint32_t { kIn = 0, kOut = 1, kFlush = 4, kGetId = 8, kDiscard = 11, kWriteZeroes = 13 };
constexpr std::uint64_t kDisk = 8 << 20;

// The native log, and a look at guest memory between any two of its cycles: that of a guest on another processor.
class WatchedLogger final : public card::DmaLogger {
 public:
  explicit WatchedLogger(std::function<void()>& look) : look_(look) {}
  const char* kind() const override { return log_->kind(); }
  void cycle(const In& in, Out& out) override {
    if (look_) look_();
    log_->cycle(in, out);
  }
  int idle_cycles() const override { return log_->idle_cycles(); }
  void skip_idle() override { log_->skip_idle(); }
  int settle_cycles() const override { return log_->settle_cycles(); }
  bool settled() const override { return log_->settled(); }

 private:
  std::unique_ptr<card::DmaLogger> log_ = card::make_native_dma_logger();
  std::function<void()>& look_;
};

class VhostTest : public ::testing::Test {
 public:
  VhostTest() : disk(world(), kDisk) { make_device(); }
  ~VhostTest() override { device.reset(); }
  io::World& world() { return sim.world(node); }
  void make_device() {
    dma = std::make_shared<card::DmaPath>(world(), std::make_unique<WatchedLogger>(look), 0);
    dma->set_memory(driver.memory);
    device = std::make_unique<VirtioBlk>(world(), dma, "disk", 1);
    device->set_size(kDisk);
    device->set_features(features);
    device->set_target(&disk);
    device->set_inflight(area);
    device->set_interrupt(0, [this] { ++interrupts; });
  }
  void start(std::uint16_t available = 0) {
    Status s = device->start(0, driver.place, available);
    ASSERT_TRUE(s.ok()) << s.to_string();
    device->enable(0, true);
  }
  void settle() {
    sim.run(node, [](io::World& w) -> io::Task<void> { co_await w.sleep(1ms); }(world()), 10s);
  }
  // Kicks, and gives the status of the one request that ends.
  int one() {
    device->kick(0);
    settle();
    auto e = driver.ended();
    EXPECT_EQ(e.size(), 1u);
    return e.size() == 1 ? driver.status(e[0].first) : -1;
  }
  void fill(std::uint64_t address, std::uint64_t n, unsigned seed) {
    for (std::uint64_t i = 0; i < n; ++i) driver.at(address)[i] = static_cast<std::byte>(i * 7 + seed + i / 255);
  }
  // As a front end that stops the ring: where it is then.
  std::uint16_t stop_ring() {
    std::uint16_t base = 0;
    sim.run(node, [](VhostTest& t, std::uint16_t& base) -> io::Task<void> { base = co_await t.device->drain(0); }(*this, base), 10s);
    return base;
  }
  // The guest broke a rule: nothing is done from then on, and nothing crashes.
  void expect_stopped() {
    device->kick(0);
    settle();
    EXPECT_TRUE(device->broken());
    std::uint64_t writes = disk.writes;
    EXPECT_TRUE(driver.ended().empty());
    EXPECT_EQ(disk.writes, writes);
  }

  sim::Simulation sim{1};
  sim::Node node = sim.add_node("host");
  Driver driver;
  MemoryDisk disk;
  std::function<void()> look;
  std::shared_ptr<Inflight> area;
  std::shared_ptr<card::DmaPath> dma;
  std::unique_ptr<VirtioBlk> device;
  std::uint64_t features = 1ull << 32 | 1ull << 28;
  int interrupts = 0;
};

// Requirement: DWR-17
TEST_F(VhostTest, WritesReadsAndTells) {
  start();
  for (bool indirect : {false, true}) {
    fill(Driver::kData, 12288, 5 + indirect);
    driver.submit(kOut, 8, {{Driver::kData, 4096}, {Driver::kData + 4096, 8192}}, false, indirect);
    EXPECT_EQ(one(), 0);
    EXPECT_EQ(std::memcmp(disk.at(4096), driver.at(Driver::kData), 12288), 0);
    driver.submit(kIn, 8, {{Driver::kData + 20003, 5000 + 120}, {Driver::kData + 40000, 12288 - 5120}}, true, indirect);
    device->kick(0);
    settle();
    auto e = driver.ended();
    ASSERT_EQ(e.size(), 1u);
    EXPECT_EQ(e[0].second, 12289u);
    EXPECT_EQ(std::memcmp(disk.at(4096), driver.at(Driver::kData + 20003), 5120), 0);
    EXPECT_EQ(std::memcmp(disk.at(4096 + 5120), driver.at(Driver::kData + 40000), 12288 - 5120), 0);
  }
  EXPECT_GE(interrupts, 4);
}

TEST_F(VhostTest, FlushDiscardZeroesAndIdentity) {
  start();
  std::memset(disk.at(0), 0x55, 1 << 20);
  driver.submit(kFlush, 0, {}, false);
  EXPECT_EQ(one(), 0);
  driver.submit(kGetId, 0, {{Driver::kData, 20}}, true);
  EXPECT_EQ(one(), 0);
  EXPECT_STREQ(reinterpret_cast<char*>(driver.at(Driver::kData)), "disk");
  for (auto [type, sector] : {std::pair(kDiscard, 8), std::pair(kWriteZeroes, 64)}) {
    driver.put<std::uint64_t>(Driver::kData, static_cast<std::uint64_t>(sector)), driver.put<std::uint32_t>(Driver::kData + 8, 8), driver.put<std::uint32_t>(Driver::kData + 12, 0);
    driver.submit(type, 0, {{Driver::kData, 16}}, false);
    EXPECT_EQ(one(), 0);
    EXPECT_EQ(*disk.at(static_cast<std::uint64_t>(sector) * 512 - 1), std::byte{0x55});
    EXPECT_TRUE(all_zero({disk.at(static_cast<std::uint64_t>(sector) * 512), 4096}));
    EXPECT_EQ(*disk.at(static_cast<std::uint64_t>(sector) * 512 + 4096), std::byte{0x55});
  }
  driver.submit(99, 0, {}, false);
  EXPECT_EQ(one(), 2);
  EXPECT_FALSE(device->broken());
}

TEST_F(VhostTest, WhatIsImpossibleFailsAlone) {
  start();
  for (auto [sector, bytes] : {std::pair<std::uint64_t, std::uint32_t>{kDisk / 512, 512}, {kDisk / 512 - 1, 1024}, {~0ull, 512}, {~0ull / 512, 4096}, {0, 100}}) {
    for (std::uint32_t type : {kIn, kOut}) {
      driver.submit(type, sector, {{Driver::kData, bytes}}, type == kIn);
      EXPECT_EQ(one(), 1) << sector << " " << bytes;
    }
  }
  disk.fail = Status(Code::corrupt, "bad");
  driver.submit(kIn, 0, {{Driver::kData, 512}}, true);
  EXPECT_EQ(one(), 1);
  EXPECT_FALSE(device->broken());
}

TEST_F(VhostTest, EventIndexLosesNoKickAndNoInterrupt) {
  features |= 1ull << 29;
  device->set_features(features);
  start();
  for (int i = 0; i < 300; ++i) {
    std::uint16_t before = driver.next;
    driver.submit(kIn, 0, {{Driver::kData, 4096}}, true);
    auto event = driver.get<std::uint16_t>(driver.place.used + 4 + 8ull * driver.entries);
    EXPECT_EQ(event, before) << "the guest would not kick";
    driver.put<std::uint16_t>(driver.place.available + 4 + 2ull * driver.entries, driver.seen);  // tell me of the next
    int told = interrupts;
    device->kick(0);
    settle();
    EXPECT_EQ(driver.ended().size(), 1u);
    EXPECT_EQ(interrupts, told + 1);
  }
}

// Requirement: DWR-11, DWR-17, DWR-21 switch=dma-unrecorded
TEST_F(VhostTest, EveryByteWrittenIsInTheDirtyLog) {
  int log_fd = ::memfd_create("log", MFD_CLOEXEC);
  const std::uint64_t log_bytes = Driver::kMemory / 4096 / 8;
  ASSERT_EQ(::ftruncate(log_fd, static_cast<off_t>(log_bytes)), 0);
  auto* bits = static_cast<std::uint8_t*>(::mmap(nullptr, log_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, log_fd, 0));
  start();
  auto log = card::DirtyLog::map(log_fd, 0, log_bytes);
  ASSERT_TRUE(log.ok());
  dma->set_dirty_log(std::move(*log));
  std::vector<std::byte> before(driver.at(0), driver.at(0) + Driver::kMemory);
  for (std::uint64_t i = 0; i < kDisk; ++i) *disk.at(i) = static_cast<std::byte>(i / 3 + 1);
  std::mt19937_64 random(5);
  for (int i = 0; i < 200; ++i) {
    std::uint32_t bytes = 512 * (1 + static_cast<std::uint32_t>(random() % 40));
    // What the guest itself writes is no business of the log.
    std::uint16_t head = driver.submit(kIn, random() % 8000, {{Driver::kData + random() % (2 << 20), bytes}}, true, random() % 2);
    (void)head;
    std::vector<std::byte> submitted(driver.at(0), driver.at(0) + Driver::kMemory);
    std::memcpy(before.data(), submitted.data(), before.size());
    std::memset(bits, 0, log_bytes);
    device->kick(0);
    settle();
    EXPECT_EQ(driver.ended().size(), 1u);
    std::set<std::uint64_t> changed, marked;
    for (std::uint64_t page = 0; page < Driver::kMemory / 4096; ++page) {
      if (std::memcmp(before.data() + page * 4096, driver.at(page * 4096), 4096) != 0) changed.insert(page);
      if (bits[page / 8] >> (page % 8) & 1) marked.insert(page);
    }
    EXPECT_TRUE(std::includes(marked.begin(), marked.end(), changed.begin(), changed.end())) << "a page was written and is not in the log";
    EXPECT_TRUE(marked.contains(driver.place.used / 4096)) << "the used ring";
    EXPECT_LE(marked.size(), changed.size() + 8);
  }
  ::munmap(bits, log_bytes);
  ::close(log_fd);
}

// Requirement: DWR-33 switch=dma-reads-recorded
TEST_F(VhostTest, WhatIsOnlyReadIsNotInTheDirtyLog) {
  testing::Log log(Driver::kMemory);
  start();
  dma->set_dirty_log(log.map());
  for (std::uint64_t i = 0; i < 100; ++i) {
    fill(Driver::kData + 16384 * (i % 8), 16384, static_cast<unsigned>(i));
    driver.submit(kOut, 32 * i, {{Driver::kData + 16384 * (i % 8), 16384}}, false, i % 2 != 0);
    EXPECT_EQ(one(), 0);
    ASSERT_EQ(std::memcmp(disk.at(16384 * i), driver.at(Driver::kData + 16384 * (i % 8)), 16384), 0);
  }
  EXPECT_TRUE(log.has(driver.place.used / 4096));
  EXPECT_TRUE(log.has(Driver::kHeaders / 4096)) << "the status";
  for (std::uint64_t page = Driver::kData / 4096; page < Driver::kMemory / 4096; ++page) EXPECT_FALSE(log.has(page)) << page;
  EXPECT_FALSE(log.has(driver.place.descriptors / 4096));
}

// The index was written, and the process ended before it could note that: those are not done again.
TEST_F(VhostTest, ABatchThatWasPublishedIsNotDoneAgain) {
  area = *Inflight::create(1, 16);
  EXPECT_TRUE(area->recover(0, 7).empty());
  for (std::uint16_t h : {3, 5, 9, 1}) area->taken(0, h);
  area->ending(0, {5, 1});
  EXPECT_EQ(area->recover(0, 7), (std::vector<std::uint16_t>{3, 5, 9, 1}));
  EXPECT_EQ(area->recover(0, 9), (std::vector<std::uint16_t>{3, 9}));
  area->ending(0, {9});
  area->ended(0, {9}, 10);
  EXPECT_EQ(area->recover(0, 10), (std::vector<std::uint16_t>{3}));
}

// A process that ends in the middle: the next one does what had not ended, in its order, and tells of each request once.
TEST_F(VhostTest, WhatWasInFlightIsDoneAgainByTheNextProcess) {
  area = *Inflight::create(1, driver.entries);
  device->set_inflight(area);
  std::mt19937_64 random(9);
  start();
  int told = 0, submitted = 0;
  std::uint64_t replayed = 0;
  for (int life = 0; life < 30; ++life) {
    disk.late = true;
    for (int i = 0; i < 10 && driver.free.size() > 3; ++i, ++submitted) {
      fill(Driver::kData + 4096ull * static_cast<unsigned>(submitted % 64), 4096, static_cast<unsigned>(submitted));
      driver.submit(kOut, 8ull * static_cast<unsigned>(submitted % 64), {{Driver::kData + 4096ull * static_cast<unsigned>(submitted % 64), 4096}}, false);
    }
    device->kick(0);
    if (random() % 2) disk.answer_all();
    if (random() % 2) settle();  // else the used index may not have been written
    disk.late = false;
    for (auto& [head, n] : driver.ended()) {
      EXPECT_EQ(driver.status(head), 0);
      ++told;
    }
    // The end: only guest memory, disk and inflight area stay.
    disk.forget();
    device.reset();
    dma.reset();
    auto again = Inflight::map(area->fd(), 0, area->bytes(), 1, driver.entries);
    ASSERT_TRUE(again.ok()) << again.status().to_string();
    area = *again;
    make_device();
    start(driver.get<std::uint16_t>(driver.place.used + 2));
    settle();
    replayed += device->stats().replayed;
    for (auto& [head, n] : driver.ended()) {
      EXPECT_EQ(driver.status(head), 0);
      ++told;
    }
    EXPECT_EQ(told, submitted) << "life " << life;
    EXPECT_TRUE(driver.owned.empty());
  }
  EXPECT_GT(replayed, 50u);
}

// While DMA writes are recorded, the used index is in guest memory some cycles before the device hears that it is: a head that comes again
// in between is neither an offence nor lost with the process.
// Requirement: DWR-17
TEST_F(VhostTest, AHeadMayComeAgainAsSoonAsTheGuestSeesTheUsedIndex) {
  area = *Inflight::create(1, driver.entries);
  device->set_inflight(area);
  ASSERT_TRUE(dma->start_recording(card::RecordMode::completed, 12, 0, {}).ok());
  start();
  const std::uint16_t first = driver.submit(kIn, 0, {{Driver::kData, 4096}}, true, true);
  int again = 0;
  look = [&] {
    if (driver.ended().empty()) return;
    if (++again == 20) disk.late = true;
    EXPECT_EQ(driver.submit(kIn, 0, {{Driver::kData, 4096}}, true, true), first);
    device->kick(0);
  };
  device->kick(0);
  settle();
  look = {};
  EXPECT_FALSE(device->broken());
  ASSERT_EQ(again, 20);
  EXPECT_EQ(disk.waiting(), 1u);
  EXPECT_EQ(area->recover(0, 20), (std::vector<std::uint16_t>{first}));
}

TEST_F(VhostTest, DrainingAQueueEndsWhatItHasAndTakesNoMore) {
  start();
  disk.late = true;
  for (int i = 0; i < 5; ++i) driver.submit(kIn, 0, {{Driver::kData, 4096}}, true);
  device->kick(0);
  bool drained = false;
  std::uint16_t base = 0;
  world().spawn("drain", [](VhostTest& t, bool& drained, std::uint16_t& base) -> io::Task<void> {
    base = co_await t.device->drain(0);
    drained = true;
  }(*this, drained, base));
  settle();
  EXPECT_FALSE(drained);
  driver.submit(kIn, 0, {{Driver::kData, 4096}}, true);
  device->kick(0);
  disk.answer_all();
  settle();
  EXPECT_TRUE(drained);
  EXPECT_EQ(base, 5);
  EXPECT_EQ(driver.ended().size(), 5u);
  EXPECT_EQ(disk.waiting(), 0u);
}

// The machine has been moved while a request was in flight elsewhere, behind others that had ended: it is not this device's to do, and what
// is in its buffers now may be anything.
TEST_F(VhostTest, ANewInflightAreaTakesNothingFromBehindWhereTheFrontEndHasTheRing) {
  start();
  driver.submit(kOut, 0, {{Driver::kData, 4096}}, false);
  EXPECT_EQ(one(), 0);
  const std::uint16_t base = stop_ring();
  EXPECT_EQ(base, 1);
  driver.submit(kOut, 8, {{Driver::kData, 4096}}, false);
  area = *Inflight::create(1, driver.entries);
  device->set_inflight(area);
  const std::uint64_t writes = disk.writes;
  ASSERT_TRUE(device->start(0, driver.place, 2).ok());
  device->kick(0);
  settle();
  EXPECT_EQ(disk.writes, writes);
  driver.submit(kOut, 16, {{Driver::kData, 4096}}, false);
  EXPECT_EQ(one(), 0);
  EXPECT_EQ(disk.writes, writes + 1);
}

// A process that has taken over, and has not got the volume yet when the guest is stopped or is to be quiet.
class ReplayTest : public VhostTest {
 public:
  void take_over_without_a_volume() {
    area = *Inflight::create(1, driver.entries);
    device->set_inflight(area);
    start();
    disk.late = true;
    for (int i = 0; i < 5; ++i) driver.submit(kIn, 0, {{Driver::kData, 4096}}, true);
    device->kick(0);
    settle();
    disk.forget(), disk.late = false;
    device.reset(), dma.reset();
    make_device();
    device->set_target(nullptr);
    start(driver.get<std::uint16_t>(driver.place.used + 2));
    driver.submit(kIn, 0, {{Driver::kData, 4096}}, true);  // one that is new
  }
  void sleep(io::Duration d) {
    sim.run(node, [](io::World& w, io::Duration d) -> io::Task<void> { co_await w.sleep(d); }(world(), d), 100s);
  }
  void drain() {
    world().spawn("drain", [](ReplayTest& t) -> io::Task<void> {
      t.base = co_await t.device->drain(0);
      t.ended = true;
    }(*this));
    settle();
  }
  void be_quiet() {
    device->hold(true);
    world().spawn("quiet", [](ReplayTest& t) -> io::Task<void> {
      t.whole = co_await t.device->finish_all();
      t.ended = true;
    }(*this));
    settle();
  }
  bool ended = false, whole = false;
  std::uint16_t base = 0;
};

TEST_F(ReplayTest, AStopWaitsForWhatIsToBeDoneAgain) {
  take_over_without_a_volume();
  drain();
  EXPECT_FALSE(ended);
  device->enable(0, false);  // as front ends do before they stop a ring
  device->set_target(&disk);
  sleep(200ms);
  EXPECT_TRUE(ended);
  EXPECT_EQ(base, 5);
  EXPECT_EQ(driver.ended().size(), 5u) << "the guest goes on behind them, elsewhere";
  EXPECT_TRUE(area->recover(0, 5).empty());
}

TEST_F(ReplayTest, AStopWithoutAVolumeEndsAndLeavesThemInTheInflightArea) {
  take_over_without_a_volume();
  drain();
  sleep(3s);
  EXPECT_TRUE(ended);
  EXPECT_EQ(base, 5);
  EXPECT_EQ(area->recover(0, 0).size(), 5u);
  device->set_target(&disk);
  start(0);
  settle();
  EXPECT_EQ(driver.ended().size(), 6u);
}

TEST_F(ReplayTest, AQuietDiskHasDoneThemAndTakesNothingNew) {
  take_over_without_a_volume();
  be_quiet();
  EXPECT_FALSE(ended);
  device->set_target(&disk);
  sleep(200ms);
  EXPECT_TRUE(ended && whole);
  EXPECT_EQ(driver.ended().size(), 5u);
  device->hold(false);
  settle();
  EXPECT_EQ(driver.ended().size(), 1u);
}

TEST_F(ReplayTest, ADiskWithoutAVolumeIsNotQuiet) {
  take_over_without_a_volume();
  be_quiet();
  sleep(3s);
  EXPECT_TRUE(ended);
  EXPECT_FALSE(whole);
  device->set_target(&disk);
  settle();
  EXPECT_TRUE(driver.ended().empty()) << "it is held still";
  device->hold(false);
  settle();
  EXPECT_EQ(driver.ended().size(), 6u);
}

TEST_F(VhostTest, AVolumeThatGoesAwayLeavesRequestsInFlight) {
  area = *Inflight::create(1, driver.entries);
  device->set_inflight(area);
  start();
  disk.fail = Status(Code::closed_session, "taken over");
  driver.submit(kIn, 0, {{Driver::kData, 4096}}, true);
  device->kick(0);
  settle();
  EXPECT_TRUE(driver.ended().empty());
  EXPECT_EQ(device->in_flight(), 0u);
  EXPECT_EQ(area->recover(0, 0), (std::vector<std::uint16_t>{driver.owned.begin()->first}));
}

// The same process takes it again, while the rings run: a guest waited for these for ever.
// Requirement: DWR-26 switch=abandoned-requests-forgotten
TEST_F(VhostTest, WhatALostVolumeHasNotDoneIsDoneWhenItIsTakenAgain) {
  area = *Inflight::create(1, driver.entries);
  device->set_inflight(area);
  start();
  disk.late = true;
  disk.fail = Status(Code::closed_session, "taken over");
  for (int i = 0; i < 5; ++i) driver.submit(kIn, 8, {{Driver::kData, 4096}}, true);
  device->kick(0);
  disk.answer_all();
  settle();
  driver.submit(kIn, 8, {{Driver::kData, 4096}}, true);
  device->kick(0);
  settle();
  EXPECT_EQ(disk.waiting(), 0u) << "a volume that has gone is asked again and again";
  device->set_target(nullptr);
  disk.fail = Status(), disk.late = false;
  device->set_target(&disk);
  settle();
  EXPECT_EQ(driver.ended().size(), 6u);
  EXPECT_TRUE(area->recover(0, 6).empty());
}

// An answer of the one before, when there is another already.
TEST_F(VhostTest, WhatALostVolumeAnswersLateIsDoneByTheNext) {
  start();
  disk.late = true;
  disk.fail = Status(Code::closed_session, "taken over");
  driver.submit(kIn, 8, {{Driver::kData, 4096}}, true);
  device->kick(0);
  MemoryDisk next(world(), kDisk);
  device->set_target(&next);
  disk.answer_all();
  settle();
  EXPECT_EQ(driver.ended().size(), 1u);
}

TEST_F(ReplayTest, AQuietDiskHasDoneWhatALostVolumeHasNot) {
  start();
  disk.late = true;
  disk.fail = Status(Code::closed_session, "taken over");
  driver.submit(kIn, 8, {{Driver::kData, 4096}}, true);
  device->kick(0);
  device->set_target(nullptr);
  disk.answer_all();
  settle();
  be_quiet();
  EXPECT_FALSE(ended) << "the stop after it would give an index behind the request";
  disk.fail = Status(), disk.late = false;
  device->set_target(&disk);
  sleep(200ms);
  EXPECT_TRUE(ended && whole);
  EXPECT_EQ(driver.ended().size(), 1u);
}

// ---- hostile guests ----

TEST_F(VhostTest, RingsThatCannotBeAreRefused) {
  for (auto change : std::vector<std::function<void(Vring::Place&)>>{
           [](auto& p) { p.entries = 0; }, [](auto& p) { p.entries = 3; }, [](auto& p) { p.entries = 1 << 16; }, [](auto& p) { p.used = Driver::kMemory - 8; },
           [](auto& p) { p.descriptors = ~0ull - 15; }, [](auto& p) { p.available = 1; }, [](auto& p) { p.used += 2; }, [](auto& p) { p.available = ~0ull - 1; }}) {
    Vring::Place p = driver.place;
    change(p);
    EXPECT_FALSE(device->start(0, p, 0).ok());
    EXPECT_FALSE(device->started(0));
  }
}

// The size of a ring is the guest's to choose, that of the area its front end's.
TEST_F(VhostTest, ARingLargerThanItsInflightAreaIsRefused) {
  area = *Inflight::create(1, driver.entries / 2);
  device->set_inflight(area);
  EXPECT_EQ(device->start(0, driver.place, 0).code(), Code::invalid);
  EXPECT_FALSE(device->started(0));
  device->set_inflight(*Inflight::create(1, driver.entries));
  start();
}

TEST_F(VhostTest, AnInflightAreaIsNotWrittenBeyondItsEnd) {
  constexpr std::uint64_t kPlace = 4096;
  io::Descriptor fd(::memfd_create("areas", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(::ftruncate(fd.get(), 1 << 20), 0);
  ASSERT_EQ(::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK), 0);
  const std::uint64_t bytes = Inflight::bytes_for(1, 16);
  area = *Inflight::map(fd.get(), kPlace, bytes, 1, 16);
  EXPECT_TRUE(area->recover(0, 0).empty());
  const std::vector<std::uint16_t> beyond{16, 40, 0x7fff, 0xffff};
  for (std::uint16_t h : beyond) area->taken(0, h), area->taken(1, h);
  area->ending(0, beyond), area->ending(1, beyond);
  area->ended(0, beyond, 0), area->ended(1, beyond, 0);
  std::vector<std::byte> all(1 << 20);
  ASSERT_EQ(::pread(fd.get(), all.data(), all.size(), 0), 1 << 20);
  EXPECT_TRUE(all_zero(std::span(all).subspan(kPlace + bytes)));
  EXPECT_TRUE(area->recover(0, 0).empty());
}

TEST_F(VhostTest, AHeadThatIsNotThere) {
  start();
  driver.available(static_cast<std::uint16_t>(driver.entries));
  expect_stopped();
}

TEST_F(VhostTest, AnAvailableIndexThatJumps) {
  start();
  driver.put<std::uint16_t>(driver.place.available + 2, static_cast<std::uint16_t>(driver.entries + 1));
  expect_stopped();
}

TEST_F(VhostTest, AChainThatIsALoop) {
  start();
  driver.put(driver.place.descriptors, Driver::Descriptor{Driver::kData, 16, 1, 1});
  driver.put(driver.place.descriptors + 16, Driver::Descriptor{Driver::kData, 16, 1, 0});
  driver.available(0);
  expect_stopped();
}

TEST_F(VhostTest, AnIndirectTableThatIsALoopOrNested) {
  for (std::uint16_t flags : {std::uint16_t{1}, std::uint16_t{4}}) {
    start();
    driver.put(driver.place.descriptors, Driver::Descriptor{Driver::kTables, 32, 4, 0});
    driver.put(Driver::kTables, Driver::Descriptor{Driver::kData, 16, flags, 0});
    driver.put(Driver::kTables + 16, Driver::Descriptor{Driver::kData, 16, 1, 0});
    driver.available(0);
    expect_stopped();
    device->mend();
    sim.run(node, [](VirtioBlk& d) -> io::Task<void> { co_await d.drain(0); }(*device), 10s);
    driver.put<std::uint16_t>(driver.place.available + 2, 0), driver.next = 0;
  }
}

TEST_F(VhostTest, DescriptorsOutsideMemory) {
  std::vector<std::pair<std::uint64_t, std::uint32_t>> bad{{Driver::kMemory - 8, 16}, {~0ull - 7, 16}, {Driver::kMemory, 1}, {1ull << 62, 4096}, {0, 0xffffffff}};
  for (auto& piece : bad) {
    start();
    driver.submit(kOut, 0, {piece}, false);
    expect_stopped();
    device->mend();
    sim.run(node, [](VirtioBlk& d) -> io::Task<void> { co_await d.drain(0); }(*device), 10s);
    driver.put<std::uint16_t>(driver.place.available + 2, 0), driver.next = 0;
  }
}

TEST_F(VhostTest, ARequestWithoutHeaderOrStatus) {
  start();
  driver.put(driver.place.descriptors, Driver::Descriptor{Driver::kData, 8, 0, 0});
  driver.available(0);
  expect_stopped();
}

TEST_F(VhostTest, AReadableDescriptorBehindAWritableOne) {
  start();
  driver.put(driver.place.descriptors, Driver::Descriptor{Driver::kData, 16, 1 | 2, 1});
  driver.put(driver.place.descriptors + 16, Driver::Descriptor{Driver::kData, 16, 0, 0});
  driver.available(0);
  expect_stopped();
}

TEST_F(VhostTest, MemoryThatIsTakenAway) {
  start();
  driver.submit(kIn, 0, {{Driver::kData, 4096}}, true);
  device->kick(0);
  settle();
  EXPECT_EQ(driver.ended().size(), 1u);
  driver.submit(kIn, 0, {{Driver::kData, 4096}}, true);
  ASSERT_EQ(::ftruncate(driver.fd, Driver::kData), 0);
  device->kick(0);  // this one is written where nobody sees it
  settle();
  driver.submit(kIn, 0, {{Driver::kData, 4096}}, true);
  device->kick(0);
  settle();
  EXPECT_TRUE(device->broken());
}

TEST_F(VhostTest, AHeadThatIsInUse) {
  start();
  disk.late = true;
  std::uint16_t head = driver.submit(kIn, 0, {{Driver::kData, 512}}, true);
  driver.available(head);
  expect_stopped();
  disk.answer_all();
  settle();
}

}  // namespace
}  // namespace luge::attach
