// The primary's role for one VP in one epoch. Lives from the designation to the next epoch, or until this head learns
// that it has been fenced; its tasks hold it and end at `deposed()`.
//
//   open (promotion.cpp): collect -> adopt the greatest log -> EpochStart -> all of required hold it -> serve
//   write (primary_write.cpp): admit -> (merge) -> LSN -> own log and reserves in the same breath -> commit -> answer
//   read (primary_read.cpp): wait for commit -> look up -> confirm the epoch with required -> fetch -> answer
//   map (primary_map.cpp): which blocks hold data, as a read would find them
//   members (membership.cpp): synchronise, leave and join required
//   replacement (replacement.cpp): another head in the place of a reserve that is lost
//   moving (moving.cpp): another head in the place of one that an operator wants to be without
//   latency (latency.hpp, slow_members.cpp): members that answer late, and handing over when it is the primary that is slow
//   flush (flush.cpp): full stripes to the sleds, then an index record through the same log
//   widen (widen.cpp): the chunks that a stripe lacks, when their sleds are back
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "head/columns.hpp"
#include "head/latency.hpp"
#include "head/partition.hpp"
#include "wire/client_generated.h"

namespace luge::head {

using ChannelPtr = std::shared_ptr<wire::Channel>;

class Primary : public std::enable_shared_from_this<Primary> {
 public:
  Primary(Context& ctx, Partition& partition, Epoch epoch);
  ~Primary();
  void start();
  /// Ends the role; clients are told to look again.
  void depose(const std::string& why);
  bool deposed() const { return deposed_; }
  bool open() const { return open_ && !deposed_; }
  Epoch epoch() const { return epoch_; }

  // --- clients
  void open_session(ChannelPtr channel, wire::Frame frame, const fbs::OpenSession& request);
  void write(const ChannelPtr& channel, const fbs::WriteBatch& batch, const Buffer& payload);
  void read(const ChannelPtr& channel, const fbs::ReadBatch& batch);
  void map(const ChannelPtr& channel, const fbs::MapQuery& query);
  io::Task<Status> flush_everything(std::shared_ptr<Primary> self);
  /// Makes the VP larger: by a revision, as every change within an epoch. ok: all of required know it.
  io::Task<Status> grow(std::shared_ptr<Primary> self, std::uint64_t blocks);
  /// Another head takes the place of `from`: `to`, or 0: this one chooses. ok: `from` is no member (any more). If `from` is this head it
  /// hands over first and says unavailable: the next primary is to be asked. conflict, and nothing has changed: without what `from`
  /// has too few copies would be left; the text says what that would cost.
  io::Task<Status> move_copy(std::shared_ptr<Primary> self, NodeId from, NodeId to);

  // --- events
  void on_own_durable();
  void on_ack(NodeId member, const fbs::AckState& ack, std::uint16_t data_fill, std::uint16_t meta_fill);
  void on_connected(NodeId member);
  void on_disconnected(NodeId member);
  /// Space or permission to go on may have come.
  void pump();

  struct Counters {
    std::uint64_t read_memory = 0, read_log = 0, read_sled = 0, read_reconstructed = 0;
    std::uint64_t written_user = 0, written_log = 0, data_chunks = 0, parity_chunks = 0;
    std::uint64_t stripes = 0, widened = 0, duplicates = 0, merges = 0;
  };
  /// Nobody else can have opened yet (lease.hpp). False always with `reads = confirmed`.
  bool lease_holds() const;
  /// JSON objects {node, state, acked, lag, awaited, slow, latency_us}, separated by commas: how far each member has confirmed.
  std::string members_report() const;
  /// JSON objects {lost, by, waited_ms, took_ms}, separated by commas, of this epoch: from the failure agent's word to the choice of
  /// another head, and from there until that one was in `required`. Whose is not there yet has no took_ms.
  std::string replacements_report() const;
  /// Whom writes do not wait for although it is there, and why; empty: nobody.
  std::string slow_members() const;
  const Counters& counters() const { return counters_; }
  const Columns::Counters& column_counters() const { return columns_.counters(); }
  Counters& counters() { return counters_; }
  /// Stripes with live blocks and a chunk that is on no sled or on one that is not alive. Up to a second old where there are any.
  std::uint64_t degraded_stripes() const;
  std::string state_text() const;

 private:
  enum class MemberState { away, syncing, live };
  struct Member {
    NodeId id = 0;
    MemberState state = MemberState::away;
    Lsn acked = 0;
    io::Time left_live{};     // when it was live last, or became a member: a synchronisation that is tried again and again does not renew it
    io::Time last_ack{};
    io::Time heard{};         // when it last answered anything
    io::Time progress{};      // when it told last of something more that is durable, or was given something when nothing was outstanding
    io::Time granted{};       // sending of the newest message that this member has granted a lease for; 0: none
    bool joining = false;     // not required yet, but commits wait for it already (protocol 3.2)
    Lsn commit_seen = 0;      // commit LSN when it was looked at last
    bool failed = false;      // it has answered that its disk does not let it take part
    std::uint16_t data_fill = 0, meta_fill = 0;
  };
  struct Op {
    std::weak_ptr<wire::Channel> channel;
    RequestId request;
    std::uint64_t offset = 0;
    std::uint32_t length = 0;
    fbs::OpKind kind = fbs::OpKind::write;
    Buffer payload;
    std::vector<std::uint32_t> crcs;
    Lba first_lba() const { return offset / kBlockBytes; }
    Lba end_lba() const { return (offset + length + kBlockBytes - 1) / kBlockBytes; }
    bool aligned() const { return offset % kBlockBytes == 0 && length % kBlockBytes == 0; }
  };
  struct Replacement {
    NodeId lost = 0, by = 0;
    io::Time word{}, chosen{}, joined{};  // joined: 0 until it is in `required`
  };
  struct PendingAck {
    Lsn lsn = 0;
    std::weak_ptr<wire::Channel> channel;
    RequestId request;
  };
  struct Round;
  struct Source {
    Entry entry;
    RecordPtr record;
    Buffer memory{};               // its payload, if that is in memory
    std::shared_ptr<void> hold{};  // else its log space, until it has been read
  };
  /// Blocks as they lie in memory or came from log and sleds, in order, and the checksum that each was written with: whoever they go to
  /// checks them against what the client said, not against what this head made of them.
  struct Fetched {
    std::vector<Buffer> pieces;
    std::vector<std::uint32_t> crcs;  // one per block
    void checksum_anew();             // sabotage
  };
  struct ReadPart;
  struct ReadJob;
  struct ReadAnswer {
    std::shared_ptr<wire::Channel> channel;
    std::uint64_t tag;
    std::uint32_t blocks;
    bool zero;
    Status status;
    Fetched data;
    std::optional<io::Budget::Lease> memory;  // of `data`
  };

  // promotion.cpp
  io::Task<void> run(std::shared_ptr<Primary> self);
  struct Collected;
  io::Task<void> collect_from(NodeId n, const Designation& d, Collected& out);
  io::Task<Collected> collect_from(std::vector<NodeId> nodes, const Designation& d);
  io::Task<bool> never_open(const Designation& d);
  io::Task<bool> adopt_greatest_log();
  io::Task<bool> fetch_tail_from(NodeId member, LogPoint agreed, LogPoint theirs);
  bool everybody_holds(Lsn lsn) const;
  io::Task<bool> recorded_as_opened();
  io::Task<bool> wait_out_leases();
  void lost_records(const std::string& why);

  // membership.cpp
  void make_members();
  io::Task<void> sync_member(std::shared_ptr<Primary> self, NodeId id);
  io::Task<bool> sync_once(NodeId id);
  io::Task<LogPoint> ask_for_checkpoint(NodeId id);
  io::Task<bool> send_image(NodeId id, std::uint64_t turn, Partition::SyncFrom from, LogPoint& point);
  io::Task<void> tend(std::shared_ptr<Primary> self);
  /// The next revision, with these sets.
  io::Task<void> propose(std::vector<NodeId> required, std::vector<NodeId> reserves, const std::string& why);
  io::Task<bool> inform_kept();
  std::vector<NodeId> wanted_required(std::string& why) const;
  /// Commits wait for it: it is in `required`, or may be by a proposal whose fate or spreading is open.
  bool awaited(NodeId n) const { return partition_.designation().requires_node(n) || also_required_.contains(n); }
  bool fate_unknown() const;
  void note_answer(NodeId id, Code code);
  bool unheard(const Member& m) const;
  io::Task<bool> takes(std::shared_ptr<wire::Channel> channel);
  bool left_alone();
  void let_join(Member& m);
  bool behind_too_far(const Member& m) const;
  io::Task<void> judge_latency();
  bool own_log_stuck() const;
  io::Task<void> hand_over(NodeId to);
  void start_sync(NodeId id);
  void set_state(Member& m, MemberState s);
  Member* member(NodeId id);
  void no_room_at(NodeId id);
  static constexpr std::uint32_t kFull = 1000;  // fill of a log
  void heartbeat();
  /// Heartbeats for as long as turn `turn` of tend() waits for something.
  io::Task<void> beat(std::shared_ptr<Primary> self, std::uint64_t turn);

  // replacement.cpp
  NodeId spare_head() const;
  bool lost(NodeId n) const;
  std::vector<NodeId> wanted_reserves(std::string& why);
  void follow_members();
  void note_replacements();

  // moving.cpp
  bool up_to_date(const Member& m) const;
  bool stuck(const Member& m) const;
  Status may_go(NodeId n) const;
  NodeId live_reserve() const;
  bool can_take(NodeId n) const;

  // primary_write.cpp
  RecordPtr append(RecordKind kind, Lba lba, std::uint32_t blocks, const RequestId& request, std::string body, Buffer payload);
  void admit(Op op);
  /// The op gets its LSN (or an error) now.
  void unqueue(Op& op);
  enum class Room { there, no_data, no_metadata };
  Room room_for_data(bool& slow) const;
  bool too_much_in_flight() const;
  /// Below min_copies nothing new is taken and nothing is acknowledged (protocol 3.3).
  bool enough_copies() const;
  bool begin_op(Op& op);
  Status room_for(std::uint64_t attachment) const;
  Status check_op(const Op& op) const;
  static bool inside(std::uint64_t first, std::uint64_t count, std::uint64_t size) { return first <= size && count <= size - first; }
  Status beyond_end() const;
  void write_aligned(Op& op);
  io::Task<void> merge(std::shared_ptr<Primary> self, Op op);
  io::Task<Result<Buffer>> newest_block(Lba lba);
  io::Task<Result<Buffer>> merged_block(const Op& op, Lba lba);
  void append_merged(const Op& op, const std::map<Lba, Buffer>& blocks);
  void answer(const std::weak_ptr<wire::Channel>& channel, const RequestId& request, Code code);
  void flush_answers();
  void recompute_commit();
  io::Task<bool> wait_commit(Lsn lsn);
  bool touches_locked(const Op& op) const;

  // primary_read.cpp
  io::Task<void> serve(std::shared_ptr<Primary> self, std::shared_ptr<ReadJob> job);
  io::Task<std::optional<io::Budget::Lease>> room_to_read(std::shared_ptr<ReadJob> job, std::uint64_t bytes);
  static io::Task<void> serve_part(Primary& primary, std::shared_ptr<ReadJob> job, ReadPart& part);
  struct StripeRun {
    std::uint64_t stripe;
    std::uint32_t block, count;
    std::size_t at, piece;  // the first one's place among the blocks that are fetched, and the run's among the pieces
  };
  Source source_of(Entry committed) const;
  /// Reads committed blocks from lba on by their index entries. Errors as StripeReader::read() and Partition::payload().
  io::Task<Status> fetch(std::vector<Source> sources, Lba lba, Fetched& out);
  io::Task<Status> read_record(const Source& source, Lba lba, Buffer& out, std::span<std::uint32_t> crcs);
  static io::Task<Status> read_run(Primary& primary, StripeRun run, Lba first, Fetched& out);
  void send_read_answers();
  io::Task<bool> confirm();
  io::Task<void> run_rounds(std::shared_ptr<Primary> self);

  // primary_map.cpp
  struct MapJob;
  io::Task<void> answer_map(std::shared_ptr<Primary> self, MapJob job);

  // flush.cpp
  io::Task<void> flush_loop(std::shared_ptr<Primary> self);
  std::uint32_t log_fill() const;
  bool flush_due(bool& partial);
  std::size_t stripes_at_once() const;
  io::Task<std::uint64_t> flush_some(bool partial);

  // widen.cpp
  io::Task<void> widen_loop(std::shared_ptr<Primary> self);
  io::Task<Status> widen(std::uint64_t number);
  std::string row_record(std::uint64_t number, const StripeRow& row) const;

 public:
  Context& ctx() { return ctx_; }
  Partition& partition() { return partition_; }
  Replica& replica() { return partition_.replica; }

 private:
  Context& ctx_;
  Partition& partition_;
  Epoch epoch_;
  bool deposed_ = false;
  bool begun_ = false;  // all of `required` hold the start of the epoch
  bool open_ = false;
  std::string state_ = "opening";
  std::map<NodeId, Member> members_;
  std::vector<NodeId> members_of_;  // the reserves that members_ was made of
  LatencyWatch latency_;
  bool handing_over_ = false;       // nothing new is begun
  std::set<NodeId> also_required_;  // while a proposal's fate or its spreading is open: the union with the old set
  std::optional<Revision> open_proposal_;  // the revision expected by a proposal that has not been answered
  std::uint64_t wanted_blocks_ = 0; // the size that the next proposal is to have, if it is more than the present one
  std::optional<io::Time> alone_since_;
  std::map<NodeId, io::Time> lost_since_;  // reserves that the failure agent has given up
  std::map<NodeId, NodeId> replaced_;      // newcomer -> in whose place
  std::map<NodeId, std::uint64_t> failed_heads_;  // replaced since their logs had failed, and their incarnation then
  std::map<NodeId, NodeId> moving_;        // reserves that an operator wants to be without -> who shall take their place
  std::vector<Replacement> replacements_;
  std::set<NodeId> syncing_;        // a sync_member() runs for it, whether it is a member still or again
  std::uint64_t sync_turns_ = 0;    // begun, of all members
  std::uint64_t beat_turn_ = 0;
  std::deque<Op> incoming_;         // admitted in order, waiting for space
  std::vector<Op> blocked_;         // touch a block that a merge holds
  std::map<Lba, Lba> locked_;       // ranges [first, end) that a merge holds; they never overlap
  // (incarnation, sequence) of ops without an LSN yet, and where their answer goes now
  std::map<std::pair<std::uint64_t, std::uint64_t>, std::weak_ptr<wire::Channel>> queued_;
  std::deque<PendingAck> pending_acks_;
  std::deque<std::pair<Lsn, std::size_t>> in_flight_;  // payloads appended and not committed yet
  std::size_t in_flight_bytes_ = 0;  // their sum; part of Context::in_flight, which has the merges without a record too
  struct Answer { std::weak_ptr<wire::Channel> channel; RequestId request; Code code; };
  std::vector<Answer> answers_;
  bool answers_posted_ = false;
  std::vector<ReadAnswer> read_answers_;
  bool read_answers_posted_ = false;
  bool pump_armed_ = false;
  io::Event commit_changed_, members_changed_, flush_wake_, round_wake_;
  std::shared_ptr<Round> next_round_;
  Columns columns_;
  std::uint32_t flush_requests_ = 0;
  bool held_ = false;  // Switch::flush_holds_writes
  bool flush_failed_ = false;
  std::uint64_t next_stripe_number_ = 0;
  std::uint64_t appended_ = 0;       // records
  io::Time last_write_{}, last_flush_{};
  Counters counters_;
  std::uint64_t count_narrow() const;
  std::uint64_t count_degraded() const;
  mutable io::Time degraded_at_{};     // when it was counted
  mutable std::uint64_t degraded_ = 0;
};

}  // namespace luge::head
