// One mass storage device of a sled: superblock, column table, fences, chunk slots.
//
// Invariants
// - A slot is written once per generation, in one durable write of header and chunk (protocol 8.1).
// - The column table and the fences are durable before they are acted upon.
// - An I/O error fails this device and no other: failed() from then on, everything answers io_error.
#pragma once

#include <map>
#include <memory>
#include <string>
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
  enum class SlotState : std::uint8_t { free = 0, written = 1, unreadable = 2 };
  struct Slot {
    SlotState state = SlotState::free;
    Generation generation = 0;
    StripeId stripe;
  };
  struct Counters {
    std::uint64_t chunks_written = 0, bytes_written = 0, chunks_read = 0, bytes_read = 0, errors = 0;
  };

  Device(io::World& world, DeviceSpec spec, std::uint16_t index, std::uint64_t unit, NodeId sled, std::uint64_t column_bytes)
      : world_(world), spec_(std::move(spec)), index_(index), unit_(unit), sled_(sled), column_bytes_(column_bytes) {}

  /// Opens, and formats a blank device. exists: in use; wrong_unit, wrong_version, invalid: not ours to touch.
  io::Task<Status> open();

  const std::map<VpId, Epoch>& fences() const { return fences_; }
  io::Task<Status> fence(VpId vp, Epoch epoch);

  std::uint32_t columns() const { return columns_; }
  std::uint32_t free_columns() const;
  std::vector<std::uint32_t> owned_by(VpId vp) const;
  const ColumnRow* column(std::uint32_t n) const { return n < rows_.size() ? &rows_[n] : nullptr; }
  std::uint32_t slots(std::uint32_t column) const;
  io::Task<Status> claim(VpId vp, std::uint32_t column, std::uint32_t slot_bytes);
  io::Task<Status> release(VpId vp);
  /// States of all slots of a column; reads their headers on the first call.
  io::Task<Result<std::vector<Slot>*>> slot_table(std::uint32_t column);

  io::Task<Status> write_chunk(const fbs::ChunkPlace& place, const coding::ChunkHeader& header, Bytes header_area, Bytes chunk);
  struct ReadResult {
    Buffer blocks;
    Buffer header_area;
    coding::ChunkHeader header;
  };
  io::Task<Result<ReadResult>> read_chunk(const fbs::ChunkPlace& place, StripeId stripe, std::uint32_t chunk,
                                          std::uint32_t first, std::uint32_t blocks);
  io::Task<Status> free_slot(const fbs::ChunkPlace& place, StripeId stripe);

  bool failed() const { return !failure_.ok() || (meta_ && meta_->failed()); }
  const Status& failure() const { return failure_; }
  const DeviceSpec& spec() const { return spec_; }
  std::uint16_t index() const { return index_; }
  std::uint64_t bytes() const { return file_ ? file_->size() : 0; }
  std::uint64_t column_bytes() const { return column_bytes_; }
  const Counters& counters() const { return counters_; }

 private:
  io::Task<Status> format();
  io::Task<Result<bool>> blank();
  io::Task<Status> check_superblock(bool& found);
  io::Task<Result<coding::ChunkHeader>> read_header(std::uint64_t offset, std::uint32_t bytes, Buffer* area = nullptr);
  Status check_place(const fbs::ChunkPlace& place) const;
  std::uint64_t slot_offset(const fbs::ChunkPlace& place) const;
  Status fail(Status status);

  io::World& world_;
  DeviceSpec spec_;
  std::uint16_t index_;
  std::uint64_t unit_;
  NodeId sled_;
  std::uint64_t column_bytes_;
  std::uint32_t columns_ = 0;
  std::unique_ptr<io::BlockFile> file_;
  std::unique_ptr<io::MetaStore> meta_;
  std::vector<ColumnRow> rows_;
  std::map<VpId, Epoch> fences_;
  std::map<std::uint32_t, std::vector<Slot>> slots_;
  std::map<std::pair<std::uint32_t, std::uint32_t>, bool> writing_;
  Status failure_;
  Counters counters_;
};

}  // namespace luge::sled
