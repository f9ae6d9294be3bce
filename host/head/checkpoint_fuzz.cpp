// Any bytes as a checkpoint, as they are and under the checksums that they ought to have: the parser answers, and what it
// accepts is loaded into a replica or refused.
#include <algorithm>
#include <cstring>
#include <vector>

#include "base/crc32c.hpp"
#include "head/checkpoint_catalog.hpp"

namespace {

using namespace luge;
using namespace luge::head;

void use(Bytes bytes) {
  auto parsed = parse_checkpoint(bytes);
  if (!parsed.ok()) return;
  LUGE_CHECK(sizeof(CheckpointHead) + parsed->head.bodies_bytes <= bytes.size());
  Replica replica(parsed->head.vp);
  replica.designation.blocks = 1 << 16;
  if (parsed->head.base_id == 0) (void)load_chain(replica, {parsed->bodies});
}

// A fuzzer does not find a CRC by itself.
void seal(std::vector<std::byte>& bytes) {
  CheckpointHead h;
  std::memcpy(&h, bytes.data(), sizeof h);
  h.magic = kCheckpointMagic;
  h.version = kCheckpointVersion;
  h.bodies_bytes = bytes.size() - sizeof h;
  h.vp |= 1;
  h.id |= 1;
  h.bodies_crc = crc32c(Bytes(bytes).subspan(sizeof h));
  h.crc = 0;
  h.crc = crc32c(Bytes(reinterpret_cast<const std::byte*>(&h), sizeof h));
  std::memcpy(bytes.data(), &h, sizeof h);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::vector<std::byte> bytes(std::max(size, sizeof(CheckpointHead)));
  if (size != 0) std::memcpy(bytes.data(), data, size);
  use(bytes);
  seal(bytes);
  use(bytes);
  return 0;
}
