#include "attach/written_blocks.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "switches/switches.hpp"

namespace luge::attach {

Result<int> WrittenBlocks::track(std::uint64_t bytes) {
  const std::uint64_t map_bytes = ((bytes + 4095) / 4096 + 63) / 64 * 8;
  const int fd = ::memfd_create("luge-written-blocks", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0 || ::ftruncate(fd, static_cast<off_t>(map_bytes)) != 0 || ::fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    Status why(Code::no_space, std::string("no bitmap of written blocks: ") + std::strerror(errno));
    if (fd >= 0) ::close(fd);
    return why;
  }
  auto log = card::DirtyLog::map(fd, 0, map_bytes);
  if (!log.ok()) return ::close(fd), log.status();
  log_ = std::move(*log);
  return fd;
}

// Also when tracking begins while the write is under way.
client::BlockTarget::Done WrittenBlocks::noting(std::uint64_t offset, std::uint32_t length, Done done) {
  return [this, offset, length, done = std::move(done)](const Status& s) {
    if (log_ && !broken(Switch::written_blocks_ignored)) log_->mark(offset, length);
    done(s);
  };
}

void WrittenBlocks::write(std::uint64_t offset, Buffer image, std::uint32_t length, Done done) {
  target_->write(offset, std::move(image), length, noting(offset, length, std::move(done)));
}
void WrittenBlocks::trim(std::uint64_t offset, std::uint32_t length, Done done) { target_->trim(offset, length, noting(offset, length, std::move(done))); }
void WrittenBlocks::zero(std::uint64_t offset, std::uint32_t length, Done done) { target_->zero(offset, length, noting(offset, length, std::move(done))); }

}  // namespace luge::attach
