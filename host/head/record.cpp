#include "head/record.hpp"

#include "base/crc32c.hpp"

namespace luge::head {
namespace {

constexpr std::uint32_t kMaxRecordBody = 8u << 20;

bool check_index_body(Bytes body) {
  flatbuffers::Verifier v(reinterpret_cast<const std::uint8_t*>(body.data()), body.size(), 64, 10'000'000);
  if (!v.VerifyBuffer<fbs::IndexRecord>(nullptr)) return false;
  const auto* r = flatbuffers::GetRoot<fbs::IndexRecord>(body.data());
  if (r->stripes())
    for (const fbs::Stripe* s : *r->stripes())
      if (!possible_stripe(*s)) return false;
  std::size_t placements = r->placements() ? r->placements()->size() : 0;
  std::size_t numbers = r->placement_stripe() ? r->placement_stripe()->size() : 0;
  return placements == numbers;
}

Bytes bytes_of(const std::string& s) { return as_bytes(s); }

}  // namespace

bool possible_stripe(const fbs::Stripe& s) {
  return s.id() && s.places() && s.k() != 0 && s.places()->size() == std::uint32_t{s.k()} + s.m() && s.chunk_bytes() >= kBlockBytes && s.chunk_bytes() % kBlockBytes == 0;
}

std::uint32_t Record::block_crc(std::uint32_t i) const {
  std::uint32_t crc;
  std::memcpy(&crc, body.data() + i * sizeof crc, sizeof crc);
  return crc;
}

std::uint32_t record_crc(const RecordHeader& h, Bytes body) {
  RecordHeader zeroed(h.vp(), h.epoch(), h.lsn(), h.lba(), h.attachment(), h.incarnation(), h.sequence(), h.low(),
                      h.blocks(), h.body_bytes(), h.kind(), h.reserved(), 0);
  return crc32c(body, crc32c(Bytes(reinterpret_cast<const std::byte*>(&zeroed), sizeof zeroed)));
}

RecordPtr make_record(VpId vp, LogPoint point, RecordKind kind, Lba lba, std::uint32_t blocks, const RequestId& q,
                      std::string body, Buffer payload) {
  auto r = std::make_shared<Record>();
  auto make = [&](std::uint32_t crc) {
    return RecordHeader(vp, point.epoch, point.lsn, lba, q.attachment, q.incarnation, q.sequence, q.low, blocks,
                        static_cast<std::uint32_t>(body.size()), static_cast<std::uint16_t>(kind), 0, crc);
  };
  r->header = make(record_crc(make(0), bytes_of(body)));
  r->body = std::move(body);
  r->payload = std::move(payload);
  return r;
}

Status check_record(const RecordHeader& h, Bytes body) {
  auto bad = [&](const char* what) {
    return Status(Code::corrupt, "record of VP " + std::to_string(h.vp()) + " LSN " + std::to_string(h.lsn()) + ": " + what);
  };
  if (body.size() != h.body_bytes()) return bad("body has another length than its header says");
  if (record_crc(h, body) != h.crc()) return bad("checksum does not match");
  auto kind = static_cast<RecordKind>(h.kind());
  bool local = h.kind() >= static_cast<std::uint16_t>(RecordKind::truncate);
  if (*fbs::EnumNameRecordKind(kind) == 0) return bad("unknown kind");
  if (local != (h.lsn() == 0)) return bad("kind and LSN do not go together");
  if (h.lba() > (std::uint64_t{1} << 48) || h.blocks() > (std::uint64_t{1} << 31)) return bad("block range is absurd");
  if (kind == RecordKind::data &&
      (h.blocks() == 0 || h.blocks() > kMaxOpBlocks || body.size() != h.blocks() * sizeof(std::uint32_t)))
    return bad("data record's block count does not fit its body");
  if (kind == RecordKind::index && !check_index_body(body)) return bad("index record's body does not parse");
  return Status();
}

Status check_payload(const RecordHeader& h, Bytes body, Bytes payload) {
  for (std::uint32_t i = 0; i < h.blocks(); ++i) {
    std::uint32_t want;
    std::memcpy(&want, body.data() + i * sizeof want, sizeof want);
    if (crc32c(payload.subspan(std::size_t{i} * kBlockBytes, kBlockBytes)) != want)
      return Status(Code::corrupt, "VP " + std::to_string(h.vp()) + " LSN " + std::to_string(h.lsn()) + ": block " +
                                       std::to_string(h.lba() + i) + " does not match its CRC");
  }
  return Status();
}

bool mend_checksums(Record& r, Bytes payload) {
  if (record_crc(r.header, bytes_of(r.body)) == r.header.crc() || payload.size() != std::size_t{r.payload_blocks()} * kBlockBytes) return false;
  std::vector<std::uint32_t> crcs;
  crc32c_blocks(payload, crcs);
  std::string body(reinterpret_cast<const char*>(crcs.data()), crcs.size() * sizeof(std::uint32_t));
  if (record_crc(r.header, bytes_of(body)) != r.header.crc()) return false;
  r.body = std::move(body);
  return true;
}

Result<std::vector<RecordPtr>> unpack_records(const flatbuffers::Vector<const RecordHeader*>* headers,
                                              const flatbuffers::Vector<std::uint8_t>* bodies, const Buffer& payload) {
  std::vector<RecordPtr> out;
  if (headers == nullptr) return out;
  Bytes rest = bodies ? Bytes(reinterpret_cast<const std::byte*>(bodies->data()), bodies->size()) : Bytes();
  std::size_t at = 0;
  out.reserve(headers->size());
  for (const RecordHeader* h : *headers) {
    if (h->body_bytes() > kMaxRecordBody || padded8(h->body_bytes()) > rest.size())
      return Status(Code::invalid, "records and their bodies do not fit together");
    Bytes body = rest.first(h->body_bytes());
    rest = rest.subspan(padded8(h->body_bytes()));
    if (Status s = check_record(*h, body); !s.ok()) return s;
    auto r = std::make_shared<Record>();
    r->header = *h;
    r->body.assign(reinterpret_cast<const char*>(body.data()), body.size());
    std::size_t bytes = std::size_t{r->payload_blocks()} * kBlockBytes;
    if (bytes > payload.size() - at) return Status(Code::invalid, "records and their payload do not fit together");
    if (bytes != 0) {
      r->payload = payload.slice(at, bytes);
      at += bytes;
      if (Status s = check_payload(*h, body, r->payload.bytes()); !s.ok()) return s;
    }
    out.push_back(std::move(r));
  }
  return out;
}

void PackedRecords::add(const Record& r, const Buffer& blocks) {
  headers.push_back(r.header);
  bodies += r.body;
  bodies.resize(padded8(bodies.size()));
  if (!blocks.empty()) {
    payload.push_back(blocks);
    payload_bytes += blocks.size();
  }
}

}  // namespace luge::head
