// A front end's dirty log in a test.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "base/check.hpp"
#include "card/dirty_log.hpp"

namespace luge::card::testing {

/// A front end's dirty log: a bit a page, in a memfd.
class Log {
 public:
  explicit Log(std::uint64_t memory) : bytes(memory / 4096 / 8), fd(::memfd_create("log", MFD_CLOEXEC)) {
    LUGE_CHECK(::ftruncate(fd, static_cast<off_t>(bytes)) == 0);
    bits_ = static_cast<std::uint8_t*>(::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  }
  ~Log() {
    ::munmap(bits_, bytes);
    ::close(fd);
  }
  Log(const Log&) = delete;
  std::unique_ptr<DirtyLog> map() const { return std::move(DirtyLog::map(fd, 0, bytes).value()); }
  bool has(std::uint64_t page) const { return (__atomic_load_n(&bits_[page / 8], __ATOMIC_ACQUIRE) >> (page % 8) & 1) != 0; }
  std::uint64_t count() const {
    std::uint64_t n = 0;
    for (std::uint64_t p = 0; p < bytes * 8; ++p) n += has(p);
    return n;
  }
  void clear() { std::memset(bits_, 0, bytes); }
  const std::uint64_t bytes;
  const int fd;

 private:
  std::uint8_t* bits_;
};

}  // namespace luge::card::testing
