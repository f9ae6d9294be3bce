#include "head/batch_format.hpp"

#include <cstring>

#include "base/crc32c.hpp"

namespace luge::head {
namespace {

// `used`: the header and what follows it in the header area, without the padding.
std::uint32_t area_crc(Bytes used) {
  BatchHeader h;
  std::memcpy(&h, used.data(), sizeof h);
  h.crc = 0;
  return crc32c(used.subspan(sizeof h), crc32c(Bytes(reinterpret_cast<const std::byte*>(&h), sizeof h)));
}

bool possible_lengths(const BatchHeader& h, std::size_t available) {
  return h.header_bytes != 0 && h.header_bytes % kBlockBytes == 0 && h.used_bytes >= sizeof h &&
         h.used_bytes <= h.header_bytes && batch_bytes(h) <= available;
}

// Takes the first `n` bytes off `rest`; nothing if there are fewer.
bool take(Bytes& rest, std::uint64_t n, Bytes& out) {
  if (n > rest.size()) return false;
  out = rest.first(n);
  rest = rest.subspan(n);
  return true;
}

}  // namespace

Status parse_batch_header(Bytes bytes, BatchHeader& h) {
  h = BatchHeader{.magic = 0};
  if (bytes.size() < sizeof h) return Status(Code::not_found, "fewer bytes than the header of a batch has");
  std::memcpy(&h, bytes.data(), sizeof h);
  if (h.magic != kBatchMagic) return Status(Code::not_found, "no batch begins here");
  if (!possible_lengths(h, bytes.size())) return Status(Code::corrupt, "a batch with lengths that cannot be");
  if (area_crc(bytes.first(h.used_bytes)) != h.crc) return Status(Code::corrupt, "a batch whose checksum does not match");
  if (h.version != kBatchVersion)
    return Status(Code::wrong_version, "a batch of format version " + std::to_string(h.version) + ", this program knows " +
                                           std::to_string(kBatchVersion) + ": use the version that wrote it");
  if (h.portion > static_cast<std::uint8_t>(Portion::meta)) return Status(Code::corrupt, "a batch of no portion of a log");
  return Status();
}

Result<BatchView> parse_batch(Bytes bytes, const BatchHeader& h) {
  Status damaged(Code::corrupt, "a batch with a valid checksum does not parse");
  Bytes rest = bytes.subspan(sizeof h, h.used_bytes - sizeof h);
  Bytes payload = bytes.subspan(h.header_bytes, std::size_t{h.payload_blocks} * kBlockBytes);
  BatchView out;
  Bytes part;
  if (!take(rest, std::uint64_t{h.commits} * sizeof(CommitEntry), part)) return damaged;
  out.commits.resize(h.commits);
  if (!part.empty()) std::memcpy(out.commits.data(), part.data(), part.size());
  for (std::uint32_t i = 0; i < h.records; ++i) {
    RecordView r;
    if (!take(rest, sizeof r.header, part)) return damaged;
    std::memcpy(&r.header, part.data(), sizeof r.header);
    if (!take(rest, padded8(r.header.body_bytes()), part)) return damaged;
    r.body = part.first(r.header.body_bytes());
    bool data = static_cast<RecordKind>(r.header.kind()) == RecordKind::data;
    if (data && !take(payload, std::uint64_t{r.header.blocks()} * kBlockBytes, r.payload)) return damaged;
    out.records.push_back(r);
  }
  return out;
}

Buffer encode_batch_area(BatchHeader& h, std::span<const CommitEntry> commits, std::span<const RecordPtr> records) {
  std::size_t used = sizeof h + commits.size_bytes();
  h.payload_blocks = 0;
  for (const RecordPtr& r : records) {
    used += area_bytes(*r);
    h.payload_blocks += static_cast<std::uint32_t>(r->payload.size() / kBlockBytes);
  }
  Buffer area = Buffer::allocate((used + kBlockBytes - 1) / kBlockBytes * kBlockBytes);
  std::byte* p = area.data() + sizeof h;
  auto put = [&p](const void* from, std::size_t n) {
    if (n != 0) std::memcpy(p, from, n);
    p += n;
  };
  put(commits.data(), commits.size_bytes());
  for (const RecordPtr& r : records) {
    put(&r->header, sizeof r->header);
    put(r->body.data(), r->body.size());
    std::size_t pad = padded8(r->body.size()) - r->body.size();
    std::memset(p, 0, pad);
    p += pad;
  }
  std::memset(p, 0, area.size() - used);
  h.header_bytes = static_cast<std::uint32_t>(area.size());
  h.used_bytes = static_cast<std::uint32_t>(used);
  h.records = static_cast<std::uint32_t>(records.size());
  h.commits = static_cast<std::uint32_t>(commits.size());
  std::memcpy(area.data(), &h, sizeof h);
  h.crc = area_crc(area.bytes().first(used));
  std::memcpy(area.data(), &h, sizeof h);
  return area;
}

}  // namespace luge::head
