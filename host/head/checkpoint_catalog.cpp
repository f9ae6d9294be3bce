#include "head/checkpoint_catalog.hpp"

#include <algorithm>
#include <tuple>

#include "base/logging.hpp"
#include "coding/checkpoint_block.hpp"
#include "head/stripe_reader.hpp"
#include "switches/paths.hpp"
#include "switches/switches.hpp"
#include "wire/sled_generated.h"

namespace luge::head {

using namespace std::chrono_literals;

namespace {

// No other is tried after this: the survivor can give everything, too.
constexpr io::Duration kPatience = 5s;
constexpr std::size_t kStripesAtOnce = 8;  // read of one checkpoint

bool possible(const fbs::CheckpointSlot& s, VpId vp) {
  Layout layout{s.k(), s.m()};
  return s.author() != 0 && s.stripe().vp() == vp && coding::possible_chunk(layout, s.chunk_bytes()) && s.chunk_index() < layout.width() &&
         coding::is_checkpoint_lba(s.first());
}

void add(CheckpointCatalog& catalog, NodeId sled, const fbs::CheckpointSlot& s) {
  std::uint64_t id = coding::checkpoint_id(s.first());
  StoredCheckpoint& c = catalog.stored[{s.author(), id}];
  c.author = s.author();
  c.id = id;
  c.lsn = s.lsn();
  StripeId stripe{s.stripe().vp(), s.stripe().epoch(), s.stripe().counter()};
  auto [from, to] = c.stripes.equal_range(coding::checkpoint_block(s.first()));
  auto it = std::find_if(from, to, [&](const auto& e) { return e.second.id == stripe; });
  if (it == to) {
    StripeRow row;
    row.id = stripe;
    row.layout = {s.k(), s.m()};
    row.chunk_bytes = s.chunk_bytes();
    row.places = Places(row.layout.width());
    it = c.stripes.emplace(coding::checkpoint_block(s.first()), std::move(row));
  }
  if (s.chunk_index() < it->second.places.size())
    it->second.places.set(s.chunk_index(), fbs::ChunkPlace(sled, s.column(), s.slot(), s.device(), 0, s.generation()));
}

io::Task<void> list_sled(Context& ctx, VpId vp, NodeId sled, CheckpointCatalog& out) {
  std::pair<std::uint16_t, std::uint32_t> from{0, 0};
  while (true) {
    auto answer = co_await ctx.connections->call(sled, wire::make_frame(wire::Kind::list_checkpoints, [&](auto& b) {
      return fbs::CreateListCheckpoints(b, vp, from.first, from.second);
    }), 2s);
    const auto* l = answer.ok() && answer->kind == wire::Kind::checkpoint_slots ? answer->as<fbs::CheckpointSlots>() : nullptr;
    if (!l || l->code() != 0) co_return;
    if (l->slots())
      for (const fbs::CheckpointSlot* s : *l->slots())
        if (possible(*s, vp) && (ctx.alive(s->author()) || !broken(Switch::checkpoint_needs_author))) add(out, sled, *s);
    std::pair<std::uint16_t, std::uint32_t> next{l->next_device(), l->next_column()};
    if (l->more() && next <= from) co_return;
    if (!l->more()) break;
    from = next;
  }
  out.answered.push_back(sled);
}

struct Part {
  Buffer data;
  std::uint64_t read = 0;
};

// `blocks` of it from `first` on, which a stripe begins with, or as many as that stripe has; from whichever attempt reads.
io::Task<Result<Part>> read_part(Context& ctx, const StoredCheckpoint& stored, std::uint32_t first, std::uint64_t blocks, ReadChunks which) {
  Status last(Code::not_found, "checkpoint: block " + std::to_string(first) + " is not there");
  auto [from, to] = stored.stripes.equal_range(first);
  for (auto it = from; it != to; ++it) {
    const StripeRow& row = it->second;
    StripeReader reader(ctx);
    std::uint64_t chunks = (blocks * kBlockBytes + row.chunk_bytes - 1) / row.chunk_bytes;
    auto whole = co_await reader.read_whole(row, which == ReadChunks::all ? 0 : static_cast<std::uint32_t>(std::min<std::uint64_t>(chunks, row.layout.k)));
    if (!whole.ok()) {
      last = whole.status();
      continue;
    }
    std::size_t placed = static_cast<std::size_t>(std::count_if(row.places.begin(), row.places.end(), [](const fbs::ChunkPlace& p) { return p.sled() != 0; }));
    if (which == ReadChunks::all && whole->chunks < placed) {
      last = Status(Code::corrupt, "checkpoint: " + std::to_string(placed - whole->chunks) + " chunks of a stripe cannot be read");
      continue;
    }
    std::size_t its = 0;
    while (its < whole->identities.size() && whole->identities[its].lba() == coding::checkpoint_lba(stored.id, first + static_cast<std::uint32_t>(its)) &&
           whole->identities[its].lsn() == stored.lsn)
      ++its;
    if (its != 0) co_return Part{whole->data.slice(0, its * kBlockBytes), whole->bytes};
    last = Status(Code::corrupt, "checkpoint: a stripe holds other blocks than its chunks say");
  }
  co_return last;
}

// What of it lies behind its first stripe, several stripes at a time.
struct Rest {
  Rest(Context& c, const StoredCheckpoint& s, std::uint64_t blocks, ReadChunks which) : ctx(c), stored(s), end(blocks), which(which) {
    for (const auto& [first, row] : stored.stripes)
      if (first != 0 && first < end && (firsts.empty() || firsts.back() != first)) firsts.push_back(first);
    parts.resize(firsts.size(), Status(Code::unavailable, "not read"));
  }
  io::Task<void> read_some() {
    while (next < firsts.size()) {
      std::size_t i = next++;
      parts[i] = co_await read_part(ctx, stored, firsts[i], end - firsts[i], which);
    }
  }
  Context& ctx;
  const StoredCheckpoint& stored;
  const std::uint64_t end;
  const ReadChunks which;
  std::vector<std::uint32_t> firsts;
  std::vector<Result<Part>> parts;
  std::size_t next = 0;
};

}  // namespace

io::Task<CheckpointCatalog> list_checkpoints(Context& ctx, VpId vp) {
  CheckpointCatalog out;
  std::vector<NodeId> sleds;
  for (const auto& [id, node] : ctx.control->nodes())
    if (node.role == "sled" && node.alive) sleds.push_back(id);
  io::TaskGroup group(ctx.world);
  for (NodeId id : sleds) group.spawn("list checkpoints", list_sled(ctx, vp, id, out));
  co_await group.join();
  co_return out;
}

io::Task<Result<ReadCheckpoint>> read_checkpoint(Context& ctx, VpId vp, const StoredCheckpoint& stored, ReadChunks which) {
  // Its first block says how long it is.
  auto first = co_await read_part(ctx, stored, 0, 1, which);
  if (!first.ok()) co_return first.status();
  auto head = parse_checkpoint_head(first->data.bytes());
  if (!head.ok()) co_return head.status();
  std::uint64_t wanted = sizeof *head + head->bodies_bytes, blocks = (wanted + kBlockBytes - 1) / kBlockBytes;
  std::uint64_t read = first->read;
  if (first->data.size() < wanted && which == ReadChunks::enough) {
    first = co_await read_part(ctx, stored, 0, blocks, which);
    if (!first.ok()) co_return first.status();
    read += first->read;
  }
  Rest rest(ctx, stored, blocks, which);
  io::TaskGroup group(ctx.world);
  for (std::size_t i = 0; i < kStripesAtOnce; ++i) group.spawn("read checkpoint", rest.read_some());
  co_await group.join();
  std::string bytes(reinterpret_cast<const char*>(first->data.data()), first->data.size());
  for (std::size_t i = 0; i < rest.parts.size() && bytes.size() < wanted; ++i) {
    if (!rest.parts[i].ok()) co_return rest.parts[i].status();
    if (bytes.size() != std::size_t{rest.firsts[i]} * kBlockBytes) break;
    const Part& part = *rest.parts[i];
    bytes.append(reinterpret_cast<const char*>(part.data.data()), part.data.size());
    read += part.read;
  }
  auto parsed = parse_checkpoint(Bytes(reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()));
  if (!parsed.ok()) co_return parsed.status();
  const CheckpointHead& h = parsed->head;
  if (h.vp != vp) co_return Status(Code::invalid, "checkpoint: it is of another volume partition");
  if (h.id != stored.id || h.author != stored.author || h.lsn != stored.lsn) co_return Status(Code::corrupt, "checkpoint: its head is another's");
  co_return ReadCheckpoint{std::move(*parsed), read};
}

Status check_history(const CheckpointQuery& query, const CheckpointHead& head) {
  if (head.vp != query.vp) return Status(Code::invalid, "checkpoint: it is of another volume partition");
  if (broken(Switch::checkpoint_of_another_history)) return Status();
  if (head.history != query.history) return Status(Code::stale, "checkpoint: it belongs to a history that was given up");
  Epoch epoch = 0;
  for (const EpochStart& s : query.starts)
    if (s.lsn <= head.lsn) epoch = s.epoch;
  if (epoch != head.epoch || head.lsn > query.commit)
    return Status(Code::stale, "checkpoint: " + to_string(head.point()) + " does not lie on the history of the replicas that are left");
  if (head.lsn < query.lowest) return Status(Code::stale, "checkpoint: nobody can tell all that has changed since LSN " + std::to_string(head.lsn));
  return Status();
}

bool load_chain(Replica& replica, const std::vector<ImageBodies>& chain) {
  for (std::size_t i = 0; i < chain.size(); ++i) {
    for (const auto& [kind, body] : chain[i])
      if (!replica.load_image(kind, body)) return false;
    if (i == 0) {
      if (replica.loading_image()) return false;
      replica.recount();
      continue;
    }
    if (!replica.delta_complete() || replica.loading_base() != replica.commit() || replica.loading_point() < replica.commit()) return false;
    replica.apply_delta();
  }
  return true;
}

namespace {

// It and what it stands on, whole one first. The ids of a chain are one author's.
io::Task<Result<LoadedCheckpoint>> load_with_chain(Context& ctx, const CheckpointQuery& query, const CheckpointCatalog& catalog, const StoredCheckpoint& newest) {
  LoadedCheckpoint out;
  const StoredCheckpoint* at = &newest;
  std::uint32_t number = 0;
  std::vector<ImageBodies> backwards;
  while (true) {
    auto one = co_await read_checkpoint(ctx, query.vp, *at, ReadChunks::enough);
    if (!one.ok()) co_return one.status();
    const CheckpointHead head = one->checkpoint.head;
    CheckpointQuery fits = query;
    if (!backwards.empty()) fits.lowest = 0;
    if (Status s = check_history(fits, head); !s.ok()) {
      if (s.code() == Code::stale) reached(Path::checkpoint_refused);
      co_return s;
    }
    if (backwards.empty()) out.point = head.point(), out.author = head.author;
    else if (head.number + 1 != number) co_return Status(Code::corrupt, "checkpoint: its chain is broken");
    number = head.number;
    out.bytes += one->bytes;
    backwards.push_back(std::move(one->checkpoint.bodies));
    if (head.base_id == 0) break;
    auto base = catalog.stored.find({head.author, head.base_id});
    if (base == catalog.stored.end()) co_return Status(Code::not_found, "checkpoint: what it stands on is not there");
    at = &base->second;
    if (at->lsn != head.base_lsn) co_return Status(Code::corrupt, "checkpoint: what it stands on has another point");
  }
  out.chain.assign(std::make_move_iterator(backwards.rbegin()), std::make_move_iterator(backwards.rend()));
  Replica trial(query.vp);
  trial.designation.blocks = query.blocks;
  bool good = load_chain(trial, out.chain) && trial.commit() == out.point.lsn;
  if (!good) co_return Status(Code::corrupt, "checkpoint: what it says is no state of a replica");
  co_return out;
}

}  // namespace

io::Task<Result<LoadedCheckpoint>> load_newest_checkpoint(Context& ctx, CheckpointQuery query) {
  CheckpointCatalog catalog = co_await list_checkpoints(ctx, query.vp);
  std::vector<const StoredCheckpoint*> newest;
  for (const auto& [key, stored] : catalog.stored) newest.push_back(&stored);
  std::sort(newest.begin(), newest.end(), [](auto* a, auto* b) { return std::tuple(b->lsn, a->author, a->id) < std::tuple(a->lsn, b->author, b->id); });
  Status why(Code::not_found, "no checkpoint of the volume partition is on the sleds that answer");
  bool damaged = false;
  io::Time give_up = ctx.world.now() + kPatience;
  for (const StoredCheckpoint* stored : newest) {
    if (ctx.world.now() > give_up) break;
    auto loaded = co_await load_with_chain(ctx, query, catalog, *stored);
    if (loaded.ok()) {
      if (damaged) reached(Path::fall_back_checkpoint);
      co_return loaded;
    }
    damaged = damaged || loaded.code() != Code::stale;
    why = loaded.status();
    logging::warn("VP {:x}: checkpoint {:x} of node {} up to LSN {} is not used: {}", query.vp, stored->id, stored->author, stored->lsn, why.text());
  }
  co_return Status(Code::not_found, why.text());
}

}  // namespace luge::head
