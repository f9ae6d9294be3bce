// A machine that is protected, before a disk, a monitor and a standby that do what a test wants.
#include "vmstate/protection.hpp"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include "io/testing.hpp"
#include "vmstate/machine_testing.hpp"
#include "vmstate/transfer.hpp"

namespace luge::vmstate {
namespace {

using namespace std::chrono_literals;
using namespace testing;

TEST(ProtectionRequest, NumbersThatAreNoneAreRefused) {
  auto with = [](std::string_view key, boost::json::value v) {
    boost::json::object o{{"machine", "vm"}, {"qmp", "q"}, {"disks", boost::json::array{"d"}}};
    o[key] = std::move(v);
    return parse_protection(o).status().code();
  };
  EXPECT_EQ(with("keep", 2), Code::ok);
  EXPECT_EQ(with("keep", -1), Code::invalid);
  EXPECT_EQ(with("keep", "two"), Code::invalid);
  EXPECT_EQ(with("every_ms", 1.5), Code::invalid);
  EXPECT_EQ(with("every_ms", 1e300), Code::invalid);
  EXPECT_EQ(with("slots_log2", 21), Code::invalid);
}

class ProtectionTest : public ::testing::Test {
 protected:
  std::unique_ptr<Protection> open(std::chrono::milliseconds every) {
    ProtectionOptions o;
    o.machine = "vm", o.qmp = directory_ / "qmp.sock", o.disks = {directory_ / "disk"}, o.target = "unix:" + (directory_ / "standby.sock");
    o.every = every, o.writes = "compare";
    auto p = Protection::open(o, directory_.path());
    EXPECT_TRUE(p.ok()) << p.status().to_string();
    return p.ok() ? std::move(*p) : nullptr;
  }
  io::testing::TemporaryDirectory directory_;
  FakeQemu qemu_{directory_ / "qmp.sock", "running"};
  FakeDisk disk_{directory_ / "disk.recorder"};
};

// A person's release and the daemon's end, while a checkpoint waits for its standby.
TEST_F(ProtectionTest, TwoMayEndItAtOnce) {
  std::string bound;
  const int standby = listen_at("unix:" + (directory_ / "standby.sock"), false, bound).value();
  auto p = open(1ms);
  ASSERT_TRUE(p);
  p->run();
  const int fd = ::accept(standby, nullptr, nullptr);
  ASSERT_GE(fd, 0);
  std::atomic<int> ended{0};
  std::thread first([&] { EXPECT_TRUE(p->stop().ok()), ++ended; }), second([&] { EXPECT_TRUE(p->release().ok()), ++ended; });
  std::this_thread::sleep_for(200ms);
  EXPECT_EQ(ended, 0);
  ::close(fd);
  first.join(), second.join();
  ::close(standby);
}

}  // namespace
}  // namespace luge::vmstate
