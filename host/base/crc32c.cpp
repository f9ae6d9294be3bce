#include "base/crc32c.hpp"

#include <isa-l/crc.h>

#include "base/ids.hpp"

namespace luge {

std::uint32_t crc32c(Bytes bytes, std::uint32_t seed) {
  // ISA-L's function takes and returns the inverted running value and does not change the buffer.
  auto* p = reinterpret_cast<unsigned char*>(const_cast<std::byte*>(bytes.data()));
  std::uint32_t crc = ~seed;
  while (!bytes.empty()) {
    std::size_t n = std::min<std::size_t>(bytes.size(), 1u << 30);
    crc = crc32_iscsi(p, static_cast<int>(n), crc);
    p += n;
    bytes = bytes.subspan(n);
  }
  return ~crc;
}

std::uint32_t crc32c_zero_block() {
  static const std::uint32_t crc = crc32c(Buffer::zeros(kBlockBytes).bytes());
  return crc;
}

void crc32c_blocks(Bytes bytes, std::vector<std::uint32_t>& out) {
  LUGE_CHECK(bytes.size() % kBlockBytes == 0);
  out.clear();
  out.reserve(bytes.size() / kBlockBytes);
  for (std::size_t i = 0; i < bytes.size(); i += kBlockBytes)
    out.push_back(crc32c(bytes.subspan(i, kBlockBytes)));
}

}  // namespace luge
