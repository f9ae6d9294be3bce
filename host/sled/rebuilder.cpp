#include "sled/rebuilder.hpp"

#include <algorithm>

#include "base/crc32c.hpp"
#include "coding/chunk_header.hpp"
#include "wire/channel.hpp"

namespace luge::sled {

using namespace std::chrono_literals;

struct Rebuilder::Job {
  StripeId stripe;
  Layout layout;
  std::vector<fbs::ChunkPlace> places;
  std::vector<std::string> addresses;
  std::uint32_t chunk = 0, first = 0, blocks = 0;  // what is wanted
  std::vector<Buffer> pieces;                      // by chunk: the same blocks of it
  std::optional<coding::ChunkHeader> header;
  std::string missing;
  Buffer rebuilt;
  std::vector<fbs::BlockIdentity> identities;      // of `rebuilt`

  std::size_t have() const { return static_cast<std::size_t>(std::count_if(pieces.begin(), pieces.end(), [](const Buffer& b) { return !b.empty(); })); }
  bool right(const Buffer& b) const {
    for (std::uint32_t i = 0; i < blocks; ++i)
      if (crc32c(b.bytes().subspan(std::size_t{i} * kBlockBytes, kBlockBytes)) != identities[i].crc()) return false;
    return true;
  }
};

Rebuilder::Rebuilder(io::World& world, const wire::Identity& self, const Options& options, Counters& counters, coding::GuardedCoder& coder, Peers& peers,
                     LocalRead local)
    : world_(world), self_(self), counters_(counters), coder_(coder), peers_(peers), local_(std::move(local)), memory_(world, options.stripe_memory) {}

Status Rebuilder::parse(const fbs::Rebuild& m, Job& job) {
  auto bad = [](const char* what) { return Status(Code::invalid, std::string("rebuild: ") + what); };
  if (!m.stripe() || !m.places() || !m.addresses()) return bad("the message does not parse");
  job.stripe = {m.stripe()->vp(), m.stripe()->epoch(), m.stripe()->counter()};
  job.layout = {m.k(), m.m()};
  job.chunk = m.chunk_index();
  job.first = m.first_block();
  job.blocks = m.blocks();
  if (job.layout.k == 0 || job.layout.k > coding::kMaxData || job.layout.m > coding::kMaxParity) return bad("layout is out of range");
  if (m.places()->size() != job.layout.width() || m.addresses()->size() != job.layout.width()) return bad("counts do not fit the layout");
  if (job.chunk >= job.layout.width()) return bad("no such chunk");
  constexpr std::uint32_t kMost = coding::kMaxChunkBytes / kBlockBytes;
  if (job.blocks == 0 || job.blocks > kMost || job.first > kMost - job.blocks) return bad("blocks outside a chunk");
  for (const auto* p : *m.places()) job.places.push_back(*p);
  for (const auto* a : *m.addresses()) job.addresses.push_back(a->str());
  job.pieces.resize(job.layout.width());
  return Status();
}

// Another sled's answer is checked like one of this sled's own device: by the checksums beside it.
Status Rebuilder::take(Job& job, std::uint32_t chunk, const wire::Frame& answer) {
  const auto* c = answer.kind == wire::Kind::chunk ? answer.as<fbs::Chunk>() : nullptr;
  if (c == nullptr) return wire::status_of(answer).ok() ? Status(Code::corrupt, "the answer does not parse") : wire::status_of(answer);
  if (c->code() != 0) return wire::make_status(c->code(), c->text());
  Buffer header, blocks;
  if (answer.payload.size() == 2) {  // this sled's own: not joined by a socket
    header = answer.payload[0];
    blocks = answer.payload[1];
  } else if (Buffer all = answer.data(); c->header_bytes() <= all.size()) {
    header = all.slice(0, c->header_bytes());
    blocks = all.slice(c->header_bytes(), all.size() - c->header_bytes());
  }
  if (blocks.size() != std::size_t{job.blocks} * kBlockBytes || !c->identities() || c->identities()->size() != job.blocks)
    return Status(Code::corrupt, "the answer has another length");
  for (std::uint32_t i = 0; i < job.blocks; ++i)
    if (crc32c(blocks.bytes().subspan(std::size_t{i} * kBlockBytes, kBlockBytes)) != c->identities()->Get(i)->crc())
      return Status(Code::corrupt, "a block does not match its checksum");
  if (!job.header) {
    auto parsed = coding::parse_chunk_header(header.bytes());
    if (parsed.ok() && parsed->stripe() == job.stripe && parsed->fields().layout == job.layout) job.header = std::move(*parsed);
  }
  job.pieces[chunk] = blocks;
  return Status();
}

io::Task<void> Rebuilder::read(std::shared_ptr<Job> job, std::uint32_t chunk) {
  const fbs::ChunkPlace place = job->places[chunk];
  fbs::StripeId id(job->stripe.vp, job->stripe.epoch, job->stripe.counter);
  wire::Frame message = wire::make_frame(wire::Kind::read_chunk, [&](auto& b) {
    return fbs::CreateReadChunk(b, &id, &place, static_cast<std::uint16_t>(chunk), job->first, job->blocks, true);
  });
  Status s;
  if (place.sled() == self_.node) {
    wire::Frame answer = co_await local_(*message.as<fbs::ReadChunk>());
    s = take(*job, chunk, answer);
  } else {
    std::shared_ptr<wire::Link> to = peers_.link(job->addresses[chunk]);
    auto answer = co_await to->call(std::move(message), 1s);
    s = answer.ok() ? take(*job, chunk, *answer) : answer.status();
  }
  if (!s.ok()) job->missing += "chunk " + std::to_string(chunk) + " on sled " + std::to_string(place.sled()) + ": " + s.text() + "; ";
}

// Just k of them, this sled's own first; for each that cannot be read, another.
io::Task<Status> Rebuilder::gather(std::shared_ptr<Job> job) {
  std::vector<std::uint32_t> order;
  for (bool own : {true, false})
    for (std::uint32_t i = 0; i < job->layout.width(); ++i) {
      const fbs::ChunkPlace& p = job->places[i];
      bool here = p.sled() == self_.node;
      if (i != job->chunk && p.sled() != 0 && here == own && (here || !job->addresses[i].empty())) order.push_back(i);
    }
  for (std::size_t asked = 0; job->have() < job->layout.k && asked < order.size();) {
    io::TaskGroup group(world_);
    for (std::size_t lack = job->layout.k - job->have(); lack > 0 && asked < order.size(); --lack) group.spawn("read for a rebuild", read(job, order[asked++]));
    co_await group.join();
  }
  if (job->have() >= job->layout.k && job->header) co_return Status();
  co_return Status(Code::degraded, "rebuild: " + std::to_string(job->have()) + " of " + std::to_string(job->layout.k) + " chunks can be read: " + job->missing);
}

io::Task<Status> Rebuilder::decode(Job& job) {
  std::uint32_t per_chunk = job.header->blocks_per_chunk();
  if (job.first + job.blocks > per_chunk) co_return Status(Code::invalid, "rebuild: blocks outside the chunk");
  for (std::uint32_t i = 0; i < job.blocks; ++i) job.identities.push_back(job.header->identity(job.chunk, job.first + i));
  auto coded = co_await coder_.reconstruct(job.layout, job.pieces, {job.chunk}, [&job](const std::vector<Buffer>& out) { return job.right(out[0]); });
  if (!coded.ok()) co_return coded.status();
  job.rebuilt = coded->chunks[0];
  if (!job.right(job.rebuilt)) co_return Status(Code::corrupt, "rebuild: these chunks do not give the blocks that were written");
  counters_.blocks_rebuilt += job.blocks;
  co_return Status();
}

io::Task<wire::Frame> Rebuilder::rebuild(const fbs::Rebuild& request) {
  auto job = std::make_shared<Job>();
  Status s = memory_.crowded() ? Status(Code::unavailable, "the sled rebuilds more than it can hold; try another") : parse(request, *job);
  if (s.ok()) {
    io::Budget::Lease lease = co_await memory_.take(std::uint64_t{job->layout.k + 1} * job->blocks * kBlockBytes);
    s = co_await gather(job);
    if (s.ok()) s = co_await decode(*job);
  }
  std::span<const fbs::BlockIdentity> identities;
  if (s.ok()) identities = job->identities;
  wire::Frame f = wire::make_frame(wire::Kind::chunk, [&](auto& b) {
    auto text = b.CreateString(s.text());
    auto list = b.CreateVectorOfStructs(identities.data(), identities.size());
    return fbs::CreateChunk(b, static_cast<std::uint16_t>(s.code()), text, list, 0);
  });
  if (s.ok()) f.payload.push_back(job->rebuilt);
  co_return f;
}

}  // namespace luge::sled
