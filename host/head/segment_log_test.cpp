// The log portion under power cuts, rot and recycling.
#include "head/segment_log.hpp"

#include <gtest/gtest.h>

#include "base/crc32c.hpp"
#include "sim/cluster/simulation.hpp"
#include "switches/switches.hpp"

namespace luge::head {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t kSegment = 256 << 10;

RecordPtr data_record(Lsn lsn, std::uint32_t blocks, std::uint8_t fill) {
  Buffer payload = Buffer::allocate(blocks * kBlockBytes);
  std::memset(payload.data(), fill, payload.size());
  std::vector<std::uint32_t> crcs;
  crc32c_blocks(payload.bytes(), crcs);
  std::string body(reinterpret_cast<const char*>(crcs.data()), crcs.size() * 4);
  return make_record(1, {1, lsn}, RecordKind::data, lsn * 8, blocks, {}, std::move(body), std::move(payload));
}

// One incarnation of a log on a simulated disk.
struct Daemon {
  explicit Daemon(io::World& w) : world(w) {}
  io::Task<void> open(std::uint64_t bytes, std::uint64_t most, Status& opened) {
    auto file = co_await world.files().open("meta", {.create = true, .size = 1 << 20});
    LUGE_CHECK(file.ok());
    meta_file = std::move(*file);
    auto store = co_await io::MetaStore::open(world, *meta_file, 0, 1 << 20);
    LUGE_CHECK(store.ok());
    meta = std::move(*store);
    log = std::make_unique<SegmentLog>(world, *meta, order, SegmentLog::Options{most == 0 ? Portion::data : Portion::meta, "log", bytes, kSegment, 7, most, kSegment});
    auto r = co_await log->open();
    opened = r.status();
    if (!r.ok()) co_return;
    recovery = std::move(*r);
    log->on_durable = [this](const std::vector<RecordPtr>& batch) {
      for (const RecordPtr& r : batch) durable.push_back(r);
    };
    log->start();
  }
  std::vector<Lsn> recovered() const {
    std::vector<Lsn> out;
    for (const RecoveredBatch& b : recovery.batches)
      for (const RecordPtr& r : b.records) out.push_back(r->lsn());
    return out;
  }
  io::World& world;
  std::uint64_t order = 1;
  std::unique_ptr<io::BlockFile> meta_file;
  std::unique_ptr<io::MetaStore> meta;
  std::unique_ptr<SegmentLog> log;
  SegmentLog::Recovery recovery;
  std::vector<RecordPtr> durable;
};

struct Bench {
  explicit Bench(std::uint64_t seed, std::uint64_t log_bytes = 16 * kSegment, std::uint64_t may_grow_to = 0) : sim(seed), bytes(log_bytes), most(may_grow_to) {
    node = sim.add_node("log", [this](io::World& w) {
      daemon = std::make_shared<Daemon>(w);
      return daemon;
    });
    open();
  }
  void open() {
    Status s = try_to_open();
    LUGE_CHECK(s.ok());
  }
  Status try_to_open() {
    auto d = daemon;
    Status s;
    sim.run(node, d->open(bytes, most, s));
    return s;
  }
  void power_cut() {
    daemon.reset();
    sim.crash(node, sim::Crash::power);
    sim.restart(node);
  }
  void reboot() {
    power_cut();
    open();
  }
  std::uint64_t file_bytes() { return sim.disk(node).file("log")->size; }
  sim::Simulation sim;
  std::uint64_t bytes, most;
  sim::Node node;
  std::shared_ptr<Daemon> daemon;
};

TEST(SegmentLog, WhatIsDurableIsThereAfterAPowerCut) {
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    Bench b(seed);
    for (Lsn l = 1; l <= 40; ++l) b.daemon->log->append(data_record(l, 1 + l % 5, static_cast<std::uint8_t>(l)));
    b.sim.run_for(std::chrono::microseconds(200 + seed * 37));
    std::size_t acknowledged = b.daemon->durable.size();
    b.reboot();
    std::vector<Lsn> got = b.daemon->recovered();
    ASSERT_TRUE(b.daemon->recovery.damage.empty()) << "seed " << seed << ": " << b.daemon->recovery.why;
    ASSERT_GE(got.size(), acknowledged) << "seed " << seed;
    for (std::size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], i + 1) << "seed " << seed;
  }
}

// A disk that fails to read is not one that has lost something: the head starts later, and none of its replicas is suspect.
TEST(SegmentLog, AFailedReadDuringRecoveryIsNoRot) {
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    Bench b(seed);
    for (Lsn l = 1; l <= 40; ++l) b.daemon->log->append(data_record(l, 1 + l % 5, static_cast<std::uint8_t>(l)));
    b.sim.run_for(std::chrono::microseconds(200 + seed * 37));
    std::size_t acknowledged = b.daemon->durable.size();
    b.sim.disk(b.node).faults_of["log"].read_error = 0.5;
    b.power_cut();
    int refused = 0;
    for (; !b.try_to_open().ok(); ++refused) b.power_cut();
    ASSERT_TRUE(b.daemon->recovery.damage.empty()) << "seed " << seed << " after " << refused << " refusals: " << b.daemon->recovery.why;
    ASSERT_GE(b.daemon->recovered().size(), acknowledged) << "seed " << seed;
  }
}

// A power cut: no damage, all that was durable is there, without a gap. `next`: the LSN to go on with.
void reboot_losing_nothing(Bench& b, Lsn& next, Lsn& acknowledged) {
  if (!b.daemon->durable.empty()) acknowledged = b.daemon->durable.back()->lsn();
  b.reboot();
  std::vector<Lsn> got = b.daemon->recovered();
  ASSERT_TRUE(b.daemon->recovery.damage.empty()) << b.daemon->recovery.why;
  ASSERT_GE(got.size(), acknowledged);
  for (std::size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], i + 1);
  next = got.size() + 1;
}

// Requirement: P-10.3 switch=full-store-fails-log
TEST(SegmentLog, WaitsWhileTheStoreOfItsTableIsFull) {
  Bench b(1);
  io::MetaStore& meta = *b.daemon->meta;
  int keys = 0;
  b.sim.run(b.node, [](io::MetaStore& store, int& n) -> io::Task<void> {
    while ((co_await store.put("filler/" + std::to_string(n), std::string(8 << 10, 'x'))).ok()) ++n;
    for (int left = 0; (co_await store.put("little/" + std::to_string(left), "x")).ok();) ++left;
  }(meta, keys));
  b.daemon->log->append(data_record(1, 4, 1));
  b.sim.run_for(5s);
  EXPECT_FALSE(b.daemon->log->failed());
  EXPECT_TRUE(b.daemon->durable.empty());
  b.sim.run(b.node, [](io::MetaStore& store) -> io::Task<void> {
    Status s = co_await store.put(std::vector<io::MetaStore::Change>{{"filler/0", std::nullopt}});
    LUGE_CHECK(s.ok());
  }(meta));
  b.sim.run_for(2s);
  EXPECT_EQ(b.daemon->durable.size(), 1u);
}

// Nothing of it is released in between: more starts than there are segments, each cut off while it writes.
TEST(SegmentLog, MoreStartsThanSegmentsUseNoneUp) {
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    Bench b(seed, 8 * kSegment);
    Lsn next = 1, acknowledged = 0;
    for (int start = 0; start < 40; ++start) {
      for (int i = 0; i < 3; ++i) b.daemon->log->append(data_record(next + static_cast<Lsn>(i), 2, static_cast<std::uint8_t>(start)));
      b.sim.run_for(start % 4 == 3 ? io::Duration(50ms) : std::chrono::microseconds(20 + (seed * 131 + static_cast<std::uint64_t>(start) * 37) % 400));
      ASSERT_NO_FATAL_FAILURE(reboot_losing_nothing(b, next, acknowledged)) << "seed " << seed << " start " << start;
    }
    ASSERT_GE(acknowledged, 30u) << "seed " << seed;
  }
}

// All that was in it becomes superfluous just while the log makes ready to go on there.
TEST(SegmentLog, TheSegmentThatTheLogGoesOnInIsNotFreedMeanwhile) {
  for (unsigned wait = 0; wait < 400; wait += 20) {
    Bench b(5, 4 * kSegment);
    Lsn lsn = 1;
    for (; lsn <= 60; ++lsn) {
      b.daemon->log->append(data_record(lsn, 2, 1));
      b.sim.run_for(2ms);
    }
    b.reboot();
    ASSERT_EQ(b.daemon->recovered().size(), 60u);
    b.daemon->log->append(data_record(lsn++, 2, 2));
    b.sim.run_for(std::chrono::microseconds(wait));
    for (const RecoveredBatch& batch : b.daemon->recovery.batches)
      for (const RecordPtr& r : batch.records) b.daemon->log->release(r->position.segment);
    for (; lsn <= 160; ++lsn) {
      b.daemon->log->append(data_record(lsn, 2, 3));
      b.sim.run_for(2ms);
      while (b.daemon->durable.size() > 45) {  // never that which came first
        b.daemon->log->release(b.daemon->durable[1]->position.segment);
        b.daemon->durable.erase(b.daemon->durable.begin() + 1);
      }
    }
    b.reboot();
    std::vector<Lsn> got = b.daemon->recovered();
    EXPECT_NE(std::find(got.begin(), got.end(), 61u), got.end()) << wait << " us";
    EXPECT_TRUE(b.daemon->recovery.damage.empty()) << wait << " us: " << b.daemon->recovery.why;
  }
}

// Nothing is given back: cut off at any moment of growing, it has all that was durable, and goes on.
// Requirement: P-10.3 switch=log-never-grows
TEST(SegmentLog, APortionGrowsWhenNoSegmentIsFree) {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    Bench b(seed, 4 * kSegment, 64 * kSegment);
    Lsn next = 1, acknowledged = 0;
    for (int start = 0; start < 8; ++start) {
      for (int i = 0; i < 60; ++i) b.daemon->log->append(data_record(next + static_cast<Lsn>(i), 8, static_cast<std::uint8_t>(start)));
      b.sim.run_for(start % 4 == 3 ? io::Duration(2s) : std::chrono::microseconds(1000 + (seed * 1531 + static_cast<std::uint64_t>(start) * 737) % 40000));
      ASSERT_NO_FATAL_FAILURE(reboot_losing_nothing(b, next, acknowledged)) << "seed " << seed << " start " << start;
    }
    EXPECT_GE(acknowledged, 120u) << "seed " << seed << ": more than fits what it was made with";
    EXPECT_GT(b.file_bytes(), 4 * kSegment);
    EXPECT_LE(b.file_bytes(), 64 * kSegment);
  }
}

// Batches of the same head and of a first use, where the portion will grow to: of an earlier life on a device, say.
TEST(SegmentLog, WhatStandsBeyondItsEndIsNeverReadAsPartOfIt) {
  Bench b(6, 4 * kSegment, 64 * kSegment);
  Lsn lsn = 1;
  for (; lsn <= 5; ++lsn) b.daemon->log->append(data_record(lsn, 8, 1));
  b.sim.run_for(1s);
  sim::FileState* file = b.sim.disk(b.node).file("log");
  std::vector<std::byte> old(kSegment);
  file->read(0, old);
  file->size = 8 * kSegment;
  for (std::uint64_t s = 4; s < 8; ++s) b.sim.disk(b.node).overwrite("log", s * kSegment, old);
  b.reboot();
  for (; lsn <= 40; ++lsn) {
    b.daemon->log->append(data_record(lsn, 8, 2));
    b.sim.run_for(20ms);
  }
  EXPECT_EQ(b.daemon->durable.size(), 35u);
  b.reboot();
  std::vector<Lsn> got = b.daemon->recovered();
  EXPECT_TRUE(b.daemon->recovery.damage.empty()) << b.daemon->recovery.why;
  ASSERT_EQ(got.size(), 40u);
  for (std::size_t i = 0; i < got.size(); ++i) EXPECT_EQ(got[i], i + 1);
}

// More is queued than there is room for, and what would free segments comes last.
// Requirement: MC-01, P-10.3 switch=images-wait-in-line
TEST(SegmentLog, AnImageGoesBeforeWhatWaitsForASegment) {
  Bench b(4, 8 * kSegment, 8 * kSegment);
  for (Lsn l = 1; l <= 200; ++l) b.daemon->log->append(data_record(l, 8, 1));
  b.sim.run_for(5s);
  std::vector<RecordPtr> written = b.daemon->durable;
  ASSERT_LT(written.size(), 200u);
  std::vector<RecordPtr> image;
  for (RecordKind kind : {RecordKind::image_begin, RecordKind::image_part, RecordKind::image_part, RecordKind::image_end}) {
    image.push_back(make_record(1, {1, 0}, kind, 0, 0, {}, std::string(kSegment / 5, 'i'), {}));
    b.daemon->log->append(image.back());
  }
  b.sim.run_for(5s);
  for (const RecordPtr& r : image) ASSERT_TRUE(r->durable);
  EXPECT_LT(b.daemon->durable.size(), written.size() + image.size() + kSegment / (8 * kBlockBytes)) << "the rest goes on behind the image at most";
  for (const RecordPtr& r : written) b.daemon->log->release(r->position.segment);
  b.sim.run_for(5s);
  EXPECT_GT(b.daemon->durable.size(), written.size() + image.size() + 10) << "what was freed is used";
  b.reboot();
  EXPECT_TRUE(b.daemon->recovery.damage.empty()) << b.daemon->recovery.why;
}

// None of the segments is free before all images have been written anew.
// Requirement: P-10.3 switch=images-get-a-share
TEST(SegmentLog, AsManySegmentsAreKeptAsImagesTake) {
  constexpr std::uint64_t kParts = 6, kPart = kSegment / 8 * 5;  // one fits a segment
  Bench b(4, 16 * kSegment, 16 * kSegment);
  b.daemon->log->expect_images(kParts * kPart);
  for (Lsn l = 1; l <= 400; ++l) b.daemon->log->append(data_record(l, 8, 1));
  b.sim.run_for(5s);
  std::vector<RecordPtr> image{make_record(1, {1, 0}, RecordKind::image_begin, 0, 0, {}, {}, {})};
  for (std::uint64_t i = 0; i < kParts; ++i) image.push_back(make_record(1, {1, 0}, RecordKind::image_part, 0, 0, {}, std::string(kPart, 'i'), {}));
  image.push_back(make_record(1, {1, 0}, RecordKind::image_end, 0, 0, {}, {}, {}));
  for (const RecordPtr& r : image) b.daemon->log->append(r);
  b.sim.run_for(5s);
  for (const RecordPtr& r : image) EXPECT_TRUE(r->durable);
}

// Of a small portion with large images, too, half is left to what those stand for.
TEST(SegmentLog, WhatIsKeptForImagesLeavesHalfToTheRest) {
  Bench b(4, 8 * kSegment, 8 * kSegment);
  b.daemon->log->expect_images(100 * kSegment);
  for (Lsn l = 1; l <= 400; ++l) b.daemon->log->append(data_record(l, 8, 1));
  b.sim.run_for(5s);
  EXPECT_GE(b.daemon->log->fill(), 500u);
  EXPECT_GE(b.daemon->durable.size(), 4 * kSegment / (9 * kBlockBytes));
}

// A replica that gives up what it has, or a VP that nobody has opened, has no image before that is written.
// Requirement: P-10.3
TEST(SegmentLog, WhatAnImageMayWaitForGoesOnInWhatIsKept) {
  Bench b(5, 8 * kSegment, 8 * kSegment);
  Lsn l = 0;
  do {
    b.daemon->log->append(data_record(++l, 8, 1));
    b.sim.run_for(100ms);
  } while (b.daemon->durable.size() == l);
  RecordPtr epoch = make_record(2, {2, 1}, RecordKind::epoch_start, 0, 0, {}, {}, {});
  b.daemon->log->append(epoch);
  b.sim.run_for(5s);
  EXPECT_TRUE(epoch->durable);
  b.daemon->log->append(data_record(++l, 8, 1));
  b.sim.run_for(5s);
  EXPECT_EQ(b.daemon->durable.size(), l) << "all but the last one: what is kept is for images again";
}

TEST(SegmentLog, WhatCannotGrowWaitsAndSaysWhy) {
  Bench b(3, 4 * kSegment, 64 * kSegment);
  b.sim.disk(b.node).faults.capacity = b.file_bytes() + (1 << 20);
  for (Lsn l = 1; l <= 80; ++l) b.daemon->log->append(data_record(l, 8, 1));
  b.sim.run_for(10s);
  EXPECT_NE(b.daemon->log->cannot_grow().find("No space left on device"), std::string::npos) << b.daemon->log->cannot_grow();
  EXPECT_FALSE(b.daemon->log->failed());
  EXPECT_LT(b.daemon->durable.size(), 80u);
  EXPECT_EQ(b.file_bytes() % kSegment, 0u) << "what it got of a step that failed is given back";
  b.sim.disk(b.node).faults.capacity = ~std::uint64_t{0};
  b.sim.run_for(10s);
  EXPECT_EQ(b.daemon->log->cannot_grow(), "");
  EXPECT_EQ(b.daemon->durable.size(), 80u);
}

TEST(SegmentLog, IsMadeLongerByItsConfigurationAndNeverShorter) {
  Bench b(4, 4 * kSegment);
  for (Lsn l = 1; l <= 20; ++l) b.daemon->log->append(data_record(l, 8, 1));
  b.sim.run_for(1s);
  b.bytes = 12 * kSegment;
  b.reboot();
  EXPECT_EQ(b.daemon->recovered().size(), 20u);
  EXPECT_EQ(b.file_bytes(), 12 * kSegment);
  for (Lsn l = 21; l <= 60; ++l) b.daemon->log->append(data_record(l, 8, 1));
  b.sim.run_for(1s);
  EXPECT_EQ(b.daemon->durable.size(), 40u) << "there is room for them now";
  b.bytes = 4 * kSegment;
  b.power_cut();
  EXPECT_EQ(b.try_to_open().code(), Code::invalid);
  b.bytes = 12 * kSegment;
  b.sim.disk(b.node).file("log")->size = 5 * kSegment;
  b.power_cut();
  Status s = b.try_to_open();
  EXPECT_EQ(s.code(), Code::corrupt) << s.to_string();
  EXPECT_NE(s.text().find("cut short"), std::string::npos) << s.text();
}

TEST(SegmentLog, ReadsBackWhatWasWritten) {
  Bench b(1);
  RecordPtr r = data_record(1, 3, 0x5a);
  b.daemon->log->append(r);
  b.sim.run_for(50ms);
  ASSERT_TRUE(r->durable);
  auto read = [](Daemon& d, RecordPtr r) -> io::Task<void> {
    auto got = co_await d.log->read(*r, 1, 2);
    LUGE_CHECK(got.ok());
    EXPECT_EQ(crc32c(got->bytes().first(kBlockBytes)), r->block_crc(1));
  };
  b.sim.run(b.node, read(*b.daemon, r));
}

TEST(SegmentLog, GroupsWhatIsQueuedIntoOneWrite) {
  Bench b(1);
  for (Lsn l = 1; l <= 33; ++l) b.daemon->log->append(data_record(l, 1, 1));
  b.sim.run_for(100ms);
  EXPECT_EQ(b.daemon->durable.size(), 33u);
  EXPECT_LE(b.daemon->log->batches(), 4u);
}

// The segment begun after a torn batch is drained and used again, the one with the torn batch is not: whatever later
// segments say, the batch must stay a torn tail.
TEST(SegmentLog, ATornTailStaysOneWhenTheNextSegmentHasBeenUsedAgain) {
  int torn = 0;
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    Bench b(seed, 4 * kSegment);
    b.daemon->log->append(data_record(1, 1, 1));
    b.sim.run_for(20ms);
    b.daemon->log->append(data_record(2, 5, 2));
    b.sim.run_for(60us);
    b.reboot();
    torn += b.daemon->recovery.torn_bytes != 0 && b.daemon->recovered().size() == 1;
    Lsn lsn = 3;
    for (int round = 0; round < 40; ++round) {
      for (int i = 0; i < 5; ++i) b.daemon->log->append(data_record(lsn++, 4, 3));
      b.sim.run_for(30ms);
      for (const RecordPtr& r : b.daemon->durable) b.daemon->log->release(r->position.segment);
      b.daemon->durable.clear();
    }
    b.reboot();
    bool rotten = !b.daemon->recovery.damage.empty();
    for (const RecoveredBatch& batch : b.daemon->recovery.batches)
      for (bool r : batch.rotten) rotten = rotten || r;
    EXPECT_FALSE(rotten) << "seed " << seed << ": " << b.daemon->recovery.why;
    std::vector<Lsn> got = b.daemon->recovered();
    EXPECT_NE(std::find(got.begin(), got.end(), 1u), got.end()) << "seed " << seed;
  }
  EXPECT_GT(torn, 10);
}

TEST(SegmentLog, RotInAnAcknowledgedRecordIsNotTakenForATornTail) {
  Bench b(3);
  Lsn lsn = 1;
  for (int batch = 0; batch < 5; ++batch) {
    for (int i = 0; i < 3; ++i) b.daemon->log->append(data_record(lsn++, 1, 9));
    b.sim.run_for(20ms);
  }
  std::uint64_t victim = b.daemon->durable[4]->position.offset;
  b.sim.disk(b.node).rot("log", victim + 100);  // payload of the second batch
  b.reboot();
  bool rotten = !b.daemon->recovery.damage.empty();
  for (const RecoveredBatch& batch : b.daemon->recovery.batches)
    for (bool r : batch.rotten) rotten = rotten || r;
  EXPECT_TRUE(rotten);
}

// Requirement: P-10.2
TEST(SegmentLog, RotInABatchHeaderMakesTheLogSuspect) {
  Bench b(4);
  Lsn lsn = 1;
  for (int batch = 0; batch < 5; ++batch) {
    b.daemon->log->append(data_record(lsn++, 1, 9));
    b.sim.run_for(20ms);
  }
  std::uint64_t header = b.daemon->durable[2]->position.offset - kBlockBytes;
  b.sim.disk(b.node).rot("log", header + 70);
  b.reboot();
  EXPECT_FALSE(b.daemon->recovery.damage.empty());
  std::vector<Lsn> got = b.daemon->recovered();
  EXPECT_NE(std::find(got.begin(), got.end(), 5u), got.end()) << "what is behind the damage is still read";
}

// A log that a later version has written to is left alone: what cannot be read is not taken for a torn end.
// Requirement: B-04
TEST(SegmentLog, RefusesBatchesOfAnotherVersion) {
  Bench b(6);
  b.daemon->log->append(data_record(1, 1, 9));
  b.sim.run_for(20ms);
  std::uint64_t at = b.daemon->durable[0]->position.offset - kBlockBytes;
  Buffer area = Buffer::allocate(kBlockBytes);
  auto file = b.sim.disk(b.node).file("log");
  file->read(at, area.mutable_bytes());
  BatchHeader h;
  std::memcpy(&h, area.data(), sizeof h);
  h.version = kBatchVersion + 1;
  h.crc = 0;
  std::memcpy(area.data(), &h, sizeof h);
  h.crc = crc32c(area.bytes().first(h.used_bytes));
  std::memcpy(area.data(), &h, sizeof h);
  file->write(at, area.bytes(), true);
  b.daemon.reset();
  b.sim.crash(b.node, sim::Crash::power);
  b.sim.restart(b.node);
  auto refused = [](Daemon& d) -> io::Task<void> {
    auto file = co_await d.world.files().open("meta", {});
    LUGE_CHECK(file.ok());
    auto store = co_await io::MetaStore::open(d.world, **file, 0, 1 << 20);
    LUGE_CHECK(store.ok());
    SegmentLog log(d.world, **store, d.order, SegmentLog::Options{Portion::data, "log", 16 * kSegment, kSegment, 7});
    auto r = co_await log.open();
    EXPECT_EQ(r.code(), Code::wrong_version);
    EXPECT_NE(r.status().text().find("log at offset 0"), std::string::npos) << r.status().text();
  };
  b.sim.run(b.node, refused(*b.daemon));
}

// A torn last batch is dropped at a recovery; later the segments that followed are used again. Is it rot then?
bool torn_batch_becomes_rot(std::uint64_t records_before) {
  Bench b(8, 4 * kSegment);
  Lsn lsn = 1;
  for (; lsn <= records_before + 1; ++lsn) {
    b.daemon->log->append(data_record(lsn, 2, 1));
    b.sim.run_for(10ms);
  }
  b.sim.disk(b.node).rot("log", b.daemon->durable.back()->position.offset + 100);
  b.daemon->durable.clear();
  b.reboot();
  EXPECT_EQ(b.daemon->recovered().size(), records_before);
  --lsn;
  for (int i = 0; i < 90; ++i) {
    b.daemon->log->append(data_record(lsn++, 2, 2));
    b.sim.run_for(10ms);
    while (b.daemon->durable.size() > 10) {
      b.daemon->log->release(b.daemon->durable.front()->position.segment);
      b.daemon->durable.erase(b.daemon->durable.begin());
    }
  }
  b.reboot();
  bool rot = !b.daemon->recovery.damage.empty();
  for (const RecoveredBatch& batch : b.daemon->recovery.batches) rot = rot || std::find(batch.rotten.begin(), batch.rotten.end(), true) != batch.rotten.end();
  return rot;
}

// Requirement: P-10.2 switch=torn-end-forgotten
TEST(SegmentLog, ATornEndIsNeverTakenForRot) {
  EXPECT_FALSE(torn_batch_becomes_rot(3));
  EXPECT_FALSE(torn_batch_becomes_rot(0)) << "the first batch of the segment";
}

TEST(SegmentLog, WithoutItsEndWrittenDownATornBatchIsTakenForRot) {
  set_broken(Switch::torn_end_forgotten, true);
  EXPECT_TRUE(torn_batch_becomes_rot(3));
  set_broken(Switch::torn_end_forgotten, false);
}

// Fills the log many times over; keeps the last records only.
std::vector<Lsn> recycle_and_reboot(Bench& b, bool& suspect, int rounds = 60) {
  Lsn lsn = 1;
  for (int round = 0; round < rounds; ++round) {
    for (int i = 0; i < 10; ++i) b.daemon->log->append(data_record(lsn++, 2, static_cast<std::uint8_t>(round)));
    b.sim.run_for(30ms);
    while (b.daemon->durable.size() > 20) {
      b.daemon->log->release(b.daemon->durable.front()->position.segment);
      b.daemon->durable.erase(b.daemon->durable.begin());
    }
  }
  b.reboot();
  suspect = !b.daemon->recovery.damage.empty();
  return b.daemon->recovered();
}

// Requirement: P-10.2 switch=segment-generation-unchecked
TEST(SegmentLog, RecycledSegmentsNeverReplayTheirOldContent) {
  for (int rounds = 50; rounds <= 60; ++rounds) {  // so that the log ends at different places in its segment
    Bench b(5, 4 * kSegment);
    bool suspect = false;
    std::vector<Lsn> got = recycle_and_reboot(b, suspect, rounds);
    EXPECT_FALSE(suspect) << b.daemon->recovery.why;
    ASSERT_FALSE(got.empty());
    EXPECT_EQ(got.back(), static_cast<Lsn>(rounds) * 10);
    EXPECT_TRUE(std::is_sorted(got.begin(), got.end()));
  }
}

TEST(SegmentLog, WithoutTheGenerationCheckOldContentComesBack) {
  bool noticed = false;
  for (int rounds = 50; rounds < 60; ++rounds) {  // so that the log ends at different places in its segment
    set_broken(Switch::segment_generation_unchecked, true);
    Bench b(5, 4 * kSegment);
    bool suspect = false;
    std::vector<Lsn> got = recycle_and_reboot(b, suspect, rounds);
    set_broken(Switch::segment_generation_unchecked, false);
    noticed = noticed || suspect || !std::is_sorted(got.begin(), got.end());
  }
  EXPECT_TRUE(noticed) << "the twin of the test above must see the difference";
}

}  // namespace
}  // namespace luge::head
