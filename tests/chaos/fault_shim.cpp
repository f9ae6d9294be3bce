// LD_PRELOAD: disks that fail, fill up or are slow, without root and without a device mapper. File I/O of a daemon that runs
// with LUGE_NO_IO_URING=1 goes through these calls; which of it goes wrong, and how, stands in the file that LUGE_FAULTS
// names, read anew whenever it has changed. A line each:
//   WORD PATH VERB PROBABILITY
// WORD: read, write, sync or any; PATH: part of a file's path; VERB: eio, enospc, or delay=MILLISECONDS.
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <random>
#include <string>
#include <vector>

namespace {

struct Rule {
  std::string word, path;
  int error = 0;
  long delay_ms = 0;
  double probability = 1;
};

std::mutex guard;
std::vector<Rule> rules;
timespec rules_of{};
ino_t rules_inode = 0;

// Called with `guard` held.
void refresh() {
  const char* file = ::getenv("LUGE_FAULTS");
  struct stat s;
  if (file == nullptr || ::stat(file, &s) != 0) return rules.clear();
  if (s.st_ino == rules_inode && s.st_mtim.tv_sec == rules_of.tv_sec && s.st_mtim.tv_nsec == rules_of.tv_nsec) return;
  rules_of = s.st_mtim;
  rules_inode = s.st_ino;
  rules.clear();
  std::FILE* f = std::fopen(file, "r");
  if (f == nullptr) return;
  char word[16], path[512], verb[64];
  double probability;
  while (std::fscanf(f, "%15s %511s %63s %lf", word, path, verb, &probability) == 4) {
    Rule r{word, path, 0, 0, probability};
    if (std::strcmp(verb, "eio") == 0) r.error = EIO;
    else if (std::strcmp(verb, "enospc") == 0) r.error = ENOSPC;
    else if (std::strncmp(verb, "delay=", 6) == 0) r.delay_ms = std::atol(verb + 6);
    rules.push_back(r);
  }
  std::fclose(f);
}

// 0, or the error that the call shall end with. Waits if it shall be slow.
int judge(const char* word, int fd) {
  int saved = errno, error = 0;
  long delay = 0;
  {
    std::lock_guard lock(guard);
    refresh();
    if (rules.empty()) {
      errno = saved;
      return 0;
    }
    char link[64], path[1024];
    std::snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = ::readlink(link, path, sizeof path - 1);
    path[n < 0 ? 0 : n] = 0;
    static std::minstd_rand random{std::random_device{}()};
    for (const Rule& r : rules) {
      if ((r.word != "any" && r.word != word) || std::strstr(path, r.path.c_str()) == nullptr) continue;
      if (std::uniform_real_distribution<>()(random) >= r.probability) continue;
      if (r.error != 0) error = r.error;
      delay += r.delay_ms;
    }
  }
  if (delay != 0) {
    timespec t{delay / 1000, delay % 1000 * 1000000};
    ::nanosleep(&t, nullptr);
  }
  errno = saved;
  return error;
}

template <class F>
F next(const char* name) {
  return reinterpret_cast<F>(::dlsym(RTLD_NEXT, name));
}

}  // namespace

#define LUGE_SHIM(word, result, name, parameters, arguments)            \
  extern "C" result name parameters {                                   \
    static auto real = next<result(*) parameters>(#name);               \
    if (int e = judge(word, fd); e != 0) return errno = e, result(-1);  \
    return real arguments;                                              \
  }

LUGE_SHIM("read", ssize_t, pread64, (int fd, void* b, size_t n, off64_t at), (fd, b, n, at))
LUGE_SHIM("read", ssize_t, pread, (int fd, void* b, size_t n, off_t at), (fd, b, n, at))
LUGE_SHIM("read", ssize_t, preadv, (int fd, const iovec* v, int n, off_t at), (fd, v, n, at))
LUGE_SHIM("read", ssize_t, preadv2, (int fd, const iovec* v, int n, off_t at, int flags), (fd, v, n, at, flags))
LUGE_SHIM("write", ssize_t, pwrite64, (int fd, const void* b, size_t n, off64_t at), (fd, b, n, at))
LUGE_SHIM("write", ssize_t, pwrite, (int fd, const void* b, size_t n, off_t at), (fd, b, n, at))
LUGE_SHIM("write", ssize_t, pwritev, (int fd, const iovec* v, int n, off_t at), (fd, v, n, at))
LUGE_SHIM("write", ssize_t, pwritev2, (int fd, const iovec* v, int n, off_t at, int flags), (fd, v, n, at, flags))
LUGE_SHIM("sync", int, fsync, (int fd), (fd))
LUGE_SHIM("sync", int, fdatasync, (int fd), (fd))
