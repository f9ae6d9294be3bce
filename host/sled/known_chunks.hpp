// What a device's headers say of the chunks that were read or written lately, so that a read of a few blocks is one operation
// of the device. Bounded; the least recently used goes first.
//
// Invariant: an entry says what the header on the medium says. Whoever changes a header forgets the entry before and after, or
// puts the new one; a header that was read before that and arrives after it is not taken (Loading).
#pragma once

#include <absl/container/flat_hash_map.h>

#include <cstdint>
#include <list>
#include <memory>
#include <vector>

#include "coding/chunk_header.hpp"

namespace luge::sled {

struct KnownChunk {
  coding::ChunkHeaderFields fields;
  std::uint32_t header_bytes = 0;
  std::vector<fbs::BlockIdentity> blocks;  ///< of this chunk
  KnownChunk() = default;
  explicit KnownChunk(const coding::ChunkHeader& h);
};
using KnownChunkPtr = std::shared_ptr<const KnownChunk>;

class KnownChunks {
 public:
  explicit KnownChunks(std::size_t bytes) : limit_(bytes) {}

  /// By the slot's offset on the device; null: not known.
  KnownChunkPtr find(std::uint64_t slot);
  void put(std::uint64_t slot, KnownChunkPtr chunk);
  /// The header of the slot is about to change.
  void forget(std::uint64_t slot);

  /// A header that is being read: counts only if nobody has forgotten the slot since.
  class Loading {
   public:
    Loading(KnownChunks& of, std::uint64_t slot);
    Loading(const Loading&) = delete;
    ~Loading();
    void done(KnownChunkPtr chunk);

   private:
    KnownChunks& of_;
    std::uint64_t slot_;
    std::shared_ptr<bool> valid_;
  };

 private:
  struct Entry {
    std::uint64_t slot;
    KnownChunkPtr chunk;
  };
  static std::size_t size_of(const KnownChunk& c) { return sizeof(Entry) + sizeof(KnownChunk) + 96 + c.blocks.size() * sizeof(fbs::BlockIdentity); }

  std::size_t limit_, bytes_ = 0;
  std::list<Entry> recent_;  // the newest first
  absl::flat_hash_map<std::uint64_t, std::list<Entry>::iterator> by_slot_;
  absl::flat_hash_map<std::uint64_t, std::shared_ptr<bool>> loading_;  // one flag for all that read the same header
};

}  // namespace luge::sled
