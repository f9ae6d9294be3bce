// A migration's arrival, before a monitor that says what a test tells it to.
#include "vmstate/live_target.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "io/testing.hpp"
#include "vmstate/machine_testing.hpp"

namespace luge::vmstate {
namespace {

using testing::FakeQemu;

class LiveTargetTest : public ::testing::Test {
 protected:
  static constexpr std::uint64_t kPages = 4;
  LiveTargetTest() {
    std::ofstream(directory_ / "memory") << std::string(kPages * kPage, 'g');
  }
  // What a migration's first pass does; whether the memory is as it was before.
  bool left_alone(Code expected) {
    LiveTarget t(directory_.path());
    Status s = t.begin({"vm", 1, 0, {kPages, 0}});
    EXPECT_EQ(s.code(), expected) << s.to_string();
    PageBatch batch;
    batch.entries.push_back({0, 0, true});
    EXPECT_EQ(t.put(batch).ok(), s.ok());
    std::ifstream file(directory_ / "memory");
    return std::string(std::istreambuf_iterator<char>(file), {}) == std::string(kPages * kPage, 'g');
  }
  io::testing::TemporaryDirectory directory_{"/dev/shm"};
};

// The answer to a migration was lost and it is begun again, while the machine already runs at the target.
TEST_F(LiveTargetTest, TheMemoryOfAMachineThatRunsIsNotWritten) {
  for (const char* is : {"running", "paused", "postmigrate", ""}) {
    FakeQemu qemu(directory_ / "qmp.sock", is);
    EXPECT_TRUE(left_alone(Code::conflict)) << "'" << is << "'";
    ::unlink((directory_ / "qmp.sock").c_str());
  }
}

// A QEMU that starts with a link to nothing as its memory says nothing until the file is there: it was waited for, and refused after 10 s.
TEST_F(LiveTargetTest, TheMemoryBehindALinkIsMadeBeforeItsQemuIsMet) {
  ::unlink((directory_ / "memory").c_str());
  std::string file = directory_ / "elsewhere";
  ASSERT_EQ(::symlink(file.c_str(), (directory_ / "memory").c_str()), 0);
  FakeQemu qemu(directory_ / "qmp.sock", "running");
  LiveTarget t(directory_.path());
  EXPECT_EQ(t.begin({"vm", 1, 0, {kPages, 0}}).code(), Code::conflict);
  EXPECT_EQ(::access(file.c_str(), F_OK), 0);
}

TEST_F(LiveTargetTest, AQemuThatWaitsOrIsNotThereYetIsSentTo) {
  EXPECT_FALSE(left_alone(Code::ok));
  {
    FakeQemu qemu(directory_ / "qmp.sock", "inmigrate");
    EXPECT_FALSE(left_alone(Code::ok));
  }
  EXPECT_FALSE(left_alone(Code::ok)) << "the socket of one that has ended";
}

}  // namespace
}  // namespace luge::vmstate
