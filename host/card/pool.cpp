#include "card/pool.hpp"

#include <sys/mman.h>

#include "card/messages.hpp"

namespace luge::card {

std::shared_ptr<Pool> Pool::map(int descriptor, std::size_t bytes, std::size_t reserve) {
  void* p = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  if (p == MAP_FAILED) return nullptr;
  return std::shared_ptr<Pool>(new Pool(static_cast<std::byte*>(p), bytes, reserve));
}

Pool::Pool(std::byte* data, std::size_t bytes, std::size_t reserve)
    : data_(data), bytes_(bytes), reserve_(std::min(reserve, bytes / 2)), free_bytes_(bytes), free_{{0, bytes}} {}

Pool::~Pool() { ::munmap(data_, bytes_); }

Buffer Pool::take(std::size_t bytes, bool from_reserve) {
  std::size_t rounded = (bytes + kPage - 1) / kPage * kPage;
  if (rounded == 0 || rounded > free_bytes_ || (!from_reserve && free_bytes_ - rounded < reserve_)) return {};
  for (auto it = free_.begin(); it != free_.end(); ++it) {
    if (it->second < rounded) continue;
    auto [offset, size] = *it;
    free_.erase(it);
    if (size > rounded) free_[offset + rounded] = size - rounded;
    free_bytes_ -= rounded;
    std::shared_ptr<std::byte> owner(data_ + offset, [pool = shared_from_this(), offset, rounded](std::byte*) { pool->give_back(offset, rounded); });
    taken_[offset] = {rounded, owner};
    return Buffer::adopt(std::move(owner), bytes);
  }
  return {};
}

void Pool::give_back(std::uint64_t offset, std::size_t bytes) {
  taken_.erase(offset);
  free_bytes_ += bytes;
  auto next = free_.lower_bound(offset);
  if (next != free_.end() && offset + bytes == next->first) {
    bytes += next->second;
    next = free_.erase(next);
  }
  if (next != free_.begin()) {
    auto before = std::prev(next);
    if (before->first + before->second == offset) {
      before->second += bytes;
      return;
    }
  }
  free_[offset] = bytes;
}

std::optional<std::uint64_t> Pool::offset_of(Bytes memory) const {
  if (memory.data() < data_ || memory.data() >= data_ + bytes_) return std::nullopt;
  auto offset = static_cast<std::uint64_t>(memory.data() - data_);
  auto it = taken_.upper_bound(offset);
  if (it == taken_.begin()) return std::nullopt;
  --it;
  if (offset + memory.size() > it->first + it->second.bytes) return std::nullopt;
  return offset;
}

std::shared_ptr<void> Pool::pin(std::uint64_t offset) const {
  auto it = taken_.upper_bound(offset);
  return it == taken_.begin() ? nullptr : std::prev(it)->second.owner.lock();
}

}  // namespace luge::card
