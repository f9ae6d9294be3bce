#include "base/buffer.hpp"

#include "base/ids.hpp"
#include "base/kept_memory.hpp"

namespace luge {
namespace {

constinit thread_local KeptMemory<kBlockBytes, 17, 128, 512 << 10, kBlockBytes> blocks;  // of up to 64 KiB
constinit thread_local KeptMemory<64, 2, 1024, 64 << 10> owners;

/// The reference count of a buffer's owner, beside the memory that it owns.
template <class T>
struct OwnerMemory {
  using value_type = T;
  OwnerMemory() = default;
  template <class U>
  OwnerMemory(const OwnerMemory<U>&) {}
  T* allocate(std::size_t n) { return static_cast<T*>(owners.take(n * sizeof(T))); }
  void deallocate(T* p, std::size_t n) noexcept { owners.give(p, n * sizeof(T)); }
  bool operator==(const OwnerMemory&) const = default;
};

}  // namespace

Buffer Buffer::allocate(std::size_t bytes) {
  Buffer b;
  if (bytes == 0) return b;
  std::size_t rounded = (bytes + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
  auto* p = static_cast<std::byte*>(blocks.take(rounded));
  b.owner_ = std::shared_ptr<std::byte>(p, [rounded](std::byte* q) { blocks.give(q, rounded); }, OwnerMemory<std::byte>());
  b.data_ = p;
  b.size_ = bytes;
  return b;
}

Buffer Buffer::zeros(std::size_t bytes) {
  Buffer b = allocate(bytes);
  if (bytes != 0) std::memset(b.data(), 0, bytes);
  return b;
}

Buffer Buffer::copy_of(Bytes bytes) {
  Buffer b = allocate(bytes.size());
  if (!bytes.empty()) std::memcpy(b.data(), bytes.data(), bytes.size());
  return b;
}

}  // namespace luge
