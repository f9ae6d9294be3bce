#include "card/dma_ring.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <new>
#include <string>
#include <utility>

namespace luge::card {
namespace {

std::size_t bytes_of(std::uint32_t slots_log2) {
  std::size_t slots = sizeof(luge_card::dma_record) << slots_log2;
  return kRingHeaderBytes + (slots < 4096 ? 4096 : slots);
}

}  // namespace

DmaRing::DmaRing(DmaRing&& o) noexcept { *this = std::move(o); }

DmaRing& DmaRing::operator=(DmaRing&& o) noexcept {
  std::swap(fd_, o.fd_), std::swap(base_, o.base_), std::swap(bytes_, o.bytes_), std::swap(slots_log2_, o.slots_log2_);
  return *this;
}

DmaRing::~DmaRing() {
  if (base_ != nullptr) ::munmap(base_, bytes_);
  if (fd_ >= 0) ::close(fd_);
}

Result<DmaRing> DmaRing::create(std::uint32_t slots_log2, std::uint32_t function, std::uint32_t mode) {
  if (slots_log2 > luge_card::DMA_RECORD_MOST_SLOTS_LOG2) return Status(Code::invalid, "a record ring has 2^20 slots at most");
  DmaRing r;
  r.slots_log2_ = slots_log2, r.bytes_ = bytes_of(slots_log2);
  r.fd_ = ::memfd_create("luge-dma-ring", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (r.fd_ < 0 || ::ftruncate(r.fd_, static_cast<off_t>(r.bytes_)) != 0 || ::fcntl(r.fd_, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
    return Status(Code::no_space, std::string("a record ring cannot be made: ") + std::strerror(errno));
  void* p = ::mmap(nullptr, r.bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, r.fd_, 0);
  if (p == MAP_FAILED) return Status(Code::no_space, std::string("a record ring cannot be mapped: ") + std::strerror(errno));
  r.base_ = static_cast<std::byte*>(p);
  auto* h = new (p) RingHeader;
  h->slots_log2 = slots_log2, h->function = function, h->mode = mode;
  return r;
}

Result<DmaRing> DmaRing::open(int fd) {
  DmaRing r;
  r.fd_ = fd;
  struct stat st {};
  if (::fstat(fd, &st) != 0 || static_cast<std::size_t>(st.st_size) < kRingHeaderBytes) return Status(Code::corrupt, "this is not a record ring");
  r.bytes_ = static_cast<std::size_t>(st.st_size);
  void* p = ::mmap(nullptr, r.bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (p == MAP_FAILED) return Status(Code::io_error, std::string("a record ring cannot be mapped: ") + std::strerror(errno));
  r.base_ = static_cast<std::byte*>(p);
  const RingHeader& h = r.header();
  if (h.magic != kRingMagic) return Status(Code::corrupt, "this is not a record ring");
  if (h.version != kRingVersion) return Status(Code::wrong_version, "a record ring of version " + std::to_string(h.version));
  r.slots_log2_ = h.slots_log2;
  if (r.slots_log2_ > luge_card::DMA_RECORD_MOST_SLOTS_LOG2 || bytes_of(r.slots_log2_) != r.bytes_) return Status(Code::corrupt, "a record ring of another size than it says");
  return r;
}

}  // namespace luge::card
