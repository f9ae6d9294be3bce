// A head whose disk gives an error, or no answer, in a whole unit: what others do without it, and what it may not conclude from that.
#include "sim/cluster/unit_fixture.hpp"

namespace luge::sim {
namespace {

class FailedDisk : public UnitTest {
 protected:
  explicit FailedDisk(std::uint32_t copies = 3) : UnitTest(copies) {}
  DiskFaults& faults(NodeId head, const char* file = "log-data") { return sim_.disk(node(head)).faults_of[file]; }
  void heal(NodeId head) { sim_.disk(node(head)).faults_of.clear(); }
  // Nothing that is asked of it returns.
  void hang(NodeId head, bool on = true) {
    for (const std::string& path : sim_.disk(node(head)).paths()) sim_.disk(node(head)).file(path)->hung = on;
  }
  // Not waited for: it is told what has become of it.
  std::shared_ptr<bool> begin_write(Lba lba, char with) {
    auto done = std::make_shared<bool>(false);
    auto task = [](VolumeClient& c, Lba lba, char with, std::shared_ptr<bool> done) -> Task<void> {
      Status s = co_await client::write(c.world, *c.volume, lba * kBlockBytes, filled(1, with));
      *done = s.ok();
    };
    sim_.world(client_node_).spawn("write", task(*client_, lba, with, done));
    return done;
  }
  std::shared_ptr<std::string> begin_read(Lba lba) {
    auto answer = std::make_shared<std::string>();
    auto task = [](VolumeClient& c, Lba lba, std::shared_ptr<std::string> answer) -> Task<void> {
      auto r = co_await client::read(c.world, *c.volume, lba * kBlockBytes, kBlockBytes);
      *answer = r.ok() ? std::string(1, static_cast<char>(r->data()[0])) : r.status().to_string();
    };
    sim_.world(client_node_).spawn("read", task(*client_, lba, answer));
    return answer;
  }
  // After a restart of all heads the payload is in no memory, and then no disk reads.
  std::shared_ptr<std::string> read_what_no_disk_reads() {
    write(0, 4, 'A');
    EXPECT_TRUE(all_required());
    std::vector<NodeId> heads = designation().members();
    power_off(heads);
    power_on(heads);
    sim_.run_for(15s);
    EXPECT_TRUE(all_required());
    for (NodeId n : heads) faults(n).read_error = 1;
    return begin_read(0);
  }
  // The disk is well again after a second; what has failed meanwhile is not.
  std::shared_ptr<bool> write_while_it_fails(NodeId head, const char* file) {
    faults(head, file).write_error = 1;
    auto done = begin_write(1, 'B');
    sim_.run_for(1s);
    heal(head);
    return done;
  }
};

// Requirement: P-3.1 switch=failed-log-answers
TEST_F(FailedDisk, AReserveWhoseLogHasFailedIsNotWaitedFor) {
  write(0, 4, 'A');
  ASSERT_TRUE(all_required());
  NodeId bad = designation().reserves[0];
  auto done = write_while_it_fails(bad, "log-data");
  sim_.run_for(5s);  // less than a disk that hangs is given
  EXPECT_TRUE(*done) << text("state") << ", " << text("reason");
  EXPECT_FALSE(designation().requires_node(bad));
  EXPECT_EQ(contents().substr(0, 5), "ABAA0");
}

// Requirement: P-3.1 switch=stuck-member-awaited
TEST_F(FailedDisk, AReserveWhoseDiskHangsIsNotWaitedFor) {
  write(0, 4, 'A');
  ASSERT_TRUE(all_required());
  NodeId bad = designation().reserves[0];
  sim_.disk(node(bad)).file("log-data")->hung = true;
  auto done = begin_write(1, 'B');
  sim_.run_for(5s);
  EXPECT_FALSE(*done) << "a disk may take its time";
  sim_.run_for(10s);
  EXPECT_TRUE(*done) << text("state") << ", " << text("reason");
  EXPECT_FALSE(designation().requires_node(bad));
  sim_.disk(node(bad)).file("log-data")->hung = false;
  EXPECT_TRUE(all_required()) << "it is taken back as soon as it answers";
}

// Requirement: P-3.5 switch=stuck-log-kept
TEST_F(FailedDisk, APrimaryWhoseDiskHangsHandsOver) {
  write(0, 4, 'A');
  ASSERT_TRUE(all_required());
  NodeId bad = designation().primary;
  hang(bad);
  auto done = begin_write(1, 'B');
  sim_.run_for(5s);
  EXPECT_FALSE(*done) << "a disk may take its time";
  sim_.run_for(25s);
  EXPECT_TRUE(*done) << text("state") << ", " << text("reason");
  EXPECT_NE(designation().primary, bad);
  EXPECT_EQ(contents().substr(0, 5), "ABAA0");
  hang(bad, false);
  EXPECT_TRUE(all_required()) << "it is taken back as soon as it answers";
}

// Requirement: P-3.3 switch=failed-member-awaited
TEST_F(FailedDisk, TheOtherReserveOpensBesideOneWhoseDiskHangs) {
  write(0, 4, 'A');
  ASSERT_TRUE(all_required());
  NodeId bad = designation().reserves[0], first = designation().primary;
  hang(bad);
  sim_.crash(node(first), Crash::power);
  auto answer = begin_read(0);
  sim_.run_for(60s);
  EXPECT_EQ(*answer, "A") << text("state") << ", " << text("reason");
  EXPECT_NE(designation().primary, bad);
}

// A primary that cannot write its metadata store could take over no change of its members any more.
TEST_F(FailedDisk, APrimaryWhoseMetadataStoreHasFailedGivesTheVolumeUp) {
  write(0, 4, 'A');
  ASSERT_TRUE(all_required());
  NodeId bad = designation().primary;
  faults(bad, "meta").write_error = 1;
  ASSERT_TRUE(unit_->control()->volumes().create({"other", 1 << 20, {2, 1}, 3}).ok());
  sim_.run_for(1s);
  heal(bad);
  auto done = begin_write(1, 'B');
  sim_.run_for(20s);
  EXPECT_TRUE(*done) << text("state") << ", " << text("reason");
  EXPECT_NE(designation().primary, bad);
  EXPECT_FALSE(designation().requires_node(bad));
}

// Requirement: P-4.6 switch=failed-read-is-loss
TEST_F(FailedDisk, AcceptedLossTakesNothingForLostThatADiskOnlyFailedToRead) {
  write(0, 4, 'A');
  ASSERT_TRUE(all_required());
  NodeId behind = designation().reserves[1], first = designation().primary, second = designation().reserves[0];
  sim_.crash(node(behind), Crash::power);
  write(8, 1, 'B');
  power_off({first, second});
  sim_.restart(node(behind));
  ASSERT_TRUE(wait_for_state("closed"));
  faults(behind).read_error = 1;
  ASSERT_TRUE(unit_->control()->volumes().accept_loss("v", name(behind), false).ok());
  sim_.run_for(6s);
  heal(behind);
  sim_.run_for(10s);
  EXPECT_EQ(contents().substr(0, 5), "AAAA0");
}

TEST_F(FailedDisk, AHeadThatIsAloneOpensWhenItsDiskReadsAgain) {
  write(0, 4, 'A');
  ASSERT_TRUE(all_required());
  NodeId alone = designation().primary;
  power_off(designation().members());
  sim_.restart(node(alone));
  ASSERT_TRUE(sim_.run_until([&] { return unit_->head(alone) != nullptr; }, 10s));
  faults(alone).read_error = 1;
  sim_.run_for(20s);
  EXPECT_FALSE(unit_->head(alone)->replica(designation().vp)->suspect) << "nothing is known to be bad";
  EXPECT_FALSE(unit_->head(alone)->digest(designation().vp)->primary_open);
  heal(alone);
  EXPECT_TRUE(sim_.run_until([&] { return unit_->head(alone)->digest(designation().vp)->primary_open; }, 30s)) << text("state") << ", " << text("reason");
}

TEST_F(FailedDisk, AReadIsAskedAgainWhileNoCopyCanBeRead) {
  auto answer = read_what_no_disk_reads();
  sim_.run_for(300ms);
  for (NodeId n : designation().members()) heal(n);
  sim_.run_for(10s);
  EXPECT_EQ(*answer, "A");
}

// A sector that stays unreadable is lost, and says so in the end: what waits for it goes on.
TEST_F(FailedDisk, AReadThatKeepsFailingEverywhereIsAnErrorInTheEnd) {
  auto answer = read_what_no_disk_reads();
  sim_.run_for(30s);
  EXPECT_EQ(*answer, "") << "it may come back";
  sim_.run_for(170s);
  EXPECT_NE(answer->find("cannot be read here nor from another replica"), std::string::npos) << *answer;
}

class FailedDiskOfTwo : public FailedDisk {
 protected:
  FailedDiskOfTwo() : FailedDisk(2) {}
};

TEST_F(FailedDiskOfTwo, ReadsGoOnThoughAReservesLogHasFailed) {
  write(0, 4, 'A');
  ASSERT_EQ(designation().required.size(), 2u);
  auto done = write_while_it_fails(designation().reserves[0], "log-data");
  auto answer = begin_read(0);
  sim_.run_for(500ms);  // before the client opens its session anew for want of an answer to the write: that takes a write, too
  EXPECT_EQ(*answer, "A") << text("state") << ", " << text("reason");
  EXPECT_FALSE(*done) << "there is no second copy of it";
  sim_.run_for(4s);
  auto again = begin_read(2);
  sim_.run_for(100ms);
  EXPECT_EQ(*again, "A") << text("state") << ", " << text("reason");
  EXPECT_FALSE(*done);
  sim_.run_for(20s);
  EXPECT_TRUE(*done) << "another head has taken its place";
}

TEST_F(FailedDiskOfTwo, TheOtherOpensWhenAPrimarysStoreHasFailed) {
  write(0, 4, 'A');
  ASSERT_EQ(designation().required.size(), 2u);
  NodeId bad = designation().primary;
  faults(bad, "meta").write_error = 1;
  ASSERT_TRUE(unit_->control()->volumes().create({"other", 1 << 20, {2, 1}, 2}).ok());
  sim_.run_for(1s);
  heal(bad);
  sim_.run_for(60s);
  EXPECT_NE(designation().primary, bad);
  auto answer = begin_read(0);
  sim_.run_for(10s);
  EXPECT_EQ(*answer, "A") << text("state") << ", " << text("reason");
}

}  // namespace
}  // namespace luge::sim
