// Any bytes as a batch of a head's log, as they are and under the checksums that they ought to have: the parser
// answers, what it hands out lies in the bytes that it was given, and what it accepts is encoded to the same bytes again.
#include <cstring>
#include <vector>

#include "base/crc32c.hpp"
#include "head/batch_format.hpp"

namespace {

using namespace luge;
using namespace luge::head;

bool within(Bytes part, Bytes whole) {
  return part.empty() || (part.data() >= whole.data() && part.data() + part.size() <= whole.data() + whole.size());
}

// The records whose every check is passed, each with a payload of its own, as the log would queue them.
std::vector<RecordPtr> accepted(const BatchView& batch, Bytes bytes) {
  std::vector<RecordPtr> out;
  for (const RecordView& v : batch.records) {
    LUGE_CHECK(within(v.body, bytes) && within(v.payload, bytes));
    if (!check_record(v.header, v.body).ok()) continue;
    bool good = static_cast<RecordKind>(v.header.kind()) != RecordKind::data || check_payload(v.header, v.body, v.payload).ok();
    if (!good) continue;
    auto r = std::make_shared<Record>();
    r->header = v.header;
    r->body.assign(reinterpret_cast<const char*>(v.body.data()), v.body.size());
    r->payload = Buffer::copy_of(v.payload);
    out.push_back(std::move(r));
  }
  return out;
}

void use(Bytes bytes) {
  BatchHeader h;
  if (!parse_batch_header(bytes, h).ok()) return;
  LUGE_CHECK(batch_bytes(h) <= bytes.size());
  auto batch = parse_batch(bytes, h);
  if (!batch.ok()) return;
  std::vector<RecordPtr> records = accepted(*batch, bytes);
  if (records.size() != batch->records.size()) return;
  BatchHeader again = h;
  Buffer area = encode_batch_area(again, batch->commits, records);
  std::vector<std::byte> whole(area.data(), area.data() + area.size());
  for (const RecordPtr& r : records) whole.insert(whole.end(), r->payload.data(), r->payload.data() + r->payload.size());
  BatchHeader parsed;
  LUGE_CHECK(parse_batch_header(whole, parsed).ok() && parsed.crc == again.crc);
  auto view = parse_batch(whole, parsed);
  LUGE_CHECK(view.ok() && view->records.size() == records.size() && view->commits.size() == batch->commits.size());
  LUGE_CHECK(accepted(*view, whole).size() == records.size());
}

template <class T>
T get(const std::vector<std::byte>& bytes, std::size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}
template <class T>
void put(std::vector<std::byte>& bytes, std::size_t at, const T& value) {
  std::memcpy(bytes.data() + at, &value, sizeof value);
}

// A fuzzer does not find a CRC by itself; without one nothing behind it would be reached. First those of the records,
// then that of the area, for as many records as the lengths allow.
void seal(std::vector<std::byte>& bytes) {
  auto h = get<BatchHeader>(bytes, 0);
  h.magic = kBatchMagic;
  h.version = kBatchVersion;
  h.portion &= 1;
  h.header_bytes = static_cast<std::uint32_t>(1 + h.header_bytes % 2) * kBlockBytes;
  h.used_bytes = static_cast<std::uint32_t>(sizeof h) + h.used_bytes % (h.header_bytes - static_cast<std::uint32_t>(sizeof h) + 1);
  h.payload_blocks %= 3;
  h.records %= 8;
  h.commits %= 4;
  bytes.resize(batch_bytes(h));
  std::size_t at = sizeof h + h.commits * sizeof(CommitEntry);
  std::size_t payload = h.header_bytes;
  for (std::uint32_t i = 0; i < h.records && at + sizeof(RecordHeader) <= h.used_bytes; ++i) {
    auto r = get<RecordHeader>(bytes, at);
    std::size_t body_at = at + sizeof r, body = r.body_bytes() % 512;
    if (body_at + padded8(body) > h.used_bytes) break;
    bool data = static_cast<RecordKind>(r.kind()) == RecordKind::data;
    std::uint32_t blocks = r.blocks();
    if (data && payload + kBlockBytes <= bytes.size()) {
      blocks = 1;
      body = sizeof(std::uint32_t);
      put(bytes, body_at, crc32c(Bytes(bytes).subspan(payload, kBlockBytes)));
      payload += kBlockBytes;
    }
    auto make = [&](std::uint32_t crc) {
      return RecordHeader(r.vp(), r.epoch(), r.lsn(), r.lba(), r.attachment(), r.incarnation(), r.sequence(), r.low(), blocks,
                          static_cast<std::uint32_t>(body), r.kind(), r.reserved(), crc);
    };
    put(bytes, at, make(record_crc(make(0), Bytes(bytes).subspan(body_at, body))));
    at = body_at + padded8(body);
  }
  h.crc = 0;
  put(bytes, 0, h);
  h.crc = crc32c(Bytes(bytes).first(h.used_bytes));
  put(bytes, 0, h);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::vector<std::byte> bytes(size);
  if (size != 0) std::memcpy(bytes.data(), data, size);
  use(bytes);
  if (size < sizeof(BatchHeader)) return 0;
  seal(bytes);
  use(bytes);
  return 0;
}
