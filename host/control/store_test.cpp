// Everything is run against both stores; what only SQLite can do wrong follows.
#include "control/sqlite_store.hpp"

#include <gtest/gtest.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

namespace luge::control {
namespace {

namespace fs = std::filesystem;

constexpr VpId kVp = make_vp(1, 0);

Designation first_designation() {
  Designation d;
  d.vp = kVp;
  d.epoch = d.revision = 1;
  d.history = 77;
  d.primary = 11;
  d.reserves = {12, 13};
  d.required = {11, 12, 13};
  d.layout = {4, 2};
  d.min_copies = 2;
  d.blocks = 1000;
  return d;
}

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string pattern = (fs::temp_directory_path() / "luge-store-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~TemporaryDirectory() { fs::remove_all(path_); }
  std::string file(const std::string& name) const { return (path_ / name).string(); }

 private:
  fs::path path_;
};

enum class Kind { memory, sqlite };

class StoreTest : public testing::TestWithParam<Kind> {
 protected:
  StoreTest() { reopen(); }

  // As a new incarnation of the control plane would find it.
  void reopen() {
    store_.reset();
    if (GetParam() == Kind::memory) {
      store_ = std::make_unique<MemoryStore>(image_);
      return;
    }
    auto opened = SqliteStore::open(directory_.file("control.db"), {42, 7});
    ASSERT_TRUE(opened.ok()) << opened.status().to_string();
    store_ = std::move(*opened);
  }

  void add_volume() {
    Change c;
    c.volumes.push_back({1, "v", 1000 * 4096, 1ull << 36, {4, 2}, 3, false});
    c.attachments.push_back({1, 0, 0});
    c.designations.push_back(first_designation());
    c.swaps.push_back({kVp, 0});
    c.sandboxes = {{kVp, 101, 0, 3}, {kVp, 102, 1, 4}};
    ASSERT_TRUE(store_->commit(c).ok());
  }

  Designation stored() { return store_->image().designations.at(kVp); }

  TemporaryDirectory directory_;
  std::shared_ptr<Image> image_ = MemoryStore::make_image(42, 7);
  std::unique_ptr<Store> store_;
};

TEST_P(StoreTest, KeepsEverythingOverAReopen) {
  add_volume();
  Change c;
  c.exports.push_back({1, 901, "unix:/run/x", true});
  c.attachments.push_back({1, 5, 901});
  c.nodes.push_back({11, "head-1", "head", "unix:/run/h1"});
  c.removals = {{kVp, 12, 3}, {kVp, 13, 3}};
  ASSERT_TRUE(store_->commit(c).ok());
  Image before = store_->image();
  reopen();
  const Image& after = store_->image();
  EXPECT_EQ(after.unit, 42u);
  EXPECT_EQ(after.incarnation, 7u);
  EXPECT_EQ(after.volumes, before.volumes);
  EXPECT_EQ(after.designations, before.designations);
  EXPECT_EQ(after.attachments, before.attachments);
  EXPECT_EQ(after.exports, before.exports);
  EXPECT_EQ(after.nodes, before.nodes);
  EXPECT_EQ(after.removals, before.removals);
  EXPECT_EQ(after.sandboxes, before.sandboxes);
}

TEST_P(StoreTest, VolumeIdsAreNeverReused) {
  EXPECT_EQ(*store_->take_volume_id(), 1u);
  EXPECT_EQ(*store_->take_volume_id(), 2u);
  reopen();
  EXPECT_EQ(*store_->take_volume_id(), 3u);
}

TEST_P(StoreTest, ErasingAVolumeErasesWhatHangsOnIt) {
  add_volume();
  Change c;
  c.erase_volumes.push_back(1);
  c.erase_designations.push_back(kVp);
  c.erase_sandboxes.push_back(kVp);
  ASSERT_TRUE(store_->commit(c).ok());
  for (int pass = 0; pass < 2; ++pass) {
    EXPECT_TRUE(store_->image().volumes.empty());
    EXPECT_TRUE(store_->image().attachments.empty());
    EXPECT_TRUE(store_->image().designations.empty());
    EXPECT_TRUE(store_->image().sandboxes.empty());
    reopen();
  }
}

TEST_P(StoreTest, ErasingSandboxesSparesTheNextVp) {
  Change c;
  c.sandboxes = {{kVp, 101, 0, 3}, {kVp + 1, 101, 0, 4}};
  ASSERT_TRUE(store_->commit(c).ok());
  Change erase;
  erase.erase_sandboxes.push_back(kVp);
  ASSERT_TRUE(store_->commit(erase).ok());
  EXPECT_EQ(store_->image().sandboxes, (Sandboxes{{kVp + 1, 101, 0, 4}}));
}

TEST_P(StoreTest, ASwapThatLosesAnswersWhatIsStored) {
  add_volume();
  Designation a = first_designation();
  a.revision = 2;
  a.required = {11, 12};
  ASSERT_TRUE(store_->propose(11, 1, a).status.ok());
  Designation b = a;
  b.required = {11, 13};
  SwapAnswer answer = store_->propose(11, 1, b);
  EXPECT_EQ(answer.status.code(), Code::conflict);
  EXPECT_EQ(*answer.current, a);
  reopen();
  EXPECT_EQ(stored(), a);
}

TEST_P(StoreTest, AChangeWithALostSwapChangesNothing) {
  add_volume();
  Change c;
  c.swaps.push_back({kVp, 9});
  c.volumes.push_back({2, "w", 4096, 4096, {1, 1}, 2, false});
  EXPECT_EQ(store_->commit(c).code(), Code::conflict);
  EXPECT_EQ(store_->image().volumes.size(), 1u);
  reopen();
  EXPECT_EQ(store_->image().volumes.size(), 1u);
}

// Each designation of a primary raises the epoch, and it never falls.
// Requirement: FN-07 switch=epoch-not-raised
TEST_P(StoreTest, AnotherPrimaryNeedsAHigherEpoch) {
  add_volume();
  Designation d = first_designation();
  d.revision = 2;
  d.primary = 12;
  d.reserves = {11, 13};
  d.required = {12, 13};
  EXPECT_EQ(store_->propose(12, 1, d).status.code(), Code::invalid);
  Designation handed = first_designation();
  handed.revision = 2;
  handed.primary = 12;
  handed.reserves = {11, 13};
  EXPECT_EQ(store_->propose(11, 1, handed).status.code(), Code::invalid) << "not by the word of the primary itself either";
  d.epoch = 2;
  EXPECT_TRUE(store_->propose(12, 1, d).status.ok());
  Designation back = first_designation();
  back.revision = 3;
  EXPECT_EQ(store_->propose(11, 2, back).status.code(), Code::invalid) << "a lower epoch";
  EXPECT_EQ(stored(), d);
}

// A VP grows to what its volume has been made, by its primary and within an epoch; to nothing else, and never back.
TEST_P(StoreTest, AVpGrowsAsFarAsItsVolumeHas) {
  add_volume();
  Designation d = first_designation();
  const std::uint64_t blocks = d.blocks;
  d.revision = 2;
  d.blocks = blocks + 1;
  EXPECT_EQ(store_->propose(11, 1, d).status.code(), Code::invalid) << "the volume has not grown";
  Volume v = store_->image().volumes.begin()->second;
  v.bytes += kBlockBytes;
  v.vp_bytes = std::max(v.vp_bytes, v.bytes);
  Change c;
  c.volumes.push_back(v);
  ASSERT_TRUE(store_->commit(c).ok());
  Designation more = d, elsewhere = d;
  more.blocks = blocks + 2;
  EXPECT_EQ(store_->propose(11, 1, more).status.code(), Code::invalid) << "further than the volume";
  elsewhere.epoch = 2;
  EXPECT_EQ(store_->propose(11, 1, elsewhere).status.code(), Code::invalid) << "with a new epoch";
  EXPECT_TRUE(store_->propose(11, 1, d).status.ok());
  Designation back = d;
  back.revision = 3;
  back.blocks = blocks;
  EXPECT_EQ(store_->propose(11, 2, back).status.code(), Code::invalid) << "smaller again";
  reopen();
  EXPECT_EQ(stored(), d);
}

// Requirement: WR-10, P-4.1
TEST_P(StoreTest, RefusesProposalsThatBreakARule) {
  add_volume();
  Change c;
  Designation base = first_designation();
  base.revision = 2;
  base.required = {11, 12};
  ASSERT_TRUE(store_->propose(11, 1, base).status.ok());
  auto refused = [&](const char* what, NodeId source, auto edit) {
    Designation d = base;
    d.revision = 3;
    edit(d);
    SwapAnswer a = store_->propose(source, 2, d);
    EXPECT_EQ(a.status.code(), Code::invalid) << what;
    EXPECT_EQ(stored(), base) << what;
  };
  auto next_epoch = [](Designation& d, NodeId primary, std::vector<NodeId> reserves) {
    d.epoch = 2;
    d.primary = primary;
    d.reserves = std::move(reserves);
  };
  refused("required below min_copies", 11, [](Designation& d) { d.required = {11}; });
  refused("required without primary", 11, [](Designation& d) { d.required = {12, 13}; });
  refused("required names a stranger", 11, [](Designation& d) { d.required = {11, 14}; });
  refused("member twice", 11, [](Designation& d) { d.reserves = {12, 12}; });
  refused("a reserve proposes within the epoch", 12, [](Designation&) {});
  refused("a stranger proposes", 14, [](Designation&) {});
  refused("the revision stays", 11, [](Designation& d) { d.revision = 2; });
  refused("the epoch is 0", 11, [](Designation& d) { d.epoch = 0; });
  refused("another history", 11, [](Designation& d) { d.history = 78; });
  refused("another layout", 11, [](Designation& d) { d.layout = {2, 1}; });
  refused("another size", 11, [](Designation& d) { d.blocks = 1; });
  refused("another min_copies", 11, [](Designation& d) { d.min_copies = 1; });
  refused("promotes a member that is not required", 13, [&](Designation& d) {
    next_epoch(d, 13, {11, 12});
    d.required = {13, 12};
  });
  refused("an epoch begins with a member that may lack writes", 12, [&](Designation& d) {
    next_epoch(d, 12, {11, 13});
    d.required = {12, 11, 13};
  });
}

// Requirement: MC-08, MC-22, P-3.2 switch=replacement-joins-at-once
TEST_P(StoreTest, AReplacementCountsOnlyLater) {
  add_volume();
  Designation base = first_designation();
  base.revision = 2;
  base.required = {11, 12};
  ASSERT_TRUE(store_->propose(11, 1, base).status.ok());
  auto proposal = [&](std::vector<NodeId> reserves, std::vector<NodeId> required) {
    Designation d = base;
    d.revision = 3;
    d.reserves = std::move(reserves);
    d.required = std::move(required);
    return d;
  };
  auto refused = [&](const char* what, Designation d) {
    EXPECT_EQ(store_->propose(11, 2, d).status.code(), Code::invalid) << what;
    EXPECT_EQ(stored(), base) << what;
  };
  refused("who is required is replaced", proposal({14, 13}, {11, 13}));
  refused("who is new is required at once", proposal({12, 14}, {11, 12, 14}));
  refused("one replica more", proposal({12, 13, 14}, {11, 12}));
  refused("one replica less", proposal({12}, {11, 12}));
  Designation other_epoch = proposal({11, 14}, {12, 11});
  other_epoch.epoch = 2;
  other_epoch.primary = 12;
  EXPECT_EQ(store_->propose(12, 2, other_epoch).status.code(), Code::invalid) << "an epoch begins with somebody new";
  Designation good = proposal({12, 14}, {11, 12});
  EXPECT_TRUE(store_->propose(11, 2, good).status.ok());
  EXPECT_EQ(stored(), good);
}

TEST_P(StoreTest, AProposalForAnUnknownVpIsNotFound) {
  EXPECT_EQ(store_->propose(11, 1, first_designation()).status.code(), Code::not_found);
}

TEST_P(StoreTest, AdoptsOnlyGreaterDesignationsOfTheSameHistory) {
  add_volume();
  Designation d = first_designation();
  d.revision = 4;
  d.required = {11, 12};
  ASSERT_TRUE(store_->adopt(d).ok());
  reopen();
  EXPECT_EQ(stored(), d);
  EXPECT_EQ(store_->adopt(d).code(), Code::conflict);
  Designation older = first_designation();
  older.revision = 3;
  EXPECT_EQ(store_->adopt(older).code(), Code::conflict);
  Designation stranger = d;
  stranger.revision = 9;
  stranger.history = 1;
  EXPECT_EQ(store_->adopt(stranger).code(), Code::diverged) << "a history begins with an epoch";
  Designation broken = d;
  broken.epoch = 9;
  broken.required = {12};
  EXPECT_EQ(store_->adopt(broken).code(), Code::invalid);
}

INSTANTIATE_TEST_SUITE_P(Both, StoreTest, testing::Values(Kind::memory, Kind::sqlite),
                         [](const auto& p) { return p.param == Kind::memory ? "Memory" : "Sqlite"; });

class SqliteTest : public testing::Test {
 protected:
  void sql(const std::string& statement) {
    sqlite3* db = nullptr;
    ASSERT_EQ(sqlite3_open(path().c_str(), &db), SQLITE_OK);
    char* message = nullptr;
    EXPECT_EQ(sqlite3_exec(db, statement.c_str(), nullptr, nullptr, &message), SQLITE_OK) << (message ? message : "");
    sqlite3_close(db);
  }
  std::string path() { return directory_.file("control.db"); }
  Result<std::unique_ptr<Store>> open(std::uint64_t unit = 0) { return SqliteStore::open(path(), {42, 7}, unit); }
  TemporaryDirectory directory_;
};

// Requirement: P-5.2
TEST_F(SqliteTest, AnOlderCopyOfTheDatabaseIsDoubted) {
  auto change = [&](Revision revision) {
    auto store = open();
    ASSERT_TRUE(store.ok()) << store.status().to_string();
    EXPECT_TRUE((*store)->image().doubted.empty());
    Designation d = first_designation();
    d.revision = revision;
    Change c;
    c.swaps.push_back({kVp, revision - 1});
    c.designations.push_back(d);
    ASSERT_TRUE((*store)->commit(c).ok());
  };
  change(1);
  std::string copy = directory_.file("copy.db");
  fs::copy_file(path(), copy);
  change(2);
  fs::remove(path());
  fs::copy_file(copy, path());
  std::uint64_t incarnation = 0;
  for (int times = 0; times < 2; ++times) {
    auto store = SqliteStore::open(path(), {42, 8}, 0);
    ASSERT_TRUE(store.ok());
    EXPECT_TRUE((*store)->doubted(kVp)) << "also after another start";
    incarnation = (*store)->image().incarnation;
    EXPECT_EQ(incarnation, 8u) << "it is another store";
    EXPECT_TRUE((*store)->image().older);
    EXPECT_FALSE((*store)->image().removed((*store)->image().next_volume - 1)) << "the later one may have had it";
    EXPECT_TRUE((*store)->image().unheard_of(make_vp(volume_of(kVp) + 5, 0)));
    EXPECT_GT((*store)->next_incarnation({1, 5ull << 32, 0}, 0), 1000ull << 32) << "the later one has given out greater ones, perhaps";
    Designation next = first_designation();
    next.revision = 2;
    next.required = {11, 12};
    EXPECT_EQ((*store)->propose(11, 1, next).status.code(), Code::unavailable);
  }
  auto store = open();
  ASSERT_TRUE(store.ok());
  ASSERT_TRUE((*store)->clear_doubt(kVp).ok());
  store = Status(Code::internal, "closed");
  store = open();
  ASSERT_TRUE(store.ok());
  EXPECT_TRUE((*store)->image().doubted.empty());
  // Taken to another machine alone, without what lies beside it.
  store = Status(Code::internal, "closed");
  fs::remove(path() + ".mark");
  store = open();
  ASSERT_TRUE(store.ok());
  EXPECT_TRUE((*store)->doubted(kVp));
}

// A disk that gives an error for a moment must not keep the control plane from starting.
TEST_F(SqliteTest, AMarkThatDoesNotReadIsReadAgain) {
  ASSERT_TRUE(open().ok());
  const std::string mark = path() + ".mark", kept = directory_.file("kept");
  fs::rename(mark, kept);
  ASSERT_EQ(::mkfifo(mark.c_str(), 0600), 0);  // it opens, and each read of a place in it fails
  std::thread heal([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    fs::rename(kept, mark);
  });
  auto store = open();
  heal.join();
  ASSERT_TRUE(store.ok()) << store.status().to_string();
  EXPECT_FALSE((*store)->image().older) << "it is the newest";
}

TEST_F(SqliteTest, AMarkThatNeverReadsIsNotTakenForNone) {
  ASSERT_TRUE(open().ok());
  fs::remove(path() + ".mark");
  ASSERT_EQ(::mkfifo((path() + ".mark").c_str(), 0600), 0);
  Status s = open().status();
  EXPECT_EQ(s.code(), Code::io_error);
  EXPECT_NE(s.text().find("control.db.mark"), std::string::npos) << s.text();
}

// Requirement: B-06
TEST_F(SqliteTest, RefusesASecondOwner) {
  auto first = open();
  ASSERT_TRUE(first.ok());
  auto second = open();
  EXPECT_EQ(second.code(), Code::exists);
  EXPECT_NE(second.status().text().find("another"), std::string::npos) << second.status().text();
}

// Requirement: B-04
TEST_F(SqliteTest, RefusesAnotherUnitVersionOrFile) {
  ASSERT_TRUE(open().ok());
  EXPECT_EQ(open(43).code(), Code::wrong_unit);
  EXPECT_TRUE(open(42).ok());
  sql("PRAGMA user_version=99");
  EXPECT_EQ(open().code(), Code::wrong_version);
  sql("PRAGMA user_version=" + std::to_string(SqliteStore::kSchemaVersion) + "; PRAGMA application_id=5");
  EXPECT_EQ(open().code(), Code::corrupt);
}

TEST_F(SqliteTest, RefusesGarbage) {
  std::ofstream(path()) << std::string(8192, 'x');
  EXPECT_EQ(open().code(), Code::corrupt);
}

TEST_F(SqliteTest, RefusesADamagedDesignation) {
  ASSERT_TRUE(open().ok());
  sql("INSERT INTO designations VALUES(65536, 1, 1, x'00ff00')");
  auto opened = open();
  EXPECT_EQ(opened.code(), Code::corrupt);
}

TEST_F(SqliteTest, AnUnwritablePlaceIsAnError) {
  auto opened = SqliteStore::open(directory_.file("not/there.db"), {42, 7});
  EXPECT_EQ(opened.code(), Code::io_error);
}

// 5.1: a full disk refuses the change, loses nothing, and the store goes on when there is room again.
// Requirement: B-07
TEST_F(SqliteTest, AFullDiskChangesNothing) {
  ASSERT_TRUE(open().ok());
  auto store = open();
  ASSERT_TRUE(store.ok());
  Change big;
  for (std::uint32_t i = 0; i < 200'000; ++i) big.sandboxes.push_back({kVp, 101, 0, i});
  // A limit on the file's size stands in for the full disk.
  struct Limit {
    Limit() { ::signal(SIGXFSZ, SIG_IGN); ::getrlimit(RLIMIT_FSIZE, &old); set(256 << 10); }
    ~Limit() { ::setrlimit(RLIMIT_FSIZE, &old); }
    void set(rlim_t bytes) { rlimit l{bytes, old.rlim_max}; ::setrlimit(RLIMIT_FSIZE, &l); }
    rlimit old;
  };
  {
    Limit limit;
    EXPECT_FALSE((*store)->commit(big).ok());
  }
  EXPECT_TRUE((*store)->image().sandboxes.empty());
  store = Status(Code::internal, "closed");
  auto again = open();
  ASSERT_TRUE(again.ok()) << again.status().to_string();
  EXPECT_TRUE((*again)->image().sandboxes.empty());
  EXPECT_TRUE((*again)->take_volume_id().ok());
}

}  // namespace
}  // namespace luge::control
