#include "coding/chunk_header.hpp"

#include <algorithm>

#include "base/crc32c.hpp"
#include "coding/erasure_coder.hpp"

namespace luge::coding {
namespace {

std::size_t data_blocks(Layout l, std::uint32_t chunk_bytes) { return std::size_t{l.k} * (chunk_bytes / kBlockBytes); }
std::size_t parity_blocks(Layout l, std::uint32_t chunk_bytes) { return std::size_t{l.m} * (chunk_bytes / kBlockBytes); }

// REQUIRES: area holds a head.
std::uint32_t area_crc(Bytes area) {
  ChunkHeaderHead h;
  std::memcpy(&h, area.data(), sizeof h);
  h.crc = 0;
  return crc32c(area.subspan(sizeof h), crc32c(Bytes(reinterpret_cast<const std::byte*>(&h), sizeof h)));
}

void seal(Buffer& area, ChunkHeaderHead h) {
  std::memcpy(area.data(), &h, sizeof h);
  h.crc = area_crc(area.bytes().first(h.header_bytes));
  std::memcpy(area.data(), &h, sizeof h);
}

}  // namespace

bool possible_chunk(Layout l, std::uint32_t chunk_bytes) {
  return l.k >= 1 && l.k <= kMaxData && l.m <= kMaxParity && chunk_bytes >= kBlockBytes && chunk_bytes <= kMaxChunkBytes &&
         chunk_bytes % kBlockBytes == 0;
}

std::uint32_t chunk_header_bytes(Layout l, std::uint32_t chunk_bytes) {
  std::size_t used = sizeof(ChunkHeaderHead) + data_blocks(l, chunk_bytes) * sizeof(fbs::BlockIdentity) +
                     parity_blocks(l, chunk_bytes) * sizeof(std::uint32_t);
  return static_cast<std::uint32_t>((used + kBlockBytes - 1) / kBlockBytes * kBlockBytes);
}

Buffer encode_chunk_header(const ChunkHeaderFields& f, std::span<const fbs::BlockIdentity> identities,
                           std::span<const std::uint32_t> parity_crcs) {
  LUGE_CHECK(identities.size() == data_blocks(f.layout, f.chunk_bytes));
  LUGE_CHECK(parity_crcs.size() == parity_blocks(f.layout, f.chunk_bytes));
  Buffer area = Buffer::zeros(chunk_header_bytes(f.layout, f.chunk_bytes));
  std::byte* p = area.data() + sizeof(ChunkHeaderHead);
  std::memcpy(p, identities.data(), identities.size_bytes());
  if (!parity_crcs.empty()) std::memcpy(p + identities.size_bytes(), parity_crcs.data(), parity_crcs.size_bytes());
  ChunkHeaderHead h;
  h.state = 1;
  h.header_bytes = static_cast<std::uint32_t>(area.size());
  h.unit = f.unit;
  h.vp = f.stripe.vp;
  h.epoch = f.stripe.epoch;
  h.counter = f.stripe.counter;
  h.generation = f.generation;
  h.chunk_bytes = f.chunk_bytes;
  h.k = static_cast<std::uint16_t>(f.layout.k);
  h.m = static_cast<std::uint16_t>(f.layout.m);
  h.chunk_index = static_cast<std::uint16_t>(f.chunk_index);
  seal(area, h);
  return area;
}

Buffer encode_free_header(std::uint64_t unit, Generation generation) {
  Buffer area = Buffer::zeros(kBlockBytes);
  ChunkHeaderHead h;
  h.header_bytes = sizeof h;
  h.unit = unit;
  h.generation = generation;
  seal(area, h);
  return area;
}

fbs::BlockIdentity ChunkHeader::identity(std::uint32_t chunk, std::uint32_t block) const {
  std::uint32_t per_chunk = blocks_per_chunk();
  LUGE_CHECK(chunk < fields_.layout.width() && block < per_chunk);
  if (chunk < fields_.layout.k) return identities_[std::size_t{chunk} * per_chunk + block];
  return fbs::BlockIdentity(~std::uint64_t{0}, 0, parity_crcs_[std::size_t{chunk - fields_.layout.k} * per_chunk + block], 0);
}

std::uint32_t ChunkHeader::parity_crc(std::uint32_t chunk, std::uint32_t block) const {
  LUGE_CHECK(chunk >= fields_.layout.k);
  return identity(chunk, block).crc();
}

std::uint32_t claimed_header_bytes(Bytes first, std::uint32_t limit) {
  ChunkHeaderHead h;
  if (first.size() < sizeof h) return 0;
  std::memcpy(&h, first.data(), sizeof h);
  if (h.magic != kChunkMagic) return 0;
  if (h.state == 0) return kBlockBytes;
  return h.header_bytes >= kBlockBytes && h.header_bytes % kBlockBytes == 0 && h.header_bytes <= limit ? h.header_bytes : 0;
}

Result<ChunkHeader> parse_chunk_header(Bytes bytes) {
  auto damaged = [](const char* what) { return Status(Code::corrupt, std::string("chunk header: ") + what); };
  ChunkHeaderHead h;
  if (bytes.size() < sizeof h) return damaged("too short");
  std::memcpy(&h, bytes.data(), sizeof h);
  if (h.magic != kChunkMagic) {
    bool blank = bytes.size() >= kBlockBytes && all_zero(bytes.first(kBlockBytes));
    return blank ? Status(Code::not_found, "slot was never written") : damaged("wrong magic number");
  }
  if (h.version != kChunkVersion)
    return Status(Code::wrong_version, "chunk header of version " + std::to_string(h.version) + " is not known to this program");
  if (h.header_bytes < sizeof h || h.header_bytes > bytes.size()) return damaged("length does not fit");
  if (area_crc(bytes.first(h.header_bytes)) != h.crc) return damaged("checksum does not match");
  ChunkHeader out;
  out.header_bytes_ = h.header_bytes;
  out.fields_ = {h.unit, {h.vp, h.epoch, h.counter}, {h.k, h.m}, h.chunk_bytes, h.chunk_index, h.generation, h.state == 1};
  if (h.state == 0 && h.header_bytes == sizeof h) {
    // A layout without identities behind it would let identity() be asked for blocks that are not there.
    bool empty = out.stripe() == StripeId{} && h.chunk_bytes == 0 && h.k == 0 && h.m == 0 && h.chunk_index == 0;
    return empty ? Result<ChunkHeader>(std::move(out)) : damaged("a freed slot that names a stripe");
  }
  if (h.state != 1) return damaged("unknown state");
  const Layout l = out.fields_.layout;
  if (!possible_chunk(l, h.chunk_bytes) || h.chunk_index >= l.width() || chunk_header_bytes(l, h.chunk_bytes) != h.header_bytes)
    return damaged("layout does not fit its length");
  const std::byte* p = bytes.data() + sizeof h;
  out.identities_.resize(data_blocks(l, h.chunk_bytes));
  std::size_t identity_bytes = out.identities_.size() * sizeof(fbs::BlockIdentity);
  std::memcpy(out.identities_.data(), p, identity_bytes);
  out.parity_crcs_.resize(parity_blocks(l, h.chunk_bytes));
  if (l.m != 0) std::memcpy(out.parity_crcs_.data(), p + identity_bytes, out.parity_crcs_.size() * sizeof(std::uint32_t));
  return out;
}

}  // namespace luge::coding
