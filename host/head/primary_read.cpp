// Reads: look up, then make sure that at the time of the look-up no other primary had opened; only then is anything answered.
// A lease says so without a message (lease.hpp); without one, or with `reads = confirmed` (architecture A4), one round to
// `required` does, and needs no clock.
#include <absl/container/flat_hash_map.h>
#include <absl/container/flat_hash_set.h>

#include <set>

#include "base/crc32c.hpp"
#include "base/logging.hpp"
#include "head/primary.hpp"
#include "head/stripe_reader.hpp"
#include "switches/paths.hpp"
#include "switches/switches.hpp"

namespace luge::head {

using namespace std::chrono_literals;

namespace {
constexpr std::size_t kReplyBytes = 4 << 20;  // of one message, about
constexpr std::size_t kMostLent = 4 << 20;    // of answers in a connection's queue while they share memory with records
constexpr std::size_t kMostUnread = 64 << 20;  // of answers that a connection has not taken yet
// Beyond these no front end is: one that has no memory for its answers has no use for them. What a head remembers of a block that it is asked
// for is 100 bytes or so; the answers may be all that is read at once for everybody, behind those that have not been taken.
constexpr std::uint64_t kMostAsked = (2ull << 30) / kBlockBytes;
constexpr std::size_t kMostQueued = 512 << 20;
}

// One confirmation round: everybody who joined before it started is covered by it.
struct Primary::Round {
  explicit Round(io::World& w) : done(w) {}
  io::Event done;
  bool finished = false;
  bool confirmed = false;
};

struct Primary::ReadPart {
  std::uint64_t tag = 0;
  Lba lba = 0;
  std::uint32_t blocks = 0;
  std::vector<Source> sources;
  bool check = false;
  bool zero = false;
  Status status;
};

struct Primary::ReadJob {
  ReadJob(ChannelPtr c, std::shared_ptr<Reader> reader, std::uint64_t blocks) : channel(std::move(c)), asked(std::move(reader), blocks) {}
  ChannelPtr channel;
  Asked asked;
  std::vector<ReadPart> parts;
};

void Primary::read(const ChannelPtr& channel, const fbs::ReadBatch& batch) {
  if (!batch.ops()) return;
  std::uint64_t blocks = 0;
  for (const fbs::ReadOp* op : *batch.ops()) blocks += std::min(op->blocks(), kMaxOpBlocks);
  if (blocks > kMaxReadBlocks || batch.ops()->size() > kMaxReadBlocks) {
    logging::warn("{}: asks for more than {} blocks at once; connection closed", channel->peer(), kMaxReadBlocks);
    return channel->close();
  }
  auto reader = ctx_.reader_of(*channel);
  if (reader->blocks + blocks > kMostAsked || channel->queued_bytes() > kMostQueued) {
    logging::warn("{}: has {} blocks asked for and {} bytes of answers not taken; connection closed", channel->peer(), reader->blocks, channel->queued_bytes());
    return channel->close();
  }
  auto job = std::make_shared<ReadJob>(channel, std::move(reader), std::max<std::uint64_t>(blocks, batch.ops()->size()));
  for (const fbs::ReadOp* op : *batch.ops()) {
    ReadPart p;
    p.tag = op->tag();
    p.lba = op->lba();
    p.blocks = op->blocks();
    p.check = op->check() != 0;
    std::uint64_t size = partition_.designation().blocks;
    if (p.blocks == 0 || p.blocks > kMaxOpBlocks) p.status = Status(Code::invalid, "a read of no block, or of too many");
    else if (batch.epoch() != epoch_ || !open()) p.status = Status(Code::unavailable, state_);
    else if (!inside(p.lba, p.blocks, size)) p.status = beyond_end();
    job->parts.push_back(std::move(p));
  }
  ctx_.world.spawn("read", serve(shared_from_this(), std::move(job)));
}

io::Task<void> Primary::serve(std::shared_ptr<Primary> self, std::shared_ptr<ReadJob> job) {
  Replica& replica = partition_.replica;
  Lsn newest = 0;
  if (open())
    for (const ReadPart& p : job->parts)
      for (std::uint32_t i = 0; p.status.ok() && i < p.blocks; ++i) newest = std::max(newest, replica.newest(p.lba + i).tail);
  // A read whose newest version is not committed waits for it (protocol 2.2).
  if (newest > replica.commit()) reached(Path::reader_waits_for_commit);
  if (newest > replica.commit() && !broken(Switch::read_at_append)) co_await wait_commit(newest);
  absl::flat_hash_set<Lsn> checked;
  for (ReadPart& p : job->parts) {
    if (!p.status.ok() || deposed_) continue;
    p.sources.reserve(p.blocks);
    for (std::uint32_t i = 0; i < p.blocks; ++i) {
      Replica::Newest n = replica.newest(p.lba + i);
      if (broken(Switch::read_at_append) && n.tail != 0) {
        RecordPtr r = replica.find(n.tail);
        n.committed = r->kind() == RecordKind::data ? Entry::at_lsn(n.tail) : Entry();
      }
      if (p.check && n.committed.is_lsn() && checked.insert(n.committed.lsn()).second) partition_.check_memory(n.committed.lsn());
      p.sources.push_back(source_of(n.committed));
    }
  }
  bool confirmed = broken(Switch::reads_unconfirmed) || lease_holds();
  if (!confirmed) confirmed = co_await confirm();
  for (ReadPart& p : job->parts) {
    if (p.status.ok() && (!confirmed || deposed_)) p.status = Status(Code::unavailable, "this head is not the primary any more");
    if (p.status.ok()) p.zero = std::all_of(p.sources.begin(), p.sources.end(), [](const Source& s) { return s.entry.hole(); });
    bool at_once = !p.status.ok() || p.zero || std::all_of(p.sources.begin(), p.sources.end(), [](const Source& s) { return s.entry.hole() || !s.memory.empty(); });
    if (at_once) co_await serve_part(*this, job, p);
    else ctx_.world.spawn("read part", serve_part(*this, job, p));  // side by side: none waits for a slower one
  }
}

// What a client does not take is not read: its answers would fill this head's memory. Nothing: it has gone.
io::Task<std::optional<io::Budget::Lease>> Primary::room_to_read(std::shared_ptr<ReadJob> job, std::uint64_t bytes) {
  wire::Channel& channel = *job->channel;
  auto full = [&] { return channel.open() && channel.queued_bytes() > kMostUnread && !broken(Switch::unread_answers_pile_up); };
  if (full()) {
    auto turn = co_await job->asked.reader().turn.lock();
    while (full()) co_await ctx_.world.sleep(5ms);
  }
  if (!channel.open()) co_return std::nullopt;
  co_return co_await ctx_.read_memory.take(bytes);
}

io::Task<void> Primary::serve_part(Primary& primary, std::shared_ptr<ReadJob> job, ReadPart& p) {
  std::shared_ptr<Primary> self = primary.shared_from_this();
  const bool has_data = p.status.ok() && !p.zero;
  auto memory = has_data ? co_await primary.room_to_read(job, std::uint64_t{p.blocks} * kBlockBytes) : std::nullopt;
  if (has_data && !memory) co_return;  // nobody is there to take it
  Fetched data;
  if (has_data) p.status = co_await primary.fetch(std::move(p.sources), p.lba, data);
  // A piece of a write keeps all of what came with it in memory: not for a reader who lets answers lie.
  if (job->channel->queued_bytes() > kMostLent)
    for (Buffer& piece : data.pieces) piece = Buffer::copy_of(piece.bytes());
  if (!primary.deposed_) {  // what it waits for need not be what its successor waits for
    if (p.status.code() == Code::degraded) primary.partition_.waits.set(Wait::reads, "reads wait: " + p.status.text());
    else if (p.status.ok() && !p.zero) primary.partition_.waits.clear(Wait::reads);
  }
  primary.read_answers_.push_back({job->channel, p.tag, p.blocks, p.zero, std::move(p.status), std::move(data), std::move(memory)});
  if (std::exchange(primary.read_answers_posted_, true)) co_return;
  primary.ctx_.world.post([self] { self->send_read_answers(); });
}

void Primary::Fetched::checksum_anew() {
  crcs.clear();
  for (const Buffer& piece : pieces)
    for (std::size_t at = 0; at < piece.size(); at += kBlockBytes) crcs.push_back(crc32c(piece.bytes().subspan(at, kBlockBytes)));
}

// Answers of one turn of the loop leave in one message per connection.
void Primary::send_read_answers() {
  read_answers_posted_ = false;
  std::vector<ReadAnswer> answers = std::move(read_answers_);
  read_answers_.clear();
  for (std::size_t i = 0; i < answers.size();) {
    ChannelPtr channel = answers[i].channel;
    std::vector<fbs::ReadResult> results;
    std::vector<std::uint32_t> crcs;
    std::vector<Buffer> blocks;
    std::string text;
    std::size_t bytes = 0;
    for (; i < answers.size() && answers[i].channel == channel && bytes < kReplyBytes; ++i) {
      ReadAnswer& a = answers[i];
      results.emplace_back(a.tag, a.blocks, static_cast<std::uint16_t>(a.status.code()), a.zero, 0);
      if (!a.status.ok()) text = a.status.text();
      if (!a.status.ok() || a.zero) continue;
      if (broken(Switch::answers_checksummed_anew)) a.data.checksum_anew();
      crcs.insert(crcs.end(), a.data.crcs.begin(), a.data.crcs.end());
      bytes += std::size_t{a.blocks} * kBlockBytes;
      std::move(a.data.pieces.begin(), a.data.pieces.end(), std::back_inserter(blocks));
    }
    wire::Frame f = wire::make_frame(wire::Kind::read_replies, [&](auto& b) {
      auto list = b.CreateVectorOfStructs(results);
      auto crc_list = b.CreateVector(crcs);
      auto t = b.CreateString(text);
      return fbs::CreateReadReplies(b, partition_.replica.vp(), epoch_, list, crc_list, t);
    });
    f.payload = std::move(blocks);
    if (channel->open()) channel->send(std::move(f));
  }
}

bool Primary::lease_holds() const {
  if (!ctx_.options.lease_reads) return false;
  io::Time least = io::Time::max(), greatest{};
  auto look = [&](NodeId n) {
    if (n == ctx_.options.id) return;
    auto it = members_.find(n);
    io::Time granted = it == members_.end() ? io::Time{} : it->second.granted;
    least = std::min(least, granted);
    greatest = std::max(greatest, granted);
  };
  for (NodeId n : partition_.designation().required) look(n);
  for (NodeId n : also_required_) look(n);
  if (least == io::Time::max()) return true;  // alone: nobody else may become primary
  if (broken(Switch::lease_of_any_one)) least = greatest;
  return least != io::Time{} && ctx_.world.now() < least + kPrimaryLease;
}

io::Task<bool> Primary::confirm() {
  if (!next_round_) {
    next_round_ = std::make_shared<Round>(ctx_.world);
    round_wake_.notify_all();
  }
  auto round = next_round_;
  while (!round->finished && !deposed_) co_await round->done.wait_for(200ms);
  co_return round->confirmed && !deposed_;
}

io::Task<void> Primary::run_rounds(std::shared_ptr<Primary> self) {
  struct Outcome {
    bool all = true;
  };
  auto ask = [](Primary& p, NodeId n, Outcome& out) -> io::Task<void> {
    fbs::VpState state(p.partition_.replica.vp(), p.epoch_, p.partition_.replica.commit());
    auto answer = co_await p.ctx_.connections->call(n, wire::make_frame(wire::Kind::confirm, [&](auto& b) {
      auto states = b.CreateVectorOfStructs(&state, 1);
      return fbs::CreateConfirm(b, states);
    }), 500ms);
    const auto* c = answer.ok() && answer->kind == wire::Kind::confirm_reply ? answer->template as<fbs::ConfirmReply>() : nullptr;
    const fbs::AckState* s = c && c->states() && c->states()->size() == 1 ? c->states()->Get(0) : nullptr;
    if (s && (s->epoch() > p.epoch_ || s->code() == static_cast<std::uint16_t>(Code::fenced)))
      p.depose("node " + std::to_string(n) + " has fenced this epoch off");
    if (!s || s->epoch() != p.epoch_ || s->code() != 0) out.all = false;
  };
  while (!deposed_) {
    if (!next_round_) {
      co_await round_wake_.wait_for(1s);
      continue;
    }
    auto round = std::exchange(next_round_, nullptr);
    while (!deposed_ && !round->confirmed) {
      Outcome out;
      io::TaskGroup asking(ctx_.world);
      // Of a change of `required` whose fate is unknown both sets (protocol 3.2): by the store's word another may have opened without the old one.
      std::set<NodeId> required;
      if (!broken(Switch::union_not_asked)) required.insert(also_required_.begin(), also_required_.end());
      for (NodeId n : partition_.designation().required) required.insert(n);
      for (NodeId n : required)
        if (n != ctx_.options.id) asking.spawn("confirm", ask(*this, n, out));
      co_await asking.join();
      round->confirmed = out.all && !deposed_;
      // A member that does not answer is removed by tend(); the reads wait for that.
      if (!round->confirmed && !deposed_) co_await members_changed_.wait_for(20ms);
    }
    round->finished = true;
    round->done.notify_all();
  }
  if (next_round_) {
    next_round_->finished = true;
    next_round_->done.notify_all();
  }
}

Primary::Source Primary::source_of(Entry committed) const {
  // Sabotage: what the block was before it was first written.
  if (broken(Switch::stale_read) && ctx_.world.random_below(64) == 0) committed = Entry();
  Source s{committed, nullptr};
  if (!committed.is_lsn()) return s;
  s.record = partition_.replica.find(committed.lsn());
  if (!s.record) return s;
  s.memory = s.record->payload;
  if (s.memory.empty()) s.hold = partition_.hold(*s.record);
  return s;
}

// Runs of blocks with one kind of source are fetched together: holes, one record, one chunk of one stripe.
io::Task<Status> Primary::fetch(std::vector<Source> sources, Lba lba, Fetched& out) {
  std::size_t n = sources.size();
  out.crcs.resize(n);
  std::vector<StripeRun> runs;
  for (std::size_t i = 0, j; i < n; i = j) {
    j = i + 1;
    Entry e = sources[i].entry;
    Buffer& piece = out.pieces.emplace_back();
    if (e.hole()) {
      while (j < n && sources[j].entry.hole()) ++j;
      piece = Buffer::zeros((j - i) * kBlockBytes);
      std::fill(out.crcs.begin() + static_cast<std::ptrdiff_t>(i), out.crcs.begin() + static_cast<std::ptrdiff_t>(j), crc32c_zero_block());
    } else if (e.is_lost()) {
      co_return Status(Code::corrupt, "block " + std::to_string(lba + i) + " was lost when a loss was accepted: write it again");
    } else if (e.is_lsn()) {
      while (j < n && sources[j].entry == e) ++j;
      Status s = co_await read_record(sources[i], lba + i, piece, std::span(out.crcs).subspan(i, j - i));
      if (!s.ok()) co_return s;
    } else {
      const StripeRow* row = partition_.replica.stripe(e.stripe());
      if (!row) co_return Status(deposed_ ? Code::unavailable : Code::internal, "no stripe " + std::to_string(e.stripe()));
      std::uint32_t per_chunk = row->chunk_bytes / kBlockBytes;
      while (j < n && sources[j].entry == Entry::at_stripe(e.stripe(), e.block() + static_cast<std::uint32_t>(j - i)) &&
             (e.block() + (j - i)) / per_chunk == e.block() / per_chunk)
        ++j;
      runs.push_back({e.stripe(), e.block(), static_cast<std::uint32_t>(j - i), i, out.pieces.size() - 1});
    }
  }
  if (runs.empty()) co_return Status();
  if (runs.size() == 1) co_return co_await read_run(*this, runs[0], lba, out);
  Status worst;
  auto one = [](Primary& p, StripeRun run, Lba lba, Fetched& out, Status& worst) -> io::Task<void> {
    Status s = co_await read_run(p, run, lba, out);
    if (!s.ok()) worst = std::move(s);
  };
  io::TaskGroup group(ctx_.world);
  for (const StripeRun& run : runs) group.spawn("read chunk", one(*this, run, lba, out, worst));
  co_await group.join();
  co_return worst;
}

// Blocks of one record, from `lba` on: from memory, or else from the log.
io::Task<Status> Primary::read_record(const Source& source, Lba lba, Buffer& out, std::span<std::uint32_t> crcs) {
  const RecordPtr& r = source.record;
  if (!r) co_return Status(deposed_ ? Code::unavailable : Code::internal, "no record for LSN " + std::to_string(source.entry.lsn()));
  auto first = static_cast<std::uint32_t>(lba - r->header.lba()), count = static_cast<std::uint32_t>(crcs.size());
  std::size_t bytes = std::size_t{count} * kBlockBytes;
  if (!source.memory.empty()) {
    out = source.memory.slice(std::size_t{first} * kBlockBytes, bytes);
  } else {
    auto p = co_await partition_.payload(r, first, count);
    if (!p.ok()) co_return p.status();
    out = std::move(*p);
  }
  for (std::uint32_t i = 0; i < count; ++i) crcs[i] = r->block_crc(first + i);
  (source.memory.empty() ? counters_.read_log : counters_.read_memory) += bytes;
  co_return Status();
}

io::Task<Status> Primary::read_run(Primary& p, StripeRun run, Lba first, Fetched& out) {
  const StripeRow* row = p.partition_.replica.stripe(run.stripe);
  if (row == nullptr) co_return Status(Code::unavailable, "this replica is being rebuilt");
  StripeReader reader(p.ctx_);
  auto blocks = co_await reader.read(*row, run.block, first + run.at, std::span(out.crcs).subspan(run.at, run.count));
  if (!blocks.ok()) co_return blocks.status();
  (reader.reconstructed() ? p.counters_.read_reconstructed : p.counters_.read_sled) += blocks->size();
  out.pieces[run.piece] = std::move(*blocks);
  co_return Status();
}

}  // namespace luge::head
