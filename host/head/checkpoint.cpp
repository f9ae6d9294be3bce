#include "head/checkpoint.hpp"

#include <algorithm>
#include <set>

#include "base/crc32c.hpp"
#include "base/logging.hpp"
#include "coding/checkpoint_block.hpp"
#include "head/primary.hpp"
#include "head/stripe_writer.hpp"
#include "switches/paths.hpp"
#include "switches/switches.hpp"

namespace luge::head {

using namespace std::chrono_literals;

namespace {

constexpr int kAttempts = 3;  // at a stripe, each on fresh slots

// Ids of checkpoints and of their stripes are drawn: several heads write under one epoch, and one that lost its disk does not
// know what it has written before. Two of 2^62 do not meet.
std::uint64_t draw(io::World& world, std::uint64_t most) { return world.random() % most + 1; }

}  // namespace

void Checkpoints::start() {
  if (ctx_.options.checkpoints == Options::Checkpoints::none) return;
  written_at_ = ctx_.world.now();
  ctx_.world.spawn("checkpoints", run());
}

io::Task<void> Checkpoints::run() {
  while (!partition_.dropped) {
    co_await ctx_.world.sleep(ctx_.options.checkpoint_poll);
    if (partition_.dropped || ctx_.draining || !mine() || !due()) continue;
    Status s = co_await write_one();
    if (s.ok()) continue;
    others_ = true;
    ++counters_.failed;
    logging::debug("VP {:x}: no checkpoint: {}", partition_.replica.vp(), s.to_string());
    co_await ctx_.world.sleep(1s);
  }
}

// Does this replica count, and is it its business?
bool Checkpoints::mine() const {
  const Designation& d = partition_.designation();
  if (partition_.replica.suspect || partition_.replica.blank() || partition_.replica.loading_image()) return false;
  if (partition_.is_primary()) return true;
  bool reserve = d.primary != ctx_.options.id && partition_.synced_epoch == d.epoch && d.has_member(ctx_.options.id);
  bool wanted = ctx_.options.checkpoints == Options::Checkpoints::all || broken(Switch::checkpoints_unasked);
  return reserve && wanted && !broken(Switch::reserves_write_no_checkpoint);
}

bool Checkpoints::due() const {
  const Replica& r = partition_.replica;
  const Options& o = ctx_.options;
  if (broken(Switch::checkpoints_never_due) || held_back_by_flush()) return false;
  if (r.commit() <= newest().lsn || r.metadata_logged() < wait_until_) return false;
  std::uint64_t grown = r.metadata_logged() - logged_;
  if (grown == 0 || allowance(Kind::whole) < stripe_bytes()) return false;
  return grown >= o.checkpoint_growth || ctx_.world.now() - written_at_ >= o.checkpoint_age || r.pages_since(newest().lsn) >= o.checkpoint_pages;
}

bool Checkpoints::held_back_by_flush() const { return broken(Switch::checkpoint_waits_for_flush) && partition_.replica.unflushed_blocks() != 0; }

// One stripe on the sleds: k + m slots.
std::uint64_t Checkpoints::stripe_bytes() const {
  const Layout l = partition_.designation().layout;
  std::uint32_t chunk = ctx_.options.checkpoint_chunk_bytes;
  return std::uint64_t{l.width()} * (coding::chunk_header_bytes(l, chunk) + chunk);
}

std::uint64_t Checkpoints::stored_size(std::uint64_t bytes) const {
  std::uint64_t per_stripe = std::uint64_t{partition_.designation().layout.k} * ctx_.options.checkpoint_chunk_bytes;
  return (bytes + per_stripe - 1) / per_stripe * stripe_bytes();
}

std::uint64_t Checkpoints::allowance(Kind kind) const {
  std::uint64_t all = partition_.replica.metadata_logged() * ctx_.options.checkpoint_percent / 100;
  std::uint64_t left = all > counters_.stored_bytes ? all - counters_.stored_bytes : 0;
  std::uint64_t half = all / 2 > changes_stored_ ? all / 2 - changes_stored_ : 0;
  return kind == Kind::whole ? left : std::min(left, half);
}

// What the next one stands on; 0: it is a whole one. It should be one when the chain is long, or when loading it costs noticeably more than a
// whole one would: changes of the same blocks are in it several times then. Until that is affordable the chain goes on.
Lsn Checkpoints::base() const {
  if (chain_.empty() || resets_ != partition_.resets() || chain_.back().head.history != partition_.designation().history) return 0;
  Lsn at = chain_.back().head.lsn;
  if (at < partition_.replica.lowest_base() || chain_.size() > kMaxCheckpointChain) return 0;
  std::uint64_t bytes = 0, whole = partition_.replica.image_bytes() + sizeof(CheckpointHead);
  for (const Kept& k : chain_) bytes += k.bytes;
  bool renew = chain_.size() > ctx_.options.checkpoint_chain || bytes > whole + whole / 5;
  return renew && stored_size(whole) <= allowance(Kind::whole) ? 0 : at;
}

io::Task<Status> Checkpoints::write_one() {
  const Designation& d = partition_.designation();
  Replica& replica = partition_.replica;
  if (epoch_ != d.epoch || !columns_) {
    columns_ = std::make_shared<Columns>(ctx_, partition_, d.epoch, ctx_.options.id);
    epoch_ = d.epoch;
    others_ = true;  // members may have changed, sleds may be back
  }
  Lsn base_lsn = base();
  std::uint64_t logged = replica.metadata_logged(), resets = partition_.resets();
  ImageCut image = replica.cut_image(base_lsn, Replica::ImageFor::checkpoint);
  CheckpointHead head;
  head.vp = replica.vp();
  head.history = d.history;
  head.epoch = image.point().epoch;
  head.lsn = image.point().lsn;
  head.id = draw(ctx_.world, coding::kMaxCheckpointId - 1);
  head.author = ctx_.options.id;
  if (base_lsn != 0) {
    head.base_id = chain_.back().head.id;
    head.base_lsn = base_lsn;
    head.number = chain_.back().head.number + 1;
  }
  ImageBodies bodies;
  while (auto body = image.next()) {
    bodies.push_back(std::move(*body));
    co_await ctx_.world.yield();  // a part is what others can wait for
  }
  std::string bytes = encode_checkpoint(head, bodies);
  bodies.clear();
  std::uint64_t size = stored_size(bytes.size());
  Kind kind = base_lsn == 0 ? Kind::whole : Kind::changes;
  if (size > allowance(kind)) {
    std::uint64_t needed = std::max(counters_.stored_bytes + size, kind == Kind::whole ? 0 : 2 * (changes_stored_ + size));
    wait_until_ = needed * 100 / ctx_.options.checkpoint_percent + 1;
    co_return Status();
  }
  std::uint64_t stored = counters_.stored_bytes;
  Status written = co_await store(head, bytes);
  if (kind == Kind::changes) changes_stored_ += counters_.stored_bytes - stored;
  if (!written.ok()) co_return written;
  while (held_back_by_flush() && !partition_.dropped) co_await ctx_.world.sleep(ctx_.options.checkpoint_poll);
  if (resets != partition_.resets() || replica.suspect) co_return Status(Code::unavailable, "the replica has been rebuilt meanwhile");
  if (resets_ != resets) chain_.clear(), chain_before_.clear(), others_ = true;
  resets_ = resets;
  logged_ = logged;
  written_at_ = ctx_.world.now();
  keep({head, bytes.size()});
  ++counters_.written;
  counters_.whole += base_lsn == 0;
  counters_.bytes += bytes.size();
  reached(Path::checkpoint_written);
  logging::debug("VP {:x}: checkpoint {:x} up to LSN {} ({} bytes, {})", head.vp, head.id, head.lsn, bytes.size(), base_lsn == 0 ? "whole" : "changes since LSN " + std::to_string(base_lsn));
  if (others_ && chain_.size() + chain_before_.size() >= 2) co_await free_others();
  co_return Status();
}

// In stripes, one after the other; then all of it is read as anybody else would.
io::Task<Status> Checkpoints::store(CheckpointHead head, const std::string& bytes) {
  const Layout layout = partition_.designation().layout;
  std::size_t per_stripe = std::size_t{layout.k} * ctx_.options.checkpoint_chunk_bytes;
  if (bytes.size() / kBlockBytes >= coding::kMaxCheckpointBlocks) co_return Status(Code::invalid, "the metadata is too large for a checkpoint");
  StoredCheckpoint stored{head.author, head.id, head.lsn, {}};
  for (std::size_t at = 0; at < bytes.size(); at += per_stripe) {
    std::size_t n = std::min(per_stripe, bytes.size() - at);
    Buffer data = Buffer::zeros(per_stripe);
    std::memcpy(data.data(), bytes.data() + at, n);
    auto first = static_cast<std::uint32_t>(at / kBlockBytes);
    auto row = co_await store_stripe(head, std::move(data), first, static_cast<std::uint32_t>((n + kBlockBytes - 1) / kBlockBytes));
    if (!row.ok()) co_return row.status();
    stored.stripes.emplace(first, std::move(*row));
  }
  if (broken(Switch::checkpoint_not_read_back)) co_return Status();
  auto read = co_await read_checkpoint(ctx_, head.vp, stored, ReadChunks::all);
  if (!read.ok()) co_return read.status().with("read back");
  bool same = encode_checkpoint(read->checkpoint.head, read->checkpoint.bodies) == bytes;
  co_return same ? Status() : Status(Code::corrupt, "what is read back is not what was written");
}

io::Task<Result<StripeRow>> Checkpoints::store_stripe(const CheckpointHead& head, Buffer data, std::uint32_t first_block, std::uint32_t blocks) {
  StripeRow row;
  row.layout = partition_.designation().layout;
  row.chunk_bytes = ctx_.options.checkpoint_chunk_bytes;
  std::vector<fbs::BlockIdentity> identities;
  for (std::uint32_t i = 0; i < data.size() / kBlockBytes; ++i) {
    std::uint32_t crc = crc32c(data.bytes().subspan(std::size_t{i} * kBlockBytes, kBlockBytes));
    if (i < blocks) identities.emplace_back(coding::checkpoint_lba(head.id, first_block + i), head.lsn, crc, 0);
    else identities.emplace_back(~Lba{0}, 0, crc, 0);
  }
  Status s;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    if (partition_.dropped || partition_.designation().epoch != epoch_) co_return Status(Code::unavailable, "the epoch has ended");
    row.id = {head.vp, epoch_, coding::kCheckpointBit | draw(ctx_.world, coding::kCheckpointBit - 1)};
    auto places = co_await columns_->allocate(row.layout, row.chunk_bytes);
    if (!places.ok()) co_return places.status();
    counters_.stored_bytes += stripe_bytes();
    row.places = Places(*places);
    NodeId gateway = 0;
    for (std::size_t i = 0; i < row.places.size() && gateway == 0; ++i) gateway = row.places[(row.id.counter + i) % row.places.size()].sled();
    StripeWrite w{head.vp, epoch_, row.id, row.layout, row.chunk_bytes, identities, {data}, *places, columns_->credentials(*places), false};
    s = co_await write_stripe(ctx_, w, gateway);
    if (s.ok()) co_return row;
    if (s.code() == Code::fenced) break;
    columns_->refused(*places, s);
    for (const fbs::ChunkPlace& p : row.places)
      if (p.sled() != 0 && (!ctx_.alive(p.sled()) || !ctx_.connections->connected(p.sled()))) columns_->avoid(p.sled());
  }
  co_return s;
}

// Of a chain its last two count; a whole one ends the chain before it only when another stands on it.
void Checkpoints::keep(Kept kept) {
  if (kept.head.base_id == 0) {
    if (!chain_before_.empty()) others_ = true;
    if (!chain_.empty()) chain_before_ = std::move(chain_);
    chain_.clear();
  }
  chain_.push_back(kept);
  if (chain_.size() >= 2 && !chain_before_.empty()) {
    chain_before_.clear();
    others_ = true;
  }
  // Those since are remembered: should the newest turn out to be damaged, the older one goes on from there.
  partition_.replica.forget_changes(broken(Switch::metadata_trimmed_to_newest_checkpoint) ? newest().lsn : older());
}

// Of the two that count; 0: there is one at most.
Lsn Checkpoints::older() const {
  if (chain_.size() >= 2) return chain_[chain_.size() - 2].head.lsn;
  return chain_before_.empty() ? 0 : chain_before_.back().head.lsn;
}

io::Task<void> Checkpoints::free_others() {
  std::set<std::uint64_t> kept;
  for (const auto* chain : {&chain_, &chain_before_})
    for (const Kept& k : *chain) kept.insert(k.head.id);
  Epoch epoch = epoch_;
  CheckpointCatalog catalog = co_await list_checkpoints(ctx_, partition_.replica.vp());
  bool all = true;
  for (const auto& [id, node] : ctx_.control->nodes())
    all = all && (node.role != "sled" || std::find(catalog.answered.begin(), catalog.answered.end(), id) != catalog.answered.end());
  for (const auto& [key, stored] : catalog.stored) {
    bool own = stored.author == ctx_.options.id && !kept.contains(stored.id);
    if (!own && !left_behind(stored)) continue;
    if (partition_.dropped || partition_.designation().epoch != epoch) co_return;
    bool freed = co_await free_chunks(stored);
    all = all && freed;
  }
  others_ = !all;
}

// By a head that is no member any more. The primary has two newer ones.
bool Checkpoints::left_behind(const StoredCheckpoint& stored) const {
  return partition_.is_primary() && !partition_.designation().has_member(stored.author) && stored.lsn <= older();
}

io::Task<bool> Checkpoints::free_chunks(const StoredCheckpoint& stored) {
  bool all = true;
  // Of another author: with credentials for the columns that are kept for it.
  std::shared_ptr<Columns> of = stored.author == ctx_.options.id ? columns_ : std::make_shared<Columns>(ctx_, partition_, epoch_, stored.author);
  for (const auto& [first, row] : stored.stripes)
    for (const fbs::ChunkPlace& p : row.places) {
      if (p.sled() == 0) continue;
      bool freed = co_await free_chunk(*of, row.id, p);
      all = all && freed;
    }
  co_return all;
}

io::Task<bool> Checkpoints::free_chunk(Columns& of, StripeId stripe, fbs::ChunkPlace place) {
  fbs::StripeId id(stripe.vp, stripe.epoch, stripe.counter);
  auto credential = co_await of.ask_credential(place);
  if (!credential.ok()) co_return false;
  auto answer = co_await ctx_.connections->call(place.sled(), wire::make_frame(wire::Kind::free_slot, [&](auto& b) {
    return fbs::CreateFreeSlot(b, stripe.vp, epoch_, &id, &place, &*credential);
  }), 2s);
  bool freed = answer.ok() && wire::status_of(*answer).ok();
  if (!freed) co_return false;
  reached(Path::checkpoint_slot_freed);
  ++counters_.freed_slots;
  of.freed(place);
  co_return true;
}

std::string Checkpoints::report() const {
  const Counters& c = counters_;
  return fmt::format(R"({{"lsn":{},"epoch":{},"chain":{},"written":{},"whole":{},"failed":{},"bytes":{},"stored_bytes":{},"metadata_bytes":{},"freed_slots":{}}})",
                     newest().lsn, newest().epoch, chain_.size(), c.written, c.whole, c.failed, c.bytes, c.stored_bytes,
                     partition_.replica.metadata_logged(), c.freed_slots);
}

}  // namespace luge::head
