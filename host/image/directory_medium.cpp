#include "image/directory_medium.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "base/crc32c.hpp"

namespace luge::image {
namespace {

constexpr std::uint32_t kMagic = 0x5243474C;  // "LGCR", as in flash
struct Raw {
  std::uint32_t magic = kMagic, version = 1, sequence = 0;
  std::uint8_t slot = 0, previous = 0, good = 0, attempts = 0;
  std::uint32_t bytes = 0, image_version = 0, previous_bytes = 0, previous_version = 0;
  fw::Digest digest{}, previous_digest{};
  std::uint32_t crc = 0;
};
static_assert(sizeof(Raw) == 100, "");

std::uint32_t crc_of(const Raw& r) { return crc32c({reinterpret_cast<const std::byte*>(&r), offsetof(Raw, crc)}); }

bool sync_directory(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool ok = fd >= 0 && ::fsync(fd) == 0;
  if (fd >= 0) ::close(fd);
  return ok;
}

}  // namespace

DirectoryMedium::DirectoryMedium(std::string directory, std::function<void(const std::string&)> before) : directory_(std::move(directory)), before_(std::move(before)) {}
DirectoryMedium::~DirectoryMedium() { close(); }

void DirectoryMedium::close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1, open_ = fw::kNoSlot;
}

std::string DirectoryMedium::path_of(fw::Slot s) const { return directory_ + (s == fw::kGolden ? "/golden.img" : s == fw::kSlotA ? "/a.img" : "/b.img"); }

bool DirectoryMedium::erase(fw::Slot slot, std::uint32_t) {
  if (slot == fw::kGolden) return false;
  close();
  step("truncate");
  fd_ = ::open(path_of(slot).c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  open_ = slot;
  return fd_ >= 0;
}

bool DirectoryMedium::write(fw::Slot slot, std::uint32_t at, const std::uint8_t* data, std::uint32_t n) {
  if (open_ != slot) return false;
  step("write");
  return ::pwrite(fd_, data, n, at) == static_cast<ssize_t>(n);
}

bool DirectoryMedium::seal(fw::Slot slot) {
  if (open_ != slot) return false;
  step("sync");
  const bool ok = ::fsync(fd_) == 0;
  close();
  step("sync directory");
  return ok && sync_directory(directory_);
}

bool DirectoryMedium::read(fw::Slot slot, std::uint32_t at, std::uint8_t* to, std::uint32_t n) {
  if (open_ != slot) {
    close();
    fd_ = ::open(path_of(slot).c_str(), O_RDONLY | O_CLOEXEC);
    if (fd_ < 0) return false;
    open_ = slot;
  }
  return ::pread(fd_, to, n, at) == static_cast<ssize_t>(n);
}

fw::Record DirectoryMedium::newest() {
  fw::Record r;
  Raw raw;
  const int fd = ::open((directory_ + "/records").c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return r;
  const bool whole = ::read(fd, &raw, sizeof raw) == static_cast<ssize_t>(sizeof raw);
  ::close(fd);
  if (!whole || raw.magic != kMagic || raw.version != 1 || raw.crc != crc_of(raw)) return r;
  r.sequence = raw.sequence, r.slot = static_cast<fw::Slot>(raw.slot), r.previous = static_cast<fw::Slot>(raw.previous);
  r.image = {raw.bytes, raw.image_version, raw.digest}, r.previous_image = {raw.previous_bytes, raw.previous_version, raw.previous_digest};
  r.good = raw.good != 0, r.attempts = raw.attempts;
  return r;
}

bool DirectoryMedium::append(const fw::Record& r) {
  Raw raw;
  raw.sequence = r.sequence, raw.slot = r.slot, raw.previous = r.previous, raw.good = r.good, raw.attempts = static_cast<std::uint8_t>(r.attempts);
  raw.bytes = r.image.bytes, raw.image_version = r.image.version, raw.digest = r.image.digest;
  raw.previous_bytes = r.previous_image.bytes, raw.previous_version = r.previous_image.version, raw.previous_digest = r.previous_image.digest;
  raw.crc = crc_of(raw);
  const std::string path = directory_ + "/records", fresh = path + ".new";
  step("write record");
  const int fd = ::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  bool ok = fd >= 0 && ::write(fd, &raw, sizeof raw) == static_cast<ssize_t>(sizeof raw);
  step("sync record");
  ok = ok && ::fsync(fd) == 0;
  if (fd >= 0) ::close(fd);
  if (!ok) return false;
  step("rename record");
  if (::rename(fresh.c_str(), path.c_str()) != 0) return false;
  step("sync directory");
  return sync_directory(directory_);
}

bool DirectoryMedium::burn_attempt() {
  fw::Record r = newest();
  if (r.sequence == 0 || r.attempts >= fw::kAttempts) return false;
  ++r.attempts;
  return append(r);
}

bool DirectoryMedium::set_good() {
  fw::Record r = newest();
  r.good = true;
  return r.sequence != 0 && append(r);
}

}  // namespace luge::image
