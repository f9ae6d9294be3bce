// Updates cut everywhere: after any cut the card boots an image that is whole and was good or is the new one, golden is as it was, and the next update
// succeeds. A twin that names the new slot before it has been verified is caught.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <random>

#include "image/directory_medium.hpp"
#include "image/flash_model.hpp"
#include "image/manifest.hpp"
#include "image/slot_rules.hpp"

namespace luge::image {
namespace {

namespace fs = std::filesystem;
using fw::Slot;

constexpr std::uint32_t kSlotBytes = 32 << 10;

ByteVector image_of(std::uint32_t version) {
  std::mt19937 random(version);
  ByteVector v(9000 + random() % 12000);
  for (auto& b : v) b = static_cast<std::uint8_t>(random());
  return v;
}
fw::Image describe(const ByteVector& b, std::uint32_t version) {
  fw::Sha256 sha;
  sha.add(b.data(), static_cast<std::uint32_t>(b.size()));
  return {static_cast<std::uint32_t>(b.size()), version, sha.end()};
}

template <class Medium>
fw::UpdateResult update(Medium& medium, std::uint32_t version) {
  const ByteVector bytes = image_of(version);
  auto get = [&](std::uint32_t at, std::uint8_t* to, std::uint32_t n) { std::copy_n(bytes.begin() + at, n, to); };
  return Slots<Medium>(medium).update(describe(bytes, version), get, [](std::uint32_t, std::uint32_t) {});
}

// The version that boots, 0 for golden; nothing if what is chosen is not whole. Marks it good, if `good`.
template <class Medium>
std::optional<std::uint32_t> boot(Medium& medium, bool good) {
  Slots<Medium> slots(medium);
  const auto choice = slots.choose();
  if (choice.slot == fw::kGolden) return 0;
  const fw::Record r = medium.newest();
  const fw::Image& i = choice.slot == r.slot ? r.image : r.previous_image;
  ByteVector got(i.bytes);
  for (std::uint32_t at = 0; at < i.bytes; at += Medium::kPiece) medium.read(choice.slot, at, &got[at], std::min(Medium::kPiece, i.bytes - at));
  if (got != image_of(i.version)) return std::nullopt;
  if (good) EXPECT_TRUE(slots.mark_good(choice.slot));
  return i.version;
}

using Flash = fw::FlashMedium<FlashModel>;

// Requirement: CF-04
TEST(FlashUpdate, UpdatesTakeTurnsAndGoldenIsNeverTouched) {
  FlashModel flash(flash_layout(kSlotBytes));
  ASSERT_TRUE(flash.write_golden(image_of(999)));
  Flash medium(flash, flash.layout());
  EXPECT_EQ(boot(medium, true), 0u);
  std::map<Slot, int> slots;
  for (std::uint32_t v = 1; v <= 100; ++v) {  // the record sectors go round, too
    ++slots[Slots<Flash>(medium).target()];
    ASSERT_EQ(update(medium, v), fw::UpdateResult::done) << v;
    ASSERT_EQ(boot(medium, true), v);
    ASSERT_EQ(boot(medium, true), v);
  }
  EXPECT_EQ(slots[fw::kSlotA], 50);
  EXPECT_EQ(slots[fw::kSlotB], 50);
  EXPECT_FALSE(flash.golden_touched());
}

template <class Medium>
void expect_fall_back(Medium& medium) {
  ASSERT_EQ(update(medium, 1), fw::UpdateResult::done);
  for (unsigned i = 0; i < fw::kAttempts; ++i) EXPECT_EQ(boot(medium, false), 1u);
  EXPECT_EQ(boot(medium, false), 0u);  // the first one, never good: golden
  ASSERT_EQ(update(medium, 2), fw::UpdateResult::done);
  EXPECT_EQ(boot(medium, true), 2u);
  ASSERT_EQ(update(medium, 3), fw::UpdateResult::done);
  for (unsigned i = 0; i < fw::kAttempts; ++i) EXPECT_EQ(boot(medium, false), 3u);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(boot(medium, true), 2u);  // and it does not try again
  ASSERT_EQ(update(medium, 4), fw::UpdateResult::done);
  EXPECT_EQ(boot(medium, true), 4u);
  EXPECT_TRUE(Slots<Medium>(medium).roll_back());
  EXPECT_EQ(boot(medium, true), 2u);
  EXPECT_TRUE(Slots<Medium>(medium).roll_back());
  EXPECT_EQ(boot(medium, true), 0u);
}

// Requirement: CF-03 switch=attempts-not-counted
TEST(FlashUpdate, AnImageThatIsNeverGoodFallsBack) {
  FlashModel flash(flash_layout(kSlotBytes));
  Flash medium(flash, flash.layout());
  expect_fall_back(medium);
}

TEST(FlashUpdate, WhatIsTooLargeOrMiscopiedIsNotNamed) {
  FlashModel flash(flash_layout(4096));
  Flash medium(flash, flash.layout());
  EXPECT_EQ(update(medium, 1), fw::UpdateResult::too_large);
  FlashModel large(flash_layout(kSlotBytes));
  Flash m(large, large.layout());
  const ByteVector bytes = image_of(1);
  auto wrong = [&](std::uint32_t at, std::uint8_t* to, std::uint32_t n) { std::copy_n(bytes.begin() + at, n, to), to[n - 1] ^= 1; };
  EXPECT_EQ(Slots<Flash>(m).update(describe(bytes, 1), wrong, [](std::uint32_t, std::uint32_t) {}), fw::UpdateResult::differs);
  EXPECT_EQ(boot(m, true), 0u);
}

// Whatever was cut, the newest record names a slot that was read back: else the card has lost what was good for what nobody has checked.
template <class Medium>
bool names_unverified(Medium& medium) {
  const fw::Record r = medium.newest();
  return r.sequence != 0 && !Slots<Medium>(medium).whole(r.slot, r.image);
}

// How a card that was cut at operation n of an update from `old` to `next` goes on. Empty: as it should.
std::string flash_after_cut(const FlashModel& before, std::uint64_t n, std::uint64_t seed, std::uint32_t old, std::uint32_t next, bool& done) {
  FlashModel flash = before;
  Flash medium(flash, flash.layout());
  flash.cut_at(n, seed);
  done = false;
  try {
    update(medium, next);
    boot(medium, true);  // the cut may be in an attempt or in the good mark
    done = true;
  } catch (const PowerLost&) {
  }
  flash.power_on();
  if (names_unverified(medium)) return "a slot is named that is not whole";
  for (int i = 0; i < 3; ++i) {
    auto v = boot(medium, i > 0);
    if (!v) return "boots what is not whole";
    if (*v != old && *v != next) return "boots version " + std::to_string(*v);
    if (done && *v != next) return "does not boot what was flashed";
  }
  if (flash.golden_touched()) return "golden was touched";
  if (update(medium, 77) != fw::UpdateResult::done) return "the next update fails";
  if (boot(medium, true) != 77u) return "the next update does not boot";
  return "";
}

// A card with `history` updates that were good.
FlashModel used_flash(std::uint32_t history) {
  FlashModel flash(flash_layout(kSlotBytes));
  flash.write_golden(image_of(999));
  Flash medium(flash, flash.layout());
  for (std::uint32_t v = 1; v <= history; ++v) update(medium, v), boot(medium, true);
  return flash;
}

// Requirement: CF-01, CF-02 switch=flip-before-verify
TEST(FlashUpdate, CutAtEveryPageAndSectorItBootsAGoodImage) {
  unsigned cuts = 0;
  for (std::uint32_t history : {0u, 1u, 2u, 31u, 32u, 63u}) {  // with 32 records a sector: also where the records change theirs
    const FlashModel flash = used_flash(history);
    for (std::uint64_t n = 1;; ++n) {
      bool done = false;
      for (std::uint64_t seed = 0; seed < 4; ++seed, ++cuts) {
        const std::string wrong = flash_after_cut(flash, n, 1000 * n + seed, history, history + 100, done);
        ASSERT_EQ(wrong, "") << "history " << history << ", cut at " << n << ", seed " << seed;
      }
      if (done) break;
    }
  }
  std::printf("%u cuts of updates in flash: all boot a good image\n", cuts);
}

// The slot that an update writes may be one that the newest record names: an image on trial that has not been good. What a cut leaves there is not booted.
// Requirement: CF-02 switch=torn-image-booted
TEST(FlashUpdate, AnImageOnTrialThatIsOverwrittenAndCutIsNotBooted) {
  FlashModel flash = used_flash(1);
  Flash first(flash, flash.layout());
  ASSERT_EQ(update(first, 2), fw::UpdateResult::done);
  bool done = false;
  unsigned n = 1;
  for (; !done; ++n) {
    FlashModel f = flash;
    Flash medium(f, f.layout());
    f.cut_at(n, n);
    try {
      done = update(medium, 3) == fw::UpdateResult::done;
    } catch (const PowerLost&) {
    }
    f.power_on();
    const auto v = boot(medium, false);
    ASSERT_TRUE(v) << "cut at " << n << ": boots what is not whole";
    ASSERT_TRUE(*v == 1 || *v == 2 || *v == 3) << "cut at " << n << ": boots " << *v;
  }
  EXPECT_GT(n, 30u);
}

TEST(FlashUpdate, TheTwinThatFlipsBeforeItVerifiesIsCaught) {
  // Nothing good would boot but golden: a card that had a good image before must not fall behind it, and what was not verified must not be named.
  const FlashModel flash = used_flash(2);
  auto unverified_named = [&](bool flips_first) {
    set_broken(Switch::flip_before_verify, flips_first);
    unsigned named = 0;
    bool done = false;
    for (std::uint64_t n = 1; !done; ++n) {
      FlashModel f = flash;
      Flash medium(f, f.layout());
      f.cut_at(n, n);
      done = true;
      try {
        update(medium, 100);
      } catch (const PowerLost&) {
        done = false;
      }
      f.power_on();
      named += names_unverified(medium);
    }
    set_broken(Switch::flip_before_verify, false);
    return named;
  };
  EXPECT_GT(unverified_named(true), 20u);
  EXPECT_EQ(unverified_named(false), 0u);
}

class DirectoryUpdate : public ::testing::Test {
 protected:
  // In memory where that is possible: thousands of syncs, of which none is to survive this machine.
  std::string folder = (::access("/dev/shm", W_OK) == 0 ? "/dev/shm/" : ::testing::TempDir()) + "luge-update-test-" + std::to_string(::getpid());
  void SetUp() override { fs::remove_all(folder), fs::create_directories(folder); }
  void TearDown() override { fs::remove_all(folder); }

  // What a power failure leaves: the files as last synced, and of what was not synced since any part.
  struct Disk {
    std::map<std::string, std::string> synced;
    static std::string read(const fs::path& p) {
      std::ifstream f(p, std::ios::binary);
      return {std::istreambuf_iterator<char>(f), std::istreambuf_iterator<char>()};
    }
    void remember(const std::string& folder) {
      synced.clear();
      for (const auto& e : fs::directory_iterator(folder)) synced[e.path().filename()] = read(e.path());
    }
    void lose_unsynced(const std::string& folder, std::mt19937& random) {
      for (const auto& e : fs::directory_iterator(folder)) {
        const std::string name = e.path().filename(), now = read(e.path());
        if (synced.contains(name) && synced[name] == now) continue;
        switch (random() % 3) {
          case 0: break;                                                                  // it happened to be written
          case 1: fs::resize_file(e.path(), now.empty() ? 0 : random() % now.size()); break;  // a part of it
          case 2:                                                                         // nothing of it
            if (synced.contains(name)) std::ofstream(e.path(), std::ios::binary) << synced[name];
            else fs::remove(e.path());
        }
      }
    }
  };
  // `records` is renamed over whole files only: what is not synced of it is old or new, never a part. The model must not tear it.
  static constexpr const char* kRecords = "records";

  std::string after_cut(unsigned n, unsigned seed, std::uint32_t old, std::uint32_t next, bool& done, unsigned& named) {
    fs::path dir = folder + "/cut";
    fs::remove_all(dir);
    fs::copy(folder + "/base", dir);
    struct Cut {};
    unsigned steps = 0;
    Disk disk;
    disk.remember(dir);
    std::string last;
    auto before = [&](const std::string& name) {
      // A step that syncs has happened when the next one begins.
      if (last == "sync" || last == "sync directory" || last == "sync record") disk.remember(dir);
      if (++steps == n) throw Cut();
      last = name;
    };
    done = false;
    try {
      DirectoryMedium medium(dir, before);
      update(medium, next);
      boot(medium, true);
      done = true;
    } catch (const Cut&) {
    }
    if (!done) {
      std::mt19937 random(seed);
      const bool renamed = disk.synced.contains(kRecords) && Disk::read(dir / kRecords) != disk.synced[kRecords];
      const std::string new_record = Disk::read(dir / kRecords), old_record = renamed ? disk.synced[kRecords] : "";
      disk.lose_unsynced(dir, random);
      if (renamed || (!new_record.empty() && !disk.synced.contains(kRecords))) {
        if (random() % 2) std::ofstream(dir / kRecords, std::ios::binary) << new_record;
        else if (renamed) std::ofstream(dir / kRecords, std::ios::binary) << old_record;
        else fs::remove(dir / kRecords);
      }
    }
    DirectoryMedium medium(dir);
    named += names_unverified(medium);
    for (int i = 0; i < 3; ++i) {
      auto v = boot(medium, i > 0);
      if (!v) return "boots what is not whole";
      if (*v != old && *v != next) return "boots version " + std::to_string(*v);
      if (done && *v != next) return "does not boot what was flashed";
    }
    if (Disk::read(dir / "golden.img") != "golden") return "golden was touched";
    if (update(medium, 77) != fw::UpdateResult::done || boot(medium, true) != 77u) return "the next update fails";
    return "";
  }
  void make_base(std::uint32_t history) {
    fs::remove_all(folder + "/base");
    fs::create_directories(folder + "/base");
    std::ofstream(folder + "/base/golden.img") << "golden";
    DirectoryMedium medium(folder + "/base");
    for (std::uint32_t v = 1; v <= history; ++v) update(medium, v), boot(medium, true);
  }
};

// Requirement: CF-03 switch=attempts-not-counted
TEST_F(DirectoryUpdate, AnImageThatIsNeverGoodFallsBack) {
  DirectoryMedium medium(folder);
  expect_fall_back(medium);
}

// Requirement: CF-01, CF-02 switch=flip-before-verify
TEST_F(DirectoryUpdate, CutAtEveryWriteItBootsAGoodImage) {
  unsigned cuts = 0, named = 0;
  for (std::uint32_t history : {0u, 1u, 2u}) {
    make_base(history);
    bool done = false;
    for (unsigned n = 1; !done; ++n)
      for (unsigned seed = 0; seed < 6; ++seed, ++cuts) {
        const std::string wrong = after_cut(n, 100 * n + seed, history, history + 100, done, named);
        ASSERT_EQ(wrong, "") << "history " << history << ", cut at " << n << ", seed " << seed;
      }
  }
  EXPECT_EQ(named, 0u);
  std::printf("%u cuts of updates in directories: all boot a good image\n", cuts);
}

TEST_F(DirectoryUpdate, TheTwinThatFlipsBeforeItVerifiesIsCaught) {
  make_base(2);
  unsigned named = 0;
  bool done = false;
  set_broken(Switch::flip_before_verify, true);
  for (unsigned n = 1; !done; ++n) after_cut(n, n, 2, 102, done, named);
  set_broken(Switch::flip_before_verify, false);
  EXPECT_GT(named, 3u);
}

}  // namespace
}  // namespace luge::image
