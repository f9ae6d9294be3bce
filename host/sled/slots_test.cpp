// Chunk slots and fences over the wire: protocol 8.1 and 8.2 as a head meets them.
#include "coding/checkpoint_block.hpp"
#include "sled/unit_fixture.hpp"

namespace luge::sled::testing {
namespace {

using namespace std::chrono_literals;

constexpr std::uint32_t kSlots = kColumnBytes / (kChunk + kBlockBytes);

struct SlotTest : ::testing::Test {
  void SetUp() override { ASSERT_TRUE(u.at_start[0].ok()) << u.at_start[0].to_string(); }
  // Fenced in epoch 1, column 0 claimed; its first slot generation.
  Generation begin() {
    EXPECT_TRUE(u.fence(0, kVp, 1).ok());
    auto c = u.claim(0, kVp, 1);
    EXPECT_TRUE(c.ok()) << c.status().to_string();
    if (!c.ok()) return 0;
    EXPECT_EQ(c->slots.size(), kSlots);
    return c->slots[0].generation();
  }
  fbs::SlotState slot(std::uint32_t n, Epoch epoch = 1) {
    auto l = u.list(0, kVp, epoch);
    EXPECT_TRUE(l.ok()) << l.status().to_string();
    return l.ok() && !l->empty() ? l->at(0).slots.at(n) : fbs::SlotState();
  }
  SledUnit u{1};
};

// Requirement: P-8.1 switch=free-without-generation
TEST_F(SlotTest, WrittenReadFreedAndWrittenAgain) {
  Generation g = begin();
  Stripe a = u.stripe(1), b = u.stripe(2);
  auto p = u.place(0, 0, 2, g);
  ASSERT_EQ(u.write(0, a, 3, p).to_string(), Status().to_string());
  auto r = u.read(0, a.id, 3, p, 1, 2);
  ASSERT_TRUE(r.ok()) << r.status().to_string();
  EXPECT_EQ(std::memcmp(r->blocks.data(), a.chunks[3].data() + kBlockBytes, 2 * kBlockBytes), 0);
  EXPECT_EQ(r->identities[0].lsn(), a.blocks[3 * 4 + 1].lsn());
  auto h = coding::parse_chunk_header(r->header.bytes());
  ASSERT_TRUE(h.ok());
  EXPECT_EQ(h->parity_crc(5, 3), a.parity_crcs[7]);
  EXPECT_EQ(slot(2).state(), 1);
  EXPECT_EQ(slot(2).stripe().counter(), 1u);

  EXPECT_EQ(u.write(0, b, 3, p).code(), Code::stale) << "written once in a generation";
  ASSERT_TRUE(u.free(0, a.id, p, 1).ok());
  EXPECT_EQ(slot(2).state(), 0);
  EXPECT_EQ(slot(2).generation(), g + 1);
  EXPECT_EQ(u.read(0, a.id, 3, p).code(), Code::stale);
  EXPECT_EQ(u.free(0, a.id, p, 1).code(), Code::stale) << "a duplicate free";
  EXPECT_EQ(u.write(0, b, 3, p).code(), Code::stale) << "the old generation";
  EXPECT_TRUE(u.write(0, b, 3, u.place(0, 0, 2, g + 1)).ok());
}

// Requirement: MC-10, P-9.2
TEST_F(SlotTest, AColumnOfCheckpointsTakesNothingElseAndTellsWhatItHolds) {
  ASSERT_TRUE(u.fence(0, kVp, 1).ok());
  auto claim = [&](NodeId role) {
    return u.claimed(u.call(0, u.claim_frame(kVp, 1, 0, 0, testing::slot_bytes(), role)));
  };
  auto c = claim(11);
  ASSERT_TRUE(c.ok()) << c.status().to_string();
  EXPECT_EQ(claim(0).status().code(), Code::exists) << "for data";
  EXPECT_EQ(claim(12).status().code(), Code::exists) << "for another's checkpoints";
  EXPECT_TRUE(u.list(0, kVp, 1)->empty()) << "it is none of data";
  Generation g = c->slots[0].generation();
  EXPECT_EQ(u.write(0, u.stripe(1), 3, u.place(0, 0, 0, g)).code(), Code::invalid);
  Stripe checkpoint = u.stripe(2);
  for (std::uint32_t i = 0; i < checkpoint.blocks.size(); ++i)
    checkpoint.blocks[i] = fbs::BlockIdentity(coding::checkpoint_lba(5, 16 + i), 77, checkpoint.blocks[i].crc(), 0);
  ASSERT_EQ(u.write(0, checkpoint, 3, u.place(0, 0, 1, g)).to_string(), Status().to_string());
  auto listed = u.call(0, wire::make_frame(wire::Kind::list_checkpoints, [&](auto& b) { return fbs::CreateListCheckpoints(b, kVp); }));
  ASSERT_TRUE(listed.ok() && listed->kind == wire::Kind::checkpoint_slots);
  const auto* m = listed->as<fbs::CheckpointSlots>();
  ASSERT_TRUE(m && m->slots() && m->slots()->size() == 1);
  const fbs::CheckpointSlot* s = m->slots()->Get(0);
  EXPECT_EQ(s->author(), 11u);
  EXPECT_EQ(s->lsn(), 77u);
  EXPECT_EQ(s->first(), coding::checkpoint_lba(5, 16)) << "of the stripe's first block, whatever chunk this is";
  EXPECT_EQ(s->chunk_index(), 3u);
  ASSERT_TRUE(u.fence(0, kVp, 2).ok());
  EXPECT_EQ(u.write(0, checkpoint, 4, u.place(0, 0, 2, g)).code(), Code::fenced);
}

TEST_F(SlotTest, StateOutlivesARestart) {
  Generation g = begin();
  Stripe a = u.stripe(1), b = u.stripe(2);
  ASSERT_TRUE(u.write(0, a, 0, u.place(0, 0, 0, g)).ok());
  ASSERT_TRUE(u.write(0, b, 1, u.place(0, 0, 1, g)).ok());
  ASSERT_TRUE(u.free(0, b.id, u.place(0, 0, 1, g), 1).ok());
  ASSERT_TRUE(u.bounce(0).ok());
  EXPECT_EQ(slot(0).state(), 1);
  EXPECT_EQ(slot(1).state(), 0);
  EXPECT_EQ(slot(1).generation(), g + 1);
  EXPECT_EQ(slot(2).generation(), g);
  auto r = u.read(0, a.id, 0, u.place(0, 0, 0, g));
  ASSERT_TRUE(r.ok());
  EXPECT_EQ(std::memcmp(r->blocks.data(), a.chunks[0].data(), kChunk), 0);
}

TEST_F(SlotTest, ARepeatIsAnsweredOnlyIfItIsTheSame) {
  Generation g = begin();
  Stripe a = u.stripe(1);
  auto p = u.place(0, 0, 0, g);
  ASSERT_TRUE(u.write(0, a, 2, p).ok());
  EXPECT_TRUE(u.write(0, a, 2, p).ok());
  EXPECT_EQ(u.write(0, a, 1, p).code(), Code::stale) << "another chunk of the same stripe";
  Stripe other = u.stripe(1);
  EXPECT_EQ(u.write(0, other, 2, p).code(), Code::stale) << "other bytes under the same id";
  // Header on the medium, chunk not: what a cut-off write may leave. It was never answered, so it is no duplicate.
  std::vector<std::byte> zeros(512);
  u.disk(0).file("/dev/disk0")->write(SledUnit::slot_at(0, 0) + kBlockBytes, zeros, true);
  EXPECT_EQ(u.write(0, a, 2, p).code(), Code::stale);
}

TEST_F(SlotTest, ChunksAreCheckedBeforeTheyAreWritten) {
  Generation g = begin();
  Stripe a = u.stripe(1);
  auto p = u.place(0, 0, 0, g);
  auto with = [&](auto change) {
    wire::Frame f = u.write_frame(a, 4, p);
    f.payload = {Buffer::copy_of(f.payload[0].bytes()), Buffer::copy_of(f.payload[1].bytes())};
    change(f);
    return u.plain(u.call(0, std::move(f)));
  };
  EXPECT_EQ(with([](auto& f) { f.payload[1].data()[9000] ^= std::byte{4}; }).code(), Code::corrupt);
  EXPECT_EQ(with([](auto& f) { f.payload[0].data()[100] ^= std::byte{4}; }).code(), Code::corrupt);
  EXPECT_EQ(with([](auto& f) { f.payload.pop_back(); }).code(), Code::invalid);
  EXPECT_EQ(with([](auto& f) { f.payload.clear(); }).code(), Code::invalid);
  EXPECT_EQ(with([](auto& f) { f.payload[0] = Buffer::zeros(f.payload[0].size()); }).code(), Code::invalid);
  EXPECT_EQ(with([&](auto& f) { f.payload[0] = a.header(4, g, kUnit + 1); }).code(), Code::wrong_unit);
  EXPECT_EQ(with([&](auto& f) { f.payload[0] = a.header(4, g + 1); }).code(), Code::invalid);
  EXPECT_EQ(with([&](auto& f) { f.payload[0] = a.header(5, g); }).code(), Code::invalid);
  EXPECT_EQ(with([&](auto& f) { f.payload[0] = u.stripe(9).header(4, g); }).code(), Code::invalid);
  EXPECT_EQ(slot(0).state(), 0);
  EXPECT_EQ(u.reported(0, "chunks_written"), 0u);
  EXPECT_TRUE(with([](auto&) {}).ok());
}

TEST_F(SlotTest, PlacesThatCannotBe) {
  Generation g = begin();
  Stripe a = u.stripe(1);
  EXPECT_EQ(u.write(0, a, 0, u.place(1, 0, 0, g)).code(), Code::invalid) << "another sled's";
  EXPECT_EQ(u.write(0, a, 0, u.place(0, 0, 0, g, 7)).code(), Code::invalid);
  EXPECT_EQ(u.write(0, a, 0, u.place(0, 4'000'000'000, 0, g)).code(), Code::invalid);
  EXPECT_EQ(u.write(0, a, 0, u.place(0, 0, kSlots, g)).code(), Code::invalid);
  EXPECT_EQ(u.write(0, a, 0, u.place(0, 1, 0, g)).code(), Code::forged) << "nobody's column: there is no credential for it";
  EXPECT_EQ(u.read(0, a.id, 0, u.place(0, 0, kSlots, g)).code(), Code::invalid);
  EXPECT_EQ(u.read(0, a.id, 0, u.place(0, 0, 0, g)).code(), Code::stale) << "never written";
  Stripe large = u.stripe(2, 1, kVp, kLayout, 2 * kChunk);
  EXPECT_EQ(u.write(0, large, 0, u.place(0, 0, 0, g)).code(), Code::invalid) << "does not fit the slot";
  ASSERT_TRUE(u.write(0, a, 0, u.place(0, 0, 0, g)).ok());
  EXPECT_EQ(u.read(0, a.id, 0, u.place(0, 0, 0, g), 0, 5).code(), Code::invalid);
  EXPECT_EQ(u.read(0, a.id, 0, u.place(0, 0, 0, g), 0xffffffff, 1).code(), Code::invalid);
  EXPECT_EQ(u.read(0, a.id, 0, u.place(0, 0, 0, g), 0, 0xffffffff).code(), Code::invalid);
  EXPECT_EQ(u.read(0, a.id, 1, u.place(0, 0, 0, g)).code(), Code::stale);
  EXPECT_EQ(u.read(0, u.stripe(3).id, 0, u.place(0, 0, 0, g)).code(), Code::stale);
  auto none = u.read(0, a.id, 0, u.place(0, 0, 0, g), 0, 0);
  ASSERT_TRUE(none.ok()) << "just the header";
  EXPECT_EQ(none->blocks.size(), 0u);
  EXPECT_FALSE(none->header.empty());
}

// Volume partition 0 marks a free column; nobody may be it.
TEST_F(SlotTest, NobodyIsVolumePartitionZero) {
  EXPECT_EQ(u.fence(0, 0, 1).code(), Code::invalid);
  EXPECT_EQ(u.fence(0, kVp, 0).code(), Code::invalid);
  EXPECT_EQ(u.claim(0, 0, 0).code(), Code::invalid);
  EXPECT_EQ(u.claim(0, kVp, 0).code(), Code::invalid);
  EXPECT_EQ(u.release(0, 0, 0).code(), Code::invalid);
}

TEST_F(SlotTest, OnesEpochDoesNotReachAnothersSlots) {
  Generation g = begin();
  constexpr VpId kOther = 0x40001;
  ASSERT_TRUE(u.fence(0, kOther, 9).ok());
  Stripe mine = u.stripe(1), theirs = u.stripe(1, 9, kOther);
  auto p = u.place(0, 0, 0, g);
  ASSERT_TRUE(u.write(0, mine, 0, p).ok());
  EXPECT_EQ(u.free(0, mine.id, p, 9, kOther).code(), Code::not_permitted);
  EXPECT_EQ(u.write(0, theirs, 0, u.place(0, 0, 1, g)).code(), Code::not_permitted);
  EXPECT_EQ(u.claim(0, kOther, 9, 0).code(), Code::exists);
  EXPECT_TRUE(u.list(0, kOther, 9)->empty());
  EXPECT_TRUE(u.release(0, kOther, 9).ok());
  EXPECT_TRUE(u.read(0, mine.id, 0, p).ok());
}

// Requirement: FN-03, FN-04, FN-08 switch=no-sled-fence
// Requirement: FN-10
TEST_F(SlotTest, AnOlderEpochIsFencedOffWhateverItAsks) {
  Generation g = begin();
  Stripe a = u.stripe(1), late = u.stripe(2);
  ASSERT_TRUE(u.write(0, a, 0, u.place(0, 0, 0, g)).ok());
  ASSERT_TRUE(u.fence(0, kVp, 3).ok());
  Epoch held = 0;
  EXPECT_EQ(u.fence(0, kVp, 2, &held).code(), Code::fenced);
  EXPECT_EQ(held, 3u);
  Status s = u.write(0, late, 0, u.place(0, 0, 1, g));
  EXPECT_EQ(s.code(), Code::fenced);
  EXPECT_NE(s.text().find("fenced off"), std::string::npos);
  EXPECT_EQ(u.free(0, a.id, u.place(0, 0, 0, g), 1).code(), Code::fenced);
  EXPECT_EQ(u.claim(0, kVp, 1, 1).code(), Code::fenced);
  EXPECT_EQ(u.list(0, kVp, 1).code(), Code::fenced);
  EXPECT_EQ(u.release(0, kVp, 1).code(), Code::fenced);
  EXPECT_EQ(u.write_stripe(0, late, std::vector<fbs::ChunkPlace>{u.place(0, 0, 1, g), u.place(1, 0, 1, g), u.place(2, 0, 1, g), u.place(3, 0, 1, g),
                                                                 u.place(4, 0, 1, g), u.place(5, 0, 1, g)}).status.code(), Code::fenced);
  EXPECT_EQ(slot(1, 3).state(), 0) << "nothing was written";
  EXPECT_GE(u.reported(0, "fenced"), 6u);
}

// The sled's side of it: a new epoch must be made known before it can do anything.
// Requirement: FN-09, P-8.2 switch=no-sled-fence
TEST_F(SlotTest, ANewerEpochMustFenceFirst) {
  Generation g = begin();
  Stripe a = u.stripe(1, 2);
  EXPECT_EQ(u.write(0, a, 0, u.place(0, 0, 0, g)).code(), Code::unavailable);
  EXPECT_EQ(u.claim(0, kVp, 2, 1).code(), Code::unavailable);
  EXPECT_EQ(u.list(0, kVp, 2).code(), Code::unavailable);
  EXPECT_EQ(u.free(0, a.id, u.place(0, 0, 0, g), 2).code(), Code::unavailable);
  ASSERT_TRUE(u.fence(0, kVp, 2).ok());
  EXPECT_TRUE(u.write(0, a, 0, u.place(0, 0, 0, g)).ok());
}

// Requirement: RD-04
TEST_F(SlotTest, ReadsNeedNoEpoch) {
  Generation g = begin();
  Stripe a = u.stripe(1);
  ASSERT_TRUE(u.write(0, a, 0, u.place(0, 0, 0, g)).ok());
  ASSERT_TRUE(u.fence(0, kVp, 9).ok());
  EXPECT_TRUE(u.read(0, a.id, 0, u.place(0, 0, 0, g)).ok());
}

TEST_F(SlotTest, WithoutTheFenceAnOldPrimaryWrites) {
  Generation g = begin();
  ASSERT_TRUE(u.fence(0, kVp, 2).ok());
  Broken rule(Switch::no_sled_fence);
  Stripe late = u.stripe(1);
  EXPECT_TRUE(u.write(0, late, 0, u.place(0, 0, 0, g)).ok()) << "the mutant is what AnOlderEpochIsFencedOffWhateverItAsks notices";
}

// Requirement: FN-12
TEST(Fence, OutlivesRestartsAndTheLossOfADevice) {
  SledUnit u(1, 2);
  ASSERT_TRUE(u.fence(0, kVp, 7).ok());
  for (auto kind : {sim::Crash::process, sim::Crash::power}) {
    ASSERT_TRUE(u.bounce(0, kind).ok());
    EXPECT_EQ(u.fence(0, kVp, 6).code(), Code::fenced);
    EXPECT_EQ(u.list(0, kVp, 6).code(), Code::fenced);
    EXPECT_TRUE(u.list(0, kVp, 7).ok());
  }
  for (int lost = 0; lost < 2; ++lost) {
    SledUnit v(1, 2, 2 + lost);
    ASSERT_TRUE(v.fence(0, kVp, 7).ok());
    v.crash(0);
    // Its metadata region is beyond repair: the other device remembers.
    for (int at = 0; at < 8; ++at) v.disk(0).rot("/dev/disk" + std::to_string(lost), kMetaOffset + at * (kMiB / 2) + 6);
    ASSERT_TRUE(v.restart(0).ok());
    EXPECT_NE(v.report(0).find("\"state\":\"failed\""), std::string::npos);
    EXPECT_EQ(v.fence(0, kVp, 6).code(), Code::fenced);
  }
}

// A device that was away when the epoch began learns of it when it is back, so that it can remember it alone later.
TEST(Fence, SpreadsToADeviceThatWasAway) {
  SledUnit u(1, 2);
  u.crash(0);
  auto* file = u.disk(0).file("/dev/disk1");
  file->locked_by = file;  // another process has it
  ASSERT_TRUE(u.restart(0).ok());
  EXPECT_NE(u.report(0).find("in_use"), std::string::npos);
  ASSERT_TRUE(u.fence(0, kVp, 7).ok());
  ASSERT_TRUE(u.bounce(0).ok());
  u.crash(0);
  auto* first = u.disk(0).file("/dev/disk0");
  first->locked_by = first;
  ASSERT_TRUE(u.restart(0).ok());
  EXPECT_EQ(u.fence(0, kVp, 6).code(), Code::fenced);
}

// The answer to a fence means that nothing older is still on its way to a device.
TEST(Fence, WaitsForWhatIsInProgress) {
  int together = 0;
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    SledUnit u(1, 1, seed);
    ASSERT_TRUE(u.fence(0, kVp, 1).ok());
    auto c = u.claim(0, kVp, 1);
    ASSERT_TRUE(c.ok());
    Generation g = c->slots[0].generation();
    Stripe a = u.stripe(1), b = u.stripe(2);
    ASSERT_TRUE(u.write(0, b, 1, u.place(0, 0, 1, g)).ok());
    u.disk(0).faults.stall = 0.3;
    auto write = u.begin(0, u.write_frame(a, 0, u.place(0, 0, 0, g)));
    auto free = u.begin(0, u.free_frame(b.id, u.place(0, 0, 1, g), 1));
    u.sim.run_for(sim::Duration(u.sim.random().below(800'000)));
    together += !write->has_value() || !free->has_value();
    auto fence = u.begin(0, SledUnit::fence_frame(kVp, 2));
    ASSERT_TRUE(SledUnit::fence_status(u.end(fence)).ok());
    EXPECT_FALSE(u.disk(0).writing()) << "seed " << seed;
    auto l = u.list(0, kVp, 2);
    Status w = u.plain(u.end(write)), f = u.plain(u.end(free));
    ASSERT_TRUE(l.ok());
    if (w.ok()) EXPECT_EQ(l->at(0).slots[0].state(), 1) << "seed " << seed;
    if (f.ok()) EXPECT_EQ(l->at(0).slots[1].state(), 0) << "seed " << seed;
    // What was listed under the new epoch stays as it was.
    auto again = u.list(0, kVp, 2);
    for (std::uint32_t s = 0; s < 3; ++s) {
      EXPECT_EQ(again->at(0).slots[s].state(), l->at(0).slots[s].state()) << "seed " << seed;
      EXPECT_EQ(again->at(0).slots[s].generation(), l->at(0).slots[s].generation()) << "seed " << seed;
    }
  }
  EXPECT_GT(together, 20) << "the schedule that this is about was never met";
}

// The schedule of protocol 8.1: a slot is freed, and then a copy of its first write comes late. True: it got in.
bool late_copy_gets_in(SledUnit& u) {
  EXPECT_TRUE(u.fence(0, kVp, 1).ok());
  auto c = u.claim(0, kVp, 1);
  auto p = u.place(0, 0, 0, c->slots[0].generation());
  Stripe a = u.stripe(1);
  EXPECT_TRUE(u.write(0, a, 0, p).ok());
  EXPECT_TRUE(u.free(0, a.id, p, 1).ok());
  Status late = u.write(0, a, 0, p);
  EXPECT_TRUE(late.ok() || late.code() == Code::stale) << late.to_string();
  return late.ok();
}

TEST(Mutant, FreeWithoutGeneration) {
  for (bool restart : {false, true}) {
    SledUnit good(1), bad(1);
    EXPECT_FALSE(late_copy_gets_in(good));
    if (restart) ASSERT_TRUE(bad.bounce(0).ok());
    Broken rule(Switch::free_without_generation);
    EXPECT_TRUE(late_copy_gets_in(bad));
  }
}

// A write that a power cut tears leaves its slot free as before, written whole or with a bad chunk that reads as
// corrupt, or unreadable; an unreadable one is never written to again until its column is released.
TEST(TornWrite, IsNeverMistaken) {
  int unreadable = 0, written = 0, free = 0, torn_chunks = 0;
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    SledUnit u(1, 1, seed);
    ASSERT_TRUE(u.fence(0, kVp, 1).ok());
    // With many blocks a stripe's header takes more than one block, so that it can tear by itself.
    constexpr Layout kWide{16, 4};
    constexpr std::uint32_t kBytes = 8 * kBlockBytes;
    auto c = u.claim(0, kVp, 1, 0, slot_bytes(kWide, kBytes));
    ASSERT_TRUE(c.ok());
    Generation g = c->slots[0].generation();
    Stripe a = u.stripe(1, 1, kVp, kWide, kBytes), b = u.stripe(2, 1, kVp, kWide, kBytes);
    ASSERT_TRUE(u.write(0, b, 2, u.place(0, 0, 1, g)).ok());
    auto p = u.place(0, 0, 0, g);
    auto pending = u.begin(0, u.write_frame(a, 7, p));
    ASSERT_TRUE(u.sim.run_until([&] { return u.disk(0).writing(); }, 5s));
    ASSERT_TRUE(u.bounce(0).ok());
    auto l = u.list(0, kVp, 1);
    ASSERT_TRUE(l.ok());
    auto state = l->at(0).slots.at(0);
    auto read = u.read(0, a.id, 7, p, 0, 8);
    Status again = u.write(0, a, 7, p);
    if (state.state() == 2) {
      ++unreadable;
      EXPECT_NE(read.code(), Code::ok);
      EXPECT_EQ(again.code(), Code::stale) << "seed " << seed;
      EXPECT_EQ(u.write(0, u.stripe(3, 1, kVp, kWide, kBytes), 7, u.place(0, 0, 0, g + 1)).code(), Code::stale);
      EXPECT_EQ(u.free(0, a.id, p, 1).code(), Code::stale);
      ASSERT_TRUE(u.release(0, kVp, 1).ok());
      auto fresh = u.claim(0, kVp, 1, 0, slot_bytes(kWide, kBytes));
      ASSERT_TRUE(fresh.ok());
      EXPECT_EQ(fresh->slots[0].state(), 0);
      EXPECT_TRUE(u.write(0, u.stripe(3, 1, kVp, kWide, kBytes), 7, u.place(0, 0, 0, fresh->slots[0].generation())).ok());
    } else if (state.state() == 1) {
      ++written;
      torn_chunks += !read.ok();
      if (read.ok()) EXPECT_EQ(std::memcmp(read->blocks.data(), a.chunks[7].data(), kBytes), 0);
      else EXPECT_EQ(read.code(), Code::corrupt) << "seed " << seed;
      EXPECT_EQ(again.code(), read.ok() ? Code::ok : Code::stale) << "seed " << seed;
    } else {
      ++free;
      EXPECT_EQ(read.code(), Code::stale) << "seed " << seed << " " << read.status().to_string();
      EXPECT_TRUE(again.ok());
    }
    if (state.state() != 2) {
      EXPECT_TRUE(u.read(0, b.id, 2, u.place(0, 0, 1, g), 0, 8).ok()) << "the neighbour";
    }
  }
  EXPECT_GT(unreadable, 5);
  EXPECT_GT(written, 5);
  EXPECT_GT(torn_chunks, 2);
  EXPECT_GT(free, 5);
}

// The mark of a freed slot lies in one sector: cut off, it is there or not.
TEST(TornFree, LeavesTheChunkOrAFreeSlot) {
  int freed = 0, kept = 0;
  for (std::uint64_t seed = 1; seed <= 30; ++seed) {
    SledUnit u(1, 1, seed);
    ASSERT_TRUE(u.fence(0, kVp, 1).ok());
    auto c = u.claim(0, kVp, 1);
    Generation g = c->slots[0].generation();
    Stripe a = u.stripe(1);
    auto p = u.place(0, 0, 0, g);
    ASSERT_TRUE(u.write(0, a, 0, p).ok());
    auto pending = u.begin(0, u.free_frame(a.id, p, 1));
    ASSERT_TRUE(u.sim.run_until([&] { return u.disk(0).writing(); }, 5s));
    ASSERT_TRUE(u.bounce(0).ok());
    auto l = u.list(0, kVp, 1);
    auto s = l->at(0).slots.at(0);
    if (s.state() == 0) {
      ++freed;
      EXPECT_EQ(s.generation(), g + 1);
    } else {
      ++kept;
      EXPECT_EQ(s.state(), 1) << "seed " << seed;
      EXPECT_EQ(s.generation(), g);
    }
  }
  EXPECT_GT(freed, 5);
  EXPECT_GT(kept, 5);
}

// What an earlier owner left where the new one's slots begin, headers and data, is nobody's any more.
TEST(Reclaim, AColumnComesClean) {
  SledUnit u(1);
  constexpr VpId kOther = 0x40001;
  ASSERT_TRUE(u.fence(0, kVp, 1).ok());
  ASSERT_TRUE(u.fence(0, kOther, 1).ok());
  auto c = u.claim(0, kVp, 1);
  Generation g = c->slots[0].generation();
  for (std::uint32_t s = 0; s < 20; ++s) ASSERT_TRUE(u.write(0, u.stripe(s + 1), 0, u.place(0, 0, s, g)).ok());
  ASSERT_TRUE(u.release(0, kVp, 1).ok());
  EXPECT_EQ(u.read(0, {kVp, 1, 1}, 0, u.place(0, 0, 0, g)).code(), Code::stale);
  std::uint32_t larger = slot_bytes(kLayout, 2 * kChunk);
  auto d = u.claim(0, kOther, 1, 0, larger);
  ASSERT_TRUE(d.ok()) << d.status().to_string();
  ASSERT_TRUE(u.bounce(0).ok());
  auto l = u.list(0, kOther, 1);
  for (const auto& s : l->at(0).slots) {
    EXPECT_EQ(s.state(), 0) << s.slot();
    EXPECT_GT(s.generation(), g);
  }
  EXPECT_EQ(u.read(0, {kVp, 1, 1}, 0, u.place(0, 0, 0, g)).code(), Code::stale);
  Stripe mine = u.stripe(1, 1, kOther, kLayout, 2 * kChunk);
  EXPECT_TRUE(u.write(0, mine, 0, u.place(0, 0, 0, l->at(0).slots[0].generation())).ok());
}

// FL-11 and architecture section 2: an error on one device leaves the other at work.
TEST(DeviceFailure, DegradesThatDeviceOnly) {
  SledUnit u(1, 2);
  ASSERT_TRUE(u.fence(0, kVp, 1).ok());
  Generation g[2];
  for (std::uint16_t d = 0; d < 2; ++d) {
    auto c = u.claim(0, kVp, 1, 0, slot_bytes(), d);
    ASSERT_TRUE(c.ok());
    g[d] = c->slots[0].generation();
  }
  Stripe a = u.stripe(1), b = u.stripe(2);
  u.disk(0).faults.write_error = 1;
  EXPECT_EQ(u.write(0, a, 0, u.place(0, 0, 0, g[0], 0)).code(), Code::io_error);
  u.disk(0).faults.write_error = 0;
  EXPECT_EQ(u.write(0, a, 0, u.place(0, 0, 1, g[0], 0)).code(), Code::io_error);
  EXPECT_EQ(u.claim(0, kVp, 1, 1, slot_bytes(), 0).code(), Code::io_error);
  EXPECT_TRUE(u.write(0, b, 0, u.place(0, 0, 0, g[1], 1)).ok());
  EXPECT_TRUE(u.read(0, b.id, 0, u.place(0, 0, 0, g[1], 1)).ok());
  auto l = u.list(0, kVp, 1);
  ASSERT_TRUE(l.ok());
  ASSERT_EQ(l->size(), 1u) << "the failed device's columns are out of reach";
  EXPECT_EQ(l->at(0).device, 1);
  EXPECT_TRUE(u.fence(0, kVp, 2).ok()) << "the healthy device keeps it";
  std::string report = u.report(0);
  EXPECT_NE(report.find("\"path\":\"/dev/disk0\",\"state\":\"failed\""), std::string::npos) << report;
  EXPECT_NE(report.find("\"path\":\"/dev/disk1\",\"state\":\"ok\""), std::string::npos) << report;
  EXPECT_GE(u.reported(0, "io_errors"), 3u);
  ASSERT_TRUE(u.bounce(0).ok());
  EXPECT_EQ(u.fence(0, kVp, 1).code(), Code::fenced);
}

// Three devices with a bad sector each, in stripes that have nothing to do with one another, are no three devices lost.
// Requirement: RD-03 switch=bad-sector-fails-device
TEST(DeviceFailure, ABadSectorIsNotTheDevices) {
  SledUnit u(1, 1);
  ASSERT_TRUE(u.fence(0, kVp, 1).ok());
  auto c = u.claim(0, kVp, 1, 0, slot_bytes());
  ASSERT_TRUE(c.ok());
  Generation g = c->slots[0].generation();
  Stripe a = u.stripe(1), b = u.stripe(2);
  ASSERT_TRUE(u.write(0, a, 0, u.place(0, 0, 0, g)).ok());
  ASSERT_TRUE(u.write(0, b, 0, u.place(0, 0, 1, g)).ok());
  u.disk(0).faults.read_error = 1;
  for (int i = 0; i < 50; ++i) EXPECT_EQ(u.read(0, a.id, 0, u.place(0, 0, 0, g)).code(), Code::io_error) << "as often as it is asked for";
  u.disk(0).faults.read_error = 0;
  EXPECT_TRUE(u.read(0, b.id, 0, u.place(0, 0, 1, g)).ok());
  EXPECT_TRUE(u.read(0, a.id, 0, u.place(0, 0, 0, g)).ok());
  EXPECT_NE(u.report(0).find("\"state\":\"ok\""), std::string::npos) << u.report(0);
}

// Nor is it one while a column's headers are read; the slot is not used.
TEST(DeviceFailure, ASlotWhoseHeaderCannotBeReadIsLeftOut) {
  SledUnit u(1, 1);
  ASSERT_TRUE(u.fence(0, kVp, 1).ok());
  ASSERT_TRUE(u.claim(0, kVp, 1, 0, slot_bytes()).ok());
  ASSERT_TRUE(u.bounce(0).ok());
  u.disk(0).faults.read_error = 0.1;
  auto l = u.list(0, kVp, 1);
  u.disk(0).faults.read_error = 0;
  ASSERT_TRUE(l.ok());
  ASSERT_EQ(l->size(), 1u);
  auto unreadable = std::count_if(l->at(0).slots.begin(), l->at(0).slots.end(), [](const auto& s) { return s.state() == 2; });
  EXPECT_GT(unreadable, 0);
  EXPECT_LT(unreadable, static_cast<long>(l->at(0).slots.size()));
}

TEST(DeviceFailure, WhereNothingReadsAnyMoreIsGone) {
  SledUnit u(1, 1);
  ASSERT_TRUE(u.fence(0, kVp, 1).ok());
  ASSERT_TRUE(u.claim(0, kVp, 1, 0, slot_bytes()).ok());
  ASSERT_TRUE(u.bounce(0).ok());
  u.disk(0).faults.read_error = 1;
  (void)u.list(0, kVp, 1);
  EXPECT_NE(u.report(0).find("\"state\":\"failed\""), std::string::npos) << u.report(0);
}

// Requirement: P-8.6
TEST(DeviceFailure, RotIsReportedNotReturned) {
  SledUnit u(1);
  ASSERT_TRUE(u.fence(0, kVp, 1).ok());
  auto c = u.claim(0, kVp, 1);
  auto p = u.place(0, 0, 0, c->slots[0].generation());
  Stripe a = u.stripe(1);
  ASSERT_TRUE(u.write(0, a, 0, p).ok());
  u.disk(0).rot("/dev/disk0", SledUnit::slot_at(0, 0) + kBlockBytes + 2 * kBlockBytes + 77);
  EXPECT_EQ(u.read(0, a.id, 0, p).code(), Code::corrupt);
  EXPECT_TRUE(u.read(0, a.id, 0, p, 0, 2).ok()) << "the other blocks are good";
  EXPECT_EQ(u.reported(0, "corrupt"), 1u);
  u.disk(0).rot("/dev/disk0", SledUnit::slot_at(0, 0) + 100);
  EXPECT_EQ(u.read(0, a.id, 0, p).code(), Code::corrupt);
  EXPECT_NE(u.report(0).find("\"state\":\"ok\""), std::string::npos) << "rot is no I/O error";
}

TEST(Start, RefusesAnotherUnitsDeviceAndMoreThanOnePath) {
  SledUnit u(1, 1, 1, [](Options& o) { o.unit = kUnit; });
  u.crash(0);
  SledUnit other(1, 1, 1, [](Options& o) { o.devices.clear(); });
  EXPECT_EQ(other.at_start[0].code(), Code::invalid);
  SledUnit nobody(1, 1, 1, [](Options& o) { o.unit = 0; });
  EXPECT_EQ(nobody.at_start[0].code(), Code::invalid) << "neither unit nor control plane";
  // A superblock of unit 6.
  Superblock s;
  s.unit = kUnit + 1;
  s.sled = 41;
  s.column_bytes = kColumnBytes;
  s.columns = 11;
  s.meta_mib = 4;
  s.id = 77;
  s.crc = crc32c({reinterpret_cast<const std::byte*>(&s), sizeof s});
  std::vector<std::byte> sector(512);
  std::memcpy(sector.data(), &s, sizeof s);
  for (std::uint64_t at : {std::uint64_t{0}, kSecondSuperblock}) u.disk(0).file("/dev/disk0")->write(at, sector, true);
  EXPECT_EQ(u.restart(0).code(), Code::wrong_unit);
}

TEST(Start, DrainAnswersWhatIsInProgress) {
  SledUnit u(1);
  ASSERT_TRUE(u.fence(0, kVp, 1).ok());
  auto c = u.claim(0, kVp, 1);
  Generation g = c->slots[0].generation();
  auto write = u.begin(0, u.write_frame(u.stripe(1), 0, u.place(0, 0, 0, g)));
  ASSERT_TRUE(u.sim.run_until([&] { return u.disk(0).writing(); }, 5s));
  bool drained = false;
  u.sim.world(u.nodes[0]).spawn("drain", [](SledDaemon& d, bool& drained) -> io::Task<void> {
    co_await d.sled.drain();
    drained = true;
  }(*u.daemons[0], drained));
  ASSERT_TRUE(u.sim.run_until([&] { return drained; }, 20s));
  EXPECT_FALSE(u.disk(0).writing());
  EXPECT_TRUE(u.plain(u.end(write)).ok());
}

// Requirement: B-09
TEST(Hostile, FramesOfAnyBytesAreAnswered) {
  SledUnit u(1);
  for (wire::Kind k : {wire::Kind::fence, wire::Kind::list_columns, wire::Kind::claim_column, wire::Kind::release_columns, wire::Kind::write_stripe,
                       wire::Kind::write_chunk, wire::Kind::read_chunk, wire::Kind::free_slot, wire::Kind::replicate}) {
    for (int i = 0; i < 30; ++i) {
      auto bytes = std::make_shared<std::vector<std::uint64_t>>(1 + u.sim.random().below(30));
      for (auto& w : *bytes) w = u.sim.random().below(3) ? u.sim.random().below(64) : u.sim.random().below(~std::uint64_t{0});
      wire::Frame f;
      f.kind = k;
      f.body = {reinterpret_cast<const std::byte*>(bytes->data()), bytes->size() * 8};
      f.body_owner = bytes;
      auto r = u.call(0, std::move(f));
      ASSERT_TRUE(r.ok()) << wire::kind_name(k) << " " << r.status().to_string();
    }
    // Nothing given: the defaults of every field.
    auto empty = u.call(0, wire::make_frame(k, [](auto& b) { return flatbuffers::Offset<void>(b.EndTable(b.StartTable())); }));
    ASSERT_TRUE(empty.ok());
  }
  EXPECT_TRUE(u.fence(0, kVp, 1).ok());
}

}  // namespace
}  // namespace luge::sled::testing
