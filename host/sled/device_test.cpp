// Devices: format, reopen, refusals; column ownership; a failed device.
#include "sled/device.hpp"

#include <array>

#include "sled/unit_fixture.hpp"

namespace luge::sled::testing {
namespace {

// A bare Device on a node of its own.
struct Bench {
  explicit Bench(std::uint64_t seed = 1) : sim(seed) {
    logging::setup("test", "off");
    node = sim.add_node("n");
  }
  ~Bench() { device.reset(); }
  Status open(DeviceSpec spec, std::uint64_t unit = kUnit, NodeId sled = 41, std::uint16_t index = 0, std::uint64_t column = kColumnBytes,
              Device::Expected expected = {}) {
    device.reset();
    device = std::make_unique<Device>(sim.world(node), std::move(spec), index, DeviceOptions{.unit = unit, .sled = sled, .column_bytes = column});
    return run(device->open(expected));
  }
  /// As the sled does that knows the device by `known`.
  Status open_known(DeviceSpec spec, DeviceId known, std::optional<DeviceId> replacement = {}) {
    return open(std::move(spec), kUnit, 41, 0, kColumnBytes, {known, replacement});
  }
  Status fence(VpId vp, Epoch epoch) { return run(device->raise({{vp, epoch}})); }
  Status run(io::Task<Status> t) {
    Status out;
    sim.run(node, [](io::Task<Status> t, Status& out) -> io::Task<void> { out = co_await std::move(t); }(std::move(t), out));
    return out;
  }
  Status claim(VpId vp, std::uint32_t column, std::uint32_t bytes = slot_bytes()) {
    return run(device->claim(vp, 1, column, bytes, [] { return Status(); }));
  }
  void poke(std::uint64_t offset, Bytes bytes) {
    std::vector<std::byte> sector(bytes.begin(), bytes.end());
    sector.resize((sector.size() + 511) / 512 * 512);
    sim.disk(node).file("/d")->write(offset, sector, true);
  }
  sim::Simulation sim;
  sim::Node node;
  std::unique_ptr<Device> device;
};

std::uint32_t seal(Superblock& s) {
  s.crc = 0;
  return s.crc = crc32c({reinterpret_cast<const std::byte*>(&s), sizeof s});
}

TEST(Device, FormatsABlankOneAndKnowsItAgain) {
  Bench b;
  ASSERT_TRUE(b.open({"disk", kDeviceBytes}).ok());
  EXPECT_EQ(b.device->columns(), 11u);  // 16 MiB less 1 MiB less 4 MiB of metadata
  EXPECT_EQ(b.device->free_columns(), 11u);
  ASSERT_TRUE(b.claim(7, 3).ok());
  ASSERT_TRUE(b.fence(7, 12).ok());
  b.device.reset();
  b.sim.crash(b.node, sim::Crash::power);
  b.sim.restart(b.node);
  // The column size of the first format stays.
  ASSERT_TRUE(b.open({"disk", 0}, kUnit, 41, 0, 2 * kColumnBytes).ok());
  EXPECT_EQ(b.device->column_bytes(), kColumnBytes);
  EXPECT_EQ(b.device->owned_by(7), std::vector<std::uint32_t>{3});
  EXPECT_EQ(b.device->fences().at(7), 12u);
}

// Requirement: B-05
TEST(Device, RefusesWhatIsNotItsOwn) {
  Bench b;
  b.sim.disk(b.node).make_file("/d", kDeviceBytes);
  ASSERT_TRUE(b.open({"/d"}).ok());
  EXPECT_EQ(b.open({"/d"}, 6).code(), Code::wrong_unit);
  EXPECT_EQ(b.open({"/d"}, kUnit, 42).code(), Code::invalid);
  EXPECT_EQ(b.open({"/d"}, kUnit, 41, 1).code(), Code::invalid);
  EXPECT_NE(b.device->failure().text().find("/d"), std::string::npos) << "the error names the device";
  EXPECT_TRUE(b.open({"/d"}).ok()) << "a refusal changes nothing";
  EXPECT_EQ(b.open({"/none"}).code(), Code::not_found);
}

// Requirement: B-05
TEST(Device, RefusesOneInUseTooSmallOrNotBlank) {
  Bench b;
  auto& disk = b.sim.disk(b.node);
  disk.make_file("/d", kDeviceBytes);
  ASSERT_TRUE(b.open({"/d"}).ok());
  Device second(b.sim.world(b.node), {"/d"}, 0, DeviceOptions{.unit = kUnit, .sled = 41, .column_bytes = kColumnBytes});
  EXPECT_EQ(b.run(second.open({})).code(), Code::exists);
  EXPECT_EQ(second.state(), Device::State::in_use);

  disk.make_file("/small", 5 << 20);
  EXPECT_EQ(b.open({"/small"}).code(), Code::invalid);

  for (std::uint64_t at : {std::uint64_t{512}, kDeviceBytes - 512}) {
    disk.make_file("/d", kDeviceBytes);
    std::byte one{1};
    b.poke(at, {&one, 1});
    EXPECT_EQ(b.open({"/d"}).code(), Code::invalid) << "something at " << at;
  }
}

// Requirement: B-05
TEST(Device, RefusesAnUnknownVersion) {
  Bench b;
  b.sim.disk(b.node).make_file("/d", kDeviceBytes);
  ASSERT_TRUE(b.open({"/d"}).ok());
  Superblock s;
  s.version = kSuperVersion + 1;
  b.device.reset();
  for (std::uint64_t at : {std::uint64_t{0}, kSecondSuperblock}) b.poke(at, {reinterpret_cast<std::byte*>(&s), sizeof s});
  EXPECT_EQ(b.open({"/d"}).code(), Code::wrong_version);
}

// A superblock with the right checksum is hostile input all the same.
TEST(Device, RefusesAGeometryThatCannotBe) {
  Bench b;
  Superblock good;
  good.unit = kUnit;
  good.sled = 41;
  good.column_bytes = kColumnBytes;
  good.columns = 11;
  good.meta_mib = 4;
  good.id = 77;
  std::vector<std::function<void(Superblock&)>> lies = {
      [](Superblock& s) { s.columns = 0xffffffff; }, [](Superblock& s) { s.columns = 12; },
      [](Superblock& s) { s.columns = 0; },          [](Superblock& s) { s.column_bytes = 0; },
      [](Superblock& s) { s.column_bytes = 1000; },  [](Superblock& s) { s.column_bytes = ~0ull - 4095; },
      [](Superblock& s) { s.meta_mib = 0; },         [](Superblock& s) { s.meta_mib = 0xffffffff; }};
  for (std::size_t i = 0; i < lies.size(); ++i) {
    b.device.reset();
    b.sim.disk(b.node).make_file("/d", kDeviceBytes);
    Superblock s = good;
    lies[i](s);
    seal(s);
    b.poke(0, {reinterpret_cast<std::byte*>(&s), sizeof s});
    EXPECT_EQ(b.open({"/d"}).code(), Code::invalid) << "lie " << i;
  }
  b.device.reset();
  b.sim.disk(b.node).make_file("/d", kDeviceBytes);
  seal(good);
  b.poke(0, {reinterpret_cast<std::byte*>(&good), sizeof good});
  EXPECT_TRUE(b.open({"/d"}).ok());
}

TEST(Device, OneGoodSuperblockIsEnough) {
  for (std::uint64_t lost : {std::uint64_t{0}, kSecondSuperblock}) {
    Bench b;
    b.sim.disk(b.node).make_file("/d", kDeviceBytes);
    ASSERT_TRUE(b.open({"/d"}).ok());
    ASSERT_TRUE(b.claim(7, 3).ok());
    b.sim.disk(b.node).rot("/d", lost + 12);
    ASSERT_TRUE(b.open({"/d"}).ok());
    EXPECT_EQ(b.device->owned_by(7).size(), 1u);
    // The damaged copy has been written anew: it serves when the other one goes.
    b.sim.disk(b.node).rot("/d", (kSecondSuperblock - lost) + 12);
    ASSERT_TRUE(b.open({"/d"}).ok());
    EXPECT_EQ(b.device->owned_by(7).size(), 1u);
    for (std::uint64_t at : {std::uint64_t{0}, kSecondSuperblock}) b.sim.disk(b.node).rot("/d", at + 12);
    EXPECT_EQ(b.open({"/d"}).code(), Code::corrupt) << "never formatted over";
  }
}

// A copy of a version that this program does not know may be the newer one: it stays.
TEST(Device, ASuperblockOfAnotherVersionIsNotWrittenOver) {
  Bench b;
  b.sim.disk(b.node).make_file("/d", kDeviceBytes);
  ASSERT_TRUE(b.open({"/d"}).ok());
  b.device.reset();
  Superblock other;
  other.version = kSuperVersion + 1;
  b.poke(kSecondSuperblock, {reinterpret_cast<std::byte*>(&other), sizeof other});
  ASSERT_TRUE(b.open({"/d"}).ok());
  Superblock now;
  std::array<std::byte, 512> sector;
  b.sim.disk(b.node).file("/d")->read(kSecondSuperblock, sector);
  std::memcpy(&now, sector.data(), sizeof now);
  EXPECT_EQ(now.version, kSuperVersion + 1);
}

TEST(Device, SuperblocksThatContradictOneAnotherAreRefused) {
  Bench b;
  b.sim.disk(b.node).make_file("/d", kDeviceBytes);
  ASSERT_TRUE(b.open({"/d"}).ok());
  b.device.reset();
  Superblock s;
  std::array<std::byte, 512> sector;
  b.sim.disk(b.node).file("/d")->read(0, sector);
  std::memcpy(&s, sector.data(), sizeof s);
  ++s.id;
  seal(s);
  b.poke(kSecondSuperblock, {reinterpret_cast<std::byte*>(&s), sizeof s});
  EXPECT_EQ(b.open({"/d"}).code(), Code::corrupt);
}

// The sled knows the device: it is never made anew, whatever is or is not in its place (protocol 8.2).
TEST(Device, AKnownOneIsNeverMadeAnewUnasked) {
  Bench b;
  ASSERT_TRUE(b.open({"disk", kDeviceBytes}).ok());
  DeviceId id = b.device->id();
  ASSERT_NE(id, 0u);
  EXPECT_TRUE(b.device->formatted());
  ASSERT_TRUE(b.open_known({"disk", kDeviceBytes}, id).ok());
  EXPECT_EQ(b.device->id(), id);
  EXPECT_FALSE(b.device->formatted());

  // Gone, though a size is given.
  EXPECT_EQ(b.open_known({"elsewhere", kDeviceBytes}, id).code(), Code::not_found);
  EXPECT_EQ(b.device->state(), Device::State::failed);
  EXPECT_NE(b.device->failure().text().find("--replace-device 0"), std::string::npos) << b.device->failure().text();
  EXPECT_FALSE(b.sim.disk(b.node).exists("elsewhere"));
  // Blank.
  b.sim.disk(b.node).make_file("/blank", kDeviceBytes);
  EXPECT_EQ(b.open_known({"/blank"}, id).code(), Code::invalid);
  EXPECT_NE(b.device->failure().text().find("--replace-device 0"), std::string::npos) << b.device->failure().text();
  // Another one that stood here once.
  ASSERT_TRUE(b.open({"/blank"}).ok());
  EXPECT_EQ(b.open_known({"/blank"}, id).code(), Code::invalid);
  EXPECT_EQ(b.device->id(), 0u);
}

TEST(Device, IsReplacedByTheOperatorsWord) {
  Bench b;
  ASSERT_TRUE(b.open({"disk", kDeviceBytes}).ok());
  DeviceId id = b.device->id();
  ASSERT_TRUE(b.open_known({"disk", kDeviceBytes}, id, 55).ok());
  EXPECT_EQ(b.device->id(), id) << "the flag left in a configuration wipes nothing";
  ASSERT_TRUE(b.open_known({"new", kDeviceBytes}, id, 55).ok());
  EXPECT_EQ(b.device->id(), 55u);
  EXPECT_TRUE(b.device->formatted());
  ASSERT_TRUE(b.open_known({"new", kDeviceBytes}, id, 55).ok()) << "cut off before the sled remembered it";
  EXPECT_FALSE(b.device->formatted());
  // What is not blank is not written over, not even then.
  EXPECT_EQ(b.open_known({"new", kDeviceBytes}, id, 56).code(), Code::invalid);
}

// A device that was wiped only at its ends holds an old metadata store: its fences and columns are not ours.
TEST(Device, FormattingForgetsAnEarlierLife) {
  Bench b;
  b.sim.disk(b.node).make_file("/d", kDeviceBytes);
  ASSERT_TRUE(b.open({"/d"}).ok());
  ASSERT_TRUE(b.claim(7, 3).ok());
  ASSERT_TRUE(b.fence(7, 12).ok());
  std::vector<std::byte> zeros(kMiB);
  b.device.reset();
  b.sim.disk(b.node).file("/d")->write(0, zeros, true);
  b.sim.disk(b.node).file("/d")->write(kDeviceBytes - kMiB, zeros, true);
  ASSERT_TRUE(b.open({"/d"}, 6).ok());
  EXPECT_TRUE(b.device->fences().empty());
  EXPECT_EQ(b.device->free_columns(), 11u);
}

TEST(Device, FormattingMayBeCutOffAnywhere) {
  int refused = 0;
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    Bench b(seed);
    b.sim.disk(b.node).make_file("/d", kDeviceBytes);
    auto d = std::make_shared<Device>(b.sim.world(b.node), DeviceSpec{"/d"}, 0, DeviceOptions{.unit = kUnit, .sled = 41, .column_bytes = kColumnBytes});
    b.sim.world(b.node).spawn("open", [](std::shared_ptr<Device> d) -> io::Task<void> {
      Status s = co_await d->open({});
      (void)s;
    }(d));
    b.sim.run_for(sim::Duration(b.sim.random().below(4'000'000)));
    d.reset();
    b.sim.crash(b.node, sim::Crash::power);
    b.sim.restart(b.node);
    Status s = b.open({"/d"});
    EXPECT_TRUE(s.ok()) << "seed " << seed << ": " << s.to_string();
    refused += !s.ok();
  }
  EXPECT_EQ(refused, 0);
}

// Who comes second is told so.
// Requirement: FN-14
TEST(Device, AColumnHasOneOwner) {
  Bench b;
  ASSERT_TRUE(b.open({"disk", kDeviceBytes}).ok());
  ASSERT_TRUE(b.claim(7, 3).ok());
  Generation first = b.device->row(3).generation;
  EXPECT_TRUE(b.claim(7, 3).ok());
  EXPECT_EQ(b.device->row(3).generation, first) << "the VP's own column is answered as it is";
  EXPECT_EQ(b.claim(8, 3).code(), Code::exists);
  EXPECT_EQ(b.claim(7, 3, 2 * slot_bytes()).code(), Code::exists);
  EXPECT_EQ(b.claim(7, 11).code(), Code::invalid);
  EXPECT_EQ(b.claim(7, 4, 0).code(), Code::invalid);
  EXPECT_EQ(b.claim(7, 4, 4097).code(), Code::invalid);
  EXPECT_EQ(b.claim(7, 4, kColumnBytes + 4096).code(), Code::invalid);
  ASSERT_TRUE(b.run(b.device->release(7, [] { return Status(); })).ok());
  ASSERT_TRUE(b.claim(8, 3).ok());
  EXPECT_EQ(b.device->row(3).generation, first + 1);
}

// Requirement: FN-14
TEST(Device, OfManyAtOnceOneGetsTheColumn) {
  Bench b;
  ASSERT_TRUE(b.open({"disk", kDeviceBytes}).ok());
  std::vector<Status> got(8);
  b.sim.run(b.node, [](Bench& b, std::vector<Status>& got) -> io::Task<void> {
    io::TaskGroup group(b.sim.world(b.node));
    for (std::size_t i = 0; i < got.size(); ++i)
      group.spawn("claim", [](Bench& b, Status& s, VpId vp) -> io::Task<void> {
        s = co_await b.device->claim(vp, 1, 5, slot_bytes(), [] { return Status(); });
      }(b, got[i], 100 + i));
    co_await group.join();
  }(b, got));
  int winners = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    winners += got[i].ok();
    if (got[i].ok()) EXPECT_EQ(b.device->row(5).owner, 100 + i);
    else EXPECT_EQ(got[i].code(), Code::exists);
  }
  EXPECT_EQ(winners, 1);
}

// Two epochs on their way at once: never the lower one on the medium.
TEST(Device, FencesNeverGoBack) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    Bench b(seed);
    ASSERT_TRUE(b.open({"disk", kDeviceBytes}).ok());
    b.sim.run(b.node, [](Bench& b) -> io::Task<void> {
      io::TaskGroup group(b.sim.world(b.node));
      for (Epoch e : {4, 9, 3, 7, 9, 5})
        group.spawn("fence", [](Bench& b, Epoch e) -> io::Task<void> {
          Status s = co_await b.device->raise({{7, e}});
          EXPECT_TRUE(s.ok());
        }(b, e));
      co_await group.join();
    }(b));
    b.device.reset();
    b.sim.crash(b.node, sim::Crash::power);
    b.sim.restart(b.node);
    ASSERT_TRUE(b.open({"disk", 0}).ok());
    EXPECT_EQ(b.device->fences().at(7), 9u);
  }
}

TEST(Device, AFullMetadataRegionIsDegradedAndSaysSo) {
  Bench b;
  ASSERT_TRUE(b.open({"disk", kDeviceBytes}).ok());
  ASSERT_TRUE(b.claim(7, 3).ok());
  EXPECT_TRUE(b.device->knows_all_fences());
  Fences many;
  for (VpId vp = 1; vp < 100'000; ++vp) many[vp << 16] = 1;
  EXPECT_EQ(b.run(b.device->raise(many)).code(), Code::no_space);
  EXPECT_EQ(b.device->state(), Device::State::full);
  EXPECT_TRUE(b.device->usable());
  EXPECT_FALSE(b.device->knows_all_fences());
  EXPECT_TRUE(b.fence(1 << 16, 2).ok()) << "a row that is there can still be raised";
  EXPECT_TRUE(b.claim(7, 3).ok());
  ASSERT_TRUE(b.open({"disk", 0}).ok());
  EXPECT_FALSE(b.device->knows_all_fences()) << "it remembers that there is something it does not know";
  EXPECT_EQ(b.device->owned_by(7), std::vector<std::uint32_t>{3});
}

TEST(Device, AnErrorFailsItForGood) {
  Bench b;
  ASSERT_TRUE(b.open({"disk", kDeviceBytes}).ok());
  ASSERT_TRUE(b.claim(7, 3).ok());
  b.sim.disk(b.node).faults.write_error = 1;
  EXPECT_EQ(b.claim(7, 4).code(), Code::io_error);
  b.sim.disk(b.node).faults.write_error = 0;
  EXPECT_EQ(b.device->state(), Device::State::failed);
  EXPECT_EQ(b.claim(7, 3).code(), Code::io_error) << "nothing is answered ok from memory";
  EXPECT_EQ(b.fence(7, 3).code(), Code::io_error);
  EXPECT_EQ(b.run(b.device->release(7, [] { return Status(); })).code(), Code::io_error);
}

}  // namespace
}  // namespace luge::sled::testing
