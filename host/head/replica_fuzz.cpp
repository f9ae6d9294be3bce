// What a replica is told by records under right checksums, from its log or from another head: bodies of index records, images
// whole and with a base, some of their bytes changed. It refuses or takes them; what it has taken it can give on as an image
// that an empty replica takes.
#include "head/batch_testing.hpp"
#include "head/replica.hpp"

namespace {

using namespace luge;
using namespace luge::head;

constexpr std::uint64_t kBlocks = 4096;

Replica fresh() {
  Replica r(7);
  r.designation.vp = 7;
  r.designation.blocks = kBlocks;
  return r;
}

std::string index_body(testing::Input& in) {
  flatbuffers::FlatBufferBuilder b;
  std::vector<flatbuffers::Offset<fbs::Stripe>> stripes;
  for (int n = in.take<std::uint8_t>() % 3; n > 0; --n) {
    fbs::StripeId id(7, in.take<std::uint8_t>(), in.take<std::uint16_t>());
    std::vector<fbs::ChunkPlace> places(in.take<std::uint8_t>() % 8, fbs::ChunkPlace(in.take<std::uint8_t>(), 1, 2, 0, 0, 3));
    auto vector = b.CreateVectorOfStructs(places);
    stripes.push_back(fbs::CreateStripe(b, in.take<std::uint8_t>(), &id, in.take<std::uint8_t>() % 8, in.take<std::uint8_t>() % 8, in.take<std::uint16_t>(), vector, in.take<std::uint8_t>()));
  }
  std::vector<fbs::Placement> placements;
  std::vector<std::uint64_t> numbers;
  for (int n = in.take<std::uint8_t>() % 8; n > 0; --n) {
    placements.emplace_back(in.take<std::uint16_t>() % kBlocks, in.take<std::uint8_t>(), in.take<std::uint16_t>(), 0);
    numbers.push_back(in.take<std::uint8_t>());
  }
  if (in.take<std::uint8_t>() % 8 == 0) numbers.push_back(1);
  auto s = b.CreateVector(stripes);
  auto p = b.CreateVectorOfStructs(placements);
  auto q = b.CreateVector(numbers);
  b.Finish(fbs::CreateIndexRecord(b, s, p, q));
  return std::string(reinterpret_cast<const char*>(b.GetBufferPointer()), b.GetSize());
}

void change(std::string& body, testing::Input& in) {
  for (int n = in.take<std::uint8_t>() % 4; n > 0 && !body.empty(); --n) body[in.take<std::uint16_t>() % body.size()] = in.take<char>();
}

// Records of a log, taken as they come.
void feed(Replica& r, testing::Input& in) {
  for (int n = in.take<std::uint8_t>() % 12; n > 0; --n) {
    static constexpr RecordKind kKinds[] = {RecordKind::data, RecordKind::data, RecordKind::trim, RecordKind::index, RecordKind::epoch_start, RecordKind::session_open};
    RecordKind kind = kKinds[in.take<std::uint8_t>() % std::size(kKinds)];
    std::string body;
    std::uint32_t blocks = kind == RecordKind::trim ? in.take<std::uint16_t>() : kind == RecordKind::data ? 1 + in.take<std::uint8_t>() % 3 : 0;
    if (kind == RecordKind::data) body.assign(blocks * sizeof(std::uint32_t), '\0');
    if (kind == RecordKind::index) body = index_body(in), change(body, in);
    RequestId id{in.take<std::uint8_t>(), in.take<std::uint8_t>(), in.take<std::uint8_t>(), in.take<std::uint8_t>()};
    auto record = make_record(7, {1, r.last().lsn + 1}, kind, in.take<std::uint16_t>() % kBlocks, blocks, id, body, {});
    if (!check_record(record->header, as_bytes(record->body)).ok()) continue;
    record->durable = true;
    r.append(record);
    r.on_durable(*record);
    if (in.take<std::uint8_t>() % 2) r.advance_commit(r.last().lsn);
  }
}

bool load(Replica& r, Replica::Image image, testing::Input& in) {
  for (auto& [kind, body] : image.bodies) {
    if (in.take<std::uint8_t>() % 4 == 0) change(body, in);
    if (!r.load_image(kind, body)) return false;
  }
  return true;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  testing::Input in(Bytes(reinterpret_cast<const std::byte*>(data), size));
  Replica one = fresh();
  feed(one, in);
  Lsn base = in.take<std::uint8_t>() % 2 ? 0 : in.take<std::uint8_t>() % 16;
  Replica other = fresh();
  bool taken = load(other, one.save_image(base), in);
  (void)other.missing_unflushed_while_loading();
  if (!taken || other.loading_base() != 0) return 0;
  (void)other.missing_unflushed();
  other.recount();
  feed(other, in);
  Replica third = fresh();
  for (auto& [kind, body] : other.save_image().bodies) LUGE_CHECK(third.load_image(kind, body));
  third.recount();
  LUGE_CHECK(third.index().digest() == other.index().digest());
  LUGE_CHECK(third.index().digest() == third.index().digest_of_entries());
  LUGE_CHECK(third.stripes().size() == other.stripes().size());
  return 0;
}
