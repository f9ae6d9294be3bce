// What a device remembers of headers: bounded, forgotten with every change, never older than the medium.
#include "sled/known_chunks.hpp"

#include <gtest/gtest.h>

namespace luge::sled {
namespace {

KnownChunkPtr chunk(Generation generation) {
  auto c = std::make_shared<KnownChunk>();
  c->fields.generation = generation;
  c->blocks.resize(32);
  return c;
}

TEST(KnownChunks, TheLeastRecentlyUsedGoesFirst) {
  KnownChunks known(8 << 10);
  for (std::uint64_t slot = 0; slot < 8; ++slot) known.put(slot, chunk(slot));
  ASSERT_TRUE(known.find(0)) << "eight fit";
  for (std::uint64_t slot = 8; slot < 12; ++slot) known.put(slot, chunk(slot));
  EXPECT_TRUE(known.find(0)) << "used meanwhile";
  EXPECT_FALSE(known.find(1));
  EXPECT_TRUE(known.find(11));
}

TEST(KnownChunks, AHeaderThatWasReadBeforeItChangedIsNotTaken) {
  KnownChunks known(1 << 20);
  {
    KnownChunks::Loading first(known, 7), second(known, 7);
    known.forget(7);
    KnownChunks::Loading later(known, 7);
    first.done(chunk(1));
    second.done(chunk(1));
    EXPECT_FALSE(known.find(7));
    later.done(chunk(2));
  }
  ASSERT_TRUE(known.find(7));
  EXPECT_EQ(known.find(7)->fields.generation, 2u);
  known.forget(7);
  EXPECT_FALSE(known.find(7));
}

}  // namespace
}  // namespace luge::sled
