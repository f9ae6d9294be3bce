// The manager's end of a recorder's socket, before a disk that answers when and what a test wants.
#include "vmstate/vhost_recorder.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <thread>

#include "io/testing.hpp"

namespace luge::vmstate {
namespace {

using namespace std::chrono_literals;
using card::RecorderVerb;
using Asked = std::vector<std::pair<RecorderVerb, std::uint64_t>>;

class FakeDisk {
 public:
  explicit FakeDisk(const std::string& path) : listener_(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)), file_(::memfd_create("disk", MFD_CLOEXEC)) {
    sockaddr_un a{};
    a.sun_family = AF_UNIX;
    std::memcpy(a.sun_path, path.data(), path.size());
    EXPECT_EQ(::bind(listener_, reinterpret_cast<sockaddr*>(&a), sizeof a), 0);
    EXPECT_EQ(::listen(listener_, 1), 0);
    EXPECT_EQ(::ftruncate(file_, card::kRecorderWindow), 0);
    thread_ = std::thread([this] { serve(); });
  }
  /// REQUIRES: the manager has gone.
  ~FakeDisk() {
    thread_.join();
    ::close(listener_), ::close(file_);
  }
  std::atomic<std::uint64_t> volume_bytes{8 << 20};
  std::atomic<std::int64_t> late_ms{0};  // the next answer
  Asked asked;                           // read it when an answer has come

 private:
  void serve() {
    const int fd = ::accept(listener_, nullptr, nullptr);
    card::RecorderRequest q;
    while (::recv(fd, &q, sizeof q, 0) == sizeof q) {
      asked.emplace_back(q.verb, q.value);
      std::this_thread::sleep_for(std::chrono::milliseconds(late_ms.exchange(0)));
      answer(fd, q);
    }
    ::close(fd);
  }
  void answer(int fd, const card::RecorderRequest& q) {
    card::RecorderReply r;
    r.id = q.id, r.verb = q.verb, r.volume_bytes = volume_bytes;
    r.regions = q.verb == RecorderVerb::memory;
    const int descriptors[] = {file_, file_};
    const std::size_t n = q.verb == RecorderVerb::track ? 2 : r.regions;
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof descriptors)] = {};
    iovec v{&r, sizeof r};
    msghdr h{};
    h.msg_iov = &v, h.msg_iovlen = 1;
    if (n != 0) {
      h.msg_control = control, h.msg_controllen = CMSG_SPACE(sizeof(int) * n);
      cmsghdr* c = CMSG_FIRSTHDR(&h);
      c->cmsg_level = SOL_SOCKET, c->cmsg_type = SCM_RIGHTS, c->cmsg_len = CMSG_LEN(sizeof(int) * n);
      std::memcpy(CMSG_DATA(c), descriptors, sizeof(int) * n);
    }
    EXPECT_EQ(::sendmsg(fd, &h, MSG_NOSIGNAL), static_cast<ssize_t>(sizeof r));
  }
  const int listener_, file_;
  std::thread thread_;
};

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
