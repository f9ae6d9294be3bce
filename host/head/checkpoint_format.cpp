#include "head/checkpoint_format.hpp"

#include <cstring>

#include "base/crc32c.hpp"

namespace luge::head {
namespace {

struct BodyHead {
  std::uint32_t kind = 0;
  std::uint32_t bytes = 0;
};
static_assert(sizeof(BodyHead) == 8);

template <class T>
Bytes bytes_of(const T& t) { return {reinterpret_cast<const std::byte*>(&t), sizeof t}; }

std::uint32_t head_crc(CheckpointHead head) {
  head.crc = 0;
  return crc32c(bytes_of(head));
}

template <class T>
const T* verified(const std::string& body) {
  flatbuffers::Verifier v(reinterpret_cast<const std::uint8_t*>(body.data()), body.size(), 64, 10'000'000);
  return v.VerifyBuffer<T>(nullptr) ? flatbuffers::GetRoot<T>(body.data()) : nullptr;
}

Status bad(const std::string& what) { return Status(Code::corrupt, "checkpoint: " + what); }

Status check_bodies(const CheckpointHead& head, const ImageBodies& bodies) {
  if (bodies.size() < 2 || bodies.front().first != RecordKind::image_begin || bodies.back().first != RecordKind::image_end) return bad("it does not begin and end as an image");
  for (std::size_t i = 1; i + 1 < bodies.size(); ++i)
    if (bodies[i].first != RecordKind::image_part) return bad("body " + std::to_string(i) + " is no part of an image");
  const auto* begin = verified<fbs::ImageBegin>(bodies.front().second);
  if (!begin || !begin->point()) return bad("its begin does not parse");
  bool same = begin->point()->epoch() == head.epoch && begin->point()->lsn() == head.lsn && begin->history() == head.history && begin->base() == head.base_lsn;
  return same ? Status() : bad("its head is another image's");
}

}  // namespace

std::string encode_checkpoint(CheckpointHead head, const ImageBodies& bodies) {
  std::string out(sizeof head, 0);
  for (const auto& [kind, body] : bodies) {
    BodyHead b{static_cast<std::uint32_t>(kind), static_cast<std::uint32_t>(body.size())};
    out.append(reinterpret_cast<const char*>(&b), sizeof b);
    out += body;
    out.resize(sizeof head + padded8(out.size() - sizeof head), 0);
  }
  head.bodies_bytes = out.size() - sizeof head;
  head.bodies_crc = crc32c(Bytes(reinterpret_cast<const std::byte*>(out.data()) + sizeof head, head.bodies_bytes));
  head.crc = head_crc(head);
  std::memcpy(out.data(), &head, sizeof head);
  return out;
}

Result<CheckpointHead> parse_checkpoint_head(Bytes bytes) {
  CheckpointHead head;
  if (bytes.size() < sizeof head) return bad("cut off in its head");
  std::memcpy(&head, bytes.data(), sizeof head);
  if (head.magic != kCheckpointMagic) return bad("wrong magic number");
  // The version first: of a later one nothing else is known, not even what its checksum covers.
  if (head.version != kCheckpointVersion)
    return Status(Code::wrong_version, "checkpoint: format version " + std::to_string(head.version) + " is not known here, only " + std::to_string(kCheckpointVersion));
  if (head.crc != head_crc(head)) return bad("its head does not match its checksum");
  bool whole = head.base_id == 0;
  if (head.vp == 0 || head.lsn == 0 || head.id == 0 || whole != (head.base_lsn == 0) || whole != (head.number == 0) || head.base_lsn > head.lsn ||
      head.number > kMaxCheckpointChain)
    return bad("its head contradicts itself");
  return head;
}

Result<Checkpoint> parse_checkpoint(Bytes bytes) {
  auto head = parse_checkpoint_head(bytes);
  if (!head.ok()) return head.status();
  Bytes rest = bytes.subspan(sizeof *head);
  if (rest.size() < head->bodies_bytes) return bad("cut off: " + std::to_string(rest.size()) + " of " + std::to_string(head->bodies_bytes) + " bytes are there");
  rest = rest.first(head->bodies_bytes);
  if (crc32c(rest) != head->bodies_crc) return bad("it does not match its checksum");
  Checkpoint out{*head, {}};
  while (!rest.empty()) {
    BodyHead b;
    if (rest.size() < sizeof b) return bad("cut off between bodies");
    std::memcpy(&b, rest.data(), sizeof b);
    rest = rest.subspan(sizeof b);
    if (padded8(b.bytes) > rest.size() || b.kind > 0xffff) return bad("a body is longer than the whole");
    out.bodies.emplace_back(static_cast<RecordKind>(b.kind), std::string(reinterpret_cast<const char*>(rest.data()), b.bytes));
    rest = rest.subspan(padded8(b.bytes));
  }
  if (Status s = check_bodies(out.head, out.bodies); !s.ok()) return s;
  return out;
}

}  // namespace luge::head
