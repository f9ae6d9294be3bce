// Places in the code that a test wants to know it has been to, and facts that an oracle checks from outside. The seam is
// that of the switches: the product links switches_off.cpp, where both calls are empty; the simulator links
// switches_on.cpp, counts, and may be told at once.
//
// A path is a place that is reached only when several things come together (protocol section 12, "rare paths"), or a
// moment at which a crash is of particular interest.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include "base/ids.hpp"
#include "switches/paths.hpp"

namespace luge {

enum class Path {
  // Rare paths, by rule of the protocol
  diverged_refused,              // 2.1  a record from the primary is not the one held under its LSN
  reader_waits_for_commit,       // 2.2
  late_write_of_old_session,     // 2.3  a write of an incarnation that has been closed
  retry_over_promotion,          // 2.3  a repeat of a request that was logged in an older epoch
  write_waits_for_merge,         // 2.4  a write of whole blocks meets the block lock of a partial one
  proposal_answer_lost,          // 3.2  the union of both sets is waited for
  reserve_fuller_than_primary,   // 10.3 a reserve's log, not the primary's own, asks for the flush
  swaps_collide,                 // 4.1  a primary's proposal and a promotion meet in the store; either may be first
  newer_than_store,              // 4.1  a member knows a greater revision than the store
  second_promotion_during_tail,  // 4.4  an epoch ends while its adopted tail is being given to the others
  longer_tail_dropped,           // 4.3  a primary of the past returns with records that nobody else has
  index_record_dropped,          // 4.3  one of those is an index record
  trim_during_flush,             // 7.2  a block was trimmed between the flush's look and its index record
  sled_back_after_epochs,        // 8.2  a sled that was away for two epochs or more is fenced again
  decode_with_another_set,       // 8.6  the first k chunks do not give the block
  // Other paths worth counting
  image_rebuild,                 // a member is rebuilt from an image
  suspect_after_replay,          // 10.2
  repaired_from_member,          // a payload that has gone bad in a head's own log
  narrow_stripe,                 // 8.5
  stranger,                      // 4.6  a replica learns that its history was given up
  blank_waits,                   // 4.2  a head that has lost its disk does not open the VP without the others
  restarted_inside_lease,        // 6.2  a head that has just restarted opens a VP
  late_sync_refused,             // 3.4  a message of a synchronisation that its primary has given up
  log_grown,                     // a metadata portion had no segment left, or its images had become too large for it
  metadata_gathered,             // images of all partitions were written anew, for those of idle ones held too many segments
  sync_without_room,             // a member's log has no room for the unflushed data of a synchronisation
  member_replaced,               // another head takes a lost reserve's place
  replaced_came_back,            // ... and gives it back, since the lost one has less to catch up with
  replacement_learned,           // ... and learns of it when it stands for primary, with a designation of the past
  left_for_good,                 // a head forgets a replica that another has in its place
  volume_grown,                  // a primary knows that a revision has made its VP larger
  copy_moved,                    // another head takes the place of one that an operator wants to be without
  attempt_of_unknown_end,        // 8.1  a stripe's gateway did not answer: fresh slots
  // Moments
  epoch_start_appended,
  truncate_logged,
  proposal_sent,
  image_sent,
  index_record_appended,
  segment_begun,
  stripe_spread,                 // a gateway begins to send the chunks
  fence_persisted,
  member_joined,                 // a primary knows that a revision has added a member to required
  member_left,                   // ... has let one go
  primary_opened,
  flush_gathered,                // slots are allocated, nothing has been sent
  slow_left,                     // a primary decides that writes shall not wait for a slow member
  slow_back,                     // ... that they shall again
  handed_over,                   // a slow primary has made a faster reserve the next
  store_doubted,                 // 5.2  a control plane finds that its store is an older copy
  tail_dropped,                  // a truncation is done
  store_rebuilt,                 // 5.2  a store that was lost has been made anew of what heads hold
  // Checkpoints
  checkpoint_asked_for,          // a member is to be rebuilt, and looks for one
  checkpoint_refused,            // 9.1  it does not lie on the survivor's history
  fall_back_checkpoint,          // 9.3  the newest is torn or corrupt: an older one is used, with its delta
  checkpoint_written,            // and read back
  checkpoint_loaded,             // a replica is rebuilt from one
  checkpoint_slot_freed,
  count_
};

std::string_view path_name(Path p);
/// The product: nothing.
void reached(Path p);

/// What daemons promise, for an oracle that remembers it beyond their crashes.
enum class Fact {
  epoch_adopted,    // a head has made the epoch durable
  record_taken,     // a head has taken a record from the primary of that epoch
  record_appended,  // a head has appended a record of that epoch, from wherever
  sled_fenced,      // a sled has answered that the epoch is durable there
  sled_changed,     // a sled has changed a slot or a column under that epoch
  opened,           // a primary has opened in that epoch
  acknowledged,     // a primary answers that a write is durable; the value is how many copies are required
  tail_dropped,     // a replica has let go of all beyond LSN `value`, in epoch `more`, and will say so
  rebuild_begun,    // what a replica holds does not count until ...
  image_taken,      // ... it has taken over an image of its primary's
  recovered,        // a replica has been read from its log: up to LSN `value`, whose epoch is `more`
  found_suspect,    // ... and is not to be trusted
  stored,           // the store has answered that a designation is durable: of epoch `value`, revision `more`
  found_stored,     // ... has begun with one
  chunk_missed,     // a sled has said, and will again, that it lacks data chunk `more` >> 48 of the stripe with the counter `value` and the
                    // epoch that the other bits of `more` are
};
/// The product: nothing. `value`: the epoch, unless the fact says otherwise.
void witnessed(Fact fact, VpId vp, std::uint64_t value, std::uint64_t more = 0);

// Only in the builds with switches; elsewhere they end the process.
std::uint64_t times_reached(Path p);
void on_reached(std::function<void(Path)> f);
using Witness = std::function<void(Fact, VpId, std::uint64_t value, std::uint64_t more)>;
void on_witnessed(Witness f);

}  // namespace luge
