// With a process of its own that has the shim loaded, as QEMU has: this program again, as "writer".
#include "vmstate/processor_writes.hpp"

#include <gtest/gtest.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

namespace luge::vmstate {
namespace {

constexpr std::uint64_t kPages = 2048;

struct Command {
  std::uint64_t page = 0, count = 0;
};

// Reads commands from descriptor 0, writes a byte to each page, answers each with one byte.
int writer(int memory) {
  auto* p = static_cast<volatile char*>(::mmap(nullptr, kPages * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0));
  if (::write(1, "r", 1) != 1) return 1;
  for (Command c; ::read(0, &c, sizeof c) == sizeof c;) {
    for (std::uint64_t i = 0; i < c.count; ++i) p[(c.page + i) * kPage] = static_cast<char>(p[(c.page + i) * kPage] + 1);
    if (::write(1, "d", 1) != 1) return 1;
  }
  return 0;
}

class Writer {
 public:
  Writer(int memory, bool with_shim) {
    int to[2], from[2];
    LUGE_CHECK(::pipe2(to, O_CLOEXEC) == 0 && ::pipe2(from, O_CLOEXEC) == 0);
    const std::string self = std::filesystem::read_symlink("/proc/self/exe"), shim = std::filesystem::path(self).parent_path().parent_path() / "bin/luge-dirty-shim.so";
    pid = ::fork();
    if (pid == 0) {
      ::dup2(to[0], 0), ::dup2(from[1], 1);
      if (with_shim) ::setenv("LD_PRELOAD", shim.c_str(), 1);
      const std::string number = std::to_string(memory);
      ::execl(self.c_str(), self.c_str(), "writer", number.c_str(), nullptr);
      ::_exit(127);
    }
    ::close(to[0]), ::close(from[1]);
    to_ = to[1], from_ = from[0];
    ready = hear();
  }
  ~Writer() {
    ::close(to_), ::close(from_);
    ::waitpid(pid, nullptr, 0);
  }
  void write(std::uint64_t page, std::uint64_t count = 1) {
    const Command c{page, count};
    LUGE_CHECK(::write(to_, &c, sizeof c) == sizeof c && hear());
  }
  int pid = 0;
  bool ready = false;

 private:
  bool hear() {
    char c;
    return ::read(from_, &c, 1) == 1;
  }
  int to_, from_;
};

class ProcessorWritesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    fd_ = ::memfd_create("guest", 0);
    ASSERT_EQ(::ftruncate(fd_, kPages * kPage), 0);
    const MemoryRange range{0, kPages * kPage, 0, fd_};
    memory_ = MachineMemory::make({&range, 1}).value();
  }
  void TearDown() override { ::close(fd_); }
  static std::vector<std::uint64_t> list(const PageSet& s) {
    std::vector<std::uint64_t> out;
    s.for_each([&](std::uint64_t p) { out.push_back(p); });
    return out;
  }
  std::vector<std::uint64_t> taken(ProcessorWrites& w) {
    PageSet s(kPages);
    Status status = w.take(s);
    EXPECT_TRUE(status.ok()) << status.to_string();
    return list(s);
  }
  int fd_ = -1;
  std::shared_ptr<MachineMemory> memory_;
};

using Pages = std::vector<std::uint64_t>;

TEST_F(ProcessorWritesTest, TheKernelNotesWhatTheProcessWritesAndNothingElse) {
  Writer w(fd_, true);
  ASSERT_TRUE(w.ready);
  w.write(0, 100);
  auto writes = pagemap_writes(w.pid, memory_);
  Status s = writes->arm();
  if (s.code() == Code::unavailable) GTEST_SKIP() << s.text();
  ASSERT_TRUE(s.ok()) << s.to_string();
  EXPECT_EQ(taken(*writes), Pages{});
  w.write(3);
  w.write(50, 3);
  w.write(1999);  // never touched before
  EXPECT_EQ(taken(*writes), (Pages{3, 50, 51, 52, 1999}));
  EXPECT_EQ(taken(*writes), Pages{});
  w.write(3);
  EXPECT_EQ(taken(*writes), Pages{3});
  // A device's writes, through another mapping, are what records are for.
  char* other = static_cast<char*>(::mmap(nullptr, kPages * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0));
  other[7 * kPage] = 1;
  ::munmap(other, kPages * kPage);
  EXPECT_EQ(taken(*writes), Pages{});
  for (std::uint64_t p = 0; p < kPages; p += 3) w.write(p);  // more pieces than one scan returns
  EXPECT_EQ(taken(*writes).size(), (kPages + 2) / 3);
}

TEST_F(ProcessorWritesTest, WithoutTheShimItSaysSo) {
  Writer w(fd_, false);
  ASSERT_TRUE(w.ready);
  auto writes = pagemap_writes(w.pid, memory_);
  Status s = writes->arm();
  EXPECT_EQ(s.code(), Code::unavailable);
  EXPECT_TRUE(s.text().find("LD_PRELOAD") != std::string::npos || s.text().find("6.7") != std::string::npos) << s.text();
}

TEST_F(ProcessorWritesTest, ComparedWithWhatWasCopiedLast) {
  char* guest = static_cast<char*>(::mmap(nullptr, kPages * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0));
  auto writes = compare_writes(memory_);
  ASSERT_TRUE(writes->arm().ok());
  std::vector<std::byte> page(kPage);
  for (std::uint64_t p = 0; p < kPages; ++p) writes->copied(p, memory_->page(p));
  EXPECT_EQ(taken(*writes), Pages{});
  guest[5 * kPage] = 1;
  EXPECT_EQ(taken(*writes), Pages{5});
  std::memcpy(page.data(), memory_->page(5), kPage);
  guest[5 * kPage] = 2;
  writes->copied(5, page.data());  // the copy has 1, memory 2
  EXPECT_EQ(taken(*writes), Pages{5});
  guest[5 * kPage] = 1;            // back to what was copied: nothing to do
  EXPECT_EQ(taken(*writes), Pages{});
  ::munmap(guest, kPages * kPage);
}

}  // namespace
}  // namespace luge::vmstate

int main(int argc, char** argv) {
  if (argc == 3 && std::strcmp(argv[1], "writer") == 0) return luge::vmstate::writer(std::atoi(argv[2]));
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
