// A migration's arrival, before a monitor that says what a test tells it to.
#include "vmstate/live_target.hpp"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <atomic>
#include <cstring>
#include <fstream>
#include <thread>

#include "io/testing.hpp"

namespace luge::vmstate {
namespace {

// QEMU's side of a monitor: greets, and says that the machine is as `is`. One at a time, like QEMU's.
class FakeQemu {
 public:
  FakeQemu(const std::string& path, std::string is) : is_(std::move(is)), listener_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un a{};
    a.sun_family = AF_UNIX;
    std::memcpy(a.sun_path, path.data(), path.size());
    EXPECT_EQ(::bind(listener_, reinterpret_cast<sockaddr*>(&a), sizeof a), 0);
    EXPECT_EQ(::listen(listener_, 4), 0);
    thread_ = std::thread([this] { serve(); });
  }
  ~FakeQemu() {
    ending_ = true;
    thread_.join();
    ::close(listener_);
  }

 private:
  void serve() {
    while (!ending_) {
      pollfd p{listener_, POLLIN, 0};
      if (::poll(&p, 1, 10) != 1) continue;
      const int fd = ::accept(listener_, nullptr, nullptr);
      if (!is_.empty()) talk(fd);
      ::close(fd);
    }
  }
  void talk(int fd) {
    say(fd, R"({"QMP":{}})");
    for (char part[4096]; !ending_;) {
      pollfd p{fd, POLLIN, 0};
      if (::poll(&p, 1, 10) != 1) continue;
      const ssize_t n = ::recv(fd, part, sizeof part, 0);
      if (n <= 0) return;
      const bool asked = std::string_view(part, static_cast<std::size_t>(n)).find("query-status") != std::string_view::npos;
      say(fd, asked ? R"({"return":{"status":")" + is_ + R"("}})" : R"({"return":{}})");
    }
  }
  static void say(int fd, const std::string& line) { (void)!::send(fd, (line + "\n").data(), line.size() + 1, MSG_NOSIGNAL); }
  const std::string is_;  // empty: it hangs up without a greeting
  const int listener_;
  std::atomic<bool> ending_{false};
  std::thread thread_;
};

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
