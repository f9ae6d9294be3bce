// How file I/O gets to the kernel: io_uring, or a few threads where that is forbidden. Private to host/io.
//
// Invariant: an operation that has begun is awaited to its end also when the World stops, because its buffers belong
// to the coroutine that waits. One that has not begun when the World stops throws Stopped.
#pragma once

#include <sys/uio.h>

#include <functional>
#include <memory>

#include "io/blocking_calls.hpp"
#include "io/real_world.hpp"

namespace luge::io {

struct Transfer {
  int fd = -1;
  bool write = false;
  bool durable = false;
  std::uint64_t offset = 0;
  const iovec* parts = nullptr;  ///< lives until the transfer has ended
  unsigned count = 0;
};

class FileEngine {
 public:
  virtual ~FileEngine() = default;
  virtual Task<int> transfer(Transfer t) = 0;  ///< bytes moved, or -errno
  virtual Task<int> sync(int fd) = 0;          ///< 0, or -errno
};
/// Null if the kernel refuses io_uring, with `error` set to the errno.
std::unique_ptr<FileEngine> make_uring_engine(RealWorld& world, int& error);
std::unique_ptr<FileEngine> make_thread_engine(BlockingCalls& calls);

}  // namespace luge::io
