// The checkpoint format against damage, what counts as the survivor's history, and images that tell changed entries.
#include <gtest/gtest.h>

#include <cstring>

#include "base/crc32c.hpp"
#include "head/checkpoint_catalog.hpp"
#include "switches/switches.hpp"

namespace luge::head {
namespace {

constexpr VpId kVp = 1;

RecordPtr data(LogPoint at, Lba lba, std::uint32_t blocks) {
  Buffer payload = Buffer::zeros(std::size_t{blocks} * kBlockBytes);
  std::vector<std::uint32_t> crcs;
  crc32c_blocks(payload.bytes(), crcs);
  return make_record(kVp, at, RecordKind::data, lba, blocks, {}, std::string(reinterpret_cast<const char*>(crcs.data()), crcs.size() * 4), payload);
}

struct CheckpointFormat : ::testing::Test {
  CheckpointFormat() : r(kVp) {
    r.designation.blocks = 1 << 20;
    r.designation.history = 7;
    add(make_record(kVp, {3, 1}, RecordKind::epoch_start, 0, 0, {}, {}, {}));
  }
  void add(RecordPtr record) {
    r.append(record);
    record->durable = true;
    r.on_durable(*record);
    r.advance_commit(record->lsn());
  }
  LogPoint next() { return {3, r.last().lsn + 1}; }
  CheckpointHead head(std::uint64_t id, Lsn base = 0, std::uint64_t base_id = 0, std::uint32_t number = 0) {
    CheckpointHead h;
    h.vp = kVp;
    h.history = 7;
    h.epoch = r.last().epoch;
    h.lsn = r.commit();
    h.id = id;
    h.author = 11;
    h.base_id = base_id;
    h.base_lsn = base;
    h.number = number;
    return h;
  }
  std::string encoded(Lsn base = 0, std::uint64_t base_id = 0) {
    return encode_checkpoint(head(99, base, base_id, base != 0), r.save_image(base, Replica::ImageFor::checkpoint).bodies);
  }
  static Bytes bytes(const std::string& s) { return {reinterpret_cast<const std::byte*>(s.data()), s.size()}; }
  CheckpointQuery query() { return {kVp, 7, r.starts(), 0, r.commit(), 1 << 20}; }
  Replica r;
};

// Requirement: MC-10, MC-12, P-9.1
TEST_F(CheckpointFormat, WhatIsWrittenIsRead) {
  add(data(next(), 10, 4));
  std::string whole = encoded();
  auto parsed = parse_checkpoint(bytes(whole));
  ASSERT_TRUE(parsed.ok()) << parsed.status().to_string();
  EXPECT_EQ(parsed->head.point(), (LogPoint{3, 2}));
  EXPECT_TRUE(parse_checkpoint(bytes(whole + std::string(4096, 0))).ok()) << "the rest of its last block";
  Replica copy(kVp);
  copy.designation.blocks = 1 << 20;
  ASSERT_TRUE(load_chain(copy, {parsed->bodies}));
  EXPECT_EQ(copy.index().digest(), r.index().digest());
  EXPECT_EQ(copy.commit(), r.commit());
}

// Requirement: MC-13, P-9.3
TEST_F(CheckpointFormat, AnyByteFlippedOrCutOffIsNoticed) {
  add(data(next(), 10, 2));
  std::string whole = encoded();
  for (std::size_t i = 0; i < whole.size(); ++i) {
    std::string bad = whole;
    bad[i] ^= 0x20;
    EXPECT_FALSE(parse_checkpoint(bytes(bad)).ok()) << "byte " << i;
  }
  for (std::size_t n = 0; n < whole.size(); ++n) EXPECT_EQ(parse_checkpoint(bytes(whole.substr(0, n))).status().code(), Code::corrupt) << n << " bytes";
}

TEST_F(CheckpointFormat, ALaterVersionIsRefusedByName) {
  std::string whole = encoded();
  std::uint16_t later = kCheckpointVersion + 1;
  std::memcpy(whole.data() + offsetof(CheckpointHead, version), &later, sizeof later);
  auto refused = parse_checkpoint(bytes(whole));
  EXPECT_EQ(refused.status().code(), Code::wrong_version);
  EXPECT_NE(refused.status().text().find("version 2 is not known"), std::string::npos) << refused.status().text();
}

// Requirement: MC-13, P-9.1 switch=checkpoint-of-another-history
TEST_F(CheckpointFormat, OnlyWhatLiesOnTheSurvivorsHistoryIsUsed) {
  add(data(next(), 10, 2));
  CheckpointHead good = head(99);
  EXPECT_TRUE(check_history(query(), good).ok());
  auto refused = [&](auto change, const CheckpointQuery& q) {
    CheckpointHead h = good;
    change(h);
    return check_history(q, h).code();
  };
  EXPECT_EQ(refused([](auto& h) { h.vp = 2; }, query()), Code::invalid) << "of another volume";
  EXPECT_EQ(refused([](auto& h) { h.history = 8; }, query()), Code::stale) << "of a history that was given up";
  EXPECT_EQ(refused([](auto& h) { h.epoch = 2; }, query()), Code::stale) << "of an epoch whose tail was dropped";
  EXPECT_EQ(refused([](auto& h) { h.lsn += 1; }, query()), Code::stale) << "beyond what is committed";
  CheckpointQuery late = query();
  late.lowest = good.lsn + 1;
  EXPECT_EQ(refused([](auto&) {}, late), Code::stale) << "nobody can tell what has changed since";
}

// Requirement: P-9.4
TEST_F(CheckpointFormat, AChainOfChangesGivesTheSameIndex) {
  for (Lba lba = 0; lba < 2000; lba += 2) add(data(next(), lba, 1));
  std::vector<ImageBodies> chain{r.save_image(0, Replica::ImageFor::checkpoint).bodies};
  Lsn base = r.commit();
  add(data(next(), 100, 8));
  add(make_record(kVp, next(), RecordKind::trim, 400, 1200, {}, {}, {}));
  add(data(next(), 500, 1));
  Replica::Image changes = r.save_image(base, Replica::ImageFor::checkpoint);
  EXPECT_EQ(changes.pages, 0u) << "entries are less than the pages that they lie in";
  EXPECT_EQ(changes.entries, 9u);
  EXPECT_LT(changes.bytes(), 2000u);
  chain.push_back(changes.bodies);
  Replica copy(kVp);
  copy.designation.blocks = 1 << 20;
  ASSERT_TRUE(load_chain(copy, chain));
  EXPECT_EQ(copy.index().digest(), r.index().digest());
  EXPECT_EQ(copy.commit(), r.commit());
  // What is not remembered is told as pages, with the same result.
  r.forget_changes(base + 1);
  Replica::Image pages = r.save_image(base, Replica::ImageFor::checkpoint);
  EXPECT_EQ(pages.entries, 0u);
  EXPECT_GT(pages.pages, 0u);
  Replica other(kVp);
  other.designation.blocks = 1 << 20;
  ASSERT_TRUE(load_chain(other, {chain[0], pages.bodies}));
  EXPECT_EQ(other.index().digest(), r.index().digest());
  EXPECT_FALSE(load_chain(other, {changes.bodies})) << "changes alone are no state";
}

// A survivor that has started again from an image can still tell what is newer than a checkpoint from before it.
TEST_F(CheckpointFormat, AnImageKeepsWhenEachPageHasChanged) {
  for (Lba page = 0; page < 6; ++page) add(data(next(), page * Index::kFanOut, 1));
  Lsn base = r.commit();
  add(data(next(), 2 * Index::kFanOut + 7, 1));
  add(make_record(kVp, next(), RecordKind::trim, 4 * Index::kFanOut, Index::kFanOut, {}, {}, {}));
  Replica again(kVp);
  again.designation.blocks = 1 << 20;
  ASSERT_TRUE(load_chain(again, {r.save_image().bodies}));
  EXPECT_EQ(again.index().digest(), r.index().digest());
  EXPECT_EQ(again.logged(), r.logged());
  EXPECT_EQ(again.lowest_base(), r.lowest_base());
  Replica::Image newer = again.save_image(base, Replica::ImageFor::member);
  EXPECT_EQ(newer.pages, 2u) << "one that has changed, one that has become a hole";
  EXPECT_EQ(newer.entries, 0u) << "of single changes it knows nothing any more";
  EXPECT_EQ(again.save_image(base - 3, Replica::ImageFor::member).pages, 4u);
}

// Requirement: MC-12, P-9.1 switch=checkpoint-covers-uncommitted
TEST_F(CheckpointFormat, WhatIsNotCommittedIsNotCovered) {
  add(data(next(), 10, 1));
  Lsn committed = r.commit();
  RecordPtr tail = data(next(), 20, 1);
  r.append(tail);
  tail->durable = true;
  r.on_durable(*tail);
  EXPECT_EQ(r.save_image(0, Replica::ImageFor::checkpoint).point.lsn, committed);
}

}  // namespace
}  // namespace luge::head
