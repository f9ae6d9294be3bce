// What a DMA write record costs between device and dirty set, in nanoseconds: drain_bench [ROUNDS] [--json]. `ring`: putting it into its slot as
// the DMA path does; `drain`: from the ring to the set of dirty pages. Records are of whole pages scattered over 1 GiB, and of runs of 64 KiB.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>

#include "vmstate/device_writes.hpp"

namespace {

using namespace luge;
using namespace luge::vmstate;

constexpr unsigned kSlotsLog2 = 14;
constexpr std::uint64_t kBytes = 1u << 30;

struct Cost {
  double ring = 0, drain = 0;
};

double median(std::vector<double>& v) {
  std::nth_element(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2), v.end());
  return v[v.size() / 2];
}

Cost measure(std::shared_ptr<MachineMemory> memory, std::uint32_t length, int rounds) {
  constexpr std::size_t kSlots = std::size_t{1} << kSlotsLog2;
  std::vector<card::dma_record> ring(kSlots), records(kSlots);
  PageSet pages(memory->pages());
  DeviceWrites writes(memory, 1, pages);
  writes.begin(ring.data(), kSlotsLog2, false);
  std::mt19937_64 random(1);
  std::uint32_t sequence = 1;
  std::vector<double> put, drained;
  auto each = [](auto begin) { return std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - begin).count() / static_cast<double>(kSlots); };
  for (int r = 0; r < rounds; ++r) {
    for (card::dma_record& d : records) d = {random() % (kBytes / length) * length, static_cast<std::uint16_t>(length - 1), 0, luge_card::DMA_WRITTEN, 0};
    auto begin = std::chrono::steady_clock::now();
    for (card::dma_record& d : records) {
      d.sequence = sequence++;
      card::dma_record* slot = &ring[d.sequence & (kSlots - 1)];
      std::memcpy(static_cast<void*>(slot), &d, offsetof(card::dma_record, sequence));
      __atomic_store_n(&slot->sequence, d.sequence, __ATOMIC_RELEASE);
    }
    put.push_back(each(begin));
    begin = std::chrono::steady_clock::now();
    const std::size_t n = writes.drain();
    drained.push_back(each(begin));
    LUGE_CHECK(n == kSlots);
    pages.clear();
  }
  return {median(put), median(drained)};
}

}  // namespace

int main(int argc, char** argv) {
  int rounds = 400;
  bool json = false;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--json") == 0) json = true;
    else rounds = std::max(1, std::atoi(argv[i]));
  }
  const int fd = ::memfd_create("guest", MFD_CLOEXEC);
  if (::ftruncate(fd, kBytes) != 0) return 1;
  const MemoryRange range{0, kBytes, 0, fd};
  auto memory = MachineMemory::make({&range, 1}).value();
  const Cost pages = measure(memory, 4096, rounds), runs = measure(memory, 65536, rounds);
  if (json) std::printf("{\"pages\": {\"ring_ns\": %.2f, \"drain_ns\": %.2f}, \"runs\": {\"ring_ns\": %.2f, \"drain_ns\": %.2f}}\n", pages.ring, pages.drain, runs.ring, runs.drain);
  else std::printf("a record of a page: %.1f ns ring, %.1f ns drain; of 64 KiB: %.1f ns ring, %.1f ns drain (medians of %d rounds)\n", pages.ring, pages.drain, runs.ring, runs.drain, rounds);
}
