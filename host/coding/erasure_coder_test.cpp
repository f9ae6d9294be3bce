// The ISA-L coder against schoolbook arithmetic in GF(2^8), and every erasure pattern of the usual layouts.
#include "coding/erasure_coder.hpp"

#include <gtest/gtest.h>

#include <random>

#include "io/testing.hpp"

namespace luge::coding {
namespace {

Status run(io::Task<Status> task) {
  Status result(Code::internal, "did not run");
  io::testing::run([&](io::World&) -> io::Task<void> { result = co_await std::move(task); });
  return result;
}

std::uint8_t gf_multiply(std::uint8_t a, std::uint8_t b) {
  unsigned r = 0;
  for (unsigned x = a; b != 0; b >>= 1, x <<= 1) {
    if (x & 0x100) x ^= 0x11d;
    if (b & 1) r ^= x;
  }
  return static_cast<std::uint8_t>(r);
}

std::uint8_t gf_inverse(std::uint8_t a) {
  for (unsigned b = 1; b < 256; ++b)
    if (gf_multiply(a, static_cast<std::uint8_t>(b)) == 1) return static_cast<std::uint8_t>(b);
  return 0;
}

struct Stripe {
  Layout layout;
  std::vector<Buffer> chunks;
  std::vector<Bytes> data() const {
    std::vector<Bytes> v;
    for (std::uint32_t i = 0; i < layout.k; ++i) v.push_back(chunks[i].bytes());
    return v;
  }
  std::vector<MutableBytes> parity() {
    std::vector<MutableBytes> v;
    for (std::uint32_t i = layout.k; i < layout.width(); ++i) v.push_back(chunks[i].mutable_bytes());
    return v;
  }
};

Stripe random_stripe(Layout l, std::size_t bytes, std::mt19937_64& rng) {
  Stripe s{l, {}};
  for (std::uint32_t i = 0; i < l.width(); ++i) {
    Buffer b = Buffer::allocate(bytes);
    for (std::size_t j = 0; j < bytes; ++j) b.data()[j] = static_cast<std::byte>(rng());
    s.chunks.push_back(std::move(b));
  }
  return s;
}

// Requirement: FL-10
TEST(IsalCoder, ParityIsTheCauchyProductForAllLayouts) {
  std::mt19937_64 rng(1);
  auto coder = make_isal_coder();
  for (std::uint32_t k = 1; k <= kMaxData; ++k)
    for (std::uint32_t m = 1; m <= kMaxParity; ++m) {
      Stripe s = random_stripe({k, m}, 64, rng);
      ASSERT_TRUE(run(coder->encode(s.layout, s.data(), s.parity())).ok());
      for (std::uint32_t p = 0; p < m; ++p)
        for (std::size_t at = 0; at < 64; ++at) {
          std::uint8_t want = 0;
          for (std::uint32_t j = 0; j < k; ++j)
            want ^= gf_multiply(gf_inverse(static_cast<std::uint8_t>((k + p) ^ j)), static_cast<std::uint8_t>(s.chunks[j].data()[at]));
          ASSERT_EQ(static_cast<std::uint8_t>(s.chunks[k + p].data()[at]), want) << k << "+" << m;
        }
    }
}

void all_patterns(Layout l) {
  std::mt19937_64 rng(l.k);
  auto coder = make_isal_coder();
  Stripe s = random_stripe(l, 4096, rng);
  ASSERT_TRUE(run(coder->encode(l, s.data(), s.parity())).ok());
  for (std::uint32_t lost = 1; lost < (1u << l.width()); ++lost) {
    if (static_cast<std::uint32_t>(__builtin_popcount(lost)) > l.m) continue;
    std::vector<Bytes> present(l.width());
    std::vector<std::uint32_t> wanted;
    std::vector<Buffer> out;
    for (std::uint32_t i = 0; i < l.width(); ++i) {
      if (lost >> i & 1) {
        wanted.push_back(i);
        out.push_back(Buffer::zeros(4096));
      } else {
        present[i] = s.chunks[i].bytes();
      }
    }
    std::vector<MutableBytes> targets;
    for (Buffer& b : out) targets.push_back(b.mutable_bytes());
    ASSERT_TRUE(run(coder->reconstruct(l, present, wanted, targets)).ok());
    for (std::size_t w = 0; w < wanted.size(); ++w)
      ASSERT_EQ(std::memcmp(out[w].data(), s.chunks[wanted[w]].data(), 4096), 0) << to_string(l) << " lost " << lost;
  }
}

TEST(IsalCoder, EveryErasurePatternOf4Plus2) { all_patterns({4, 2}); }
TEST(IsalCoder, EveryErasurePatternOf8Plus3) { all_patterns({8, 3}); }

// Any k of the chunks rebuild any others, for every layout: random losses, random chunks asked for, also ones that
// are there, and more survivors than are needed.
TEST(IsalCoder, RandomLossesOfAllLayouts) {
  std::mt19937_64 rng(5);
  auto coder = make_isal_coder();
  for (std::uint32_t k = 1; k <= kMaxData; ++k)
    for (std::uint32_t m = 1; m <= kMaxParity; ++m) {
      Layout l{k, m};
      Stripe s = random_stripe(l, 192, rng);
      ASSERT_TRUE(run(coder->encode(l, s.data(), s.parity())).ok());
      for (int round = 0; round < 20; ++round) {
        std::vector<Bytes> present;
        for (const Buffer& c : s.chunks) present.push_back(c.bytes());
        for (std::uint32_t lost = 0; lost < rng() % (m + 1); ++lost) present[rng() % l.width()] = {};
        std::uint32_t wanted = static_cast<std::uint32_t>(rng() % l.width());
        Buffer out = Buffer::zeros(192);
        MutableBytes to[1] = {out.mutable_bytes()};
        ASSERT_TRUE(run(coder->reconstruct(l, present, std::span(&wanted, 1), to)).ok());
        ASSERT_EQ(std::memcmp(out.data(), s.chunks[wanted].data(), 192), 0) << to_string(l) << " chunk " << wanted;
      }
    }
}

TEST(IsalCoder, NoParityIsALayoutToo) {
  std::mt19937_64 rng(6);
  auto coder = make_isal_coder();
  Stripe s = random_stripe({3, 0}, 64, rng);
  EXPECT_TRUE(run(coder->encode({3, 0}, s.data(), s.parity())).ok());
}

TEST(IsalCoder, RefusesWhatCannotBe) {
  std::mt19937_64 rng(2);
  auto coder = make_isal_coder();
  Stripe s = random_stripe({4, 2}, 64, rng);
  EXPECT_EQ(run(coder->encode({17, 2}, s.data(), s.parity())).code(), Code::invalid);
  EXPECT_EQ(run(coder->encode({4, 1}, s.data(), s.parity())).code(), Code::invalid);
  std::vector<Bytes> three(6);
  for (int i = 0; i < 3; ++i) three[i] = s.chunks[i].bytes();
  std::uint32_t wanted[1] = {3};
  Buffer out = Buffer::zeros(64);
  MutableBytes target[1] = {out.mutable_bytes()};
  EXPECT_EQ(run(coder->reconstruct({4, 2}, three, wanted, target)).code(), Code::degraded);
  for (int i = 0; i < 6; ++i) three[i] = s.chunks[i].bytes();
  std::uint32_t none[1] = {6};
  EXPECT_EQ(run(coder->reconstruct({4, 2}, three, none, target)).code(), Code::invalid);
  MutableBytes small[1] = {out.mutable_bytes().first(32)};
  EXPECT_EQ(run(coder->reconstruct({4, 2}, three, wanted, small)).code(), Code::invalid);
  three[1] = three[1].first(32);
  EXPECT_EQ(run(coder->reconstruct({4, 2}, three, wanted, target)).code(), Code::invalid);
}

}  // namespace
}  // namespace luge::coding
