#include "sim/cluster/mutants.hpp"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <map>
#include <sstream>
#include <vector>

#include "sim/cluster/runner.hpp"
#include "switches/switches.hpp"

namespace luge::sim {
namespace {

// Switches that no seed can show: the simulated unit does not come to their code, or another rule makes good for what they
// break. A test has each.
const std::map<Switch, const char*> kNotReached = {
    {Switch::free_without_generation, "nothing frees slots yet: the sweep is not built; sled_slots_test"},
    {Switch::sled_forgets_fences, "no sled loses one device and keeps the other; sled_known_devices_test"},
    {Switch::diverged_unchecked, "no fault brings a primary to send another record while the other rules hold; sim_head_test"},
    {Switch::blank_promoted, "needs more lost than a seed may lose; sim_loss_test"},
    {Switch::failed_member_kept, "copies are missed only where there is a spare; sim_replacement_test"},
    {Switch::control_pause_stays, "what a volume says of itself is not judged; sim_replacement_test"},
    {Switch::left_forgotten, "needs an older copy of the store, and all that the partition has moved to gone; sim_store_test"},
    {Switch::other_disk_believed, "needs an older copy of the store, and a head's disk lost where it alone knew; sim_store_test"},
    {Switch::older_size_is_final, "a volume grows under the next primary while a front end still speaks to the one before in few seeds (4 with --operators); sim_fencing_test"},
    {Switch::merge_trusts_memory, "no bit turns over in a seed's memory; sim_bad_memory_test"},
    {Switch::places_change_hands_for_ever, "a head must come back just before its replacement has caught up (485 did, once); sim_replacement_test"},
    {Switch::first_opening_unrecorded, "needs more lost than a seed may lose; sim_first_opening_test"},
    {Switch::newcomers_prove_emptiness, "needs more lost than a seed may lose; sim_replacement_test"},
    {Switch::only_required_asked, "no seed counts on the first opening of a volume; sim_first_opening_test"},
    {Switch::history_unchecked, "no operator accepts loss in a seed; sim_loss_test"},
    {Switch::replacement_joins_at_once, "who is new is blank or suspect until it has caught up, and neither opens a VP; store_test"},
    {Switch::torn_end_forgotten, "a torn batch is looked at again only when later segments have been used twice; segment_log_test"},
    {Switch::union_forgotten, "seed 53 showed it before there were checkpoints; sim_no_control_test"},
    {Switch::full_store_fails_log, "few seeds have hundreds of volumes; SegmentLog.WaitsWhileTheStoreOfItsTableIsFull"},
    {Switch::log_never_grows, "volumes of a seed are small, and most seeds forbid it; sim_metadata_growth_test"},
    {Switch::images_get_a_share, "volumes of a seed are small; segment_log_test, sim_metadata_growth_test"},
    {Switch::idle_images_stay, "growth makes good for it where it is allowed; sim_metadata_growth_test"},
    {Switch::sync_waits_for_space, "seeds come to a log that full only now and then (1189 did); sim_head_test"},
    {Switch::heard_primary_denied, "a take-over too many is no error; sim_head_test"},
    {Switch::writes_wait_for_flush, "late writes are no error; sim_flush_test"},
    {Switch::flush_triggers_ignored, "a log that is full for ever is no error while nobody waits; sim_flush_test"},
    {Switch::silent_while_asking, "reads without a lease ask the members instead; sim_no_control_test"},
    {Switch::late_sync_taken, "its messages must be overtaken by all of a later one; sim_head_test"},
    {Switch::longest_log_by_length, "an epoch begins behind all required logs, so the longest of them is also the latest; sim_head_test"},
    {Switch::checkpoint_covers_uncommitted, "no seed is known yet; checkpoint_test"},
    {Switch::checkpoint_of_another_history, "no operator accepts a loss in a seed; checkpoint_test"},
    {Switch::checkpoint_not_read_back, "others of the same metadata stand in for a bad one; sim_checkpoint_test"},
    {Switch::metadata_trimmed_to_newest_checkpoint, "what cannot be told as changes is told as pages, with the same result; sim_checkpoint_test"},
    {Switch::checkpoints_never_due, "all of it then comes from another replica; sim_checkpoint_test"},
    {Switch::reserves_write_no_checkpoint, "the primary's are used; sim_checkpoint_test"},
    {Switch::checkpoints_unasked, "one more does no harm; sim_checkpoint_test"},
    {Switch::checkpoint_waits_for_flush, "a late one is no error; sim_checkpoint_test"},
    {Switch::checkpoint_not_asked_for, "all of it then comes from another replica; sim_checkpoint_test"},
    {Switch::checkpoint_needs_author, "all of it then comes from another replica; sim_checkpoint_test"},
    {Switch::unflushed_left_out, "an image that names what has not been sent is refused; sim_checkpoint_test"},
    {Switch::flushed_data_moves, "more than is needed does no harm; sim_checkpoint_test"},
    {Switch::designations_not_kept, "they come back with the next contact; sim_no_control_test"},
    {Switch::one_role_per_head, "no seed asks for that; sim_no_control_test"},
    {Switch::only_the_primary_asked, "the control plane tells who is primary; client_volume_test"},
    {Switch::no_spare_chosen, "few heads of seeds are gone for good: none of the first 100 shows it; sim_checkpoint_test"},
    {Switch::hung_card_waited_for, "a hung card only makes a flush late, and flushes have no limit in a seed; guarded_coder_test"},
    {Switch::card_back_untested, "all is compared after a return, so a card that is wrong does no harm; guarded_coder_test"},
    {Switch::head_decodes, "who decodes changes no byte; demo.py"},
    {Switch::signatures_unchecked, "nobody forges a designation in a seed; sled_credentials_test"},
    {Switch::credentials_unchecked, "nobody writes without one in a seed; sled_credentials_test"},
    {Switch::roles_unchecked, "no reserve asks for more than its own in a seed; sled_credentials_test"},
    {Switch::epoch_not_raised, "every candidate asks for another epoch; store_test"},
    {Switch::sleds_word_ignored, "what a primary of the past flushes is refused all the same; sim_fencing_test"},
    {Switch::sandbox_is_a_limit, "no seed fills its sandbox; sim_sandbox_test"},
    {Switch::flush_asks_for_space, "to ask breaks no promise but that nobody is asked; sim_sandbox_test"},
    {Switch::sandbox_not_sent, "any column will do; sim_sandbox_test"},
    {Switch::no_tls_demand, "no NBD client in the simulated unit; nbd_structured_test"},
    {Switch::latency_not_relative, "no seed asks how often a set changes; sim_latency_test"},
    {Switch::latency_floor_ignored, "no seed asks how often a set changes; sim_latency_test"},
    {Switch::failed_read_is_loss, "no operator accepts a loss in the moment in which a disk gives errors; sim_failed_disk_test"},
    {Switch::failed_log_answers, "a head whose disk gave errors is restarted at the heal; sim_failed_disk_test"},
    {Switch::half_a_log_counts, "an empty disk gets its records within milliseconds; sim_lost_disk_test"},
    {Switch::truncated_opening_counts, "three changes of the primary in one order; sim_take_over_test"},
    {Switch::frozen_member_awaited, "who stands still goes on before the end; sim_frozen_member_test"},
    {Switch::answers_checksummed_anew, "no head's memory goes bad in a seed; sim_bad_memory_test"},
    {Switch::bad_memory_trusted, "no head's memory goes bad in a seed; sim_bad_memory_test"},
    {Switch::refused_op_brings_nothing, "a client that knows the size is refused nothing; sim_client_batch_test"},
    {Switch::unread_answers_pile_up, "clients of the simulated unit take their answers; sim_client_batch_test"},
    {Switch::failed_member_awaited, "a head whose disk gave errors is restarted at the heal; sim_failed_disk_test"},
    {Switch::stuck_log_kept, "a disk that hangs answers at the heal; sim_failed_disk_test"},
    {Switch::stuck_member_awaited, "a disk that hangs answers at the heal; sim_failed_disk_test"},
    {Switch::unheard_counts_as_heard, "all that heads of a seed know can be taken over; sim_store_test"},
    {Switch::taken_over_disk_returns, "no seed has exports; control_test"},
    {Switch::attachments_unbounded, "no client of a seed makes attachments up; sim_fencing_test"},
    {Switch::grown_size_told_early, "whom operators of a seed tell the size has it from an answer; control_test"},
    {Switch::incarnations_given_out_again, "seeds restore a copy that is a moment old; sim_store_test"},
    {Switch::older_store_makes_partitions, "no seed is known yet that makes a volume larger and sets the store back just then; sim_store_test"},
    {Switch::index_without_reserve, "images have segments of their own, and free some: only long seeds (1971) run out of them; sim_metadata_growth_test"},
    {Switch::union_not_asked, "no seed cuts a joiner off from its primary while its proposal has no answer; sim_no_control_test"},
    {Switch::bad_sector_fails_device, "costs redundancy, breaks no promise; slots_test"},
    {Switch::nothing_is_an_answer, "no seed moves a partition to other heads altogether and then sets the store back; sim_store_test"},
    {Switch::rebuild_not_noted, "needs a burst that no other batch knows the commit of; sim_loss_test"},
    {Switch::made_anew_taken, "no seed is known yet that makes a volume larger and sets the store back just then; sim_store_test"},
    {Switch::images_wait_in_line, "a metadata portion is rarely full; segment_log_test"},
    {Switch::slow_below_min_copies, "too few copies stop the writes, and the heal comes; sim_latency_test"},
    {Switch::slow_member_cut_off, "who gets no records is caught up with after the heal; sim_latency_test"},
    {Switch::slow_primary_kept, "slow writes are no error; sim_latency_test"},
    {Switch::last_copy_moves, "no seed is known yet in which the others die at once; sim_move_test"},
    {Switch::no_survivor_stands, "the control plane comes back and promotes; sim_checkpoint_test"},
    {Switch::silent_head_unnoticed, "others notice when a connection ends; control_test"},
    {Switch::survivors_not_told, "they notice themselves; control_test"},
};

// Empty: seeds are to find it.
std::string why_not_reached(Switch which) {
  if (auto it = kNotReached.find(which); it != kNotReached.end()) return it->second;
  if (which >= Switch::dma_unrecorded) return "no guest and no controller of a card in the simulated unit; docs/requirements.md names its test";
  return {};
}

// Mutants of the protocol without a switch, for want of what they would break.
constexpr const char* kNotBuilt[][2] = {
    {"sweep-without-low-water-mark", "the sweep"},
    {"snapshot-without-a-cut", "snapshots"},
};

// The schedule that leads to the brink of what a switch breaks: seeds that draw it come first.
const std::map<Switch, const char*> kAimedAt = {
    {Switch::read_at_append, "seen-before-commit"},
    {Switch::no_session_fence, "two-views"},
    {Switch::ack_before_shrink, "lost-reserve"},
    {Switch::join_before_acks, "joiner-alone"},
    {Switch::truncate_not_durable, "dropped-tail"},
    {Switch::open_before_all_hold_tail, "opened-early"},
    {Switch::reads_unconfirmed, "two-views"},
    {Switch::no_sled_fence, "late-flush"},
    {Switch::reuse_before_image, "log-reused"},
    {Switch::torn_end_forgotten, "log-reused"},
    {Switch::restored_store_promotes, "store-forgets"},
    {Switch::slow_without_revision, "slow-reserve"},
    {Switch::lease_from_receipt, "late-answers"},
    {Switch::lease_forgotten_at_restart, "restart-in-lease"},
    {Switch::suspect_promoted, "rotten-log"},
    {Switch::anybody_stands, "replaced-returns"},
};

struct Row {
  std::vector<std::uint64_t> seeds;
};

std::map<std::string, Row> read_table(const std::string& path) {
  std::map<std::string, Row> rows;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line.substr(0, line.find('#')));
    std::string name;
    if (!(words >> name)) continue;
    for (std::uint64_t seed; words >> seed;) rows[name].seeds.push_back(seed);
  }
  return rows;
}

void write_table(const std::string& path, const std::map<std::string, Row>& rows) {
  std::ofstream out(path);
  out << "# Seeds that notice each broken rule, quickest first. Written by: luge-sim mutants --write --table THIS_FILE\n";
  for (const auto& [name, row] : rows) {
    out << name;
    for (std::uint64_t s : row.seeds) out << ' ' << s;
    out << '\n';
  }
  if (!out.flush()) std::fprintf(stderr, "luge-sim: cannot write %s\n", path.c_str());
}

struct Caught {
  std::vector<SeedResult> by;
  std::uint64_t tried = 0;
};

Caught look_for(Switch which, const std::vector<std::uint64_t>& known, const MutantRun& run) {
  std::string name(switch_name(which));
  std::vector<std::uint64_t> seeds = known;
  for (std::uint64_t s = 1; seeds.size() < run.limit; ++s)
    if (std::find(known.begin(), known.end(), s) == known.end()) seeds.push_back(s);
  if (auto aim = kAimedAt.find(which); aim != kAimedAt.end())
    std::stable_partition(seeds.begin() + static_cast<std::ptrdiff_t>(std::min(known.size(), seeds.size())), seeds.end(),
                          [&](std::uint64_t s) { return ClusterOptions::from_seed(s).schedule == aim->second; });
  Overrides overrides;
  overrides.broken = name;
  Caught c;
  run_seeds(seeds, overrides, run.jobs, 300, [&](const SeedResult& r) {
    ++c.tried;
    if (!r.ok) c.by.push_back(r);
    return c.by.size() < run.wanted;
  });
  return c;
}

}  // namespace

int run_mutants(const MutantRun& run) {
  std::map<std::string, Row> known, found;
  if (!run.table.empty()) known = read_table(run.table);
  if (!run.only.empty()) found = known;
  int missed = 0;
  auto start = std::chrono::steady_clock::now();
  for (std::size_t i = 0; i < static_cast<std::size_t>(Switch::count_); ++i) {
    auto which = static_cast<Switch>(i);
    std::string name(switch_name(which));
    if (!run.only.empty() && run.only != name) continue;
    if (std::string why = why_not_reached(which); !why.empty()) {
      std::printf("%-32s by a test:  %s\n", name.c_str(), why.c_str());
      continue;
    }
    if (run.known_only && known[name].seeds.empty()) {
      ++missed;
      std::printf("%-32s OPEN: no seed is known that notices, and no test is named\n", name.c_str());
      continue;
    }
    Caught c = look_for(which, known[name].seeds, run);
    if (c.by.empty()) {
      ++missed;
      std::printf("%-32s NOT CAUGHT by %llu seeds\n", name.c_str(), static_cast<unsigned long long>(c.tried));
    } else {
      const SeedResult& first = c.by.front();
      std::printf("%-32s seed %-5llu after %-4llu %s\n", name.c_str(), static_cast<unsigned long long>(first.seed),
                  static_cast<unsigned long long>(c.tried), first.reason().substr(0, 110).c_str());
      std::sort(c.by.begin(), c.by.end(), [](auto& a, auto& b) { return a.cpu_seconds < b.cpu_seconds; });
      found[name].seeds.clear();
      for (const SeedResult& r : c.by) found[name].seeds.push_back(r.seed);
    }
    std::fflush(stdout);
  }
  if (run.only.empty())
    for (auto [name, what] : kNotBuilt) std::printf("%-32s not built: %s\n", name, what);
  if (run.write) write_table(run.table, found);
  std::printf("%.0f s, %d not caught\n", std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), missed);
  return missed == 0 ? 0 : 1;
}

}  // namespace luge::sim
