// One portion (data or metadata) of a head's log: segments, group commit, recovery, reuse of space. Shared by all
// VPs of the head; knows records, not what they mean.
//
// Invariants
// - One batch is in flight at a time; append() only queues, and whatever has been queued meanwhile goes into the
//   next batch (one O_DIRECT|O_DSYNC write).
// - Segments are pre-written and recycled. Each use has a generation, which is made durable in the MetaStore before
//   the first batch of that use is written and is in every batch's CRC: old content of a segment is never replayed.
// - Each batch carries the CRC of the one before it, each segment's row in the MetaStore that of the last batch
//   before it. At recovery an invalid batch with nothing valid behind it is a
//   torn tail (it was never acknowledged); an invalid batch with a valid one behind it is rot (protocol 10.2).
// - Where a recovery found the end of the log is written down before anything new is: a torn batch there is never taken
//   for rot later, when the segments that followed are gone. Or, when segments run short, the log goes on right there, when zeros have
//   been written over the torn batch.
// - A segment is used again only when no record in it is needed (release) and every VP with records in it has an image
//   that covers them and what made them superfluous (`covered`): an image names no record that is gone, and what replay
//   finds behind it has no holes.
// - Damage is reported once: when the owner has written down what it means for the VPs (remember_damage), the same place in
//   the same use of the segment is passed over by later recoveries.
// - The metadata portion may grow, by whole segments: its images must fit beside one another. More than it was made with is used only after
//   it has been written with zeros and the MetaStore says how large the portion is now.
// - Images stand before all else that is queued, and the last segments of the metadata portion, as many as they take, are theirs: what frees segments never waits
//   for one that only it could free. Truncations and starts of epochs, which an image may wait for, take all of those but the last. An image tells of what is durable already, so none of what it overtakes is in it.
// - A write error is never retried in place: failed() from then on, nothing is appended any more. An operation that does not return within
//   the I/O timeout is one.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "head/batch_format.hpp"
#include "head/record.hpp"
#include "io/meta_store.hpp"
#include "io/watched_file.hpp"

namespace luge::head {

/// What replay hands out per batch, in the order they were written within the portion.
struct RecoveredBatch {
  std::uint64_t order = 0;
  std::vector<CommitEntry> commits;
  std::vector<RecordPtr> records;       ///< payload buffers empty, positions set, durable
  std::vector<bool> rotten;             ///< per record: payload fails its CRCs
};

class SegmentLog {
 public:
  struct Options {
    Portion portion = Portion::data;
    std::string path;                   ///< relative to the daemon's directory
    std::uint64_t bytes = 0;            ///< of the whole portion; a file that is shorter is made longer by open()
    std::uint64_t segment_bytes = 16 << 20;
    NodeId node = 0;
    std::uint64_t most_bytes = 0;       ///< metadata: so large it may grow while it runs; at most `bytes`: not at all
    std::uint64_t growth_step = 64 << 20;
    io::Duration io_timeout = std::chrono::seconds(30);  ///< an operation that takes longer is an error
  };
  struct Damage {
    std::uint32_t segment = 0;
    std::uint64_t offset = 0;           ///< in the segment
  };
  struct Recovery {
    std::vector<RecoveredBatch> batches;
    std::vector<Damage> damage;         ///< rot in batch headers: which VPs it hit cannot be told
    std::string why;                    ///< of the last of them
    std::uint64_t torn_bytes = 0;
  };
  using Done = std::function<void()>;

  SegmentLog(io::World& world, io::MetaStore& meta, std::uint64_t& order, Options options);
  /// Opens or makes the file and replays it. Batches are kept in memory by the caller only as long as it wants.
  io::Task<Result<Recovery>> open();
  /// Adds what makes later recoveries pass over `damage`, and forget what was remembered of earlier uses of segments.
  void remember_damage(const std::vector<Damage>& damage, std::vector<io::MetaStore::Change>& changes) const;
  /// Starts the writer. Called once after open().
  void start();

  /// Queues records; when durable their `position` and `durable` are set and on_durable is called once per batch with
  /// them, in order.
  void append(RecordPtr record);
  std::function<void(const std::vector<RecordPtr>&)> on_durable;
  /// Called while a batch is formed: commit LSNs of the VPs in it.
  std::function<Lsn(VpId)> commit_of;
  std::function<void(const Status&)> on_failed;
  /// Is the record with this LSN of this VP below the VP's durable image? Unset: always. Data portion only; a metadata
  /// record is released by the image itself.
  std::function<bool(VpId, Lsn)> covered;
  /// Images have become durable: drained segments may be free now.
  void recheck();
  /// What images of all VPs take together: so much room is kept for them.
  void expect_images(std::uint64_t bytes) { images_take_ = bytes; }
  /// Something is queued that no segment is there for, those that are kept for images aside.
  bool waits_for_room() const { return waits_for_room_; }
  /// Segments that nothing needs any more and that only wait for images.
  std::uint32_t drained() const;
  std::function<void()> on_space;       ///< a segment became free
  /// Grows to `bytes`, as far as it may, rounded up to whole segments; the data portion never does. An error is no failure of the log; it is
  /// not tried again for a while then. By itself it grows by a quarter when no segment is free.
  io::Task<Status> grow(std::uint64_t bytes);
  /// The same, beside everything else.
  void start_growing(std::uint64_t bytes);
  /// Why it could not grow when it last should have; empty: it could, or never had to.
  const std::string& cannot_grow() const { return cannot_grow_; }

  /// Reads payload blocks [first, first + count) of a durable record.
  io::Task<Result<Buffer>> read(const Record& record, std::uint32_t first, std::uint32_t count);

  /// A record in `segment` is no longer needed / one more is needed.
  void release(std::uint32_t segment);
  /// The same; `at`: the segment is not used again before the VP's image covers this LSN.
  void release(std::uint32_t segment, VpId vp, Lsn at);
  void retain(std::uint32_t segment) { ++segments_[segment].live; }

  bool failed() const { return failed_; }
  /// Since when the disk has been writing the batch that is under way; nothing: there is none, or it waits for room.
  std::optional<io::Time> writing_since() const { return writing_since_; }
  std::uint64_t bytes() const { return options_.bytes; }
  std::uint64_t used_bytes() const;
  /// 0..1000; counts whole segments that are not free, and the queue.
  std::uint32_t fill() const;
  /// So much more payload would be written without waiting for space.
  bool has_room(std::uint64_t bytes) const;
  std::size_t queued_bytes() const { return queued_bytes_; }
  std::uint64_t appended_bytes() const { return appended_bytes_; }
  std::uint64_t batches() const { return batches_; }

 private:
  struct Segment {
    std::uint64_t generation = 0;
    std::uint64_t sequence = 0;   // order of activation; 0: free
    std::uint32_t start_crc = 0;  // of the batch before its first one
    std::uint32_t end = 0;        // 1 + blocks; 0: not known
    std::uint64_t live = 0;       // records that keep it
    std::map<VpId, Lsn> highest{};  // of the records in it, and of what made them superfluous
  };
  io::Task<void> writer();
  io::Task<Status> write_batch(std::vector<RecordPtr> batch);
  io::Task<Status> make_place(std::uint64_t bytes, bool image);
  std::size_t kept_for_images() const;
  std::string grown_key() const;
  std::uint64_t segments_known() const;
  io::Task<Status> next_segment();
  io::Task<Status> put_rows(std::vector<io::MetaStore::Change> rows);
  io::Task<void> grow_or_wait();
  io::Task<Status> add_segments(std::uint64_t to);
  Status grown(Status s);
  io::Task<Status> go_on_in_last();
  io::Task<Status> erase_rest();
  bool has_damage(std::uint32_t segment, const Recovery& found) const;
  std::string row_of(const Segment& s) const;
  std::vector<RecordPtr> take_batch(std::deque<RecordPtr>& queue);
  Buffer encode(const std::vector<RecordPtr>& batch, std::uint32_t offset_blocks);
  io::Task<Status> scan_segment(std::uint32_t number, bool last, std::optional<std::uint32_t> next_start_crc, Recovery& out);
  bool valid_batch_behind(Bytes segment, std::uint32_t number, std::uint64_t offset) const;
  Status batch_at(Bytes area, std::uint32_t number, std::uint64_t offset, BatchHeader& h) const;
  Status take_records(Bytes area, const BatchHeader& h, std::uint32_t number, std::uint64_t offset, RecoveredBatch& out) const;
  std::string meta_key(std::uint32_t segment) const;
  std::string damage_prefix(std::uint32_t segment) const;
  std::string damage_key(const Damage& d) const;
  void damaged(Recovery& out, std::uint32_t segment, std::uint64_t offset, const std::string& what) const;
  void maybe_free(std::uint32_t segment);
  bool all_covered(const Segment& s) const;
  void fail(Status status);

  io::World& world_;
  io::MetaStore& meta_;
  std::uint64_t& order_;
  Options options_;
  std::unique_ptr<io::WatchedFile> file_;
  std::vector<Segment> segments_;
  std::set<std::uint32_t> free_;
  std::uint32_t active_ = 0;
  std::uint64_t active_offset_ = 0;
  bool has_active_ = false;
  std::optional<std::uint32_t> recovered_last_;  // newest segment at the recovery; its end is not written down yet
  bool last_may_go_on_ = false;                  // its end has never been written down, and it has no damage
  std::uint64_t next_sequence_ = 1;
  std::uint32_t previous_crc_ = 0;
  std::deque<RecordPtr> queue_, images_;
  std::uint64_t images_take_ = 0;
  bool waits_for_room_ = false;
  std::size_t pressing_ = 0;    // records, queued or on their way, that images may wait for
  bool active_kept_ = false;    // the active segment is one of those that are kept for images
  std::size_t queued_bytes_ = 0;
  std::uint64_t appended_bytes_ = 0, batches_ = 0;
  io::Event wake_;
  bool growing_ = false;
  std::string cannot_grow_;
  io::Time grow_again_{};
  std::optional<io::Time> writing_since_;
  bool failed_ = false;
  bool started_ = false;  // before that nothing is freed: `covered` is not there yet
};

}  // namespace luge::head
