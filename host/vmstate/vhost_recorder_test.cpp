// The manager's end of a recorder's socket, before a disk that answers when and what a test wants.
#include "vmstate/vhost_recorder.hpp"

#include <gtest/gtest.h>

#include <filesystem>

#include "io/testing.hpp"
#include "vmstate/machine_testing.hpp"

namespace luge::vmstate {
namespace {

using namespace std::chrono_literals;
using namespace testing;

class VhostRecorderTest : public ::testing::Test {
 protected:
  std::unique_ptr<VhostRecorder> open(std::chrono::milliseconds within = 10s) {
    auto r = VhostRecorder::open(path_, within);
    EXPECT_TRUE(r.ok()) << r.status().to_string();
    return r.ok() ? std::move(*r) : nullptr;
  }
  static std::ptrdiff_t open_files() {
    std::filesystem::directory_iterator all("/proc/self/fd");
    return std::distance(begin(all), end(all));
  }
  io::testing::TemporaryDirectory directory_;
  const std::string path_ = directory_ / "disk.recorder";
  FakeDisk disk_{path_};
};

TEST_F(VhostRecorderTest, AnAnswerThatComesLateIsNotTakenForTheNext) {
  auto r = open(400ms);
  ASSERT_TRUE(r);
  const auto files = open_files();
  disk_.late_ms = 600;
  EXPECT_EQ(r->memory().code(), Code::timed_out);
  disk_.volume_bytes = 16 << 20;
  auto status = r->status();
  ASSERT_TRUE(status.ok()) << status.status().to_string();
  EXPECT_EQ(status->verb, RecorderVerb::status);
  EXPECT_EQ(open_files(), files) << "descriptors came with the late answer";
  auto memory = r->memory();
  ASSERT_TRUE(memory.ok()) << memory.status().to_string();
  EXPECT_EQ(memory->size(), 1u);
}

TEST_F(VhostRecorderTest, ASlowedDiskIsLetGoBeforeItIsToBeQuiet) {
  auto r = open();
  ASSERT_TRUE(r);
  disk_.asked.clear();
  EXPECT_TRUE(r->quiesce(true).ok());
  EXPECT_TRUE(r->throttle(1 << 20).ok());
  EXPECT_TRUE(r->quiesce(true).ok());
  EXPECT_TRUE(r->quiesce(true).ok());
  EXPECT_EQ(disk_.asked, (Asked{{RecorderVerb::quiesce, 1}, {RecorderVerb::throttle, 1 << 20}, {RecorderVerb::throttle, 0}, {RecorderVerb::quiesce, 1}, {RecorderVerb::quiesce, 1}}));
}

// The blocks beyond the old end would be missing in every checkpoint.
TEST_F(VhostRecorderTest, ADiskThatHasGrownIsToBeProtectedAnew) {
  auto r = open();
  ASSERT_TRUE(r);
  ASSERT_TRUE(r->disk().start_tracking().ok());
  EXPECT_TRUE(r->quiesce(true).ok());
  disk_.volume_bytes = 16 << 20;
  EXPECT_EQ(r->quiesce(true).code(), Code::conflict);
  EXPECT_TRUE(r->disk().stop_tracking().ok());
  EXPECT_TRUE(r->quiesce(true).ok()) << "without its disk it is the size that it likes";
}

}  // namespace
}  // namespace luge::vmstate
