// From the log to the sleds (architecture section 2 steps 4 to 6): parts of many writes, straight from memory, in full
// stripes to a gateway sled; when all columns are durable and verified, an index record through the same log. Only when
// that record is committed on all of `required` does any replica free the log space (FL-20).
#include <algorithm>
#include <set>

#include "base/crc32c.hpp"
#include "base/logging.hpp"
#include "head/primary.hpp"
#include "head/stripe_writer.hpp"
#include "switches/paths.hpp"
#include "switches/switches.hpp"

namespace luge::head {

using namespace std::chrono_literals;

namespace {

constexpr std::size_t kStripesPerRound = 8;
constexpr std::size_t kPlacementsPerRecord = 32 << 10;  // 1 MiB: a record has to fit into a segment of the metadata portion
constexpr std::size_t kStripesBesideWriters = 2;
constexpr Lba kPadding = ~Lba{0};
constexpr io::Duration kDegradedHolds = 1s;

struct Candidate {
  Lba lba;
  RecordPtr record;
  std::shared_ptr<void> hold;  // its log space, should it be superseded while the stripe is on its way
  std::uint32_t block() const { return static_cast<std::uint32_t>(lba - record->header.lba()); }
};

struct StripeJob {
  std::vector<Candidate> blocks;
  std::uint64_t counter = 0;
  std::vector<fbs::ChunkPlace> places;
  std::vector<fbs::Credential> credentials;
  Status status;
};

// Oldest records first (their segments are freed first), at most `limit` blocks that the index still reaches by LSN.
std::vector<Candidate> gather(Partition& partition, std::size_t limit) {
  const Replica& replica = partition.replica;
  std::vector<Candidate> out;
  for (const auto& [lsn, r] : replica.records()) {
    if (lsn > replica.commit() || out.size() >= limit) break;
    if (r->kind() != RecordKind::data || r->live == 0) continue;
    std::shared_ptr<void> hold = partition.hold(*r);
    for (std::uint32_t i = 0; i < r->header.blocks() && out.size() < limit; ++i) {
      Lba lba = r->header.lba() + i;
      if (replica.index().get(lba) == Entry::at_lsn(lsn)) out.push_back({lba, r, hold});
    }
  }
  return out;
}

}  // namespace

// Of the fullest data portion among the replicas: all of them must have room.
std::uint32_t Primary::log_fill() const {
  std::uint32_t fill = ctx_.data_log->fill();
  for (const auto& [id, m] : members_) fill = std::max<std::uint32_t>(fill, m.data_fill);
  return fill;
}

bool Primary::flush_due(bool& partial) {
  const Replica& replica = partition_.replica;
  const Options& o = ctx_.options;
  if (replica.unflushed_blocks() == 0 || (broken(Switch::flush_triggers_ignored) && flush_requests_ == 0)) return false;
  std::uint32_t fill = log_fill();
  if (fill >= o.flush_fill && ctx_.data_log->fill() < o.flush_fill) reached(Path::reserve_fuller_than_primary);
  io::Time now = ctx_.world.now();
  bool old = now - last_flush_ > o.flush_age;
  bool idle = now - last_write_ > o.flush_idle;
  partial = flush_requests_ > 0 || old || idle || fill >= o.slow_fill || !incoming_.empty();
  std::uint64_t stripe_blocks = std::uint64_t{partition_.designation().layout.k} * o.chunk_bytes / kBlockBytes;
  bool enough = replica.unflushed_blocks() * kBlockBytes >= o.flush_bytes || fill >= o.flush_fill;
  return partial || (enough && replica.unflushed_blocks() >= stripe_blocks);
}

// Every stripe on its way is k + m durable writes in the queues of devices and processors that writers wait for as well. While
// there are writers and space is not short, a flush that takes a little longer costs nobody anything.
std::size_t Primary::stripes_at_once() const {
  bool writers = ctx_.world.now() - last_write_ < ctx_.options.flush_idle;
  bool hurry = flush_requests_ > 0 || log_fill() >= ctx_.options.flush_fill;
  return writers && !hurry ? kStripesBesideWriters : kStripesPerRound;
}

io::Task<void> Primary::flush_loop(std::shared_ptr<Primary> self) {
  while (!deposed_) {
    bool partial = false;
    if (!flush_due(partial)) {
      co_await flush_wake_.wait_for(500ms);
      continue;
    }
    std::uint64_t flushed = co_await flush_some(partial);
    if (deposed_) break;
    last_flush_ = ctx_.world.now();
    commit_changed_.notify_all();
    if (flushed == 0) co_await ctx_.world.sleep(200ms);
  }
}

namespace {

io::Task<void> write_job(Primary& primary, StripeJob& job, NodeId gateway) {
  Context& ctx = primary.ctx();
  const Designation& d = primary.partition().designation();
  StripeWrite w{d.vp, primary.epoch(), {d.vp, primary.epoch(), job.counter}, d.layout, ctx.options.chunk_bytes, {}, {}, job.places, job.credentials, false};
  std::size_t total = std::size_t{w.layout.k} * w.chunk_bytes / kBlockBytes;
  static const Buffer zero_block = Buffer::zeros(kBlockBytes);
  for (std::size_t i = 0, j = 0; i < job.blocks.size(); i = j) {
    // Runs of one record are taken in one piece: a slice of its payload, or one read of the log.
    const Candidate& c = job.blocks[i];
    for (j = i; j < job.blocks.size() && job.blocks[j].record == c.record && job.blocks[j].lba == c.lba + (j - i); ++j)
      w.identities.emplace_back(job.blocks[j].lba, c.record->lsn(), c.record->block_crc(job.blocks[j].block()), 0);
    auto p = co_await primary.partition().payload(c.record, c.block(), static_cast<std::uint32_t>(j - i));
    if (!p.ok()) {
      job.status = p.status();
      co_return;
    }
    w.payload.push_back(std::move(*p));
  }
  while (w.identities.size() < total) {
    w.identities.emplace_back(kPadding, 0, crc32c_zero_block(), 0);
    w.payload.push_back(zero_block);
  }
  if (broken(Switch::skip_flush)) co_return;
  job.status = co_await write_stripe(ctx, w, gateway);
  if (job.status.code() != Code::corrupt) co_return;
  std::set<Lsn> records;
  for (const Candidate& c : job.blocks) records.insert(c.record->lsn());
  for (Lsn lsn : records) primary.partition().check_memory(lsn);
}

// Takes one stripe after the other, until none is left; several of these work on one list.
io::Task<void> write_jobs(Primary& primary, std::vector<StripeJob>& jobs, std::size_t& next) {
  while (next != jobs.size()) {
    StripeJob& job = jobs[next++];
    // Any sled of the stripe may be its gateway; taking turns spreads the coding.
    NodeId gateway = 0;
    for (std::size_t i = 0; i < job.places.size() && gateway == 0; ++i) gateway = job.places[(job.counter + i) % job.places.size()].sled();
    co_await write_job(primary, job, gateway);
  }
}

// The body of an index record for stripes that are durable; they get the numbers from `number` on.
std::string index_body(const Replica& replica, Epoch epoch, std::uint32_t chunk_bytes, std::uint64_t number, std::span<const StripeJob* const> jobs) {
  const Layout layout = replica.designation.layout;
  flatbuffers::FlatBufferBuilder b(64 << 10);
  std::vector<flatbuffers::Offset<fbs::Stripe>> stripes;
  std::vector<fbs::Placement> placements;
  std::vector<std::uint64_t> placement_stripe;
  for (const StripeJob* job : jobs) {
    fbs::StripeId id(replica.vp(), epoch, job->counter);
    auto places = b.CreateVectorOfStructs(job->places);
    stripes.push_back(fbs::CreateStripe(b, number, &id, static_cast<std::uint16_t>(layout.k), static_cast<std::uint16_t>(layout.m), chunk_bytes, places, 0));
    for (std::size_t i = 0; i < job->blocks.size(); ++i) {
      placements.emplace_back(job->blocks[i].lba, job->blocks[i].record->lsn(), static_cast<std::uint32_t>(i), 0);
      placement_stripe.push_back(number);
    }
    ++number;
  }
  auto stripes_vector = b.CreateVector(stripes);
  auto placements_vector = b.CreateVectorOfStructs(placements);
  auto numbers_vector = b.CreateVector(placement_stripe);
  auto sessions = b.CreateVector(replica.sessions.save(b, replica.last().lsn));
  b.Finish(fbs::CreateIndexRecord(b, stripes_vector, placements_vector, numbers_vector, sessions));
  return std::string(reinterpret_cast<const char*>(b.GetBufferPointer()), b.GetSize());
}

// So many of the jobs as one index record may name; at least one.
std::size_t jobs_of_a_record(std::span<const StripeJob* const> jobs) {
  std::size_t n = 0, placements = 0;
  do placements += jobs[n++]->blocks.size();
  while (n < jobs.size() && placements + jobs[n]->blocks.size() <= kPlacementsPerRecord);
  return n;
}

}  // namespace

io::Task<std::uint64_t> Primary::flush_some(bool partial) {
  Replica& replica = partition_.replica;
  const Designation& d = partition_.designation();
  std::uint32_t chunk_bytes = ctx_.options.chunk_bytes;
  std::size_t per_stripe = std::size_t{d.layout.k} * chunk_bytes / kBlockBytes;
  std::vector<Candidate> blocks = gather(partition_, kStripesPerRound * per_stripe);
  if (!partial) blocks.resize(blocks.size() / per_stripe * per_stripe);
  if (blocks.empty()) co_return 0;
  std::sort(blocks.begin(), blocks.end(), [](const Candidate& a, const Candidate& b) { return a.lba < b.lba; });

  std::vector<StripeJob> jobs;
  for (std::size_t at = 0; at < blocks.size(); at += per_stripe) {
    StripeJob job;
    job.blocks.assign(blocks.begin() + at, blocks.begin() + std::min(blocks.size(), at + per_stripe));
    job.counter = ctx_.next_stripe_counter++;
    auto places = co_await columns_.allocate(d.layout, chunk_bytes);
    if (deposed_) co_return 0;
    if (!places.ok()) {
      if (places.code() == Code::fenced && !broken(Switch::sleds_word_ignored)) depose(places.status().text());
      partition_.waits.set(Wait::flush, "flush: " + places.status().text());
      break;
    }
    job.places = std::move(*places);
    job.credentials = columns_.credentials(job.places);
    jobs.push_back(std::move(job));
  }
  if (jobs.empty()) {
    flush_failed_ = true;
    co_return 0;
  }
  reached(Path::flush_gathered);
  io::TaskGroup group(ctx_.world);
  std::size_t next = 0;
  for (std::size_t n = std::min(jobs.size(), stripes_at_once()); n != 0; --n) group.spawn("write stripes", write_jobs(*this, jobs, next));
  co_await group.join();
  if (deposed_) co_return 0;

  // The others are tried again on fresh slots under fresh ids (8.1).
  std::vector<const StripeJob*> written;
  for (StripeJob& job : jobs) {
    if (job.status.ok()) {
      written.push_back(&job);
      continue;
    }
    logging::warn("VP {:x}: stripe {} was not written: {}", d.vp, job.counter, job.status.to_string());
    if (job.status.code() == Code::fenced && !broken(Switch::sleds_word_ignored)) {
      depose(job.status.text());
      co_return 0;
    }
    partition_.waits.set(Wait::flush, "flush: " + job.status.text());
    columns_.refused(job.places, job.status);
    for (const fbs::ChunkPlace& p : job.places)
      if (p.sled() != 0 && (!ctx_.alive(p.sled()) || !ctx_.connections->connected(p.sled()))) columns_.avoid(p.sled());
  }
  if (written.empty()) {
    flush_failed_ = true;
    co_return 0;
  }
  Lsn last = 0;
  std::uint64_t placed = 0;
  for (std::span<const StripeJob* const> left(written); !left.empty();) {
    auto now = left.first(jobs_of_a_record(left));
    left = left.subspan(now.size());
    std::uint64_t number = std::max(replica.next_stripe(), next_stripe_number_);
    next_stripe_number_ = number + now.size();
    last = append(RecordKind::index, 0, 0, {}, index_body(replica, epoch_, chunk_bytes, number, now), {})->lsn();
    for (const StripeJob* job : now) {
      placed += job->blocks.size();
      ++counters_.stripes;
      counters_.data_chunks += std::uint64_t{d.layout.k} * chunk_bytes;
      for (std::size_t i = d.layout.k; i < job->places.size(); ++i)
        if (job->places[i].sled() != 0) counters_.parity_chunks += chunk_bytes;
    }
  }
  reached(Path::index_record_appended);
  if (!co_await wait_commit(last)) co_return 0;
  flush_failed_ = false;
  partition_.waits.clear(Wait::flush);
  pump();
  co_return placed;
}

io::Task<Status> Primary::flush_everything(std::shared_ptr<Primary> self) {
  if (!open()) co_return Status(Code::unavailable, state_);
  Lsn target = partition_.replica.last().lsn;
  ++flush_requests_;
  flush_wake_.notify_all();
  columns_.retry_all();
  Status result;
  io::Time failing_since{};
  while (true) {
    if (deposed_) {
      result = Status(Code::unavailable, "the primary has changed");
      break;
    }
    if (!partition_.replica.unflushed_up_to(target)) break;
    if (!flush_failed_) failing_since = io::Time{};
    else if (failing_since == io::Time{}) failing_since = ctx_.world.now();
    else if (ctx_.world.now() - failing_since > 10s) {
      result = Status(Code::degraded, partition_.waits.of(Wait::flush));
      break;
    }
    co_await commit_changed_.wait_for(200ms);
  }
  --flush_requests_;
  held_ = broken(Switch::flush_holds_writes);
  co_return result;
}

// While every sled is there it costs nothing to tell. When one is not, the whole table is gone through, and what that said holds for a
// while: a report is made several times a second, and the table has a row for each half MiB of the volume.
std::uint64_t Primary::degraded_stripes() const {
  const Replica& replica = partition_.replica;
  bool all_there = std::all_of(replica.sled_shares().begin(), replica.sled_shares().end(),
                               [this](const auto& share) { return share.second.chunks == 0 || ctx_.alive(share.first); });
  if (all_there && replica.narrow_stripes().empty()) return 0;
  io::Time now = ctx_.world.now();
  if (degraded_at_ != io::Time{} && now - degraded_at_ < kDegradedHolds) return degraded_;
  degraded_at_ = now;
  degraded_ = all_there ? count_narrow() : count_degraded();
  return degraded_;
}

std::uint64_t Primary::count_narrow() const {
  const Replica& replica = partition_.replica;
  return static_cast<std::uint64_t>(std::count_if(replica.narrow_stripes().begin(), replica.narrow_stripes().end(),
                                                  [&](std::uint64_t number) { return replica.stripe(number)->live_blocks != 0; }));
}

std::uint64_t Primary::count_degraded() const {
  std::uint64_t n = 0;
  for (const auto& [number, row] : partition_.replica.stripes()) {
    if (row.live_blocks == 0) continue;
    bool degraded = false;
    for (std::size_t i = 0; i < row.places.size() && !degraded; ++i) {
      NodeId sled = row.places.sled_of(i);
      degraded = sled == 0 || !ctx_.alive(sled);
    }
    n += degraded;
  }
  return n;
}

std::string Primary::state_text() const { return state_; }

}  // namespace luge::head
