#include "sim/xrt/memory.hpp"

#include <sys/mman.h>
#include <unistd.h>

namespace luge::xrt_sim {

Memory::~Memory() {
  while (!areas_.empty()) free(areas_.begin()->first);
}

bool Memory::allocate(std::uint64_t address, std::uint64_t bytes) {
  if (bytes == 0) bytes = 64;
  std::uint64_t size = (bytes + 4095) & ~std::uint64_t{4095};  // whole pages, so that a map of it has no end within one
  auto next = areas_.lower_bound(address);
  if (next != areas_.end() && next->first - address < bytes) return false;
  if (next != areas_.begin() && address - std::prev(next)->first < std::prev(next)->second.size) return false;
  Area a;
  a.fd = ::memfd_create("luge-card", MFD_CLOEXEC);
  if (a.fd < 0) return false;
  void* p = ::ftruncate(a.fd, static_cast<off_t>(size)) == 0 ? ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, a.fd, 0) : MAP_FAILED;
  if (p == MAP_FAILED) {
    ::close(a.fd);
    return false;
  }
  a.begin = address, a.size = bytes, a.data = static_cast<std::uint8_t*>(p);
  areas_[address] = a;
  return true;
}

bool Memory::free(std::uint64_t address) {
  auto it = areas_.find(address);
  if (it == areas_.end()) return false;
  ::munmap(it->second.data, (it->second.size + 4095) & ~std::uint64_t{4095});
  ::close(it->second.fd);
  areas_.erase(it);
  last_ = {};
  return true;
}

std::string Memory::file_of(std::uint64_t address) const {
  auto it = areas_.find(address);
  return it == areas_.end() ? "" : "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(it->second.fd);
}

bool Memory::find(std::uint64_t address, std::uint64_t length) {
  auto it = areas_.upper_bound(address);
  if (it == areas_.begin()) return false;
  const Area& a = std::prev(it)->second;
  if (address - a.begin >= a.size || length > a.size - (address - a.begin)) return false;
  last_ = a;
  return true;
}

}  // namespace luge::xrt_sim
