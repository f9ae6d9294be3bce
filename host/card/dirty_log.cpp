#include "card/dirty_log.hpp"

#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "card/lost_pages.hpp"

namespace luge::card {

Result<std::unique_ptr<DirtyLog>> DirtyLog::map(int fd, std::uint64_t offset, std::uint64_t bytes) {
  struct stat st {};
  if (bytes == 0 || bytes > 1ull << 40 || offset > 1ull << 40) return Status(Code::invalid, "dirty log of " + std::to_string(bytes) + " bytes at " + std::to_string(offset));
  if (::fstat(fd, &st) != 0 || static_cast<std::uint64_t>(st.st_size) < offset + bytes) return Status(Code::invalid, "the dirty log reaches beyond its file");
  std::unique_ptr<DirtyLog> log(new DirtyLog());
  log->mapped_bytes_ = offset + bytes, log->bytes_ = bytes;
  void* p = ::mmap(nullptr, log->mapped_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (p == MAP_FAILED) return Status(Code::invalid, std::string("the dirty log cannot be mapped: ") + std::strerror(errno));
  log->mapped_ = p;
  if (!LostPages::add(p, log->mapped_bytes_, fd, &log->lost_)) return Status(Code::unavailable, "too much is mapped");
  log->bits_ = static_cast<std::uint8_t*>(p) + offset;
  return log;
}

DirtyLog::~DirtyLog() {
  LostPages::remove(&lost_);
  if (mapped_ != nullptr) ::munmap(mapped_, mapped_bytes_);
}

bool DirtyLog::mark(std::uint64_t address, std::uint64_t bytes) {
  if (bytes == 0) return true;
  std::uint64_t first = address / 4096, last = (address + bytes - 1) / 4096;
  for (std::uint64_t page = first; page <= last; ++page) {
    if (page / 8 >= bytes_) return false;
    __atomic_fetch_or(&bits_[page / 8], static_cast<std::uint8_t>(1u << (page % 8)), __ATOMIC_SEQ_CST);
  }
  return true;
}

}  // namespace luge::card
