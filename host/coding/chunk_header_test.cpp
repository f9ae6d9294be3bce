#include "coding/chunk_header.hpp"

#include <gtest/gtest.h>

#include <random>

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

}  // namespace
}  // namespace luge::coding
