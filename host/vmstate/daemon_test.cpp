// luge-vmstated as `luge vm` sees it, before a QEMU that does what a test wants.
#include "vmstate/daemon.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "io/real_world.hpp"
#include "io/testing.hpp"
#include "vmstate/machine_testing.hpp"

namespace luge::vmstate {
namespace {

using namespace std::chrono_literals;
using testing::FakeQemu;
namespace json = boost::json;

class DaemonTest : public ::testing::Test {
 protected:
  DaemonTest() {
    const char* arguments[] = {"luge-vmstated"};
    std::vector<Option> table = Daemon::options();
    for (Option& o : io::common_options({"luge-vmstated", "vmstated", "", false, false})) table.push_back(o);
    options_.settings = parse_command_line(1, arguments, "luge-vmstated", "", table).settings;
    options_.directory = directory_.path();
  }
  // What it answers to these, one after the other, from its start to its end; before them it waits for `first`.
  std::vector<json::object> answers(std::vector<json::object> requests, const std::function<bool()>& first = [] { return true; }) {
    std::vector<json::object> out;
    io::testing::run(io::RealWorld::Options{.io_uring = false}, [&](io::RealWorld& world) -> io::Task<void> {
      Daemon daemon(world, options_);
      Status s = co_await daemon.start();
      EXPECT_TRUE(s.ok()) << s.to_string();
      for (int i = 0; i < 500 && !first(); ++i) co_await world.sleep(10ms);
      for (const json::object& r : requests) out.push_back(daemon.answer(r));
      co_await daemon.drain();
    });
    return out;
  }
  static std::string text(const json::object& o, const char* key) {
    const json::value* v = o.if_contains(key);
    return v && v->is_string() ? std::string(v->as_string()) : "";
  }
  void note(PauseNote::Kind kind, int process = ::getpid()) {
    EXPECT_TRUE(notes_.write({"web", qmp_, process, started(::getpid()), kind}).ok());
  }
  io::testing::TemporaryDirectory directory_{"/dev/shm"};
  const std::string qmp_ = directory_ / "web.qmp";
  const PauseNotes notes_{directory_.path()};
  io::DaemonOptions options_;
};

// The one before was killed within a checkpoint's pause.
TEST_F(DaemonTest, AMachineThatWasLeftPausedGoesOn) {
  for (const char* is : {"paused", "postmigrate"}) {
    FakeQemu qemu(qmp_, is);
    note(PauseNote::Kind::goes_on);
    answers({}, [&] { return notes_.all().empty(); });
    EXPECT_EQ(qemu.is(), "running");
    EXPECT_TRUE(notes_.all().empty());
    ::unlink(qmp_.c_str());
  }
}

// The one before was killed between a migration's commit and its answer: it may run over there.
TEST_F(DaemonTest, AMachineThatWasBeingHandedOverStaysPausedUntilAPersonDecides) {
  FakeQemu qemu(qmp_, "postmigrate");
  note(PauseNote::Kind::handing_over);
  const json::object protect{{"do", "protect"}, {"machine", "web"}, {"qmp", qmp_}, {"disks", json::array{"d"}}, {"every_ms", 200}};
  json::object other = protect, migrate = protect, once = protect;
  other["machine"] = "www", migrate["do"] = "migrate", migrate["to"] = "unix:nowhere", once["do"] = "checkpoint";
  auto heard = answers({{{"do", "status"}}, protect, other, migrate, once});
  EXPECT_EQ(text(heard[0].at("protected").as_array().at(0).as_object(), "state"), "unknown");
  for (std::size_t i = 1; i < heard.size(); ++i) EXPECT_EQ(text(heard[i], "code"), "conflict") << i << ": " << json::serialize(heard[i]);
  EXPECT_EQ(qemu.is(), "postmigrate");
  EXPECT_EQ(notes_.all().size(), 1u) << "the end of this one forgets it";
  heard = answers({{{"do", "release"}, {"machine", "web"}}, {{"do", "status"}}});
  EXPECT_EQ(text(heard[0], "state"), "released");
  EXPECT_EQ(qemu.is(), "running");
  EXPECT_TRUE(heard[1].at("protected").as_array().empty());
  EXPECT_TRUE(notes_.all().empty());
}

TEST_F(DaemonTest, ARestoreLeavesAMachineThatRunsThereAlone) {
  const std::string to = directory_ / "live";
  std::filesystem::create_directory(to);
  const json::object restore{{"do", "restore"}, {"machine", "web"}, {"to", to}};
  {
    FakeQemu qemu(to + "/qmp.sock", "running");
    EXPECT_EQ(text(answers({restore})[0], "code"), "conflict");
    ::unlink((to + "/qmp.sock").c_str());
  }
  FakeQemu qemu(to + "/qmp.sock", "inmigrate");
  EXPECT_EQ(text(answers({restore})[0], "code"), "not_found") << "there is no such checkpoint";
}

// It would run in what was there before.
TEST_F(DaemonTest, AQemuThatHasAnotherMemoryIsNotRun) {
  const std::string to = directory_.path();
  std::ofstream(to + "/memory") << "restored after that QEMU was started";
  std::ofstream(to + "/state") << "state";
  FakeQemu qemu(qmp_, "inmigrate");
  EXPECT_EQ(text(answers({{{"do", "restore"}, {"machine", "web"}, {"to", to}, {"qmp", qmp_}}})[0], "code"), "conflict");
  EXPECT_EQ(qemu.is(), "inmigrate");
}

TEST_F(DaemonTest, ANoteOfAQemuThatHasEndedIsForgotten) {
  FakeQemu qemu(qmp_, "paused");  // another, at the same place
  note(PauseNote::Kind::handing_over, 1 << 30);
  answers({}, [&] { return notes_.all().empty(); });
  EXPECT_TRUE(notes_.all().empty());
  EXPECT_EQ(qemu.is(), "paused");
}

}  // namespace
}  // namespace luge::vmstate
