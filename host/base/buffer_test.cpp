#include "base/buffer.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <thread>
#include <vector>

#include "base/ids.hpp"
#include "base/kept_memory.hpp"

namespace luge {
namespace {

using Small = KeptMemory<64, 4, 8, 256>;

bool aligned(const void* p, std::size_t to) { return reinterpret_cast<std::uintptr_t>(p) % to == 0; }

TEST(Buffer, StartsOnABlockWhateverItsSizeAndHowOftenItCame) {
  for (int round = 0; round < 3; ++round) {
    std::vector<Buffer> all;
    for (std::size_t bytes : std::vector<std::size_t>{1, kBlockBytes - 1, kBlockBytes, kBlockBytes + 1, 16 * kBlockBytes, 17 * kBlockBytes, 1 << 20}) {
      all.push_back(Buffer::allocate(bytes));
      EXPECT_EQ(all.back().size(), bytes);
      EXPECT_TRUE(aligned(all.back().data(), kBlockBytes)) << bytes;
      std::memset(all.back().data(), static_cast<int>(all.size()), bytes);
    }
    for (std::size_t i = 0; i < all.size(); ++i) {
      EXPECT_EQ(all[i].bytes().front(), std::byte(i + 1));
      EXPECT_EQ(all[i].bytes().back(), std::byte(i + 1));
    }
  }
}

// Its memory must not come again while a slice is left of it.
TEST(Buffer, IsKeptByItsSlices) {
  Buffer slice;
  {
    Buffer b = Buffer::allocate(2 * kBlockBytes);
    std::memset(b.data(), 7, b.size());
    slice = b.slice(kBlockBytes, kBlockBytes);
  }
  for (int i = 0; i < 100; ++i) std::memset(Buffer::allocate(2 * kBlockBytes).data(), 0, 2 * kBlockBytes);
  EXPECT_EQ(slice.bytes().front(), std::byte{7});
}

// A coder's thread lets go of what the loop allocated.
TEST(Buffer, MayEndOnAnotherThread) {
  for (int i = 0; i < 300; ++i) {
    Buffer b = Buffer::allocate(kBlockBytes);
    std::memset(b.data(), i, b.size());
    std::thread([b = std::move(b)]() mutable { b = Buffer(); }).join();
  }
}

TEST(KeptMemory, GivesBackWhatWasLastFreed) {
  if (!kMemoryIsKept) GTEST_SKIP() << "sanitizers see each allocation";
  Small memory;
  void* a = memory.take(100);
  memory.give(a, 100);
  void* other = memory.take(60);  // another size
  EXPECT_NE(other, a);
  EXPECT_EQ(memory.take(128), a);
  memory.give(a, 128);
  memory.give(other, 60);
}

// 256 bytes of each size at most, so four of 64: the fifth goes back to where it came from, and taking begins anew there after four.
TEST(KeptMemory, KeepsNoMoreThanItsShare) {
  if (!kMemoryIsKept) GTEST_SKIP() << "sanitizers see each allocation";
  Small memory;
  std::vector<void*> all;
  for (int i = 0; i < 8; ++i) all.push_back(memory.take(64));
  for (void* p : all) memory.give(p, 64);
  for (int i = 3; i >= 0; --i) EXPECT_EQ(memory.take(64), all[static_cast<std::size_t>(i)]);
  for (std::size_t i = 0; i < 4; ++i) memory.give(all[i], 64);
}

// Above its sizes it is the general allocator.
TEST(KeptMemory, TakesAnySize) {
  Small memory;
  for (std::size_t bytes : {std::size_t{0}, std::size_t{1}, std::size_t{255}, std::size_t{256}, std::size_t{1} << 20}) {
    void* p = memory.take(bytes);
    EXPECT_TRUE(aligned(p, alignof(std::max_align_t)));
    std::memset(p, 1, bytes);
    memory.give(p, bytes);
  }
}

}  // namespace
}  // namespace luge
