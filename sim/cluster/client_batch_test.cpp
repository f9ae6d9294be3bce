// Batches that a client of ours does not send, or seldom, straight to the primary of a whole unit.
#include "base/crc32c.hpp"
#include "sim/cluster/unit_fixture.hpp"
#include "wire/client_generated.h"

namespace luge::sim {
namespace {

constexpr std::uint64_t kAttachment = 77;

// Holds a session of its own.
struct RawClient {
  RawClient(io::World& w, const std::string& address, VpId vp, Epoch epoch)
      : vp(vp), epoch(epoch), link(w, identity, address, [this](const std::shared_ptr<wire::Channel>&, wire::Frame f) {
          if (const auto* m = f.kind == wire::Kind::write_replies ? f.as<fbs::WriteReplies>() : nullptr)
            for (const auto* r : *m->results()) codes[r->sequence()] = static_cast<Code>(r->code());
          if (const auto* m = f.kind == wire::Kind::read_replies ? f.as<fbs::ReadReplies>() : nullptr) answered += m->results()->size();
        }) {
    link.on_disconnect([this] { ++cut; });
    link.start();
  }
  Task<void> open() {
    auto a = co_await link.call(wire::make_frame(wire::Kind::open_session, [&](auto& b) { return fbs::CreateOpenSession(b, vp, epoch, kAttachment, 1); }), 1s);
    EXPECT_TRUE(a.ok() && a->kind == wire::Kind::session_reply && a->as<fbs::SessionReply>()->code() == 0);
  }
  struct Write {
    Lba lba;
    char with;
  };
  void write(const std::vector<Write>& writes, std::size_t blocks_less = 0) {
    std::vector<fbs::WriteOp> ops;
    std::vector<std::uint32_t> crcs;
    std::vector<Buffer> payload;
    for (const Write& w : writes) {
      ops.emplace_back(++sequence, w.lba * kBlockBytes, kBlockBytes, fbs::OpKind::write, 0, 0);
      payload.push_back(Buffer::allocate(kBlockBytes));
      std::memset(payload.back().data(), w.with, kBlockBytes);
      crcs.push_back(crc32c(payload.back().bytes()));
    }
    payload.resize(payload.size() - blocks_less);
    wire::Frame f = wire::make_frame(wire::Kind::write_batch, [&](auto& b) {
      auto o = b.CreateVectorOfStructs(ops);
      auto c = b.CreateVector(crcs);
      return fbs::CreateWriteBatch(b, vp, epoch, kAttachment, 1, 1, o, c);
    });
    f.payload = std::move(payload);
    EXPECT_TRUE(link.send(std::move(f)));
  }
  void read(std::size_t times, std::uint32_t blocks) {
    std::vector<fbs::ReadOp> ops;
    for (std::size_t i = 0; i < times; ++i) ops.emplace_back(i, 0, blocks, 0);
    EXPECT_TRUE(link.send(wire::make_frame(wire::Kind::read_batch, [&](auto& b) {
      auto o = b.CreateVectorOfStructs(ops);
      return fbs::CreateReadBatch(b, vp, epoch, o);
    })));
  }
  VpId vp;
  Epoch epoch;
  std::uint64_t sequence = 0, answered = 0;
  int cut = 0;
  std::map<std::uint64_t, Code> codes;
  wire::Identity identity{kUnit, 990};
  wire::Link link;
};

struct ClientBatch : UnitTest {
  ClientBatch() {
    fill('A');
    raw_node_ = sim_.add_node("raw", [this](io::World& w) {
      return raw_ = std::make_shared<RawClient>(w, "tcp:" + name(designation().primary) + ":1", designation().vp, designation().epoch);
    });
    sim_.run(raw_node_, raw_->open());
  }
  ~ClientBatch() override { raw_.reset(); }
  // From the primary's memory: nothing is flushed.
  std::uint64_t read_by_head() {
    std::string report = unit_->head(designation().primary)->report(), key = "\"read_bytes\":{\"memory\":";
    auto at = report.find(key);
    return at == std::string::npos ? 0 : std::strtoull(report.c_str() + at + key.size(), nullptr, 10);
  }
  Node raw_node_{};
  std::shared_ptr<RawClient> raw_;
};

// A front end that knew a new size before the primary did sent such a batch.
// Requirement: WR-01 switch=refused-op-brings-nothing
TEST_F(ClientBatch, AWriteThatIsRefusedLeavesTheOthersTheirPayload) {
  raw_->write({{1, 'B'}, {kBlocks + 1, 'X'}, {3, 'C'}, {4, 'D'}});
  sim_.run_for(1s);
  EXPECT_EQ(raw_->codes, (std::map<std::uint64_t, Code>{{1, Code::ok}, {2, Code::unavailable}, {3, Code::ok}, {4, Code::ok}}));
  EXPECT_EQ(contents().substr(0, 6), "ABACDA");
}

TEST_F(ClientBatch, WhatDoesNotBringWhatItNamesIsNotTaken) {
  raw_->write({{1, 'B'}, {2, 'C'}}, 1);
  sim_.run_for(1s);
  EXPECT_TRUE(raw_->codes.empty());
  EXPECT_EQ(raw_->cut, 1);
  EXPECT_EQ(contents().substr(0, 4), "AAAA");
}

TEST_F(ClientBatch, MoreThanABatchMayAskForIsRefused) {
  raw_->read(64, kBlocks);
  sim_.run_for(1s);
  EXPECT_EQ(raw_->answered, 64u);
  raw_->read(65, kBlocks);
  sim_.run_for(1s);
  EXPECT_EQ(raw_->answered, 64u);
  EXPECT_EQ(raw_->cut, 1);
}

TEST_F(ClientBatch, NothingIsReadForAClientThatTakesNoAnswers) {
  constexpr std::uint64_t kBatches = 64;  // a GiB of answers
  for (std::uint64_t i = 0; i < kBatches; ++i) raw_->read(64, kBlocks);
  sim_.run_until([&] { return raw_->answered != 0; }, 1s);
  sim_.pause(raw_node_);
  sim_.run_for(5s);
  EXPECT_LT(read_by_head(), 400u << 20);
  sim_.resume(raw_node_);
  EXPECT_TRUE(sim_.run_until([&] { return raw_->answered == kBatches * 64; }, 60s)) << raw_->answered;
  EXPECT_EQ(raw_->cut, 0);
}

// What it has asked for is remembered, and more than any front end has memory for.
TEST_F(ClientBatch, WhoAsksForMoreThanAnybodyNeedsAndTakesNothingIsCutOff) {
  raw_->read(64, kBlocks);
  sim_.run_until([&] { return raw_->answered != 0; }, 1s);
  for (int i = 0; i < 300; ++i) raw_->read(64, kBlocks);
  sim_.run_for(20ms);
  sim_.pause(raw_node_);
  sim_.run_for(5s);
  sim_.resume(raw_node_);
  EXPECT_TRUE(sim_.run_until([&] { return raw_->cut != 0; }, 60s));
  EXPECT_EQ(contents(), std::string(kBlocks, 'A')) << "others are served";
}

}  // namespace
}  // namespace luge::sim
