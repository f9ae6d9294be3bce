#include "vmstate/replicator.hpp"

#include "switches/switches.hpp"
#include "vmstate/replicator_testing.hpp"

namespace luge::vmstate {
namespace {

using namespace testing;
using Differing = std::vector<std::uint64_t>;

// Processor and device write anywhere, at every moment of several checkpoints: each is the machine as it was when it was paused.
// Requirement: DWR-23 switch=processor-writes-ignored
// Requirement: DWR-07, DWR-23 switch=records-ignored
// Requirement: DWR-06 switch=records-of-function-lost
// Requirement: DWR-18 switch=records-dropped
TEST_F(ReplicatorTest, EveryCheckpointIsTheMachineWhenItWasPaused) {
  for (unsigned log2 : {0u, 3u, 10u}) {
    sequence_ = 0;
    Replicator& r = replicator({.slots_log2 = log2});
    FakeTarget target(kPages);
    std::mt19937_64 random(log2 + 1);
    target.while_copying = [&] {
      if (machine_.paused) return;
      for (int i = 0; i < (log2 == 0 ? 1 : 20); ++i) {
        const std::uint64_t bytes = (random() % 300 + 1) * 64;
        device_->write(random() % (kPages * kPage - bytes) / 64 * 64, static_cast<std::uint32_t>(bytes));
        processor_writes(random() % kPages);
      }
    };
    ASSERT_TRUE(r.start().ok());
    for (int i = 0; i < (log2 == 0 ? 4 : 12); ++i) {
      auto report = checkpoint(r, target);
      ASSERT_TRUE(report.ok()) << report.status().to_string();
      ASSERT_EQ(differing(target), Differing{}) << "checkpoint " << sequence_ << ", ring of 2^" << log2;
    }
    EXPECT_TRUE(r.stop().ok());
  }
}

// Requirement: DWR-22 switch=bits-cleared-after-copy
TEST_F(ReplicatorTest, APageWrittenAfterItsCopyBeganIsCopiedAgainAndOnce) {
  Replicator& r = replicator();
  FakeTarget target(kPages);
  ASSERT_TRUE(r.start().ok());
  target.while_copying = [&] {
    if (target.puts != 3) return;
    for (int i = 0; i < 200; ++i) device_->write(at(5) + static_cast<std::uint64_t>(i % 60) * 64, 64);  // page 5 has been copied
    processor_writes(5);
    processor_writes(6);
  };
  auto report = checkpoint(r, target);
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(differing(target), Differing{});
  EXPECT_EQ(target.copies[5], 2);
  EXPECT_EQ(target.copies[6], 2);
  EXPECT_EQ(target.copies[7], 1);
  EXPECT_EQ(report->passes.back().by_device, 1u);
  EXPECT_EQ(report->passes.back().by_processor, 2u);
  EXPECT_EQ(report->passes.back().by_both, 1u);
  EXPECT_EQ(report->passes.back().pages, 2u);
}

// Requirement: DWR-21 switch=record-counts-one-page
TEST_F(ReplicatorTest, AWriteOverSeveralPagesIsAllOfThem) {
  Replicator& r = replicator();
  FakeTarget target(kPages);
  ASSERT_TRUE(r.start().ok());
  ASSERT_TRUE(checkpoint(r, target).ok());
  device_->write(at(100) - 64, 65536);
  ASSERT_TRUE(checkpoint(r, target).ok());
  EXPECT_EQ(differing(target), Differing{});
}

// Requirement: DWR-24 switch=recording-after-first-pass
TEST_F(ReplicatorTest, WritesDuringTheFirstPassAreRecorded) {
  Replicator& r = replicator();
  FakeTarget target(kPages);
  target.while_copying = [&] {
    if (target.puts == 2) device_->write(at(3), 8192);
  };
  ASSERT_TRUE(r.start().ok());
  ASSERT_TRUE(checkpoint(r, target).ok());
  EXPECT_EQ(differing(target), Differing{});
}

// Requirement: DWR-25 switch=one-pass-only
TEST_F(ReplicatorTest, PassesGoOnUntilThePauseIsShort) {
  Replicator& r = replicator({.pause_goal = 0});
  FakeTarget target(kPages);
  int left = 8;  // 400 pages, 200, ...: what is written gets less with each pass
  r.on_pass = [&](const PassReport&) {
    if (machine_.paused) return;
    for (int p = 0; p < 400 >> (8 - left); ++p) device_->write(at(static_cast<std::uint64_t>(p) * 2), 64);
    --left;
  };
  ASSERT_TRUE(r.start().ok());
  auto report = checkpoint(r, target);
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(differing(target), Differing{});
  EXPECT_GT(report->passes.size(), 4u);
  EXPECT_LE(report->passes.back().pages, 10u);
}

// Requirement: DWR-25 switch=device-never-slowed
TEST_F(ReplicatorTest, ADeviceThatWritesFasterThanPagesAreCopiedIsSlowedUntilTheEndOnly) {
  Replicator& r = replicator({.most_passes = 14, .pause_goal = 1e-4});
  FakeTarget target(kPages);
  double unslowed = 0;
  bool slowed = false;
  r.on_pass = [&](const PassReport& pass) {
    if (machine_.paused) return;
    // 600 pages a pass, less by as much as it is slowed.
    if (device_->rate != 0 && unslowed == 0) unslowed = 2.0 * static_cast<double>(device_->rate);
    slowed = slowed || device_->rate != 0;
    const double share = device_->rate == 0 ? 1 : static_cast<double>(device_->rate) / unslowed;
    for (std::uint64_t p = 0; p < static_cast<std::uint64_t>(600 * share); ++p) device_->write(at(p), 64);
  };
  ASSERT_TRUE(r.start().ok());
  auto report = checkpoint(r, target);
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(differing(target), Differing{});
  EXPECT_TRUE(slowed);
  EXPECT_NE(report->throttled_to, 0u);
  EXPECT_LT(report->passes.back().pages, 600u);
  EXPECT_EQ(device_->rate, 0u);
}

TEST_F(ReplicatorTest, ADiskIsNotSlowWhileItsStandbyIsAway) {
  Replicator& r = replicator({.most_passes = 14, .pause_goal = 1e-4});
  FakeTarget target(kPages);
  bool slowed = false;
  r.on_pass = [&](const PassReport&) {
    if (machine_.paused) return;
    for (std::uint64_t p = 0; p < 600; ++p) device_->write(at(p), 64);
    slowed = slowed || device_->rate != 0;
    if (slowed) target.next_put = Status(Code::unavailable, "the standby has gone");
  };
  ASSERT_TRUE(r.start().ok());
  EXPECT_EQ(checkpoint(r, target).code(), Code::unavailable);
  EXPECT_TRUE(slowed);
  EXPECT_EQ(device_->rate, 0u);
}

// A guest that dirties all of its memory again and again would have as much again set aside, within the pause.
TEST_F(ReplicatorTest, WhatAPauseSetsAsideIsBounded) {
  constexpr std::uint64_t kMost = 300 * kPage;  // of 1024 pages
  Replicator& r = replicator({.most_passes = 2, .pause_goal = 0, .most_aside = kMost, .throttle = false});
  FakeTarget target(kPages);
  std::uint64_t sent_in_pause = 0;
  bool saved = false;
  r.on_pass = [&](const PassReport&) {
    if (machine_.paused) {  // again, by the saving of its devices
      if (!std::exchange(saved, true)) processor_writes(3);
      return;
    }
    for (std::uint64_t p = 0; p < kPages; p += 16) device_->write(at(p), 65536);
  };
  target.while_copying = [&] { sent_in_pause += machine_.paused ? 256 * kPage : 0; };
  ASSERT_TRUE(r.start().ok());
  auto report = checkpoint(r, target);
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  EXPECT_EQ(differing(target), Differing{}) << "an older copy was sent after a newer one";
  EXPECT_GE(sent_in_pause, (kPages - 300) * kPage);
}

// Requirement: DWR-26 switch=final-drain-left-out
TEST_F(ReplicatorTest, WhatIsInFlightAtThePauseIsInTheCheckpoint) {
  Replicator& r = replicator({.slots_log2 = 1});
  FakeTarget target(kPages);
  ASSERT_TRUE(r.start().ok());
  ASSERT_TRUE(checkpoint(r, target).ok());
  for (std::uint64_t p = 10; p < 30; ++p) device_->in_flight.push_back([this, p] { device_->write(at(p), 4096); });
  ASSERT_TRUE(checkpoint(r, target).ok());
  EXPECT_EQ(differing(target), Differing{});
}

// Requirement: DWR-02, DWR-27 switch=recording-left-on
TEST_F(ReplicatorTest, RecordingIsOffAfterwardsAndWhenItIsGivenUp) {
  EXPECT_FALSE(device_->recording());
  Replicator& r = replicator();
  FakeTarget target(kPages);
  ASSERT_TRUE(r.start().ok());
  EXPECT_TRUE(device_->recording());
  ASSERT_TRUE(checkpoint(r, target).ok());
  EXPECT_TRUE(r.stop().ok());
  EXPECT_FALSE(device_->recording());
  ASSERT_TRUE(r.start().ok());
  target.next_put = Status(Code::unavailable, "the link is down");
  sequence_ = 0;
  EXPECT_FALSE(checkpoint(r, target).ok());
  replicator_.reset();
  EXPECT_FALSE(device_->recording());
  EXPECT_FALSE(machine_.paused);
}

// Requirement: DWR-28 switch=other-function-recorded
TEST_F(ReplicatorTest, OnlyTheMachinesFunctionsCount) {
  Replicator& r = replicator();
  FakeTarget target(kPages);
  ASSERT_TRUE(r.start().ok());
  ASSERT_TRUE(checkpoint(r, target).ok());
  device_->record(at(7), 4096, 5);   // of another machine: an address in that one's memory
  device_->record(at(99999), 64, 5);
  auto report = checkpoint(r, target);
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->passes[0].by_device, 0u);
}

// Requirement: DWR-13 switch=record-outside-ignored
TEST_F(ReplicatorTest, ARecordOutsideTheMachinesMemoryMakesAllOfItDirty) {
  Replicator& r = replicator();
  FakeTarget target(kPages);
  ASSERT_TRUE(r.start().ok());
  ASSERT_TRUE(checkpoint(r, target).ok());
  device_->fill(at(7), 4096);           // written by an address that isn't in the table
  device_->record(at(kPages + 7), 4096);
  auto report = checkpoint(r, target);
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(differing(target), Differing{});
  EXPECT_EQ(r.device_counters().outside, 1u);
}

// Requirement: DWR-18 switch=overflow-ignored
TEST_F(ReplicatorTest, AnOverflowMakesEverythingDirty) {
  Replicator& r = replicator();
  FakeTarget target(kPages);
  ASSERT_TRUE(r.start().ok());
  ASSERT_TRUE(checkpoint(r, target).ok());
  device_->fill(at(50), 4096 * 20);  // writes without records,
  device_->overflow(1);              // which the device says
  auto report = checkpoint(r, target);
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->passes[0].pages, kPages);
  EXPECT_EQ(differing(target), Differing{});
}

// Requirement: DWR-18 switch=record-gap-ignored
TEST_F(ReplicatorTest, AMissingRecordMakesEverythingDirtyAndRecordingStartsAnew) {
  Replicator& r = replicator({.slots_log2 = 3});
  FakeTarget target(kPages);
  ASSERT_TRUE(r.start().ok());
  ASSERT_TRUE(checkpoint(r, target).ok());
  device_->fill(at(60), 4096);
  for (int i = 0; i < 8; ++i) device_->skip_a_number();  // as many as the ring has slots: the next record is a turn too late
  device_->fill(at(61), 64), device_->record(at(61), 64);
  ASSERT_TRUE(checkpoint(r, target).ok());
  EXPECT_EQ(differing(target), Differing{});
  EXPECT_EQ(device_->starts, 2);
  device_->write(at(62), 64);
  ASSERT_TRUE(checkpoint(r, target).ok());
  EXPECT_EQ(differing(target), Differing{});
}

// Requirement: DWR-10, DWR-12 switch=copied-at-scheduling
TEST_F(ReplicatorTest, ARecordBeforeItsDataWaitsForItsCompletion) {
  Replicator& r = replicator({.at_scheduling = true});
  FakeTarget target(kPages);
  ASSERT_TRUE(r.start().ok());
  ASSERT_TRUE(checkpoint(r, target).ok());
  device_->record(at(8), 4096);
  device_->record(at(9), 4096);
  const std::uint32_t before = device_->next();
  r.on_pass = [&](const PassReport& p) {  // the first pass goes by between record and data
    if (machine_.paused) return;
    EXPECT_EQ(p.by_device, 0u);
    device_->fill(at(8), 8192);
    device_->completed(before);
  };
  auto report = checkpoint(r, target);
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(differing(target), Differing{});
  EXPECT_EQ(report->passes.back().by_device, 2u);
}

// Requirement: DWR-30
TEST_F(ReplicatorTest, SeveralDevicesRecordAtOnce) {
  FakeDevice second(guest_, 2);
  Replicator& r = replicator({}, {device_.get(), &second});
  FakeTarget target(kPages);
  ASSERT_TRUE(r.start().ok());
  ASSERT_TRUE(checkpoint(r, target).ok());
  device_->write(at(1), 64);
  second.write(at(2), 64, 1);
  auto report = checkpoint(r, target);
  ASSERT_TRUE(report.ok());
  second.finish();
  EXPECT_EQ(report->passes[0].by_device, 2u);
  EXPECT_EQ(differing(target), Differing{});
  EXPECT_TRUE(r.stop().ok());  // before `second` goes
}

// The control that says which: records of 64 KiB are dropped, and exactly its pages are wrong.
TEST_F(ReplicatorTest, DroppedRecordsOfARangeShowAsExactlyThatRange) {
  Replicator& r = replicator();
  FakeTarget target(kPages);
  ASSERT_TRUE(r.start().ok());
  ASSERT_TRUE(checkpoint(r, target).ok());
  set_broken(Switch::records_of_range_dropped, true);
  for (std::uint64_t p = 32; p < 64; ++p) device_->write(at(p), 4096);
  ASSERT_TRUE(checkpoint(r, target).ok());
  set_broken(Switch::records_of_range_dropped, false);
  Differing range;
  for (std::uint64_t p = 32; p < 48; ++p) range.push_back(p);
  EXPECT_EQ(differing(target), range);
}

TEST_F(ReplicatorTest, PagesOfACheckpointThatFailedAreInTheNext) {
  Replicator& r = replicator();
  FakeTarget target(kPages);
  ASSERT_TRUE(r.start().ok());
  ASSERT_TRUE(checkpoint(r, target).ok());
  device_->write(at(200), 4096);
  processor_writes(300);
  target.next_put = Status(Code::unavailable, "the link is down");
  EXPECT_EQ(checkpoint(r, target).code(), Code::unavailable);
  EXPECT_TRUE(target.abandoned);
  EXPECT_FALSE(machine_.paused);
  target.next_put = Status();
  ASSERT_TRUE(checkpoint(r, target).ok());
  EXPECT_EQ(differing(target), Differing{});
}

// Requirement: DWR-23 switch=taken-pages-forgotten
TEST_F(ReplicatorTest, WhatWasTakenBeforeTheProcessorsNotesFailedIsInTheNext) {
  Replicator& r = replicator();
  FakeTarget target(kPages);
  ASSERT_TRUE(r.start().ok());
  ASSERT_TRUE(checkpoint(r, target).ok());
  device_->write(at(5), 4096);
  processor_writes(6);
  notes_->next = Status(Code::io_error, "PAGEMAP_SCAN: ENOMEM");
  EXPECT_EQ(checkpoint(r, target).code(), Code::io_error);
  ASSERT_TRUE(checkpoint(r, target).ok());
  EXPECT_EQ(differing(target), Differing{});
}

TEST_F(ReplicatorTest, GivenUpTheMachineRunsOn) {
  Replicator& r = replicator();
  FakeTarget target(kPages);
  ASSERT_TRUE(r.start().ok());
  target.while_copying = [&] { r.give_up(); };
  EXPECT_EQ(checkpoint(r, target).code(), Code::unavailable);
  EXPECT_FALSE(machine_.paused);
  EXPECT_FALSE(target.committed);
}

// Its thread was about to begin one: whoever ends the protection would wait for all of it.
TEST_F(ReplicatorTest, GivenUpBeforeItsBeginningACheckpointDoesNotBegin) {
  Replicator& r = replicator();
  FakeTarget target(kPages);
  ASSERT_TRUE(r.start().ok());
  r.give_up();
  EXPECT_EQ(checkpoint(r, target).code(), Code::unavailable);
  EXPECT_EQ(target.begun.sequence, 0u);
  EXPECT_EQ(target.puts, 0);
  EXPECT_TRUE(r.stop().ok());
  ASSERT_TRUE(r.start().ok());
  sequence_ = 0;
  EXPECT_TRUE(checkpoint(r, target).ok());
}

TEST_F(ReplicatorTest, WhatTimesOutBeforeTheCommitHasNotArrived) {
  Replicator& r = replicator();
  FakeTarget target(kPages);
  ASSERT_TRUE(r.start().ok());
  target.next_put = Status(Code::timed_out, "a page has no answer");
  EXPECT_EQ(r.checkpoint(target, {"vm", 1, 0, {}}, "{}", Replicator::Then::hand_over).code(), Code::unavailable);
  target.next_put = Status();
  machine_.saved = Status(Code::timed_out, "QEMU doesn't save its devices");
  EXPECT_EQ(r.checkpoint(target, {"vm", 1, 0, {}}, "{}", Replicator::Then::hand_over).code(), Code::unavailable);
  EXPECT_FALSE(machine_.paused);
}

// A person has stopped it, or it has been handed over by a luge-vmstated that was killed.
// Requirement: DWR-01 switch=paused-machine-let-run
TEST_F(ReplicatorTest, AMachineThatStoodStillIsNotLetRun) {
  Replicator& r = replicator();
  FakeTarget target(kPages);
  machine_.paused = true;
  ASSERT_TRUE(r.start().ok());
  EXPECT_TRUE(checkpoint(r, target).ok());
  EXPECT_TRUE(machine_.paused);
  EXPECT_EQ(r.checkpoint(target, {"vm", 2, 0, {}}, "{}", Replicator::Then::hand_over).code(), Code::conflict) << "it would run at the target";
  EXPECT_TRUE(machine_.paused);
  machine_.saved = Status(Code::io_error, "QEMU doesn't save its devices");
  EXPECT_FALSE(checkpoint(r, target).ok());
  replicator_.reset();
  EXPECT_TRUE(machine_.paused);
}

TEST_F(ReplicatorTest, WhatCannotBeNotedIsNotHandedOver) {
  Replicator& r = replicator();
  FakeTarget target(kPages);
  ASSERT_TRUE(r.start().ok());
  machine_.next_hand_over = Status(Code::io_error, "no space");
  EXPECT_EQ(r.checkpoint(target, {"vm", 1, 0, {}}, "{}", Replicator::Then::hand_over).code(), Code::io_error);
  EXPECT_FALSE(target.committed || machine_.paused);
  machine_.next_hand_over = Status();
  EXPECT_TRUE(r.checkpoint(target, {"vm", 1, 0, {}}, "{}", Replicator::Then::hand_over).ok());
  EXPECT_TRUE(target.committed && machine_.handed_over && machine_.paused);
  r.moved();
}

TEST_F(ReplicatorTest, AMigrationThatMayHaveArrivedStaysPaused) {
  struct Unknown final : Target {
    explicit Unknown(Code code) : code(code) {}
    Result<std::uint64_t> newest(const std::string&) override { return std::uint64_t{0}; }
    Status begin(const Begin&) override { return Status(); }
    Status put(const PageBatch&) override { return Status(); }
    Status commit(const std::string&, const std::string&) override { return Status(code, "no answer"); }
    void abandon() override {}
    Code code;
  };
  Replicator& r = replicator();
  ASSERT_TRUE(r.start().ok());
  Unknown refused(Code::unavailable), silent(Code::timed_out);
  EXPECT_FALSE(r.checkpoint(refused, {"vm", 1, 0, {}}, "{}", Replicator::Then::hand_over).ok());
  EXPECT_FALSE(machine_.paused);
  EXPECT_FALSE(r.checkpoint(silent, {"vm", 1, 0, {}}, "{}", Replicator::Then::hand_over).ok());
  EXPECT_TRUE(machine_.paused);
  FakeTarget target(kPages);
  EXPECT_EQ(checkpoint(r, target).code(), Code::conflict);
  EXPECT_EQ(r.checkpoint(refused, {"vm", 1, 0, {}}, "{}", Replicator::Then::hand_over).code(), Code::conflict);
  EXPECT_TRUE(machine_.paused) << "the end of a checkpoint let it run";
  EXPECT_TRUE(r.stop().ok());
  replicator_.reset();
  EXPECT_TRUE(machine_.paused) << "the daemon's end let it run";
  machine_.paused = false;
  Replicator& again = replicator();
  ASSERT_TRUE(again.start().ok());
  EXPECT_FALSE(again.checkpoint(silent, {"vm", 1, 0, {}}, "{}", Replicator::Then::hand_over).ok());
  again.runs_nowhere_else();
  replicator_.reset();
  EXPECT_FALSE(machine_.paused) << "a person has decided";
}

}  // namespace
}  // namespace luge::vmstate
