#include "sled/gateway.hpp"

#include <algorithm>

#include "base/crc32c.hpp"
#include "base/logging.hpp"
#include "coding/chunk_header.hpp"
#include "switches/paths.hpp"
#include "switches/switches.hpp"

namespace luge::sled {
namespace {

constexpr std::size_t kTurnBytes = 256 << 10;  // worked on before others get their turn on the loop

}  // namespace

struct Gateway::Job {
  VpId vp = 0;
  Epoch epoch = 0;
  StripeId stripe;
  Layout layout;
  std::uint32_t chunk_bytes = 0;
  bool widen = false;
  std::vector<fbs::BlockIdentity> blocks;
  std::vector<fbs::ChunkPlace> places;
  std::vector<fbs::Credential> credentials;
  std::vector<std::string> addresses;
  std::vector<Buffer> chunks;  // k, then m
  std::vector<std::uint32_t> parity_crcs;
  std::vector<Status> results;
  std::string_view coder;      // that made the parity; empty: none yet
};

Gateway::Gateway(io::World& world, const wire::Identity& self, const Options& options, Counters& counters, coding::GuardedCoder& coder,
                 Peers& peers, Permitted permitted, LocalWrite local)
    : world_(world), self_(self), options_(options), counters_(counters), coder_(coder), peers_(peers), permitted_(std::move(permitted)),
      local_(std::move(local)), memory_(world, options.stripe_memory) {}
Gateway::~Gateway() = default;

Status Gateway::parse(const wire::Frame& request, Job& job) const {
  auto bad = [](const char* what) { return Status(Code::invalid, std::string("stripe: ") + what); };
  const auto* m = request.as<fbs::WriteStripe>();
  if (!m || !m->stripe() || !m->blocks() || !m->places() || !m->addresses()) return bad("the message does not parse");
  job.vp = m->vp();
  job.epoch = m->epoch();
  job.stripe = {m->stripe()->vp(), m->stripe()->epoch(), m->stripe()->counter()};
  job.layout = {m->k(), m->m()};
  job.chunk_bytes = m->chunk_bytes();
  const Layout l = job.layout;
  if (!coding::possible_chunk(l, job.chunk_bytes)) return bad("layout or chunk size is out of range");
  job.widen = m->widen();
  bool epoch_fits = job.widen ? job.stripe.epoch <= job.epoch : job.stripe.epoch == job.epoch;
  if (job.stripe.vp != job.vp || !epoch_fits) return bad("its id is of another volume partition or epoch");
  std::size_t blocks = std::size_t{l.k} * job.chunk_bytes / kBlockBytes;
  if (m->blocks()->size() != blocks || m->places()->size() != l.width() || m->addresses()->size() != l.width()) return bad("counts do not fit the layout");
  if (request.payload_bytes() != blocks * kBlockBytes || request.payload.size() != 1) return bad("the payload has another length");
  for (const auto* b : *m->blocks()) job.blocks.push_back(*b);
  for (const auto* p : *m->places()) job.places.push_back(*p);
  for (const auto* a : *m->addresses()) job.addresses.push_back(a->str());
  job.credentials.resize(l.width());  // one that is not there opens nothing
  if (m->credentials() && m->credentials()->size() > l.width()) return bad("counts do not fit the layout");
  for (std::uint32_t i = 0; m->credentials() && i < m->credentials()->size(); ++i) job.credentials[i] = *m->credentials()->Get(i);
  Buffer data = request.data();
  for (std::uint32_t i = 0; i < l.k; ++i) job.chunks.push_back(data.slice(std::size_t{i} * job.chunk_bytes, job.chunk_bytes));
  return check_places(job);
}

// Two chunks on one sled would fall together: never silently (protocol 8.5). Fewer than k could not be read at all.
Status Gateway::check_places(const Job& job) const {
  std::vector<NodeId> sleds;
  for (std::size_t i = 0; i < job.places.size(); ++i) {
    NodeId sled = job.places[i].sled();
    if (sled == 0) continue;
    if (std::find(sleds.begin(), sleds.end(), sled) != sleds.end())
      return Status(Code::invalid, "stripe: two of its columns are on sled " + std::to_string(sled));
    if (sled != self_.node && job.addresses[i].empty()) return Status(Code::invalid, "stripe: no address of sled " + std::to_string(sled));
    sleds.push_back(sled);
  }
  if (sleds.size() < (job.widen ? 1 : job.layout.k)) return Status(Code::invalid, "stripe: places for fewer than k chunks");
  return Status();
}

io::Task<Status> Gateway::check_blocks(const Job& job) {
  std::size_t since = 0;
  std::uint32_t per_chunk = job.chunk_bytes / kBlockBytes;
  for (std::size_t i = 0; i < job.blocks.size(); ++i) {
    Bytes block = job.chunks[i / per_chunk].bytes().subspan(i % per_chunk * kBlockBytes, kBlockBytes);
    if (crc32c(block) != job.blocks[i].crc()) co_return Status(Code::corrupt, "stripe: block " + std::to_string(i) + " does not match its checksum");
    since += kBlockBytes;
    if (since < kTurnBytes) continue;
    since = 0;
    co_await world_.yield();
  }
  co_return Status();
}

io::Task<Status> Gateway::code(Job& job) {
  const Layout l = job.layout;
  auto coded = co_await coder_.encode(l, job.chunks, {job.vp, job.epoch});
  if (!coded.ok()) co_return coded.status();
  job.coder = coded->by_device ? coder_.device_name() : coder_.software_name();
  std::vector<std::uint32_t> crcs;
  for (Buffer& p : coded->chunks) {
    if (broken(Switch::wrong_parity)) p.data()[100] ^= std::byte{1};
    crc32c_blocks(p.bytes(), crcs);
    job.parity_crcs.insert(job.parity_crcs.end(), crcs.begin(), crcs.end());
    job.chunks.push_back(std::move(p));
  }
  ++counters_.stripes_coded;
  counters_.source_bytes_coded += std::uint64_t{l.k} * job.chunk_bytes;
  co_return Status();
}

io::Task<void> Gateway::send_chunk(std::shared_ptr<Job> job, std::uint32_t chunk) {
  const fbs::ChunkPlace place = job->places[chunk];
  if (chunk >= job->layout.k && broken(Switch::parity_never_written)) co_return;
  coding::ChunkHeaderFields f{self_.unit, job->stripe, job->layout, job->chunk_bytes, chunk, place.generation(), true};
  Buffer header = coding::encode_chunk_header(f, job->blocks, job->parity_crcs);
  if (place.sled() == self_.node) {
    job->results[chunk] = co_await local_(place, job->epoch, &job->credentials[chunk], header, job->chunks[chunk]);
    co_return;
  }
  fbs::StripeId id(job->stripe.vp, job->stripe.epoch, job->stripe.counter);
  wire::Frame message = wire::make_frame(wire::Kind::write_chunk, [&](auto& b) {
    return fbs::CreateWriteChunk(b, job->vp, job->epoch, &id, &place, static_cast<std::uint16_t>(chunk), static_cast<std::uint32_t>(header.size()), &job->credentials[chunk]);
  });
  message.payload = {header, job->chunks[chunk]};
  std::shared_ptr<wire::Link> to = peers_.link(job->addresses[chunk]);
  auto answer = co_await to->call(std::move(message), options_.peer_timeout);
  if (!answer.ok()) job->results[chunk] = answer.status();
  else if (answer->kind != wire::Kind::reply) job->results[chunk] = Status(Code::corrupt, "the answer to a chunk does not parse");
  else job->results[chunk] = wire::status_of(*answer);
}

io::Task<void> Gateway::spread(std::shared_ptr<Job> job) {
  reached(Path::stripe_spread);
  io::TaskGroup group(world_);
  for (std::uint32_t i = 0; i < job->layout.width(); ++i)
    if (job->places[i].sled() != 0) group.spawn("chunk", send_chunk(job, i));
  co_await group.join();
}

namespace {

// One status for the stripe. That it has been fenced off is the one thing the sender must hear.
template <class Places>
Status overall(const std::vector<Status>& results, const Places& places) {
  Status s;
  for (std::size_t i = 0; i < results.size(); ++i) {
    bool first = s.ok(), fenced = results[i].code() == Code::fenced && s.code() != Code::fenced;
    if (!results[i].ok() && (first || fenced)) s = results[i].with("sled " + std::to_string(places[i].sled()));
  }
  return s;
}

}  // namespace

io::Task<wire::Frame> Gateway::write_stripe(const wire::Frame& request) {
  auto job = std::make_shared<Job>();
  Status s = memory_.crowded() ? Status(Code::unavailable, "the gateway has more stripes than it can hold; try another")
                                                            : parse(request, *job);
  if (s.ok()) s = permitted_(job->vp, job->epoch, job->places, job->credentials);
  if (s.ok()) {
    // Parity beside the data, and once more to compare it with.
    io::Budget::Lease lease = co_await memory_.take(std::uint64_t{job->layout.k + 2 * job->layout.m} * job->chunk_bytes);
    s = co_await check_blocks(*job);
    if (s.ok()) s = co_await code(*job);
    if (s.ok()) {
      job->results.resize(job->layout.width());
      co_await spread(job);
      s = overall(job->results, job->places);
    }
  }
  if (s.code() == Code::corrupt && job->results.empty()) ++counters_.corrupt;
  if (s.code() == Code::fenced && job->results.empty()) ++counters_.fenced;
  // Refused before anything was sent: the same answer for every place.
  if (job->results.empty()) job->results.assign(job->places.size(), s);
  std::vector<std::uint16_t> codes;
  for (std::size_t i = 0; i < job->results.size(); ++i)
    codes.push_back(job->places[i].sled() == 0 ? 0 : static_cast<std::uint16_t>(job->results[i].code()));
  co_return wire::make_frame(wire::Kind::stripe_reply, [&](auto& b) {
    auto text = b.CreateString(s.text());
    auto results = b.CreateVector(codes);
    auto coder = b.CreateString(job->coder.data(), job->coder.size());
    return fbs::CreateStripeReply(b, static_cast<std::uint16_t>(s.code()), text, results, coder);
  });
}

}  // namespace luge::sled
