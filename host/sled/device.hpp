// One mass storage device of a sled: superblock, fences, column table, chunk slots.
//
// Invariants
// - A slot is written once per generation, in one durable write of header and chunk (protocol 8.1). A slot whose header
//   cannot be read is never written to again until its column is released.
// - The column table and the fences are durable before they are acted upon.
// - A column is cleared of what earlier owners left before it gets a new one, and changes hands only when nothing is in
//   progress in it.
// - An I/O error fails this device and no other: from then on everything answers io_error. So does an operation that does
//   not return within the I/O timeout.
// - A metadata region that is full keeps no further fences, and says so (`full`, knows_all_fences()): what is there goes on
//   being read, written and freed. The sled's own metadata (sled_meta.hpp) has the fences that are not here.
//
// Errors: io_error: the device has failed; stale: the slot is not what the caller names; exists: another's column;
// no_space: the metadata region is full; corrupt: a checksum does not match; invalid: a request that cannot be.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "coding/chunk_header.hpp"
#include "io/budget.hpp"
#include "io/files.hpp"
#include "io/meta_store.hpp"
#include "io/watched_file.hpp"
#include "sled/device_format.hpp"
#include "sled/known_chunks.hpp"
#include "sled/sled_meta.hpp"

namespace luge::sled {

struct DeviceSpec {
  std::string path;
  std::uint64_t create_bytes = 0;  ///< 0: must be there already
  /// An operator's word that the device known by this index is lost for good: a blank one takes its place.
  bool replace = false;
};

struct DeviceOptions {
  std::uint64_t unit = 0;
  NodeId sled = 0;
  std::uint64_t column_bytes = 32 << 20;               ///< used when it is formatted
  io::Duration io_timeout = std::chrono::seconds(15);  ///< an operation that takes longer fails the device
  std::uint64_t memory = 64 << 20;                     ///< payloads of reads in progress, and as much again of writes
  std::size_t known_bytes = 16 << 20;                  ///< for what headers said: about 700 bytes a chunk of 128 KiB
};

class Device {
 public:
  enum class State { closed, ok, full, failed, in_use };
  enum class SlotState : std::uint8_t { free = 0, written = 1, unreadable = 2 };  // as on the wire
  struct Slot {
    SlotState state = SlotState::free;
    bool busy = false;  // a write or free is on its way to the medium
    Generation generation = 0;
    StripeId stripe;
  };
  struct Counters {
    std::uint64_t chunks_written = 0, chunk_bytes = 0, chunks_read = 0, read_bytes = 0, errors = 0;
  };
  /// Asked at the last moment, with no wait between it and the write that it permits: an epoch may have begun since
  /// the request was looked at.
  using Permit = std::function<Status()>;

  Device(io::World& world, DeviceSpec spec, std::uint16_t index, DeviceOptions options);

  /// Which device is expected in its place.
  struct Expected {
    std::optional<DeviceId> known;        ///< as the sled knows it; none: it knows none in this place
    std::optional<DeviceId> replacement;  ///< given: one that is formatted as this may stand here instead
  };
  /// Opens the device that is expected. Where none is known, or a replacement may stand, a blank device is formatted; never
  /// anything else. io_error, not_found, corrupt: failed. exists: another process has it. wrong_unit, wrong_version,
  /// invalid: not ours to touch, or not the one that stood here: a person must look, and the device is as it was. Call
  /// once, before all else.
  io::Task<Status> open(Expected expected);
  DeviceId id() const { return id_; }            ///< 0: not open
  bool formatted() const { return formatted_; }  ///< by this open(): nothing of value is on it

  const Fences& fences() const { return fences_; }
  /// False: there have been fences for which its metadata region had no room.
  bool knows_all_fences() const { return usable() && !missed_fences_; }
  /// Durable when it returns; never lowers. Concurrent calls are put in order. no_space: the device is `full` now.
  io::Task<Status> raise(Fences fences);

  std::uint32_t columns() const { return static_cast<std::uint32_t>(columns_.size()); }
  std::uint32_t free_columns() const { return free_columns_; }
  /// The first that nobody has and nobody is about to have; columns(): there is none.
  std::uint32_t free_column() const;
  std::vector<std::uint32_t> owned_by(VpId vp) const;  ///< whatever their role
  /// REQUIRES: column < columns().
  const ColumnRow& row(std::uint32_t column) const { return columns_[column].row; }
  /// The VP's own column, in that role: ok, as it is. REQUIRES: vp != 0.
  io::Task<Status> claim(VpId vp, Epoch epoch, std::uint32_t column, std::uint32_t slot_bytes, Permit permit, NodeId role = 0);
  io::Task<Status> release(VpId vp, Permit permit);
  /// All slots of a column of `vp`; reads their headers on the first call. not_found: no column of that VP.
  io::Task<Result<std::vector<Slot>>> slots(VpId vp, std::uint32_t column);
  /// The header of a chunk that has been written, from the medium. stale: the slot does not hold one (any more).
  io::Task<Result<coding::ChunkHeader>> header_of(VpId vp, std::uint32_t column, std::uint32_t slot);

  /// `header` is what `header_area` parses to; its and the chunk's checksums are the caller's business.
  io::Task<Status> write_chunk(fbs::ChunkPlace place, const coding::ChunkHeader& header, Buffer header_area, Buffer chunk,
                               Permit permit);
  struct ReadResult {
    Buffer blocks;
    Buffer header_area;    ///< empty unless asked for
    KnownChunkPtr chunk;
  };
  io::Task<Result<ReadResult>> read_chunk(fbs::ChunkPlace place, StripeId stripe, std::uint32_t chunk, std::uint32_t first,
                                          std::uint32_t blocks, bool want_header);
  io::Task<Status> free_slot(VpId vp, fbs::ChunkPlace place, StripeId stripe, Permit permit);

  State state() const { return state_; }
  bool usable() const { return state_ == State::ok || state_ == State::full; }
  std::string_view state_name() const;
  const Status& failure() const { return failure_; }  ///< why it is not ok
  const DeviceSpec& spec() const { return spec_; }
  std::uint16_t index() const { return index_; }
  std::uint64_t bytes() const { return file_ ? file_->size() : 0; }
  std::uint64_t column_bytes() const { return column_bytes_; }
  const Counters& counters() const { return counters_; }
  /// Memory for the payloads of its requests: of its own, so that a device that is slow, or hangs, starves no other.
  io::Budget& read_memory() { return read_memory_; }
  io::Budget& write_memory() { return write_memory_; }

 private:
  struct Column {
    ColumnRow row;
    bool changing = false;      // a claim or a release is in progress
    bool loading = false, loaded = false;
    std::uint32_t users = 0;    // operations in progress on its slots
    std::vector<Slot> slots;    // when loaded
  };
  class Use;

  struct Copy;

  // device.cpp
  io::Task<Status> recognise(const Expected& expected);
  io::Task<Status> open_file(bool create);
  io::Task<Result<Copy>> read_copy(std::uint64_t at);
  io::Task<Status> find_superblock(const Expected& expected, bool& found);
  io::Task<Status> repair_copies(const Copy& good, const Copy copies[2]);
  io::Task<Status> write_superblock(std::uint64_t at, const Superblock& s);
  Status check_geometry(const Superblock& s);
  Status adopt(const Superblock& s, const Expected& expected);
  std::string place_name() const;
  io::Task<Result<bool>> blank();
  io::Task<Status> clear_metadata();
  io::Task<Status> format(DeviceId id);
  io::Task<Status> load_tables();
  Status health() const;
  Status fail(const Status& status);
  // columns.cpp
  io::Task<Status> put(std::vector<io::MetaStore::Change> changes);
  Status metadata_error(const Status& status);
  void set_row(Column& column, const ColumnRow& row);
  io::Task<Status> clear_headers(std::uint32_t column, std::uint32_t slot_bytes);
  io::Task<Status> release_column(std::uint32_t column);
  std::uint32_t slots_in(std::uint32_t slot_bytes) const;
  std::uint64_t slot_offset(std::uint32_t column, std::uint32_t slot, std::uint32_t slot_bytes) const;
  io::Task<Status> for_each_slot(std::uint32_t column, std::uint32_t slot_bytes,
                                 std::function<io::Task<Status>(std::uint32_t slot, std::uint64_t offset)> f);
  // slots.cpp
  Status enter(const fbs::ChunkPlace& place, Use& use);
  io::Task<Status> load(Column& column, std::uint32_t number);
  io::Task<Status> load_slot(Column& column, std::uint32_t slot, std::uint64_t offset);
  io::Task<Status> read_at(std::uint64_t offset, Buffer into);
  Slot judge(const ColumnRow& row, const Result<coding::ChunkHeader>& header) const;
  io::Task<Result<coding::ChunkHeader>> read_header(std::uint64_t offset, std::uint32_t slot_bytes, Buffer* area = nullptr);
  io::Task<Status> mark_free(std::uint64_t offset, Generation generation, const Permit& permit);
  io::Task<Status> same_chunk(std::uint64_t offset, Bytes header_area, Bytes chunk);
  io::Task<Status> know_chunk(std::uint64_t offset, std::uint32_t slot_bytes, bool want_header, ReadResult& out);
  io::Task<Status> read_blocks(std::uint64_t slot, std::uint32_t first, std::uint32_t blocks, ReadResult& out);

  io::World& world_;
  DeviceSpec spec_;
  std::uint16_t index_;
  std::uint64_t unit_;
  NodeId sled_;
  std::uint64_t column_bytes_;
  io::Duration io_timeout_;
  std::uint64_t meta_bytes_ = 0;
  State state_ = State::closed;
  Status failure_;
  DeviceId id_ = 0;
  bool formatted_ = false;
  std::unique_ptr<io::WatchedFile> file_;
  std::unique_ptr<io::MetaStore> meta_;
  std::vector<Column> columns_;
  std::uint32_t free_columns_ = 0;
  Fences fences_;
  bool missed_fences_ = false;
  io::Mutex fencing_;
  io::Budget read_memory_, write_memory_;
  std::set<std::uint64_t> unreadable_;  // where reads have failed since the last that did not
  KnownChunks known_;
  std::uint64_t denied_ = 0;  // chunks asked for, for Switch::chunk_denied
  io::Event changed_;  // a column's changing, loading or users
  Counters counters_;
};

}  // namespace luge::sled
