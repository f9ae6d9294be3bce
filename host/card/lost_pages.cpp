#include "card/lost_pages.hpp"

#include <linux/magic.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/statfs.h>

#include <array>
#include <bit>
#include <mutex>

namespace luge::card {
namespace {

constexpr std::uintptr_t kPage = 4096;

// Slots are only filled and emptied, the owner last and first, so that the handler can read them at any moment.
struct Slot {
  std::atomic<std::uintptr_t> begin, end, page;
  std::atomic<std::atomic<bool>*> lost;
};
std::array<Slot, 1024> slots;
struct sigaction before;

void handle(int, siginfo_t* info, void*) {
  auto at = reinterpret_cast<std::uintptr_t>(info->si_addr);
  for (Slot& s : slots) {
    std::atomic<bool>* lost = s.lost.load();
    if (lost == nullptr || at < s.begin || at >= s.end) continue;
    const std::uintptr_t bytes = s.page;
    void* page = reinterpret_cast<void*>(at & ~(bytes - 1));
    if (::mmap(page, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) break;
    lost->store(true, std::memory_order_relaxed);
    return;
  }
  ::sigaction(SIGBUS, &before, nullptr);  // the access is done again, and ends the process as it would have
}

// Part of a huge page cannot be mapped anew.
std::uintptr_t page_of(int fd) {
  struct statfs fs {};
  const bool huge = ::fstatfs(fd, &fs) == 0 && fs.f_type == HUGETLBFS_MAGIC && fs.f_bsize > 0 && std::has_single_bit(static_cast<std::uintptr_t>(fs.f_bsize));
  return huge ? static_cast<std::uintptr_t>(fs.f_bsize) : kPage;
}

}  // namespace

bool LostPages::add(void* at, std::uint64_t bytes, int fd, std::atomic<bool>* lost) {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction a {};
    a.sa_sigaction = &handle;
    a.sa_flags = SA_SIGINFO | SA_NODEFER;
    ::sigaction(SIGBUS, &a, &before);
  });
  const std::uintptr_t page = page_of(fd);
  for (Slot& s : slots)
    if (s.lost.load() == nullptr) {
      s.begin = reinterpret_cast<std::uintptr_t>(at), s.end = s.begin + bytes, s.page = page, s.lost = lost;
      return true;
    }
  return false;
}

void LostPages::remove(std::atomic<bool>* lost) {
  for (Slot& s : slots)
    if (s.lost.load() == lost) s.lost = nullptr;
}

}  // namespace luge::card
