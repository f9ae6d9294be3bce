// Tasks: what they promise whoever awaits them.
#include "io/task.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <stdexcept>
#include <string>

#include "io/testing.hpp"

namespace luge::io {
namespace {

Task<int> one() { co_return 1; }
Task<int> failing() {
  throw std::runtime_error("no");
  co_return 0;
}
Task<long> sum(long depth) {
  if (depth == 0) co_return 0;
  co_return 1 + co_await sum(depth - 1);
}

TEST(Task, BeginsWhenItIsAwaited) {
  testing::run([](World&) -> Task<void> {
    bool begun = false;
    auto body = [&]() -> Task<void> {
      begun = true;
      co_return;
    };
    Task<void> t = body();
    EXPECT_FALSE(begun);
    co_await std::move(t);
    EXPECT_TRUE(begun);
  });
}

TEST(Task, WhatItThrowsComesOutOfTheAwait) {
  testing::run([](World&) -> Task<void> {
    std::string text;
    try {
      (void)co_await failing();
    } catch (const std::runtime_error& e) {
      text = e.what();
    }
    EXPECT_EQ(text, "no");
  });
}

// Half a million awaits in a row, none of which waits: were each a call from within the one before, the stack would end.
TEST(Task, NeitherAwaitingNorEndingGrowsTheStack) {
  testing::run([](World&) -> Task<void> {
    long n = 0;
    for (int i = 0; i < 500'000; ++i) n += co_await one();
    EXPECT_EQ(n, 500'000);
    EXPECT_EQ(co_await sum(100'000), 100'000);  // all of them end on one another
  });
}

TEST(Task, GivesBackWhatItHoldsAtTheEndOfTheAwaitOrUnbegun) {
  testing::run([](World& w) -> Task<void> {
    auto held = std::make_shared<int>(1);
    auto keep = [](std::shared_ptr<int> p) -> Task<int> { co_return *p; };
    EXPECT_EQ(co_await keep(held), 1);
    EXPECT_EQ(held.use_count(), 1);
    { Task<int> never = keep(held); }
    EXPECT_EQ(held.use_count(), 1);
    w.spawn("keep", [](std::shared_ptr<int>) -> Task<void> { co_return; }(held));
    EXPECT_EQ(held.use_count(), 2);  // it begins later, from the loop
    co_await w.yield();
    EXPECT_EQ(held.use_count(), 1);
  });
}

TEST(Task, CallbacksContinueIt) {
  testing::run([](World& w) -> Task<void> {
    int got = co_await suspended<int>([&](Resume<int> resume) { w.post([resume] { resume(7); }); });
    EXPECT_EQ(got, 7);
  });
}

}  // namespace
}  // namespace luge::io
