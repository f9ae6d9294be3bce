// Any bytes as a chunk header, as they are and under the checksum that they ought to have: the parser answers, and what
// it accepts can be asked for every block of its stripe and is encoded to the same meaning again.
#include <algorithm>
#include <cstring>
#include <vector>

#include "base/crc32c.hpp"
#include "coding/chunk_header.hpp"
#include "coding/erasure_coder.hpp"

namespace {

using namespace luge;
using namespace luge::coding;

constexpr Layout kMaxLayout{kMaxData, kMaxParity};

// A fuzzer does not find a CRC by itself; without one nothing behind it would be reached.
void seal(std::vector<std::byte>& area) {
  ChunkHeaderHead h;
  if (area.size() < sizeof h) return;
  std::memcpy(&h, area.data(), sizeof h);
  if (h.header_bytes < sizeof h || h.header_bytes > area.size()) return;
  h.crc = 0;
  std::memcpy(area.data(), &h, sizeof h);
  h.crc = crc32c(Bytes(area.data(), h.header_bytes));
  std::memcpy(area.data(), &h, sizeof h);
}

void same_meaning(const ChunkHeader& a, const ChunkHeader& b) {
  const ChunkHeaderFields &x = a.fields(), &y = b.fields();
  LUGE_CHECK(x.unit == y.unit && x.stripe == y.stripe && x.generation == y.generation && x.written == y.written);
  LUGE_CHECK(x.chunk_bytes == y.chunk_bytes && x.chunk_index == y.chunk_index && x.layout.k == y.layout.k && x.layout.m == y.layout.m);
  for (std::uint32_t c = 0; c < x.layout.width(); ++c)
    for (std::uint32_t i = 0; i < a.blocks_per_chunk(); ++i) {
      fbs::BlockIdentity p = a.identity(c, i), q = b.identity(c, i);
      LUGE_CHECK(p.lba() == q.lba() && p.lsn() == q.lsn() && p.crc() == q.crc());
    }
}

void use(Bytes bytes) {
  auto h = parse_chunk_header(bytes);
  std::uint32_t claimed = claimed_header_bytes(bytes, 1 << 20);
  LUGE_CHECK(claimed <= 1 << 20);
  if (!h.ok()) return;
  LUGE_CHECK(h->header_bytes() <= bytes.size());
  const ChunkHeaderFields& f = h->fields();
  if (!f.written) return same_meaning(*h, *parse_chunk_header(encode_free_header(f.unit, f.generation).bytes()));
  LUGE_CHECK(f.chunk_index < f.layout.width());
  LUGE_CHECK(claimed == 0 || claimed == h->header_bytes());
  std::vector<fbs::BlockIdentity> identities;
  std::vector<std::uint32_t> parity;
  for (std::uint32_t c = 0; c < f.layout.width(); ++c)
    for (std::uint32_t i = 0; i < h->blocks_per_chunk(); ++i) {
      if (c < f.layout.k) identities.push_back(h->identity(c, i));
      else parity.push_back(h->parity_crc(c, i));
    }
  Buffer again = encode_chunk_header(f, identities, parity);
  auto parsed = parse_chunk_header(again.bytes());
  LUGE_CHECK(parsed.ok());
  same_meaning(*h, *parsed);
}

// Puts a layout that can nearly be into the head, and the length that goes with it: few inputs get there by themselves.
void fit(std::vector<std::byte>& area) {
  ChunkHeaderHead h;
  std::memcpy(&h, area.data(), sizeof h);
  h.magic = kChunkMagic;
  h.version = kChunkVersion;
  h.state = 1;
  h.k = h.k % (kMaxLayout.k + 2);
  h.m = h.m % (kMaxLayout.m + 2);
  h.chunk_bytes = h.chunk_bytes % 32 * kBlockBytes;
  h.chunk_index = h.chunk_index % (kMaxLayout.width() + 2);
  h.header_bytes = chunk_header_bytes({h.k, h.m}, h.chunk_bytes);
  std::memcpy(area.data(), &h, sizeof h);
  area.resize(std::max<std::size_t>(area.size(), h.header_bytes));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::vector<std::byte> bytes(size);
  if (size != 0) std::memcpy(bytes.data(), data, size);
  use(bytes);
  // A header area is at least 4 KiB; mutating the head alone gets there sooner.
  bytes.resize(std::max<std::size_t>(size, 3 * kBlockBytes));
  seal(bytes);
  use(bytes);
  fit(bytes);
  seal(bytes);
  use(bytes);
  return 0;
}
