#include "firmware/fences.hpp"

#include "firmware/hal/hal.hpp"
#include "firmware/hal/noinit.hpp"

namespace fw {
namespace {

struct Fence { uint64_t partition; uint64_t epoch[2]; uint32_t valid; };
struct Fences { Fence at[kFences]; uint32_t count; };
FW_NOINIT Fences fences;

// Keeps the compiler from moving stores over it: what a reset cuts must have happened in this order.
inline void ordered() { asm volatile("" ::: "memory"); }

Fence* find(uint64_t partition) {
  for (uint32_t i = 0; i < fences.count; ++i)
    if (fences.at[i].partition == partition) return &fences.at[i];
  return nullptr;
}

uint32_t entry_of(const Fence* f) { return static_cast<uint32_t>(f - fences.at) + 1; }

void load(const Fence& f) {
  using namespace luge_card;
  const uint64_t epoch = f.epoch[f.valid & 1];
  hal::set_reg(REG_FENCE_EPOCH, static_cast<uint32_t>(epoch)), hal::set_reg(REG_FENCE_EPOCH + 4, static_cast<uint32_t>(epoch >> 32));
  hal::set_reg(REG_FENCE_LOAD, entry_of(&f));
}

}  // namespace

bool raise_fence(uint64_t partition, uint64_t epoch) {
  if (Fence* f = find(partition)) {
    if (epoch <= f->epoch[f->valid & 1]) return load(*f), true;
    f->epoch[~f->valid & 1] = epoch;
    ordered();
    f->valid ^= 1;
    ordered();
    load(*f);
    return true;
  }
  if (fences.count == kFences) return false;
  Fence& f = fences.at[fences.count];
  f.partition = partition, f.epoch[0] = epoch, f.valid = 0;
  ordered();
  ++fences.count;
  ordered();
  load(f);
  return true;
}

uint64_t fence_of(uint64_t partition) {
  const Fence* f = find(partition);
  return f ? f->epoch[f->valid & 1] : 0;
}

uint32_t fence_entry(uint64_t partition) {
  const Fence* f = find(partition);
  return f ? entry_of(f) : 0;
}

void load_fences() {
  for (uint32_t i = 0; i < fences.count; ++i) load(fences.at[i]);
}

void forget_fences() { fences.count = 0; }

}  // namespace fw
