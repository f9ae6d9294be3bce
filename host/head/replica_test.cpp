// Index, sessions and replica: what committed records add up to.
#include "head/replica.hpp"

#include <cstring>
#include <gtest/gtest.h>

#include <random>

#include "base/crc32c.hpp"
#include "switches/switches.hpp"

namespace luge::head {
namespace {

RecordPtr data(LogPoint at, Lba lba, std::uint32_t blocks, const RequestId& id = {}) {
  Buffer payload = Buffer::zeros(blocks * kBlockBytes);
  std::vector<std::uint32_t> crcs;
  crc32c_blocks(payload.bytes(), crcs);
  return make_record(1, at, RecordKind::data, lba, blocks, id, std::string(reinterpret_cast<const char*>(crcs.data()), crcs.size() * 4), payload);
}

RecordPtr index_record(LogPoint at, std::uint64_t number, const std::vector<fbs::Placement>& placements,
                       std::vector<fbs::ChunkPlace> places = std::vector<fbs::ChunkPlace>(6)) {
  flatbuffers::FlatBufferBuilder b;
  fbs::StripeId id(1, at.epoch, number);
  auto p = b.CreateVectorOfStructs(places);
  std::vector<flatbuffers::Offset<fbs::Stripe>> stripes{fbs::CreateStripe(b, number, &id, 4, 2, 131072, p, 0)};
  auto sv = b.CreateVector(stripes);
  auto pv = b.CreateVectorOfStructs(placements);
  auto nv = b.CreateVector(std::vector<std::uint64_t>(placements.size(), number));
  b.Finish(fbs::CreateIndexRecord(b, sv, pv, nv));
  return make_record(1, at, RecordKind::index, 0, 0, {}, std::string(reinterpret_cast<const char*>(b.GetBufferPointer()), b.GetSize()), {});
}

struct Fixture : ::testing::Test {
  Fixture() : r(1) {
    r.designation.blocks = 1 << 20;
    r.release = [this](Portion p, std::uint32_t, Lsn) { ++(p == Portion::data ? data_released : meta_released); };
    add(make_record(1, {1, 1}, RecordKind::epoch_start, 0, 0, {}, {}, {}));
  }
  void add(RecordPtr rec, bool commit = true) {
    r.append(rec);
    rec->durable = true;
    r.on_durable(*rec);
    if (commit) r.advance_commit(rec->lsn());
  }
  LogPoint next() { return {epoch, r.last().lsn + 1}; }
  Epoch epoch = 1;
  Replica r;
  int data_released = 0, meta_released = 0;
};

// Requirement: P-2.2
TEST_F(Fixture, OnlyCommittedRecordsReachTheIndex) {
  add(data(next(), 10, 2), false);
  EXPECT_TRUE(r.index().get(10).hole());
  EXPECT_EQ(r.newest(10).tail, 2u);
  r.advance_commit(2);
  EXPECT_EQ(r.index().get(10), Entry::at_lsn(2));
  EXPECT_EQ(r.newest(10).tail, 0u);
}

// Requirement: GC-01, P-2.2
TEST_F(Fixture, OverwrittenRecordsGiveTheirSpaceBackOnlyWhenCommitted) {
  add(data(next(), 10, 1));
  add(data(next(), 10, 1), false);
  EXPECT_EQ(data_released, 0);
  r.advance_commit(3);
  EXPECT_EQ(data_released, 1);
}

// A replica of its own gets a record that another has, durable and committed.
void follow(Replica& to, const Record& record) {
  auto copy = std::make_shared<Record>(record);
  copy->live = 0;
  copy->durable = true;
  to.append(copy);
  to.on_durable(*copy);
  to.advance_commit(copy->lsn());
}

// Feeds `image` of `from`, with the unflushed records that it names beyond `base`, to `to`.
void feed(const Replica& from, Replica& to, Lsn base, Replica::ImageFor whom = Replica::ImageFor::log) {
  Replica::Image image = from.save_image(base, whom);
  for (std::size_t i = 0; i + 1 < image.bodies.size(); ++i) ASSERT_TRUE(to.load_image(image.bodies[i].first, image.bodies[i].second));
  for (const auto& [lsn, r] : from.records()) {
    if (lsn <= base || lsn > image.point.lsn || r->kind() != RecordKind::data || r->live == 0) continue;
    auto copy = std::make_shared<Record>(*r);
    copy->live = 0;
    to.stage(copy);
  }
  ASSERT_EQ(to.missing_unflushed_while_loading(), 0u);
  ASSERT_TRUE(to.load_image(image.bodies.back().first, image.bodies.back().second));
}

// Requirement: P-4.6
TEST_F(Fixture, ANewHistoryMarksAsLostWhatTheLogHasNot) {
  add(data(next(), 10, 2));
  add(data(next(), 20, 1));
  Replica::Image image = r.save_image();
  // Recovered with its image, but without the record of blocks 10 and 11; what follows it is here.
  Replica damaged(1);
  damaged.designation.blocks = 1 << 20;
  for (auto& [kind, body] : image.bodies) ASSERT_TRUE(damaged.load_image(kind, body));
  auto kept = std::make_shared<Record>(*r.find(3));
  damaged.adopt_unflushed(kept);
  damaged.recount();
  ASSERT_EQ(damaged.missing_unflushed(), 2u);
  EXPECT_EQ(damaged.begin_history({9, 1000}, {{20, 2}}), 2u);
  EXPECT_TRUE(damaged.index().get(10).is_lost());
  EXPECT_TRUE(damaged.index().get(11).is_lost());
  EXPECT_EQ(damaged.index().get(20), Entry::at_lsn(3));
  EXPECT_EQ(damaged.missing_unflushed(), 0u);
  EXPECT_EQ(damaged.last(), (LogPoint{9, 1000}));
  EXPECT_EQ(damaged.lowest_base(), 1000u) << "nobody catches up from before";
  // Written again, it is a block like any other.
  auto cure = data({9, 1001}, 10, 1);
  damaged.append(cure);
  cure->durable = true;
  damaged.on_durable(*cure);
  damaged.advance_commit(1001);
  EXPECT_EQ(damaged.index().get(10), Entry::at_lsn(1001));
  EXPECT_EQ(damaged.unflushed_blocks(), 2u);
}

// Requirement: P-3.4
TEST_F(Fixture, CatchUpByWhatChangedGivesTheSameReplica) {
  Replica member(1);
  member.designation.blocks = 1 << 20;
  auto both = [&](const RecordPtr& rec) {
    add(rec);
    follow(member, *rec);
  };
  auto start = make_record(1, {1, 1}, RecordKind::epoch_start, 0, 0, {}, {}, {});
  start->durable = true;
  member.append(start);
  member.on_durable(*start);
  member.advance_commit(1);
  both(data(next(), 0, 8));
  both(data(next(), 5000, 4));
  both(data(next(), 100000, 2));
  both(data(next(), 300000, 1));
  Lsn base = r.commit();
  // What the member misses: an overwrite, a flush, a whole page trimmed, a fresh write; their records are gone.
  add(data(next(), 2, 3));
  add(index_record(next(), 1, {{5000, 3, 0, 0}, {5001, 3, 1, 0}}));
  add(make_record(1, next(), RecordKind::trim, 99840, 1024, {}, {}, {}));
  add(data(next(), 7777, 1));
  add(data(next(), 7777, 1));
  ASSERT_GT(r.window(), base + 1);
  Replica::Image image = r.save_image(base);
  EXPECT_EQ(image.pages, 4u) << "pages of blocks 0, 5000, 99840.. (dropped) and 7777; not that of 300000";
  feed(r, member, base);
  member.apply_delta();
  EXPECT_EQ(member.index().digest(), r.index().digest());
  EXPECT_EQ(member.commit(), r.commit());
  EXPECT_EQ(member.last(), r.last());
  EXPECT_EQ(member.unflushed_blocks(), r.unflushed_blocks());
  EXPECT_EQ(member.stripe(1)->live_blocks, 2u);
  EXPECT_EQ(member.index().page_count(), r.index().page_count());
  both(data(next(), 1, 1));  // and it goes on from there
  EXPECT_EQ(member.index().digest(), r.index().digest());
}

// B is made anew from a whole image after a part of a page was trimmed, so that the page is there and has only holes; it tells M, which
// has missed the trim, of it.
TEST_F(Fixture, WhoIsMadeAnewKnowsWhenAPageBecameHoles) {
  Replica member(1), anew(1);
  member.designation.blocks = anew.designation.blocks = 1 << 20;
  auto start = make_record(1, {1, 1}, RecordKind::epoch_start, 0, 0, {}, {}, {});
  start->durable = true;
  member.append(start);
  member.on_durable(*start);
  member.advance_commit(1);
  for (const RecordPtr& rec : {data(next(), 5, 1)}) {
    add(rec);
    follow(member, *rec);
  }
  auto flushed = index_record(next(), 1, {{5, r.last().lsn, 0, 0}});
  add(flushed);
  follow(member, *flushed);
  Lsn base = r.commit();
  add(make_record(1, next(), RecordKind::trim, 0, 256, {}, {}, {}));
  feed(r, anew, 0, Replica::ImageFor::member);
  ASSERT_EQ(anew.index().digest(), r.index().digest());
  ASSERT_LE(anew.lowest_base(), base);
  feed(anew, member, base, Replica::ImageFor::member);
  member.apply_delta();
  EXPECT_TRUE(member.index().get(5).hole()) << "trimmed, and acknowledged";
  EXPECT_EQ(member.index().digest(), r.index().digest());
}

// A writes; B misses some of it and is told; C has missed more and is told by B, change by change, whichever point C stands at.
// Requirement: MC-20
TEST_F(Fixture, WhatAReplicaWasToldItTellsOnChangeByChange) {
  std::mt19937_64 rng(7);
  std::vector<RecordPtr> all{make_record(1, {1, 1}, RecordKind::epoch_start, 0, 0, {}, {}, {})};
  auto some = [&](int n) {
    for (int i = 0; i < n; ++i) {
      Lba at = rng() % 6000;
      RecordPtr rec = i % 9 == 4 ? make_record(1, next(), RecordKind::trim, at, 1 + rng() % 600, {}, {}, {}) : data(next(), at, 1 + rng() % 8);
      all.push_back(std::make_shared<Record>(*rec));
      add(rec);
    }
  };
  auto follower = [&](Lsn until) {
    auto out = std::make_unique<Replica>(1);
    out->designation.blocks = 1 << 20;
    for (const RecordPtr& rec : all) {
      if (rec->lsn() > until) break;
      follow(*out, *rec);
    }
    return out;
  };
  some(60);
  for (int round = 0; round < 20; ++round) {
    Lsn lagging = r.commit() - rng() % 30, base = r.commit();
    some(40);
    auto b = follower(base), c = follower(lagging);
    feed(r, *b, base, Replica::ImageFor::member);
    b->apply_delta();
    ASSERT_EQ(b->index().digest(), r.index().digest());
    ASSERT_TRUE(b->remembers_since(lagging));
    // One of two goes on as a primary before it tells.
    if (round % 2 == 1) {
      some(5);
      for (std::size_t i = all.size() - 5; i < all.size(); ++i) follow(*b, *all[i]);
    }
    EXPECT_EQ(b->save_image(lagging, Replica::ImageFor::member).pages, 0u);
    feed(*b, *c, lagging, Replica::ImageFor::member);
    c->apply_delta();
    ASSERT_EQ(c->index().digest(), r.index().digest()) << "round " << round;
    ASSERT_EQ(c->unflushed_blocks(), r.unflushed_blocks());
  }
}

TEST_F(Fixture, ACatchUpThatIsNotCompletedLeavesTheReplicaAsItWas) {
  add(data(next(), 0, 8));
  Replica member(1);
  member.designation.blocks = 1 << 20;
  int released = 0;
  member.release = [&](Portion, std::uint32_t, Lsn) { ++released; };
  std::uint64_t before = member.index().digest();
  Replica::Image image = r.save_image(1);
  ASSERT_TRUE(member.load_image(image.bodies[0].first, image.bodies[0].second));
  auto copy = std::make_shared<Record>(*r.find(2));
  member.stage(copy);
  EXPECT_TRUE(member.staged(*copy));
  member.abandon_loading();
  EXPECT_FALSE(member.staged(*copy));
  EXPECT_EQ(released, 1);
  EXPECT_EQ(member.index().digest(), before);
  EXPECT_EQ(member.commit(), 0u);
}

// Requirement: P-7.2 switch=unconditional-index-record
TEST_F(Fixture, IndexRecordAppliesOnlyWhereTheEntryIsStillThatLsn) {
  add(data(next(), 10, 2));                            // LSN 2
  add(data(next(), 11, 1));                            // LSN 3 overwrites block 11
  add(index_record(next(), 1, {{10, 2, 0, 0}, {11, 2, 1, 0}}));
  EXPECT_EQ(r.index().get(10), Entry::at_stripe(1, 0));
  EXPECT_EQ(r.index().get(11), Entry::at_lsn(3));
  EXPECT_EQ(r.stripe(1)->live_blocks, 1u);
  EXPECT_EQ(data_released, 1);
}

// Requirement: P-8.5, P-7.1
TEST_F(Fixture, AWidenedStripeKeepsItsBlocks) {
  add(data(next(), 10, 2));
  add(index_record(next(), 1, {{10, 2, 0, 0}, {11, 2, 1, 0}}));
  EXPECT_EQ(r.narrow_stripes().size(), 1u) << "its places have no sleds";
  flatbuffers::FlatBufferBuilder b;
  fbs::StripeId id(1, 1, 1);
  std::vector<fbs::ChunkPlace> places;
  for (std::uint32_t i = 0; i < 6; ++i) places.emplace_back(i + 1, 0, 0, 0, 0, 1);
  auto p = b.CreateVectorOfStructs(places);
  std::vector<flatbuffers::Offset<fbs::Stripe>> stripes{fbs::CreateStripe(b, 1, &id, 4, 2, 131072, p, 0)};
  auto sv = b.CreateVector(stripes);
  b.Finish(fbs::CreateIndexRecord(b, sv));
  add(make_record(1, next(), RecordKind::index, 0, 0, {}, std::string(reinterpret_cast<const char*>(b.GetBufferPointer()), b.GetSize()), {}));
  EXPECT_TRUE(r.narrow_stripes().empty());
  EXPECT_EQ(r.stripe(1)->live_blocks, 2u);
  EXPECT_EQ(r.stripe(1)->places[5].sled(), 6u);
  EXPECT_EQ(r.index().get(10), Entry::at_stripe(1, 0));
  EXPECT_EQ(r.stripe(1)->changed, r.commit());
}

TEST_F(Fixture, UnconditionalIndexRecordWouldBringTheOldBlockBack) {
  set_broken(Switch::unconditional_index_record, true);
  add(data(next(), 11, 1));
  add(data(next(), 11, 1));
  add(index_record(next(), 1, {{11, 2, 0, 0}}));
  set_broken(Switch::unconditional_index_record, false);
  EXPECT_NE(r.index().get(11), Entry::at_lsn(3)) << "the twin of the test above";
}

// Requirement: P-2.5
TEST_F(Fixture, TrimMakesHolesAndTruncateTakesTheTailBack) {
  add(data(next(), 0, 8, {1, 1, 5, 1}));
  add(make_record(1, next(), RecordKind::trim, 2, 3, {1, 1, 6, 1}, {}, {}));
  EXPECT_TRUE(r.index().get(3).hole());
  EXPECT_EQ(r.index().get(5), Entry::at_lsn(2));
  add(data(next(), 3, 1, {1, 1, 7, 1}), false);
  EXPECT_TRUE(r.sessions.find(1, 1, 7));
  r.truncate({1, 3});
  EXPECT_EQ(r.last(), (LogPoint{1, 3}));
  EXPECT_EQ(r.newest(3).tail, 0u);
  EXPECT_FALSE(r.sessions.find(1, 1, 7)) << "a dropped request counts as new";
  EXPECT_TRUE(r.sessions.find(1, 1, 6));
}

TEST_F(Fixture, CommonPointIsByEpochStartsNotByLength) {  // protocol 4.3
  add(data(next(), 0, 1));
  add(data(next(), 0, 1));
  add(data(next(), 0, 1));  // 1:4
  std::vector<EpochStart> theirs{{1, 1}, {2, 3}};
  EXPECT_EQ(r.common_point(theirs, {2, 9}), (LogPoint{1, 2}));
  EXPECT_EQ(r.common_point({{1, 1}}, {1, 3}), (LogPoint{1, 3}));
  EXPECT_EQ(r.common_point({{5, 1}}, {5, 3}), (LogPoint{0, 0}));
}

TEST_F(Fixture, AnImageRestoresTheSameCommittedState) {
  std::mt19937_64 rng(1);
  for (int i = 0; i < 500; ++i) {
    add(data(next(), rng() % 4000, 1 + rng() % 4, {1, 1, static_cast<std::uint64_t>(i + 1), static_cast<std::uint64_t>(i > 5 ? i - 5 : 1)}));
    if (i % 50 == 49) {
      std::vector<fbs::Placement> placements;
      for (const auto& [lsn, rec] : r.records())
        if (rec->kind() == RecordKind::data && rec->live > 0 && r.index().get(rec->header.lba()) == Entry::at_lsn(lsn) && placements.size() < 100)
          placements.emplace_back(rec->header.lba(), lsn, static_cast<std::uint32_t>(placements.size()), 0);
      add(index_record(next(), static_cast<std::uint64_t>(i), placements));
    }
  }
  Replica::Image image = r.save_image();
  Replica copy(1);
  copy.designation.blocks = r.designation.blocks;
  for (auto& [kind, body] : image.bodies) ASSERT_TRUE(copy.load_image(kind, body));
  for (const auto& [lsn, rec] : r.records())
    if (rec->kind() == RecordKind::data && rec->live > 0) copy.adopt_unflushed(std::make_shared<Record>(*rec));
  EXPECT_EQ(copy.missing_unflushed(), 0u);
  copy.recount();
  EXPECT_EQ(copy.index().digest(), r.index().digest());
  EXPECT_EQ(copy.unflushed_blocks(), r.unflushed_blocks());
  EXPECT_EQ(copy.last(), r.last());
  EXPECT_EQ(copy.sessions.find(1, 1, 499), r.sessions.find(1, 1, 499));
  for (const auto& [n, row] : r.stripes()) EXPECT_EQ(copy.stripe(n)->live_blocks, row.live_blocks);
}

// Told while everything changes under it: what is told is what was committed when it was cut.
TEST_F(Fixture, AnImageIsOfOneMomentHoweverLongItTakesToTell) {
  std::mt19937_64 rng(4);
  auto change = [&](std::uint64_t stripe) {
    for (int i = 0; i < 200; ++i) add(data(next(), rng() % 60000, 1 + rng() % 4));
    std::vector<fbs::Placement> placements;
    for (const auto& [lsn, rec] : r.records())
      if (rec->kind() == RecordKind::data && placements.size() < 100) placements.emplace_back(rec->header.lba(), lsn, static_cast<std::uint32_t>(placements.size()), 0);
    add(index_record(next(), stripe, placements));
    add(make_record(1, next(), RecordKind::trim, rng() % 60000, 2000, {}, {}, {}));
  };
  for (std::uint64_t i = 0; i < 40; ++i) change(i);
  Replica same(1);
  same.designation.blocks = r.designation.blocks;
  std::uint64_t digest = r.index().digest(), stripes = r.stripes().size();
  ImageCut cut = r.cut_image();
  std::size_t told = 0;
  for (; auto body = cut.next(); ++told) {
    ASSERT_TRUE(same.load_image(body->first, body->second));
    change(100 + told);
  }
  EXPECT_GT(told, 4u) << "it is told in several parts";
  EXPECT_FALSE(cut.next());
  EXPECT_NE(r.index().digest(), digest);
  EXPECT_EQ(same.index().digest(), digest);
  EXPECT_EQ(same.index().digest_of_entries(), digest);
  EXPECT_EQ(same.stripes().size(), stripes);
  EXPECT_EQ(same.commit(), cut.point().lsn);
}

// What the index and the stripe table say of each sled, counted afresh.
std::map<NodeId, std::pair<std::uint64_t, std::uint64_t>> counted_shares(const Replica& r) {
  std::map<NodeId, std::pair<std::uint64_t, std::uint64_t>> out;
  for (const auto& [number, row] : r.stripes())
    for (const fbs::ChunkPlace& p : row.places)
      if (p.sled() != 0) ++out[p.sled()].second;
  r.index().for_each_page([&](std::uint64_t, const Index::Page& page) {
    for (Entry e : page)
      if (e.is_stripe()) ++out[r.stripe(e.stripe())->places[e.block() / 32].sled()].first;  // chunks of 128 KiB
  });
  return out;
}

void expect_shares(const Replica& r, const char* when) {
  auto want = counted_shares(r);
  ASSERT_EQ(r.sled_shares().size(), want.size()) << when;
  for (const auto& [sled, share] : r.sled_shares()) {
    EXPECT_EQ(share.live_blocks, want[sled].first) << when << ", sled " << sled;
    EXPECT_EQ(share.chunks, want[sled].second) << when << ", sled " << sled;
  }
}

TEST_F(Fixture, SharesOfTheSledsAreWhatTheIndexSays) {
  std::mt19937_64 rng(3);
  std::uint64_t live = 0;
  for (std::uint64_t i = 0; i < 600; ++i) {
    add(data(next(), rng() % 3000, 1 + rng() % 16));
    if (i % 9 == 8) add(make_record(1, next(), RecordKind::trim, rng() % 3000, 1 + static_cast<std::uint32_t>(rng() % 64), {}, {}, {}));
    if (i % 20 != 19) continue;
    std::vector<fbs::Placement> placements;
    for (const auto& [lsn, rec] : r.records())
      for (std::uint32_t b = 0; rec->kind() == RecordKind::data && b < rec->header.blocks() && placements.size() < 128; ++b)
        placements.emplace_back(rec->header.lba() + b, lsn, static_cast<std::uint32_t>(placements.size()), 0);
    std::vector<fbs::ChunkPlace> places;
    for (std::uint32_t c = 0; c < 6; ++c)  // the last chunk of a narrower stripe was not written
      places.emplace_back(c == 5 && i % 40 == 19 ? 0 : 101 + (i / 20 + c) % 8, 0, 0, 0, 0, 1);
    add(index_record(next(), i, placements, places));
    expect_shares(r, "while it runs");
    live = std::max(live, r.sled_shares().begin()->second.live_blocks);
  }
  EXPECT_GT(live, 100u);
  Replica copy(1);
  copy.designation.blocks = r.designation.blocks;
  for (auto& [kind, body] : r.save_image().bodies) ASSERT_TRUE(copy.load_image(kind, body));
  copy.recount();
  expect_shares(copy, "after an image");
  r.reset();
  EXPECT_TRUE(r.sled_shares().empty());
}

TEST(Index, HoldsWhatAMapHolds) {
  std::mt19937_64 rng(2);
  Index index;
  std::map<Lba, std::uint64_t> model;
  for (int i = 0; i < 20000; ++i) {
    Lba lba = rng() % 300000;
    if (rng() % 20 == 0) {
      std::uint64_t n = rng() % 5000;
      index.clear(lba, n, 1, [&](Lba l, Entry e) {
        ASSERT_EQ(model.at(l), e.lsn());
        model.erase(l);
      });
      ASSERT_TRUE(model.lower_bound(lba) == model.lower_bound(lba + n));
    } else {
      index.set(lba, Entry::at_lsn(static_cast<Lsn>(i + 1)), static_cast<Lsn>(i + 1));
      model[lba] = static_cast<std::uint64_t>(i + 1);
    }
  }
  std::size_t seen = 0;
  index.for_each_page([&](std::uint64_t number, const Index::Page& page) {
    for (std::uint32_t i = 0; i < Index::kFanOut; ++i)
      if (!page[i].hole()) {
        ++seen;
        ASSERT_EQ(model.at(number * Index::kFanOut + i), page[i].lsn());
      }
  });
  EXPECT_EQ(seen, model.size());
}

TEST(Places, GiveBackWhatWasPacked) {
  auto same = [](const fbs::ChunkPlace& a, const fbs::ChunkPlace& b) { return std::memcmp(&a, &b, sizeof a) == 0; };
  std::vector<fbs::ChunkPlace> small, none(3);
  for (std::uint32_t i = 0; i < 6; ++i) small.emplace_back(40 + i, 300 + i, 70000 * i, i, 0, 1);
  std::vector<fbs::ChunkPlace> large(14, fbs::ChunkPlace(0xffffffff, 0xffffffff, 0xffffffff, 0xffff, 0xffff, 0xffffffffffffffff));
  large[13] = {};
  for (const auto& places : {small, none, large, std::vector<fbs::ChunkPlace>()}) {
    Places packed{std::span<const fbs::ChunkPlace>(places)};
    Places copy = packed;
    ASSERT_EQ(copy.size(), places.size());
    for (std::size_t i = 0; i < places.size(); ++i) {
      EXPECT_TRUE(same(copy.at(i), places[i]));
      EXPECT_EQ(copy.sled_of(i), places[i].sled());
    }
    EXPECT_THROW(copy.at(places.size()), std::out_of_range);
    EXPECT_THROW(copy.sled_of(places.size()), std::out_of_range);
    EXPECT_EQ(copy.unpacked().size(), places.size());
  }
  Places one(2);
  one.set(1, large[0]);
  EXPECT_TRUE(same(one[0], fbs::ChunkPlace()));
  EXPECT_TRUE(same(one[1], large[0]));
}

TEST(Index, ASharedRootKeepsWhatItSaw) {  // protocol 7.3
  Index a;
  a.set(5, Entry::at_lsn(1), 1);
  Index b = a.share();
  a.set(5, Entry::at_lsn(2), 2);
  EXPECT_EQ(b.get(5), Entry::at_lsn(1));
  EXPECT_EQ(a.get(5), Entry::at_lsn(2));
}

}  // namespace
}  // namespace luge::head
