// `luge debug log` on logs and metadata stores that are whole, torn, rotten, recycled and hostile.
#include "cli/debug_log.hpp"

#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <random>
#include <sstream>

#include "base/crc32c.hpp"
#include "head/batch_format.hpp"
#include "head/index.hpp"
#include "io/meta_format.hpp"
#include "wire/designation.hpp"

namespace luge::cli {
namespace {

namespace json = boost::json;
using head::BatchHeader;
using head::RecordKind;
using head::RecordPtr;

constexpr std::uint64_t kSegment = 256 << 10;

class Memory final : public ByteSource {
 public:
  explicit Memory(const std::string& bytes) : bytes_(bytes) {}
  std::uint64_t size() const override { return bytes_.size(); }
  Result<Buffer> read(std::uint64_t offset, std::uint64_t length) override {
    length = std::min<std::uint64_t>(length, bytes_.size() - offset);
    if (bad_ >= offset && bad_ < offset + length) return Status(Code::io_error, "a bad spot");
    return Buffer::copy_of(as_bytes(std::string_view(bytes_).substr(offset, length)));
  }
  std::uint64_t bad_ = ~0ull;  // offset that cannot be read

 private:
  std::string bytes_;
};

RecordPtr record(RecordKind kind, Lsn lsn, std::string body = {}, std::uint32_t blocks = 0) {
  return head::make_record(65536, {3, lsn}, kind, 100 + lsn, blocks, {7, 2, lsn, 1}, std::move(body), {});
}

RecordPtr data(Lsn lsn, std::uint32_t blocks) {
  Buffer payload = Buffer::allocate(blocks * kBlockBytes);
  std::memset(payload.data(), static_cast<int>('a' + lsn % 20), payload.size());
  std::vector<std::uint32_t> crcs;
  crc32c_blocks(payload.bytes(), crcs);
  return head::make_record(65536, {3, lsn}, RecordKind::data, 100 + lsn, blocks, {7, 2, lsn, 1},
                           std::string(reinterpret_cast<const char*>(crcs.data()), crcs.size() * 4), payload);
}

// A log portion as a head writes it, in memory.
class Portion {
 public:
  explicit Portion(head::Portion portion = head::Portion::data) : portion_(portion) {}
  // Begins (again) to use a segment.
  void use(std::uint32_t segment, std::uint64_t generation) {
    segment_ = segment;
    generation_ = generation;
    offset_ = 0;
  }
  // Where the batch begins in the file.
  std::uint64_t add(const std::vector<RecordPtr>& records) {
    BatchHeader h;
    h.portion = static_cast<std::uint8_t>(portion_);
    h.previous_crc = previous_;
    h.generation = generation_;
    h.order = ++order_;
    h.node = 11;
    h.offset_blocks = static_cast<std::uint32_t>(offset_ / kBlockBytes);
    head::CommitEntry commit{65536, order_};
    Buffer area = head::encode_batch_area(h, {&commit, 1}, records);
    std::uint64_t at = segment_ * kSegment + offset_;
    bytes.resize(std::max<std::size_t>(bytes.size(), (segment_ + 1) * kSegment), '\0');
    put(at, area.bytes());
    std::uint64_t next = at + area.size();
    for (const RecordPtr& r : records) {
      put(next, r->payload.bytes());
      next += r->payload.size();
    }
    offset_ = next - segment_ * kSegment;
    previous_ = h.crc;
    return at;
  }
  std::string bytes;

 private:
  void put(std::uint64_t at, Bytes b) { bytes.replace(at, b.size(), reinterpret_cast<const char*>(b.data()), b.size()); }
  head::Portion portion_;
  std::uint32_t segment_ = 0;
  std::uint64_t generation_ = 1, offset_ = 0, order_ = 0;
  std::uint32_t previous_ = 0;
};

struct Printed {
  Status status;
  std::string text;
  bool has(const std::string& what) const { return text.find(what) != std::string::npos; }
};

Printed print(const std::string& bytes, LogPrintOptions o = {}, std::uint64_t bad_spot = ~0ull) {
  if (o.segment_bytes == 0) o.segment_bytes = kSegment;
  Memory file(bytes);
  file.bad_ = bad_spot;
  std::ostringstream out;
  Status s = print_log(file, o, out);
  return {s, out.str()};
}

std::vector<json::object> objects(const std::string& lines) {
  std::vector<json::object> out;
  std::istringstream in(lines);
  for (std::string line; std::getline(in, line);) out.push_back(json::parse(line).as_object());
  return out;
}

TEST(DebugLog, PrintsEveryRecordOfAWholeLog) {
  Portion p;
  p.add({data(1, 2), data(2, 1)});
  p.add({data(3, 8)});
  p.use(2, 1);
  p.add({data(4, 1)});
  Printed out = print(p.bytes);
  EXPECT_TRUE(out.status.ok()) << out.status.text();
  EXPECT_TRUE(out.has("data of VP 65536, 3:1, lba 101 +2, request 7/2/1")) << out.text;
  EXPECT_TRUE(out.has("segment 2 + 0")) << out.text;
  EXPECT_TRUE(out.has("committed 65536:3")) << out.text;
  EXPECT_FALSE(out.has("BAD")) << out.text;

  std::vector<json::object> all = objects(print(p.bytes, {.json = true}).text);
  ASSERT_EQ(all.size(), 3u + 4u);
  EXPECT_EQ(all[1].at("type"), "record");
  EXPECT_EQ(all[1].at("kind"), "data");
  EXPECT_EQ(all[1].at("lsn"), 1);
  EXPECT_EQ(all[1].at("good"), true);
  EXPECT_EQ(all[6].at("lsn"), 4);
}

TEST(DebugLog, OneSegmentOrFromAnOffset) {
  Portion p;
  p.add({data(1, 1)});
  std::uint64_t second = p.add({data(2, 1)});
  p.use(1, 1);
  p.add({data(3, 1)});
  Printed out = print(p.bytes, {.segment = 1});
  EXPECT_TRUE(out.status.ok()) << out.text;
  EXPECT_TRUE(out.has("3:3") && !out.has("3:1,")) << out.text;
  out = print(p.bytes, {.from = second});
  EXPECT_TRUE(out.status.ok()) << out.text;
  EXPECT_TRUE(out.has("3:2") && out.has("3:3") && !out.has("3:1,")) << out.text;
  EXPECT_EQ(print(p.bytes, {.segment = 9}).status.code(), Code::invalid);
  EXPECT_EQ(print(p.bytes, {.from = 5}).status.code(), Code::invalid);
  EXPECT_EQ(print(p.bytes, {.from = 1ull << 40}).status.code(), Code::invalid);
}

TEST(DebugLog, ATornEndIsSaidAndIsNoDamage) {
  Portion p;
  p.add({data(1, 1)});
  std::uint64_t torn = p.add({data(2, 2), data(3, 1), record(RecordKind::trim, 4)});
  p.bytes[torn + 200] ^= 1;
  Printed out = print(p.bytes);
  EXPECT_TRUE(out.status.ok()) << out.text;
  EXPECT_TRUE(out.has("begun and not completed")) << out.text;
  EXPECT_TRUE(out.has("3:1") && !out.has("3:2")) << out.text;
}

TEST(DebugLog, RotIsSaidWhereItIsAndWhatIsBehindItIsPrinted) {
  Portion p;
  p.add({data(1, 1)});
  std::uint64_t header = p.add({data(2, 2)});
  std::uint64_t payload = p.add({data(3, 1)});
  p.add({data(4, 1)});
  p.bytes[header + 70] ^= 1;
  p.bytes[payload + kBlockBytes + 5] ^= 1;
  Printed out = print(p.bytes);
  EXPECT_EQ(out.status.code(), Code::corrupt);
  EXPECT_TRUE(out.has("offset " + std::to_string(header) + ": DAMAGED: a batch whose checksum does not match; 12288 bytes")) << out.text;
  EXPECT_TRUE(out.has("offset " + std::to_string(payload) + ": DAMAGED: VP 65536 LSN 3: block 103 does not match its CRC")) << out.text;
  EXPECT_TRUE(out.has("3:4")) << out.text;

  // A batch whose bytes are right, and which is another's: a lost or misdirected write.
  Portion a, other;
  a.add({data(1, 1)});
  other.add({data(9, 1)});
  std::uint64_t swapped = a.add({data(2, 1)});
  other.add({data(2, 1)});
  a.bytes.replace(swapped, 2 * kBlockBytes, other.bytes, swapped, 2 * kBlockBytes);
  out = print(a.bytes);
  EXPECT_EQ(out.status.code(), Code::corrupt);
  EXPECT_TRUE(out.has("offset " + std::to_string(swapped) + ": DAMAGED: the batch before this one is gone")) << out.text;

  // The first batch of a segment.
  Portion q;
  q.add({data(1, 1)});
  q.add({data(2, 1)});
  q.bytes[70] ^= 1;
  out = print(q.bytes);
  EXPECT_TRUE(out.has("first batches of this segment are gone") && out.has("3:2")) << out.text;
  EXPECT_EQ(out.status.code(), Code::corrupt);
}

TEST(DebugLog, ABadSpotOfTheDiskIsSaidAndPassed) {
  Portion p;
  p.add({data(1, 1)});
  std::uint64_t bad = p.add({data(2, 1)});
  p.add({data(3, 1)});
  Printed out = print(p.bytes, {}, bad + 10);
  EXPECT_EQ(out.status.code(), Code::corrupt);
  EXPECT_TRUE(out.has("a bad spot") && out.has("3:1") && out.has("3:3")) << out.text;
}

TEST(DebugLog, WhatEarlierUsesLeftIsNotTakenForTheLog) {
  Portion p;
  for (Lsn l = 1; l <= 6; ++l) p.add({data(l, 1)});
  p.use(0, 2);
  p.add({data(7, 1)});
  Printed out = print(p.bytes);
  EXPECT_TRUE(out.status.ok()) << out.text;
  EXPECT_TRUE(out.has("3:7") && !out.has("3:4")) << out.text;
  EXPECT_TRUE(out.has("5 batches of earlier uses")) << out.text;
  out = print(p.bytes, {.old = true});
  EXPECT_TRUE(out.status.ok());
  EXPECT_TRUE(out.has("OLD batch 4") && out.has("3:4")) << out.text;
}

TEST(DebugLog, AnUnknownVersionIsNamed) {
  Portion p;
  std::uint64_t at = p.add({data(1, 1)});
  BatchHeader h;
  std::memcpy(&h, p.bytes.data() + at, sizeof h);
  h.version = 2;
  h.crc = 0;
  std::memcpy(p.bytes.data() + at, &h, sizeof h);
  h.crc = crc32c(as_bytes(std::string_view(p.bytes).substr(at, h.used_bytes)));
  std::memcpy(p.bytes.data() + at, &h, sizeof h);
  Printed out = print(p.bytes);
  EXPECT_EQ(out.status.code(), Code::corrupt);
  EXPECT_TRUE(out.has("format version 2")) << out.text;
}

std::string finished(flatbuffers::FlatBufferBuilder& b) {
  return std::string(reinterpret_cast<const char*>(b.GetBufferPointer()), b.GetSize());
}

std::string index_body() {
  flatbuffers::FlatBufferBuilder b;
  fbs::StripeId id(65536, 3, 9);
  std::vector<fbs::ChunkPlace> places = {{101, 1, 2, 0, 0, 5}, {102, 1, 2, 0, 0, 5}, {0, 0, 0, 0, 0, 0}};
  auto stripe = fbs::CreateStripe(b, 4, &id, 2, 1, 8192, b.CreateVectorOfStructs(places), 0);
  auto stripes = b.CreateVector(std::vector{stripe});
  std::vector<fbs::Placement> placements = {{100, 1, 0, 0}, {101, 1, 1, 0}};
  auto placed = b.CreateVectorOfStructs(placements);
  auto numbers = b.CreateVector(std::vector<std::uint64_t>{4, 4});
  std::vector<fbs::Answered> answered = {{12, 3}};
  auto session = fbs::CreateSession(b, 7, 2, 11, b.CreateVectorOfStructs(answered));
  auto sessions = b.CreateVector(std::vector{session});
  b.Finish(fbs::CreateIndexRecord(b, stripes, placed, numbers, sessions));
  return finished(b);
}

std::string image_part_body() {
  flatbuffers::FlatBufferBuilder b;
  std::vector<std::uint64_t> entries(head::Index::kFanOut);
  entries[3] = head::Entry::at_lsn(5).raw();
  entries[4] = head::Entry::at_stripe(4, 1).raw();
  auto page = fbs::CreatePage(b, 2, b.CreateVector(entries));
  b.Finish(fbs::CreateImagePart(b, b.CreateVector(std::vector{page})));
  return finished(b);
}

std::string truncate_body() {
  flatbuffers::FlatBufferBuilder b;
  fbs::LogPoint to(3, 17);
  b.Finish(fbs::CreateTruncate(b, &to));
  return finished(b);
}

TEST(DebugLog, MetadataRecordsAreReadThroughTheirSchemas) {
  Portion p(head::Portion::meta);
  p.add({record(RecordKind::epoch_start, 1), record(RecordKind::session_open, 2), record(RecordKind::trim, 3, {}, 512)});
  p.add({record(RecordKind::index, 4, index_body())});
  p.add({record(RecordKind::truncate, 0, truncate_body()), record(RecordKind::image_part, 0, image_part_body())});
  Printed out = print(p.bytes);
  EXPECT_TRUE(out.status.ok()) << out.text;
  for (const char* what : {"epoch_start of VP 65536, 3:1", "session_open", "trim of VP 65536, 3:3, lba 103 +512",
                           "index of VP 65536, 3:4", "1 stripes (4), 2 placements, 1 sessions", "what is beyond 3:17 is void",
                           "1 index pages with 2 blocks"})
    EXPECT_TRUE(out.has(what)) << what << "\n" << out.text;
  std::vector<json::object> all = objects(print(p.bytes, {.json = true}).text);
  const json::object& index = all.at(5);
  EXPECT_EQ(index.at("stripes").at(0).at("places").at(1).at("sled"), 102);
  EXPECT_EQ(index.at("placements").at(1).at("stripe"), 4);
  EXPECT_EQ(index.at("sessions").at(0).at("answered").at(0).at("sequence"), 12);
  const json::object& part = all.at(8);
  EXPECT_EQ(part.at("pages").at(0).at("entries").at(0).at("lba"), 2 * 512 + 3);
  EXPECT_EQ(part.at("pages").at(0).at("entries").at(0).at("lsn"), 5);
  EXPECT_EQ(part.at("pages").at(0).at("entries").at(1).at("block"), 1);
}

TEST(DebugLog, BodiesThatDoNotParseAreSaidNotRead) {
  Portion p(head::Portion::meta);
  std::string nonsense(64, '\x7f');
  for (RecordKind kind : {RecordKind::truncate, RecordKind::image_begin, RecordKind::image_part, RecordKind::image_end}) p.add({record(kind, 0, nonsense)});
  p.add({record(RecordKind::index, 5, nonsense)});
  p.add({record(static_cast<RecordKind>(9), 6)});
  p.add({record(RecordKind::trim, 7)});
  Printed out = print(p.bytes);
  EXPECT_EQ(out.status.code(), Code::corrupt);
  EXPECT_TRUE(out.has("6 damaged places") || out.status.text().find("6 damaged places") == 0) << out.status.text();
  EXPECT_TRUE(out.has("kind 9") && out.has("trim of VP 65536, 3:7")) << out.text;
}

// ---- the metadata store

class Store {
 public:
  explicit Store(std::size_t half) : half_(half) { bytes.resize(2 * half); }
  std::uint64_t add(int half, bool snapshot, const std::string& pairs) {
    io::MetaBatchHeader h;
    h.kind = snapshot ? io::kMetaSnapshot : io::kMetaChanges;
    h.sequence = ++sequence_;
    h.bytes = static_cast<std::uint32_t>(pairs.size());
    h.previous_crc = crc_;
    h.crc = io::meta_batch_crc(h, as_bytes(pairs));
    if (snapshot) end_ = half * half_;
    std::uint64_t at = end_;
    std::memcpy(bytes.data() + at, &h, sizeof h);
    std::memcpy(bytes.data() + at + sizeof h, pairs.data(), pairs.size());
    end_ += (sizeof h + pairs.size() + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
    crc_ = h.crc;
    return at;
  }
  static std::string pair(const std::string& key, std::optional<std::string> value) {
    io::MetaPairHeader p{static_cast<std::uint32_t>(key.size()), value ? static_cast<std::uint32_t>(value->size()) : io::kMetaErased};
    return std::string(reinterpret_cast<const char*>(&p), sizeof p) + key + value.value_or("");
  }
  std::string bytes;

 private:
  std::size_t half_;
  std::uint64_t sequence_ = 0, end_ = 0;
  std::uint32_t crc_ = 0;
};

std::string segment_row() {
  head::SegmentRow row{4, 12, 0xabcd, 0};
  return std::string(reinterpret_cast<const char*>(&row), sizeof row);
}

TEST(DebugLog, PrintsAMetadataStore) {
  Store s(64 << 10);
  wire::Designation d{.vp = 65536, .epoch = 3, .revision = 8, .primary = 11, .reserves = {12, 13}, .required = {11, 12}, .layout = {4, 2}, .blocks = 1024};
  s.add(0, true, "");
  s.add(0, false, Store::pair("segment/data/7", segment_row()));
  s.add(0, false, Store::pair("designation/65536", d.serialize()) + Store::pair("segment/data/7", std::nullopt));
  Printed out = print(s.bytes);
  EXPECT_TRUE(out.status.ok()) << out.text;
  for (const char* what : {"segment/data/7: generation 4, use 12", "designation/65536: VP 65536, epoch 3, revision 8, primary 11, reserves 12 13, required 11 12, layout 4+2",
                           "segment/data/7: erased", "batch 1 (snapshot)"})
    EXPECT_TRUE(out.has(what)) << what << "\n" << out.text;
  std::vector<json::object> all = objects(print(s.bytes, {.json = true}).text);
  EXPECT_EQ(all.back().at("erased"), true);
  EXPECT_EQ(print(s.bytes, {.segment = 0}).status.code(), Code::invalid);

  // A later snapshot in the other half: the first half is superseded.
  s.add(1, true, Store::pair("segment/meta/1", segment_row()));
  out = print(s.bytes);
  EXPECT_TRUE(out.status.ok()) << out.text;
  EXPECT_TRUE(out.has("segment/meta/1") && !out.has("segment/data/7")) << out.text;
  EXPECT_TRUE(print(s.bytes, {.old = true}).has("segment/data/7"));
}

TEST(DebugLog, SaysWhatAMetadataStoreHasLost) {
  Store s(64 << 10);
  s.add(0, true, "");
  std::uint64_t gone = s.add(0, false, Store::pair("segment/data/7", segment_row()));
  s.add(0, false, Store::pair("segment/data/8", segment_row()));
  s.bytes[gone + 50] ^= 1;
  Printed out = print(s.bytes);
  EXPECT_EQ(out.status.code(), Code::corrupt);
  EXPECT_TRUE(out.has("batch 2 is gone though batch 3 was written after it")) << out.text;
  s.bytes[10] ^= 1;
  EXPECT_TRUE(print(s.bytes).has("neither half")) << print(s.bytes).text;
  Store t(64 << 10);
  t.add(0, true, Store::pair("segment/data/1", "short") + Store::pair("designation/1", "x"));
  out = print(t.bytes);
  EXPECT_EQ(out.status.code(), Code::corrupt);
  EXPECT_TRUE(out.has("segment's row has 24 bytes")) << out.text;
}

TEST(DebugLog, OtherFilesAreRefused) {
  EXPECT_EQ(print(std::string(8192, 'x')).status.code(), Code::corrupt);
  EXPECT_TRUE(print(std::string(8192, '\0')).has("nothing but zeros"));
  EXPECT_TRUE(print("").status.ok());
}

// No bytes end it: flips, cuts and overwritten stretches of a log that has everything in it.
TEST(DebugLog, DamageOfAnyKindIsPrinted) {
  Portion p(head::Portion::meta);
  for (Lsn l = 1; l <= 4; ++l) {
    p.add({record(RecordKind::trim, l), record(RecordKind::index, l, index_body())});
    p.add({record(RecordKind::image_part, 0, image_part_body()), record(RecordKind::truncate, 0, truncate_body())});
  }
  std::mt19937_64 random(1);
  int noticed = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string bytes = p.bytes.substr(0, 64 << 10);
    for (std::uint64_t n = random() % 4; n < 4; ++n) {
      std::size_t at = random() % (random() % 2 ? bytes.size() : 4096);
      if (random() % 2) bytes[at] = static_cast<char>(random());
      else bytes.replace(at, std::min<std::size_t>(64, bytes.size() - at), std::min<std::size_t>(64, bytes.size() - at), static_cast<char>(random() % 3 - 1));
    }
    if (random() % 8 == 0) bytes.resize(random() % bytes.size());
    noticed += !print(bytes, {.old = true, .json = i % 2 == 0}).status.ok();
  }
  EXPECT_GT(noticed, 300);
}

}  // namespace
}  // namespace luge::cli
