#include "card/lost_pages.hpp"

#include <signal.h>
#include <sys/mman.h>

#include <array>
#include <mutex>

namespace luge::card {
namespace {

constexpr std::uintptr_t kPage = 4096;

// Slots are only filled and emptied, the owner last and first, so that the handler can read them at any moment.
struct Slot {
  std::atomic<std::uintptr_t> begin, end;
  std::atomic<std::atomic<bool>*> lost;
};
std::array<Slot, 1024> slots;
struct sigaction before;

void handle(int, siginfo_t* info, void*) {
  auto at = reinterpret_cast<std::uintptr_t>(info->si_addr);
  for (Slot& s : slots) {
    std::atomic<bool>* lost = s.lost.load();
    if (lost == nullptr || at < s.begin || at >= s.end) continue;
    void* page = reinterpret_cast<void*>(at & ~(kPage - 1));
    if (::mmap(page, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) break;
    lost->store(true, std::memory_order_relaxed);
    return;
  }
  ::sigaction(SIGBUS, &before, nullptr);  // the access is done again, and ends the process as it would have
}

}  // namespace

bool LostPages::add(void* at, std::uint64_t bytes, std::atomic<bool>* lost) {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction a {};
    a.sa_sigaction = &handle;
    a.sa_flags = SA_SIGINFO | SA_NODEFER;
    ::sigaction(SIGBUS, &a, &before);
  });
  for (Slot& s : slots)
    if (s.lost.load() == nullptr) {
      s.begin = reinterpret_cast<std::uintptr_t>(at), s.end = s.begin + bytes, s.lost = lost;
      return true;
    }
  return false;
}

void LostPages::remove(std::atomic<bool>* lost) {
  for (Slot& s : slots)
    if (s.lost.load() == lost) s.lost = nullptr;
}

}  // namespace luge::card
