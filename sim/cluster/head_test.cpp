// One head of the product, between a primary or reserves that the test plays: rules that the others of the protocol keep a
// whole unit from ever coming to, so that no seed can show them.
#include <gtest/gtest.h>

#include "base/crc32c.hpp"
#include "base/logging.hpp"
#include "control/control.hpp"
#include "head/head.hpp"
#include "head/record.hpp"
#include "sim/cluster/simulation.hpp"
#include "wire/control_link.hpp"
#include "wire/designation.hpp"
#include "wire/replica_generated.h"

namespace luge::sim {
namespace {

using head::RecordKind;
using head::RecordPtr;
using io::Task;

constexpr std::uint64_t kUnit = 5;
constexpr VpId kVp = 0x10000;
constexpr NodeId kHead = 11, kFirstFake = 12, kPrimary = 10;
constexpr const char* kHeadAddress = "tcp:head:1";
constexpr const char* kControlAddress = "tcp:control:1";

struct ControlDaemon {
  explicit ControlDaemon(io::World& w)
      : control(w, options(), std::make_unique<control::MemoryStore>(control::MemoryStore::make_image(kUnit))) {
    w.spawn("control", run());
  }
  static control::Options options() {
    control::Options o;
    o.listen = kControlAddress;
    return o;
  }
  Task<void> run() {
    Status s = co_await control.start();
    LUGE_CHECK(s.ok());
  }
  control::Control control;
};

struct HeadDaemon {
  explicit HeadDaemon(io::World& w) : head(w, options()) { w.spawn("head", run()); }
  static head::Options options() {
    head::Options o;
    o.id = kHead;
    o.name = "head";
    o.listen = kHeadAddress;
    o.control = kControlAddress;
    o.unit = kUnit;
    o.log_bytes = o.meta_bytes = 8 << 20;
    o.segment_bytes = o.meta_segment_bytes = 1 << 20;
    o.meta_store_bytes = 256 << 10;
    return o;
  }
  Task<void> run() {
    Status s = co_await head.start();
    LUGE_CHECK(s.ok());
  }
  head::Head head;
};

wire::Designation designation(Epoch epoch, NodeId primary, std::vector<NodeId> reserves) {
  wire::Designation d;
  d.vp = kVp;
  d.epoch = d.revision = epoch;
  d.history = 1;
  d.primary = primary;
  d.reserves = std::move(reserves);
  d.required = d.members();
  d.layout = {2, 1};
  d.blocks = 256;
  return d;
}

wire::Frame collect(const wire::Designation& d) {
  return wire::make_frame(wire::Kind::collect, [&](auto& b) {
    auto offset = d.to(b);
    return fbs::CreateCollect(b, offset);
  });
}

RecordPtr data(LogPoint at, std::uint8_t fill, Lba lba = 0, std::uint32_t blocks = 1) {
  Buffer payload = Buffer::zeros(blocks * kBlockBytes);
  std::memset(payload.data(), fill, payload.size());
  std::vector<std::uint32_t> crcs;
  crc32c_blocks(payload.bytes(), crcs);
  return head::make_record(kVp, at, RecordKind::data, lba, blocks, {}, std::string(reinterpret_cast<const char*>(crcs.data()), 4 * crcs.size()), payload);
}

// A primary of epoch 1 that the test moves.
class FakePrimary {
 public:
  explicit FakePrimary(io::World& w)
      : world_(w), link_(w, identity_, kHeadAddress, [this](const std::shared_ptr<wire::Channel>&, wire::Frame f) {
          const auto* m = f.kind == wire::Kind::replicate_ack ? f.as<fbs::ReplicateAck>() : nullptr;
          if (m && m->states())
            for (const auto* s : *m->states()) last_code = static_cast<Code>(s->code()), durable = s->durable();
        }) {
    link_.start();
  }
  /// Another primary begins here, as far as the head is told.
  Task<void> begin_as(Epoch epoch, NodeId primary) {
    auto collected = co_await link_.call(collect(designation(epoch, primary, {kHead, kPrimary})), 1s);
    EXPECT_TRUE(collected.ok());
    auto begun = co_await link_.call(wire::make_frame(wire::Kind::sync_begin, [epoch](auto& b) {
      fbs::LogPoint agreed(1, 2);
      return fbs::CreateSyncBegin(b, kVp, epoch, &agreed, false);
    }), 1s);
    EXPECT_TRUE(begun.ok());
  }
  /// Whether the head says that it hears the primary of epoch 1.
  Task<void> ask_alive(bool& heard) {
    auto r = co_await link_.call(wire::make_frame(wire::Kind::alive_query, [](auto& b) { return fbs::CreateAliveQuery(b, kVp, 1, 1); }), 1s);
    const auto* a = r.ok() && r->kind == wire::Kind::alive_reply ? r->as<fbs::AliveReply>() : nullptr;
    EXPECT_TRUE(a);
    heard = a && a->primary_alive();
  }
  Task<void> begin() {
    auto collected = co_await link_.call(collect(designation(1, kPrimary, {kHead})), 1s);
    EXPECT_TRUE(collected.ok());
    auto begun = co_await link_.call(wire::make_frame(wire::Kind::sync_begin, [](auto& b) {
      fbs::LogPoint nothing(0, 0);
      return fbs::CreateSyncBegin(b, kVp, 1, &nothing, false);
    }), 1s);
    EXPECT_TRUE(begun.ok());
  }
  /// One that has been given up, or the newest: its answer.
  Task<void> synchronise(std::uint64_t turn, LogPoint agreed, Code& out) {
    auto answer = co_await link_.call(wire::make_frame(wire::Kind::sync_begin, [&](auto& b) {
      fbs::LogPoint point(agreed.epoch, agreed.lsn);
      return fbs::CreateSyncBegin(b, kVp, 1, &point, false, turn);
    }), 1s);
    const auto* r = answer.ok() ? answer->as<fbs::SyncReply>() : nullptr;
    out = r ? static_cast<Code>(r->code()) : Code::internal;
  }
  /// Unflushed data of a synchronisation: the answer.
  Task<void> part(std::uint64_t turn, std::vector<RecordPtr> records, Status& out) {
    head::PackedRecords packed;
    for (const RecordPtr& r : records) packed.add(*r, r->payload);
    wire::Frame f = wire::make_frame(wire::Kind::sync_part, [&](auto& b) {
      auto headers = b.CreateVectorOfStructs(packed.headers);
      auto bodies = b.CreateVector(reinterpret_cast<const std::uint8_t*>(packed.bodies.data()), packed.bodies.size());
      return fbs::CreateSyncPart(b, kVp, 1, headers, bodies, turn);
    });
    f.payload = packed.payload;
    auto answer = co_await link_.call(std::move(f), 5s);
    const auto* r = answer.ok() ? answer->as<fbs::SyncReply>() : nullptr;
    out = r ? wire::make_status(r->code(), r->text()) : answer.status();
  }
  Task<void> send(RecordPtr r) {
    head::PackedRecords packed;
    packed.add(*r, r->payload);
    wire::Frame f = wire::make_frame(wire::Kind::replicate, [&](auto& b) {
      fbs::VpState state(kVp, 1, 0);
      auto states = b.CreateVectorOfStructs(&state, 1);
      auto headers = b.CreateVectorOfStructs(packed.headers);
      auto bodies = b.CreateVector(reinterpret_cast<const std::uint8_t*>(packed.bodies.data()), packed.bodies.size());
      return fbs::CreateReplicate(b, states, headers, bodies);
    });
    f.payload = packed.payload;
    EXPECT_TRUE(link_.send(std::move(f)));
    co_await world_.sleep(50ms);
  }
  Code last_code = Code::internal;
  Lsn durable = 0;

 private:
  io::World& world_;
  wire::Identity identity_{kUnit, kPrimary};
  wire::Link link_;
};

// A head that follows a primary of the test's own, up to the start of the epoch.
struct Reserve : ::testing::Test {
  Reserve() {
    logging::setup("test", "off");
    sim.add_node("head", [](io::World& w) { return std::make_shared<HeadDaemon>(w); });
    node = sim.add_node("primary", [this](io::World& w) { return primary = std::make_shared<FakePrimary>(w); });
    sim.run_for(100ms);
    sim.run(node, primary->begin());
    sim.run(node, primary->send(head::make_record(kVp, {1, 1}, RecordKind::epoch_start, 0, 0, {}, {}, {})));
  }
  ~Reserve() override { primary.reset(); }

  Simulation sim{1};
  std::shared_ptr<FakePrimary> primary;
  Node node{};
};

// Requirement: P-2.1 switch=diverged-unchecked
TEST_F(Reserve, ARecordOtherThanTheOneThatItHoldsIsRefused) {
  sim.run(node, primary->send(data({1, 2}, 7)));
  EXPECT_EQ(primary->last_code, Code::ok);
  EXPECT_EQ(primary->durable, 2u);
  sim.run(node, primary->send(data({1, 2}, 7)));
  EXPECT_EQ(primary->last_code, Code::ok) << "the same again is a duplicate";
  sim.run(node, primary->send(data({1, 2}, 8)));
  EXPECT_EQ(primary->last_code, Code::diverged);
}

// Requirement: WR-13 switch=old-epoch-taken
TEST_F(Reserve, ARecordOfAnOlderEpochIsRefusedOnceANewerIsKnown) {
  sim.run(node, primary->send(data({1, 2}, 7)));
  ASSERT_EQ(primary->last_code, Code::ok);
  sim.run(node, primary->begin_as(2, kFirstFake));
  sim.run(node, primary->send(data({1, 3}, 8)));
  EXPECT_EQ(primary->last_code, Code::fenced);
  EXPECT_EQ(primary->durable, 2u);
}

// Requirement: P-4.7 switch=heard-primary-denied
TEST_F(Reserve, ASurvivorThatHearsThePrimarySaysSoUntilItHasBeenSilent) {
  bool heard = false;
  sim.run(node, primary->send(data({1, 2}, 7)));
  sim.run(node, primary->ask_alive(heard));
  EXPECT_TRUE(heard);
  sim.run_for(2s);
  sim.run(node, primary->ask_alive(heard));
  EXPECT_FALSE(heard);
}

// Requirement: P-3.4 switch=late-sync-taken
TEST_F(Reserve, ASynchronisationThatWasGivenUpIsRefusedWhenItComesLate) {
  sim.run(node, primary->send(data({1, 2}, 7)));
  Code code = Code::internal;
  sim.run(node, primary->synchronise(2, {1, 2}, code));
  EXPECT_EQ(code, Code::ok);
  sim.run(node, primary->send(data({1, 3}, 8)));
  EXPECT_EQ(primary->durable, 3u);
  sim.run(node, primary->synchronise(1, {1, 1}, code));
  EXPECT_EQ(code, Code::unavailable) << "it would drop what has been answered as durable since";
  sim.run(node, primary->send(data({1, 4}, 9)));
  EXPECT_EQ(primary->last_code, Code::ok);
  EXPECT_EQ(primary->durable, 4u);
}

// Its log may be full of what the synchronisation would let it give back.
// Requirement: P-3.4 switch=sync-waits-for-space
TEST_F(Reserve, WhatASynchronisationHasNoRoomForIsRefusedAtOnce) {
  Code code = Code::internal;
  sim.run(node, primary->synchronise(2, {1, 1}, code));
  ASSERT_EQ(code, Code::ok);
  std::vector<RecordPtr> more_than_the_log;
  for (Lsn lsn = 2; lsn < 2 + (HeadDaemon::options().log_bytes >> 18); ++lsn) more_than_the_log.push_back(data({1, lsn}, 7, 0, 64));
  Status s;
  sim.run(node, primary->part(2, more_than_the_log, s));
  EXPECT_EQ(s.code(), Code::no_space) << s.to_string();
  sim.run(node, primary->synchronise(3, {1, 1}, code));
  EXPECT_EQ(code, Code::ok) << "the next one is not held up";
}

// Requirement: P-2.1
TEST_F(Reserve, ARecordBeyondTheEndOfTheVolumePartitionIsNotTaken) {
  for (Lba beyond : {Lba{256}, Lba{1} << 40, ~Lba{0}}) {
    sim.run(node, primary->send(data({1, 2}, 7, beyond)));
    EXPECT_EQ(primary->last_code, Code::unavailable);
  }
  sim.run(node, primary->send(data({1, 2}, 7, 255)));
  EXPECT_EQ(primary->last_code, Code::ok);
  EXPECT_EQ(primary->durable, 2u);
}

// A reserve that answers `collect` with what the test gives it, and remembers whether its tail was asked for.
class FakeReserve {
 public:
  FakeReserve(io::World& w, NodeId id, LogPoint last, std::vector<fbs::EpochStartEntry> starts)
      : last_(last), starts_(std::move(starts)), identity_{kUnit, id}, server_(w, identity_),
        control_(w, identity_, kControlAddress,
                 {.id = id, .name = "fake-" + std::to_string(id), .role = "head", .address = address(id), .incarnation = id}, {}) {
    Status s = server_.listen(address(id), [this](const std::shared_ptr<wire::Channel>& c, wire::Frame f) { serve(c, std::move(f)); });
    LUGE_CHECK(s.ok());
    control_.start();
  }
  static std::string address(NodeId id) { return "tcp:fake-" + std::to_string(id) + ":1"; }
  bool tail_asked_for = false;

 private:
  void serve(const std::shared_ptr<wire::Channel>& c, wire::Frame f) {
    if (f.kind == wire::Kind::fetch_tail) tail_asked_for = true;
    if (f.kind != wire::Kind::collect) return;
    const auto* m = f.as<fbs::Collect>();
    LUGE_CHECK(m && m->designation());
    c->reply(f, wire::make_frame(wire::Kind::collect_reply, [&](auto& b) {
      fbs::LogPoint last(last_.epoch, last_.lsn);
      auto text = b.CreateString("");
      auto starts = b.CreateVectorOfStructs(starts_);
      return fbs::CreateCollectReply(b, 0, text, m->designation()->epoch(), m->designation()->revision(), &last, 0, starts, false, 1);
    }));
  }

  LogPoint last_;
  std::vector<fbs::EpochStartEntry> starts_;
  wire::Identity identity_;
  wire::Server server_;
  wire::ControlLink control_;
};

// Tells the head of epochs by the way of a primary that asks.
struct Teller {
  explicit Teller(io::World& w) : link(w, identity, kHeadAddress) { link.start(); }
  Task<void> tell(std::vector<wire::Designation> of) {
    for (const wire::Designation& d : of) EXPECT_TRUE((co_await link.call(collect(d), 1s)).ok());
  }
  wire::Identity identity{kUnit, kPrimary};
  wire::Link link;
};

// Requirement: P-4.2 switch=longest-log-by-length
TEST(Promotion, TheLaterEpochCountsMoreThanTheLongerLog) {
  logging::setup("test", "off");
  Simulation sim(1);
  sim.add_node("control", [](io::World& w) { return std::make_shared<ControlDaemon>(w); });
  sim.add_node("head", [](io::World& w) { return std::make_shared<HeadDaemon>(w); });
  std::shared_ptr<FakeReserve> longer, later;
  sim.add_node("longer", [&](io::World& w) {
    return longer = std::make_shared<FakeReserve>(w, kFirstFake, LogPoint{1, 50}, std::vector<fbs::EpochStartEntry>{{1, 1}});
  });
  sim.add_node("later", [&](io::World& w) {
    return later = std::make_shared<FakeReserve>(w, kFirstFake + 1, LogPoint{2, 36}, std::vector<fbs::EpochStartEntry>{{1, 1}, {2, 36}});
  });
  sim.run_for(500ms);
  std::shared_ptr<Teller> teller;
  Node node = sim.add_node("teller", [&](io::World& w) { return teller = std::make_shared<Teller>(w); });
  // A reserve first; then told of a new epoch: its own.
  sim.run(node, teller->tell({designation(1, kFirstFake, {kHead, kFirstFake + 1}), designation(3, kHead, {kFirstFake, kFirstFake + 1})}));
  sim.run_for(2s);
  EXPECT_TRUE(later->tail_asked_for);
  EXPECT_FALSE(longer->tail_asked_for);
  longer.reset(), later.reset(), teller.reset();
}

// A head that knows nothing of the VP is told that it is the primary of an epoch long begun: it may have served in it before it lost
// all that it held, and what it wrote then is under that epoch's numbers.
// Requirement: P-4.5 switch=restarted-primary-keeps-epoch
TEST(Promotion, AHeadThatLostWhatItHeldDoesNotGoOnInItsEpoch) {
  logging::setup("test", "off");
  Simulation sim(1);
  sim.add_node("control", [](io::World& w) { return std::make_shared<ControlDaemon>(w); });
  sim.add_node("head", [](io::World& w) { return std::make_shared<HeadDaemon>(w); });
  std::shared_ptr<FakeReserve> reserve;
  sim.add_node("reserve", [&](io::World& w) {
    return reserve = std::make_shared<FakeReserve>(w, kFirstFake, LogPoint{3, 50}, std::vector<fbs::EpochStartEntry>{{3, 1}});
  });
  sim.run_for(500ms);
  std::shared_ptr<Teller> teller;
  Node node = sim.add_node("teller", [&](io::World& w) { return teller = std::make_shared<Teller>(w); });
  sim.run(node, teller->tell({designation(3, kHead, {kFirstFake})}));
  sim.run_for(2s);
  EXPECT_FALSE(reserve->tail_asked_for) << "it took up its role without a new epoch";
  reserve.reset(), teller.reset();
}

}  // namespace
}  // namespace luge::sim
