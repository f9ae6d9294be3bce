#include "base/buffer.hpp"

#include <cstdlib>
#include <new>

#include "base/ids.hpp"

namespace luge {

Buffer Buffer::allocate(std::size_t bytes) {
  Buffer b;
  if (bytes == 0) return b;
  std::size_t rounded = (bytes + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
  auto* p = static_cast<std::byte*>(std::aligned_alloc(kBlockBytes, rounded));
  if (p == nullptr) throw std::bad_alloc();
  b.owner_ = std::shared_ptr<std::byte>(p, [](std::byte* q) { std::free(q); });
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
