#include "sim/cluster/path_table.hpp"

#include <cstdio>

namespace luge::sim {
namespace {

struct Expected {
  Path path;
  std::uint64_t in_100;  // of 100 seeds so many must come there
};

constexpr Expected kExpected[] = {
    {Path::diverged_refused, 0},
    {Path::reader_waits_for_commit, 10},
    {Path::late_write_of_old_session, 1},
    {Path::retry_over_promotion, 1},
    {Path::write_waits_for_merge, 10},
    {Path::proposal_answer_lost, 1},
    {Path::reserve_fuller_than_primary, 1},
    {Path::swaps_collide, 1},
    {Path::newer_than_store, 1},
    {Path::second_promotion_during_tail, 1},
    {Path::longer_tail_dropped, 10},
    {Path::index_record_dropped, 1},
    {Path::trim_during_flush, 1},
    {Path::sled_back_after_epochs, 1},
    {Path::decode_with_another_set, 1},
    {Path::restarted_inside_lease, 10},
};

constexpr const char* kNotBuilt[][2] = {
    {"checkpoint refused as not on the survivor's history", "checkpoints"},
    {"fall-back checkpoint used with its delta", "checkpoints"},
    {"gateway resumes after its slots were reused", "the sweep: slots are not used again"},
    {"duplicate free", "the sweep"},
    {"write waits on the snapshot cut", "snapshots"},
};

}  // namespace

void PathTable::add(const SeedResult& r) {
  ++seeds_;
  for (std::size_t p = 0; p < r.paths.size(); ++p) {
    times_[p] += r.paths[p];
    reached_by_[p] += r.paths[p] != 0;
  }
}

void PathTable::print() const {
  std::printf("\n%-32s %8s %10s\n", "path", "seeds", "times");
  for (std::size_t p = 0; p < times_.size(); ++p)
    std::printf("%-32s %8llu %10llu\n", std::string(path_name(static_cast<Path>(p))).c_str(),
                static_cast<unsigned long long>(reached_by_[p]), static_cast<unsigned long long>(times_[p]));
  for (auto [what, why] : kNotBuilt) std::printf("%s: not built (%s)\n", what, why);
}

bool PathTable::enough() const {
  bool all = true;
  for (const Expected& e : kExpected) {
    std::uint64_t want = e.in_100 * (seeds_ / 100), got = reached_by_[static_cast<std::size_t>(e.path)];
    if (got >= want) continue;
    all = false;
    std::printf("path %s: reached by %llu of %llu seeds, expected at least %llu\n", std::string(path_name(e.path)).c_str(),
                static_cast<unsigned long long>(got), static_cast<unsigned long long>(seeds_), static_cast<unsigned long long>(want));
  }
  return all;
}

}  // namespace luge::sim
