#include "card/pool.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <random>

namespace luge::card {
namespace {

std::shared_ptr<Pool> make_pool(std::size_t bytes, std::size_t reserve = 0) {
  int fd = ::memfd_create("pool-test", 0);
  EXPECT_EQ(::ftruncate(fd, static_cast<off_t>(bytes)), 0);
  auto p = Pool::map(fd, bytes, reserve);
  ::close(fd);
  return p;
}

// What a card may still write is not given to somebody else, though its Buffers are gone.
TEST(Pool, PinnedPiecesAreNotGivenOutAgain) {
  auto pool = make_pool(1u << 20);
  Buffer b = pool->take(8192, true);
  std::byte* at = b.data();
  auto offset = pool->offset_of(b.bytes().subspan(100, 50));
  ASSERT_TRUE(offset.has_value());
  std::shared_ptr<void> pin = pool->pin(*offset);
  ASSERT_NE(pin, nullptr);
  b = {};
  Buffer other = pool->take(8192, true);
  EXPECT_NE(other.data(), at);
  pin.reset();
  EXPECT_EQ(pool->take(8192, true).data(), at);
}

TEST(Pool, KnowsItsPieces) {
  auto pool = make_pool(1u << 20);
  Buffer a = pool->take(5000, true), b = pool->take(4096, true);
  EXPECT_TRUE(pool->offset_of(a.bytes()).has_value());
  EXPECT_EQ(*pool->offset_of(b.bytes()) % 4096, 0u);
  EXPECT_FALSE(pool->offset_of(Bytes(a.data(), 3 * 4096)).has_value()) << "reaches into the next piece";
  Buffer foreign = Buffer::allocate(4096);
  EXPECT_FALSE(pool->offset_of(foreign.bytes()).has_value());
  std::byte* gone = b.data();
  b = {};
  EXPECT_FALSE(pool->offset_of(Bytes(gone, 64)).has_value()) << "given back";
}

TEST(Pool, ReserveIsForTheCardAlone) {
  auto pool = make_pool(1u << 20, 256u << 10);
  EXPECT_TRUE(pool->take(800u << 10, false).empty());
  Buffer most = pool->take(768u << 10, false);
  EXPECT_FALSE(most.empty());
  EXPECT_TRUE(pool->take(4096, false).empty());
  EXPECT_FALSE(pool->take(256u << 10, true).empty());
}

// Pieces never overlap, and all comes back as one piece, whatever the order.
TEST(Pool, RandomTakesAndReturns) {
  auto pool = make_pool(4u << 20);
  std::mt19937_64 rng(1);
  std::vector<std::pair<Buffer, std::uint8_t>> taken;
  for (int i = 0; i < 5000; ++i) {
    if (rng() % 2 == 0 || taken.empty()) {
      Buffer b = pool->take(1 + rng() % 100000, true);
      if (b.empty()) continue;
      auto mark = static_cast<std::uint8_t>(rng());
      std::memset(b.data(), mark, b.size());
      taken.emplace_back(std::move(b), mark);
    } else {
      std::size_t n = rng() % taken.size();
      std::swap(taken[n], taken.back());
      auto& [b, mark] = taken.back();
      for (std::size_t j = 0; j < b.size(); j += 997) ASSERT_EQ(std::to_integer<std::uint8_t>(b.data()[j]), mark);
      taken.pop_back();
    }
  }
  taken.clear();
  EXPECT_EQ(pool->free_bytes(), 4u << 20);
  EXPECT_FALSE(pool->take(4u << 20, true).empty());
  Buffer survivor = pool->take(4096, true);
  pool.reset();
  std::memset(survivor.data(), 1, 4096);  // keeps the mapping
}

}  // namespace
}  // namespace luge::card
