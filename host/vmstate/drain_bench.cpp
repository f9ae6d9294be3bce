// What a DMA write record costs its reader, from the ring to the set of dirty pages, in nanoseconds: drain_bench [ROUNDS]. The ring is filled
// between the measured stretches, with records of whole pages scattered over 1 GiB and with runs of 64 KiB.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>

#include "vmstate/device_writes.hpp"

int main(int argc, char** argv) {
  using namespace luge;
  using namespace luge::vmstate;
  constexpr unsigned kSlotsLog2 = 14;
  constexpr std::uint64_t kBytes = 1u << 30;
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 400;
  const int fd = ::memfd_create("guest", MFD_CLOEXEC);
  if (::ftruncate(fd, kBytes) != 0) return 1;
  const MemoryRange range{0, kBytes, 0, fd};
  auto memory = MachineMemory::make({&range, 1}).value();
  for (std::uint32_t length : {4096u, 65536u}) {
    std::vector<card::dma_record> ring(std::size_t{1} << kSlotsLog2);
    PageSet pages(memory->pages());
    DeviceWrites writes(memory, 1, pages);
    writes.begin(ring.data(), kSlotsLog2, false);
    std::mt19937_64 random(1);
    std::uint32_t sequence = 1;
    std::vector<double> each;
    for (int r = 0; r < rounds; ++r) {
      for (std::size_t i = 0; i < ring.size(); ++i, ++sequence)
        ring[sequence & (ring.size() - 1)] = {random() % (kBytes / length) * length, static_cast<std::uint16_t>(length - 1), 0, luge_card::DMA_WRITTEN, sequence};
      const auto begin = std::chrono::steady_clock::now();
      const std::size_t n = writes.drain();
      each.push_back(std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - begin).count() / static_cast<double>(n));
      LUGE_CHECK(n == ring.size());
      pages.clear();
    }
    std::sort(each.begin(), each.end());
    std::printf("records of %u bytes: %.1f ns each in the median of %d rounds, %.1f at best\n", length, each[each.size() / 2], rounds, each[0]);
  }
}
