// The codec against messages spelled in bytes, and against garbage.
#include "sim/xrt/message.hpp"

#include <gtest/gtest.h>

#include <random>

namespace luge::xrt_sim {
namespace {

TEST(Message, WritesWhatProtocolBuffersDo) {
  Writer w;
  w.number(1, 300).bytes(2, "testing").number(20, 1);
  EXPECT_EQ(w.text(), std::string("\x08\xac\x02\x12\x07testing\xa0\x01\x01"));
}

TEST(Message, ReadsAnyOrderAndSkipsTheUnknown) {
  std::string in("\x12\x03" "abc" "\x08\x96\x01" "\x1d\x01\x02\x03\x04" "\x21" "12345678", 22);
  Reader r(in);
  ASSERT_TRUE(r.next());
  EXPECT_EQ(r.field(), 2u);
  EXPECT_EQ(r.bytes(), "abc");
  ASSERT_TRUE(r.next());
  EXPECT_EQ(r.field(), 1u);
  EXPECT_EQ(r.number(), 150u);
  ASSERT_TRUE(r.next());
  EXPECT_EQ(r.bytes().size(), 4u);
  ASSERT_TRUE(r.next());
  EXPECT_EQ(r.bytes(), "12345678");
  EXPECT_FALSE(r.next());
}

TEST(Message, EveryNumberComesBack) {
  std::mt19937_64 rng(1);
  for (int i = 0; i < 10000; ++i) {
    std::uint64_t v = rng() >> (rng() % 64);
    Writer w;
    w.number(7, v);
    Reader r(w.text());
    ASSERT_TRUE(r.next());
    ASSERT_EQ(r.number(), v);
  }
}

// Nothing but BadMessage comes of bytes that are no message, and never a read beyond them.
TEST(Message, GarbageIsRefused) {
  std::mt19937_64 rng(2);
  int bad = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string s(rng() % 40, '\0');
    for (char& c : s) c = static_cast<char>(rng());
    try {
      Reader r(s);
      while (r.next())
        if (!r.bytes().empty()) {
          ASSERT_GE(r.bytes().data(), s.data());
          ASSERT_LE(r.bytes().data() + r.bytes().size(), s.data() + s.size());
        }
    } catch (const BadMessage&) {
      ++bad;
    }
  }
  EXPECT_GT(bad, 1000);
  EXPECT_THROW(Reader(std::string_view("\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11)).next(), BadMessage);
}

}  // namespace
}  // namespace luge::xrt_sim
