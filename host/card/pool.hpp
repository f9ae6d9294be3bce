// Memory shared with the card process, handed out in pages. Private to host/card.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>

#include "base/buffer.hpp"

namespace luge::card {

class Pool : public std::enable_shared_from_this<Pool> {
 public:
  /// Maps `descriptor`; null: cannot. `reserve`: bytes that only `take(..., true)` gets.
  static std::shared_ptr<Pool> map(int descriptor, std::size_t bytes, std::size_t reserve);
  ~Pool();

  /// Empty: no room.
  Buffer take(std::size_t bytes, bool from_reserve);
  /// Where `memory` lies in the pool, if all of it lies in one piece that was taken.
  std::optional<std::uint64_t> offset_of(Bytes memory) const;
  /// Keeps the piece from being given out again even when its Buffers are gone. REQUIRES: offset_of() has found it.
  std::shared_ptr<void> pin(std::uint64_t offset) const;
  std::size_t free_bytes() const { return free_bytes_; }

 private:
  Pool(std::byte* data, std::size_t bytes, std::size_t reserve);
  void give_back(std::uint64_t offset, std::size_t bytes);
  std::byte* data_;
  std::size_t bytes_, reserve_, free_bytes_;
  std::map<std::uint64_t, std::size_t> free_;
  struct Piece { std::size_t bytes; std::weak_ptr<std::byte> owner; };
  std::map<std::uint64_t, Piece> taken_;
};

}  // namespace luge::card
