// Switches that break one rule each, so that a test can show that it would notice. The product links
// switches_off.cpp, where every switch is off and cannot be turned on; the simulator and the sabotage build link
// switches_on.cpp, which reads LUGE_BREAK (names separated by commas) and lets a test set them at run time.
#pragma once

#include <string_view>

namespace luge {

enum class Switch {
  // Sabotage of the whole path (./demo --sabotage)
  lost_ack,      // a head acknowledges some writes that it has not logged
  wrong_parity,  // the gateway writes wrong parity under right CRCs and does not verify
  stale_read,    // a head now and then answers with the version before the newest
  skip_flush,    // a flush commits its index record without writing the stripe
  // Protocol mutants, by rule
  diverged_unchecked,            // 2.1
  read_at_append,                // 2.2
  free_at_append,                // 2.2
  no_session_fence,              // 2.3
  no_duplicate_table,            // 2.3
  merge_without_block_lock,      // 2.4
  left_forgotten,                // 5.2: a head does not remember what it has given up
  other_disk_believed,           // 5.2: who may have forgotten counts as one who remembers everything
  older_size_is_final,           // 2.3: what lies beyond the end that a head knows of is an error, though another primary may have seen it grow
  merge_trusts_memory,           // 2.4: what a partial write is laid over is summed anew, whatever it has become in memory
  ack_before_shrink,             // 3.1
  join_before_acks,              // 3.2
  acknowledges_one_copy,         // 3.3: also below min_copies
  union_forgotten,               // 3.2: a proposal without an answer is taken for one that was refused
  places_change_hands_for_ever,  // 3.4: who gets its own place back counts as a replacement of who stood in for it
  control_pause_stays,           // 3.4: the control plane's silence is told of for ever where what was asked for has come by its own word
  replacement_joins_at_once,     // 3.2  another head in a lost reserve's place counts before it has caught up
  last_copy_moves,               // 3.3: an operator is given what leaves too few copies
  moves_unconfirmed,             // an operator's move counts as done when its primary has been asked, whatever the store says
  latency_not_relative,          // 3.5: a member is slow by its own latency, whatever the primary's is
  latency_floor_ignored,         // 3.5: however little it is slower
  slow_without_revision,         // 3.5, 3.1: acknowledged without a slow member before a revision says so
  slow_never_restored,           // 3.5
  slow_below_min_copies,         // 3.5, 3.3: a slow member leaves though too few are left
  slow_member_cut_off,           // 3.5: a slow member gets no records any more
  slow_primary_kept,             // 3.5
  anybody_stands,                // 4.1: who is not in `required`, or no member at all, becomes primary
  longest_log_by_length,         // 4.2
  blank_promoted,                // 4.2: an empty replica opens the VP without the others
  newcomers_prove_emptiness,     // 4.2: who has taken another's place and holds nothing yet says that nothing was ever held
  first_opening_unrecorded,      // 4.2: what is acknowledged before the members have ever changed is zeros once all disks are lost
  only_required_asked,           // 4.2: a VP whose members are all empty, and that one of them has left, is never opened
  truncate_not_durable,          // 4.3
  open_before_all_hold_tail,     // 4.4
  restarted_primary_keeps_epoch, // 4.5
  old_epoch_taken,               // WR-13: records under a designation older than the newest that a reserve knows
  heard_primary_denied,          // 4.7: a survivor says nothing of the primary that it hears
  writes_wait_for_flush,         // WR-05: a write is taken when all before it are coded
  flush_triggers_ignored,        // FL-02, FL-03: a flush comes only when it is asked for
  silent_while_asking,           // 4.8: a primary that asks the control plane something sends no heartbeat meanwhile
  log_never_grows,               // 10.3: the metadata portion stays as it was made, whatever the volumes map
  full_store_fails_log,          // 10.3: a log fails where the store of its segments' table is full, and partitions may fill it
  failed_read_is_loss,           // 4.6, 9.4: a disk that did not answer has lost what was asked for
  failed_log_answers,            // 3.1: a head whose log has failed answers heartbeats as if it were well
  half_a_log_counts,             // 4.5: who has lost what it held is filled up record by record, and may open with what has come so far
  truncated_opening_counts,      // 2.3: an opening that was truncated counts where it is remembered, and nowhere else
  frozen_member_awaited,         // 3.1, 4.4: a member that keeps its connection and answers nothing is waited for
  answers_checksummed_anew,      // RD-02: of a block that has changed in a head's memory, readers are told the checksum of what it is now
  bad_memory_trusted,            // WR-06: what has changed in memory is sent again and again, though others say that it is damaged
  refused_op_brings_nothing,     // WR-01: the payload of a refused write is taken for that of the next one of its batch
  unread_answers_pile_up,        // a head reads on for a client that takes no answers
  failed_member_kept,            // FO-02: who answers that its log has failed is not replaced
  failed_member_awaited,         // 3.3: a member whose disk has failed is waited for like one that has gone for a moment
  stuck_log_kept,                // 3.5: a primary whose own log does not return a write stays primary
  stuck_member_awaited,          // 3.1: a member that answers but has nothing more durable is waited for without end
  unheard_counts_as_heard,       // 5.2: a head whose newer designation could not be adopted counts as having said what it knows
  taken_over_disk_returns,       // 2.3: a volume is attached by whom its export does not name
  attachments_unbounded,         // 2.3: a client may have a partition remember any number of attachments
  grown_size_told_early,         // a volume's new size is offered before its partitions have it
  incarnations_given_out_again,  // 2.3, 5.2: an older copy of the store counts a volume's attachments on from where it was copied
  older_store_makes_partitions,  // 5.2: an older copy of the store makes partitions anew that it has not heard of
  union_not_asked,               // 3.2: reads are confirmed by the old set alone while a proposal has no answer
  bad_sector_fails_device,       // RD-03: one read that fails takes the whole device away
  nothing_is_an_answer,          // 5.2: a head that holds nothing of a doubted VP has said what it knows of it
  rebuild_not_noted,             // 10.2: that a replica is being rebuilt is not written down
  made_anew_taken,               // 4.6: a VP that an older store has made anew takes the place of the one that is held
  images_wait_in_line,           // 10.3: images stand behind what waits for the segments that they would free
  images_get_a_share,            // 10.3: so many segments are kept for images, however large those are
  idle_images_stay,              // 10.3: images of partitions that do not change stay where they are
  sync_waits_for_space,          // 3.4: a member whose log is full waits for space in the middle of a synchronisation
  late_sync_taken,               // 3.4: a synchronisation that was given up goes on
  history_unchecked,             // 4.6: a replica of a history given up is built upon
  reads_unconfirmed,             // 6
  lease_from_receipt,            // 6.1: counted from the answer, not from the sending of what was answered
  lease_of_any_one,              // 6.1: the greatest over `required` instead of the smallest
  lease_forgotten_at_restart,    // 6.2
  unconditional_index_record,    // 7.2
  retry_on_same_slots,           // 8.1
  free_without_generation,       // 8.1
  no_sled_fence,                 // 8.2
  sled_forgets_fences,           // 8.2: only devices remember them, and those that are there may be the wrong ones
  segment_generation_unchecked,  // 10.2
  suspect_promoted,              // 10.2
  torn_end_forgotten,            // 10.2: where a recovery found the log's end is not written down
  reuse_before_image,            // 10.2: log space is reused while the image still names what was in it
  index_without_reserve,         // 10.3: what clients ask for may take all of the metadata portion
  store_loses_last_transaction,  // 5.1
  restored_store_promotes,       // 5.2: also before all members have answered
  // Checkpoints
  checkpoint_covers_uncommitted, // 9.1: it claims to be complete up to the log's end
  checkpoint_of_another_history, // 9.1: used though it does not lie on the survivor's list of epoch starts
  checkpoint_not_read_back,      // 9.3: it counts as soon as it has been written
  // Credentials (FN)
  signatures_unchecked,          // whatever calls itself a designation is taken for one
  credentials_unchecked,         // writes and frees need none
  roles_unchecked,               // a reserve gets credentials for whatever it asks
  epoch_not_raised,              // another head becomes primary within the epoch
  sleds_word_ignored,            // that it has been fenced off
  // Sandboxes (FL)
  sandbox_is_a_limit,            // nothing outside it is used
  flush_asks_for_space,          // though the sandbox has some
  sandbox_not_sent,              // to the primary
  metadata_trimmed_to_newest_checkpoint,  // 9.3: to the newest, not to the one before
  checkpoints_never_due,         // whatever has changed
  reserves_write_no_checkpoint,  // though all replicas shall
  checkpoints_unasked,           // reserves write some though the primary alone shall
  checkpoint_waits_for_flush,    // none is begun or counts while anything is unflushed
  checkpoint_not_asked_for,      // a replica is built anew from another alone
  checkpoint_needs_author,       // what a head that is down has written is not found
  unflushed_left_out,            // of what a replica is built from
  flushed_data_moves,            // it is kept in the logs, and sent to who builds a replica
  // Survivors act (architecture A5)
  no_survivor_stands,            // for a primary that is lost
  no_spare_chosen,               // for a reserve that is lost
  silent_head_unnoticed,         // pings that are not answered mean nothing
  survivors_not_told,            // that a head has failed
  designations_not_kept,         // over a restart of a head
  one_role_per_head,             // who is a primary takes no replica of another VP
  only_the_primary_asked,        // by a client that hears nothing of it
  // What only writes after the last operator's flush come to
  flush_holds_writes,            // a flush that was asked for lets no write go on when it has ended
  // What only long requests come to
  clear_stops_at_page,           // a trim ends where a page of the index does
  far_parts_forgotten,           // of a write across the end of a partition, what lies in the next one is answered for and not sent
  // What is noticed by nothing but a look at what the disks hold
  parity_never_written,          // the chunks of it are answered for, and sent to nobody
  log_tail_unwritten,            // of one batch in 32 the log on the disk lacks the last block
  chunk_denied,                  // a sled now and then says that it does not have a chunk that it has
  // Front ends
  no_tls_demand,                 // an address with TLS serves without it, too
  // Coders that are not trusted (8.7)
  card_parity_unverified,  // compared, and the result of it not heeded
  hung_card_waited_for,    // for ten minutes
  head_decodes,            // itself, whatever the sleds could do (A9)
  card_back_untested,      // after a fault it is used again without a self-test
  // DMA write records (A14)
  dma_unrecorded,           // nothing is recorded
  dma_records_lost,         // of 100 bursts of data one is not
  dma_function_unrecorded,  // those of function 1 are not
  dma_range_unrecorded,     // those into one block of 64 KiB are not
  dma_record_before_data,   // by 100 ms
  dma_overflow_ignored,     // the dirty log does not get all pages
  dma_reads_recorded,       // DWR-33: memory that the device has only read counts as written
  log_all_ignored,          // DWR-01: a migration's VHOST_F_LOG_ALL is acknowledged, and nothing is logged
  card_bus_unchecked,       // DWR-14, DWR-15: a card is taken wherever it is and whatever it answers
  // Replication of a virtual machine's state (docs/vm-replication.md)
  record_gap_ignored,        // DWR-18: a record that is missing in the ring is not noticed
  examined_before_copied,    // DWR-20: a slot is given back, and its record is copied when the reader comes by again
  examiner_pauses,           // no rule: for seconds nobody looks at the ring, so that it overflows
  record_counts_one_page,    // DWR-21: only for the page where it begins
  records_ignored,           // DWR-23: the device's records count for nothing
  records_dropped,           // one in a hundred
  records_of_function_lost,  // those of function 0
  records_of_range_dropped,  // those of one 64 KiB range: the first of which a record comes
  overflow_ignored,          // DWR-18
  processor_writes_ignored,  // DWR-23
  copied_at_scheduling,      // DWR-12: a record that came before its data counts at once, and once
  bits_cleared_after_copy,   // DWR-22
  record_outside_ignored,    // DWR-13: nothing is said of a record outside the machine's memory
  recording_after_first_pass,// DWR-24
  one_pass_only,             // DWR-25: the machine is paused after the first
  final_drain_left_out,      // DWR-26
  recording_left_on,         // DWR-27
  device_never_slowed,       // DWR-25: whatever it dirties
  other_function_recorded,   // DWR-28: all functions, not those of the machine
  page_checksums_unchecked,  // of a checkpoint
  written_blocks_ignored,    // of a disk that belongs to the checkpoint
  checkpoint_half_kept,      // DWR-32: one that was not committed counts
  store_space_reused_early,  // of a store on a volume: what the newest directory names is written over before there is another
  abandoned_requests_forgotten,  // DWR-26: what a volume that was lost has not done
  taken_pages_forgotten,     // DWR-23: those of the device, where the processor's can't be taken
  paused_machine_let_run,    // DWR-01: one that stood still before a checkpoint runs after it
  memory_restored_in_place,  // DWR-32: in the file that a machine may run in
  senders_share_a_part,      // DWR-32: two connections that send one checkpoint write one file
  // Flashing and firmware (CF)
  flip_before_verify,         // a slot boots before it was verified
  attempts_not_counted,       // an image that never passes its self-test starts for ever
  torn_image_booted,          // whatever its digest is
  image_signature_unchecked,
  revoked_key_taken,
  image_target_unchecked,     // board, revision, platform and version of an image count for nothing
  image_digests_unchecked,    // of its parts
  failed_card_ready,          // after a self-test that failed
  ring_owner_ignored,         // the controller tests the kernels under a host's jobs
  card_fence_ignored,         // a command under an old epoch is answered
  card_fence_forgotten,       // at a reset of the controller
  card_fault_forgotten,       // at a reset of the controller
  card_waits_long,            // a job of the self-test may take a hundred times as long
  count_
};

std::string_view switch_name(Switch s);
/// True: the rule is broken on purpose.
bool broken(Switch s);
/// Only in the builds with switches; elsewhere it ends the process.
void set_broken(Switch s, bool on);

}  // namespace luge
