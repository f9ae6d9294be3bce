// Any bytes as a chunk header: parsing answers, and what it accepts can be asked for every block and encodes back to
// the same bytes. The checksum is made right in a second try, so that the checks behind it are reached.
#include <algorithm>
#include <cstring>

#include "base/check.hpp"
#include "base/crc32c.hpp"
#include "coding/chunk_header.hpp"

namespace {

using namespace luge;
using namespace luge::coding;

void look(Bytes bytes) {
  std::uint32_t claimed = claimed_header_bytes(bytes, 1u << 20);
  LUGE_CHECK(claimed <= 1u << 20);
  auto header = parse_chunk_header(bytes);
  if (!header.ok()) return;
  const ChunkHeaderFields& f = header->fields();
  if (!f.written) return;
  LUGE_CHECK(header->header_bytes() <= bytes.size() && header->header_bytes() == chunk_header_bytes(f.layout, f.chunk_bytes));
  std::vector<fbs::BlockIdentity> identities;
  std::vector<std::uint32_t> parity;
  for (std::uint32_t c = 0; c < f.layout.width(); ++c)
    for (std::uint32_t b = 0; b < header->blocks_per_chunk(); ++b) {
      if (c < f.layout.k) identities.push_back(header->identity(c, b));
      else parity.push_back(header->parity_crc(c, b));
    }
  auto again = parse_chunk_header(encode_chunk_header(f, identities, parity).bytes());
  LUGE_CHECK(again.ok() && again->stripe() == header->stripe());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Bytes input(reinterpret_cast<const std::byte*>(data), size);
  look(input);
  if (size < sizeof(ChunkHeaderHead)) return 0;
  ChunkHeaderHead h;
  std::memcpy(&h, data, sizeof h);
  h.magic = kChunkMagic;
  h.version = kChunkVersion;
  if (h.header_bytes == 0) {
    // Small inputs stand for long header areas: the rest of one that fits is zeros.
    h.k = h.k % 18;
    h.m = h.m % 6;
    h.chunk_bytes = h.chunk_bytes % 64 * kBlockBytes;
    h.header_bytes = chunk_header_bytes({h.k, h.m}, h.chunk_bytes);
  }
  Buffer area = Buffer::zeros(std::max<std::size_t>(size, std::min<std::size_t>(h.header_bytes, 1u << 20)));
  std::memcpy(area.data(), data, size);
  h.crc = 0;
  std::memcpy(area.data(), &h, sizeof h);
  if (h.header_bytes <= area.size()) {
    h.crc = crc32c(area.bytes().first(h.header_bytes));
    std::memcpy(area.data(), &h, sizeof h);
  }
  look(area.bytes());
  return 0;
}
