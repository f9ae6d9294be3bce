#include "io/wait_predictor.hpp"

#include <gtest/gtest.h>

#include <string_view>

namespace luge::io {
namespace {

/// How many of the last `count` waits it foretold wrongly, after as many again to learn from; 's' is a short wait, anything else a long one.
int wrong(std::string_view pattern, int count) {
  WaitPredictor p;
  int n = 0;
  for (int i = 0; i < 2 * count; ++i) {
    bool brief = pattern[static_cast<std::size_t>(i) % pattern.size()] == 's';
    if (i >= count && p.will_be_short() != brief) ++n;
    p.was(brief);
  }
  return n;
}

TEST(WaitPredictor, LearnsThePatternsOfALoop) {
  EXPECT_EQ(wrong("l", 60), 0);
  EXPECT_EQ(wrong("s", 60), 0);
  EXPECT_EQ(wrong("sl", 60), 0);
  EXPECT_EQ(wrong("sssl", 60), 0);
  EXPECT_EQ(wrong("ssll", 60), 0);
  EXPECT_EQ(wrong("llls", 60), 0);
}

TEST(WaitPredictor, ALoopThatHasOnlyWaitedLongSleepsAtOnce) {
  WaitPredictor p;
  for (int i = 0; i < 100; ++i) {
    EXPECT_FALSE(p.will_be_short());
    p.was(false);
  }
}

// A daemon that gets busy looks for events after a few short waits; one that becomes idle gives that up as soon.
TEST(WaitPredictor, ChangesItsMindWithinAFewWaits) {
  WaitPredictor p;
  int waits = 0;
  for (; !p.will_be_short(); ++waits) p.was(true);
  EXPECT_LE(waits, 6);
  for (int i = 0; i < 100; ++i) p.was(true);
  for (waits = 0; p.will_be_short() && waits < 100; ++waits) p.was(false);
  EXPECT_LE(waits, 2);
}

}  // namespace
}  // namespace luge::io
