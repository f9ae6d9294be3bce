#include "sim/cluster/path_table.hpp"

#include <algorithm>
#include <cstdio>

namespace luge::sim {
namespace {

// Rare paths of protocol section 12 that belong to sections 2 to 10, as far as they are built.
constexpr Path kRare[] = {
    Path::reader_waits_for_commit, Path::late_write_of_old_session, Path::retry_over_promotion, Path::write_waits_for_merge,
    Path::proposal_answer_lost, Path::reserve_fuller_than_primary, Path::newer_than_store,
    Path::second_promotion_during_tail, Path::longer_tail_dropped, Path::index_record_dropped, Path::trim_during_flush,
    Path::sled_back_after_epochs, Path::decode_with_another_set, Path::restarted_inside_lease, Path::swaps_collide,
    Path::suspect_after_replay, Path::repaired_from_member, Path::fall_back_checkpoint, Path::checkpoint_loaded,
    // Not of section 12, but what the others rest on.
    Path::image_rebuild, Path::narrow_stripe, Path::attempt_of_unknown_end, Path::member_joined, Path::member_left,
    Path::slow_left, Path::slow_back, Path::handed_over, Path::store_doubted, Path::volume_grown, Path::copy_moved,
};

// So many seeds must come to each, if there are enough of them.
constexpr std::uint64_t kLeast = 10, kEnoughSeeds = 300;

constexpr const char* kElsewhere[][2] = {
    {"diverged-refused", "no fault comes there while the other rules hold; sim_head_test plays a primary that breaks them"},
    {"checkpoint-refused", "come to, but by too few seeds yet to ask for 10; sim_checkpoint_test"},
    {"store-rebuilt", "no store is lost for good in a seed; sim_lost_store_test"},
    {"gateway resumes after its slots were reused", "the sweep is not built: slots are not used again"},
    {"duplicate free", "the sweep is not built"},
    {"write waits on the snapshot cut", "snapshots are not built"},
};

}  // namespace

void PathTable::add(const SeedResult& r) {
  ++seeds_;
  for (std::size_t p = 0; p < r.paths.size(); ++p) {
    times_[p] += r.paths[p];
    reached_by_[p] += r.paths[p] != 0;
  }
}

bool PathTable::is_rare(std::size_t path) { return std::find(std::begin(kRare), std::end(kRare), static_cast<Path>(path)) != std::end(kRare); }

void PathTable::print() const {
  std::printf("\n%-32s %8s %10s\n", "path", "seeds", "times");
  for (std::size_t p = 0; p < times_.size(); ++p)
    std::printf("%-32s %8llu %10llu%s\n", std::string(path_name(static_cast<Path>(p))).c_str(), static_cast<unsigned long long>(reached_by_[p]),
                static_cast<unsigned long long>(times_[p]), is_rare(p) ? "  rare" : "");
  for (auto [what, why] : kElsewhere) std::printf("%s: %s\n", what, why);
}

bool PathTable::enough() const {
  if (seeds_ < kEnoughSeeds) return true;
  bool all = true;
  for (Path path : kRare) {
    std::uint64_t got = reached_by_[static_cast<std::size_t>(path)];
    if (got >= kLeast) continue;
    all = false;
    std::printf("path %s: reached by %llu of %llu seeds, expected at least %llu\n", std::string(path_name(path)).c_str(),
                static_cast<unsigned long long>(got), static_cast<unsigned long long>(seeds_), static_cast<unsigned long long>(kLeast));
  }
  return all;
}

}  // namespace luge::sim
