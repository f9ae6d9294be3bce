#include "vmstate/volume_store.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <map>
#include <random>

#include "base/crc32c.hpp"
#include "io/testing.hpp"
#include "switches/switches.hpp"
#include "vmstate/image_testing.hpp"

namespace luge::vmstate {
namespace {

using testing::kShape, testing::read_file;

/// A volume whose power fails: after `writes_left` writes nothing arrives any more, and the one that is cut off arrives in part.
struct Volume {
  std::vector<std::byte> content = std::vector<std::byte>(4 << 20);
  int writes_left = -1;  // -1: it doesn't fail
  int writes = 0;
};

class VolumeFile final : public BlockFile {
 public:
  explicit VolumeFile(Volume& v) : volume_(v) {}
  const std::string& name() const override { return name_; }
  std::uint64_t bytes() const override { return volume_.content.size(); }
  Status read(std::uint64_t offset, std::span<std::byte> into) override {
    std::memcpy(into.data(), volume_.content.data() + offset, into.size());
    return Status();
  }
  Status write(std::uint64_t offset, Bytes from) override {
    ++volume_.writes;
    if (volume_.writes_left == 0) {
      std::memcpy(volume_.content.data() + offset, from.data(), from.size() / 1024 * 512);
      volume_.writes_left = -2;
    }
    if (volume_.writes_left == -2) return Status(Code::io_error, "the power has failed");
    if (volume_.writes_left > 0) --volume_.writes_left;
    std::memcpy(volume_.content.data() + offset, from.data(), from.size());
    return Status();
  }
  Status flush() override { return volume_.writes_left == -2 ? Status(Code::io_error, "the power has failed") : Status(); }

 private:
  Volume& volume_;
  const std::string name_ = "volume";
};

class VolumeStoreTest : public testing::ImageTest {
 protected:
  VolumeTarget target(std::size_t keep = 3) {
    return VolumeTarget([this]() -> Result<std::unique_ptr<BlockFile>> { return std::unique_ptr<BlockFile>(new VolumeFile(volume_)); }, keep);
  }
  /// Checkpoint `n` of a chain that begins with 1; some of its pages twice.
  Status checkpoint(Target& t, std::uint64_t n) {
    std::vector<std::uint64_t> pages, twice;
    for (std::uint64_t p = 0; n == 1 && p < kShape.pages(); ++p) pages.push_back(p);
    for (int i = 0; n != 1 && i < 30; ++i) pages.push_back(random_() % kShape.pages());
    for (std::uint64_t p : pages) {
      if (n != 1) change(p);
      if (random_() % 4 == 0) twice.push_back(p);
    }
    if (auto newest = t.newest("vm"); !newest.ok()) return newest.status();
    if (Status s = t.begin({"vm", n, n - 1, kShape}); !s.ok()) return s;
    if (Status s = t.put(batch(pages)); !s.ok()) return s;
    for (std::uint64_t p : twice) {
      if (random_() % 2 == 0) image_.replace(p * kPage, kPage, std::string(kPage, 0));
      else change(p);
    }
    if (Status s = t.put(batch(twice)); !s.ok()) return s;
    images_[n] = image_;
    return t.commit("state " + std::to_string(n), "{\"n\":" + std::to_string(n) + "}");
  }
  std::vector<std::uint64_t> kept() {
    std::vector<std::uint64_t> out;
    auto store = VolumeStore::open(std::make_unique<VolumeFile>(volume_));
    EXPECT_TRUE(store.ok()) << store.status().to_string();
    if (store.ok())
      for (const auto& c : (*store)->list("vm")) out.push_back(c.sequence);
    return out;
  }
  void expect_restored(std::uint64_t n) {
    const std::string to = directory_.path();
    auto store = VolumeStore::open(std::make_unique<VolumeFile>(volume_));
    ASSERT_TRUE(store.ok()) << store.status().to_string();
    auto r = (*store)->restore("vm", n, {to + "/memory", to + "/state", to + "/description", to + "/disk"});
    ASSERT_TRUE(r.ok()) << r.status().to_string();
    EXPECT_TRUE(read_file(to + "/memory") + read_file(to + "/disk") == images_[n]) << n;
    EXPECT_EQ(read_file(to + "/state"), "state " + std::to_string(n));
    EXPECT_EQ(read_file(to + "/description"), "{\"n\":" + std::to_string(n) + "}");
  }

  /// The one checkpoint's entry; the sums are right afterwards.
  void change_directory(const std::function<void(DirectoryEntry&)>& change) {
    for (std::uint64_t place : {std::uint64_t{0}, VolumeStore::kDirectoryBlocks * kPage}) {
      DirectoryHeader h;
      DirectoryEntry e;
      std::byte* at = volume_.content.data() + place;
      std::memcpy(&h, at, sizeof h);
      if (h.magic != kDirectoryMagic || h.checkpoints != 1) continue;
      std::memcpy(&e, at + sizeof h, sizeof e);
      change(e);
      h.entries_crc = crc32c(std::as_bytes(std::span(&e, 1)));
      h.crc = 0;
      h.crc = crc32c(std::as_bytes(std::span(&h, 1)));
      std::memcpy(at, &h, sizeof h);
      std::memcpy(at + sizeof h, &e, sizeof e);
    }
  }
  io::testing::TemporaryDirectory directory_{"/dev/shm"};  // nothing here is about the disk
  Volume volume_;
};

TEST_F(VolumeStoreTest, EveryCheckpointThatIsKeptIsRestoredToTheByte) {
  VolumeTarget t = target();
  EXPECT_TRUE(kept().empty());
  for (std::uint64_t n = 1; n <= 60; ++n) {  // round the volume several times
    ASSERT_TRUE(checkpoint(t, n).ok()) << n;
    const auto numbers = kept();
    ASSERT_EQ(numbers.size(), std::min<std::uint64_t>(n, 3));
    ASSERT_EQ(numbers.back(), n);
    if (n % 9 < 2)
      for (std::uint64_t k : numbers) expect_restored(k);
  }
}

// Wherever the power fails: what had been committed is there, to the byte, and the store goes on.
// Requirement: DWR-32 switch=store-space-reused-early
TEST_F(VolumeStoreTest, APowerFailureLosesNoCheckpoint) {
  {
    VolumeTarget t = target();
    for (std::uint64_t n = 1; n <= 5; ++n) ASSERT_TRUE(checkpoint(t, n).ok());
  }
  std::uint64_t last = 5;
  bool all = false;
  for (int cut = 0; !all && cut < 200; ++cut) {
    const auto before = kept();
    VolumeTarget t = target();
    volume_.writes_left = cut, volume_.writes = 0;
    const std::string image = image_;
    const Status s = checkpoint(t, last + 1);
    all = s.ok();
    volume_.writes_left = -1;
    const auto after = kept();
    if (after == before) image_ = image;  // else it was whole after all
    else ++last;
    ASSERT_FALSE(after.empty()) << "cut off at write " << cut;
    ASSERT_EQ(after.back(), last);
    ASSERT_TRUE(!s.ok() || after != before);
    for (std::uint64_t k : after) expect_restored(k);
    if (HasFailure()) FAIL() << "cut off at write " << cut;
  }
  EXPECT_TRUE(all);
}

TEST_F(VolumeStoreTest, SeveralMachinesAndAFullCheckpointAnew) {
  VolumeTarget t = target();
  for (std::uint64_t n = 1; n <= 3; ++n) ASSERT_TRUE(checkpoint(t, n).ok());
  const Shape small{16, 0};
  ASSERT_TRUE(t.begin({"other", 1, 0, small}).ok());
  PageBatch zeros;
  for (std::uint64_t p = 0; p < 16; ++p) zeros.entries.push_back({p, crc32c_zero_block(), true});
  ASSERT_TRUE(t.put(zeros).ok());
  ASSERT_TRUE(t.commit("s", "{}").ok());
  EXPECT_EQ(kept(), (std::vector<std::uint64_t>{1, 2, 3}));
  EXPECT_EQ(t.begin({"vm", 5, 2, kShape}).code(), Code::stale);
  EXPECT_EQ(t.begin({"vm", 3, 2, kShape}).code(), Code::stale);
  EXPECT_EQ(t.begin({"vm", 3, 0, kShape}).code(), Code::exists);
  ASSERT_TRUE(t.begin({"vm", 4, 0, kShape}).ok());
  EXPECT_EQ(t.commit("s", "{}").code(), Code::invalid);
  std::vector<std::uint64_t> every(kShape.pages());
  for (std::uint64_t p = 0; p < every.size(); ++p) every[p] = p;
  ASSERT_TRUE(t.begin({"vm", 4, 0, kShape}).ok());
  ASSERT_TRUE(t.put(batch(every)).ok());
  images_[4] = image_;
  ASSERT_TRUE(t.commit("state 4", "{\"n\":4}").ok());
  EXPECT_EQ(kept(), std::vector<std::uint64_t>{4});
  expect_restored(4);
  auto store = VolumeStore::open(std::make_unique<VolumeFile>(volume_));
  ASSERT_TRUE(store.ok());
  EXPECT_EQ((*store)->machines(), (std::vector<std::string>{"other", "vm"}));
}

// Requirement: DWR-32 switch=page-checksums-unchecked
TEST_F(VolumeStoreTest, DamageIsFoundWhereverItIs) {
  VolumeTarget t = target();
  for (std::uint64_t n = 1; n <= 2; ++n) ASSERT_TRUE(checkpoint(t, n).ok());
  const auto whole = volume_.content;
  int found = 0, unused = 0;
  for (int i = 0; i < 400; ++i) {
    volume_.content = whole;
    std::uint64_t at = random_() % whole.size();
    volume_.content[at] ^= std::byte{0x10};
    const std::string to = directory_.path();
    auto store = VolumeStore::open(std::make_unique<VolumeFile>(volume_));
    auto r = store.ok() ? (*store)->restore("vm", 0, {to + "/memory", to + "/state", to + "/description", to + "/disk"}) : Result<StoredCheckpoint>(store.status());
    const bool right = r.ok() && images_[r->sequence] == read_file(to + "/memory") + read_file(to + "/disk");
    ASSERT_TRUE(!r.ok() || right) << "damage at " << at << " was handed out";
    found += !r.ok(), unused += right;
  }
  EXPECT_GT(found, 20);
  EXPECT_GT(unused, 20);
}

// A directory whose sums are right and whose extents are not: somebody else wrote the volume.
TEST_F(VolumeStoreTest, ExtentsOutsideTheVolumeAreRefused) {
  VolumeTarget t = target();
  ASSERT_TRUE(checkpoint(t, 1).ok());
  const auto whole = volume_.content;
  for (ExtentOnVolume DirectoryEntry::*which : {&DirectoryEntry::table, &DirectoryEntry::state, &DirectoryEntry::description})
    for (const ExtentOnVolume& bad : {ExtentOnVolume{whole.size() / kPage, 1, 0, 0}, ExtentOnVolume{1ull << 40, 1, 0, 0}, ExtentOnVolume{600, ~0ull, 0, 0},
                                      ExtentOnVolume{~0ull, kPage, 0, 0}, ExtentOnVolume{0, kPage, 0, 0}, ExtentOnVolume{600, whole.size(), 0, 0}}) {
      volume_.content = whole;
      change_directory([&](DirectoryEntry& e) { e.*which = bad; });
      EXPECT_EQ(VolumeStore::open(std::make_unique<VolumeFile>(volume_)).status().code(), Code::corrupt) << bad.block << ", " << bad.bytes;
    }
}

// As many that their sum turns over, so that each page of the table is one of the machine's.
TEST_F(VolumeStoreTest, AMachineOfAbsurdSizeIsRefused) {
  VolumeTarget t = target();
  ASSERT_TRUE(checkpoint(t, 1).ok());
  for (auto which : {&DirectoryEntry::memory_pages, &DirectoryEntry::disk_pages}) {
    change_directory([which](DirectoryEntry& e) { e.*which = ~0ull; });
    EXPECT_EQ(VolumeStore::open(std::make_unique<VolumeFile>(volume_)).status().code(), Code::corrupt);
  }
}

TEST_F(VolumeStoreTest, WhatIsNotAStoreIsLeftAlone) {
  volume_.content[100] = std::byte{1};
  auto store = VolumeStore::open(std::make_unique<VolumeFile>(volume_));
  EXPECT_EQ(store.status().code(), Code::conflict);
  volume_.content.resize(100 * kPage);
  EXPECT_EQ(VolumeStore::open(std::make_unique<VolumeFile>(volume_)).status().code(), Code::invalid);
}

TEST_F(VolumeStoreTest, TwoWritersAreNoticed) {
  VolumeTarget one = target(), other = target();
  ASSERT_TRUE(checkpoint(one, 1).ok());
  ASSERT_EQ(other.newest("vm").value(), 1u);
  ASSERT_TRUE(checkpoint(one, 2).ok());
  EXPECT_EQ(checkpoint(other, 2).code(), Code::conflict);
  EXPECT_EQ(other.newest("vm").value(), 2u);  // opened anew
}

TEST_F(VolumeStoreTest, AFullVolumeSaysSoAndKeepsWhatItHas) {
  volume_.content.resize((128 + 420) * kPage);
  VolumeTarget t = target(10);
  std::uint64_t n = 1;
  Status s;
  while ((s = checkpoint(t, n)).ok()) ++n;
  EXPECT_EQ(s.code(), Code::no_space) << s.to_string();
  EXPECT_GT(n, 2u);
  EXPECT_EQ(kept().back(), n - 1);
  for (std::uint64_t k : kept()) expect_restored(k);
}

}  // namespace
}  // namespace luge::vmstate
