// A coder that is wrong, refuses or hangs, and the guard: what comes out is right, in time, and the books are kept.
#include "coding/guarded_coder.hpp"

#include <gtest/gtest.h>

#include "base/logging.hpp"
#include "coding/faulty_coder.hpp"
#include "sim/cluster/simulation.hpp"
#include "switches/switches.hpp"

namespace luge::coding {
namespace {

using namespace std::chrono_literals;
using Mood = FaultyCoder::Mood;
using State = GuardedCoder::State;
constexpr Layout kLayout{4, 2};
constexpr std::size_t kChunk = 3 * kBlockBytes;

struct Broken {
  explicit Broken(Switch s) : switch_(s) { set_broken(s, true); }
  ~Broken() { set_broken(switch_, false); }
  Switch switch_;
};

class GuardedCoderTest : public ::testing::Test {
 public:
  GuardedCoderTest() : sim(1), node(sim.add_node("n")) { logging::setup("test", "off"); }

  void make(GuardedCoder::Options o = {}, FaultyCoder::Choice choice = {}) {
    device = std::make_shared<FaultyCoder>(world(), std::move(choice));
    guard = std::make_unique<GuardedCoder>(world(), device, o);
    sim.run(node, [](GuardedCoder& g) -> io::Task<void> { (void)(co_await g.start()).ok(); }(*guard));
    device->jobs = 0;
  }
  io::World& world() { return sim.world(node); }

  std::vector<Buffer> random_chunks(std::uint32_t n) {
    std::vector<Buffer> out;
    for (std::uint32_t i = 0; i < n; ++i) {
      out.push_back(Buffer::allocate(kChunk));
      for (std::size_t j = 0; j < kChunk; ++j) out.back().data()[j] = static_cast<std::byte>(world().random());
    }
    return out;
  }
  static io::Task<std::vector<Buffer>> expected(std::vector<Buffer> data) {
    std::vector<Bytes> from;
    std::vector<Buffer> parity;
    std::vector<MutableBytes> to;
    for (const Buffer& b : data) from.push_back(b.bytes());
    for (std::uint32_t i = 0; i < kLayout.m; ++i) parity.push_back(Buffer::allocate(kChunk)), to.push_back(parity.back().mutable_bytes());
    auto coder = make_isal_coder();
    EXPECT_TRUE((co_await coder->encode(kLayout, from, to)).ok());
    co_return parity;
  }
  static bool same(const std::vector<Buffer>& a, const std::vector<Buffer>& b) {
    bool same = a.size() == b.size();
    for (std::size_t i = 0; same && i < a.size(); ++i) same = std::memcmp(a[i].data(), b[i].data(), a[i].size()) == 0;
    return same;
  }
  /// Encodes a random stripe: true if the parity is right. `by_device`, `took`: who made it and how long it took.
  bool encode() {
    std::optional<bool> right;
    sim.run(node, [](GuardedCoderTest& t, std::optional<bool>& right) -> io::Task<void> {
      auto data = t.random_chunks(kLayout.k);
      io::Time begin = t.world().now();
      auto coded = co_await t.guard->encode(kLayout, data);
      t.took = t.world().now() - begin;
      EXPECT_TRUE(coded.ok()) << coded.status().to_string();
      if (coded.ok()) t.by_device = coded->by_device;
      right = coded.ok() && same(coded->chunks, co_await expected(data));
    }(*this, right));
    return *right;
  }
  /// Rebuilds data chunk 1 without data chunk 0, checked against what it was.
  bool decode() {
    std::optional<bool> right;
    sim.run(node, [](GuardedCoderTest& t, std::optional<bool>& right) -> io::Task<void> {
      auto data = t.random_chunks(kLayout.k);
      auto present = data;
      for (Buffer& p : co_await expected(data)) present.push_back(p);
      present[0] = present[1] = Buffer();
      auto check = [&](const std::vector<Buffer>& b) { return std::memcmp(b[0].data(), data[1].data(), kChunk) == 0; };
      auto coded = co_await t.guard->reconstruct(kLayout, present, {1}, check);
      EXPECT_TRUE(coded.ok()) << coded.status().to_string();
      if (coded.ok()) t.by_device = coded->by_device;
      right = coded.ok() && check(coded->chunks);
    }(*this, right));
    return *right;
  }
  void wait(io::Duration d) { sim.run_for(d); }

  sim::Simulation sim;
  sim::Node node;
  std::shared_ptr<FaultyCoder> device;
  std::unique_ptr<GuardedCoder> guard;
  bool by_device = false;
  io::Duration took{};
};

TEST_F(GuardedCoderTest, ADeviceThatIsRightCodesEverything) {
  make();
  EXPECT_EQ(guard->state(), State::healthy);
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(encode() && by_device);
  EXPECT_TRUE(decode() && by_device);
  const auto& c = guard->counters();
  EXPECT_EQ(c.device.jobs, 6u);
  EXPECT_EQ(c.device.source_bytes, 6 * 4 * kChunk);
  EXPECT_EQ(c.software.jobs + c.fallbacks + c.wrong + c.hung + c.refused, 0u);
  EXPECT_EQ(c.compared, 5u) << "what was decoded is checked by its checksums";
  EXPECT_EQ(guard->name(), "faulty");
}

TEST_F(GuardedCoderTest, WithoutADeviceSoftwareCodesAndNothingIsAFallback) {
  guard = std::make_unique<GuardedCoder>(world(), nullptr, GuardedCoder::Options{});
  EXPECT_TRUE(encode() && !by_device);
  EXPECT_TRUE(decode());
  EXPECT_EQ(guard->counters().software.jobs, 2u);
  EXPECT_EQ(guard->counters().fallbacks, 0u);
  EXPECT_EQ(guard->name(), "isal");
}

// Requirement: P-8.7 switch=card-parity-unverified
TEST_F(GuardedCoderTest, WrongParityIsFoundAndNotUsed) {
  make({}, [](std::uint64_t job) { return job == 1003 ? Mood::wrong : Mood::right; });
  for (int i = 1; i <= 1002; ++i) ASSERT_TRUE(encode() && by_device) << i;
  EXPECT_EQ(guard->counters().wrong, 0u) << "the faulty job is yet to come";
  ASSERT_TRUE(encode()) << "wrong parity was used";
  EXPECT_EQ(guard->counters().wrong, 1u);
  EXPECT_EQ(guard->state(), State::out);
  EXPECT_FALSE(by_device);
  EXPECT_EQ(guard->name(), "isal");
}

TEST_F(GuardedCoderTest, SaysNothingAndWritesNothing) {
  make();
  device->mood = Mood::silent;
  EXPECT_TRUE(encode() && !by_device);
  EXPECT_EQ(guard->counters().wrong, 1u);
}

TEST_F(GuardedCoderTest, AnErrorMovesItToSoftwareAtOnce) {
  make();
  device->mood = Mood::refuses;
  EXPECT_TRUE(encode() && !by_device);
  EXPECT_LT(took, 1ms);
  EXPECT_EQ(guard->counters().refused, 1u);
  EXPECT_EQ(guard->counters().fallbacks, 1u);
  EXPECT_NE(guard->last_fault().find("bus error"), std::string::npos);
  std::uint64_t asked = device->jobs;
  EXPECT_TRUE(encode());
  EXPECT_EQ(device->jobs, asked) << "out: not asked again";
}

// Requirement: P-8.7 switch=hung-card-waited-for
TEST_F(GuardedCoderTest, OneThatHangsIsLeftWithinTwoSeconds) {
  make();
  device->mood = Mood::hangs;
  EXPECT_TRUE(encode() && !by_device);
  EXPECT_LE(took, 2s);
  EXPECT_EQ(guard->counters().hung, 1u);
  EXPECT_GE(guard->counters().longest_wait, 1800ms);
  EXPECT_LE(guard->counters().longest_wait, 2s);
  EXPECT_TRUE(encode());
  EXPECT_LT(took, 1ms) << "the next does not wait for it";
}

// The device writes into the job's memory after it was given up: that is nobody else's.
TEST_F(GuardedCoderTest, WhatALateDeviceWritesChangesNothing) {
  make();
  device->mood = Mood::hangs;
  std::vector<Buffer> parity;
  std::vector<Buffer> data = random_chunks(kLayout.k);
  bool untouched = false;
  sim.run(node, [](GuardedCoderTest& t, std::vector<Buffer> data, std::vector<Buffer>& parity, bool& untouched) -> io::Task<void> {
    auto coded = co_await t.guard->encode(kLayout, data);
    if (!coded.ok()) co_return;
    parity = std::move(coded->chunks);
    t.device->release();  // it wakes up and writes what it had been asked for, wrong
    co_await t.world().sleep(100ms);
    untouched = same(parity, co_await expected(data));
  }(*this, data, parity, untouched));
  EXPECT_TRUE(untouched);
  EXPECT_EQ(guard->counters().hung, 1u);
  EXPECT_EQ(guard->counters().wrong, 0u);
}

// Requirement: P-8.7 switch=card-back-untested
TEST_F(GuardedCoderTest, ComesBackOnlyWhenItPassesItsTest) {
  make();
  device->mood = Mood::refuses;
  EXPECT_TRUE(encode());
  device->mood = Mood::wrong;  // answers again, and is wrong
  wait(30s);
  EXPECT_EQ(guard->state(), State::out);
  EXPECT_GE(guard->counters().tests_failed, 3u);
  EXPECT_LE(guard->counters().tests_failed, 6u) << "the pause between tests grows";
  std::uint64_t used = guard->counters().device.jobs;
  EXPECT_TRUE(encode());
  EXPECT_EQ(guard->counters().device.jobs, used);
  device->mood = Mood::right;
  wait(60s);
  EXPECT_EQ(guard->state(), State::suspect);
  EXPECT_TRUE(encode() && by_device);
}

TEST_F(GuardedCoderTest, IsOnProbationAfterItCameBack) {
  make({.verify_all = false, .probation = 5});
  for (int i = 0; i < 40; ++i) EXPECT_TRUE(encode());
  EXPECT_EQ(guard->counters().compared, 3u) << "1 in 16";
  device->mood = Mood::refuses;
  EXPECT_TRUE(encode());
  device->mood = Mood::right;
  wait(2s);
  ASSERT_EQ(guard->state(), State::suspect);
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(encode() && by_device);
  EXPECT_EQ(guard->counters().compared, 8u) << "every one while it is suspect";
  EXPECT_EQ(guard->state(), State::healthy);
}

TEST_F(GuardedCoderTest, AFaultOnProbationMakesThePauseLonger) {
  make();
  device->mood = Mood::refuses;
  EXPECT_TRUE(encode());
  io::Duration last{};
  for (int i = 0; i < 3; ++i) {
    device->mood = Mood::right;
    io::Time begin = world().now();
    while (guard->state() == State::out) wait(100ms);
    EXPECT_GT(world().now() - begin, last) << i;
    last = world().now() - begin;
    device->mood = Mood::wrong;
    EXPECT_TRUE(encode());
    EXPECT_EQ(guard->state(), State::out);
  }
}

// With sample = 16 wrong parity may be used, but a device that is wrong always is found out by the 16th.
TEST_F(GuardedCoderTest, ASampleFindsOneThatIsWrongAlways) {
  make({.verify_all = false});
  EXPECT_TRUE(encode()) << "the first is compared";
  device->mood = Mood::wrong;
  int used = 0;
  for (int i = 0; i < 40; ++i) used += !encode();
  EXPECT_EQ(used, 15);
  EXPECT_EQ(guard->counters().wrong, 1u);
}

TEST_F(GuardedCoderTest, WhatItDecodesIsCheckedByChecksums) {
  make({.verify_all = false});
  device->mood = Mood::wrong;
  EXPECT_TRUE(decode() && !by_device);
  EXPECT_EQ(guard->counters().wrong, 1u);
}

// Where the sources are wrong, software gets the same, and the device is not to blame.
TEST_F(GuardedCoderTest, WrongSourcesAreNotTheDevicesFault) {
  make();
  sim.run(node, [](GuardedCoderTest& t) -> io::Task<void> {
    auto present = t.random_chunks(kLayout.width());  // no stripe at all
    present[0] = Buffer();
    auto coded = co_await t.guard->reconstruct(kLayout, present, {0}, [](const auto&) { return false; });
    EXPECT_TRUE(coded.ok());
  }(*this));
  EXPECT_EQ(guard->state(), State::healthy);
  EXPECT_EQ(guard->counters().wrong, 0u);
  EXPECT_EQ(guard->counters().compared, 1u);
}

TEST_F(GuardedCoderTest, OneThatDoesNotOpenIsOutFromTheStart) {
  device = std::make_shared<FaultyCoder>(world());
  device->broken_down = true;
  guard = std::make_unique<GuardedCoder>(world(), device, GuardedCoder::Options{});
  sim.run(node, [](GuardedCoder& g) -> io::Task<void> { EXPECT_EQ((co_await g.start()).code(), Code::unavailable); }(*guard));
  EXPECT_EQ(guard->state(), State::out);
  EXPECT_TRUE(encode() && !by_device);
  device->broken_down = false;
  wait(10s);
  EXPECT_EQ(guard->state(), State::suspect);
}

// Many at once, with a fault in the middle: so many at the device, all right, all answered.
TEST_F(GuardedCoderTest, ManyAtOnceThroughAFault) {
  for (Mood m : {Mood::wrong, Mood::hangs, Mood::refuses}) {
    make({.in_flight = 3}, [m](std::uint64_t job) { return job == 20 ? m : Mood::right; });
    device->latency = 10ms;
    int right = 0;
    sim.run(node, [](GuardedCoderTest& t, int& right) -> io::Task<void> {
      io::TaskGroup group(t.world());
      for (int i = 0; i < 40; ++i)
        group.spawn("encode", [](GuardedCoderTest& t, int& right) -> io::Task<void> {
          auto data = t.random_chunks(kLayout.k);
          auto coded = co_await t.guard->encode(kLayout, data);
          right += coded.ok() && same(coded->chunks, co_await expected(data));
        }(t, right));
      co_await group.join();
    }(*this, right));
    EXPECT_EQ(right, 40);
    EXPECT_EQ(device->most_at_once, 3u);
    EXPECT_EQ(guard->counters().wrong + guard->counters().hung + guard->counters().refused, 1u);
    EXPECT_EQ(guard->counters().device.jobs + guard->counters().software.jobs, 40u);
    wait(10s);
    EXPECT_EQ(guard->state(), State::suspect);
  }
}

// What the device refuses under an old epoch software does not do in its place, and it is no fault of the device's.
// Requirement: CF-10 switch=card-fence-ignored
TEST_F(GuardedCoderTest, WhatTheDeviceFencesOffIsNotCoded) {
  make();
  std::vector<Code> codes;
  sim.run(node, [](GuardedCoderTest& t, std::vector<Code>& codes) -> io::Task<void> {
    for (Epoch epoch : {5u, 4u, 5u, 6u, 5u}) codes.push_back((co_await t.guard->encode(kLayout, t.random_chunks(kLayout.k), {77, epoch})).code());
    codes.push_back((co_await t.guard->encode(kLayout, t.random_chunks(kLayout.k), {78, 1})).code());
  }(*this, codes));
  EXPECT_EQ(codes, (std::vector{Code::ok, Code::fenced, Code::ok, Code::ok, Code::fenced, Code::ok}));
  EXPECT_EQ(guard->state(), State::healthy);
  EXPECT_EQ(guard->counters().refused + guard->counters().software.jobs, 0u);
  EXPECT_EQ(guard->counters().device.jobs, 4u);
}

TEST_F(GuardedCoderTest, RefusesWhatCannotBe) {
  make();
  sim.run(node, [](GuardedCoderTest& t) -> io::Task<void> {
    EXPECT_EQ((co_await t.guard->encode(kLayout, t.random_chunks(3))).status().code(), Code::invalid);
    EXPECT_EQ((co_await t.guard->reconstruct(kLayout, t.random_chunks(4), {0}, [](const auto&) { return true; })).status().code(), Code::invalid);
    auto none = co_await t.guard->encode(Layout{4, 0}, t.random_chunks(4));
    EXPECT_TRUE(none.ok() && none->chunks.empty());
  }(*this));
  EXPECT_EQ(guard->state(), State::healthy);
}

}  // namespace
}  // namespace luge::coding
