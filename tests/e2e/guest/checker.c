// The guest's load: self-describing 4 KiB blocks, written and read back past the page cache by several workers, each with blocks of its own.
// checker DEVICE BYTES SECONDS WORKERS: a block read must be of the generation written last; neither an older one (a write lost, or done
// again after a newer one) nor anything else. Blocks are read into the slots of a pool that nothing but the device writes; what a slot
// holds is checked again before the next read into it, long after: a page that a migration forgot is found there. Prints one line a second,
// and RESULT at the end. With a fifth argument, 1, the workers only read, and compare nothing: how many reads a second there are.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <sys/wait.h>

enum { BLOCK = 4096, WORDS = BLOCK / 8, SLOTS = 800 };
struct totals { volatile uint64_t reads, writes, bad, errors; } *totals;

static uint64_t mix(uint64_t x) { x ^= x >> 31, x *= 0x9e3779b97f4a7c15ull, x ^= x >> 29, x *= 0xbf58476d1ce4e5b9ull; return x ^ x >> 32; }
static uint64_t word(uint64_t block, uint64_t generation, int i) { return mix(block * 1000003 + generation * 7919 + (uint64_t)i); }
static void fill(uint64_t *b, uint64_t block, uint64_t generation) {
  for (int i = 0; i < WORDS; i++) b[i] = word(block, generation, i);
  b[0] = block, b[1] = generation;
}
static int right(const uint64_t *b, uint64_t block, uint64_t generation) {
  if (generation == 0) return 1;  // never written here
  if (b[0] != block || b[1] != generation) return 0;
  for (int i = 2; i < WORDS; i++) if (b[i] != word(block, generation, i)) return 0;
  return 1;
}

static void worker(int fd, int me, int workers, uint64_t blocks, time_t end) {
  uint64_t *out = aligned_alloc(BLOCK, BLOCK), *pool = mmap(NULL, (size_t)SLOTS * BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  static struct { uint64_t block; uint32_t generation; } holds[SLOTS];
  uint64_t mine = blocks / (uint64_t)workers, state = (uint64_t)me * 77 + 1;
  uint32_t *generation = calloc(mine, 4);
  while (time(NULL) < end) {
    uint64_t n = mix(state++) % mine, block = n * (uint64_t)workers + (uint64_t)me, slot = mix(state + 99) % SLOTS, *b = pool + slot * WORDS;
    if (!right(b, holds[slot].block, holds[slot].generation)) {
      __atomic_fetch_add(&totals->bad, 1, __ATOMIC_RELAXED);
      printf("BAD slot: not generation %u of block %llu any more\n", holds[slot].generation, (unsigned long long)holds[slot].block);
    }
    holds[slot].generation = 0;
    if (pread(fd, b, BLOCK, (off_t)(block * BLOCK)) != BLOCK) { __atomic_fetch_add(&totals->errors, 1, __ATOMIC_RELAXED); continue; }
    __atomic_fetch_add(&totals->reads, 1, __ATOMIC_RELAXED);
    if (!right(b, block, generation[n])) {
      __atomic_fetch_add(&totals->bad, 1, __ATOMIC_RELAXED);
      printf("BAD block %llu: generation %llu of block %llu instead of %u\n", (unsigned long long)block, (unsigned long long)b[1], (unsigned long long)b[0], generation[n]);
    }
    holds[slot].block = block, holds[slot].generation = generation[n];
    if (generation[n] != 0 && state % 4 != 0) continue;
    fill(out, block, generation[n] + 1);
    if (pwrite(fd, out, BLOCK, (off_t)(block * BLOCK)) != BLOCK) { __atomic_fetch_add(&totals->errors, 1, __ATOMIC_RELAXED); continue; }
    generation[n]++;
    __atomic_fetch_add(&totals->writes, 1, __ATOMIC_RELAXED);
  }
  for (int i = 0; i < SLOTS; i++) if (!right(pool + (uint64_t)i * WORDS, holds[i].block, holds[i].generation)) __atomic_fetch_add(&totals->bad, 1, __ATOMIC_RELAXED);
  uint64_t *b = out;
  for (uint64_t n = 0; n < mine; n++) {
    uint64_t block = n * (uint64_t)workers + (uint64_t)me;
    if (generation[n] == 0) continue;
    if (pread(fd, b, BLOCK, (off_t)(block * BLOCK)) != BLOCK) __atomic_fetch_add(&totals->errors, 1, __ATOMIC_RELAXED);
    else if (!right(b, block, generation[n])) __atomic_fetch_add(&totals->bad, 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&totals->reads, 1, __ATOMIC_RELAXED);
  }
  exit(0);
}

static void reader(int fd, int me, uint64_t blocks, time_t end) {
  void *into = aligned_alloc(BLOCK, BLOCK);
  for (uint64_t state = (uint64_t)me * 77 + 1; time(NULL) < end; state++)
    __atomic_fetch_add(pread(fd, into, BLOCK, (off_t)(mix(state) % blocks * BLOCK)) == BLOCK ? &totals->reads : &totals->errors, 1, __ATOMIC_RELAXED);
  exit(0);
}

int main(int argc, char **argv) {
  if (argc != 5 && argc != 6) return 2;
  int only_reads = argc == 6 && atoi(argv[5]) == 1;
  int fd = open(argv[1], O_RDWR | O_DIRECT), workers = atoi(argv[4]);
  if (fd < 0) return perror(argv[1]), 1;
  uint64_t blocks = strtoull(argv[2], NULL, 10) / BLOCK;
  time_t end = time(NULL) + atoi(argv[3]);
  totals = mmap(NULL, BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  setvbuf(stdout, NULL, _IOLBF, 0);
  for (int i = 0; i < workers; i++) if (fork() == 0) only_reads ? reader(fd, i, blocks, end) : worker(fd, i, workers, blocks, end);
  int left = workers;
  while (left > 0) {
    while (left > 0 && waitpid(-1, NULL, WNOHANG) > 0) left--;
    printf("LOAD reads=%llu writes=%llu bad=%llu errors=%llu\n", (unsigned long long)totals->reads, (unsigned long long)totals->writes, (unsigned long long)totals->bad, (unsigned long long)totals->errors);
    if (left > 0) sleep(1);
  }
  printf("RESULT reads=%llu writes=%llu bad=%llu errors=%llu\n", (unsigned long long)totals->reads, (unsigned long long)totals->writes, (unsigned long long)totals->bad, (unsigned long long)totals->errors);
  return totals->bad + totals->errors != 0;
}
