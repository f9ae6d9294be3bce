// The coding gateway end to end: a stripe to six sleds, what is lost comes back, what lies is found out.
#include "sled/gateway.hpp"

#include "coding/faulty_coder.hpp"
#include "sled/unit_fixture.hpp"

namespace luge::sled::testing {
namespace {

using namespace std::chrono_literals;

struct GatewayUnit : SledUnit {
  explicit GatewayUnit(std::uint32_t sleds = 6, std::uint64_t seed = 1, std::function<void(Options&)> tweak = {}) : SledUnit(sleds, 1, seed, tweak) {
    fence_all(kVp, 1);
    for (std::uint32_t i = 0; i < sleds; ++i) {
      auto c = claim(i, kVp, 1);
      EXPECT_TRUE(c.ok()) << c.status().to_string();
      generations.push_back(c.ok() ? c->slots[0].generation() : 0);
    }
  }
  // Chunk i on sled i, all in slot `slot`.
  std::vector<fbs::ChunkPlace> places(std::uint32_t slot, Layout l = kLayout) const {
    std::vector<fbs::ChunkPlace> p;
    for (std::uint32_t i = 0; i < l.width(); ++i) p.push_back(place(i, 0, slot, generations[i]));
    return p;
  }
  // Reads all chunks but those on `lost`, rebuilds data chunk `wanted` and checks it as a head does (protocol 8.6).
  Status rebuild(const Stripe& s, const std::vector<fbs::ChunkPlace>& p, std::vector<std::uint32_t> lost, std::uint32_t wanted) {
    std::vector<Bytes> present(s.layout.width());
    std::vector<Read> reads(s.layout.width());
    std::optional<coding::ChunkHeader> header;
    for (std::uint32_t i = 0; i < s.layout.width(); ++i) {
      if (p[i].sled() == 0 || i == wanted || std::find(lost.begin(), lost.end(), i) != lost.end()) continue;
      auto r = read(i, s.id, i, p[i], 0, static_cast<std::uint32_t>(s.chunks[0].size() / kBlockBytes));
      if (!r.ok()) return r.status();
      reads[i] = *r;
      present[i] = reads[i].blocks.bytes();
      auto h = coding::parse_chunk_header(reads[i].header.bytes());
      if (!h.ok()) return h.status();
      header = *h;
    }
    Buffer out = Buffer::zeros(s.chunks[0].size());
    Status status;
    auto coder = coding::make_isal_coder();
    sim.run(client_node, [](coding::ErasureCoder& coder, Layout l, const std::vector<Bytes>& present, std::uint32_t wanted, Buffer& out, Status& status) -> io::Task<void> {
      MutableBytes to[1] = {out.mutable_bytes()};
      status = co_await coder.reconstruct(l, present, std::span(&wanted, 1), to);
    }(*coder, s.layout, present, wanted, out, status));
    if (!status.ok()) return status;
    for (std::uint32_t b = 0; b < header->blocks_per_chunk(); ++b)
      if (crc32c(out.bytes().subspan(b * kBlockBytes, kBlockBytes)) != header->block_crc(wanted, b)) return Status(Code::corrupt, "the rebuilt block is not the one that was written");
    EXPECT_EQ(std::memcmp(out.data(), s.chunks[wanted].data(), out.size()), 0);
    return Status();
  }
  std::vector<Generation> generations;
};

// Requirement: FL-01, FL-10, FL-11
TEST(Gateway, PutsEveryChunkOnASledOfItsOwn) {
  GatewayUnit u;
  Stripe s = u.stripe(1);
  auto p = u.places(0);
  auto a = u.write_stripe(2, s, p);
  ASSERT_TRUE(a.status.ok()) << a.status.to_string();
  EXPECT_EQ(a.results, std::vector<Code>(6, Code::ok));
  EXPECT_EQ(a.coder, "isal");
  for (std::uint32_t i = 0; i < 6; ++i) {
    auto r = u.read(i, s.id, i, p[i]);
    ASSERT_TRUE(r.ok()) << i << ": " << r.status().to_string();
    EXPECT_EQ(std::memcmp(r->blocks.data(), s.chunks[i].data(), kChunk), 0) << i;
    EXPECT_EQ(u.reported(i, "chunks_written"), 1u);
  }
  for (std::uint32_t x = 0; x < 4; ++x)
    for (std::uint32_t y = 0; y < 6; ++y)
      if (x != y) EXPECT_TRUE(u.rebuild(s, p, {x, y}, x).ok()) << x << " and " << y << " lost";
  EXPECT_EQ(u.reported(2, "stripes_coded"), 1u);
  EXPECT_EQ(u.reported(2, "source_bytes_coded"), 4u * kChunk);
  EXPECT_EQ(u.reported(2, "software_jobs"), 1u);
  EXPECT_EQ(u.reported(2, "fallbacks"), 0u);
  EXPECT_EQ(u.reported(0, "stripes_coded"), 0u);
}

// The gateway's answer means durable: all chunks are there after all sleds lost power.
TEST(Gateway, WhatItAnsweredIsDurable) {
  GatewayUnit u;
  Stripe s = u.stripe(1);
  auto p = u.places(3);
  ASSERT_TRUE(u.write_stripe(0, s, p).status.ok());
  for (std::uint32_t i = 0; i < 6; ++i) u.crash(i);
  for (std::uint32_t i = 0; i < 6; ++i) ASSERT_TRUE(u.restart(i).ok());
  for (std::uint32_t i = 0; i < 6; ++i) EXPECT_TRUE(u.read(i, s.id, i, p[i]).ok()) << i;
}

// Requirement: FL-10
TEST(Gateway, OtherLayouts) {
  GatewayUnit u(9);
  std::uint64_t counter = 1;
  for (Layout l : {Layout{1, 0}, Layout{1, 1}, Layout{2, 2}, Layout{3, 0}, Layout{5, 4}, Layout{8, 1}}) {
    Stripe s = u.stripe(counter, 1, kVp, l);
    auto p = u.places(static_cast<std::uint32_t>(counter++), l);
    auto a = u.write_stripe(l.width() - 1, s, p);
    ASSERT_TRUE(a.status.ok()) << to_string(l) << " " << a.status.to_string();
    if (l.m != 0) EXPECT_TRUE(u.rebuild(s, p, {0}, 0).ok()) << to_string(l);
  }
}

// Chunks so large that coding takes many turns of the loop.
TEST(Gateway, LargeChunks) {
  SledUnit u(6);
  u.fence_all(kVp, 1);
  constexpr std::uint32_t kBytes = 180 * kBlockBytes;
  Stripe s = u.stripe(1, 1, kVp, kLayout, kBytes);
  std::vector<fbs::ChunkPlace> p;
  for (std::uint32_t i = 0; i < 6; ++i) {
    auto c = u.claim(i, kVp, 1, 0, slot_bytes(kLayout, kBytes));
    ASSERT_TRUE(c.ok());
    p.push_back(u.place(i, 0, 0, c->slots[0].generation()));
  }
  ASSERT_TRUE(u.write_stripe(5, s, p).status.ok());
  auto r = u.read(4, s.id, 4, p[4], 0, 180);
  ASSERT_TRUE(r.ok()) << r.status().to_string();
  EXPECT_EQ(std::memcmp(r->blocks.data(), s.chunks[4].data(), kBytes), 0);
}

// A place without a sled is left out.
// Requirement: P-8.5
TEST(Gateway, NarrowerStripes) {
  GatewayUnit u;
  Stripe s = u.stripe(1);
  auto p = u.places(0);
  p[1] = fbs::ChunkPlace(0, 0, 0, 0, 0, 0);
  auto a = u.write_stripe(0, s, p);
  ASSERT_TRUE(a.status.ok()) << a.status.to_string();
  EXPECT_TRUE(u.rebuild(s, p, {}, 1).ok());
  EXPECT_EQ(u.reported(1, "chunks_written"), 0u);
  p = u.places(1);
  for (int i : {0, 2, 3}) p[i] = fbs::ChunkPlace(0, 0, 0, 0, 0, 0);
  EXPECT_EQ(u.write_stripe(5, u.stripe(2), p).status.code(), Code::invalid) << "three chunks hold nothing";
}

TEST(Gateway, AnswersForEachPlace) {
  GatewayUnit u(6, 1, [](Options& o) { o.peer_timeout = 2s; });
  u.crash(4);
  auto a = u.write_stripe(0, u.stripe(1), u.places(0));
  EXPECT_FALSE(a.status.ok());
  ASSERT_EQ(a.results.size(), 6u);
  for (std::uint32_t i = 0; i < 6; ++i) EXPECT_EQ(a.results[i] == Code::ok, i != 4) << i;
  EXPECT_NE(a.status.text().find("sled 45"), std::string::npos) << a.status.text();
  ASSERT_TRUE(u.restart(4).ok());
  // Slot 0 is used up on five sleds.
  a = u.write_stripe(1, u.stripe(2), u.places(0));
  for (std::uint32_t i = 0; i < 6; ++i) EXPECT_EQ(a.results[i], i == 4 ? Code::ok : Code::stale) << i;
  EXPECT_TRUE(u.write_stripe(1, u.stripe(3), u.places(1)).status.ok());
}

// Where any sled knows of a newer epoch, the sender hears that it has been fenced off, whatever else went wrong.
TEST(Gateway, TellsTheSenderThatItIsFenced) {
  GatewayUnit u(6, 1, [](Options& o) { o.peer_timeout = 2s; });
  ASSERT_TRUE(u.fence(5, kVp, 2).ok());
  u.crash(1);
  auto a = u.write_stripe(0, u.stripe(1), u.places(0));
  EXPECT_EQ(a.status.code(), Code::fenced) << a.status.to_string();
  EXPECT_EQ(a.results[5], Code::fenced);
}

// Requirement: FL-01, P-8.5
TEST(Gateway, RefusesWhatCannotBe) {
  GatewayUnit u;
  Stripe s = u.stripe(1);
  auto p = u.places(0);
  auto twice = p;
  twice[3] = u.place(2, 0, 1, u.generations[2]);
  auto a = u.write_stripe(0, s, twice);
  EXPECT_EQ(a.status.code(), Code::invalid) << "two columns of a stripe on one sled are never a silent choice";
  EXPECT_EQ(a.results, std::vector<Code>(6, Code::invalid));
  Stripe lie = u.stripe(1);
  lie.blocks[5] = fbs::BlockIdentity(5, 5, lie.blocks[5].crc() ^ 1, 0);
  EXPECT_EQ(u.write_stripe(0, lie, p).status.code(), Code::corrupt);
  wire::Frame f = u.stripe_frame(s, p);
  f.payload.pop_back();
  EXPECT_EQ(SledUnit::stripe_answer(u.call(0, f)).status.code(), Code::invalid);
  for (std::uint32_t i = 0; i < 6; ++i) EXPECT_EQ(u.reported(i, "chunks_written"), 0u);
  EXPECT_TRUE(u.write_stripe(0, s, p).status.ok());
}

// The coder is not trusted.
// Requirement: P-8.7 switch=card-parity-unverified
TEST(Gateway, AFaultyCoderCostsNoData) {
  using Mood = coding::FaultyCoder::Mood;
  for (Mood mood : {Mood::wrong, Mood::refuses, Mood::hangs, Mood::silent}) {
    std::shared_ptr<coding::FaultyCoder> coder;
    GatewayUnit u(6, 1, [&](Options& o) {
      if (o.id != SledUnit::id(0)) return;
      o.make_coder = [&coder](io::World& w) { return coder = std::make_shared<coding::FaultyCoder>(w); };
    });
    for (std::uint64_t n = 1; n <= 4; ++n) {
      if (n == 2) coder->mood = mood;
      if (n == 4) coder->mood = Mood::right;
      if (n == 4) u.sim.run_for(5s);
      Stripe s = u.stripe(n);
      auto p = u.places(static_cast<std::uint32_t>(n));
      auto a = u.write_stripe(0, s, p);
      ASSERT_TRUE(a.status.ok());
      EXPECT_EQ(a.coder, n == 1 || n == 4 ? "faulty" : "isal") << "stripe " << n;
      for (std::uint32_t x = 0; x < 4; ++x) EXPECT_TRUE(u.rebuild(s, p, {(x + 1) % 4}, x).ok()) << "stripe " << n << " chunk " << x;
    }
    EXPECT_EQ(u.reported(0, "wrong") + u.reported(0, "refused") + u.reported(0, "hung"), 1u);
    EXPECT_EQ(u.reported(0, "fallbacks"), 2u);
    EXPECT_EQ(u.reported(0, "device_jobs"), 2u);
    EXPECT_NE(u.report(0).find("\"state\":\"suspect\""), std::string::npos) << "back, and on probation: " << u.report(0);
  }
}

// The sabotage: every checksum is right and every read is answered, but what is rebuilt is not what was written.
TEST(Mutant, WrongParityIsCaughtByTheBlocksChecksum) {
  GatewayUnit u;
  Stripe s = u.stripe(1);
  auto p = u.places(0);
  {
    Broken rule(Switch::wrong_parity);
    ASSERT_TRUE(u.write_stripe(0, s, p).status.ok());
  }
  for (std::uint32_t i = 0; i < 6; ++i) EXPECT_TRUE(u.read(i, s.id, i, p[i]).ok()) << i;
  EXPECT_EQ(u.rebuild(s, p, {2}, 1).code(), Code::corrupt);
}

wire::Frame rebuild_frame(const Stripe& s, const std::vector<fbs::ChunkPlace>& places, std::uint32_t chunk, std::uint32_t first, std::uint32_t blocks,
                          std::vector<std::uint32_t> unreachable = {}) {
  fbs::StripeId id = wire_id(s.id);
  return wire::make_frame(wire::Kind::rebuild, [&](auto& b) {
    std::vector<flatbuffers::Offset<flatbuffers::String>> addresses;
    for (std::uint32_t i = 0; i < places.size(); ++i) {
      bool there = places[i].sled() != 0 && std::find(unreachable.begin(), unreachable.end(), i) == unreachable.end();
      addresses.push_back(b.CreateString(there ? SledUnit::address(places[i].sled() - SledUnit::id(0)) : ""));
    }
    auto list = b.CreateVectorOfStructs(places);
    return fbs::CreateRebuild(b, &id, static_cast<std::uint16_t>(s.layout.k), static_cast<std::uint16_t>(s.layout.m), list, b.CreateVector(addresses),
                              static_cast<std::uint16_t>(chunk), first, blocks);
  });
}

struct Rebuilt {
  Status status;
  Buffer blocks;
};
Rebuilt rebuilt(SledUnit& u, std::uint32_t sled, wire::Frame request) {
  auto r = u.call(sled, request);
  const auto* c = r.ok() && r->kind == wire::Kind::chunk ? r->as<fbs::Chunk>() : nullptr;
  if (c == nullptr) return {r.ok() ? Status(Code::corrupt, "no Chunk") : r.status(), {}};
  return {wire::make_status(c->code(), c->text()), r->data()};
}

// A sled decodes for the head: data and parity, from any k that can be read, and what its coder gets wrong is found.
// Requirement: P-8.6
TEST(Rebuild, AnyChunkFromAnyKOthers) {
  std::shared_ptr<coding::FaultyCoder> coder;
  GatewayUnit u(6, 1, [&](Options& o) {
    o.peer_timeout = 2s;
    if (o.id == SledUnit::id(2)) o.make_coder = [&coder](io::World& w) { return coder = std::make_shared<coding::FaultyCoder>(w); };
  });
  Stripe s = u.stripe(1);
  auto p = u.places(0);
  ASSERT_TRUE(u.write_stripe(1, s, p).status.ok());
  for (std::uint32_t chunk : {0u, 3u, 4u, 5u}) {
    Rebuilt r = rebuilt(u, 2, rebuild_frame(s, p, chunk, 1, 2, {1}));
    ASSERT_TRUE(r.status.ok()) << r.status.to_string();
    EXPECT_EQ(std::memcmp(r.blocks.data(), s.chunks[chunk].data() + kBlockBytes, 2 * kBlockBytes), 0) << chunk;
  }
  EXPECT_EQ(u.reported(2, "blocks_rebuilt"), 8u);
  EXPECT_EQ(u.reported(2, "device_jobs"), 4u);
  coder->mood = coding::FaultyCoder::Mood::wrong;
  Rebuilt r = rebuilt(u, 2, rebuild_frame(s, p, 0, 0, 4));
  ASSERT_TRUE(r.status.ok()) << r.status.to_string();
  EXPECT_EQ(std::memcmp(r.blocks.data(), s.chunks[0].data(), kChunk), 0);
  EXPECT_EQ(u.reported(2, "wrong"), 1u);
}

TEST(Rebuild, SaysWhatIsMissing) {
  GatewayUnit u(6, 1, [](Options& o) { o.peer_timeout = 2s; });
  Stripe s = u.stripe(1);
  auto p = u.places(0);
  ASSERT_TRUE(u.write_stripe(1, s, p).status.ok());
  u.crash(4);
  Rebuilt r = rebuilt(u, 2, rebuild_frame(s, p, 0, 0, 1));
  EXPECT_TRUE(r.status.ok()) << "the fifth makes up for it: " << r.status.to_string();
  r = rebuilt(u, 2, rebuild_frame(s, p, 0, 0, 1, {5}));
  EXPECT_EQ(r.status.code(), Code::degraded);
  EXPECT_NE(r.status.text().find("sled 45"), std::string::npos) << r.status.text();
  EXPECT_EQ(rebuilt(u, 2, rebuild_frame(s, p, 6, 0, 1)).status.code(), Code::invalid);
  EXPECT_EQ(rebuilt(u, 2, rebuild_frame(s, p, 0, 3, 2)).status.code(), Code::degraded) << "no sled reads beyond its chunk";
  EXPECT_EQ(rebuilt(u, 2, rebuild_frame(s, p, 0, 0, 0)).status.code(), Code::invalid);
  p.pop_back();
  EXPECT_EQ(rebuilt(u, 2, rebuild_frame(s, p, 0, 0, 1)).status.code(), Code::invalid);
}

// More stripes at once than the gateway may hold: they wait, none is refused, and the bound is kept.
TEST(Gateway, HoldsOnlySoManyStripesAtOnce) {
  GatewayUnit u(6, 1, [](Options& o) { o.stripe_memory = 3 * 8 * kChunk; });
  std::vector<SledUnit::Pending> pending;
  std::vector<Stripe> stripes;
  for (std::uint64_t n = 0; n < 14; ++n) {
    stripes.push_back(u.stripe(n + 1));
    pending.push_back(u.begin(0, u.stripe_frame(stripes.back(), u.places(static_cast<std::uint32_t>(n)))));
  }
  for (std::size_t n = 0; n < pending.size(); ++n) {
    auto a = SledUnit::stripe_answer(u.end(pending[n]));
    EXPECT_TRUE(a.status.ok()) << n << " " << a.status.to_string();
  }
  EXPECT_EQ(u.reported(0, "stripes_coded"), 14u);
}

}  // namespace
}  // namespace luge::sled::testing
