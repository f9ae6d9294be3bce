// Where the chunks of a stripe are: k + m places, as many as when it was made. There is a row with one of these for each half MiB or so
// that a volume maps, and rows stay in memory: a place is packed to the bytes that its numbers need, the same number of bytes for each
// place of a stripe, so that one is found without reading those before it. Six places are 30 to 50 bytes, not 144.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <span>
#include <stdexcept>
#include <vector>

#include "wire/common_generated.h"

namespace luge::head {

class Places {
 public:
  Places() = default;
  /// So many, none written yet.
  explicit Places(std::size_t count) { pack(std::vector<fbs::ChunkPlace>(count)); }
  explicit Places(std::span<const fbs::ChunkPlace> from) { pack(from); }
  explicit Places(const flatbuffers::Vector<const fbs::ChunkPlace*>& from) {
    std::vector<fbs::ChunkPlace> places;
    places.reserve(from.size());
    for (const fbs::ChunkPlace* p : from) places.push_back(*p);
    pack(places);
  }
  Places(const Places& other) : packed_(other.packed_ ? std::make_unique<std::uint8_t[]>(other.bytes()) : nullptr), size_(other.size_), widths_(other.widths_) {
    std::copy_n(other.packed_.get(), other.bytes(), packed_.get());
  }
  Places(Places&& other) noexcept { swap(other); }
  Places& operator=(Places other) noexcept {
    swap(other);
    return *this;
  }

  std::size_t size() const { return size_; }
  fbs::ChunkPlace operator[](std::size_t i) const { return unpack(i); }
  /// As operator[], but throws std::out_of_range.
  fbs::ChunkPlace at(std::size_t i) const {
    if (i >= size_) throw std::out_of_range("no such chunk in the stripe");
    return unpack(i);
  }
  /// Sled of a chunk; 0: it was not written. Throws as at().
  std::uint32_t sled_of(std::size_t i) const {
    if (i >= size_) throw std::out_of_range("no such chunk in the stripe");
    return static_cast<std::uint32_t>(load(packed_.get() + i * stride(), width(0)));
  }
  void set(std::size_t i, const fbs::ChunkPlace& place) {
    std::vector<fbs::ChunkPlace> places = unpacked();
    places.at(i) = place;
    pack(places);
  }
  std::vector<fbs::ChunkPlace> unpacked() const { return {begin(), end()}; }

  class Iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using value_type = fbs::ChunkPlace;
    using difference_type = std::ptrdiff_t;
    using pointer = void;
    using reference = fbs::ChunkPlace;
    Iterator(const Places* of, std::size_t at) : of_(of), at_(at) {}
    fbs::ChunkPlace operator*() const { return (*of_)[at_]; }
    Iterator& operator++() { return ++at_, *this; }
    Iterator operator++(int) { return {of_, at_++}; }
    bool operator==(const Iterator&) const = default;

   private:
    const Places* of_;
    std::size_t at_;
  };
  Iterator begin() const { return {this, 0}; }
  Iterator end() const { return {this, size_}; }

 private:
  static constexpr std::size_t kFields = 6;
  using Fields = std::array<std::uint64_t, kFields>;

  static Fields fields_of(const fbs::ChunkPlace& p) { return {p.sled(), p.column(), p.slot(), p.device(), p.reserved(), p.generation()}; }
  static std::uint64_t load(const std::uint8_t* from, std::uint32_t width) {
    std::uint64_t value = 0;
    for (std::uint32_t i = 0; i < width; ++i) value |= std::uint64_t{from[i]} << (8 * i);
    return value;
  }
  std::uint32_t width(std::size_t field) const { return widths_ >> (4 * field) & 15; }
  std::uint32_t stride() const {
    std::uint32_t sum = 0;
    for (std::size_t f = 0; f < kFields; ++f) sum += width(f);
    return sum;
  }
  std::size_t bytes() const { return std::size_t{size_} * stride(); }
  void pack(std::span<const fbs::ChunkPlace> from) {
    Fields all{};
    for (const fbs::ChunkPlace& p : from)
      for (std::size_t f = 0; f < kFields; ++f) all[f] |= fields_of(p)[f];
    size_ = static_cast<std::uint32_t>(from.size());
    widths_ = 0;
    for (std::size_t f = 0; f < kFields; ++f) widths_ |= static_cast<std::uint32_t>((std::bit_width(all[f]) + 7) / 8) << (4 * f);
    packed_ = bytes() ? std::make_unique<std::uint8_t[]>(bytes()) : nullptr;
    std::uint8_t* to = packed_.get();
    for (const fbs::ChunkPlace& p : from)
      for (std::size_t f = 0; f < kFields; ++f)
        for (std::uint32_t i = 0; i < width(f); ++i) *to++ = static_cast<std::uint8_t>(fields_of(p)[f] >> (8 * i));
  }
  fbs::ChunkPlace unpack(std::size_t i) const {
    Fields v;
    const std::uint8_t* from = packed_.get() + i * stride();
    for (std::size_t f = 0; f < kFields; from += width(f), ++f) v[f] = load(from, width(f));
    return fbs::ChunkPlace(static_cast<std::uint32_t>(v[0]), static_cast<std::uint32_t>(v[1]), static_cast<std::uint32_t>(v[2]),
                           static_cast<std::uint16_t>(v[3]), static_cast<std::uint16_t>(v[4]), v[5]);
  }
  void swap(Places& other) noexcept {
    packed_.swap(other.packed_);
    std::swap(size_, other.size_);
    std::swap(widths_, other.widths_);
  }

  std::unique_ptr<std::uint8_t[]> packed_;
  std::uint32_t size_ = 0;
  std::uint32_t widths_ = 0;  // bytes of each field of a place, four bits each
};

}  // namespace luge::head
