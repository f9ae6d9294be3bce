// Checkpoints of a replica's metadata on the sleds, and a head that has lost its disk rebuilt from one (protocol 9): a whole unit.
#include <boost/json.hpp>
#include <set>

#include "coding/checkpoint_block.hpp"
#include "coding/chunk_header.hpp"
#include "sim/cluster/unit_fixture.hpp"

namespace luge::sim {
namespace {

class CheckpointTest : public UnitTest {
 protected:
  using Mode = head::Options::Checkpoints;
  static void small_checkpoints(head::Options& h, Mode mode) {
    h.checkpoints = mode;
    h.flush_bytes = 64 << 10;
    h.flush_idle = 300ms;
    h.checkpoint_chunk_bytes = 4 << 10;
    h.checkpoint_growth = 1;
    h.checkpoint_percent = 1'000'000;  // so small a volume has few metadata records
  }
  explicit CheckpointTest(Mode mode = Mode::all) : CheckpointTest([mode](head::Options& h) { small_checkpoints(h, mode); }) {}
  explicit CheckpointTest(const std::function<void(head::Options&)>& tweak, std::uint32_t heads = 3) : UnitTest(3, 4 << 20, tweak, heads) {
    logging::setup("test", "off");
  }

  boost::json::object replica_report(NodeId head) {
    auto report = boost::json::parse(unit_->head(head)->report());
    for (auto& vp : report.at("vps").as_array())
      if (vp.at("vp").to_number<VpId>() == designation().vp) return vp.as_object();
    return {};
  }
  Lsn newest_checkpoint(NodeId head) { return unit_->head(head) ? replica_report(head).at("checkpoint").at("lsn").to_number<Lsn>() : 0; }
  std::uint64_t source(NodeId head, const char* what) { return replica_report(head).at("put_together_from").at(what).to_number<std::uint64_t>(); }
  bool flushed() {
    return sim_.run_until([&] { return replica_report(designation().primary).at("unflushed_bytes").to_number<std::uint64_t>() == 0; }, 20s);
  }
  /// Of all that are up: a checkpoint of all that is committed.
  bool all_checkpointed() {
    return sim_.run_until([&] {
      for (NodeId n : designation().members())
        if (sim_.up(node(n)) && (!unit_->head(n) || newest_checkpoint(n) != unit_->head(n)->digest(designation().vp)->commit)) return false;
      return true;
    }, 30s);
  }
  void come_back_empty(NodeId head) {
    unit_->replace_disk(node(head));
    sim_.restart(node(head));
  }
  std::uint64_t count(NodeId head, const char* what) { return replica_report(head).at("checkpoint").at(what).to_number<std::uint64_t>(); }
  void device_faults(double rot) {
    DiskFaults faults;
    faults.rot = rot;
    for (Node n : unit_->sled_nodes()) sim_.disk(n).faults_of[Unit::device_path(0)] = faults;
  }
  /// Calls f with the place on the medium and the header of every chunk of a checkpoint, whoever wrote it.
  template <class F>
  void each_checkpoint_chunk(F f) {
    for (Node n : unit_->sled_nodes()) {
      const FileState* file = sim_.disk(n).file(Unit::device_path(0));
      for (std::uint64_t at = 0; at < file->size; at += kBlockBytes) {
        Buffer block = Buffer::allocate(kBlockBytes);
        file->read(at, block.mutable_bytes());
        auto header = coding::parse_chunk_header(block.bytes());
        if (header.ok() && header->fields().written && coding::is_checkpoint_lba(header->identity(0, 0).lba())) f(n, at, *header);
      }
    }
  }
  std::uint64_t index(NodeId head) { return unit_->head(head)->digest(designation().vp)->index; }
};

// Requirement: MC-11, MC-12, P-9.1
// Requirement: MC-14 switch=flushed-data-moves
// Requirement: MC-02 switch=checkpoints-never-due
// Requirement: MC-03 switch=reserves-write-no-checkpoint
// Requirement: MC-09 switch=checkpoint-not-asked-for
// Requirement: FO-01, FO-11, MC-20 switch=no-survivor-stands
TEST_F(CheckpointTest, AHeadThatHasLostItsDiskIsRebuiltFromACheckpointWhoseAuthorIsGone) {
  write(0, 16, 'A');
  NodeId first = designation().primary, second = designation().reserves[0], third = designation().reserves[1];
  ASSERT_TRUE(flushed() && all_checkpointed());
  for (NodeId n : {first, second, third}) EXPECT_GT(newest_checkpoint(n), 0u) << "each replica has its own";
  sim_.crash(node(third), Crash::power);
  write(8, 16, 'B');
  ASSERT_TRUE(flushed() && all_checkpointed());
  sim_.crash(node(first), Crash::power);
  std::string kept = std::string(8, 'A') + std::string(16, 'B') + std::string(40, '0');
  EXPECT_EQ(contents(), kept);
  come_back_empty(third);
  ASSERT_TRUE(sim_.run_until([&] { return designation().required.size() == 2; }, 30s));
  EXPECT_GT(times_reached(Path::checkpoint_loaded), 0u);
  EXPECT_GT(source(third, "checkpoint"), 0u);
  EXPECT_EQ(source(third, "index_pages"), 0u);
  EXPECT_EQ(source(third, "unflushed"), 0u) << "flushed data does not move";
  sim_.run_for(1s);
  EXPECT_EQ(index(second), index(third));
  sim_.crash(node(second), Crash::power);
  sim_.restart(node(first));
  ASSERT_TRUE(wait_for_state("open"));
  EXPECT_EQ(contents(), kept);
}

// Requirement: MC-11, P-3.4
TEST_F(CheckpointTest, WhatIsNewerThanTheCheckpointComesFromASurvivor) {
  write(0, 16, 'A');
  ASSERT_TRUE(flushed() && all_checkpointed());
  NodeId lost = designation().reserves[1], primary = designation().primary;
  std::uint64_t loaded = times_reached(Path::checkpoint_loaded);
  sim_.crash(node(lost), Crash::power);
  write(4, 4, 'B');
  write(40, 2, 'C');
  come_back_empty(lost);
  ASSERT_TRUE(all_required());
  EXPECT_GT(times_reached(Path::checkpoint_loaded), loaded);
  EXPECT_EQ(source(lost, "index_pages"), 0u);
  EXPECT_GT(source(lost, "checkpoint"), 0u);
  sim_.run_for(1s);
  EXPECT_EQ(index(primary), index(lost));
  EXPECT_EQ(contents(), "AAAABBBBAAAAAAAA" + std::string(24, '0') + "CC" + std::string(22, '0'));
}

// Requirement: MC-13, MC-17, P-9.3 switch=metadata-trimmed-to-newest-checkpoint
TEST_F(CheckpointTest, ADamagedNewestFallsBackToTheOneBefore) {
  write(0, 16, 'A');
  ASSERT_TRUE(flushed() && all_checkpointed());
  NodeId lost = designation().reserves[1], primary = designation().primary;
  sim_.crash(node(lost), Crash::power);
  write(4, 4, 'B');
  ASSERT_TRUE(flushed() && all_checkpointed());
  Lsn newest = newest_checkpoint(primary);
  std::size_t damaged = 0;
  each_checkpoint_chunk([&](Node n, std::uint64_t at, const coding::ChunkHeader& h) {
    if (h.identity(0, 0).lsn() != newest) return;
    sim_.disk(n).rot(Unit::device_path(0), at + h.header_bytes() + 50);
    ++damaged;
  });
  ASSERT_GE(damaged, 6u) << "two authors, three chunks each";
  std::uint64_t fell_back = times_reached(Path::fall_back_checkpoint);
  come_back_empty(lost);
  ASSERT_TRUE(all_required());
  EXPECT_GT(times_reached(Path::fall_back_checkpoint), fell_back);
  EXPECT_GT(source(lost, "checkpoint"), 0u);
  EXPECT_EQ(source(lost, "index_pages"), 0u) << "its delta is remembered still";
  sim_.run_for(1s);
  EXPECT_EQ(index(primary), index(lost));
  EXPECT_EQ(contents(), "AAAABBBB" + std::string(8, 'A') + std::string(48, '0'));
}

TEST_F(CheckpointTest, OneOfWhichAChunkIsNotToBeHadIsUsedAllTheSame) {
  write(0, 16, 'A');
  ASSERT_TRUE(flushed() && all_checkpointed());
  NodeId lost = designation().reserves[1], primary = designation().primary;
  sim_.crash(unit_->sled_nodes()[0], Crash::power);
  sim_.crash(node(lost), Crash::power);
  write(4, 4, 'B');
  come_back_empty(lost);
  ASSERT_TRUE(all_required());
  EXPECT_GT(source(lost, "checkpoint"), 0u);
  EXPECT_EQ(source(lost, "index_pages"), 0u);
  sim_.run_for(1s);
  EXPECT_EQ(index(primary), index(lost));
}

// A survivor that has started again knows what has changed since a checkpoint only by its pages: what is not in its log any more.
TEST_F(CheckpointTest, ASurvivorThatHasRestartedTellsWhatIsNewer) {
  write(0, 16, 'A');
  ASSERT_TRUE(flushed() && all_checkpointed());
  NodeId lost = designation().reserves[1], first = designation().primary, second = designation().reserves[0];
  sim_.crash(node(lost), Crash::power);
  for (NodeId n : {first, second}) sim_.crash(node(n), Crash::power);
  for (NodeId n : {first, second}) sim_.restart(node(n));
  ASSERT_TRUE(sim_.run_until([&] { return designation().required.size() == 2 && text("state") == "open"; }, 30s));
  come_back_empty(lost);
  ASSERT_TRUE(all_required());
  EXPECT_GT(source(lost, "checkpoint"), 0u);
  EXPECT_EQ(contents(), std::string(16, 'A') + std::string(48, '0'));
}

// Requirement: P-9.3 switch=checkpoint-not-read-back
TEST_F(CheckpointTest, OneThatCannotBeReadBackDoesNotCount) {
  write(0, 16, 'A');
  ASSERT_TRUE(flushed() && all_checkpointed());
  NodeId primary = designation().primary;
  Lsn good = newest_checkpoint(primary);
  std::uint64_t failed = count(primary, "failed");
  device_faults(1.0);
  write(4, 4, 'B');
  ASSERT_TRUE(sim_.run_until([&] { return count(primary, "failed") > failed + 1; }, 30s)) << "the devices keep other bits than they are given";
  EXPECT_EQ(newest_checkpoint(primary), good);
  device_faults(0);
  ASSERT_TRUE(all_checkpointed());
  EXPECT_GT(newest_checkpoint(primary), good);
}

// Requirement: P-9.3
TEST_F(CheckpointTest, TwoAreKeptAndTheOthersGiveTheirSlotsBack) {
  for (char c = 'A'; c <= 'L'; ++c) {
    write(0, 8, c);
    ASSERT_TRUE(flushed() && all_checkpointed());
  }
  sim_.run_for(3s);
  std::set<std::uint64_t> kept;
  each_checkpoint_chunk([&](Node, std::uint64_t, const coding::ChunkHeader& h) { kept.insert(coding::checkpoint_id(h.identity(0, 0).lba())); });
  std::uint64_t chains = 0;
  for (NodeId n : designation().members()) {
    EXPECT_GT(count(n, "freed_slots"), 0u);
    chains += count(n, "chain");
  }
  EXPECT_LE(kept.size(), chains + 3 * 4);
  EXPECT_GE(kept.size(), 6u) << "two of each replica";
}

class PrimaryAlone : public CheckpointTest {
 protected:
  PrimaryAlone() : CheckpointTest(Mode::primary) {}
};

// Requirement: MC-10 switch=checkpoint-needs-author
TEST_F(PrimaryAlone, WhatADeadHeadHasWrittenIsFoundAndUsed) {
  write(0, 16, 'A');
  NodeId author = designation().primary, lost = designation().reserves[1];
  ASSERT_TRUE(flushed() && sim_.run_until([&] { return newest_checkpoint(author) == unit_->head(author)->digest(designation().vp)->commit; }, 30s));
  std::set<std::uint64_t> its;
  each_checkpoint_chunk([&](Node, std::uint64_t, const coding::ChunkHeader& h) { its.insert(coding::checkpoint_id(h.identity(0, 0).lba())); });
  sim_.crash(node(lost), Crash::power);
  sim_.crash(node(author), Crash::power);
  ASSERT_TRUE(sim_.run_until([&] { return designation().primary != author && newest_checkpoint(designation().primary) != 0; }, 30s));
  sim_.run_for(2s);
  // Its successor's own are not to be had.
  each_checkpoint_chunk([&](Node n, std::uint64_t at, const coding::ChunkHeader& h) {
    if (!its.contains(coding::checkpoint_id(h.identity(0, 0).lba()))) sim_.disk(n).rot(Unit::device_path(0), at + h.header_bytes() + 50);
  });
  come_back_empty(lost);
  ASSERT_TRUE(sim_.run_until([&] { return designation().required.size() == 2; }, 30s));
  EXPECT_EQ(source(lost, "author"), author);
  EXPECT_EQ(source(lost, "index_pages"), 0u);
  EXPECT_EQ(contents(), std::string(16, 'A') + std::string(48, '0'));
}

// Requirement: MC-04 switch=checkpoints-unasked
TEST_F(PrimaryAlone, TheReservesWriteNoneAndAreRebuiltFromIts) {
  write(0, 16, 'A');
  NodeId primary = designation().primary, lost = designation().reserves[1];
  ASSERT_TRUE(flushed() && sim_.run_until([&] { return newest_checkpoint(primary) == unit_->head(primary)->digest(designation().vp)->commit; }, 30s));
  for (NodeId n : designation().reserves) EXPECT_EQ(count(n, "written"), 0u);
  sim_.crash(node(lost), Crash::power);
  write(4, 4, 'B');
  come_back_empty(lost);
  ASSERT_TRUE(all_required());
  EXPECT_GT(source(lost, "checkpoint"), 0u);
  EXPECT_EQ(contents(), "AAAABBBB" + std::string(8, 'A') + std::string(48, '0'));
}

// Each condition alone, the others out of reach.
class Triggers : public CheckpointTest {
 protected:
  explicit Triggers(const std::function<void(head::Options&)>& condition)
      : CheckpointTest([condition](head::Options& h) {
          h.checkpoint_chunk_bytes = 4 << 10;
          h.checkpoint_percent = 1'000'000;
          h.checkpoint_growth = 1 << 30;
          h.checkpoint_age = 3600s;
          h.checkpoint_pages = 1 << 30;
          condition(h);
        }) {}
  bool one_is_written() {
    write(0, 4, 'A');
    return sim_.run_until([&] { return newest_checkpoint(designation().primary) != 0; }, 10s);
  }
};
struct ByGrowth : Triggers {
  ByGrowth() : Triggers([](head::Options& h) { h.checkpoint_growth = 100; }) {}
};
struct ByAge : Triggers {
  ByAge() : Triggers([](head::Options& h) { h.checkpoint_age = 5s; }) {}
};
struct ByPages : Triggers {
  ByPages() : Triggers([](head::Options& h) { h.checkpoint_pages = 1; }) {}
};
struct FlushedByAmount : CheckpointTest {
  FlushedByAmount() : CheckpointTest([](head::Options& h) { small_checkpoints(h, Mode::all), h.flush_idle = 3600s, h.flush_bytes = 64 << 10; }) {}
};
struct ByNothing : Triggers {
  ByNothing() : Triggers([](head::Options&) {}) {}
};

// Requirement: MC-16 switch=checkpoints-never-due
TEST_F(ByGrowth, OneIsDue) { EXPECT_TRUE(one_is_written()); }
// Requirement: MC-16 switch=checkpoints-never-due
TEST_F(ByAge, OneIsDue) { EXPECT_TRUE(one_is_written()); }
// Requirement: MC-16 switch=checkpoints-never-due
TEST_F(ByPages, OneIsDue) { EXPECT_TRUE(one_is_written()); }
TEST_F(ByNothing, NoneIsDue) { EXPECT_FALSE(one_is_written()); }

// Requirement: MC-05 switch=checkpoint-waits-for-flush
TEST_F(ByPages, UnflushedDataHoldsNothingBack) {
  EXPECT_TRUE(one_is_written());
  EXPECT_GT(unit_->head(designation().primary)->replica(designation().vp)->unflushed_blocks(), 0u) << "nothing is ever flushed here";
}

// A checkpoint names what no sled has yet: that comes from a survivor.
// Requirement: MC-11, P-3.4 switch=unflushed-left-out
TEST_F(FlushedByAmount, WhatACheckpointNamesAndNoSledHasComesFromASurvivor) {
  write(0, 16, 'A');
  write(32, 4, 'B');  // before the flush of the others is in the index
  ASSERT_TRUE(sim_.run_until([&] { return unit_->head(designation().primary)->replica(designation().vp)->unflushed_blocks() == 4; }, 20s));
  ASSERT_TRUE(all_checkpointed());
  NodeId lost = designation().reserves[1], primary = designation().primary;
  std::uint64_t unflushed = unit_->head(primary)->replica(designation().vp)->unflushed_blocks();
  ASSERT_EQ(unflushed, 4u);
  sim_.crash(node(lost), Crash::power);
  ASSERT_TRUE(sim_.run_until([&] { return designation().required.size() == 2; }, 20s));
  std::uint64_t loaded = times_reached(Path::checkpoint_loaded);
  come_back_empty(lost);
  EXPECT_TRUE(all_required());
  EXPECT_GT(times_reached(Path::checkpoint_loaded), loaded);
  const head::Head* h = unit_->head(lost);
  ASSERT_TRUE(h);
  EXPECT_EQ(h->replica(designation().vp)->missing_unflushed(), 0u);
  EXPECT_EQ(h->replica(designation().vp)->unflushed_blocks(), unflushed);
}

// Requirement: MC-06 switch=checkpoint-waits-for-flush
TEST_F(CheckpointTest, OneIsFinishedWhileAFlushIsInProgress) {
  bool flushing = false;
  Node primary = node(designation().primary);
  std::uint64_t within = 0;
  on_reached([&](Path p) {
    if (p == Path::flush_gathered) flushing = true;
    else if (p == Path::index_record_appended) flushing = false;
    else if (p == Path::checkpoint_written) within += flushing && sim_.current() == primary;
  });
  for (Node n : unit_->sled_nodes()) sim_.disk(n).faults.slow = 100;
  for (int i = 0; i < 60 && within == 0; ++i) write(i % 2 * 32, 32, static_cast<char>('A' + i % 26)), sim_.run_for(i % 2 * 300ms);
  on_reached({});
  EXPECT_GT(within, 0u);
}

// A head beside the three that hold the volume.
class WithASpare : public CheckpointTest {
 protected:
  WithASpare()
      : CheckpointTest([](head::Options& h) {
          h.replace_after = 1s;
          h.flush_idle = 300ms;
          h.checkpoint_chunk_bytes = 4 << 10;
          h.checkpoint_growth = 1;
          h.checkpoint_percent = 1'000'000;
        }, 4) {}
};

// Requirement: MC-08, FO-02 switch=no-spare-chosen
TEST_F(WithASpare, AReserveThatIsLostIsMadeAnewOnAnotherHead) {
  write(0, 16, 'A');
  sim_.run_for(3s);
  std::set<NodeId> before;
  for (NodeId n : designation().members()) before.insert(n);
  NodeId lost = designation().reserves[1];
  sim_.crash(node(lost), Crash::power);
  ASSERT_TRUE(sim_.run_until([&] { return designation().required.size() == 3 && !designation().has_member(lost); }, 20s));
  NodeId came = 0;
  for (NodeId n : designation().members()) came = before.contains(n) ? came : n;
  NodeId primary = designation().primary;
  EXPECT_GT(times_reached(Path::checkpoint_loaded), 0u);
  // And it is as good as any other.
  for (NodeId n : designation().members())
    if (n != came && n != primary) sim_.crash(node(n), Crash::power);
  sim_.crash(node(primary), Crash::power);
  ASSERT_TRUE(sim_.run_until([&] { return designation().primary == came; }, 20s));
  EXPECT_EQ(contents(), std::string(16, 'A') + std::string(48, '0'));
}

class WithoutCheckpoints : public CheckpointTest {
 protected:
  WithoutCheckpoints() : CheckpointTest(Mode::none) {}
};

TEST_F(WithoutCheckpoints, AllMetadataComesFromASurvivor) {
  write(0, 16, 'A');
  ASSERT_TRUE(flushed());
  NodeId lost = designation().reserves[1];
  sim_.crash(node(lost), Crash::power);
  write(4, 4, 'B');
  come_back_empty(lost);
  ASSERT_TRUE(all_required());
  EXPECT_EQ(source(lost, "checkpoint"), 0u);
  EXPECT_GT(source(lost, "metadata"), 0u);
  EXPECT_EQ(contents(), "AAAABBBB" + std::string(8, 'A') + std::string(48, '0'));
}

}  // namespace
}  // namespace luge::sim
