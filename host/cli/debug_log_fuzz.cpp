// Any bytes as a file of a head, a log of batches that are wrong in places under right checksums, and any body under any
// record header with a right checksum: all are printed.
#include <cstring>
#include <sstream>

#include "cli/debug_log.hpp"
#include "cli/log_records.hpp"
#include "head/batch_testing.hpp"

namespace {

using namespace luge;
using namespace luge::cli;

class BytesSource final : public ByteSource {
 public:
  explicit BytesSource(Bytes bytes) : bytes_(bytes) {}
  std::uint64_t size() const override { return bytes_.size(); }
  Result<Buffer> read(std::uint64_t offset, std::uint64_t length) override {
    return Buffer::copy_of(bytes_.subspan(offset, std::min<std::uint64_t>(length, bytes_.size() - offset)));
  }

 private:
  Bytes bytes_;
};

void print(Bytes bytes, bool as_json) {
  BytesSource file(bytes);
  std::ostringstream out;
  LogPrintOptions options;
  options.old = true;
  options.json = as_json;
  (void)print_log(file, options, out).ok();
}

void describe(Bytes bytes) {
  head::RecordView v;
  if (bytes.size() < sizeof v.header) return;
  std::memcpy(&v.header, bytes.data(), sizeof v.header);
  Buffer body = Buffer::copy_of(bytes.subspan(sizeof v.header));
  v.body = body.bytes();
  const head::RecordHeader& h = v.header;
  auto make = [&](std::uint64_t lsn, std::uint32_t crc) {
    return head::RecordHeader(h.vp(), h.epoch(), lsn, h.lba(), h.attachment(), h.incarnation(), h.sequence(), h.low(), h.blocks(),
                              static_cast<std::uint32_t>(body.size()), h.kind(), 0, crc);
  };
  // Data records want a payload, which the file above has.
  if (static_cast<head::RecordKind>(h.kind()) == head::RecordKind::data) return;
  std::uint64_t lsn = h.kind() >= 32 ? 0 : h.lsn() | 1;
  v.header = make(lsn, head::record_crc(make(lsn, 0), v.body));
  (void)describe_record(v);
  std::string_view text(reinterpret_cast<const char*>(body.data()), body.size());
  (void)describe_pair("designation/1", text);
  (void)describe_pair("segment/data/1", text);
}

// Batches one behind the other, now and then with a gap or in the next segment.
std::vector<std::byte> made_log(Bytes bytes) {
  constexpr std::size_t kSegment = 64 * kBlockBytes;
  head::testing::Input in(bytes);
  std::vector<std::byte> log;
  while (!in.empty() && log.size() < 4 * kSegment) {
    std::size_t gap = in.take<std::uint8_t>();
    if (gap > 250) log.resize((log.size() / kSegment + 1) * kSegment);
    else if (gap > 230) log.resize(log.size() + (gap - 230) * kBlockBytes);
    std::vector<std::byte> batch = head::testing::made_batch(in, static_cast<std::uint32_t>(log.size() % kSegment / kBlockBytes));
    log.insert(log.end(), batch.begin(), batch.end());
  }
  return log;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Buffer bytes = Buffer::copy_of(Bytes(reinterpret_cast<const std::byte*>(data), size));
  print(bytes.bytes(), size % 2 == 0);
  print(made_log(bytes.bytes()), size % 2 == 0);
  describe(bytes.bytes());
  return 0;
}
