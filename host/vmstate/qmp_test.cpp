// What is asked of a QEMU, and what is left of it afterwards.
#include "vmstate/qmp.hpp"

#include <gtest/gtest.h>

#include "io/testing.hpp"
#include "vmstate/machine_testing.hpp"

namespace luge::vmstate {
namespace {

using testing::FakeQemu;

class QmpTest : public ::testing::Test {
 protected:
  std::unique_ptr<Qmp> open() {
    auto q = Qmp::open(directory_ / "qmp.sock");
    EXPECT_TRUE(q.ok()) << q.status().to_string();
    return q.ok() ? std::move(*q) : nullptr;
  }
  // Whether its own migration would leave the memory out, by what it was told last.
  static bool leaves_memory_out(const FakeQemu& q) {
    const std::string asked = q.asked();
    const std::size_t at = asked.rfind("x-ignore-shared");
    return at != std::string::npos && asked.substr(at).starts_with(R"(x-ignore-shared","state":true)");
  }
  io::testing::TemporaryDirectory directory_;
};

TEST_F(QmpTest, ASavingLeavesNothingBehind) {
  FakeQemu qemu(directory_ / "qmp.sock", "running");
  auto qmp = open();
  ASSERT_TRUE(qmp);
  QemuMachine machine(*qmp, directory_.path());
  ASSERT_TRUE(machine.prepare().ok());
  ASSERT_TRUE(machine.pause().ok());
  auto state = machine.device_state();
  ASSERT_TRUE(state.ok()) << state.status().to_string();
  EXPECT_EQ(*state, "state");
  EXPECT_NE(qemu.asked().find("x-ignore-shared"), std::string::npos);
  EXPECT_FALSE(leaves_memory_out(qemu)) << "a person's saving of it would lack its memory";
  machine.release();
  EXPECT_NE(qemu.asked().find(R"("max-bandwidth":134217728)"), std::string::npos);
}

TEST_F(QmpTest, NorDoesOneThatFails) {
  FakeQemu qemu(directory_ / "qmp.sock", "running");
  auto qmp = open();
  ASSERT_TRUE(qmp);
  QemuMachine machine(*qmp, directory_.path());
  qemu.refuse("\"migrate\"");
  EXPECT_FALSE(machine.device_state().ok());
  EXPECT_FALSE(leaves_memory_out(qemu));
}

TEST_F(QmpTest, NorALoading) {
  FakeQemu qemu(directory_ / "qmp.sock", "inmigrate");
  auto qmp = open();
  ASSERT_TRUE(qmp);
  Status s = QemuMachine::load(*qmp, "state", directory_.path());
  EXPECT_TRUE(s.ok()) << s.to_string();
  EXPECT_NE(qemu.asked().find("x-ignore-shared"), std::string::npos);
  EXPECT_FALSE(leaves_memory_out(qemu));
}

}  // namespace
}  // namespace luge::vmstate
