// One mass storage device of a sled: superblock, fences, column table, chunk slots.
//
// Invariants
// - A slot is written once per generation, in one durable write of header and chunk (protocol 8.1). A slot whose header
//   cannot be read is never written to again until its column is released.
// - The column table and the fences are durable before they are acted upon.
// - A column is cleared of what earlier owners left before it gets a new one, and changes hands only when nothing is in
//   progress in it.
// - An I/O error fails this device and no other: from then on everything answers io_error.
//
// Errors: io_error: the device has failed; stale: the slot is not what the caller names; exists: another's column;
// no_space: the metadata region is full; corrupt: a checksum does not match; invalid: a request that cannot be.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "coding/chunk_header.hpp"
#include "io/files.hpp"
#include "io/meta_store.hpp"
#include "sled/device_format.hpp"

namespace luge::sled {

struct DeviceSpec {
  std::string path;
  std::uint64_t create_bytes = 0;  ///< 0: must be there already
};

class Device {
 public:
  enum class State { closed, ok, failed, in_use };
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

  Device(io::World& world, DeviceSpec spec, std::uint16_t index, std::uint64_t unit, NodeId sled, std::uint64_t column_bytes);

  /// Opens, and formats a blank device. io_error, not_found, corrupt: failed. exists: another process has it.
  /// wrong_unit, wrong_version, invalid: not ours to touch, a person must look. Call once, before all else.
  io::Task<Status> open();

  const std::map<VpId, Epoch>& fences() const { return fences_; }
  /// Durable when it returns; never lowers. Concurrent calls are put in order.
  io::Task<Status> fence(VpId vp, Epoch epoch);

  std::uint32_t columns() const { return static_cast<std::uint32_t>(columns_.size()); }
  std::uint32_t free_columns() const;
  std::vector<std::uint32_t> owned_by(VpId vp) const;
  /// REQUIRES: column < columns().
  const ColumnRow& row(std::uint32_t column) const { return columns_[column].row; }
  /// The VP's own column: ok, as it is. REQUIRES: vp != 0.
  io::Task<Status> claim(VpId vp, Epoch epoch, std::uint32_t column, std::uint32_t slot_bytes, Permit permit);
  io::Task<Status> release(VpId vp, Permit permit);
  /// All slots of a column of `vp`; reads their headers on the first call. not_found: no column of that VP.
  io::Task<Result<std::vector<Slot>>> slots(VpId vp, std::uint32_t column);

  /// `header` is what `header_area` parses to; its and the chunk's checksums are the caller's business.
  io::Task<Status> write_chunk(fbs::ChunkPlace place, const coding::ChunkHeader& header, Bytes header_area, Bytes chunk,
                               Permit permit);
  struct ReadResult {
    Buffer blocks;
    Buffer header_area;
    coding::ChunkHeader header;
  };
  io::Task<Result<ReadResult>> read_chunk(fbs::ChunkPlace place, StripeId stripe, std::uint32_t chunk, std::uint32_t first,
                                          std::uint32_t blocks);
  io::Task<Status> free_slot(VpId vp, fbs::ChunkPlace place, StripeId stripe, Permit permit);

  State state() const { return state_; }
  std::string_view state_name() const;
  const Status& failure() const { return failure_; }  ///< why it is not ok
  const DeviceSpec& spec() const { return spec_; }
  std::uint16_t index() const { return index_; }
  std::uint64_t bytes() const { return file_ ? file_->size() : 0; }
  std::uint64_t column_bytes() const { return column_bytes_; }
  const Counters& counters() const { return counters_; }

 private:
  struct Column {
    ColumnRow row;
    bool changing = false;      // a claim or a release is in progress
    bool loading = false, loaded = false;
    std::uint32_t users = 0;    // operations in progress on its slots
    std::vector<Slot> slots;    // when loaded
  };
  class Use;

  // device.cpp
  io::Task<Status> open_file();
  io::Task<Status> find_superblock(bool& found);
  Status check_geometry(const Superblock& s);
  Status adopt(const Superblock& s);
  io::Task<Result<bool>> blank();
  io::Task<Status> clear_metadata();
  io::Task<Status> format();
  io::Task<Status> load_tables();
  Status health() const;
  Status fail(const Status& status);
  // columns.cpp
  io::Task<Status> put(std::vector<io::MetaStore::Change> changes);
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
  Slot judge(const ColumnRow& row, const Result<coding::ChunkHeader>& header) const;
  io::Task<Result<coding::ChunkHeader>> read_header(std::uint64_t offset, std::uint32_t slot_bytes, Buffer* area = nullptr);
  io::Task<Status> mark_free(std::uint64_t offset, Generation generation, const Permit& permit);
  io::Task<Status> same_chunk(std::uint64_t offset, Bytes header_area, Bytes chunk);
  io::Task<Status> read_blocks(std::uint64_t slot, std::uint32_t chunk, std::uint32_t first, std::uint32_t blocks, ReadResult& out);

  io::World& world_;
  DeviceSpec spec_;
  std::uint16_t index_;
  std::uint64_t unit_;
  NodeId sled_;
  std::uint64_t column_bytes_;
  std::uint64_t meta_bytes_ = 0;
  State state_ = State::closed;
  Status failure_;
  std::unique_ptr<io::BlockFile> file_;
  std::unique_ptr<io::MetaStore> meta_;
  std::vector<Column> columns_;
  std::map<VpId, Epoch> fences_;
  io::Mutex fencing_;
  io::Event changed_;  // a column's changing, loading or users
  Counters counters_;
};

}  // namespace luge::sled
