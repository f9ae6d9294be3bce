#include "sim/cluster/media.hpp"

#include "base/crc32c.hpp"
#include "coding/checkpoint_block.hpp"
#include "coding/chunk_header.hpp"
#include "head/batch_format.hpp"
#include "io/meta_format.hpp"
#include "sled/device_format.hpp"

namespace luge::sim {

std::optional<Media::Slot> Media::slot(const head::StripeRow& row, std::uint32_t i) const {
  const fbs::ChunkPlace& place = row.places.at(i);
  if (place.sled() == 0) return std::nullopt;
  Slot s;
  s.node = unit_.node_of_sled(place.sled());
  s.path = Unit::device_path(place.device());
  const FileState* file = sim_.disk(s.node).file(s.path);
  if (file == nullptr) return std::nullopt;
  sled::Superblock super;
  std::array<std::byte, sizeof super> raw;
  file->read(0, raw);
  std::memcpy(&super, raw.data(), sizeof super);
  if (super.magic != sled::kSuperMagic || place.column() >= super.columns) return std::nullopt;
  s.bytes = coding::chunk_header_bytes(row.layout, row.chunk_bytes) + row.chunk_bytes;
  s.offset = sled::kMetaOffset + super.meta_mib * sled::kMiB + place.column() * super.column_bytes + place.slot() * s.bytes;
  if (s.offset + s.bytes > file->size) return std::nullopt;
  return s;
}

std::optional<Buffer> Media::chunk(const head::StripeRow& row, std::uint32_t i) const {
  auto s = slot(row, i);
  if (!s || forged_.count({row.id, i}) != 0) return std::nullopt;
  Buffer raw = Buffer::allocate(s->bytes);
  sim_.disk(s->node).file(s->path)->read(s->offset, raw.mutable_bytes());
  auto header = coding::parse_chunk_header(raw.bytes());
  if (!header.ok()) return std::nullopt;
  const coding::ChunkHeaderFields& f = header->fields();
  if (!f.written || f.stripe != row.id || f.chunk_index != i || f.generation != row.places[i].generation() ||
      f.chunk_bytes != row.chunk_bytes)
    return std::nullopt;
  Buffer chunk = raw.slice(header->header_bytes(), f.chunk_bytes);
  for (std::uint32_t b = 0; b < header->blocks_per_chunk(); ++b)
    if (crc32c(chunk.bytes().subspan(std::size_t{b} * kBlockBytes, kBlockBytes)) != header->block_crc(i, b)) return std::nullopt;
  return chunk;
}

std::vector<Media::CheckpointChunk> Media::checkpoint_chunks() const {
  std::vector<CheckpointChunk> out;
  Buffer block = Buffer::allocate(kBlockBytes);
  for (Node n : unit_.sled_nodes())
    for (std::uint16_t device = 0; device < unit_.shape().devices; ++device) {
      std::string path = Unit::device_path(device);
      const FileState* file = sim_.disk(n).file(path);
      for (std::uint64_t at = 0; file && at + kBlockBytes <= file->size; at += kBlockBytes) {
        if (!file->written(at)) continue;  // most of a device, in which zeros are no header
        file->read(at, block.mutable_bytes());
        auto header = coding::parse_chunk_header(block.bytes());
        if (!header.ok() || !header->fields().written || !coding::is_checkpoint_lba(header->identity(0, 0).lba())) continue;
        fbs::BlockIdentity first = header->identity(0, 0);
        out.push_back({{n, path, at + header->header_bytes(), header->fields().chunk_bytes}, header->stripe().vp, coding::checkpoint_id(first.lba()), first.lsn()});
      }
    }
  return out;
}

namespace {

io::MetaState meta_state(const FileState& file) {
  io::MetaHalf half[2];
  for (int i = 0; i < 2; ++i) {
    Buffer raw = Buffer::allocate(file.size / 2);
    file.read_durable(i * raw.size(), raw.mutable_bytes());
    half[i] = io::replay_meta_half(raw.bytes());
  }
  auto counts = io::counting_half(half[0], half[1]);
  return counts ? half[*counts].state : io::MetaState();
}

// What a recovery makes of one batch: all of it or nothing where it does not parse.
struct BatchRecords {
  std::vector<Media::LoggedRecord> whole;
  bool parses = false, rotten = false;
};

BatchRecords records_of(Bytes batch, const head::BatchHeader& h) {
  BatchRecords out;
  auto view = head::parse_batch(batch, h);
  if (!view.ok()) return out;
  for (const head::RecordView& r : view->records) {
    if (!head::check_record(r.header, r.body).ok()) return out;
    if (r.payload.empty()) continue;
    const bool whole = head::check_payload(r.header, r.body, r.payload).ok();
    if (whole) out.whole.push_back({r.header.vp(), r.header.lsn(), r.header.crc()});
    out.rotten |= !whole;
  }
  out.parses = true;
  return out;
}

struct UsedSegment {
  std::uint32_t number = 0;
  head::SegmentRow row;
};

// By the order of their uses.
std::map<std::uint64_t, UsedSegment> used_segments(const io::MetaState& state, std::uint64_t count) {
  std::map<std::uint64_t, UsedSegment> used;
  for (std::uint32_t s = 0; s < count; ++s) {
    auto value = state.find("segment/data/" + std::to_string(s));
    head::SegmentRow row;
    if (value == state.end() || value->second.size() != sizeof row) continue;
    std::memcpy(&row, value->second.data(), sizeof row);
    if (row.sequence != 0) used[row.sequence] = {s, row};
  }
  return used;
}

}  // namespace

Media::Logged Media::logged_data(NodeId head) const {
  Logged out;
  Disk& disk = sim_.disk(unit_.node_of_head(head));
  const FileState *meta = disk.file("meta"), *log = disk.file("log-data");
  if (meta == nullptr || log == nullptr) return out;
  const io::MetaState state = meta_state(*meta);
  const std::uint64_t segment_bytes = unit_.shape().head.segment_bytes;
  const auto used = used_segments(state, log->size / segment_bytes);
  Buffer raw = Buffer::allocate(segment_bytes);
  std::uint32_t previous_crc = 0;  // of the batch before
  for (auto it = used.begin(); it != used.end(); ++it) {
    const auto& [number, row] = it->second;
    const std::string key = "damage/segment/data/" + std::to_string(number) + "/" + std::to_string(row.generation) + "/";
    auto damaged = [&](std::uint64_t at, const char* what) {
      if (out.damage.empty() && !state.contains(key + std::to_string(at)))
        out.damage = "segment " + std::to_string(number) + " at offset " + std::to_string(at) + ": " + what;
    };
    const auto next = std::next(it);
    const bool last = next == used.end(), goes_on = !last && next->first == it->first + 1;
    if (it != used.begin() && std::prev(it)->first + 1 == it->first && previous_crc != row.start_crc) damaged(0, "the last batches before this are gone");
    previous_crc = row.start_crc;
    log->read_durable(number * segment_bytes, raw.mutable_bytes());
    auto batch_at = [&](std::uint64_t at, head::BatchHeader& h) {
      return head::parse_batch_header(raw.bytes().subspan(at), h).ok() && h.node == head && h.portion == 0 && h.generation == row.generation && h.offset_blocks == at / kBlockBytes;
    };
    auto batch_behind = [&](std::uint64_t at) {
      for (head::BatchHeader h; (at += kBlockBytes) < segment_bytes;)
        if (batch_at(at, h)) return true;
      return false;
    };
    const std::uint64_t end = row.end == 0 ? segment_bytes : std::uint64_t{row.end - 1} * kBlockBytes;
    for (std::uint64_t at = 0; at < end;) {
      head::BatchHeader h;
      if (!batch_at(at, h)) {
        if (!batch_behind(at)) break;
        damaged(at, "this is no batch");
        at += kBlockBytes;
        continue;
      }
      if (h.previous_crc != previous_crc) damaged(at, "a batch before this is missing");
      const BatchRecords batch = records_of(raw.bytes().subspan(at), h);
      if (batch.rotten && (last || (goes_on && next->second.row.start_crc == h.previous_crc)) && !batch_behind(at)) {
        previous_crc = h.previous_crc;
        break;  // the newest batch of its time: torn, with all that lies in it
      }
      previous_crc = h.crc;
      if (!batch.parses) damaged(at, "a batch does not parse");
      else out.records.insert(batch.whole.begin(), batch.whole.end());
      at += head::batch_bytes(h);
    }
  }
  return out;
}

bool Media::forge_parity(const head::StripeRow& row, std::uint32_t i) {
  if (!chunk(row, i)) return false;
  Slot s = *slot(row, i);
  Disk& disk = sim_.disk(s.node);
  Buffer raw = Buffer::allocate(s.bytes);
  disk.file(s.path)->read(s.offset, raw.mutable_bytes());
  coding::ChunkHeader old = *coding::parse_chunk_header(raw.bytes());
  raw.data()[old.header_bytes() + kBlockBytes / 2] ^= std::byte{0x55};
  std::vector<fbs::BlockIdentity> identities;
  std::vector<std::uint32_t> crcs;
  for (std::uint32_t c = 0; c < row.layout.width(); ++c)
    for (std::uint32_t b = 0; b < old.blocks_per_chunk(); ++b) {
      if (c < row.layout.k) identities.push_back(old.identity(c, b));
      else crcs.push_back(c == i ? crc32c(raw.bytes().subspan(old.header_bytes() + std::size_t{b} * kBlockBytes, kBlockBytes))
                                 : old.parity_crc(c, b));
    }
  Buffer header = coding::encode_chunk_header(old.fields(), identities, crcs);
  std::memcpy(raw.data(), header.data(), header.size());
  disk.overwrite(s.path, s.offset, raw.bytes());
  forged_.insert({row.id, i});
  return true;
}

namespace {

// GF(2^8) with polynomial 0x11D, from its definition: what the oracle says owes nothing to the coders that it judges.
std::uint8_t product(unsigned a, unsigned b) {
  unsigned sum = 0;
  for (; b != 0; b >>= 1) {
    if (b & 1) sum ^= a;
    a = a << 1 ^ (a & 0x80 ? 0x11d : 0);
  }
  return static_cast<std::uint8_t>(sum);
}

std::uint8_t inverse(unsigned a) {
  unsigned b = 1;
  while (product(a, b) != 1) ++b;
  return static_cast<std::uint8_t>(b);
}

// What data chunk j counts in parity chunk `row` (k <= row < k + m).
std::uint8_t factor(std::uint32_t row, std::uint32_t j) { return inverse(row ^ j); }

// Sixteen elements, each in a byte.
using Vector = std::uint8_t __attribute__((vector_size(16)));
using Signed = std::int8_t __attribute__((vector_size(16)));

Vector doubled(Vector v) { return (v + v) ^ (reinterpret_cast<Vector>(reinterpret_cast<Signed>(v) < 0) & 0x1d); }

struct Term {
  std::uint8_t times;
  Bytes what;
};

// The sum of all terms. From the highest bits of their factors to the lowest, each time doubling what there is: eight doublings in all,
// and not eight for each term. REQUIRES: all are as long, a multiple of 16.
Buffer sum(const std::vector<Term>& terms) {
  Buffer out = Buffer::allocate(terms.at(0).what.size());
  for (std::size_t at = 0; at < out.size(); at += sizeof(Vector)) {
    Vector sum{};
    for (int bit = 7; bit >= 0; --bit) {
      sum = doubled(sum);
      for (const Term& t : terms) {
        if ((t.times >> bit & 1) == 0) continue;
        Vector v;
        std::memcpy(&v, t.what.data() + at, sizeof v);
        sum ^= v;
      }
    }
    std::memcpy(out.data() + at, &sum, sizeof sum);
  }
  return out;
}

using Chunks = std::vector<std::optional<Buffer>>;

Buffer parity(std::uint32_t row, const std::vector<Buffer>& data) {
  std::vector<Term> terms;
  for (std::uint32_t j = 0; j < data.size(); ++j) terms.push_back({factor(row, j), data[j].bytes()});
  return sum(terms);
}

// The data, what is missing of it solved for from the first parity chunks that are there. No pivot is ever zero: each square part of these
// factors can be inverted. REQUIRES: k chunks are there.
std::vector<Buffer> data_of(Layout l, const Chunks& chunks) {
  std::vector<std::uint32_t> missing;
  for (std::uint32_t j = 0; j < l.k; ++j)
    if (!chunks[j]) missing.push_back(j);
  std::vector<std::vector<std::uint8_t>> a;
  std::vector<Buffer> b;
  for (std::uint32_t p = l.k; a.size() < missing.size(); ++p) {
    if (!chunks[p]) continue;
    a.emplace_back();
    for (std::uint32_t j : missing) a.back().push_back(factor(p, j));
    std::vector<Term> terms{{1, chunks[p]->bytes()}};
    for (std::uint32_t j = 0; j < l.k; ++j)
      if (chunks[j]) terms.push_back({factor(p, j), chunks[j]->bytes()});
    b.push_back(sum(terms));
  }
  for (std::size_t c = 0; c < a.size(); ++c) {
    const std::uint8_t scale = inverse(a[c][c]);
    for (std::uint8_t& x : a[c]) x = product(scale, x);
    b[c] = sum({{scale, b[c].bytes()}});
    for (std::size_t r = 0; r < a.size(); ++r) {
      if (r == c) continue;
      const std::uint8_t f = a[r][c];
      for (std::size_t x = 0; x < a.size(); ++x) a[r][x] ^= product(f, a[c][x]);
      b[r] = sum({{1, b[r].bytes()}, {f, b[c].bytes()}});
    }
  }
  std::vector<Buffer> data;
  for (std::uint32_t j = 0, next = 0; j < l.k; ++j) data.push_back(chunks[j] ? *chunks[j] : b[next++]);
  return data;
}

}  // namespace

std::optional<std::string> Media::check(const head::StripeRow& row, const Lack& lack, bool few) const {
  const Layout l = row.layout;
  const std::string name = "stripe " + to_string(row.id) + " of " + to_string(l);
  Chunks chunks;
  std::set<NodeId> sleds;
  std::uint32_t whole = 0, places = 0;
  for (std::uint32_t i = 0; i < l.width(); ++i) {
    const NodeId sled = row.places[i].sled();
    chunks.push_back(chunk(row, i));
    whole += chunks.back().has_value();
    if (sled == 0) continue;
    ++places;
    if (!sleds.insert(sled).second) return name + ": two of its chunks are on sled " + std::to_string(sled);
    if (!chunks.back() && !lack(i)) return name + ": chunk " + std::to_string(i) + " on sled " + std::to_string(sled) + " is not whole on its medium";
  }
  if (places < std::min(l.k + 1, l.width())) return name + " has places for only " + std::to_string(places) + " chunks";
  if (whole < l.k && few) return std::nullopt;
  if (whole < l.k) return name + " has only " + std::to_string(whole) + " whole chunks on the sleds' media";
  const std::vector<Buffer> data = data_of(l, chunks);
  for (std::uint32_t i = l.k; i < l.width(); ++i)
    if (chunks[i] && std::memcmp(parity(i, data).data(), chunks[i]->data(), row.chunk_bytes) != 0)
      return name + ": parity chunk " + std::to_string(i) + " on sled " + std::to_string(row.places[i].sled()) + " is not that of its data";
  return std::nullopt;
}

}  // namespace luge::sim
