// Batches for fuzz targets: what the fuzzer's bytes describe, wrong in places, under checksums that are right.
#pragma once

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "base/crc32c.hpp"
#include "head/batch_format.hpp"

namespace luge::head::testing {

// Takes the input apart; zeros when it is used up.
class Input {
 public:
  explicit Input(Bytes bytes) : bytes_(bytes) {}
  template <class T>
  T take() {
    T value{};
    std::size_t n = std::min(sizeof value, bytes_.size());
    if (n != 0) std::memcpy(&value, bytes_.data(), n);
    bytes_ = bytes_.subspan(n);
    return value;
  }
  std::string text(std::size_t n) {
    n = std::min(n, bytes_.size());
    std::string out(reinterpret_cast<const char*>(bytes_.data()), n);
    bytes_ = bytes_.subspan(n);
    return out;
  }
  bool empty() const { return bytes_.empty(); }

 private:
  Bytes bytes_;
};

inline RecordPtr made_record(Input& in) {
  static constexpr RecordKind kKinds[] = {RecordKind::data, RecordKind::trim, RecordKind::index, RecordKind::truncate, RecordKind::session_open};
  auto kind = kKinds[in.take<std::uint8_t>() % std::size(kKinds)];
  LogPoint at{in.take<std::uint16_t>(), kind == RecordKind::truncate ? 0ull : 1ull + in.take<std::uint16_t>()};
  if (kind != RecordKind::data)
    return make_record(in.take<std::uint16_t>(), at, kind, in.take<std::uint16_t>(), in.take<std::uint16_t>(), {}, in.text(in.take<std::uint8_t>()), {});
  std::uint32_t blocks = 1 + in.take<std::uint8_t>() % 2;
  Buffer payload = Buffer::zeros(blocks * kBlockBytes);
  payload.data()[0] = static_cast<std::byte>(in.take<std::uint8_t>());
  std::vector<std::uint32_t> crcs;
  crc32c_blocks(payload.bytes(), crcs);
  return make_record(in.take<std::uint16_t>(), at, kind, in.take<std::uint16_t>(), blocks, {},
                     std::string(reinterpret_cast<const char*>(crcs.data()), crcs.size() * sizeof crcs[0]), payload);
}

// A batch of records that the input describes, then some of its bytes overwritten, under a checksum that is right. A
// fuzzer does not find a CRC by itself; without one nothing behind it would be reached.
inline std::vector<std::byte> made_batch(Input& in, std::uint32_t offset_blocks) {
  std::vector<RecordPtr> records;
  for (int n = in.take<std::uint8_t>() % 5; n > 0; --n) records.push_back(made_record(in));
  std::vector<CommitEntry> commits(in.take<std::uint8_t>() % 3);
  BatchHeader h;
  h.generation = 1 + in.take<std::uint8_t>() % 3;
  h.offset_blocks = offset_blocks;
  Buffer area = encode_batch_area(h, commits, records);
  std::vector<std::byte> bytes(area.data(), area.data() + area.size());
  for (const RecordPtr& r : records) bytes.insert(bytes.end(), r->payload.data(), r->payload.data() + r->payload.size());
  for (int n = 0; n < 8 && !in.empty(); ++n) {
    std::size_t at = in.take<std::uint16_t>() % std::min<std::size_t>(bytes.size(), h.used_bytes + 8);
    bytes[at] = in.take<std::byte>();
  }
  std::memcpy(&h, bytes.data(), sizeof h);
  if (h.used_bytes < sizeof h || h.used_bytes > bytes.size()) return bytes;
  h.crc = 0;
  std::memcpy(bytes.data(), &h, sizeof h);
  h.crc = crc32c(Bytes(bytes).first(h.used_bytes));
  std::memcpy(bytes.data(), &h, sizeof h);
  return bytes;
}

}  // namespace luge::head::testing
