// For tests of rooms that need the real World: runs a coroutine to its end, in a directory that goes away afterwards.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <string>

#include "io/real_world.hpp"

namespace luge::io::testing {

class TemporaryDirectory {
 public:
  /// Under `parent`; default: TMPDIR or /tmp.
  explicit TemporaryDirectory(std::string parent = {}) {
    const char* tmp = ::getenv("TMPDIR");
    if (parent.empty()) parent = tmp != nullptr ? tmp : "/tmp";
    path_ = parent + "/luge-test-XXXXXX";
    if (::mkdtemp(path_.data()) == nullptr) ADD_FAILURE() << "mkdtemp " << path_;
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

/// `body(world)` is a Task<void>; the World ends with it.
template <class Body>
void run(RealWorld::Options options, Body body) {
  RealWorld world(std::move(options));
  auto with_result = [&]() -> Task<int> {
    co_await body(world);
    co_return 0;
  };
  EXPECT_EQ(run_main(world, with_result()), 0);
}

template <class Body>
void run(Body body) {
  run(RealWorld::Options{}, std::move(body));
}

}  // namespace luge::io::testing
