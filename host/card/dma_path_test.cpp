// The DMA path against a reader that knows nothing but the records: its copy of guest memory, made from them alone, must equal the memory.
#include "card/dma_path.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <random>
#include <set>

#include "card/dirty_log_testing.hpp"
#include "sim/cluster/simulation.hpp"
#include "switches/switches.hpp"

namespace luge::card {
namespace {

using namespace std::chrono_literals;
using luge_card::dma_record;

constexpr std::uint64_t kBytes = 2 << 20, kHigh = 1ull << 32;  // two regions, as around the hole below 4 GiB

struct Broken {
  explicit Broken(Switch s) : which(s) { set_broken(s, true); }
  ~Broken() { set_broken(which, false); }
  Switch which;
};

// Guest memory, a path to it, and the VMC's side: a copy that follows the records.
class DmaPathTest : public ::testing::Test {
 public:
  DmaPathTest() {
    node = sim.add_node("host");
    make_memory();
    // LUGE_DMA_LOG=rtl: the Verilated kernel, of the tree that LUGE_XRT names (a build with LUGE_HLS).
    const char* kind = std::getenv("LUGE_DMA_LOG");
    auto logger = make_dma_logger(kind != nullptr ? kind : "native", "");
    if (!logger.ok()) {
      ADD_FAILURE() << logger.status().to_string();
      std::abort();
    }
    path = std::make_shared<DmaPath>(world(), std::move(*logger), 1);
    path->set_memory(memory);
    copy.assign(2 * kBytes, std::byte{0}), intended = copy;
    writer.assign(2 * kBytes, 0);
  }
  ~DmaPathTest() override {
    path.reset();
    ::close(fd);
  }
  void make_memory() {
    fd = ::memfd_create("guest", MFD_CLOEXEC);
    ASSERT_EQ(::ftruncate(fd, 2 * kBytes), 0);
    GuestRegion low{0, kBytes, 0x7f0000000000, 0, fd}, high{kHigh, kBytes, 0x7f1000000000, kBytes, fd};
    GuestRegion both[] = {high, low};
    auto m = GuestMemory::map(both);
    ASSERT_TRUE(m.ok()) << m.status().to_string();
    memory = *m;
  }
  io::World& world() { return sim.world(node); }
  std::byte* at(std::uint64_t address) { return memory->at(address, 1); }
  std::byte* copy_at(std::uint64_t address) { return copy.data() + (address >= kHigh ? kBytes + address - kHigh : address); }

  // A write of 1 byte to 20000, mostly unaligned; every third goes on where the last one ended.
  DmaTransfer& random_write() {
    std::uint64_t n = random() % 3 == 0 ? 1 + random() % 64 : 1 + random() % 20000, most = kBytes - n;
    std::uint64_t address = (random() % 2 ? kHigh : 0) + random() % most;
    if (random() % 3 == 0 && last_end % kBytes + n < kBytes) address = last_end;
    last_end = address + n;
    Buffer b = Buffer::allocate(n);
    for (std::uint64_t i = 0; i < n; ++i) b.data()[i] = static_cast<std::byte>(random());
    writes.push_back({b, {}});
    DmaTransfer& t = writes.back().transfer;
    t.parts.push_back({address, b.bytes()});
    std::size_t place = static_cast<std::size_t>(copy_at(address) - copy.data());
    std::memcpy(intended.data() + place, b.data(), b.size());
    for (std::size_t i = place; i < place + n; ++i) writer[i] = static_cast<std::uint32_t>(writes.size());
    t.done = [this, address, b, place, me = static_cast<std::uint32_t>(writes.size())] {
      ++done;
      for (std::size_t i = 0; i < b.size(); ++i)  // but where a later write has been since
        if (writer[place + i] == me) ASSERT_EQ(at(address)[i], b.data()[i]) << "done before the bytes are there";
    };
    return t;
  }
  void write(int n) {
    for (int i = 0; i < n; ++i) path->submit(random_write());
  }

  void start(RecordMode mode, unsigned slots_log2, unsigned watermark = 0) {
    Status s = path->start_recording(mode, slots_log2, watermark, [this] { ++kicks; });
    ASSERT_TRUE(s.ok()) << s.to_string();
    auto r = DmaRing::open(::dup(path->ring().fd()));
    ASSERT_TRUE(r.ok()) << r.status().to_string();
    reader = std::make_unique<DmaRingReader>(std::move(*r));
    for (std::uint64_t i = 0; i < 2 * kBytes; ++i) copy[i] = memory->at(i < kBytes ? i : kHigh + i - kBytes, 1)[0];  // the first full pass
    suspended = overflowed = false;
    pending.clear();
  }
  // Examines what there is, `most` records at most.
  int drain(int most = 1 << 30) {
    int n = 0;
    dma_record r;
    while (n < most && reader->next(r)) {
      ++n, ++records;
      if (r.kind == luge_card::DMA_WRITTEN) {
        EXPECT_EQ(r.function, 1);
        EXPECT_FALSE(suspended) << "a record behind the suspended marker";
        if (reader->ring().header().mode == 1) pending.push_back(r);
        else take(r);
      } else if (r.kind == luge_card::DMA_COMPLETED) {
        while (!pending.empty() && pending.front().sequence < r.address) take(pending.front()), pending.pop_front();
      } else if (r.kind == luge_card::DMA_OVERFLOW) {
        EXPECT_EQ(r.address, 1ull << 1);
        overflowed = true;
        for (std::uint64_t i = 0; i < kBytes; i += 4096) take({i, 4095, 1, 0, 0}), take({kHigh + i, 4095, 1, 0, 0});
      } else {
        EXPECT_EQ(r.kind, luge_card::DMA_SUSPENDED);
        EXPECT_TRUE(pending.empty());
        suspended = true;
      }
    }
    if (reader->publish()) path->doorbell();
    return n;
  }
  void take(const dma_record& r) {
    for (std::uint64_t a = r.address; a < r.address + r.last + 1ull; ++a) *copy_at(a) = *at(a);
  }
  std::size_t differing_pages() {
    std::size_t n = 0;
    for (std::uint64_t i = 0; i < 2 * kBytes; i += 4096) n += std::memcmp(copy.data() + i, at(i < kBytes ? i : kHigh + i - kBytes), 4096) != 0;
    return n;
  }
  std::size_t wrong_bytes() {
    std::size_t n = 0;
    for (std::uint64_t i = 0; i < 2 * kBytes; ++i) n += *at(i < kBytes ? i : kHigh + i - kBytes) != intended[i];
    return n;
  }
  // Quiesces, examining meanwhile.
  void quiesce() {
    sim.run(node, [](DmaPathTest& t) -> io::Task<void> {
      bool finished = false;
      t.world().spawn("suspend", [](DmaPathTest& t, bool& finished) -> io::Task<void> {
        EXPECT_TRUE(co_await t.path->suspend());
        finished = true;
      }(t, finished));
      while (!finished) {
        t.drain();
        co_await t.world().sleep(1ms);
      }
      t.drain();
    }(*this), 600s);
    EXPECT_TRUE(suspended);
  }
  void run_for(io::Duration d) {
    sim.run(node, [](io::World& w, io::Duration d) -> io::Task<void> { co_await w.sleep(d); }(world(), d), 600s);
  }

  struct Write {
    Buffer bytes;
    DmaTransfer transfer;
  };
  sim::Simulation sim{1};
  sim::Node node;
  int fd = -1;
  std::shared_ptr<GuestMemory> memory;
  std::shared_ptr<DmaPath> path;
  std::mt19937_64 random{7};
  std::deque<Write> writes;
  std::uint64_t last_end = 0;
  int done = 0, kicks = 0, records = 0;
  std::vector<std::byte> copy, intended;  // intended: all writes in their order
  std::vector<std::uint32_t> writer;      // of a byte, the last
  std::unique_ptr<DmaRingReader> reader;
  std::deque<dma_record> pending;
  bool suspended = false, overflowed = false;
};

TEST_F(DmaPathTest, WritesWithoutRecording) {
  write(200);
  EXPECT_EQ(done, 200);
  EXPECT_EQ(path->stats().bursts, 0u);
  EXPECT_EQ(path->stats().outside, 0u);
}

// The card has its own addresses above; a page of a guest there would be taken for one of its rings.
TEST_F(DmaPathTest, MemoryWhereNoProcessorReachesIsRefused) {
  int fd = ::memfd_create("far", MFD_CLOEXEC);
  ASSERT_EQ(::ftruncate(fd, 4096), 0);
  for (std::uint64_t at : {std::uint64_t{1} << 62, std::uint64_t{1} << 52, (std::uint64_t{1} << 63) + 4096}) {
    GuestRegion far{at, 4096, 0x7f0000000000, 0, fd};
    EXPECT_EQ(GuestMemory::map({&far, 1}).status().code(), Code::invalid) << at;
  }
  GuestRegion last{kGuestEnd - 4096, 4096, 0x7f0000000000, 0, fd};
  EXPECT_TRUE(GuestMemory::map({&last, 1}).ok());
  ::close(fd);
}

// A host that has none of the huge pages that the file is made of maps it all the same.
TEST_F(DmaPathTest, HugePagesThatAreNotThereEndNothing) {
  constexpr std::uint64_t kHuge = 2 << 20;
  int fd = ::memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB);
  if (fd < 0 || ::ftruncate(fd, 2 * kHuge) != 0) GTEST_SKIP() << "no such files here";
  GuestRegion r{0, 2 * kHuge, 0x7f0000000000, 0, fd};
  auto m = GuestMemory::map({&r, 1});
  ASSERT_TRUE(m.ok()) << m.status().to_string();
  for (std::uint64_t at : {std::uint64_t{5000}, kHuge + 5000}) {
    volatile std::byte* p = (*m)->at(at, 1);
    *p = std::byte{7};
    EXPECT_TRUE(*p == std::byte{7});
  }
  std::ifstream total("/proc/sys/vm/nr_hugepages");
  std::uint64_t pages = 0;
  if (total >> pages; pages == 0) EXPECT_TRUE((*m)->lost());
  ::close(fd);
}

TEST_F(DmaPathTest, AnOutsideAddressWritesNothing) {
  DmaTransfer t;
  Buffer b = Buffer::zeros(8192);
  t.parts.push_back({kBytes - 4096, b.bytes()});
  bool ended = false;
  t.done = [&] { ended = true; };
  path->submit(t);
  EXPECT_TRUE(ended);
  EXPECT_EQ(path->stats().outside, 1u);
}

// Requirement: DWR-03, DWR-04, DWR-05, DWR-11, DWR-19 switch=dma-records-lost
// Requirement: DWR-02, DWR-10 switch=dma-unrecorded
// Requirement: DWR-06, DWR-30 switch=dma-function-unrecorded
// Requirement: DWR-12 switch=dma-record-before-data
TEST_F(DmaPathTest, ACopyFromRecordsEqualsTheMemoryWhateverRingAndMode) {
  for (unsigned slots : {0u, 1u, 2u, 5u, 10u})
    for (RecordMode mode : {RecordMode::completed, RecordMode::scheduled}) {
      int before = done;
      start(mode, slots);
      for (int i = 0; i < 40; ++i) {
        write(2);
        drain(static_cast<int>(random() % 8));
        if (i % 8 == 0) run_for(1ms);
      }
      quiesce();
      EXPECT_EQ(done - before, 80);
      EXPECT_EQ(wrong_bytes(), 0u);
      EXPECT_EQ(differing_pages(), 0u) << "2^" << slots << " slots, mode " << static_cast<int>(mode);
      path->stop_recording();
      path->resume();
    }
}

// Requirement: DWR-18
TEST_F(DmaPathTest, AFullRingHoldsWritesBackAndOverflowsAfterTheLimit) {
  path->set_hold_limit(500ms);
  start(RecordMode::completed, 2);
  write(60);
  run_for(1ms);
  int early = done;
  EXPECT_LT(early, 60);
  EXPECT_TRUE(reader->ring().header().state & kRingHeld);
  run_for(400ms);
  EXPECT_EQ(done, early) << "a write passed without a slot";
  EXPECT_FALSE(reader->ring().header().state & kRingOverflow);
  run_for(300ms);
  EXPECT_EQ(done, 60) << "the guest is held for ever";
  EXPECT_TRUE(reader->ring().header().state & kRingOverflow);
  EXPECT_GT(kicks, 0);
  quiesce();
  EXPECT_TRUE(overflowed);
  EXPECT_EQ(differing_pages(), 0u);
}

TEST_F(DmaPathTest, AReaderThatFallsBehindHoldsWritesAndLosesNothing) {
  start(RecordMode::completed, 3);
  write(60);
  run_for(1ms);
  EXPECT_LT(done, 60);
  for (int i = 0; i < 3000 && done < 60; ++i) {
    run_for(1ms);
    drain(1);
  }
  EXPECT_EQ(done, 60);
  EXPECT_GT(path->stats().holds, 0u);
  quiesce();
  EXPECT_FALSE(overflowed);
  EXPECT_EQ(differing_pages(), 0u);
}

// Requirement: DWR-27
TEST_F(DmaPathTest, EndingTheRecordingLetsWritesGo) {
  start(RecordMode::completed, 1);
  write(30);
  run_for(1ms);
  EXPECT_LT(done, 30);
  path->stop_recording();
  EXPECT_EQ(done, 30);
  EXPECT_FALSE(reader->ring().header().state & kRingRecording);
  for (auto& w : writes) EXPECT_EQ(w.transfer.parts.size(), 1u);
  write(10);
  EXPECT_EQ(done, 40);
}

TEST_F(DmaPathTest, RecordsAreFew) {
  start(RecordMode::completed, 10);
  Buffer b = Buffer::zeros(64 << 10);
  DmaTransfer t;
  t.parts.push_back({64 << 10, b.bytes()});
  t.done = [] {};
  path->submit(t);
  run_for(1ms);
  EXPECT_EQ(drain(), 1);  // contiguous, in one block
  DmaTransfer scattered;
  for (std::uint64_t i = 0; i < 16; ++i) scattered.parts.push_back({(2 * i) << 12, b.bytes().subspan(i << 12, 4096)});
  scattered.done = [] {};
  path->submit(scattered);
  run_for(1ms);
  EXPECT_EQ(drain(), 16);
}

// Requirement: DWR-21
TEST_F(DmaPathTest, ADirtyLogGetsEveryPageTouched) {
  card::testing::Log log(kHigh + kBytes);
  path->set_dirty_log(log.map());
  for (bool with_ring : {false, true}) {
    if (with_ring) start(RecordMode::scheduled, 10);
    log.clear();
    std::size_t first = writes.size();
    write(30);
    sim.run(node, [](DmaPath& p) -> io::Task<void> { EXPECT_TRUE(co_await p.suspend()); }(*path), 10s);
    std::set<std::uint64_t> expected, marked;
    for (std::size_t i = first; i < writes.size(); ++i)
      for (auto& p : writes[i].transfer.parts)
        for (std::uint64_t page = p.address / 4096; page <= (p.address + p.bytes.size() - 1) / 4096; ++page) expected.insert(page);
    for (std::uint64_t page = 0; page < log.bytes * 8; ++page)
      if (log.has(page)) marked.insert(page);
    EXPECT_EQ(marked, expected);
    path->resume();
  }
}

// A reader that goes away in the middle takes no record along that the dirty log is to have.
// Requirement: DWR-21
TEST_F(DmaPathTest, ADirtyLogKeepsWhatWasOpenWhenTheRecordingEnded) {
  card::testing::Log log(kHigh + kBytes);
  path->set_dirty_log(log.map());
  start(RecordMode::completed, 10);
  const std::byte byte{1};
  DmaTransfer t;
  t.parts.push_back({5 * 4096, Bytes(&byte, 1)});
  bool done = false;
  t.done = [&] { done = true; };
  path->submit(t);
  world().post([&] { path->stop_recording(); });  // behind the write, before the turn in which its record would have left
  sim.run(node, [](io::World& w) -> io::Task<void> { co_await w.sleep(1ms); }(world()), 10s);
  EXPECT_TRUE(done);
  EXPECT_TRUE(log.has(5));
}

// Requirement: DWR-18 switch=dma-overflow-ignored
TEST_F(DmaPathTest, AnOverflowMarksAllOfTheDirtyLog) {
  card::testing::Log log(kHigh + kBytes);
  path->set_hold_limit(10ms);
  start(RecordMode::completed, 1);
  path->set_dirty_log(log.map());
  write(30);
  run_for(100ms);
  EXPECT_EQ(done, 30);
  quiesce();
  EXPECT_TRUE(overflowed);
  for (std::uint64_t page = 0; page < kBytes / 4096; ++page)
    for (std::uint64_t p : {page, kHigh / 4096 + page}) ASSERT_TRUE(log.has(p)) << "page " << p;
}

TEST_F(DmaPathTest, AThrottleSlowsWrites) {
  path->throttle(1 << 20);
  std::uint64_t bytes = 0;
  while (bytes < 512 << 10) {
    DmaTransfer& t = random_write();
    bytes += t.parts[0].bytes.size();
    path->submit(t);
  }
  run_for(250ms);
  EXPECT_FALSE(path->idle());
  run_for(500ms);
  EXPECT_TRUE(path->idle());
}

TEST_F(DmaPathTest, AFileThatShrinksDoesNotEndTheProcess) {
  ASSERT_EQ(::ftruncate(fd, 4096), 0);
  write(20);
  EXPECT_EQ(done, 20);
  EXPECT_TRUE(memory->lost());
}

// Every control differs where it must.
TEST_F(DmaPathTest, WithoutRecordsTheCopyDiffers) {
  {
    Broken b(Switch::dma_unrecorded);
    start(RecordMode::completed, 10);
  }
  write(20);
  quiesce();
  EXPECT_GT(differing_pages(), 20u);
}

TEST_F(DmaPathTest, WithLostRecordsTheCopyDiffers) {
  Broken b(Switch::dma_records_lost);
  start(RecordMode::completed, 15);
  write(300);
  quiesce();
  EXPECT_GT(differing_pages(), 0u);
}

TEST_F(DmaPathTest, WithOneRangeUnrecordedExactlyItsPagesDiffer) {
  Broken b(Switch::dma_range_unrecorded);
  start(RecordMode::completed, 16);
  write(2000);
  quiesce();
  EXPECT_GT(differing_pages(), 0u);
  std::set<std::uint64_t> blocks;
  for (std::uint64_t i = 0; i < 2 * kBytes; i += 4096)
    if (std::memcmp(copy.data() + i, at(i < kBytes ? i : kHigh + i - kBytes), 4096) != 0) blocks.insert(i >> 16);
  EXPECT_EQ(blocks.size(), 1u);
}

TEST_F(DmaPathTest, DataBehindItsRecordIsMissed) {
  Broken b(Switch::dma_record_before_data);
  start(RecordMode::completed, 10);
  DmaTransfer& t = random_write();
  bool ended = false;
  t.done = [&] { ended = true; };
  path->submit(t);
  run_for(10ms);
  EXPECT_GT(drain(), 0);
  EXPECT_FALSE(ended);
  run_for(200ms);
  EXPECT_TRUE(ended);
  EXPECT_EQ(drain(), 0);
  EXPECT_GT(differing_pages(), 0u);
}

}  // namespace
}  // namespace luge::card
