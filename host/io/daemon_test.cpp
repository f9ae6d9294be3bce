// Whole daemons in child processes: exit codes, locking, identity, signals.
#include "io/daemon.hpp"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "io/testing.hpp"

namespace luge::io {
namespace {

std::string* log_file = nullptr;  // of the daemons that are started

struct TestDaemon {
  static std::vector<Option> options() { return {{"how", Option::Type::text, "well", "how it ends", false}}; }
  TestDaemon(World& w, const DaemonOptions& o) : world(w), options_(o) {}

  Task<Status> start() {
    co_await world.yield();
    std::string how = options_.settings.text("how");
    if (how == "badly") co_return Status(Code::io_error, "no luck");
    if (how == "unit") co_return options_.remember_unit(77);
    if (how == "later") options_.fail(Status(Code::wrong_unit, "refused"));
    std::ofstream(options_.directory + "/ready") << "ready";
    co_return Status();
  }
  Task<void> drain() {
    if (options_.settings.text("how") == "stuck") co_await world.sleep(std::chrono::hours(1));
    std::ofstream(options_.directory + "/drained") << "drained";
    co_await world.yield();
  }

  World& world;
  const DaemonOptions& options_;
};

struct TalkativeDaemon : TestDaemon {
  using TestDaemon::TestDaemon;
  std::string unfinished() const { return "7 things"; }
};

template <class D = TestDaemon>
pid_t start(std::vector<std::string> args) {
  pid_t pid = ::fork();
  if (pid != 0) return pid;
  args.insert(args.begin(), "luge-test");
  std::vector<char*> argv;
  for (std::string& a : args) argv.push_back(a.data());
  argv.push_back(nullptr);
  if (std::string* log = log_file; log) ::freopen(log->c_str(), "w", stderr);
  DaemonKind kind{"luge-test", "test", "Tests."};
  kind.drain_limit = 1s;
  ::_exit(daemon_main<D>(static_cast<int>(args.size()), argv.data(), kind));
}

int wait_for(pid_t pid) {
  int status = 0;
  EXPECT_EQ(::waitpid(pid, &status, 0), pid);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

void await_file(const std::string& path) {
  for (int i = 0; i < 1000 && ::access(path.c_str(), F_OK) != 0; ++i) ::usleep(10'000);
  EXPECT_EQ(::access(path.c_str(), F_OK), 0) << path;
}

TEST(Daemon, DrainsOnSigterm) {
  testing::TemporaryDirectory d;
  pid_t pid = start({"--id", "3", "--dir", d / "data"});
  await_file(d / "data/ready");
  EXPECT_EQ(wait_for(start({"--id", "3", "--dir", d / "data"})), 3) << "the directory is in use";
  ::kill(pid, SIGTERM);
  EXPECT_EQ(wait_for(pid), 0);
  await_file(d / "data/drained");
}

TEST(Daemon, ASecondSignalStopsAStuckDrain) {
  testing::TemporaryDirectory d;
  pid_t pid = start({"--id", "3", "--dir", d / "data", "--how", "stuck"});
  await_file(d / "data/ready");
  ::kill(pid, SIGTERM);
  ::usleep(200'000);
  ::kill(pid, SIGTERM);
  EXPECT_EQ(wait_for(pid), 0);
}

// Whoever waits for the end gets it, with the reason, and not an exit code that says that all was well.
TEST(Daemon, ADrainThatDoesNotEndIsGivenUp) {
  testing::TemporaryDirectory d;
  std::string log = d / "log";
  log_file = &log;
  for (bool talks : {false, true}) {
    std::string data = d / (talks ? "a" : "b");
    std::vector<std::string> args{"--id", "3", "--dir", data, "--how", "stuck"};
    pid_t pid = talks ? start<TalkativeDaemon>(args) : start(args);
    await_file(data + "/ready");
    ::kill(pid, SIGTERM);
    EXPECT_EQ(wait_for(pid), 4);
    std::ifstream in(log);
    std::string text((std::istreambuf_iterator<char>(in)), {});
    EXPECT_NE(text.find("has not drained within 1 s"), std::string::npos) << text;
    EXPECT_EQ(text.find("given up: 7 things") != std::string::npos, talks) << text;
  }
  log_file = nullptr;
}

TEST(Daemon, TellsItWhatItIs) {
  struct Checks : TestDaemon {
    static std::vector<Option> options() { return {control_option(), listen_option("tests")}; }
    Checks(World& w, const DaemonOptions& o) : TestDaemon(w, o), o_(o) {}
    Task<Status> start() {
      co_await world.yield();
      const NodeOptions& n = o_;
      bool right = n.id == 3 && n.name == "test-3" && n.unit == 9 && n.listen == "unix:/l" && n.control == "unix:/c" && n.incarnation != 0 &&
                   n.pid == static_cast<std::uint32_t>(::getpid()) && n.remember_unit && n.fail;
      co_return Status(right ? Code::wrong_unit : Code::internal, "so it is");
    }
    const DaemonOptions& o_;
  };
  testing::TemporaryDirectory d;
  EXPECT_EQ(wait_for(start<Checks>({"--id", "3", "--dir", d / "a", "--unit", "9", "--listen", "unix:/l", "--control", "unix:/c"})), 3);
  EXPECT_EQ(wait_for(start<Checks>({"--id", "3", "--dir", d / "a", "--unit", "9", "--listen", "unix:/l"})), 2) << "control is required";
}

TEST(Daemon, ExitCodes) {
  testing::TemporaryDirectory d;
  EXPECT_EQ(wait_for(start({"--help"})), 0);
  EXPECT_EQ(wait_for(start({"--version"})), 0);
  EXPECT_EQ(wait_for(start({})), 2);
  EXPECT_EQ(wait_for(start({"--id", "0", "--dir", d / "a"})), 2);
  EXPECT_EQ(wait_for(start({"--id", "1", "--dir", d / "a", "--log-level", "loud"})), 2);
  EXPECT_EQ(wait_for(start({"--id", "1", "--dir", d / "no/parent"})), 3);
  EXPECT_EQ(wait_for(start({"--id", "1", "--dir", d / "a", "--how", "badly"})), 1);
  EXPECT_EQ(wait_for(start({"--id", "1", "--dir", d / "a", "--how", "later"})), 3);
}

// Requirement: B-04
TEST(Daemon, RefusesTheDirectoryOfAnother) {
  testing::TemporaryDirectory d;
  pid_t pid = start({"--id", "1", "--dir", d / "a", "--how", "unit"});  // the unit is 77 from now on
  ::usleep(300'000);
  ::kill(pid, SIGTERM);
  EXPECT_EQ(wait_for(pid), 0);
  EXPECT_EQ(wait_for(start({"--id", "2", "--dir", d / "a"})), 3);
  EXPECT_EQ(wait_for(start({"--id", "1", "--unit", "78", "--dir", d / "a"})), 3);
  EXPECT_EQ(wait_for(start({"--id", "1", "--unit", "77", "--dir", d / "a", "--how", "badly"})), 1);
  std::ofstream(d / "a/identity") << "format = 9\nrole = \"test\"\nid = 1\nunit = 77\n";
  EXPECT_EQ(wait_for(start({"--id", "1", "--dir", d / "a"})), 3);
  std::ofstream(d / "a/identity") << "format = 1\nrole = \"head\"\nid = 1\nunit = 77\n";
  EXPECT_EQ(wait_for(start({"--id", "1", "--dir", d / "a"})), 3);
  std::ofstream(d / "a/identity") << "nonsense\n";
  EXPECT_EQ(wait_for(start({"--id", "1", "--dir", d / "a"})), 3);
}

}  // namespace
}  // namespace luge::io
