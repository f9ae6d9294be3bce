// What a budget lets in, and when.
#include "io/budget.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "io/testing.hpp"

namespace luge::io {
namespace {

using namespace std::chrono_literals;

struct Seen {
  std::vector<int> order;
  std::uint64_t most = 0;
};

Task<void> taker(World& w, Budget& b, int i, std::uint64_t bytes, Seen& seen) {
  Budget::Lease lease = co_await b.take(bytes);
  seen.order.push_back(i);
  if (bytes <= 100) seen.most = std::max(seen.most, b.used());
  else EXPECT_EQ(b.used(), bytes) << "too large: alone";
  co_await w.sleep(1ms);
}

TEST(Budget, BoundsWhatIsHeldAndServesInOrder) {
  testing::run([](World& w) -> Task<void> {
    Budget budget(w, 100);
    Seen seen;
    TaskGroup group(w);
    std::uint64_t sizes[] = {60, 60, 30, 500, 10, 10};
    for (int i = 0; i < 6; ++i) group.spawn("taker", taker(w, budget, i, sizes[i], seen));
    co_await group.join();
    EXPECT_EQ(budget.used(), 0u);
    EXPECT_EQ(budget.waiting(), 0u);
    EXPECT_EQ(seen.order, (std::vector<int>{0, 1, 2, 3, 4, 5}));
    EXPECT_LE(seen.most, 100u);
  });
}

}  // namespace
}  // namespace luge::io
