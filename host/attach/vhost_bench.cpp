// vhost-bench SOCKET read|write SECONDS [DEPTH] [BYTES]: random 4 KiB requests at a depth, as a guest makes them, over vhost-user-blk. Prints a JSON
// object: requests a second, and mean time of one. The guest is this process: no emulated processor is in the figures.
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "attach/vhost_front_end.hpp"

int main(int argc, char** argv) {
  using namespace luge::attach;
  using namespace luge::attach::testing;
  if (argc < 4) return std::fprintf(stderr, "usage: vhost-bench SOCKET read|write SECONDS [DEPTH] [BYTES]\n"), 2;
  const bool reads = argv[2][0] == 'r';
  const double seconds = std::atof(argv[3]);
  const unsigned depth = argc > 4 ? static_cast<unsigned>(std::atoi(argv[4])) : 32;
  const std::uint64_t bytes = argc > 5 ? std::strtoull(argv[5], nullptr, 10) : 64u << 20;
  int fd = FrontEnd::connect(argv[1]);
  if (fd < 0) return std::perror(argv[1]), 1;
  Driver d(256);
  FrontEnd f(fd);
  if (!f.start(d, 1ull << 32 | 1ull << 28 | 1ull << 29)) return std::fprintf(stderr, "the disk does not answer\n"), 1;
  std::mt19937_64 random(1);
  std::uint64_t done = 0, errors = 0;
  std::vector<unsigned> places;
  for (unsigned i = 0; i < depth; ++i) places.push_back(i);
  std::map<std::uint16_t, unsigned> place_of;
  auto submit = [&] {
    unsigned p = places.back();
    places.pop_back();
    std::uint16_t head = d.submit(reads ? 0 : 1, random() % (bytes / 4096) * 8, {{Driver::kData + 4096ull * p, 4096}}, reads, true);
    place_of[head] = p;
  };
  auto begin = std::chrono::steady_clock::now();
  auto elapsed = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(); };
  while (elapsed() < seconds) {
    const std::uint16_t before = d.next;
    while (!places.empty()) submit();
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    auto event = d.get<std::uint16_t>(d.place.used + 4 + 8ull * d.entries);
    if (static_cast<std::uint16_t>(d.next - event - 1) < static_cast<std::uint16_t>(d.next - before)) f.notify();
    d.put<std::uint16_t>(d.place.available + 4 + 2ull * d.entries, d.seen);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    auto ended = d.ended();
    if (ended.empty()) {
      if (!f.wait(10000)) return std::fprintf(stderr, "no interrupt for 10 s\n"), 1;
      ended = d.ended();
    }
    for (auto& [head, n] : ended) {
      errors += d.status(head) != 0;
      places.push_back(place_of[head]);
    }
    done += ended.size();
  }
  double t = elapsed();
  std::printf("{\"iops\":%.0f,\"mean_us\":%.1f,\"requests\":%llu,\"errors\":%llu}\n", static_cast<double>(done) / t, t * 1e6 * depth / static_cast<double>(done),
              static_cast<unsigned long long>(done), static_cast<unsigned long long>(errors));
  return errors != 0;
}
