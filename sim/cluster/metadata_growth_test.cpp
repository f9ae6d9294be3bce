// A volume that maps more than its heads' metadata portions were made for: a whole unit in virtual time.
#include "sim/cluster/unit_fixture.hpp"

namespace luge::sim {
namespace {

constexpr std::uint64_t kPages = 256, kMade = 1 << 20;  // of index pages, an image takes as much as the portion has at first
constexpr Lba kPageBlocks = 512;

struct MetadataGrowth : UnitTest {
  explicit MetadataGrowth(std::uint64_t most = 64 << 20, std::uint64_t made = kMade, std::uint32_t clean_fill = 500)
      : UnitTest(3, 8 << 20, [most, made, clean_fill](head::Options& h) {
          h.meta_bytes = made;
          h.clean_fill = clean_fill;
          h.meta_bytes_most = most;
          h.flush_bytes = 256 << 10;
          h.flush_idle = 1s;
        }, 3, kPages * kPageBlocks * kBlockBytes) {}
  /// Four blocks of each page.
  void round(std::uint64_t number) {
    for (std::uint64_t p = 0; p < kPages && !HasFailure(); ++p) write(p * kPageBlocks + number * 4, 4, static_cast<char>('a' + number));
  }
  std::uint64_t portion(NodeId head) { return sim_.disk(node(head)).file("log-meta")->size; }
  char first_byte(Lba lba) {
    char byte = '!';
    auto task = [lba](VolumeClient& c, char& out) -> Task<void> {
      auto r = co_await client::read(c.world, *c.volume, lba * kBlockBytes, kBlockBytes);
      if (r.ok()) out = static_cast<char>(r->data()[0]);
    };
    sim_.run(client_node_, task(*client_, byte), 60s);
    return byte;
  }
};

struct MetadataBounded : MetadataGrowth {
  MetadataBounded() : MetadataGrowth(0) {}
};

// Requirement: P-10.3 switch=log-never-grows
TEST_F(MetadataGrowth, WritesGoOnWhateverTheVolumeMaps) {
  for (std::uint64_t n = 0; n < 10; ++n) round(n);
  ASSERT_FALSE(HasFailure());
  for (NodeId head = kFirstHead; head < kFirstHead + 3; ++head) EXPECT_GE(portion(head), 4 * kMade) << name(head);
  EXPECT_EQ(text("state"), "open");
  power_off({kFirstHead, kFirstHead + 1, kFirstHead + 2});
  power_on({kFirstHead, kFirstHead + 1, kFirstHead + 2});
  ASSERT_TRUE(all_required());
  for (std::uint64_t p = 0; p < kPages; p += 37) EXPECT_EQ(first_byte(p * kPageBlocks + 4 * 7 + 1), 'a' + 7) << p;
  round(10);
}

// The image takes eight of its twenty segments, for of its parts a segment has room for one. Cleaning begins late: the records of before the
// first image fill all that is not kept for it.
struct MetadataOfAFixedSize : MetadataGrowth {
  MetadataOfAFixedSize() : MetadataGrowth(0, 5 << 20, 700) {}
};

// Requirement: P-10.3 switch=images-get-a-share
TEST_F(MetadataOfAFixedSize, IsEnoughWhereImagesTakeMoreThanAShare) {
  round(0);
  for (std::uint64_t i = 0; i < 1500 && !HasFailure(); ++i)  // a batch each
    on_client([=](VolumeClient& c) { return client::trim(c.world, *c.volume, (i % kPages * kPageBlocks + 100) * kBlockBytes, kBlockBytes); });
  ASSERT_FALSE(HasFailure());
  for (NodeId head = kFirstHead; head < kFirstHead + 3; ++head) EXPECT_EQ(portion(head), 5u << 20) << name(head);
  power_off({kFirstHead, kFirstHead + 1, kFirstHead + 2});
  power_on({kFirstHead, kFirstHead + 1, kFirstHead + 2});
  ASSERT_TRUE(all_required());
  for (std::uint64_t p = 0; p < kPages; p += 37) EXPECT_EQ(first_byte(p * kPageBlocks + 1), 'a') << p;
}

struct IdleVolumes : UnitTest {
  IdleVolumes() : UnitTest(3, 8 << 20, [](head::Options& h) {
    h.meta_bytes = 2 << 20;
    h.meta_bytes_most = 0;
  }) {}
  /// Metadata records, one batch each.
  void trims(std::uint64_t count) {
    for (std::uint64_t i = 0; i < count && !HasFailure(); ++i)
      on_client([=](VolumeClient& c) { return client::trim(c.world, *c.volume, i % kBlocks * kBlockBytes, kBlockBytes); });
  }
};

// Each becomes idle when others have filled the next segment: its last image would hold that one.
// Requirement: P-10.3 switch=idle-images-stay
TEST_F(IdleVolumes, DoNotHoldTheMetadataLogForGood) {
  for (int i = 0; i < 16 && !HasFailure(); ++i) {
    EXPECT_TRUE(unit_->control()->volumes().create({"idle-" + std::to_string(i), kBlocks * kBlockBytes, {2, 1}, 3}).ok());
    trims(90);
  }
  trims(200);
  EXPECT_GT(times_reached(Path::metadata_gathered), 0u);
}

struct UncleanedLog : UnitTest {
  UncleanedLog() : UnitTest(3, 4 << 20, [](head::Options& h) {
    h.meta_bytes_most = 0;
    h.clean_fill = 2000;  // never
  }) {}
  Result<std::uint64_t> flush() {
    std::optional<Result<std::uint64_t>> out;
    auto task = [](control::Control& c, std::optional<Result<std::uint64_t>>& out) -> Task<void> { out = co_await c.volumes().flush("v", 20s); };
    sim_.world(unit_->control_node()).spawn("flush", task(*unit_->control(), out));
    sim_.run_until([&] { return out.has_value(); }, 30s);
    return out.value_or(Status(Code::timed_out, "no answer"));
  }
};

// What clients ask for stops short of the end of a metadata portion: a flush, which frees the data portion, goes on in what is left.
// Requirement: P-10.3 switch=index-without-reserve
TEST_F(UncleanedLog, LeavesRoomForAFlush) {
  write(0, 16, 'A');
  auto task = [](VolumeClient& c) -> Task<void> {
    for (int i = 0; i < 4000; ++i) (void)co_await client::trim(c.world, *c.volume, 32 * kBlockBytes, kBlockBytes);
  };
  client_->world.spawn("trims", task(*client_));
  sim_.run_for(60s);
  auto left = flush();
  ASSERT_TRUE(left.ok()) << left.status().to_string();
  EXPECT_EQ(*left, 0u);
  EXPECT_NE(text("reason").find("metadata log is full"), std::string::npos) << text("state") << ": " << text("reason");
}

// Without room the user is told what it is that is full.
TEST_F(MetadataBounded, WhereItMayNotGrowTheVolumeSaysWhatItWaitsFor) {
  auto task = [](VolumeClient& c) -> Task<void> {
    for (std::uint64_t n = 0; n < 10; ++n)
      for (std::uint64_t p = 0; p < kPages; ++p) (void)co_await client::write(c.world, *c.volume, (p * kPageBlocks + n * 4) * kBlockBytes, filled(4, 'a'));
  };
  client_->world.spawn("writer", task(*client_));
  bool waits = sim_.run_until([&] { return text("reason").find("metadata log is full") != std::string::npos; }, 120s);
  EXPECT_TRUE(waits) << text("state") << ": " << text("reason");
  for (NodeId head = kFirstHead; head < kFirstHead + 3; ++head) EXPECT_EQ(portion(head), kMade);
}

}  // namespace
}  // namespace luge::sim
