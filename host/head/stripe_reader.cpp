#include "head/stripe_reader.hpp"

#include "base/crc32c.hpp"
#include "base/logging.hpp"
#include "switches/paths.hpp"
#include "switches/switches.hpp"
#include "wire/sled_generated.h"

namespace luge::head {

using namespace std::chrono_literals;

namespace {

Bytes block_of(const Buffer& blocks, std::uint32_t i) { return blocks.bytes().subspan(std::size_t{i} * kBlockBytes, kBlockBytes); }
// What the sled has said of the chunk will not change; that it could not be asked may.
bool lost_for_good(Code code) { return code == Code::corrupt || code == Code::stale || code == Code::not_found; }

}  // namespace

io::Task<Result<StripeReader::Piece>> StripeReader::read_chunk(const StripeRow& row, std::uint32_t chunk, std::uint32_t first,
                                                               std::uint32_t count, bool want_header) {
  const fbs::ChunkPlace place = row.places[chunk];
  if (place.sled() == 0) co_return Status(Code::not_found, "chunk was never written");
  const wire::NodeRecord* node = ctx_.control->node(place.sled());
  if (!node || !node->alive) co_return Status(Code::unavailable, "sled " + std::to_string(place.sled()) + " is down");
  fbs::StripeId id(row.id.vp, row.id.epoch, row.id.counter);
  auto answer = co_await ctx_.connections->call(place.sled(), wire::make_frame(wire::Kind::read_chunk, [&](auto& b) {
    return fbs::CreateReadChunk(b, &id, &place, static_cast<std::uint16_t>(chunk), first, count, want_header);
  }), 1s);
  if (!answer.ok()) co_return answer.status();
  const auto* c = answer->as<fbs::Chunk>();
  if (answer->kind != wire::Kind::chunk || !c) co_return wire::status_of(*answer).ok() ? Status(Code::corrupt, "answer does not parse") : wire::status_of(*answer);
  if (c->code() != 0) co_return wire::make_status(c->code(), c->text());
  Buffer data = answer->data();
  std::size_t header_bytes = want_header ? c->header_bytes() : 0;
  if (header_bytes > data.size() || data.size() - header_bytes != std::size_t{count} * kBlockBytes)
    co_return Status(Code::corrupt, "sled " + std::to_string(place.sled()) + " answered with another length");
  Piece piece;
  piece.header = data.slice(0, header_bytes);
  piece.blocks = data.slice(header_bytes, std::size_t{count} * kBlockBytes);
  // The identities come with the blocks; the payload is checked against them here as well (end to end).
  if (!c->identities() || c->identities()->size() != count) co_return Status(Code::corrupt, "identities are missing");
  for (std::uint32_t i = 0; i < count; ++i)
    if (crc32c(block_of(piece.blocks, i)) != c->identities()->Get(i)->crc())
      co_return Status(Code::corrupt, "sled " + std::to_string(place.sled()) + ": block does not match its CRC");
  piece.identities = c->identities();
  piece.answer = std::move(answer->body_owner);
  co_return piece;
}

io::Task<Result<Buffer>> StripeReader::read(StripeRow row, std::uint32_t block, Lba lba, std::span<std::uint32_t> crcs) {
  auto count = static_cast<std::uint32_t>(crcs.size());
  std::uint32_t per_chunk = row.chunk_bytes / kBlockBytes;
  std::uint32_t chunk = block / per_chunk, first = block % per_chunk;
  if (chunk >= row.layout.k || first + count > per_chunk) co_return Status(Code::internal, "index entry outside its stripe");
  auto piece = co_await read_chunk(row, chunk, first, count, false);
  if (piece.ok()) {
    bool right = true;
    for (std::uint32_t i = 0; i < count; ++i) {
      const fbs::BlockIdentity* b = piece->identities->Get(i);
      right = right && b->lba() == lba + i;
      crcs[i] = b->crc();
    }
    if (right) co_return std::move(piece->blocks);
    logging::error("stripe {}: chunk {} holds other blocks than the index says; rebuilding", to_string(row.id), chunk);
  }
  reconstructed_ = true;
  Status why = piece.ok() ? Status(Code::stale, "it holds other blocks") : piece.status();
  if (row.places[chunk].sled() != 0 && lost_for_good(why.code())) witnessed(Fact::chunk_missed, row.id.vp, row.id.counter, std::uint64_t{chunk} << 48 | row.id.epoch);
  co_return co_await rebuild(row, chunk, first, lba, crcs, std::move(why));
}

namespace {

// Next combination of k out of n in lexicographic order; false when it was the last.
bool next_combination(std::vector<std::uint32_t>& c, std::uint32_t n) {
  std::size_t k = c.size();
  for (std::size_t i = k; i-- > 0;) {
    if (c[i] == n - k + i) continue;
    ++c[i];
    for (std::size_t j = i + 1; j < k; ++j) c[j] = c[j - 1] + 1;
    return true;
  }
  return false;
}

}  // namespace

io::Task<void> StripeReader::gather(const StripeRow& row, std::uint32_t without, std::uint32_t end, std::uint32_t first, std::uint32_t count, Gathered& got) {
  std::uint32_t width = row.layout.width();
  got.pieces.resize(width);
  std::vector<std::string> why(width);
  auto fetch = [](StripeReader& r, const StripeRow& row, std::uint32_t i, std::uint32_t first, std::uint32_t count, Gathered& got, std::string& why) -> io::Task<void> {
    auto p = co_await r.read_chunk(row, i, first, count, true);
    if (p.ok()) got.pieces[i] = std::move(*p);
    else if (!lost_for_good(p.code())) got.may_come_back = true;
    if (!p.ok()) why = "chunk " + std::to_string(i) + " on sled " + std::to_string(row.places[i].sled()) + ": " + p.status().text() + "; ";
  };
  io::TaskGroup group(ctx_.world);
  for (std::uint32_t i = 0; i < std::min(end, width); ++i)
    if (i != without) group.spawn("read chunk", fetch(*this, row, i, first, count, got, why[i]));
  co_await group.join();
  for (const std::string& w : why) got.missing += w;
  for (const auto& p : got.pieces) {
    if (!p || got.header) continue;
    auto parsed = coding::parse_chunk_header(p->header.bytes());
    if (parsed.ok() && parsed->stripe() == row.id) got.header = std::move(*parsed);
  }
}

// A sled of the stripe decodes: this head's processor codes nothing, and its network carries one chunk's blocks, not k.
io::Task<Result<StripeReader::Rebuilt>> StripeReader::rebuilt_by_sled(const StripeRow& row, std::uint32_t chunk, std::uint32_t first,
                                                                      std::uint32_t count) {
  if (broken(Switch::head_decodes)) co_return Status(Code::unavailable, "not asked");
  std::vector<std::string> addresses;
  std::vector<NodeId> able;
  for (std::uint32_t i = 0; i < row.layout.width(); ++i) {
    const wire::NodeRecord* n = row.places[i].sled() != 0 ? ctx_.control->node(row.places[i].sled()) : nullptr;
    bool there = n != nullptr && n->alive;
    addresses.push_back(there ? n->address : std::string());
    if (there && i != chunk) able.push_back(row.places[i].sled());
  }
  if (able.size() < row.layout.k) co_return Status(Code::degraded, "too few sleds are up");
  NodeId sled = able[(row.id.counter + first) % able.size()];
  fbs::StripeId id(row.id.vp, row.id.epoch, row.id.counter);
  auto answer = co_await ctx_.connections->call(sled, wire::make_frame(wire::Kind::rebuild, [&](auto& b) {
    auto places = b.CreateVectorOfStructs(row.places.unpacked());
    return fbs::CreateRebuild(b, &id, static_cast<std::uint16_t>(row.layout.k), static_cast<std::uint16_t>(row.layout.m), places,
                              b.CreateVectorOfStrings(addresses), static_cast<std::uint16_t>(chunk), first, count);
  }), 3s);
  if (!answer.ok()) co_return answer.status();
  const auto* c = answer->kind == wire::Kind::chunk ? answer->as<fbs::Chunk>() : nullptr;
  if (c == nullptr) co_return Status(Code::corrupt, "the answer does not parse");
  if (c->code() != 0) co_return wire::make_status(c->code(), c->text());
  Rebuilt r{answer->data(), {}};
  if (!c->identities() || c->identities()->size() != count || r.blocks.size() != std::size_t{count} * kBlockBytes)
    co_return Status(Code::corrupt, "the answer has another length");
  for (std::uint32_t i = 0; i < count; ++i) {
    r.identities.push_back(*c->identities()->Get(i));
    if (crc32c(block_of(r.blocks, i)) != r.identities[i].crc())
      co_return Status(Code::corrupt, "a rebuilt block does not match its checksum");
  }
  co_return r;
}

io::Task<Status> StripeReader::decode(const StripeRow& row, std::span<const Bytes> present, std::uint32_t chunk, MutableBytes out) {
  ctx_.coded_bytes += std::uint64_t{row.layout.k} * out.size();
  Status s = co_await ctx_.coder->reconstruct(row.layout, present, std::span(&chunk, 1), std::span(&out, 1));
  co_return s;
}

io::Task<Result<StripeReader::Whole>> StripeReader::read_whole(StripeRow row, std::uint32_t front) {
  std::uint32_t per_chunk = row.chunk_bytes / kBlockBytes, width = row.layout.width();
  std::uint32_t wanted = front == 0 ? row.layout.k : std::min(front, row.layout.k);
  Gathered got;
  if (front != 0) co_await gather(row, width, wanted, 0, per_chunk, got);
  bool enough = front != 0 && got.header && std::all_of(got.pieces.begin(), got.pieces.begin() + wanted, [](const auto& p) { return p.has_value(); });
  if (!enough) {
    got = {};
    co_await gather(row, width, width, 0, per_chunk, got);
  }
  std::vector<Bytes> present(width);
  std::size_t have = 0;
  for (std::uint32_t i = 0; i < width; ++i)
    if (got.pieces[i]) present[i] = got.pieces[i]->blocks.bytes(), ++have;
  if (!enough && (have < row.layout.k || !got.header))
    co_return Status(Code::degraded, "stripe " + std::to_string(row.id.counter) + " has " + std::to_string(have) + " of " +
                                         std::to_string(row.layout.k) + " chunks it needs: " + got.missing);
  Whole out;
  out.chunks = static_cast<std::uint32_t>(have);
  out.bytes = std::uint64_t{have} * row.chunk_bytes;
  out.data = Buffer::allocate(std::size_t{wanted} * row.chunk_bytes);
  for (std::uint32_t i = 0; i < wanted; ++i) {
    MutableBytes target[1] = {MutableBytes(out.data.data() + std::size_t{i} * row.chunk_bytes, row.chunk_bytes)};
    if (got.pieces[i]) {
      std::memcpy(target[0].data(), present[i].data(), row.chunk_bytes);
    } else {
      auto rebuilt = co_await rebuilt_by_sled(row, i, 0, per_chunk);
      if (rebuilt.ok()) std::memcpy(target[0].data(), rebuilt->blocks.data(), row.chunk_bytes);
      else if (Status s = co_await decode(row, present, i, target[0]); !s.ok()) co_return s;
    }
    for (std::uint32_t b = 0; b < per_chunk; ++b) {
      out.identities.push_back(got.header->identity(i, b));
      if (crc32c(Bytes(target[0]).subspan(std::size_t{b} * kBlockBytes, kBlockBytes)) != out.identities.back().crc())
        co_return Status(Code::corrupt, "stripe " + std::to_string(row.id.counter) + ": chunk " + std::to_string(i) + " is not what was written");
    }
  }
  co_return out;
}

io::Task<Result<Buffer>> StripeReader::rebuild(const StripeRow& row, std::uint32_t chunk, std::uint32_t first, Lba lba, std::span<std::uint32_t> crcs,
                                               Status why) {
  auto count = static_cast<std::uint32_t>(crcs.size());
  auto by_sled = co_await rebuilt_by_sled(row, chunk, first, count);
  bool wanted = by_sled.ok();
  for (std::uint32_t i = 0; i < count && wanted; ++i) {
    wanted = by_sled->identities[i].lba() == lba + i;
    crcs[i] = by_sled->identities[i].crc();
  }
  if (wanted) co_return std::move(by_sled->blocks);
  std::uint32_t width = row.layout.width();
  Gathered got;
  got.missing = "chunk " + std::to_string(chunk) + ": " + why.text() + "; ";
  got.may_come_back = !lost_for_good(why.code());
  co_await gather(row, chunk, width, first, count, got);
  const std::optional<coding::ChunkHeader>& header = got.header;
  std::vector<std::uint32_t> have;
  for (std::uint32_t i = 0; i < width; ++i)
    if (got.pieces[i]) have.push_back(i);
  if (have.size() < row.layout.k || !header)
    co_return Status(Code::degraded, "stripe " + std::to_string(row.id.counter) + " has " + std::to_string(have.size()) + " of " +
                                         std::to_string(row.layout.k) + " chunks it needs: " + got.missing);
  std::vector<std::uint32_t> choice(row.layout.k);
  for (std::uint32_t i = 0; i < row.layout.k; ++i) choice[i] = i;
  do {
    std::vector<Bytes> present(width);
    for (std::uint32_t c : choice) present[have[c]] = got.pieces[have[c]]->blocks.bytes();
    Buffer rebuilt = Buffer::allocate(std::size_t{count} * kBlockBytes);
    if (Status s = co_await decode(row, present, chunk, rebuilt.mutable_bytes()); !s.ok()) co_return s;
    bool right = true;
    for (std::uint32_t i = 0; i < count && right; ++i) {
      fbs::BlockIdentity id = header->identity(chunk, first + i);
      right = id.lba() == lba + i && crc32c(block_of(rebuilt, i)) == id.crc();
      crcs[i] = id.crc();
    }
    if (right) co_return rebuilt;
    reached(Path::decode_with_another_set);
    logging::error("stripe {}: a rebuilt block does not match its CRC; trying other chunks", to_string(row.id));
  } while (next_combination(choice, static_cast<std::uint32_t>(have.size())));
  std::string none = "stripe " + std::to_string(row.id.counter) + ": no set of chunks gives the block that was written";
  if (got.may_come_back) co_return Status(Code::degraded, none + "; not all could be read: " + got.missing);
  co_return Status(Code::corrupt, none);
}

}  // namespace luge::head
