// luge-dirty-shim.so, preloaded into QEMU: has the kernel note which pages of the guest's memory the process writes.
//
// Only a process can do that to itself: shared file mappings of 1 MiB and more that may be written are registered with userfaultfd for
// asynchronous write protection. The kernel then resolves the faults alone; nobody listens. luge-vmstated reads and clears the notes with
// PAGEMAP_SCAN on /proc/PID/pagemap. Without kernel support (6.7) a line says so and the process goes on as without this file.
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

namespace {

// Not in the headers of Debian 12.
constexpr unsigned long long kShmem = 1ull << 12, kUnpopulated = 1ull << 13, kAsynchronous = 1ull << 15;
constexpr int kUserModeOnly = 1;
constexpr unsigned long kNewFromDevice = _IO(0xAA, 0);
constexpr std::size_t kLeast = 1u << 20;

int open_userfault() {
  int fd = static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK));
  if (fd >= 0) return fd;
  // Without privilege: the device, or faults of user code only, which makes no difference where nobody listens.
  if (int device = ::open("/dev/userfaultfd", O_RDWR | O_CLOEXEC); device >= 0) {
    fd = ::ioctl(device, kNewFromDevice, O_CLOEXEC | O_NONBLOCK);
    ::close(device);
    if (fd >= 0) return fd;
  }
  return static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | kUserModeOnly));
}

int userfault() {
  static const int fd = [] {
    int f = open_userfault();
    uffdio_api api{};
    api.api = UFFD_API, api.features = kShmem | kUnpopulated | kAsynchronous;
    if (f >= 0 && ::ioctl(f, UFFDIO_API, &api) != 0) ::close(f), f = -1;
    if (f < 0) std::fprintf(stderr, "luge-dirty-shim: this kernel doesn't note writes (%s): Linux 6.7 is needed\n", std::strerror(errno));
    return f;
  }();
  return fd;
}

void note_writes(void* at, std::size_t length, int protection, int flags, int fd) {
  if (at == MAP_FAILED || fd < 0 || length < kLeast || (flags & MAP_SHARED) == 0 || (protection & PROT_WRITE) == 0) return;
  const int u = userfault();
  if (u < 0) return;
  const int error = errno;
  uffdio_register r{};
  r.range = {reinterpret_cast<unsigned long long>(at), (length + 4095) / 4096 * 4096}, r.mode = UFFDIO_REGISTER_MODE_WP;
  if (::ioctl(u, UFFDIO_REGISTER, &r) != 0)  // not memory: a file on a disk
    std::fprintf(stderr, "luge-dirty-shim: writes to %zu bytes at %p are not noted: %s\n", length, at, std::strerror(errno));
  errno = error;
}

template <class F>
F next(const char* name) {
  return reinterpret_cast<F>(::dlsym(RTLD_NEXT, name));
}

}  // namespace

extern "C" {

__attribute__((visibility("default"))) void* mmap(void* at, std::size_t length, int protection, int flags, int fd, off_t offset) noexcept {
  static auto real = next<void* (*)(void*, std::size_t, int, int, int, off_t)>("mmap");
  void* p = real(at, length, protection, flags, fd, offset);
  note_writes(p, length, protection, flags, fd);
  return p;
}

__attribute__((visibility("default"))) void* mmap64(void* at, std::size_t length, int protection, int flags, int fd, off64_t offset) noexcept {
  static auto real = next<void* (*)(void*, std::size_t, int, int, int, off64_t)>("mmap64");
  void* p = real(at, length, protection, flags, fd, offset);
  note_writes(p, length, protection, flags, fd);
  return p;
}

}
