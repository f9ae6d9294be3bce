#include "card/guest_memory.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "card/lost_pages.hpp"

namespace luge::card {

namespace {

std::string hex(std::uint64_t v) {
  static const char* digits = "0123456789abcdef";
  std::string s;
  do s.insert(s.begin(), digits[v & 15]);
  while ((v >>= 4) != 0);
  return "0x" + s;
}

Status check(const GuestRegion& r) {
  const std::string what = "memory region at " + hex(r.address) + " of " + hex(r.bytes) + " bytes";
  if (r.bytes == 0 || r.bytes > 1ull << 46) return Status(Code::invalid, what + ": size");
  if ((r.address | r.bytes | r.offset) % kGuestPage != 0) return Status(Code::invalid, what + " is not made of whole pages");
  if (r.address > kGuestEnd - r.bytes) return Status(Code::invalid, what + " lies beyond what a guest can address");
  if (r.address + r.bytes < r.address || r.user + r.bytes < r.user || r.offset + r.bytes < r.offset || r.offset + r.bytes > 1ull << 62)
    return Status(Code::invalid, what + " wraps around");
  struct stat st {};
  if (::fstat(r.fd, &st) != 0) return Status(Code::invalid, what + ": " + std::strerror(errno));
  if (S_ISREG(st.st_mode) && static_cast<std::uint64_t>(st.st_size) < r.offset + r.bytes) return Status(Code::invalid, what + " reaches beyond its file");
  return Status();
}

}  // namespace

Result<std::shared_ptr<GuestMemory>> GuestMemory::map(std::span<const GuestRegion> regions) {
  if (regions.size() > kMostRegions) return Status(Code::invalid, "more than " + std::to_string(kMostRegions) + " memory regions");
  std::vector<GuestRegion> sorted(regions.begin(), regions.end());
  std::sort(sorted.begin(), sorted.end(), [](const GuestRegion& a, const GuestRegion& b) { return a.address < b.address; });
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    if (Status s = check(sorted[i]); !s.ok()) return s;
    if (i > 0 && sorted[i - 1].address + sorted[i - 1].bytes > sorted[i].address) return Status(Code::invalid, "memory regions overlap at " + hex(sorted[i].address));
  }
  std::shared_ptr<GuestMemory> m(new GuestMemory());
  for (GuestRegion r : sorted) {
    void* p = ::mmap(nullptr, r.bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, r.fd, static_cast<off_t>(r.offset));
    if (p == MAP_FAILED) return Status(Code::invalid, "memory region at " + hex(r.address) + " cannot be mapped: " + std::strerror(errno));
    r.fd = ::fcntl(r.fd, F_DUPFD_CLOEXEC, 3);
    m->regions_.push_back(r);
    m->mapped_.push_back(static_cast<std::byte*>(p));
    if (r.fd < 0 || !LostPages::add(m->mapped_.back(), r.bytes, r.fd, &m->lost_)) return Status(Code::unavailable, "too much guest memory is mapped");
  }
  return m;
}

GuestMemory::~GuestMemory() {
  LostPages::remove(&lost_);
  for (std::size_t i = 0; i < mapped_.size(); ++i) {
    ::munmap(mapped_[i], regions_[i].bytes);
    if (regions_[i].fd >= 0) ::close(regions_[i].fd);
  }
}

std::byte* GuestMemory::at(std::uint64_t address, std::uint64_t bytes) const {
  if (bytes == 0) return nullptr;
  for (std::size_t i = 0; i < regions_.size(); ++i) {
    const GuestRegion& r = regions_[i];
    std::uint64_t inside = address - r.address;
    if (inside < r.bytes && bytes <= r.bytes - inside) return mapped_[i] + inside;
  }
  return nullptr;
}

std::uint64_t GuestMemory::room(std::uint64_t address) const {
  for (const GuestRegion& r : regions_)
    if (address - r.address < r.bytes) return r.bytes - (address - r.address);
  return 0;
}

bool GuestMemory::translate(std::uint64_t user, std::uint64_t bytes, std::uint64_t& address) const {
  for (const GuestRegion& r : regions_) {
    std::uint64_t inside = user - r.user;
    if (inside < r.bytes && bytes <= r.bytes - inside) {
      address = r.address + inside;
      return true;
    }
  }
  return false;
}

bool GuestMemory::same_as(const GuestMemory& other) const {
  return std::equal(regions_.begin(), regions_.end(), other.regions_.begin(), other.regions_.end(), [](const GuestRegion& a, const GuestRegion& b) {
    struct stat mine {}, theirs {};
    return a.address == b.address && a.bytes == b.bytes && a.user == b.user && a.offset == b.offset && ::fstat(a.fd, &mine) == 0 && ::fstat(b.fd, &theirs) == 0 &&
           mine.st_dev == theirs.st_dev && mine.st_ino == theirs.st_ino;
  });
}

}  // namespace luge::card
