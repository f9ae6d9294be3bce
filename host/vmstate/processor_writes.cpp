#include "vmstate/processor_writes.hpp"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "switches/switches.hpp"

namespace luge::vmstate {
namespace {

// The kernel's interface since 6.7 (ioctl_pagemap_scan(2)); the headers of Debian 12 are older.
struct ScanRegion {
  std::uint64_t start, end, categories;
};
struct ScanArguments {
  std::uint64_t size, flags, start, end, walk_end, regions, regions_length, most_pages, inverted, mask, any_of, returned;
};
static_assert(sizeof(ScanArguments) == 96);
constexpr unsigned long kPagemapScan = _IOWR('f', 16, ScanArguments);
constexpr std::uint64_t kWriteProtectMatching = 1, kCheckAsynchronous = 2, kIsWritten = 2;

struct Mapping {
  std::uint64_t start, end, first_page;
};

class PagemapWrites final : public ProcessorWrites {
 public:
  PagemapWrites(int pid, std::shared_ptr<const MachineMemory> memory) : pid_(pid), memory_(std::move(memory)) {}
  ~PagemapWrites() override {
    if (fd_ >= 0) ::close(fd_);
  }
  const char* kind() const override { return "pagemap"; }

  Status arm() override {
    const std::string process = "/proc/" + std::to_string(pid_);
    if (fd_ < 0) fd_ = ::open((process + "/pagemap").c_str(), O_RDONLY | O_CLOEXEC);
    if (fd_ < 0) return Status(Code::unavailable, process + "/pagemap: " + std::strerror(errno));
    if (Status s = find_mappings(process + "/maps"); !s.ok()) return s;
    PageSet before(memory_->pages());
    return take(before);
  }

  Status take(PageSet& to) override {
    for (const Mapping& m : mappings_)
      if (Status s = scan(m, to); !s.ok()) return s;
    return Status();
  }

 private:
  Status find_mappings(const std::string& path) {
    mappings_.clear();
    std::ifstream maps(path);
    for (std::string line; std::getline(maps, line);) {
      unsigned long long start, end, offset, inode;
      unsigned major_number, minor_number;
      char rights[8];
      if (std::sscanf(line.c_str(), "%llx-%llx %7s %llx %x:%x %llu", &start, &end, rights, &offset, &major_number, &minor_number, &inode) != 7) continue;
      for (const MachineMemory::File& f : memory_->files())
        if (f.inode == inode && f.device == makedev(major_number, minor_number) && rights[1] == 'w') {
          const std::uint64_t most = offset < f.bytes ? f.bytes - offset : 0;
          if (most != 0) mappings_.push_back({start, start + std::min<std::uint64_t>(end - start, most), f.first_page + offset / kPage});
        }
    }
    std::uint64_t bytes = 0;
    for (const Mapping& m : mappings_) bytes += m.end - m.start;
    if (bytes < memory_->pages() * kPage)
      return Status(Code::unavailable, "process " + std::to_string(pid_) + " doesn't have the machine's memory mapped for writing");
    return Status();
  }

  Status scan(const Mapping& m, PageSet& to) {
    ScanRegion regions[512];
    for (std::uint64_t at = m.start; at < m.end;) {
      ScanArguments a{};
      a.size = sizeof a, a.flags = kWriteProtectMatching | kCheckAsynchronous, a.start = at, a.end = m.end;
      a.regions = reinterpret_cast<std::uint64_t>(regions), a.regions_length = std::size(regions);
      a.mask = kIsWritten, a.returned = kIsWritten;
      const int n = ::ioctl(fd_, kPagemapScan, &a);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return refused(errno);
      for (int i = 0; i < n; ++i) to.add(m.first_page + (regions[i].start - m.start) / kPage, (regions[i].end - regions[i].start) / kPage);
      if (a.walk_end <= at) return Status(Code::internal, "PAGEMAP_SCAN doesn't get on");
      at = a.walk_end;
    }
    return Status();
  }

  Status refused(int error) const {
    if (error == ENOTTY || error == EINVAL) return Status(Code::unavailable, "this kernel has no PAGEMAP_SCAN (Linux 6.7 has)");
    if (error == EPERM)
      return Status(Code::unavailable, "writes of process " + std::to_string(pid_) + " are not tracked: start QEMU with LD_PRELOAD=luge-dirty-shim.so");
    return Status(Code::io_error, std::string("PAGEMAP_SCAN: ") + std::strerror(error));
  }

  const int pid_;
  std::shared_ptr<const MachineMemory> memory_;
  int fd_ = -1;
  std::vector<Mapping> mappings_;
};

class CompareWrites final : public ProcessorWrites {
 public:
  explicit CompareWrites(std::shared_ptr<const MachineMemory> memory) : memory_(std::move(memory)), known_(memory_->pages()) {}
  const char* kind() const override { return "compare"; }
  Status arm() override {
    copies_ = std::make_unique_for_overwrite<std::byte[]>(memory_->pages() * kPage);
    known_.clear();
    return Status();
  }
  Status take(PageSet& to) override {
    known_.for_each([&](std::uint64_t p) {
      if (std::memcmp(copies_.get() + p * kPage, memory_->page(p), kPage) != 0) to.add(p);
    });
    return Status();
  }
  void copied(std::uint64_t page, const std::byte* content) override {
    if (page >= memory_->pages()) return;
    std::memcpy(copies_.get() + page * kPage, content, kPage);
    known_.add(page);
  }

 private:
  std::shared_ptr<const MachineMemory> memory_;
  PageSet known_;
  std::unique_ptr<std::byte[]> copies_;
};

}  // namespace

std::unique_ptr<ProcessorWrites> pagemap_writes(int pid, std::shared_ptr<const MachineMemory> memory) {
  return std::make_unique<PagemapWrites>(pid, std::move(memory));
}
std::unique_ptr<ProcessorWrites> compare_writes(std::shared_ptr<const MachineMemory> memory) { return std::make_unique<CompareWrites>(std::move(memory)); }

}  // namespace luge::vmstate
