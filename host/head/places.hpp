// Where the chunks of a stripe are: k + m places, as many as when it was made. There is a row with one of these for each
// half MiB or so that a volume maps, and rows stay in memory: a vector's third word is 16 bytes of them for nothing.
#pragma once

#include <algorithm>
#include <memory>
#include <span>
#include <stdexcept>
#include <utility>

#include "wire/common_generated.h"

namespace luge::head {

class Places {
 public:
  Places() = default;
  explicit Places(std::size_t count) : places_(count ? std::make_unique<fbs::ChunkPlace[]>(count) : nullptr), size_(static_cast<std::uint32_t>(count)) {}
  explicit Places(std::span<const fbs::ChunkPlace> from) : Places(from.size()) { std::copy(from.begin(), from.end(), begin()); }
  explicit Places(const flatbuffers::Vector<const fbs::ChunkPlace*>& from) : Places(from.size()) {
    for (std::uint32_t i = 0; i < size_; ++i) places_[i] = *from.Get(i);
  }
  Places(const Places& other) : Places(std::span(other.begin(), other.end())) {}
  Places(Places&& other) noexcept : places_(std::move(other.places_)), size_(std::exchange(other.size_, 0)) {}
  Places& operator=(Places other) noexcept {
    places_.swap(other.places_);
    std::swap(size_, other.size_);
    return *this;
  }
  std::size_t size() const { return size_; }
  const fbs::ChunkPlace* data() const { return places_.get(); }
  const fbs::ChunkPlace* begin() const { return places_.get(); }
  const fbs::ChunkPlace* end() const { return begin() + size_; }
  fbs::ChunkPlace* begin() { return places_.get(); }
  fbs::ChunkPlace* end() { return begin() + size_; }
  const fbs::ChunkPlace& operator[](std::size_t i) const { return places_[i]; }
  fbs::ChunkPlace& operator[](std::size_t i) { return places_[i]; }
  const fbs::ChunkPlace& at(std::size_t i) const {
    if (i >= size_) throw std::out_of_range("no such chunk in the stripe");
    return places_[i];
  }

 private:
  std::unique_ptr<fbs::ChunkPlace[]> places_;
  std::uint32_t size_ = 0;
};

}  // namespace luge::head
