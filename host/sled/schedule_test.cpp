// One sled under random schedules of claims, writes, frees, fences and crashes, held against a model: what was answered
// reads back until it is freed, what was freed never does, and nothing of an older epoch gets in behind a fence.
#include "sled/unit_fixture.hpp"

namespace luge::sled::testing {
namespace {

using namespace std::chrono_literals;

// A slot's place on the sled.
using Key = std::tuple<std::uint16_t, std::uint32_t, std::uint32_t>;

class Schedule {
 public:
  explicit Schedule(std::uint64_t seed) : seed_(seed), u_(1, 2, seed) { EXPECT_TRUE(u_.fence(0, kVp, epoch_).ok()); }

  void run(int steps) {
    for (int i = 0; i < steps && !::testing::Test::HasFailure(); ++i) {
      SCOPED_TRACE("seed " + std::to_string(seed_) + " step " + std::to_string(i));
      switch (below(10)) {
        case 0: claim(); break;
        case 1: next_epoch(); break;
        case 2: crash(); break;
        case 3: free(); break;
        default: write();
      }
    }
    read_all();
  }

 private:
  struct Chunk {
    Stripe stripe;
    fbs::ChunkPlace place;
    std::uint32_t index() const { return static_cast<std::uint32_t>(stripe.id.counter % kLayout.width()); }
  };
  struct Write {
    Key key;
    Chunk chunk;
    SledUnit::Pending pending;
  };

  std::uint64_t below(std::uint64_t n) { return u_.sim.random().below(n); }
  Chunk chunk_for(const Key& k, Generation g) {
    auto [device, column, slot] = k;
    return {u_.stripe(++counter_, epoch_), u_.place(0, column, slot, g, device)};
  }

  void list() {
    auto l = u_.list(0, kVp, epoch_);
    ASSERT_TRUE(l.ok()) << l.status().to_string();
    slots_.clear();
    for (const auto& c : *l)
      for (const auto& s : c.slots) slots_.emplace(Key(c.device, c.number, s.slot()), s);
    for (const auto& [key, chunk] : kept_) {
      ASSERT_TRUE(slots_.contains(key));
      const fbs::SlotState& s = slots_.at(key);
      EXPECT_EQ(s.state(), 1);
      EXPECT_EQ(s.generation(), chunk.place.generation());
      EXPECT_EQ(s.stripe().counter(), chunk.stripe.id.counter);
    }
  }
  void read_all() {
    for (const auto& [key, chunk] : kept_) {
      auto r = u_.read(0, chunk.stripe.id, chunk.index(), chunk.place);
      ASSERT_TRUE(r.ok()) << r.status().to_string();
      EXPECT_EQ(std::memcmp(r->blocks.data(), chunk.stripe.chunks[chunk.index()].data(), kChunk), 0);
    }
  }

  void claim() {
    auto c = u_.claim(0, kVp, epoch_, static_cast<std::uint32_t>(below(11)), slot_bytes(), static_cast<std::uint16_t>(below(2)));
    EXPECT_TRUE(c.ok()) << c.status().to_string();
    list();
  }
  void write() {
    if (slots_.empty()) return;
    auto it = std::next(slots_.begin(), static_cast<std::ptrdiff_t>(below(slots_.size())));
    Chunk c = chunk_for(it->first, it->second.generation());
    Status s = u_.write(0, c.stripe, c.index(), c.place);
    if (it->second.state() != 0) {
      EXPECT_EQ(s.code(), Code::stale) << s.to_string();
      return;
    }
    EXPECT_TRUE(s.ok()) << s.to_string();
    EXPECT_TRUE(u_.write(0, c.stripe, c.index(), c.place).ok()) << "the very same again";
    kept_.emplace(it->first, std::move(c));
    list();
  }
  void free() {
    if (kept_.empty()) return;
    auto it = std::next(kept_.begin(), static_cast<std::ptrdiff_t>(below(kept_.size())));
    Chunk c = it->second;
    Status s = u_.free(0, c.stripe.id, c.place, epoch_);
    EXPECT_TRUE(s.ok()) << s.to_string();
    kept_.erase(it);
    EXPECT_EQ(u_.free(0, c.stripe.id, c.place, epoch_).code(), Code::stale);
    EXPECT_EQ(u_.read(0, c.stripe.id, c.index(), c.place).code(), Code::stale);
    if (c.stripe.id.epoch == epoch_) EXPECT_EQ(u_.write(0, c.stripe, c.index(), c.place).code(), Code::stale);
    list();
  }

  std::vector<Write> begin_writes(std::size_t most) {
    std::vector<Write> out;
    for (const auto& [key, s] : slots_) {
      if (s.state() != 0 || out.size() == most || below(3) != 0) continue;
      Chunk c = chunk_for(key, s.generation());
      auto pending = u_.begin(0, u_.write_frame(c.stripe, c.index(), c.place));
      out.push_back({key, std::move(c), std::move(pending)});
    }
    return out;
  }
  // The answer to the fence means that a write before it counts or never will.
  void next_epoch() {
    std::vector<Write> writes = begin_writes(5);
    Epoch old = epoch_++;
    auto fence = u_.begin(0, SledUnit::fence_frame(kVp, epoch_));
    Status s = SledUnit::fence_status(u_.end(fence));
    EXPECT_TRUE(s.ok()) << s.to_string();
    list();
    auto at_fence = slots_;
    for (Write& w : writes) {
      Status done = SledUnit::plain(u_.end(w.pending));
      if (done.ok()) kept_.emplace(w.key, w.chunk);
      else EXPECT_EQ(done.code(), Code::fenced) << done.to_string();
    }
    EXPECT_EQ(u_.release(0, kVp, old).code(), Code::fenced);
    list();
    for (const auto& [key, now] : slots_) {
      EXPECT_EQ(now.state(), at_fence.at(key).state()) << "changed behind the fence";
      EXPECT_EQ(now.generation(), at_fence.at(key).generation());
    }
  }
  void crash() {
    std::vector<Write> writes = begin_writes(6);
    std::vector<SledUnit::Pending> frees;
    for (auto it = kept_.begin(); it != kept_.end();) {
      if (below(3) != 0) {
        ++it;
        continue;
      }
      frees.push_back(u_.begin(0, u_.free_frame(it->second.stripe.id, it->second.place, epoch_)));
      it = kept_.erase(it);
    }
    u_.sim.run_for(sim::Duration(static_cast<std::int64_t>(below(3'000'000))));
    for (Write& w : writes)
      if (w.pending->has_value() && SledUnit::plain(**w.pending).ok()) kept_.emplace(w.key, w.chunk);
    Status s = u_.bounce(0, below(2) != 0 ? sim::Crash::power : sim::Crash::process);
    ASSERT_TRUE(s.ok()) << s.to_string();
    EXPECT_EQ(u_.fence(0, kVp, epoch_ - 1).code(), epoch_ > 1 ? Code::fenced : Code::invalid) << "the epoch outlives the restart";
    list();
    read_all();
  }

  std::uint64_t seed_;
  SledUnit u_;
  Epoch epoch_ = 1;
  std::uint64_t counter_ = 0;
  std::map<Key, fbs::SlotState> slots_;  // as last listed
  std::map<Key, Chunk> kept_;            // answered ok, and no free of it asked for
};

// Requirement: FN-08, FN-12
TEST(Schedule, AnsweredChunksStayAndFreedOnesAreGone) {
  for (std::uint64_t seed = 1; seed <= 40 && !HasFailure(); ++seed) Schedule(seed).run(50);
}

// A header of many sectors: whatever a cut leaves of the block with the mark, the slot is the written or the freed one.
TEST(Schedule, TornFreeOfALargeHeader) {
  constexpr Layout kWide{16, 4};
  constexpr std::uint32_t kBytes = 8 * kBlockBytes;
  int freed = 0, kept = 0;
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    SledUnit u(1, 1, seed);
    ASSERT_TRUE(u.fence(0, kVp, 1).ok());
    auto c = u.claim(0, kVp, 1, 0, slot_bytes(kWide, kBytes));
    ASSERT_TRUE(c.ok());
    Generation g = c->slots[0].generation();
    Stripe a = u.stripe(1, 1, kVp, kWide, kBytes);
    auto p = u.place(0, 0, 0, g);
    ASSERT_TRUE(u.write(0, a, 0, p).ok());
    auto pending = u.begin(0, u.free_frame(a.id, p, 1));
    ASSERT_TRUE(u.sim.run_until([&] { return u.disk(0).writing(); }, 5s));
    ASSERT_TRUE(u.bounce(0).ok());
    auto l = u.list(0, kVp, 1);
    ASSERT_TRUE(l.ok());
    auto s = l->at(0).slots.at(0);
    ASSERT_NE(s.state(), 2) << "seed " << seed;
    EXPECT_EQ(s.generation(), s.state() == 0 ? g + 1 : g);
    (s.state() == 0 ? freed : kept)++;
    auto read = u.read(0, a.id, 0, p, 0, kBytes / kBlockBytes);
    EXPECT_EQ(read.code(), s.state() == 0 ? Code::stale : Code::ok);
  }
  EXPECT_GT(freed, 10);
  EXPECT_GT(kept, 10);
}

}  // namespace
}  // namespace luge::sled::testing
