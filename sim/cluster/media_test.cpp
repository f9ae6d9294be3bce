// What the oracle says of a head's log without asking it is what the head itself finds there when it starts.
#include "sim/cluster/media.hpp"

#include "sim/cluster/unit_fixture.hpp"

namespace luge::sim {
namespace {

class MediaTest : public UnitTest {
 protected:
  MediaTest() {
    fill('A');
    auto write = [](VolumeClient& c, Lba lba) -> Task<void> { EXPECT_TRUE((co_await client::write(c.world, *c.volume, lba * kBlockBytes, filled(4, 'B'))).ok()); };
    for (Lba lba : {16, 32}) sim_.world(client_node_).spawn("write", write(*client_, lba));  // together: one batch
    sim_.run_for(2s);
    head_ = designation().reserves[0];
    first_ = position(head_, 16);
    second_ = position(head_, 32);
    if (second_.offset < first_.offset) std::swap(first_, second_);
  }
  /// Of the records that the head comes back with from its own disk.
  std::set<Media::LoggedRecord> recovered() {
    std::vector<NodeId> all = designation().members();
    VpId vp = designation().vp;
    power_off(all);
    sim_.crash(unit_->control_node(), Crash::power);
    power_on({head_});
    EXPECT_TRUE(sim_.run_until([&] { return unit_->head(head_) && unit_->head(head_)->replica(vp); }, 20s));
    std::set<Media::LoggedRecord> out;
    for (const auto& [lsn, r] : unit_->head(head_)->replica(vp)->records())
      if (r->kind() == head::RecordKind::data) out.insert({vp, lsn, r->header.crc()});
    return out;
  }
  void rot_log(std::uint64_t offset) { sim_.disk(node(head_)).rot("log-data", offset); }

  Media media_{sim_, *unit_};
  NodeId head_ = 0;
  head::LogPosition first_, second_;  // of the last batch
};

TEST_F(MediaTest, ALogIsWholeThatNothingHasHappenedTo) {
  Media::Logged log = media_.logged_data(head_);
  EXPECT_EQ(log.damage, "");
  EXPECT_EQ(log.records.size(), kBlocks / 16 + 2);
  EXPECT_EQ(log.records, recovered());
}

TEST_F(MediaTest, ATornBatchTakesTheWholeRecordsInItAlong) {
  ASSERT_EQ(second_.offset, first_.offset + 4 * kBlockBytes) << "of one batch";
  rot_log(second_.offset + 3 * kBlockBytes);
  Media::Logged log = media_.logged_data(head_);
  EXPECT_EQ(log.damage, "") << "the end of a log, as a power cut leaves it";
  EXPECT_EQ(log.records.size(), kBlocks / 16);
  EXPECT_EQ(log.records, recovered());
}

TEST_F(MediaTest, ABatchThatIsGoneWithOthersBehindItIsDamage) {
  rot_log(position(head_, 63).offset - kBlockBytes);  // of the last part of fill(): its header
  Media::Logged log = media_.logged_data(head_);
  EXPECT_NE(log.damage, "");
  EXPECT_EQ(log.records.size(), kBlocks / 16 + 1) << "those behind it are read all the same";
  recovered();
  EXPECT_TRUE(unit_->head(head_)->replica(designation().vp)->suspect);
}

}  // namespace
}  // namespace luge::sim
