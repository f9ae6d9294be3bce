#include "io/real_files.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>

#include "base/ids.hpp"
#include "base/logging.hpp"
#include "io/file_engine.hpp"

namespace luge::io {
namespace {

// A file is made under this suffix and renamed when it is complete, so a crash leaves no half-made one.
constexpr std::string_view kMaking = ".making";
constexpr std::size_t kPrewriteBytes = 1 << 20;

Code code_of(int e) {
  switch (e) {
    case ENOENT: case ENOTDIR: return Code::not_found;
    case EEXIST: case ENOTEMPTY: return Code::exists;
    case ENOSPC: case EDQUOT: return Code::no_space;
    case EISDIR: case ENAMETOOLONG: case EINVAL: return Code::invalid;
    default: return Code::io_error;
  }
}

Status error_status(const std::string& path, const char* what, int e) {
  return Status(code_of(e), path + ": " + what + ": " + std::strerror(e));
}

bool aligned(std::uint64_t n) { return n % kBlockBytes == 0; }
bool aligned(const void* p) { return aligned(reinterpret_cast<std::uintptr_t>(p)); }

Status zero_fill(int fd, const std::string& path, std::uint64_t from, std::uint64_t to) {
  void* zeros = std::aligned_alloc(kBlockBytes, kPrewriteBytes);
  if (zeros == nullptr) return Status(Code::internal, "out of memory");
  std::memset(zeros, 0, kPrewriteBytes);
  Status result;
  for (std::uint64_t at = from; at < to && result.ok();) {
    ssize_t n = ::pwrite(fd, zeros, std::min<std::uint64_t>(kPrewriteBytes, to - at), static_cast<off_t>(at));
    if (n > 0) at += static_cast<std::uint64_t>(n);
    else if (n == 0 || errno != EINTR) result = error_status(path, "prewrite", n == 0 ? EIO : errno);
  }
  std::free(zeros);
  return result;
}

class RealBlockFile final : public BlockFile {
 public:
  RealBlockFile(FileEngine& engine, BlockingCalls& calls, int fd, std::uint64_t size, std::string path)
      : engine_(engine), calls_(calls), fd_(fd), size_(size), path_(std::move(path)) {}
  ~RealBlockFile() override { ::close(fd_); }

  std::uint64_t size() const override { return size_; }

  Task<Status> read(std::uint64_t offset, MutableBytes into) override {
    if (Status s = check("read", offset, into.size()); !s.ok()) co_return s;
    if (!aligned(into.data())) co_return misaligned("read");
    iovec part{into.data(), into.size()};
    co_return co_await move_all(false, false, offset, &part, 1);
  }

  Task<Status> write(std::uint64_t offset, std::span<const Bytes> parts, Durability d) override {
    std::vector<iovec> vec;
    vec.reserve(parts.size());
    std::uint64_t bytes = 0;
    for (Bytes p : parts) {
      if (p.empty()) continue;
      if (!aligned(p.data()) || !aligned(p.size())) co_return misaligned("write");
      vec.push_back({const_cast<std::byte*>(p.data()), p.size()});
      bytes += p.size();
    }
    if (Status s = check("write", offset, bytes); !s.ok()) co_return s;
    co_return co_await move_all(true, d == Durability::durable, offset, vec.data(), vec.size());
  }

  Task<Status> sync() override {
    int e = co_await engine_.sync(fd_);
    if (e != 0) co_return error_status(path_, "sync", -e);
    co_return Status();
  }

  Task<Status> grow(std::uint64_t bytes) override {
    if (!aligned(bytes) || bytes < size_) co_return Status(Code::invalid, path_ + ": it cannot grow to " + std::to_string(bytes) + " bytes");
    Status result;
    co_await calls_.run([&] {
      result = extend(bytes);
      if (!result.ok() && result.code() != Code::invalid && ::ftruncate(fd_, static_cast<off_t>(size_)) != 0) result = result.with("and it cannot be cut back");
      return 0;
    });
    if (result.ok()) size_ = bytes;
    co_return result;
  }

 private:
  // Written and not merely made longer: a hole would be allocated by the writes that come to it, and could fail them.
  Status extend(std::uint64_t bytes) const {
    struct stat s;
    if (::fstat(fd_, &s) != 0) return error_status(path_, "stat", errno);
    if (!S_ISREG(s.st_mode)) return Status(Code::invalid, path_ + ": a device does not grow");
    if (Status z = zero_fill(fd_, path_, size_, bytes); !z.ok()) return z;
    return ::fsync(fd_) == 0 ? Status() : error_status(path_, "fsync", errno);
  }
  Status misaligned(const char* what) const {
    return Status(Code::invalid, path_ + ": " + what + ": memory or length is not a multiple of 4096");
  }
  Status check(const char* what, std::uint64_t offset, std::uint64_t bytes) const {
    if (!aligned(offset) || !aligned(bytes)) return misaligned(what);
    if (offset > size_ || bytes > size_ - offset)
      return Status(Code::invalid, path_ + ": " + what + " of " + std::to_string(bytes) + " bytes at " +
                                       std::to_string(offset) + " is beyond the end (" + std::to_string(size_) + ")");
    return Status();
  }

  // Goes on after short transfers. `vec` is consumed.
  Task<Status> move_all(bool write, bool durable, std::uint64_t offset, iovec* vec, std::size_t count) {
    while (count != 0) {
      Transfer t{.fd = fd_, .write = write, .durable = durable, .offset = offset, .parts = vec};
      t.count = static_cast<unsigned>(std::min<std::size_t>(count, IOV_MAX));
      int n = co_await engine_.transfer(t);
      if (n == -EINTR || n == -EAGAIN) continue;
      if (n < 0) co_return error_status(path_, write ? "write" : "read", -n);
      if (n == 0)
        co_return Status(Code::io_error, path_ + (write ? ": write wrote nothing at " : ": unexpected end at ") +
                                             std::to_string(offset));
      offset += static_cast<unsigned>(n);
      for (auto done = static_cast<std::size_t>(n); done != 0;) {
        std::size_t step = std::min(done, vec->iov_len);
        vec->iov_base = static_cast<std::byte*>(vec->iov_base) + step;
        vec->iov_len -= step;
        done -= step;
        if (vec->iov_len == 0) ++vec, --count;
      }
    }
    co_return Status();
  }

  FileEngine& engine_;
  BlockingCalls& calls_;
  int fd_;
  std::uint64_t size_;
  std::string path_;
};

struct Opened {
  int fd = -1;
  std::uint64_t size = 0;
  bool buffered = false;
  Status status;
  void close() {
    if (fd >= 0) ::close(std::exchange(fd, -1));
  }
};

Status sync_directory_of(const std::string& path) {
  std::size_t slash = path.rfind('/');
  std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  int fd = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return error_status(directory, "open", errno);
  int e = ::fsync(fd) == 0 ? 0 : errno;
  ::close(fd);
  return e == 0 ? Status() : error_status(directory, "fsync", e);
}

Status lock(int fd, const std::string& path) {
  if (::flock(fd, LOCK_EX | LOCK_NB) == 0) return Status();
  if (errno == EWOULDBLOCK) return Status(Code::exists, path + " is in use by another process");
  return error_status(path, "lock", errno);
}

// Opens with O_DIRECT, or without where the file system has none.
int open_direct(const std::string& path, int flags, bool allow_buffered, bool& buffered) {
  int fd = ::open(path.c_str(), flags | O_DIRECT | O_CLOEXEC, 0600);
  if (fd >= 0 || errno != EINVAL || !allow_buffered) return fd;
  buffered = true;
  return ::open(path.c_str(), flags | O_CLOEXEC, 0600);
}

Opened make_file(const std::string& path, const OpenOptions& o, bool allow_buffered) {
  Opened f;
  std::string making = path + std::string(kMaking);
  auto fail = [&](Status s) {
    f.close();
    ::unlink(making.c_str());
    f.status = std::move(s);
    return std::move(f);
  };
  if (o.size == 0 || !aligned(o.size)) {
    f.status = Status(Code::invalid, path + ": cannot be made with a size of " + std::to_string(o.size) +
                                         " bytes: not a multiple of 4096");
    return f;
  }
  f.fd = open_direct(making, O_RDWR | O_CREAT, allow_buffered, f.buffered);
  if (f.fd < 0) return f.status = error_status(path, "create", errno), std::move(f);
  if (Status s = lock(f.fd, path); !s.ok()) return f.close(), f.status = s, std::move(f);
  if (::ftruncate(f.fd, 0) != 0 || ::ftruncate(f.fd, static_cast<off_t>(o.size)) != 0)
    return fail(error_status(path, "set size", errno));
  if (o.prewrite)
    if (Status s = zero_fill(f.fd, path, 0, o.size); !s.ok()) return fail(s);
  if (::fsync(f.fd) != 0) return fail(error_status(path, "fsync", errno));
  // link() does not replace a file that another process has made meanwhile.
  if (::link(making.c_str(), path.c_str()) != 0) return fail(error_status(path, "create", errno));
  if (::unlink(making.c_str()) != 0) return f.close(), f.status = error_status(path, "create", errno), std::move(f);
  if (Status s = sync_directory_of(path); !s.ok()) return f.close(), f.status = s, std::move(f);
  if (!o.lock) ::flock(f.fd, LOCK_UN);
  f.size = o.size;
  return f;
}

Opened open_blocking(const std::string& path, const OpenOptions& o, bool allow_buffered) {
  Opened f;
  f.fd = open_direct(path, O_RDWR, allow_buffered, f.buffered);
  if (f.fd < 0 && errno == ENOENT && o.create) return make_file(path, o, allow_buffered);
  if (f.fd < 0 && errno == EINVAL)
    return f.status = Status(Code::io_error, path + ": the file system has no O_DIRECT"), f;
  if (f.fd < 0) return f.status = error_status(path, "open", errno), f;
  struct stat s;
  if (::fstat(f.fd, &s) != 0) {
    f.status = error_status(path, "stat", errno);
  } else if (S_ISBLK(s.st_mode)) {
    if (::ioctl(f.fd, BLKGETSIZE64, &f.size) != 0) f.status = error_status(path, "BLKGETSIZE64", errno);
  } else if (S_ISREG(s.st_mode)) {
    f.size = static_cast<std::uint64_t>(s.st_size);
  } else {
    f.status = Status(Code::invalid, path + ": neither a regular file nor a block device");
  }
  f.size -= f.size % kBlockBytes;
  if (f.status.ok() && o.lock) f.status = lock(f.fd, path);
  if (!f.status.ok()) f.close();
  return f;
}

class RealFiles final : public Files {
 public:
  explicit RealFiles(RealWorld& world) : world_(world), calls_(make_blocking_calls(world)) {}

  Task<Result<std::unique_ptr<BlockFile>>> open(std::string path, OpenOptions options) override {
    std::string full = full_path(path);
    Opened f;
    bool allow_buffered = world_.options().allow_buffered;
    co_await calls_->run([&] { return f = open_blocking(full, options, allow_buffered), 0; });
    if (!f.status.ok()) co_return f.status;
    if (f.buffered && !std::exchange(warned_, true))
      logging::warn("{}: the file system has no O_DIRECT; its files are buffered by the kernel", full);
    co_return std::unique_ptr<BlockFile>(std::make_unique<RealBlockFile>(engine(), *calls_, f.fd, f.size, full));
  }

  Task<Status> remove(std::string path) override {
    std::string full = full_path(path);
    co_return co_await run([&] {
      if (::remove(full.c_str()) != 0) return error_status(full, "remove", errno);
      return sync_directory_of(full);
    });
  }

  Task<Status> rename(std::string from, std::string to) override {
    std::string full_from = full_path(from), full_to = full_path(to);
    co_return co_await run([&] {
      if (::rename(full_from.c_str(), full_to.c_str()) != 0) return error_status(full_from, "rename", errno);
      Status s = sync_directory_of(full_to);
      return s.ok() ? sync_directory_of(full_from) : s;
    });
  }

  Task<Result<std::vector<std::string>>> list(std::string directory) override {
    std::string full = full_path(directory);
    std::vector<std::string> names;
    Status s = co_await run([&] {
      DIR* d = ::opendir(full.empty() ? "." : full.c_str());
      if (d == nullptr) return error_status(full, "list", errno);
      while (dirent* e = ::readdir(d)) {
        std::string name = e->d_name;
        if (name != "." && name != ".." && !name.ends_with(kMaking)) names.push_back(std::move(name));
      }
      ::closedir(d);
      return Status();
    });
    if (!s.ok()) co_return s;
    std::sort(names.begin(), names.end());
    co_return names;
  }

  Task<Status> make_directory(std::string path) override {
    std::string full = full_path(path);
    co_return co_await run([&] {
      struct stat s;
      if (::mkdir(full.c_str(), 0700) != 0) {
        int e = errno;
        if (e == EEXIST && ::stat(full.c_str(), &s) == 0 && S_ISDIR(s.st_mode)) return Status();
        return error_status(full, "make directory", e);
      }
      return sync_directory_of(full);
    });
  }

 private:
  std::string full_path(const std::string& path) const {
    const std::string& base = world_.options().directory;
    if (base.empty() || path.starts_with('/')) return path;
    return path.empty() ? base : base + "/" + path;
  }

  template <class F>
  Task<Status> run(F f) {
    Status result;
    co_await calls_->run([&] { return result = f(), 0; });
    co_return result;
  }

  // Made with the first file, so that tools which open none do without.
  FileEngine& engine() {
    if (engine_) return *engine_;
    const char* off = std::getenv("LUGE_NO_IO_URING");
    int error = EPERM;
    if (off != nullptr && std::string_view(off) == "1")
      logging::info("io_uring is switched off by LUGE_NO_IO_URING; file I/O uses threads");
    else if (!world_.options().io_uring)
      logging::info("io_uring is switched off; file I/O uses threads");
    else if (engine_ = make_uring_engine(world_, error); !engine_)
      logging::warn("io_uring is not available ({}); file I/O uses threads", std::strerror(error));
    if (!engine_) engine_ = make_thread_engine(*calls_);
    return *engine_;
  }

  RealWorld& world_;
  std::unique_ptr<BlockingCalls> calls_;
  std::unique_ptr<FileEngine> engine_;
  bool warned_ = false;
};

}  // namespace

std::unique_ptr<Files> make_real_files(RealWorld& world) { return std::make_unique<RealFiles>(world); }

}  // namespace luge::io
