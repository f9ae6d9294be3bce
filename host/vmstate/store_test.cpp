#include "vmstate/store.hpp"

#include <gtest/gtest.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include "base/crc32c.hpp"
#include "io/testing.hpp"
#include "switches/switches.hpp"
#include "vmstate/image_testing.hpp"
#include "vmstate/transfer.hpp"

namespace luge::vmstate {
namespace {

namespace fs = std::filesystem;
using testing::kShape, testing::read_file;

class StoreTest : public testing::ImageTest {
 protected:
  std::string store_directory() const { return directory_.path() + "/store"; }
  static std::vector<std::uint64_t> all() {
    std::vector<std::uint64_t> v(kShape.pages());
    for (std::uint64_t p = 0; p < v.size(); ++p) v[p] = p;
    return v;
  }
  /// Checkpoint `n` of a chain that begins with 1.
  Status checkpoint(Target& t, std::uint64_t n) {
    std::vector<std::uint64_t> pages;
    if (n == 1) pages = all();
    else for (int i = 0; i < 30; ++i) {
      pages.push_back(random_() % kShape.pages());
      if (i % 5 == 0) image_.replace(pages.back() * kPage, kPage, std::string(kPage, 0));
      else change(pages.back());
    }
    if (Status s = t.begin({"vm", n, n - 1, kShape}); !s.ok()) return s;
    if (Status s = t.put(batch(pages)); !s.ok()) return s;
    if (Status s = t.commit("state " + std::to_string(n), "{\"n\":" + std::to_string(n) + "}"); !s.ok()) return s;
    images_[n] = image_;
    return Status();
  }
  void expect_restored(std::uint64_t n) {
    const std::string to = directory_.path();
    auto r = Store(store_directory()).restore("vm", n, {to + "/memory", to + "/state", to + "/description", to + "/disk"});
    ASSERT_TRUE(r.ok()) << r.status().to_string();
    EXPECT_EQ(read_file(to + "/memory") + read_file(to + "/disk"), images_[n]) << n;
    EXPECT_EQ(read_file(to + "/state"), "state " + std::to_string(n));
  }
  std::vector<std::uint64_t> kept() {
    std::vector<std::uint64_t> out;
    auto list = Store(store_directory()).list("vm");
    EXPECT_TRUE(list.ok()) << list.status().to_string();
    if (list.ok())
      for (const auto& c : *list) out.push_back(c.sequence);
    return out;
  }
  io::testing::TemporaryDirectory directory_{"/dev/shm"};
};

// Requirement: DWR-32
TEST_F(StoreTest, EveryCheckpointThatIsKeptIsRestoredToTheByte) {
  StoreTarget t(store_directory(), {.keep = 4, .durable = false});
  for (std::uint64_t n = 1; n <= 40; ++n) {
    ASSERT_TRUE(checkpoint(t, n).ok());
    const auto numbers = kept();
    ASSERT_EQ(numbers.size(), std::min<std::uint64_t>(n, 4));
    ASSERT_EQ(numbers.back(), n);
    if (n % 7 == 0 || n < 6)
      for (std::uint64_t k : numbers) expect_restored(k);
  }
  // Merging doesn't let the file grow without bound: everything once, and two tables.
  EXPECT_LT(Store(store_directory()).list("vm").value()[0].bytes, kShape.pages() * kPage + 6 * 4096 + 2 * kShape.pages() * sizeof(CheckpointEntry));
}

// Requirement: DWR-32 switch=checkpoint-half-kept
TEST_F(StoreTest, WhatWasNotCommittedIsNotThere) {
  StoreTarget t(store_directory(), {.keep = 4, .durable = false});
  ASSERT_TRUE(checkpoint(t, 1).ok());
  ASSERT_TRUE(t.begin({"vm", 2, 1, kShape}).ok());
  change(4);
  ASSERT_TRUE(t.put(batch({4})).ok());
  t.abandon();
  EXPECT_EQ(kept(), std::vector<std::uint64_t>{1});
  expect_restored(1);
}

TEST_F(StoreTest, AMergeThatWasCutShortLeavesTheNewerOnesWhole) {
  StoreTarget t(store_directory(), {.keep = 10, .durable = false});
  for (std::uint64_t n = 1; n <= 5; ++n) ASSERT_TRUE(checkpoint(t, n).ok());
  // As after a crash between the merged header and the new name: the oldest file is checkpoint 2 already, and so is the next.
  const std::string folder = store_directory() + "/vm", second = folder + "/000000000002.lvck", saved = directory_.path() + "/saved";
  fs::copy_file(second, saved);
  ASSERT_TRUE(Store(store_directory()).trim("vm", 4, false).ok());
  fs::rename(second, folder + "/000000000001.lvck");
  fs::rename(saved, second);
  for (std::uint64_t n = 2; n <= 5; ++n) expect_restored(n);
}

// Restored once more, while the machine of the first time runs in its memory.
// Requirement: DWR-32 switch=memory-restored-in-place
TEST_F(StoreTest, TheMemoryOfAMachineThatRunsIsNotWritten) {
  StoreTarget t(store_directory(), {.keep = 4, .durable = false});
  ASSERT_TRUE(checkpoint(t, 1).ok());
  expect_restored(1);
  const int fd = ::open((directory_ / "memory").c_str(), O_RDWR | O_CLOEXEC);
  auto* memory = static_cast<char*>(::mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  ::close(fd);
  ASSERT_NE(memory, MAP_FAILED);
  memory[7] = 42;
  expect_restored(1);
  EXPECT_EQ(memory[7], 42);
  ::munmap(memory, kPage);
  for (const auto& entry : fs::directory_iterator(directory_.path())) EXPECT_NE(entry.path().extension(), ".new");
}

TEST_F(StoreTest, ALinkToTheMemoryStaysOneAndAQemuThatWaitsGetsItInItsFile) {
  StoreTarget t(store_directory(), {.keep = 4, .durable = false});
  ASSERT_TRUE(checkpoint(t, 1).ok());
  const std::string to = directory_.path();
  std::ofstream(to + "/elsewhere") << "old";
  fs::create_symlink("elsewhere", to + "/memory");
  expect_restored(1);
  EXPECT_TRUE(fs::is_symlink(to + "/memory"));
  EXPECT_EQ(fs::file_size(to + "/elsewhere"), kShape.memory_pages * kPage);
  struct stat before {}, after {};
  ASSERT_EQ(::stat((to + "/memory").c_str(), &before), 0);
  ASSERT_TRUE(Store(store_directory()).restore("vm", 1, {to + "/memory", to + "/state", to + "/description", to + "/disk", true}).ok());
  ASSERT_EQ(::stat((to + "/memory").c_str(), &after), 0);
  EXPECT_EQ(before.st_ino, after.st_ino);
}

// Requirement: DWR-32 switch=page-checksums-unchecked
TEST_F(StoreTest, DamageIsFoundWhereverItIs) {
  StoreTarget t(store_directory(), {.keep = 4, .durable = false});
  ASSERT_TRUE(checkpoint(t, 1).ok());
  const std::string path = store_directory() + "/vm/000000000001.lvck", to = directory_.path() + "/x";
  const std::string good = read_file(path);
  for (std::size_t at : {std::size_t{1}, std::size_t{20}, std::size_t{158}, std::size_t{5000}, good.size() - 2000, good.size() - 3}) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 4);
    std::ofstream(path, std::ios::binary | std::ios::trunc) << bad;
    auto r = Store(store_directory()).restore("vm", 0, {to, to + "s", to + "d", to + "k"});
    EXPECT_FALSE(r.ok()) << "byte " << at;
  }
  std::string other = good;
  other[4] = 9;
  std::ofstream(path, std::ios::binary | std::ios::trunc) << other;
  EXPECT_EQ(Store(store_directory()).restore("vm", 0, {to, to + "s", to + "d", to + "k"}).code(), Code::wrong_version);
}

TEST_F(StoreTest, RefusesWhatDoesNotFollow) {
  StoreTarget t(store_directory(), {.keep = 4, .durable = false});
  EXPECT_EQ(t.begin({"vm", 2, 1, kShape}).code(), Code::stale);
  EXPECT_EQ(t.begin({"../vm", 1, 0, kShape}).code(), Code::invalid);
  ASSERT_TRUE(checkpoint(t, 1).ok());
  EXPECT_EQ(t.begin({"vm", 1, 0, kShape}).code(), Code::exists);
  EXPECT_TRUE(t.begin({"vm", 2, 0, kShape}).ok());
  EXPECT_EQ(t.put(batch({kShape.pages() - 1})).code(), Code::ok);
  EXPECT_EQ(t.commit("", "").code(), Code::invalid);  // not every page
  const Shape larger{kShape.memory_pages + 1000, kShape.disk_pages};
  EXPECT_EQ(t.begin({"vm", 2, 1, larger}).code(), Code::stale);
}

// A source that has heard nothing of its commit for too long comes again, over another connection, while the first is still on its way to the disk.
// Requirement: DWR-32 switch=senders-share-a-part
TEST_F(StoreTest, ALateCommitDoesNotMeetASecondWriter) {
  StoreTarget first(store_directory(), {.keep = 4, .durable = false}), second(store_directory(), {.keep = 4, .durable = false});
  ASSERT_TRUE(checkpoint(first, 1).ok());
  ASSERT_TRUE(first.begin({"vm", 2, 0, kShape}).ok());  // a new chain: its commit removes the one before
  change(4);
  ASSERT_TRUE(first.put(batch(all())).ok());
  EXPECT_EQ(second.newest("vm").value(), 1u);
  EXPECT_EQ(second.begin({"vm", 2, 0, kShape}).code(), Code::conflict);
  (void)second.put(batch({1, 2, 3}));
  images_[2] = image_;
  ASSERT_TRUE(first.commit("state 2", "{}").ok());
  EXPECT_EQ(kept(), std::vector<std::uint64_t>{2});
  expect_restored(2);
  EXPECT_TRUE(checkpoint(second, 3).ok()) << "it has been let go";
  expect_restored(3);
}

TEST_F(StoreTest, WhatAWriterThatDiedHasLeftIsRemoved) {
  StoreTarget t(store_directory(), {.keep = 4, .durable = false});
  ASSERT_TRUE(checkpoint(t, 1).ok());
  const std::string part = store_directory() + "/vm/000000000002.lvck.77-1.part";
  std::ofstream(part) << "half of it";
  EXPECT_EQ(kept(), std::vector<std::uint64_t>{1});
  ASSERT_TRUE(checkpoint(t, 2).ok());
  EXPECT_FALSE(fs::exists(part));
}

// Another host's daemon at the end of a socket.
class TransferTest : public StoreTest {
 protected:
  // Its disk needs that long for a commit.
  class SlowTarget final : public Target {
   public:
    SlowTarget(const std::string& directory, const std::atomic<int>& seconds) : store_(directory, {.keep = 4, .durable = false}), seconds_(seconds) {}
    Result<std::uint64_t> newest(const std::string& machine) override { return store_.newest(machine); }
    Status begin(const Begin& b) override { return store_.begin(b); }
    Status put(const PageBatch& b) override { return store_.put(b); }
    Status commit(const std::string& state, const std::string& description) override {
      std::this_thread::sleep_for(std::chrono::seconds(seconds_));
      return store_.commit(state, description);
    }
    void abandon() override { store_.abandon(); }

   private:
    StoreTarget store_;
    const std::atomic<int>& seconds_;
  };
  TransferTest() {
    std::string bound;
    listener_ = listen_at("tcp:127.0.0.1:0", false, bound).value();
    address_ = bound;
    thread_ = std::thread([this] {
      for (int fd; (fd = ::accept(listener_, nullptr, nullptr)) >= 0;) {
        serving_ = fd;
        ended_ = serve_transfer(fd, [this](const std::string&, bool) -> Result<std::unique_ptr<Target>> {
          return std::unique_ptr<Target>(new SlowTarget(store_directory(), slow_));
        }, std::chrono::milliseconds(200));
        ::close(fd);
        ++served_;
      }
    });
  }
  ~TransferTest() override {
    ::shutdown(listener_, SHUT_RDWR);
    thread_.join();
    ::close(listener_);
  }
  void wait_served(int n) {
    while (served_ < n) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  int listener_ = -1;
  std::string address_;
  std::thread thread_;
  std::atomic<int> served_{0}, serving_{-1}, slow_{0};
  Status ended_;
};

// Requirement: DWR-07, DWR-32
TEST_F(TransferTest, CheckpointsArriveAtAnotherHost) {
  RemoteTarget t(address_, false);
  EXPECT_EQ(t.newest("vm").value(), 0u);
  for (std::uint64_t n = 1; n <= 6; ++n) ASSERT_TRUE(checkpoint(t, n).ok());
  EXPECT_EQ(t.newest("vm").value(), 6u);
  for (std::uint64_t n : kept()) expect_restored(n);
  EXPECT_EQ(t.begin({"vm", 9, 8, kShape}).code(), Code::stale);
  EXPECT_TRUE(checkpoint(t, 7).ok());  // the connection lives on
}

// The sender counted as gone what was only slow, and began the same checkpoint anew.
TEST_F(TransferTest, ACommitMayTakeLongerThanTheSilenceThatEndsAConnection) {
  RemoteTarget t(address_, false, std::chrono::seconds(1));
  slow_ = 3;
  Status s = checkpoint(t, 1);
  EXPECT_TRUE(s.ok()) << s.to_string();
  EXPECT_EQ(kept(), std::vector<std::uint64_t>{1});
}

// Else its thread, and what it holds, would stay for ever.
TEST_F(TransferTest, ASourceWhoseHostLosesPowerIsNoticed) {
  RemoteTarget t(address_, false);
  ASSERT_TRUE(t.newest("vm").ok());
  int on = 0, idle = 0;
  unsigned unanswered = 0;
  socklen_t n = sizeof on;
  ASSERT_EQ(::getsockopt(serving_, SOL_SOCKET, SO_KEEPALIVE, &on, &n), 0);
  ASSERT_EQ(::getsockopt(serving_, IPPROTO_TCP, TCP_KEEPIDLE, &idle, &n), 0);
  ASSERT_EQ(::getsockopt(serving_, IPPROTO_TCP, TCP_USER_TIMEOUT, &unanswered, &n), 0);
  EXPECT_EQ(on, 1);
  EXPECT_LE(idle, 30);
  EXPECT_TRUE(unanswered != 0 && unanswered <= 60000);
}

TEST_F(TransferTest, ALinkThatEndsLeavesTheCheckpointBefore) {
  {
    RemoteTarget t(address_, false);
    ASSERT_TRUE(checkpoint(t, 1).ok());
    ASSERT_TRUE(t.begin({"vm", 2, 1, kShape}).ok());
    change(3);
    ASSERT_TRUE(t.put(batch({3})).ok());
  }
  wait_served(1);
  EXPECT_EQ(kept(), std::vector<std::uint64_t>{1});
  expect_restored(1);
}

TEST_F(TransferTest, PagesDamagedOnTheirWayAreRefused) {
  RemoteTarget t(address_, false);
  ASSERT_TRUE(t.begin({"vm", 1, 0, kShape}).ok());
  PageBatch b = batch(all());
  b.content[777] ^= std::byte{1};
  ASSERT_TRUE(t.put(b).ok());
  EXPECT_EQ(t.commit("s", "d").code(), Code::corrupt);
  EXPECT_TRUE(kept().empty());
}

TEST_F(TransferTest, NonsenseEndsTheConnection) {
  const int fd = connect_to(address_).value();
  ASSERT_EQ(::send(fd, "GET / HTTP/1.0\r\n\r\n", 18, 0), 18);
  wait_served(1);
  EXPECT_EQ(ended_.code(), Code::corrupt);
  ::close(fd);
}

}  // namespace
}  // namespace luge::vmstate
