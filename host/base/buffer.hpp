// Reference-counted memory for block payloads. Invariant: allocations start on a 4 KiB boundary, so a
// payload received from a socket can be written with O_DIRECT and later coded without being copied.
// Slices share the allocation. Contents are treated as immutable once a buffer has been shared.
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <span>
#include <string_view>

#include "base/check.hpp"

namespace luge {

using Bytes = std::span<const std::byte>;
using MutableBytes = std::span<std::byte>;

/// Compares the bytes with themselves one further on: memcmp looks at many at once, a loop that may end early does not.
inline bool all_zero(Bytes b) {
  return b.empty() || (b[0] == std::byte{0} && std::memcmp(b.data(), b.data() + 1, b.size() - 1) == 0);
}

inline Bytes as_bytes(std::string_view s) { return std::as_bytes(std::span(s.data(), s.size())); }

class Buffer {
 public:
  Buffer() = default;
  /// Uninitialised, 4 KiB aligned.
  static Buffer allocate(std::size_t bytes);
  static Buffer zeros(std::size_t bytes);
  static Buffer copy_of(Bytes bytes);
  /// Memory of somebody else's, 4 KiB aligned, alive as long as `owner` is shared.
  static Buffer adopt(std::shared_ptr<std::byte> owner, std::size_t bytes) {
    Buffer b;
    b.data_ = owner.get();
    b.size_ = bytes;
    b.owner_ = std::move(owner);
    return b;
  }

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  Bytes bytes() const { return {data_, size_}; }
  MutableBytes mutable_bytes() { return {data_, size_}; }
  /// REQUIRES: offset + length <= size().
  Buffer slice(std::size_t offset, std::size_t length) const {
    LUGE_CHECK(offset <= size_ && length <= size_ - offset);
    Buffer b = *this;
    b.data_ += offset;
    b.size_ = length;
    return b;
  }

 private:
  std::shared_ptr<std::byte> owner_;
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace luge
