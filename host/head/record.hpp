// A log record in memory. Header and body are exactly the bytes that go to disk and to the reserves.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/buffer.hpp"
#include "base/ids.hpp"
#include "base/status.hpp"
#include "wire/log_generated.h"

namespace luge::head {

using fbs::RecordHeader;
using fbs::RecordKind;

static_assert(sizeof(RecordHeader) == 80);
static_assert(sizeof(fbs::Placement) == 24);
static_assert(sizeof(fbs::ChunkPlace) == 24);

/// The two parts of a head's log (MC-01).
enum class Portion : std::uint8_t { data = 0, meta = 1 };

/// Where a record's payload stands in its portion. segment is the number in the portion's file.
struct LogPosition {
  std::uint32_t segment = 0;
  std::uint64_t offset = 0;  ///< of the payload, in the portion's file
};

struct Record {
  RecordHeader header;
  std::string body;
  Buffer payload;           ///< blocks of a data record; empty once it may be read from the log instead
  LogPosition position;     ///< valid once durable
  bool durable = false;
  bool given_back = false;  ///< nobody wanted it when it became durable: its log space is free again
  std::uint32_t live = 0;   ///< blocks of a committed data record that the index still reaches by LSN

  Lsn lsn() const { return header.lsn(); }
  Epoch epoch() const { return header.epoch(); }
  RecordKind kind() const { return static_cast<RecordKind>(header.kind()); }
  Portion portion() const { return kind() == RecordKind::data ? Portion::data : Portion::meta; }
  std::uint32_t payload_blocks() const { return kind() == RecordKind::data ? header.blocks() : 0; }
  std::uint32_t block_crc(std::uint32_t i) const;
  LogPoint point() const { return {epoch(), lsn()}; }
};
using RecordPtr = std::shared_ptr<Record>;
/// Is it one of those that make up an image?
inline bool is_image(const Record& r) { return r.kind() == RecordKind::image_begin || r.kind() == RecordKind::image_part || r.kind() == RecordKind::image_end; }

/// A client request's identity in its record; zeros for records that are no request.
struct RequestId {
  std::uint64_t attachment = 0, incarnation = 0, sequence = 0, low = 0;
};

/// Builds header (CRC included) around `body`.
RecordPtr make_record(VpId vp, LogPoint point, RecordKind kind, Lba lba, std::uint32_t blocks, const RequestId& request,
                      std::string body, Buffer payload);

std::uint32_t record_crc(const RecordHeader& header, Bytes body);

/// Whether a row of the stripe table that came from outside can be one: as many places as chunks, chunks of whole blocks.
bool possible_stripe(const fbs::Stripe& row);

/// Header against its limits, its CRC and, for data records, the size of the body. Says nothing of the payload.
Status check_record(const RecordHeader& header, Bytes body);
/// Each block of the payload against the CRCs in the body.
Status check_payload(const RecordHeader& header, Bytes body, Bytes payload);

/// The record's own checksums have changed in memory, if its header does not vouch for them any more: then those of `payload` take their place,
/// if it vouches for them. True: it did, which proves both.
bool mend_checksums(Record& r, Bytes payload);

inline std::size_t padded8(std::size_t n) { return (n + 7) & ~std::size_t{7}; }

/// Takes apart what Replicate, Tail and SyncPart carry: headers, padded bodies, payload. Everything is verified,
/// payload CRCs included; payload buffers are slices of `payload`.
Result<std::vector<RecordPtr>> unpack_records(const flatbuffers::Vector<const RecordHeader*>* headers,
                                              const flatbuffers::Vector<std::uint8_t>* bodies, const Buffer& payload);

/// The reverse; appends the payloads to `payload`.
struct PackedRecords {
  std::vector<RecordHeader> headers;
  std::string bodies;
  std::vector<Buffer> payload;
  std::size_t payload_bytes = 0;
  void add(const Record& r, const Buffer& blocks);
};

}  // namespace luge::head
