// Any bytes as a batch of a head's log, and batches of which some bytes were changed under a checksum that is right: the
// parser answers, what it hands out lies in the bytes that it was given, and what it accepts is encoded to the same again.
#include <vector>

#include "head/batch_testing.hpp"

namespace {

using namespace luge;
using namespace luge::head;

bool within(Bytes part, Bytes whole) {
  return part.empty() || (part.data() >= whole.data() && part.data() + part.size() <= whole.data() + whole.size());
}

// The records whose every check is passed, each with a payload of its own, as the log would queue them.
std::vector<RecordPtr> accepted(const BatchView& batch, Bytes bytes) {
  std::vector<RecordPtr> out;
  for (const RecordView& v : batch.records) {
    LUGE_CHECK(within(v.body, bytes) && within(v.payload, bytes));
    if (!check_record(v.header, v.body).ok()) continue;
    bool good = static_cast<RecordKind>(v.header.kind()) != RecordKind::data || check_payload(v.header, v.body, v.payload).ok();
    if (!good) continue;
    auto r = std::make_shared<Record>();
    r->header = v.header;
    r->body.assign(reinterpret_cast<const char*>(v.body.data()), v.body.size());
    r->payload = Buffer::copy_of(v.payload);
    out.push_back(std::move(r));
  }
  return out;
}

void use(Bytes bytes) {
  BatchHeader h;
  if (!parse_batch_header(bytes, h).ok()) return;
  LUGE_CHECK(batch_bytes(h) <= bytes.size());
  auto batch = parse_batch(bytes, h);
  if (!batch.ok()) return;
  std::vector<RecordPtr> records = accepted(*batch, bytes);
  if (records.size() != batch->records.size()) return;
  BatchHeader again = h;
  Buffer area = encode_batch_area(again, batch->commits, records);
  std::vector<std::byte> whole(area.data(), area.data() + area.size());
  for (const RecordPtr& r : records) whole.insert(whole.end(), r->payload.data(), r->payload.data() + r->payload.size());
  BatchHeader parsed;
  LUGE_CHECK(parse_batch_header(whole, parsed).ok() && parsed.crc == again.crc);
  auto view = parse_batch(whole, parsed);
  LUGE_CHECK(view.ok() && view->records.size() == records.size() && view->commits.size() == batch->commits.size());
  LUGE_CHECK(accepted(*view, whole).size() == records.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Bytes bytes(reinterpret_cast<const std::byte*>(data), size);
  use(bytes);
  testing::Input in(bytes);
  use(testing::made_batch(in, 0));
  return 0;
}
