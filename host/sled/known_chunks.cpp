#include "sled/known_chunks.hpp"

namespace luge::sled {

KnownChunk::KnownChunk(const coding::ChunkHeader& h) : fields(h.fields()), header_bytes(h.header_bytes()) {
  for (std::uint32_t i = 0; i < h.blocks_per_chunk(); ++i) blocks.push_back(h.identity(fields.chunk_index, i));
}

KnownChunkPtr KnownChunks::find(std::uint64_t slot) {
  auto it = by_slot_.find(slot);
  if (it == by_slot_.end()) return nullptr;
  recent_.splice(recent_.begin(), recent_, it->second);
  return it->second->chunk;
}

void KnownChunks::put(std::uint64_t slot, KnownChunkPtr chunk) {
  forget(slot);
  bytes_ += size_of(*chunk);
  recent_.push_front({slot, std::move(chunk)});
  by_slot_[slot] = recent_.begin();
  while (bytes_ > limit_ && recent_.size() > 1) {
    bytes_ -= size_of(*recent_.back().chunk);
    by_slot_.erase(recent_.back().slot);
    recent_.pop_back();
  }
}

void KnownChunks::forget(std::uint64_t slot) {
  if (auto it = loading_.find(slot); it != loading_.end()) {
    *it->second = false;
    loading_.erase(it);
  }
  auto it = by_slot_.find(slot);
  if (it == by_slot_.end()) return;
  bytes_ -= size_of(*it->second->chunk);
  recent_.erase(it->second);
  by_slot_.erase(it);
}

KnownChunks::Loading::Loading(KnownChunks& of, std::uint64_t slot) : of_(of), slot_(slot) {
  auto& flag = of_.loading_[slot];
  if (!flag) flag = std::make_shared<bool>(true);
  valid_ = flag;
}

KnownChunks::Loading::~Loading() {
  auto it = of_.loading_.find(slot_);
  if (it != of_.loading_.end() && it->second == valid_ && valid_.use_count() == 2) of_.loading_.erase(it);
}

void KnownChunks::Loading::done(KnownChunkPtr chunk) {
  if (!*valid_) return;
  of_.loading_.erase(slot_);
  of_.put(slot_, std::move(chunk));
}

}  // namespace luge::sled
