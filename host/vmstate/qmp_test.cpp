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

// What is paused can be found by who comes next, and whether it may be let run.
TEST_F(QmpTest, APauseIsNotedUntilItsEnd) {
  FakeQemu qemu(directory_ / "qmp.sock", "running");
  auto qmp = open();
  ASSERT_TRUE(qmp);
  const PauseNotes notes(directory_.path());
  QemuMachine machine(*qmp, "vm", directory_.path());
  ASSERT_TRUE(machine.pause(true).value());
  ASSERT_EQ(notes.all().size(), 1u);
  EXPECT_EQ(notes.all()[0].machine, "vm");
  EXPECT_EQ(notes.all()[0].qmp, directory_ / "qmp.sock");
  EXPECT_EQ(notes.all()[0].kind, PauseNote::Kind::goes_on);
  EXPECT_TRUE(notes.all()[0].lives());
  ASSERT_TRUE(machine.hand_over().ok());
  EXPECT_EQ(notes.all()[0].kind, PauseNote::Kind::handing_over);
  ASSERT_TRUE(machine.resume().ok());
  EXPECT_TRUE(notes.all().empty());
  ASSERT_TRUE(machine.pause(false).value());
  EXPECT_TRUE(notes.all().empty()) << "it is to stay paused";
  EXPECT_FALSE(machine.pause(true).value());
  EXPECT_TRUE(notes.all().empty()) << "it stood still already";
  ASSERT_TRUE(machine.device_state().ok());
  EXPECT_EQ(machine.pause(true).code(), Code::conflict) << "QEMU doesn't save it twice";
  EXPECT_EQ(qemu.is(), "postmigrate");
}

// That would say of a machine that runs that it doesn't.
TEST_F(QmpTest, AnAnswerThatComesLateIsNotTakenForTheNext) {
  FakeQemu qemu(directory_ / "qmp.sock", "running");
  auto qmp = open();
  ASSERT_TRUE(qmp);
  qemu.late_ms = 300;
  EXPECT_EQ(qmp->run("stop", {}, std::chrono::milliseconds(50)).code(), Code::timed_out);
  auto is = qemu_status(*qmp);
  ASSERT_TRUE(is.ok()) << is.status().to_string();
  EXPECT_EQ(*is, "paused");
}

TEST_F(QmpTest, AQemuThatHasEndedNeedsNoNote) {
  PauseNote n;
  n.process = ::getpid(), n.started = started(::getpid());
  EXPECT_TRUE(n.lives());
  ++n.started;
  EXPECT_FALSE(n.lives()) << "its id is another's";
}

TEST_F(QmpTest, ASavingLeavesNothingBehind) {
  FakeQemu qemu(directory_ / "qmp.sock", "running");
  auto qmp = open();
  ASSERT_TRUE(qmp);
  QemuMachine machine(*qmp, "vm", directory_.path());
  ASSERT_TRUE(machine.prepare().ok());
  ASSERT_TRUE(machine.pause(true).ok());
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
  QemuMachine machine(*qmp, "vm", directory_.path());
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
