// A machine's surroundings in a test: its disk's recorder and its QEMU's monitor, each at a socket, answering what a test wants.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "card/dma_ring.hpp"
#include "card/recorder_messages.hpp"

namespace luge::vmstate::testing {

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
    r.region[0] = {0, card::kRecorderWindow, 0};
    if (q.verb == RecorderVerb::start) {
      auto ring = card::DmaRing::create(q.slots_log2, 0, 0);
      EXPECT_TRUE(ring.ok());
      ring_ = std::move(*ring);
    }
    const int descriptors[] = {q.verb == RecorderVerb::start ? ring_.fd() : file_, file_, file_};
    const std::size_t n = q.verb == RecorderVerb::start ? 3 : q.verb == RecorderVerb::track ? 2 : r.regions;
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
  card::DmaRing ring_;
  std::thread thread_;
};

// QEMU's side of a monitor: greets, says that the machine is as `is`, and stops, saves and lets run. One client at a time, like QEMU's.
class FakeQemu {
 public:
  /// `is` empty: it hangs up without a greeting.
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
    if (taking_.joinable()) taking_.join();
    ::close(listener_);
  }
  std::string is() const {
    std::lock_guard lock(mutex_);
    return is_;
  }
  /// It does not do what it is asked in a line with this in it.
  void refuse(std::string what) {
    std::lock_guard lock(mutex_);
    refused_ = std::move(what);
  }
  std::atomic<std::int64_t> late_ms{0};  // the next answer
  /// What it was asked, a line each.
  std::string asked() const {
    std::lock_guard lock(mutex_);
    return asked_;
  }

 private:
  void serve() {
    while (!ending_) {
      pollfd p{listener_, POLLIN, 0};
      if (::poll(&p, 1, 10) != 1) continue;
      const int fd = ::accept(listener_, nullptr, nullptr);
      if (!is().empty()) talk(fd);
      ::close(fd);
    }
  }
  void talk(int fd) {
    say(fd, R"({"QMP":{}})");
    std::string heard;
    for (char part[4096]; !ending_;) {
      pollfd p{fd, POLLIN, 0};
      if (::poll(&p, 1, 10) != 1) continue;
      const ssize_t n = ::recv(fd, part, sizeof part, 0);
      if (n <= 0) return;
      heard.append(part, static_cast<std::size_t>(n));
      for (std::size_t end; (end = heard.find('\n')) != std::string::npos; heard.erase(0, end + 1)) {
        const std::string line = heard.substr(0, end), said = answer(line);
        std::this_thread::sleep_for(std::chrono::milliseconds(late_ms.exchange(0)));
        const std::size_t id = line.find("\"id\":");
        say(fd, "{" + (id == std::string::npos ? "" : line.substr(id, line.find_first_of(",}", id) - id) + ",") + said.substr(1));
      }
    }
  }
  std::string answer(const std::string& line) {
    std::lock_guard lock(mutex_);
    asked_ += line + "\n";
    auto asks = [&](const char* command) { return line.find('"' + std::string(command) + '"') != std::string::npos; };
    if (!refused_.empty() && line.find(refused_) != std::string::npos) return R"({"error":{"desc":"refused"}})";
    if (asks("query-status")) return R"({"return":{"status":")" + is_ + R"("}})";
    if (asks("query-migrate-parameters")) return R"({"return":{"max-bandwidth":134217728}})";
    if (asks("query-migrate")) return R"({"return":{"status":"completed"}})";
    if (asks("stop") && is_ == "running") is_ = "paused";
    if (asks("cont")) is_ = "running";
    if (asks("migrate")) save(line);
    if (asks("migrate-incoming")) take(line);
    return R"({"return":{}})";
  }
  void save(const std::string& line) {
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const sockaddr_un a = address_in(line);
    if (::connect(fd, reinterpret_cast<const sockaddr*>(&a), sizeof a) == 0) (void)!::send(fd, "state", 5, MSG_NOSIGNAL);
    ::close(fd);
    is_ = "postmigrate";
  }
  void take(const std::string& line) {
    const int listener = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const sockaddr_un a = address_in(line);
    EXPECT_EQ(::bind(listener, reinterpret_cast<const sockaddr*>(&a), sizeof a), 0);
    EXPECT_EQ(::listen(listener, 1), 0);
    if (taking_.joinable()) taking_.join();
    taking_ = std::thread([this, listener] {
      const int fd = ::accept(listener, nullptr, nullptr);
      for (char part[4096]; ::recv(fd, part, sizeof part, 0) > 0;) {}
      ::close(fd), ::close(listener);
      std::lock_guard lock(mutex_);
      is_ = "paused";
    });
  }
  static sockaddr_un address_in(const std::string& line) {
    const std::size_t at = line.find("unix:") + 5, end = line.find('"', at);
    sockaddr_un a{};
    a.sun_family = AF_UNIX;
    std::memcpy(a.sun_path, line.data() + at, std::min(end - at, sizeof a.sun_path - 1));
    return a;
  }
  static void say(int fd, const std::string& line) { (void)!::send(fd, (line + "\n").data(), line.size() + 1, MSG_NOSIGNAL); }
  mutable std::mutex mutex_;
  std::string is_, refused_, asked_;
  const int listener_;
  std::atomic<bool> ending_{false};
  std::thread thread_, taking_;
};

}  // namespace luge::vmstate::testing
