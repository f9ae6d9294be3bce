// Proves the promise of meta_store.hpp: after a crash at any write, torn at any sector, open() finds the state after a
// prefix of the puts that includes every one that returned ok.
#include "io/meta_store.hpp"

#include <cstring>
#include <random>

#include "base/ids.hpp"
#include "io/testing.hpp"

namespace luge::io {
namespace {

constexpr std::uint64_t kRegion = 64 << 10;
constexpr std::size_t kSector = 512;

enum class Crash { before_write, after_write, torn };

// A file in memory. At write number `crash_at` the machine dies: the write is dropped, done or torn, and every later
// call fails.
class MemoryFile final : public BlockFile {
 public:
  explicit MemoryFile(World& world, std::uint64_t bytes = kRegion) : world_(world), content(bytes) {}

  std::uint64_t size() const override { return content.size(); }

  Task<Status> read(std::uint64_t offset, MutableBytes into) override {
    co_await world_.yield();
    if (dead) co_return Status(Code::io_error, "dead");
    std::memcpy(into.data(), content.data() + offset, into.size());
    co_return Status();
  }

  Task<Status> write(std::uint64_t offset, std::span<const Bytes> parts, Durability d) override {
    co_await world_.yield();
    if (dead) co_return Status(Code::io_error, "dead");
    EXPECT_EQ(d, Durability::durable);
    bool dies = ++writes == crash_at;
    for (Bytes p : parts) {
      EXPECT_EQ(offset % kBlockBytes, 0u);
      EXPECT_EQ(p.size() % kBlockBytes, 0u);
      for (std::size_t at = 0; at < p.size(); at += kSector) {
        bool lands = !dies || crash == Crash::after_write || (crash == Crash::torn && random() % 2 == 0);
        if (lands && !lies) std::memcpy(content.data() + offset + at, p.data() + at, kSector);
      }
      offset += p.size();
    }
    dead = dies;
    co_return dies ? Status(Code::io_error, "dead") : Status();
  }

  Task<Status> sync() override { co_return Status(); }

  World& world_;
  std::vector<std::byte> content;
  int writes = 0;
  int crash_at = 0;
  Crash crash = Crash::torn;
  bool dead = false;
  bool lies = false;  // says that a write is durable and drops it
  std::mt19937 random{1};
};

using Map = std::map<std::string, std::string>;

Map content_of(const MetaStore& store) {
  Map m;
  for (auto [k, v] : store.list("")) m.emplace(k, v);
  return m;
}

Task<std::unique_ptr<MetaStore>> open_ok(World& world, BlockFile& file) {
  auto store = co_await MetaStore::open(world, file, 0, file.size());
  EXPECT_TRUE(store.ok()) << store.status().to_string();
  co_return store.ok() ? std::move(*store) : nullptr;
}

std::vector<MetaStore::Change> random_changes(std::mt19937& random) {
  std::vector<MetaStore::Change> changes;
  for (unsigned n = 1 + random() % 3; n != 0; --n) {
    std::string key = "key" + std::to_string(random() % 12);
    if (random() % 5 == 0) changes.emplace_back(key, std::nullopt);
    else changes.emplace_back(key, std::string(random() % 1800, static_cast<char>('a' + random() % 26)));
  }
  return changes;
}

void change(Map& m, const std::vector<MetaStore::Change>& changes) {
  for (auto& [k, v] : changes) {
    if (v) m[k] = *v;
    else m.erase(k);
  }
}

// Puts until the file dies; then a new program opens what is left. False: the state found is neither the one
// after the last acknowledged put nor the one with the put that was under way.
Task<bool> survives(World& world, MemoryFile& file, unsigned seed, int puts) {
  std::mt19937 random(seed);
  Map before, after;
  {
    auto opened = co_await MetaStore::open(world, file, 0, kRegion);
    if (opened.ok()) {
      for (int i = 0; i < puts; ++i) {
        auto changes = random_changes(random);
        after = before;
        change(after, changes);
        Status s = co_await (*opened)->put(changes);
        if (!s.ok()) {
          EXPECT_TRUE((*opened)->failed());
          EXPECT_EQ(content_of(**opened), before) << "a failed put is not visible";
          break;
        }
        before = after;
      }
    }
  }
  file.dead = false;
  file.crash_at = 0;
  auto again = co_await MetaStore::open(world, file, 0, kRegion);
  if (!again.ok()) co_return false;
  Map found = content_of(**again);
  if (found != before && found != after) co_return false;
  // It must also go on: what is put now is found by the next one.
  Status s = co_await (*again)->put("more", "x");
  EXPECT_TRUE(s.ok()) << s.to_string();
  found["more"] = "x";
  auto third = co_await open_ok(world, file);
  co_return third && content_of(*third) == found;
}

TEST(MetaStore, KeepsWhatWasPut) {
  testing::run([](World& world) -> Task<void> {
    MemoryFile file(world);
    {
      auto store = co_await open_ok(world, file);
      EXPECT_TRUE(content_of(*store).empty());
      Status s = co_await store->put("b", "2");
      EXPECT_TRUE(s.ok());
      std::vector<MetaStore::Change> changes;
      changes.emplace_back("a", "1");
      changes.emplace_back("ab", "3");
      changes.emplace_back("b", std::nullopt);
      s = co_await store->put(changes);
      EXPECT_TRUE(s.ok());
      EXPECT_EQ(store->get("a"), "1");
      EXPECT_FALSE(store->get("b"));
      EXPECT_EQ(store->list("a").size(), 2u);
    }
    auto store = co_await open_ok(world, file);
    EXPECT_EQ(content_of(*store), (Map{{"a", "1"}, {"ab", "3"}}));
  });
}

TEST(MetaStore, SurvivesACrashAtEveryWrite) {
  testing::run([](World& world) -> Task<void> {
    for (unsigned seed = 1; seed <= 8; ++seed) {
      for (Crash crash : {Crash::before_write, Crash::after_write, Crash::torn}) {
        for (int at = 1; at <= 60; ++at) {  // 60 writes fill a half several times
          MemoryFile file(world);
          file.random.seed(seed * 1000 + static_cast<unsigned>(at));
          file.crash = crash;
          file.crash_at = at;
          bool ok = co_await survives(world, file, seed, 70);
          EXPECT_TRUE(ok) << "seed " << seed << ", crash kind " << static_cast<int>(crash) << " at write " << at;
        }
      }
    }
  });
}

// Twin: on a medium that drops a write it has acknowledged, the same check must fail.
TEST(MetaStore, TheCrashCheckCatchesALostWrite) {
  testing::run([](World& world) -> Task<void> {
    MemoryFile file(world);
    auto store = co_await open_ok(world, file);
    Status s = co_await store->put("a", "1");
    EXPECT_TRUE(s.ok());
    file.lies = true;
    s = co_await store->put("a", "2");
    EXPECT_TRUE(s.ok());
    auto again = co_await open_ok(world, file);
    EXPECT_EQ(again->get("a"), "1") << "the check above compares with what was acknowledged: 2";
    MemoryFile other(world);
    other.lies = true;
    bool ok = co_await survives(world, other, 1, 20);
    EXPECT_FALSE(ok);
  });
}

Task<void> put_one(MetaStore& store, std::string key, int& ok) {
  Status s = co_await store.put(key, key);
  if (s.ok()) ++ok;
}

TEST(MetaStore, GroupsConcurrentPuts) {
  testing::run([](World& world) -> Task<void> {
    MemoryFile file(world);
    auto store = co_await open_ok(world, file);
    int ok = 0, writes = file.writes;
    TaskGroup group(world);
    for (int i = 0; i < 100; ++i) group.spawn("put", put_one(*store, "k" + std::to_string(i), ok));
    co_await group.join();
    EXPECT_EQ(ok, 100);
    EXPECT_LE(file.writes - writes, 3);
    auto again = co_await open_ok(world, file);
    EXPECT_EQ(content_of(*again).size(), 100u);
  });
}

TEST(MetaStore, RefusesWhatDoesNotFitAndGoesOn) {
  testing::run([](World& world) -> Task<void> {
    MemoryFile file(world);
    auto store = co_await open_ok(world, file);
    int stored = 0;
    Status s;
    while (s.ok()) {
      s = co_await store->put("k" + std::to_string(stored), std::string(1000, 'v'));
      if (s.ok()) ++stored;
    }
    EXPECT_EQ(s.code(), Code::no_space);
    EXPECT_FALSE(store->failed());
    EXPECT_GE(stored, 31);
    s = co_await store->put("k0", std::string(1000, 'w'));  // the same size fits
    EXPECT_TRUE(s.ok()) << s.to_string();
    std::vector<MetaStore::Change> changes;
    changes.emplace_back("k1", std::nullopt);
    changes.emplace_back("new", std::string(1000, 'n'));
    s = co_await store->put(changes);
    EXPECT_TRUE(s.ok()) << s.to_string();
    s = co_await store->put("huge", std::string(100000, 'x'));
    EXPECT_EQ(s.code(), Code::no_space);
    Map expected = content_of(*store);
    auto again = co_await open_ok(world, file);
    EXPECT_EQ(content_of(*again), expected);
  });
}

TEST(MetaStore, TellsRotFromATornTail) {
  testing::run([](World& world) -> Task<void> {
    MemoryFile file(world);
    auto store = co_await open_ok(world, file);
    for (int i = 0; i < 4; ++i) {
      Status s = co_await store->put("k", std::to_string(i));
      EXPECT_TRUE(s.ok());
    }
    const auto good = file.content;
    file.content[4 * 4096 + 40] ^= std::byte{1};  // the last batch: like a crash
    {
      auto again = co_await open_ok(world, file);
      EXPECT_EQ(again->get("k"), "2");
    }
    file.content = good;
    file.content[2 * 4096 + 40] ^= std::byte{1};  // one that others follow: not a crash
    auto r = co_await MetaStore::open(world, file, 0, kRegion);
    EXPECT_EQ(r.code(), Code::corrupt);
    file.content = good;
    file.content[8] ^= std::byte{1};  // the only snapshot
    r = co_await MetaStore::open(world, file, 0, kRegion);
    EXPECT_EQ(r.code(), Code::corrupt);
  });
}

TEST(MetaStore, FallsBackToTheOtherHalf) {
  testing::run([](World& world) -> Task<void> {
    MemoryFile file(world);
    auto store = co_await open_ok(world, file);
    int last = 0;  // batches of one block: the eighth does not fit in the first half of 32 KiB
    for (; last < 8; ++last) {
      Status s = co_await store->put("k", std::to_string(last));
      EXPECT_TRUE(s.ok());
    }
    auto once = co_await open_ok(world, file);
    EXPECT_EQ(once->get("k"), "7");
    auto good = file.content;
    file.content[kRegion / 2 + 8] ^= std::byte{1};  // as if the snapshot had torn
    {
      auto again = co_await open_ok(world, file);
      EXPECT_EQ(again->get("k"), "6");
    }
    file.content = good;
    Status s = co_await store->put("k", "8");  // now a batch stands behind that snapshot
    EXPECT_TRUE(s.ok());
    file.content[kRegion / 2 + 8] ^= std::byte{1};
    auto r = co_await MetaStore::open(world, file, 0, kRegion);
    EXPECT_EQ(r.code(), Code::corrupt);
  });
}

// Requirement: P-10.3
TEST(MetaStore, WhatMayBeRefusedLeavesHalfOfTheRoom) {
  testing::run([](World& world) -> Task<void> {
    MemoryFile file(world);
    auto store = co_await open_ok(world, file);
    // A burst: all of them ask before one is written.
    int taken = 0, refused = 0, ended = 0;
    for (int i = 0; i < 200; ++i)
      world.spawn("new", [](MetaStore& s, int n, int& ok, int& no, int& all) -> Task<void> {
        std::vector<MetaStore::Change> changes;
        changes.emplace_back("new/" + std::to_string(n), std::string(1000, 'v'));
        Status got = co_await s.put(std::move(changes), MetaStore::Kind::refusable);
        EXPECT_TRUE(got.ok() || got.code() == Code::no_space);
        ++(got.ok() ? ok : no), ++all;
      }(*store, i, taken, refused, ended));
    while (ended < 200) co_await world.sleep(std::chrono::milliseconds(1));
    EXPECT_GT(taken, 0);
    EXPECT_GT(refused, 0);
    int needed = 0;
    while ((co_await store->put("needed/" + std::to_string(needed), std::string(1000, 'v'))).ok()) ++needed;
    EXPECT_GE(needed, taken) << "as much again";
  });
}

TEST(MetaStore, RefusesAnotherVersionAndBadRegions) {
  testing::run([](World& world) -> Task<void> {
    MemoryFile file(world);
    for (auto [offset, bytes] : std::vector<std::pair<std::uint64_t, std::uint64_t>>{
             {1, kRegion}, {0, kRegion / 2}, {0, 2 * kRegion}, {4096, kRegion}, {0, kRegion - 4096},
             {~std::uint64_t{4095}, kRegion}}) {
      auto r = co_await MetaStore::open(world, file, offset, bytes);
      EXPECT_EQ(r.code(), Code::invalid) << offset << " " << bytes;
    }
    std::memset(file.content.data(), 0xa5, file.content.size());
    auto r = co_await MetaStore::open(world, file, 0, kRegion);
    EXPECT_EQ(r.code(), Code::corrupt);
  });
}

}  // namespace
}  // namespace luge::io
