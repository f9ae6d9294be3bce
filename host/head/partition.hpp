// One VP on this head: its replica, what the head durably knows of its designation, and its role.
//
// Invariants
// - A designation is persisted before it is acted upon; an older one is never adopted (FN-08's rule at a head).
// - A head that restarts, or that has been deposed, has lost its primary role: it is primary only in epochs above
//   `ended_epoch` (protocol 4.5).
// - A reserve takes records only in the epoch in which its primary has synchronised it (`synced_epoch`).
// - What a replica holds belongs to one history. Designated in another (an operator has accepted loss, protocol 4.6), it is a
//   *stranger* there, durably so: it counts for nothing until it has been rebuilt, or, being the primary, begins the new
//   history with what it has.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "head/checkpoint_catalog.hpp"
#include "head/context.hpp"
#include "head/lease.hpp"
#include "head/reasons.hpp"
#include "head/replica.hpp"
#include "wire/control_generated.h"
#include "wire/replica_generated.h"

namespace luge::head {

class Checkpoints;
class Primary;

/// In the head's metadata store: present, with the reason, while what it holds of the VP is known not to count, whatever its
/// log says: it belongs to a history given up, or the log was found damaged where it could not be told whose records are gone.
std::string unsound_key(VpId vp);
/// What is left of `required` does not go on alone before this: a partner that merely restarts is back by then.
inline constexpr io::Duration kAlonePatience = std::chrono::seconds(2);
inline constexpr const char* kGivenUp = "it holds a history that was given up";

class Partition {
 public:
  Partition(Context& ctx, VpId vp);
  ~Partition();

  Context& ctx;
  Replica replica;
  Epoch ended_epoch = 0;    ///< held durably when this process started, or one in which it was deposed since
  Epoch synced_epoch = 0;
  io::Time heard_primary{}; ///< last message of the present primary
  io::Time granted_until{}; ///< until then another may answer reads (lease.hpp): no epoch is opened here
  std::shared_ptr<Primary> primary;
  std::unique_ptr<Checkpoints> checkpoints;  ///< of this replica, to the sleds
  /// Bytes that the present state of this replica was put together from when it was rebuilt or caught up last, by their source.
  struct Sources {
    std::uint64_t checkpoint = 0, metadata = 0, unflushed = 0;  ///< from the sleds; from another head
    std::uint32_t index_pages = 0;                              ///< whole ones, from another head; part of metadata
    NodeId author = 0;                                          ///< of the checkpoint; 0: none was used
    Lsn lsn = 0;                                                ///< that it is complete to
    std::uint64_t records = 0;                                  ///< of all records behind it, up to the image's point: headers and bodies
  } sources;
  std::vector<fbs::SandboxColumn> sandbox;
  Reasons waits;            ///< why the VP does not serve, for status
  bool dropped = false;
  bool unsound = false;   ///< durably suspect (unsound_key), until it has been rebuilt
  bool stranger = false;  ///< so, because it holds a history that has been given up

  const Designation& designation() const { return replica.designation; }
  /// Persists `d` if it is newer than what is held, then acts on it. Ok also if it was not newer.
  io::Task<Status> adopt(Designation d);
  /// No designation is stored while this is held.
  io::Task<io::Mutex::Guard> adopting() { return adopting_.lock(); }
  /// Starts the task that promotes, opens and takes over. Call once.
  void start();
  void wake() { wake_.notify_all(); }
  bool is_primary() const;

  // --- reserve.cpp: what a primary asks of its reserves
  Code check_epoch(Epoch epoch) const;
  io::Task<wire::Frame> collect(const fbs::Collect& request);
  /// Grants the sender a lease too.
  void replicate_state(const fbs::VpState& state);
  /// unavailable: not the next one, or beyond the size that is known here; the primary synchronises this replica again.
  Code replicate_record(RecordPtr record);
  /// Does it lie inside the VP, as large as this replica knows it?
  bool inside(const Record& record) const;
  /// `granted`: see AckState.
  fbs::AckState ack_state(Code code, std::uint64_t granted = 0) const;
  /// `limit` kOneRecord: the asker's own copy is bad; what is bad here too is not asked for elsewhere again.
  io::Task<wire::Frame> fetch_tail(Epoch epoch, Lsn after, std::uint32_t limit);
  static constexpr std::uint32_t kOneRecord = 1;
  /// One attempt of a primary to synchronise this replica. Later attempts are greater.
  struct SyncTurn {
    Epoch epoch = 0;
    std::uint64_t turn = 0;
    auto operator<=>(const SyncTurn&) const = default;
  };
  io::Task<wire::Frame> load_checkpoint(Epoch epoch, CheckpointQuery query);
  /// How the member begins: with what it has up to `agreed`; with nothing; with the checkpoint that it has loaded, of that point.
  enum class SyncFrom { own_log, nothing, checkpoint };
  io::Task<wire::Frame> sync_begin(SyncTurn turn, LogPoint agreed, SyncFrom from);
  io::Task<wire::Frame> sync_part(SyncTurn turn, std::vector<RecordPtr> records);
  io::Task<wire::Frame> sync_end(SyncTurn turn, LogPoint point);
  wire::Frame alive_query(Epoch epoch, Revision revision) const;

  /// Appends to replica and log.
  void append(RecordPtr record);
  /// A replica's own record (truncate, image): durable when it returns; the segment it stands in.
  io::Task<Status> append_local(RecordPtr record, std::uint32_t* segment = nullptr);
  /// A batch has become durable: settle() each of its records (who holds its log space), then on_durable() each. Not
  /// one by one: committing the first may apply and forget the others.
  void settle(const RecordPtr& record);
  void on_durable(const RecordPtr& record);
  io::Task<Status> wait_durable(Lsn lsn);
  /// Durably drops the tail beyond `to` (protocol 4.3). unavailable: the log is not what it was any more (another epoch has
  /// begun, or it ends before `to`): agree on a point again.
  io::Task<Status> truncate(LogPoint to);
  /// Durably declares all that this replica has logged so far void (before an image of another replica's replaces it).
  io::Task<Status> void_everything();
  /// Takes over what has been staged (Replica::stage) and makes it durable as an image of its own.
  io::Task<Status> complete_delta(SyncTurn turn);
  /// A stranger that is designated primary begins the new history with what it has (history.cpp). Durable when it returns.
  io::Task<Status> begin_history();
  /// What is held now counts again (no longer suspect), durably. REQUIRES: it is an image of the designation's history.
  io::Task<Status> sound_again();
  /// Writes the committed metadata as an image into the metadata portion and frees what it covers.
  io::Task<Status> write_image();
  /// Rises whenever all that this replica held is given up for something else.
  std::uint64_t resets() const { return resets_; }
  /// Payload of blocks [first, first + count) of a record: memory, log, or (rot) another member. degraded: the copy here is
  /// bad, and a member that may have a good one does not answer. corrupt: no copy is good.
  io::Task<Result<Buffer>> payload(RecordPtr record, std::uint32_t first, std::uint32_t count, bool ask_others = true);
  /// All blocks of a record for another replica, which takes none that do not match their checksums: memory is looked at first.
  io::Task<Result<Buffer>> sound_payload(RecordPtr record, bool ask_others = true);
  /// Somebody says that blocks of the record do not match their checksums: if it is this head's memory that has gone bad, it is not read
  /// any more. Nobody compares what is in memory each time.
  void check_memory(Lsn lsn);

  /// Keeps a durable record's log space until the last copy of the answer is gone; null if it is not durable.
  std::shared_ptr<void> hold(const Record& record);

  io::Event durable_changed;
  /// What has come of an image gives its log space back.
  void forget_incoming_image();

 private:
  struct Unreadable {
    std::vector<std::pair<Lba, Lsn>> blocks;  // known to be bad, with the LSN of the record that is to hold them
    Status failed_read;                       // not ok: of others nothing is known, the disk did not answer
  };
  io::Task<Unreadable> unreadable_blocks(bool ask_others);
  Code failed_read_means(const Record& record, std::uint32_t first, std::uint32_t count);
  struct FailedReads {
    io::Time since, last;
  };
  std::map<std::tuple<Epoch, Lsn, std::uint32_t, std::uint32_t>, FailedReads> failed_reads_;  // by record, first block and blocks
  io::Time forget_failed_reads_{};
  io::Task<bool> sound();
  void become_stranger(const Designation& d);
  Status refused(SyncTurn turn) const;
  io::Task<Status> begin_sync(SyncTurn turn, LogPoint agreed, SyncFrom from);
  io::Task<Status> take_over_checkpoint(LogPoint point);
  io::Task<Status> forget_all();
  io::Task<Status> take_part(SyncTurn turn, std::vector<RecordPtr> records);
  io::Task<Status> complete_image(LogPoint point);
  io::Task<Status> truncate_locked(LogPoint to);
  io::Task<Status> log_truncate(LogPoint to, Lsn voided);
  io::Task<Status> begin_image(const RecordPtr& record);
  io::Task<Status> image_record(const RecordPtr& record);
  io::Task<Status> unflushed_records(std::vector<RecordPtr> records);
  io::Task<void> supervise();
  io::Task<void> stand();  // takeover.cpp
  io::Task<Result<RecordPtr>> fetch_from_member(RecordPtr record);
  bool should_stand(io::Time now, io::Duration& wait) const;
  io::Event wake_;
  io::Mutex adopting_;
  std::optional<io::Time> alone_since_;  // standing, with fewer complete members reachable than min_copies
  bool imaging_ = false;
  std::uint64_t resets_ = 0;     // of the replica: an image of what was before is not written on
  std::optional<LoadedCheckpoint> loaded_;  // counts once sync_begin() names its point
  std::uint64_t stood_on_ = 0;   // Replica::logged() then
  Lsn stands_on_ = 0;            // this replica is what the checkpoint of that point says and no more; 0: it is not
  std::vector<std::uint32_t> incoming_image_segments_;
  SyncTurn sync_turn_;           // the greatest that has begun: what an earlier one began does not count any more
  // Held over each change of the log that is not an append: what one step has made durable, no other step comes before in
  // memory.
  io::Mutex rebuilding_;
};

}  // namespace luge::head
