#include "sled/gateway.hpp"

#include "base/crc32c.hpp"
#include "base/logging.hpp"
#include "switches/switches.hpp"

namespace luge::sled {

struct Gateway::Job {
  VpId vp = 0;
  Epoch epoch = 0;
  StripeId stripe;
  Layout layout;
  std::uint32_t chunk_bytes = 0;
  std::vector<fbs::BlockIdentity> blocks;
  std::vector<fbs::ChunkPlace> places;
  std::vector<std::string> addresses;
  std::vector<Buffer> chunks;
  std::vector<std::uint32_t> parity_crcs;
  std::vector<Status> results;
};

Gateway::Gateway(io::World& world, const wire::Identity& self, const Options& options, Counters& counters, LocalWrite local)
    : world_(world), self_(self), options_(options), counters_(counters), local_(std::move(local)),
      coder_(coding::make_isal_coder()), software_(coding::make_isal_coder()), room_(world) {}
Gateway::~Gateway() = default;

Status Gateway::parse(const wire::Frame& request, Job& job) const {
  auto bad = [](const char* what) { return Status(Code::invalid, std::string("stripe: ") + what); };
  const auto* m = request.as<fbs::WriteStripe>();
  if (!m || !m->stripe() || !m->blocks() || !m->places() || !m->addresses()) return bad("message does not parse");
  job.vp = m->vp();
  job.epoch = m->epoch();
  job.stripe = {m->stripe()->vp(), m->stripe()->epoch(), m->stripe()->counter()};
  job.layout = {m->k(), m->m()};
  job.chunk_bytes = m->chunk_bytes();
  Layout l = job.layout;
  if (l.k == 0 || l.k > coding::kMaxData || l.m > coding::kMaxParity) return bad("layout out of range");
  if (job.chunk_bytes == 0 || job.chunk_bytes % kBlockBytes != 0 || job.chunk_bytes > coding::kMaxChunkBytes) return bad("chunk size out of range");
  if (job.stripe.vp != job.vp || job.stripe.epoch != job.epoch) return bad("stripe id is of another VP or epoch");
  std::size_t blocks = std::size_t{l.k} * job.chunk_bytes / kBlockBytes;
  if (m->blocks()->size() != blocks || m->places()->size() != l.width() || m->addresses()->size() != l.width()) return bad("counts do not fit the layout");
  if (request.payload_bytes() != blocks * kBlockBytes) return bad("payload has another length");
  for (const auto* b : *m->blocks()) job.blocks.push_back(*b);
  for (const auto* p : *m->places()) job.places.push_back(*p);
  for (const auto* a : *m->addresses()) job.addresses.push_back(a->str());
  for (std::size_t i = 0; i < job.places.size(); ++i)
    for (std::size_t j = 0; j < i; ++j)
      if (job.places[i].sled() != 0 && job.places[i].sled() == job.places[j].sled()) return bad("two columns on one sled");
  Buffer data = request.data();
  for (std::uint32_t i = 0; i < l.k; ++i) job.chunks.push_back(data.slice(std::size_t{i} * job.chunk_bytes, job.chunk_bytes));
  for (std::size_t i = 0; i < blocks; ++i)
    if (crc32c(data.bytes().subspan(i * kBlockBytes, kBlockBytes)) != job.blocks[i].crc())
      return Status(Code::corrupt, "stripe: block " + std::to_string(i) + " does not match its CRC");
  return Status();
}

io::Task<Status> Gateway::code(Job& job) {
  std::vector<Bytes> data;
  for (const Buffer& c : job.chunks) data.push_back(c.bytes());
  std::vector<Buffer> checked;
  std::vector<MutableBytes> parity, check;
  for (std::uint32_t i = 0; i < job.layout.m; ++i) {
    job.chunks.push_back(Buffer::allocate(job.chunk_bytes));
    parity.push_back(job.chunks.back().mutable_bytes());
  }
  if (Status s = co_await coder_->encode(job.layout, data, parity); !s.ok()) co_return s;
  bool sabotage = broken(Switch::wrong_parity);
  if (sabotage)
    for (MutableBytes p : parity) p[100] ^= std::byte{1};
  if (options_.verify_all && !sabotage) {
    for (std::uint32_t i = 0; i < job.layout.m; ++i) {
      checked.push_back(Buffer::allocate(job.chunk_bytes));
      check.push_back(checked.back().mutable_bytes());
    }
    if (Status s = co_await software_->encode(job.layout, data, check); !s.ok()) co_return s;
    for (std::uint32_t i = 0; i < job.layout.m; ++i) {
      if (std::memcmp(parity[i].data(), check[i].data(), job.chunk_bytes) == 0) continue;
      ++counters_.verify_failures;
      logging::error("stripe {}: coder {} made wrong parity; software's is written instead", to_string(job.stripe), coder_->name());
      job.chunks[job.layout.k + i] = checked[i];
    }
  }
  std::vector<std::uint32_t> crcs;
  for (std::uint32_t i = 0; i < job.layout.m; ++i) {
    crc32c_blocks(job.chunks[job.layout.k + i].bytes(), crcs);
    job.parity_crcs.insert(job.parity_crcs.end(), crcs.begin(), crcs.end());
  }
  ++counters_.stripes_coded;
  counters_.source_bytes_coded += std::uint64_t{job.layout.k} * job.chunk_bytes;
  co_return Status();
}

wire::Link& Gateway::link(const std::string& address) {
  auto& l = links_[address];
  if (!l) {
    l = std::make_unique<wire::Link>(world_, self_, address);
    l->start();
  }
  return *l;
}

io::Task<void> Gateway::send_chunk(std::shared_ptr<Job> job, std::uint32_t chunk) {
  const fbs::ChunkPlace place = job->places[chunk];
  coding::ChunkHeaderFields f{self_.unit, job->stripe, job->layout, job->chunk_bytes, chunk, place.generation(), true};
  Buffer header = coding::encode_chunk_header(f, job->blocks, job->parity_crcs);
  if (place.sled() == self_.node) {
    job->results[chunk] = co_await local_(place, job->epoch, header.bytes(), job->chunks[chunk].bytes());
    co_return;
  }
  fbs::StripeId id(job->stripe.vp, job->stripe.epoch, job->stripe.counter);
  wire::Frame f2 = wire::make_frame(wire::Kind::write_chunk, [&](auto& b) {
    return fbs::CreateWriteChunk(b, job->vp, job->epoch, &id, &place, static_cast<std::uint16_t>(chunk), static_cast<std::uint32_t>(header.size()));
  });
  f2.payload = {header, job->chunks[chunk]};
  auto answer = co_await link(job->addresses[chunk]).call(std::move(f2), options_.peer_timeout);
  job->results[chunk] = answer.ok() ? wire::status_of(*answer) : answer.status();
}

io::Task<wire::Frame> Gateway::write_stripe(wire::Frame request) {
  auto job = std::make_shared<Job>();
  std::uint64_t bytes = request.payload_bytes() * 2;
  while (in_flight_ != 0 && in_flight_ + bytes > options_.stripe_memory) co_await room_.wait();
  in_flight_ += bytes;
  struct Leave {
    Gateway& g;
    std::uint64_t bytes;
    ~Leave() {
      g.in_flight_ -= bytes;
      g.room_.notify_all();
    }
  } leave{*this, bytes};
  Status s = parse(request, *job);
  if (s.code() == Code::corrupt) ++counters_.corrupt;
  if (s.ok()) s = co_await code(*job);
  if (s.ok()) {
    job->results.resize(job->layout.width());
    io::TaskGroup group(world_);
    for (std::uint32_t i = 0; i < job->layout.width(); ++i)
      if (job->places[i].sled() != 0) group.spawn("chunk", send_chunk(job, i));
    co_await group.join();
    for (std::uint32_t i = 0; i < job->results.size(); ++i) {
      const Status& r = job->results[i];
      // That it has been fenced off is the one thing the sender must hear.
      if (!r.ok() && (s.ok() || r.code() == Code::fenced)) s = r.with("sled " + std::to_string(job->places[i].sled()));
    }
  }
  std::vector<std::uint16_t> codes;
  for (const Status& r : job->results) codes.push_back(static_cast<std::uint16_t>(r.code()));
  co_return wire::make_frame(wire::Kind::stripe_reply, [&](auto& b) {
    auto text = b.CreateString(s.text());
    auto results = b.CreateVector(codes);
    auto coder = b.CreateString(std::string(coder_->name()));
    return fbs::CreateStripeReply(b, static_cast<std::uint16_t>(s.code()), text, results, coder);
  });
}

}  // namespace luge::sled
