// What runs in the guest (static, beside busybox) and finds every page and block that isn't what it was: a reader whose memory only the disk
// writes, and a writer that flushes after each write.
//
//   guest-check fill FILE BYTES       the read area: every 4 KiB block describes itself (on the host)
//   guest-check run DEVICE BYTES MIB  forever: 64 KiB reads of [0, BYTES) into a pool of MIB; writes behind BYTES. A line each second:
//                                     "check SECOND reads R writes W passes P bad B"
//
// Reader: a slot of the pool is looked at again before it is read over, and the whole pool every 3 s; its pages are written by DMA alone.
// Writer: block n gets generation g, then fdatasync; memory says which generation each block has, and a block of another one is bad: the
// disk is older or newer than memory.
#include <fcntl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

constexpr std::uint64_t kBlock = 4096, kRead = 65536, kWritten = 256;

std::uint64_t mix(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ x >> 27) * 0x94d049bb133111ebull;
  return x ^ x >> 31;
}
void describe(std::uint64_t* words, std::uint64_t id) {
  words[0] = id;
  std::uint64_t v = mix(id);
  for (int i = 1; i < 512; ++i) words[i] = v = v * 6364136223846793005ull + 1442695040888963407ull;
}
// Against the whole block, made anew for each id.
bool describes(const std::uint64_t* words, std::uint64_t id) {
  if (words[0] != id) return false;
  static std::uint64_t expected[512];
  static std::uint64_t of = ~0ull;
  if (of != id) describe(expected, id), of = id;
  return std::memcmp(words, expected, kBlock) == 0;
}
double now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

int fill(const char* path, std::uint64_t bytes) {
  const int fd = open(path, O_WRONLY | O_CREAT, 0600);
  static std::uint64_t block[512];
  for (std::uint64_t b = 0; b < bytes / kBlock; ++b) {
    describe(block, b);
    if (pwrite(fd, block, kBlock, static_cast<off_t>(b * kBlock)) != static_cast<ssize_t>(kBlock)) return perror(path), 1;
  }
  return 0;
}

struct Check {
  int fd = -1;
  std::uint64_t area = 0, slots = 0;
  std::uint8_t* pool = nullptr;
  std::int64_t* holds = nullptr;          // what a slot was read from; -1: nothing
  std::uint64_t generation[kWritten] = {};
  std::uint64_t reads = 0, writes = 0, passes = 0, bad = 0, seed = 1;
  std::uint64_t* block = nullptr;

  void complain(const char* what, std::uint64_t a, std::uint64_t b, std::uint64_t c) {
    if (++bad <= 20) std::printf("bad %s %llu: %llu, not %llu\n", what, (unsigned long long)a, (unsigned long long)b, (unsigned long long)c);
  }
  void verify(std::uint64_t slot) {
    if (holds[slot] < 0) return;
    for (std::uint64_t i = 0; i < kRead / kBlock; ++i) {
      const auto* words = reinterpret_cast<std::uint64_t*>(pool + slot * kRead + i * kBlock);
      const std::uint64_t id = static_cast<std::uint64_t>(holds[slot]) * (kRead / kBlock) + i;
      if (!describes(words, id)) complain("block in memory", id, words[0], id);
    }
  }
  void read_one() {
    seed = mix(seed);
    const std::uint64_t slot = seed % slots, from = (seed >> 32) % (area / kRead);
    verify(slot);
    if (pread(fd, pool + slot * kRead, kRead, static_cast<off_t>(from * kRead)) != static_cast<ssize_t>(kRead)) complain("read", from, 0, 0);
    holds[slot] = static_cast<std::int64_t>(from);
    verify(slot);
    ++reads;
  }
  std::uint64_t place(std::uint64_t n) const { return area + n * kBlock; }
  void write_one() {
    const std::uint64_t n = mix(writes ^ 77) % kWritten;
    if (pread(fd, block, kBlock, static_cast<off_t>(place(n))) != static_cast<ssize_t>(kBlock)) complain("read", n, 0, 0);
    const std::uint64_t expected = generation[n] == 0 ? 0 : generation[n] << 16 | n;
    if (generation[n] != 0 && !describes(block, expected)) complain("block on the disk", n, block[0] >> 16, generation[n]);
    describe(block, (++writes) << 16 | n);
    generation[n] = writes;
    if (pwrite(fd, block, kBlock, static_cast<off_t>(place(n))) != static_cast<ssize_t>(kBlock) || fdatasync(fd) != 0) complain("write", n, 0, 0);
  }
  void all() {
    for (std::uint64_t s = 0; s < slots; ++s) verify(s);
    ++passes;
  }
};

int run(const char* path, std::uint64_t area, std::uint64_t mib) {
  Check c;
  c.fd = open(path, O_RDWR | O_DIRECT);
  if (c.fd < 0) return perror(path), 1;
  c.area = area, c.slots = mib * (1 << 20) / kRead;
  c.pool = static_cast<std::uint8_t*>(mmap(nullptr, c.slots * kRead, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0));
  c.block = static_cast<std::uint64_t*>(mmap(nullptr, kBlock, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0));
  c.holds = static_cast<std::int64_t*>(malloc(c.slots * sizeof(std::int64_t)));
  for (std::uint64_t i = 0; i < c.slots; ++i) c.holds[i] = -1;
  setvbuf(stdout, nullptr, _IOLBF, 0);
  double said = now(), looked = said;
  for (unsigned second = 0;;) {
    for (int i = 0; i < 8; ++i) c.read_one();
    c.write_one();
    const double t = now();
    if (t - looked > 3) c.all(), looked = now();
    if (t - said < 1) continue;
    said = t;
    std::printf("check %u reads %llu writes %llu passes %llu bad %llu\n", ++second, (unsigned long long)c.reads, (unsigned long long)c.writes, (unsigned long long)c.passes,
                (unsigned long long)c.bad);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 4 && std::strcmp(argv[1], "fill") == 0) return fill(argv[2], std::strtoull(argv[3], nullptr, 0));
  if (argc == 5 && std::strcmp(argv[1], "run") == 0) return run(argv[2], std::strtoull(argv[3], nullptr, 0), std::strtoull(argv[4], nullptr, 0));
  std::fprintf(stderr, "usage: guest-check fill FILE BYTES | run DEVICE BYTES MIB\n");
  return 2;
}
