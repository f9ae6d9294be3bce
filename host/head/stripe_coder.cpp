#include "head/stripe_coder.hpp"

#include <cstring>

#include "base/crc32c.hpp"
#include "switches/paths.hpp"
#include "switches/switches.hpp"
#include "wire/sled_generated.h"

namespace luge::head {

using namespace std::chrono_literals;

namespace {

constexpr std::size_t kTurnBlocks = 64;  // worked on before others get their turn on the loop

struct Coded {
  std::vector<Buffer> chunks;  // k, then m
  std::vector<std::uint32_t> parity_crcs;
};

// The data chunks in one piece each, every block compared with its checksum once more: what is in memory may have changed since.
io::Task<Status> collect(Context& ctx, StripeWrite& s, Coded& out) {
  Buffer data = Buffer::allocate(std::size_t{s.layout.k} * s.chunk_bytes);
  std::size_t at = 0;
  for (const Buffer& b : s.payload) {
    if (b.size() > data.size() - at) co_return Status(Code::internal, "stripe: more data than it holds");
    std::memcpy(data.data() + at, b.data(), b.size());
    at += b.size();
  }
  if (at != data.size() || s.identities.size() != at / kBlockBytes) co_return Status(Code::internal, "stripe: less data than it holds");
  s.payload.clear();
  for (std::size_t i = 0; i < s.identities.size(); ++i) {
    if (crc32c(data.bytes().subspan(i * kBlockBytes, kBlockBytes)) != s.identities[i].crc())
      co_return Status(Code::corrupt, "stripe: block " + std::to_string(i) + " does not match its checksum");
    if (i % kTurnBlocks == kTurnBlocks - 1) co_await ctx.world.yield();
  }
  for (std::uint32_t i = 0; i < s.layout.k; ++i) out.chunks.push_back(data.slice(std::size_t{i} * s.chunk_bytes, s.chunk_bytes));
  co_return Status();
}

io::Task<Status> encode(Context& ctx, const StripeWrite& s, Coded& out) {
  std::vector<Bytes> from;
  std::vector<Buffer> parity;
  std::vector<MutableBytes> to;
  for (const Buffer& b : out.chunks) from.push_back(b.bytes());
  for (std::uint32_t i = 0; i < s.layout.m; ++i) parity.push_back(Buffer::allocate(s.chunk_bytes));
  for (Buffer& b : parity) to.push_back(b.mutable_bytes());
  Status coded = co_await ctx.coder->encode(s.layout, from, to);
  if (!coded.ok()) co_return coded;
  ctx.coded_bytes += std::uint64_t{s.layout.k} * s.chunk_bytes;
  std::vector<std::uint32_t> crcs;
  for (Buffer& p : parity) {
    if (broken(Switch::wrong_parity)) p.data()[100] ^= std::byte{1};
    crc32c_blocks(p.bytes(), crcs);
    out.parity_crcs.insert(out.parity_crcs.end(), crcs.begin(), crcs.end());
    out.chunks.push_back(std::move(p));
  }
  co_return Status();
}

io::Task<void> send_chunk(Context& ctx, const StripeWrite& s, const Coded& coded, std::uint32_t chunk, Status& result) {
  const fbs::ChunkPlace& place = s.places[chunk];
  if (chunk >= s.layout.k && broken(Switch::parity_never_written)) co_return;
  Buffer header = coding::encode_chunk_header({ctx.identity.unit, s.id, s.layout, s.chunk_bytes, chunk, place.generation(), true}, s.identities, coded.parity_crcs);
  fbs::StripeId id(s.id.vp, s.id.epoch, s.id.counter);
  wire::Frame message = wire::make_frame(wire::Kind::write_chunk, [&](auto& b) {
    return fbs::CreateWriteChunk(b, s.vp, s.epoch, &id, &place, static_cast<std::uint16_t>(chunk), static_cast<std::uint32_t>(header.size()), &s.credentials[chunk]);
  });
  message.payload = {header, coded.chunks[chunk]};
  auto answer = co_await ctx.connections->call(place.sled(), std::move(message), 5s);
  if (!answer.ok()) result = answer.status();
  else if (answer->kind != wire::Kind::reply) result = Status(Code::corrupt, "the answer to a chunk does not parse");
  else result = wire::status_of(*answer);
}

}  // namespace

io::Task<Status> code_and_send_stripe(Context& ctx, StripeWrite& stripe) {
  Coded coded;
  Status s = co_await collect(ctx, stripe, coded);
  if (s.ok()) s = co_await encode(ctx, stripe, coded);
  if (!s.ok()) co_return s;
  reached(Path::stripe_spread);
  std::vector<Status> results(stripe.places.size());
  {
    io::TaskGroup group(ctx.world);
    for (std::uint32_t i = 0; i < stripe.places.size(); ++i)
      if (stripe.places[i].sled() != 0) group.spawn("chunk", send_chunk(ctx, stripe, coded, i, results[i]));
    co_await group.join();
  }
  // That it has been fenced off is the one thing that must be heard.
  for (std::size_t i = 0; i < results.size(); ++i)
    if (!results[i].ok() && (s.ok() || (results[i].code() == Code::fenced && s.code() != Code::fenced)))
      s = results[i].with("sled " + std::to_string(stripe.places[i].sled()));
  if (!s.ok()) reached(Path::attempt_of_unknown_end);
  co_return s;
}

}  // namespace luge::head
