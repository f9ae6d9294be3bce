#include "coding/chunk_header.hpp"

#include <gtest/gtest.h>

#include <random>

#include "base/crc32c.hpp"

namespace luge::coding {
namespace {

constexpr std::uint32_t kChunk = 16 * kBlockBytes;
constexpr Layout kLayout{4, 2};

Buffer example() {
  std::vector<fbs::BlockIdentity> ids;
  for (std::uint64_t i = 0; i < 64; ++i) ids.emplace_back(1000 + i, 7 + i, static_cast<std::uint32_t>(i * 31), 0);
  std::vector<std::uint32_t> parity;
  for (std::uint32_t i = 0; i < 32; ++i) parity.push_back(i * 17);
  return encode_chunk_header({5, {9, 3, 44}, kLayout, kChunk, 2, 77, true}, ids, parity);
}

TEST(ChunkHeader, RoundTrip) {
  Buffer b = example();
  EXPECT_EQ(b.size(), chunk_header_bytes(kLayout, kChunk));
  auto h = parse_chunk_header(b.bytes());
  ASSERT_TRUE(h.ok()) << h.status().to_string();
  EXPECT_EQ(h->stripe(), (StripeId{9, 3, 44}));
  EXPECT_EQ(h->fields().generation, 77u);
  EXPECT_EQ(h->fields().chunk_index, 2u);
  EXPECT_TRUE(h->fields().written);
  EXPECT_EQ(h->identity(1, 3).lba(), 1000u + 19);
  EXPECT_EQ(h->identity(1, 3).lsn(), 7u + 19);
  EXPECT_EQ(h->block_crc(5, 2), 18u * 17);
}

TEST(ChunkHeader, BlankSlotAndFreedSlot) {
  EXPECT_EQ(parse_chunk_header(Buffer::zeros(4096).bytes()).code(), Code::not_found);
  auto h = parse_chunk_header(encode_free_header(5, 8).bytes());
  ASSERT_TRUE(h.ok());
  EXPECT_FALSE(h->fields().written);
  EXPECT_EQ(h->fields().generation, 8u);
}

// Under a right checksum: a freed slot has no identities, whatever layout it claims.
TEST(ChunkHeader, AFreedSlotNamesNoStripe) {
  for (int field = 0; field < 4; ++field) {
    Buffer b = encode_free_header(5, 8);
    ChunkHeaderHead h;
    std::memcpy(&h, b.data(), sizeof h);
    if (field == 0) h.chunk_bytes = kChunk;
    if (field == 1) h.k = 4;
    if (field == 2) h.chunk_index = 1;
    if (field == 3) h.counter = 7;
    h.crc = 0;
    h.crc = crc32c(Bytes(reinterpret_cast<const std::byte*>(&h), sizeof h));
    std::memcpy(b.data(), &h, sizeof h);
    EXPECT_EQ(parse_chunk_header(b.bytes()).code(), Code::corrupt) << "field " << field;
  }
}

TEST(ChunkHeader, EveryFlippedBitIsNoticed) {
  Buffer good = example();
  for (std::size_t bit = 0; bit < good.size() * 8; bit += 13) {
    Buffer b = Buffer::copy_of(good.bytes());
    b.data()[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
    EXPECT_FALSE(parse_chunk_header(b.bytes()).ok()) << "bit " << bit;
  }
}

TEST(ChunkHeader, HostileBytesAreErrors) {
  std::mt19937_64 rng(3);
  for (int i = 0; i < 2000; ++i) {
    Buffer b = Buffer::copy_of(example().bytes());
    for (int n = 0; n < 4; ++n) b.data()[rng() % sizeof(ChunkHeaderHead)] = static_cast<std::byte>(rng());
    EXPECT_FALSE(parse_chunk_header(b.bytes().first(rng() % (b.size() + 1))).ok());
  }
}

// A header of any fields under a right checksum: what passes describes a chunk that can be.
TEST(ChunkHeader, ARightChecksumIsNotEnough) {
  auto with = [](auto change) {
    Buffer b = Buffer::copy_of(example().bytes());
    ChunkHeaderHead h;
    std::memcpy(&h, b.data(), sizeof h);
    change(h);
    h.crc = 0;
    std::memcpy(b.data(), &h, sizeof h);
    if (h.header_bytes <= b.size()) h.crc = crc32c(b.bytes().first(h.header_bytes));
    std::memcpy(b.data(), &h, sizeof h);
    return parse_chunk_header(b.bytes()).code();
  };
  using H = ChunkHeaderHead;
  EXPECT_EQ(with([](H&) {}), Code::ok);
  EXPECT_EQ(with([](H& h) { h.version = 2; }), Code::wrong_version);
  EXPECT_EQ(with([](H& h) { h.state = 2; }), Code::corrupt);
  EXPECT_EQ(with([](H& h) { h.state = 0; }), Code::corrupt) << "a freed slot has nothing behind its head";
  EXPECT_EQ(with([](H& h) { h.header_bytes = 71; }), Code::corrupt);
  EXPECT_EQ(with([](H& h) { h.header_bytes = 0xfffff000; }), Code::corrupt);
  EXPECT_EQ(with([](H& h) { h.k = 0; }), Code::corrupt);
  EXPECT_EQ(with([](H& h) { h.k = 17; }), Code::corrupt);
  EXPECT_EQ(with([](H& h) { h.m = 5; }), Code::corrupt);
  EXPECT_EQ(with([](H& h) { h.k = 0xffff, h.m = 0xffff, h.chunk_bytes = 0xfffff000; }), Code::corrupt);
  EXPECT_EQ(with([](H& h) { h.chunk_index = 6; }), Code::corrupt);
  EXPECT_EQ(with([](H& h) { h.chunk_bytes = 0; }), Code::corrupt);
  EXPECT_EQ(with([](H& h) { h.chunk_bytes += 64; }), Code::corrupt);
  EXPECT_EQ(with([](H& h) { h.chunk_bytes *= 4; }), Code::corrupt) << "identities of blocks that are not there";
}

TEST(ChunkHeader, HowMuchToRead) {
  Buffer b = example();
  EXPECT_EQ(claimed_header_bytes(b.bytes(), 1 << 20), b.size());
  EXPECT_EQ(claimed_header_bytes(b.bytes(), b.size() - 1), 0u);
  EXPECT_EQ(claimed_header_bytes(encode_free_header(5, 8).bytes(), 1 << 20), 4096u);
  EXPECT_EQ(claimed_header_bytes(Buffer::zeros(4096).bytes(), 1 << 20), 0u);
  EXPECT_EQ(claimed_header_bytes(b.bytes().first(71), 1 << 20), 0u);
}

TEST(ChunkHeader, AllLayoutsFitAndComeBack) {
  for (std::uint32_t k = 1; k <= 16; ++k)
    for (std::uint32_t m = 0; m <= 4; ++m)
      for (std::uint32_t blocks : {1u, 3u, 64u}) {
        std::vector<fbs::BlockIdentity> ids;
        for (std::uint32_t i = 0; i < k * blocks; ++i) ids.emplace_back(i, i + 1, i * 3, 0);
        std::vector<std::uint32_t> parity(m * blocks, 9);
        Layout l{k, m};
        Buffer b = encode_chunk_header({1, {2, 3, 4}, l, blocks * kBlockBytes, k + m - 1, 5, true}, ids, parity);
        EXPECT_EQ(b.size() % kBlockBytes, 0u);
        EXPECT_GE(b.size(), 72 + 24 * ids.size() + 4 * parity.size());
        EXPECT_LT(b.size(), 72 + 24 * ids.size() + 4 * parity.size() + kBlockBytes);
        auto h = parse_chunk_header(b.bytes());
        ASSERT_TRUE(h.ok());
        EXPECT_EQ(h->identity(k - 1, blocks - 1).lsn(), k * blocks);
        if (m != 0) EXPECT_EQ(h->parity_crc(k + m - 1, blocks - 1), 9u);
      }
}

}  // namespace
}  // namespace luge::coding
