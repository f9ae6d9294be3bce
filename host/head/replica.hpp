// One VP's replica on this head, primary or reserve alike: the log sequence it holds, what of it is committed, and
// the metadata that the committed part adds up to (index, stripe table, sessions).
//
// Invariants
// - LSNs are dense: append() takes exactly last().lsn + 1. Records above commit() are the *tail*; only the tail is
//   ever truncated.
// - Index, stripe table, sessions' effect and freeing rest on committed records only (protocol 2.2): a record is
//   applied when commit() reaches it, in LSN order, so equal commit LSNs mean equal indexes on all replicas.
// - A data record's log space is released when no index entry names its LSN any more (and it is not pinned).
// No I/O here: the head moves records to and from the log and the wire.
#pragma once

#include <absl/container/btree_map.h>
#include <absl/container/flat_hash_map.h>

#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "head/image_cut.hpp"
#include "head/index.hpp"
#include "head/record.hpp"
#include "head/sessions.hpp"
#include "head/stripe_row.hpp"
#include "wire/designation.hpp"

namespace luge::head {

using wire::Designation;

/// What of a VP lies on one sled. Data blocks that the index names, and the chunks, parity included, of all stripes in
/// the table: what is superseded takes its place still.
struct SledShare {
  std::uint64_t live_blocks = 0;
  std::uint64_t chunks = 0;
};

struct EpochStart {
  Epoch epoch = 0;
  Lsn lsn = 0;
  bool operator==(const EpochStart&) const = default;
};

class Replica {
 public:
  explicit Replica(VpId vp) : vp_(vp) {}

  VpId vp() const { return vp_; }
  Designation designation;

  // --- the log sequence
  LogPoint last() const { return last_; }
  Lsn durable() const { return durable_; }
  Lsn commit() const { return commit_; }
  /// Oldest LSN from which records() has every record without a gap.
  Lsn window() const { return window_; }
  const std::vector<EpochStart>& starts() const { return starts_; }
  /// Loss was accepted for this replica's sake (protocol 4.6): all it holds is committed, what its index names and the log
  /// has not is marked as lost, and so are the blocks `unreadable` (LBA and the LSN that they have gone bad in); a new history
  /// begins at `start`. Returns the number of blocks lost.
  /// REQUIRES: durable() == last().lsn, start beyond last() and beyond any LSN of a history given up.
  std::uint64_t begin_history(LogPoint start, const std::vector<std::pair<Lba, Lsn>>& unreadable);
  /// Holds nothing at all. Whoever is in `required` then has lost its disk, or nobody has ever opened the VP.
  bool blank() const { return last_.lsn == 0; }
  bool suspect = false;       ///< lost acknowledged records; never promoted, repaired from another (protocol 10.2)
  std::string suspect_reason;

  /// REQUIRES: record->lsn() == last().lsn + 1.
  void append(RecordPtr record);
  /// The record of `lsn`, if it is still kept.
  RecordPtr find(Lsn lsn) const;
  void on_durable(const Record& record);
  /// Everything up to `lsn` is durable on all of `required`. Remembered and acted upon as far as durable() goes.
  void advance_commit(Lsn lsn);
  Lsn known_commit() const { return known_commit_; }
  /// Drops the tail beyond `to`. REQUIRES: to.lsn >= commit().
  void truncate(LogPoint to);
  /// The last point that this log and a log with those starts and that end have in common.
  LogPoint common_point(const std::vector<EpochStart>& other_starts, LogPoint other_last) const;
  /// Epoch of the record at `lsn` by the list of starts.
  Epoch epoch_at(Lsn lsn) const;

  // --- what readers and the flush see
  struct Newest {
    Entry committed;
    Lsn tail = 0;  ///< newest uncommitted record that touches the block, 0: none
  };
  Newest newest(Lba lba) const;
  const Index& index() const { return index_; }
  const StripeRow* stripe(std::uint64_t number) const;
  const absl::btree_map<std::uint64_t, StripeRow>& stripes() const { return stripes_; }
  std::uint64_t next_stripe() const { return next_stripe_; }
  /// Stripes that were written with fewer chunks than their layout asks for.
  const std::set<std::uint64_t>& narrow_stripes() const { return narrow_; }
  /// Kept up with every change: a report, of which there are several a second, costs the number of sleds and not that of
  /// stripes. Valid after recount() where an image was loaded.
  const absl::btree_map<NodeId, SledShare>& sled_shares() const { return sled_shares_; }
  std::uint64_t unflushed_blocks() const { return unflushed_blocks_; }
  const absl::btree_map<Lsn, RecordPtr>& records() const { return records_; }
  Lsn oldest_unflushed() const;
  /// Does any record up to `lsn` still hold data that only the log has?
  bool unflushed_up_to(Lsn lsn) const;
  Sessions sessions;            ///< as of last(), tail included: a repeat of an uncommitted request is a repeat

  // --- space
  /// A record gives its log space back: portion, segment, and the LSN that made it superfluous. An image that covers the
  /// record but not that LSN still names the record.
  std::function<void(Portion, std::uint32_t, Lsn)> release;
  /// Keeps all records from `lsn` on for a member that is being synchronised; 0: none any more for that member.
  void pin(NodeId member, Lsn lsn);
  /// The VP is gone: all log space it holds goes back.
  void release_everything();
  std::uint64_t payload_bytes_in_memory() const { return payload_bytes_; }
  /// Replaces what memory holds of a record's payload; an empty buffer: the log has it.
  void keep_payload(Record& record, Buffer payload);
  /// Forgets durable payloads, oldest first, until `bytes` are freed; returns what was.
  std::uint64_t drop_payloads(std::uint64_t bytes);

  // --- images: the committed metadata (local cleaning: all; catch-up: what changed after `base`)
  struct Image {
    LogPoint point;
    std::vector<std::pair<RecordKind, std::string>> bodies;  ///< image_begin, parts, image_end
    std::size_t pages = 0, entries = 0, stripes = 0;
    std::size_t bytes() const;
  };
  /// For other heads and for checkpoints: changed entries instead of pages where that is less, as far as changes are remembered.
  /// In the log an image has pages.
  enum class ImageFor { log, member, checkpoint };
  ImageCut cut_image(Lsn base = 0, ImageFor whom = ImageFor::log) const;
  /// About what a whole image takes.
  std::uint64_t image_bytes() const;
  /// All of it at once. Takes a millisecond for each 300 MiB that the volume maps: not for a loop that serves others.
  Image save_image(Lsn base = 0, ImageFor whom = ImageFor::log) const;
  /// Are single changes behind `base` still remembered? Else only whole pages can be told.
  bool remembers_since(Lsn base) const { return base >= lowest_base_ && base >= changes_from_; }
  /// Single changes up to `lsn` need not be remembered any more.
  void forget_changes(Lsn lsn);
  void no_changes(Lsn from) { changes_.clear(), changed_blocks_ = 0, changes_from_ = from; }
  /// Pages that a change after `base` has touched.
  std::size_t pages_since(Lsn base) const { return index_.changed_since(base).size(); }
  /// Bytes of metadata records committed so far, images not counted: a checkpoint covers no others, so no others make one due.
  std::uint64_t metadata_logged() const { return metadata_logged_; }
  /// Bytes of all records up to commit(), headers and bodies: the same on every replica.
  std::uint64_t logged() const { return logged_; }
  /// Lowest base that cut_image() can tell all changes after.
  Lsn lowest_base() const { return lowest_base_; }
  /// Feeds one record of an image; the state changes only when image_end completes it. False: not acceptable.
  bool load_image(RecordKind kind, const std::string& body);
  /// Data record that an image's index names by LSN: below the image's point, so not part of the sequence.
  void adopt_unflushed(RecordPtr record);
  /// After load_image(): how many entries name LSNs that no record was adopted for.
  std::uint64_t missing_unflushed() const;
  /// The same for the image that is being loaded.
  std::uint64_t missing_unflushed_while_loading() const;
  /// Catch-up by an image with a base: nothing of it counts before apply_delta().
  /// A data record that the image names and that this replica does not hold yet.
  void stage(RecordPtr record);
  bool staged(const Record& record) const;
  /// REQUIRES: image_end has been loaded and missing_unflushed_while_loading() was 0.
  void apply_delta();
  bool delta_complete() const;
  /// Base and point of the image with a base that is being loaded; zeros: there is none.
  Lsn loading_base() const;
  Lsn loading_point() const;
  /// Whole index pages in it so far.
  std::uint32_t loading_pages() const;
  /// Forgets what has been loaded so far.
  void abandon_loading();
  /// Recomputes the live counts of all records from the index and releases the dead (after recovery, after an image).
  void recount();
  void reset();

  // metadata records (index, trims, truncates ...) that an image up to their LSN makes superfluous
  void note_meta(Lsn cover, std::uint32_t segment);
  void image_durable(LogPoint point, std::vector<std::uint32_t> segments);
  Lsn image_point() const { return image_point_; }
  /// What has been loaded stands in no log: the segments that older images name are not free for it.
  void image_not_in_log() { image_point_ = 0; }
  bool loading_image() const { return loading_.has_value(); }

 private:
  struct MetaRecord {
    Lsn cover;
    std::uint32_t segment;
  };
  void apply(Record& record);
  struct Change;
  struct Loading;
  void remember(const Change& c);
  void remember_delta(const Loading& told);
  std::vector<Lba> changed_blocks(Lsn base) const;
  void apply_index(const Record& record);
  void apply_placements(Lsn at, const fbs::IndexRecord& body);
  void note_width(std::uint64_t number, const StripeRow& row);
  void drop(Entry old);
  void put_stripe(std::uint64_t number, StripeRow row);
  void count_live(std::uint64_t stripe, std::uint32_t block, bool more);
  using Records = absl::btree_map<Lsn, RecordPtr>;
  void maybe_free(Records::iterator at);
  void free_dead(Lsn end);
  void trim_window();
  std::uint64_t missing_in(const Index& index, const std::map<Lsn, RecordPtr>* staged = nullptr) const;
  bool load_part(const std::string& body);
  bool load_entries(const fbs::ImagePart& part);
  void choose_form(Lsn base, ImageFor whom, std::vector<std::uint64_t>& pages, std::vector<fbs::ChangedEntry>& entries,
                   std::vector<fbs::ClearedRange>& cleared) const;
  std::string save_begin(LogPoint at, Lsn base) const;

  VpId vp_;
  LogPoint last_;
  Lsn durable_ = 0, commit_ = 0, known_commit_ = 0;
  Lsn window_ = 1;
  std::map<NodeId, Lsn> pins_;
  Lsn pin_ = 0;                         // the least of them; 0: none
  std::vector<EpochStart> starts_;
  Records records_;
  std::deque<Lsn> small_;               // records_ that are not data
  std::uint64_t payload_bytes_ = 0;     // of records_
  Lsn payload_cursor_ = 0;              // payloads below it are not in memory, or stay there
  mutable Lsn oldest_data_ = 0;         // no data record below it
  absl::flat_hash_map<Lba, Lsn> tail_;
  std::vector<RecordPtr> tail_ranges_;  // trims and zeroes in the tail
  Index index_;
  absl::btree_map<std::uint64_t, StripeRow> stripes_;
  std::set<std::uint64_t> narrow_;
  absl::btree_map<NodeId, SledShare> sled_shares_;
  std::uint64_t next_stripe_ = 1;
  std::uint64_t unflushed_blocks_ = 0;
  std::vector<MetaRecord> meta_records_;
  Lsn image_point_ = 0;
  Lsn lowest_base_ = 0;
  std::vector<std::uint32_t> image_segments_;
  // What has changed in the index, in LSN order, each change of a block alone or as a range that was cleared (`cleared` blocks).
  struct Change {
    Lsn at;
    Lba lba;
    std::uint32_t blocks;
    bool cleared;  // they have become holes; else each may be something of its own now
    bool goes_on_with(const Change& c) const { return at == c.at && !cleared && !c.cleared && lba + blocks == c.lba; }
    std::uint64_t weight() const { return cleared ? 1 : blocks; }
  };
  std::deque<Change> changes_;
  std::uint64_t changed_blocks_ = 0;    // sum of their weights
  Lsn changes_from_ = 0;                // all behind it are there
  std::uint64_t metadata_logged_ = 0, logged_ = 0;
  std::optional<std::shared_ptr<Loading>> loading_;
};

}  // namespace luge::head
