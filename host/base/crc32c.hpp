// CRC32C (Castagnoli, polynomial 0x1EDC6F41 reflected, initial and final value all ones: the iSCSI CRC of
// RFC 3720). crc32c("123456789") == 0xE3069283.
#pragma once

#include <cstdint>
#include <vector>

#include "base/buffer.hpp"

namespace luge {

/// `seed` is an earlier result: crc32c(b, crc32c(a)) == crc32c(a + b).
std::uint32_t crc32c(Bytes bytes, std::uint32_t seed = 0);

/// CRC of 4 KiB of zeros.
std::uint32_t crc32c_zero_block();

/// One CRC per 4 KiB block. REQUIRES: bytes.size() is a multiple of 4096.
void crc32c_blocks(Bytes bytes, std::vector<std::uint32_t>& out);

}  // namespace luge
