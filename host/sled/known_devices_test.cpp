// What a sled remembers of its devices and fences when devices are lost, swapped, wiped or put back: an old primary stays
// out (protocol 8.2), a device is never made anew unasked, and the sled serves on with the others.
#include "sled/unit_fixture.hpp"

namespace luge::sled::testing {
namespace {

using namespace std::chrono_literals;

// Devices that the sled makes as files itself, as `devices = PATH:SIZE` does.
void made_by_the_sled(Options& o) {
  for (std::size_t i = 0; i < o.devices.size(); ++i) o.devices[i] = {"disk" + std::to_string(i), kDeviceBytes};
}

std::string path(std::uint32_t device) { return "/dev/disk" + std::to_string(device); }

std::size_t count(const std::string& text, const std::string& what) {
  std::size_t n = 0;
  for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++n;
  return n;
}

// An older epoch gets nothing done on sled 0.
void expect_fenced(SledUnit& u, Epoch old) {
  EXPECT_EQ(u.fence(0, kVp, old).code(), Code::fenced);
  EXPECT_EQ(u.list(0, kVp, old).code(), Code::fenced);
  EXPECT_EQ(u.claim(0, kVp, old).code(), Code::fenced);
}

// The hole: a file that is gone was made anew, and with it went the fences of a sled of one device.
// Requirement: FN-08, P-8.2
TEST(KnownDevices, AFileThatIsGoneIsNotMadeAnew) {
  SledUnit u(1, 1, 1, made_by_the_sled);
  ASSERT_TRUE(u.fence(0, kVp, 7).ok());
  u.crash(0);
  ASSERT_NE(u.disk(0).take_out("disk0"), nullptr);
  Status s = u.restart(0);
  EXPECT_EQ(s.code(), Code::not_found) << s.to_string();
  EXPECT_NE(s.text().find("--replace-device 0"), std::string::npos) << s.text();
  EXPECT_FALSE(u.disk(0).exists("disk0"));
  EXPECT_EQ(u.fence(0, kVp, 6).code(), Code::unavailable) << "a sled without devices lets nobody in";
}

TEST(KnownDevices, AReplacedDeviceLearnsTheFencesOfTheOldOne) {
  SledUnit u(1, 1, 1, made_by_the_sled);
  ASSERT_TRUE(u.fence(0, kVp, 7).ok());
  u.crash(0);
  auto old = u.disk(0).take_out("disk0");
  u.options[0].devices[0].replace = true;
  ASSERT_EQ(u.restart(0).to_string(), Status().to_string());
  expect_fenced(u, 6);
  EXPECT_TRUE(u.list(0, kVp, 7).ok());
  // The flag does no harm when it stays, and is not needed any more.
  ASSERT_TRUE(u.bounce(0).ok());
  u.options[0].devices[0].replace = false;
  ASSERT_TRUE(u.bounce(0).ok());
  // The data directory is lost: the new device knows the fences too.
  u.crash(0);
  ASSERT_NE(u.disk(0).take_out("meta"), nullptr);
  ASSERT_TRUE(u.restart(0).ok());
  expect_fenced(u, 6);
  // The old device comes back from the drawer: it is not the one that is known now.
  u.crash(0);
  u.disk(0).take_out("disk0");
  u.disk(0).put_in("disk0", old);
  EXPECT_EQ(u.restart(0).code(), Code::invalid);
}

// The schedule that needs no operator at all: the first device is out when epoch 7 begins, the second is lost after it,
// the first is back and has never heard of epoch 7.
// Requirement: FN-08, FN-12, P-8.2 switch=sled-forgets-fences
TEST(KnownDevices, ADeviceThatMissedTheFenceDoesNotLetTheOldPrimaryIn) {
  SledUnit u(1, 2);
  ASSERT_TRUE(u.fence(0, kVp, 6).ok());
  auto c = u.claim(0, kVp, 6);
  ASSERT_TRUE(c.ok());
  auto p = u.place(0, 0, 0, c->slots[0].generation());
  Stripe a = u.stripe(1, 6);
  ASSERT_TRUE(u.write(0, a, 0, p).ok());
  u.crash(0);
  auto first = u.disk(0).take_out(path(0));
  ASSERT_TRUE(u.restart(0).ok()) << "the sled runs on with the other";
  EXPECT_EQ(count(u.report(0), "\"state\":\"failed\""), 1u) << u.report(0);
  ASSERT_TRUE(u.fence(0, kVp, 7).ok());
  u.crash(0);
  u.disk(0).put_in(path(0), first);
  ASSERT_NE(u.disk(0).take_out(path(1)), nullptr);
  ASSERT_TRUE(u.restart(0).ok());
  expect_fenced(u, 6);
  EXPECT_EQ(u.free(0, a.id, p, 6).code(), Code::fenced) << "epoch 7 may be counting on this chunk";
  EXPECT_TRUE(u.read(0, a.id, 0, p).ok());
}

TEST(Mutant, SledForgetsFences) {
  SledUnit u(1, 2);
  ASSERT_TRUE(u.fence(0, kVp, 6).ok());
  u.crash(0);
  auto first = u.disk(0).take_out(path(0));
  ASSERT_TRUE(u.restart(0).ok());
  ASSERT_TRUE(u.fence(0, kVp, 7).ok());
  u.crash(0);
  u.disk(0).put_in(path(0), first);
  ASSERT_NE(u.disk(0).take_out(path(1)), nullptr);
  Broken rule(Switch::sled_forgets_fences);
  ASSERT_TRUE(u.restart(0).ok());
  EXPECT_TRUE(u.claim(0, kVp, 6).ok()) << "the mutant is what ADeviceThatMissedTheFence... notices";
}

// The same with a data directory that is lost too: nothing here can know of epoch 7, and the sled says so.
TEST(KnownDevices, ANewDataDirectoryNeedsAllDevicesOnce) {
  SledUnit u(1, 2);
  ASSERT_TRUE(u.fence(0, kVp, 6).ok());
  u.crash(0);
  auto first = u.disk(0).take_out(path(0));
  ASSERT_TRUE(u.restart(0).ok());
  ASSERT_TRUE(u.fence(0, kVp, 7).ok());
  u.crash(0);
  u.disk(0).put_in(path(0), first);
  auto second = u.disk(0).take_out(path(1));
  auto meta = u.disk(0).take_out("meta");
  Status s = u.restart(0);
  EXPECT_EQ(s.code(), Code::invalid) << s.to_string();
  EXPECT_NE(s.text().find(path(1)), std::string::npos) << s.text();
  EXPECT_EQ(u.fence(0, kVp, 6).code(), Code::unavailable);
  EXPECT_EQ(u.bounce(0).code(), Code::invalid) << "it is no better the second time";
  u.crash(0);
  u.disk(0).put_in(path(1), second);
  ASSERT_TRUE(u.restart(0).ok());
  expect_fenced(u, 6);
  // From now on it is the data directory that knows.
  u.crash(0);
  u.disk(0).take_out(path(1));
  ASSERT_TRUE(u.restart(0).ok());
  expect_fenced(u, 6);
}

// Requirement: B-05
TEST(KnownDevices, AWipedOrSwappedDeviceIsLeftOut) {
  SledUnit u(2, 3);
  ASSERT_TRUE(u.fence(0, kVp, 7).ok());
  u.crash(0);
  u.crash(1);
  // Device 0 of another sled, a blank device, the right one.
  u.disk(0).take_out(path(0));
  u.disk(0).put_in(path(0), u.disk(1).take_out(path(0)));
  u.disk(0).make_file(path(1), kDeviceBytes);
  ASSERT_TRUE(u.restart(0).ok());
  std::string r = u.report(0);
  EXPECT_EQ(count(r, "\"state\":\"failed\""), 2u) << r;
  EXPECT_EQ(count(r, "\"state\":\"ok\""), 1u) << r;
  EXPECT_NE(r.find("this is device 0 of sled 42"), std::string::npos) << r;
  EXPECT_NE(r.find("--replace-device 1"), std::string::npos) << r;
  expect_fenced(u, 6);
  EXPECT_TRUE(u.claim(0, kVp, 7, 0, slot_bytes(), 2).ok());
  EXPECT_EQ(u.claim(0, kVp, 7, 0, slot_bytes(), 1).code(), Code::io_error);
  // Two devices in one another's place: neither is used.
  u.crash(0);
  auto third = u.disk(0).take_out(path(2));
  u.disk(0).put_in(path(1), third);
  EXPECT_EQ(u.restart(0).code(), Code::invalid);
}

TEST(KnownDevices, ADeviceMayBeAddedLater) {
  SledUnit u(1, 1, 1, made_by_the_sled);
  ASSERT_TRUE(u.fence(0, kVp, 7).ok());
  u.options[0].devices.push_back({"disk1", kDeviceBytes});
  ASSERT_TRUE(u.bounce(0).ok());
  EXPECT_TRUE(u.claim(0, kVp, 7, 0, slot_bytes(), 1).ok());
  // And be the only one left.
  u.crash(0);
  u.disk(0).take_out("disk0");
  ASSERT_TRUE(u.restart(0).ok());
  expect_fenced(u, 6);
  EXPECT_EQ(u.list(0, kVp, 7)->size(), 1u);
}

// A first start, or a replacement, that is cut off anywhere goes through the next time.
TEST(KnownDevices, MayBeMadeInPieces) {
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    SledUnit u(1, 2, seed, made_by_the_sled);
    ASSERT_TRUE(u.fence(0, kVp, 7).ok());
    u.crash(0);
    bool anew = seed % 2 == 0;
    u.disk(0).take_out("disk0");
    if (anew) {
      u.disk(0).take_out("disk1");
      u.disk(0).take_out("meta");
    } else {
      u.options[0].devices[0].replace = true;
    }
    for (int cut = 0; cut < 4; ++cut) {
      u.sim.restart(u.nodes[0]);
      u.sim.run_for(sim::Duration(u.sim.random().below(4'000'000)));
      u.crash(0);
    }
    ASSERT_EQ(u.restart(0).to_string(), Status().to_string());
    EXPECT_EQ(count(u.report(0), "\"state\":\"ok\""), 2u) << u.report(0);
    if (!anew) expect_fenced(u, 6);
  }
}

// Its own metadata is damaged: the sled does not start on a guess, and says how it can.
TEST(KnownDevices, DamagedMetadataIsNotGuessedAt) {
  SledUnit u(1);
  ASSERT_TRUE(u.fence(0, kVp, 7).ok());
  u.crash(0);
  u.disk(0).rot("meta", 12);
  Status s = u.restart(0);
  EXPECT_EQ(s.code(), Code::corrupt) << s.to_string();
  EXPECT_NE(s.text().find("moved away"), std::string::npos) << s.text();
  u.crash(0);
  ASSERT_NE(u.disk(0).take_out("meta"), nullptr);
  ASSERT_TRUE(u.restart(0).ok());
  expect_fenced(u, 6);
}

}  // namespace
}  // namespace luge::sled::testing
