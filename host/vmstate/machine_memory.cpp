#include "vmstate/machine_memory.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace luge::vmstate {
namespace {

std::string hex(std::uint64_t v) {
  char text[32];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(v));
  return text;
}

}  // namespace

Result<std::shared_ptr<MachineMemory>> MachineMemory::make(std::span<const MemoryRange> table) {
  std::shared_ptr<MachineMemory> m(new MachineMemory());
  std::vector<MemoryRange> sorted(table.begin(), table.end());
  std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.address < b.address; });
  for (const MemoryRange& r : sorted) {
    struct stat st {};
    if (::fstat(r.fd, &st) != 0) return Status(Code::io_error, std::string("guest memory: ") + std::strerror(errno));
    const auto size = static_cast<std::uint64_t>(st.st_size);
    if ((r.address | r.bytes | r.offset | size) % kPage != 0 || r.bytes == 0 || r.offset > size || r.bytes > size - r.offset)
      return Status(Code::invalid, "guest memory: " + hex(r.bytes) + " bytes at " + hex(r.address) + " are not whole pages of their file of " + hex(size) + " bytes");
    if (!m->ranges_.empty() && m->ranges_.back().address + m->ranges_.back().bytes > r.address)
      return Status(Code::invalid, "guest memory: two ranges overlap at " + hex(r.address));
    auto file = std::find_if(m->files_.begin(), m->files_.end(), [&](const File& f) { return f.device == st.st_dev && f.inode == st.st_ino; });
    if (file == m->files_.end()) {
      const int fd = ::fcntl(r.fd, F_DUPFD_CLOEXEC, 0);
      void* p = fd < 0 ? MAP_FAILED : ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
      if (p == MAP_FAILED) {
        Status why(Code::io_error, std::string("guest memory cannot be mapped: ") + std::strerror(errno));
        if (fd >= 0) ::close(fd);
        return why;
      }
      m->files_.push_back({fd, st.st_dev, st.st_ino, size, m->pages_, static_cast<const std::byte*>(p)});
      m->pages_ += size / kPage;
      file = std::prev(m->files_.end());
    }
    m->ranges_.push_back({r.address, r.bytes, file->first_page + r.offset / kPage});
  }
  if (m->pages_ == 0) return Status(Code::invalid, "the machine has no memory that is shared with its devices: QEMU needs a memory backend with share=on");
  return m;
}

MachineMemory::~MachineMemory() {
  for (const File& f : files_) {
    ::munmap(const_cast<std::byte*>(f.data), f.bytes);
    ::close(f.fd);
  }
}

const std::byte* MachineMemory::page(std::uint64_t number) const {
  for (const File& f : files_)
    if (number >= f.first_page && number - f.first_page < f.bytes / kPage) return f.data + (number - f.first_page) * kPage;
  LUGE_CHECK(!"a page of this machine");
  return nullptr;
}

bool MachineMemory::add(std::uint64_t address, std::uint64_t bytes, PageSet& to) const {
  if (bytes == 0) return true;
  std::uint64_t at = address;
  const std::uint64_t last = address + bytes - 1 < address ? ~std::uint64_t{0} : address + bytes - 1;
  for (const Range& r : ranges_) {
    const std::uint64_t range_last = r.address + r.bytes - 1;
    if (range_last < at) continue;
    if (r.address > at) return false;
    const std::uint64_t end = std::min(last, range_last);
    const std::uint64_t first = (at - r.address) / kPage;
    to.add(r.first_page + first, (end - r.address) / kPage - first + 1);
    if (end == last) return true;
    at = end + 1;
  }
  return false;
}

}  // namespace luge::vmstate
