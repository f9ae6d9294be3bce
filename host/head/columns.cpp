#include "head/columns.hpp"

#include <algorithm>

#include "base/logging.hpp"
#include "coding/chunk_header.hpp"
#include "switches/paths.hpp"
#include "switches/switches.hpp"

namespace luge::head {

using namespace std::chrono_literals;

void Columns::avoid(NodeId sled) { avoid_until_[sled] = ctx_.world.now() + 2s; }

void Columns::freed(const fbs::ChunkPlace& place) {
  auto sled = sleds_.find(place.sled());
  if (sled == sleds_.end()) return;  // it is listed before its slots are handed out
  for (Column& c : sled->second.columns)
    if (c.device == place.device() && c.number == place.column()) c.free.emplace_back(place.slot(), place.generation() + 1);
}

void Columns::learn(Sled& sled, const fbs::Column& c) {
  Column column;
  column.device = c.device();
  column.number = c.column();
  column.generation = c.generation();
  column.slot_bytes = c.slot_bytes();
  if (c.credential()) column.credential = *c.credential();
  if (c.states())
    for (const fbs::SlotState* s : *c.states())
      if (s->state() == 0) column.free.emplace_back(s->slot(), s->generation());
  std::sort(column.free.rbegin(), column.free.rend());
  sled.columns.push_back(std::move(column));
}

// First the epoch is made durable at the sled, then its slots are listed: what an older primary may still write
// lands in slots that this list shows as written or that it can no longer reach.
io::Task<Status> Columns::prepare(NodeId id) {
  VpId vp = partition_.replica.vp();
  if (partition_.designation().epoch != epoch_) co_return Status(Code::fenced, "epoch " + std::to_string(partition_.designation().epoch) + " has begun");
  auto fenced = co_await ctx_.connections->call(id, wire::make_frame(wire::Kind::fence, [&](auto& b) {
    auto d = partition_.designation().to(b);
    return fbs::CreateFence(b, vp, epoch_, d);
  }), 2s);
  if (!fenced.ok()) co_return fenced.status();
  const auto* f = fenced->as<fbs::FenceReply>();
  if (fenced->kind != wire::Kind::fence_reply || !f) co_return wire::status_of(*fenced).ok() ? Status(Code::corrupt, "fence answer does not parse") : wire::status_of(*fenced);
  if (f->code() != 0) co_return wire::make_status(f->code(), f->text());
  Sled fresh;
  Status s = co_await list(id, fresh);
  if (!s.ok()) co_return s;
  Sled& sled = sleds_[id];
  sled.columns = std::move(fresh.columns);
  sled.listed = true;
  co_return Status();
}

// Page by page.
io::Task<Status> Columns::list(NodeId id, Sled& into) {
  VpId vp = partition_.replica.vp();
  std::pair<std::uint16_t, std::uint32_t> from{0, 0};
  while (true) {
    if (partition_.designation().epoch != epoch_) co_return Status(Code::fenced, "epoch " + std::to_string(partition_.designation().epoch) + " has begun");
    auto listed = co_await ctx_.connections->call(id, wire::make_frame(wire::Kind::list_columns, [&](auto& b) {
      auto d = partition_.designation().to(b);
      return fbs::CreateListColumns(b, vp, epoch_, from.first, from.second, role_, d);
    }), 5s);
    if (!listed.ok()) co_return listed.status();
    const auto* l = listed->as<fbs::Columns>();
    if (listed->kind != wire::Kind::columns || !l) co_return Status(Code::corrupt, "column list does not parse");
    if (l->code() != 0) co_return wire::make_status(l->code(), l->text());
    if (l->columns())
      for (const fbs::Column* c : *l->columns()) learn(into, *c);
    if (!l->more()) co_return Status();
    std::pair<std::uint16_t, std::uint32_t> next{l->next_device(), l->next_column()};
    if (next <= from) co_return Status(Code::corrupt, "column list does not go on");
    from = next;
  }
}

io::Task<void> Columns::more_sandbox() {
  ++counters_.requests;
  auto answer = co_await ctx_.control->call(wire::make_frame(wire::Kind::get_sandbox, [&](auto& b) {
    return fbs::CreateGetSandbox(b, partition_.replica.vp(), 4);
  }), 1s);
  const auto* s = answer.ok() && answer->kind == wire::Kind::sandbox ? answer->as<fbs::Sandbox>() : nullptr;
  if (!s || s->code() != 0 || !s->columns()) co_return;
  for (const fbs::SandboxColumn* c : *s->columns()) partition_.sandbox.push_back(*c);
}

// The sled arbitrates: of two that want a column one gets it.
io::Task<Status> Columns::claim_column(NodeId id, std::uint16_t device, std::uint32_t column, std::uint32_t slot_bytes) {
  if (partition_.designation().epoch != epoch_) co_return Status(Code::fenced, "epoch " + std::to_string(partition_.designation().epoch) + " has begun");
  auto answer = co_await ctx_.connections->call(id, wire::make_frame(wire::Kind::claim_column, [&](auto& b) {
    auto d = partition_.designation().to(b);
    return fbs::CreateClaimColumn(b, partition_.replica.vp(), epoch_, device, column, slot_bytes, role_, d);
  }), 2s);
  if (!answer.ok()) co_return answer.status();
  const auto* r = answer->as<fbs::ClaimReply>();
  if (answer->kind != wire::Kind::claim_reply || !r) co_return wire::status_of(*answer).ok() ? Status(Code::corrupt, "claim answer does not parse") : wire::status_of(*answer);
  if (r->code() != 0) co_return wire::make_status(r->code(), r->text());
  if (!r->column()) co_return Status(Code::corrupt, "claim answer without a column");
  fbs::SandboxColumn got(id, r->column()->column(), r->column()->device(), 0);
  if (known(id, got)) co_return Status(Code::exists, "the column is known already");
  learn(sleds_[id], *r->column());
  co_return Status();
}

// Those of the sandbox on this sled, each once. no_space: none is left.
io::Task<Status> Columns::claim_inside(NodeId id, std::uint32_t slot_bytes) {
  std::vector<fbs::SandboxColumn> candidates;
  for (const fbs::SandboxColumn& c : partition_.sandbox)
    if (c.sled() == id && !tried_.contains({id, {c.device(), c.column()}}) && !known(id, c)) candidates.push_back(c);
  for (const fbs::SandboxColumn& c : candidates) {
    tried_.insert({id, {c.device(), c.column()}});
    Status s = co_await claim_column(id, c.device(), c.column(), slot_bytes);
    if (s.code() == Code::exists || s.code() == Code::invalid || s.code() == Code::no_space || s.code() == Code::io_error) continue;  // somebody else's, or of no use
    if (!s.ok()) co_return s;
    if (!sleds_[id].columns.back().free.empty()) co_return s;
  }
  co_return Status(Code::no_space, "sled " + std::to_string(id) + " has no free column in the sandbox");
}

// Of any free one: the sandbox says what is available, it is no limit.
io::Task<Status> Columns::claim_outside(NodeId id, std::uint32_t slot_bytes) {
  constexpr std::uint32_t kAny = ~std::uint32_t{0};
  bool had = std::any_of(partition_.sandbox.begin(), partition_.sandbox.end(), [id](const fbs::SandboxColumn& c) { return c.sled() == id; });
  if (broken(Switch::sandbox_is_a_limit)) co_return Status(Code::no_space, "outside the sandbox");
  Status s = co_await claim_column(id, 0, kAny, slot_bytes);
  if (s.ok()) ++(had ? counters_.outside_space : counters_.outside_domain);
  co_return s;
}

io::Task<Status> Columns::claim(NodeId id, std::uint32_t slot_bytes) {
  if (broken(Switch::flush_asks_for_space)) co_await more_sandbox();
  Status s = co_await claim_inside(id, slot_bytes);
  if (s.code() != Code::no_space) co_return s;
  if (ctx_.control->connected()) {
    co_await more_sandbox();
    s = co_await claim_inside(id, slot_bytes);
    if (s.code() != Code::no_space) co_return s;
  }
  co_return co_await claim_outside(id, slot_bytes);
}

// The list has it already: what it has free is known, and would be handed out twice if it were learnt again.
bool Columns::known(NodeId id, const fbs::SandboxColumn& c) const {
  auto sled = sleds_.find(id);
  if (sled == sleds_.end()) return false;
  const std::vector<Column>& columns = sled->second.columns;
  return std::any_of(columns.begin(), columns.end(), [&](const Column& own) { return own.device == c.device() && own.number == c.column(); });
}

const fbs::Credential* Columns::credential(const fbs::ChunkPlace& place) const {
  auto sled = sleds_.find(place.sled());
  if (sled == sleds_.end()) return nullptr;
  for (const Column& c : sled->second.columns)
    if (c.device == place.device() && c.number == place.column()) return &c.credential;
  return nullptr;
}

std::vector<fbs::Credential> Columns::credentials(const std::vector<fbs::ChunkPlace>& places) const {
  std::vector<fbs::Credential> out;
  for (const fbs::ChunkPlace& p : places) {
    const fbs::Credential* c = p.sled() != 0 ? credential(p) : nullptr;
    out.push_back(c ? *c : fbs::Credential());
  }
  return out;
}

io::Task<Result<fbs::Credential>> Columns::ask_credential(fbs::ChunkPlace place) {
  auto guard = co_await one_.lock();
  if (!sleds_[place.sled()].listed)
    if (Status s = co_await prepare(place.sled()); !s.ok()) co_return s;
  if (const fbs::Credential* c = credential(place)) co_return *c;
  co_return Status(Code::not_found, "the column is not this volume partition's");
}

// A sled whose data directory was lost makes its credentials with another secret. Slots are not learnt anew: what is under way to
// one would look free, and be handed out twice.
io::Task<Status> Columns::renew(NodeId id) {
  Sled listed;
  if (Status s = co_await list(id, listed); !s.ok()) co_return s;
  Sled& sled = sleds_[id];
  for (Column& own : sled.columns)
    for (const Column& c : listed.columns)
      if (c.device == own.device && c.number == own.number && c.generation == own.generation) own.credential = c.credential;
  sled.renew = false;
  co_return Status();
}

void Columns::refused(const std::vector<fbs::ChunkPlace>& places, const Status& why) {
  if (why.code() != Code::forged && why.code() != Code::expired) return;
  for (const fbs::ChunkPlace& p : places)
    if (p.sled() != 0) sleds_[p.sled()].renew = true;
}

bool Columns::take(NodeId id, std::uint32_t slot_bytes, fbs::ChunkPlace& place) {
  Sled& sled = sleds_[id];
  for (Column& c : sled.columns) {
    if (c.slot_bytes != slot_bytes || c.free.empty()) continue;
    auto [slot, generation] = c.free.back();
    if (!broken(Switch::retry_on_same_slots)) c.free.pop_back();
    ++sled.handed_out;
    place = fbs::ChunkPlace(id, c.number, slot, c.device, 0, generation);
    return true;
  }
  return false;
}

// Without asking a control plane: slots of columns that are claimed, or columns of the sandbox that have not been tried.
bool Columns::inside(NodeId id, std::uint32_t slot_bytes) const {
  auto sled = sleds_.find(id);
  if (sled != sleds_.end())
    for (const Column& c : sled->second.columns)
      if (c.slot_bytes == slot_bytes && !c.free.empty()) return true;
  return std::any_of(partition_.sandbox.begin(), partition_.sandbox.end(), [&](const fbs::SandboxColumn& c) {
    return c.sled() == id && !tried_.contains({id, {c.device(), c.column()}}) && !known(id, c);
  });
}

std::vector<NodeId> Columns::candidates(std::uint32_t slot_bytes, std::string& missing) const {
  std::vector<NodeId> out;
  for (const auto& [id, node] : ctx_.control->nodes()) {
    if (node.role != "sled") continue;
    auto avoided = avoid_until_.find(id);
    bool usable = node.alive && (avoided == avoid_until_.end() || avoided->second <= ctx_.world.now());
    if (usable) out.push_back(id);
    else missing += " " + node.name;
  }
  // Inside the sandbox first, then the least used, so that the stripes spread over all sleds.
  std::map<NodeId, bool> within;
  for (NodeId n : out) within[n] = inside(n, slot_bytes);
  std::sort(out.begin(), out.end(), [&](NodeId a, NodeId b) {
    auto used = [this](NodeId n) {
      auto it = sleds_.find(n);
      return it == sleds_.end() ? 0 : it->second.handed_out;
    };
    return std::make_tuple(!within[a], used(a), a) < std::make_tuple(!within[b], used(b), b);
  });
  return out;
}

io::Task<Status> Columns::take_on(NodeId id, std::uint32_t slot_bytes, fbs::ChunkPlace& place) {
  if (!sleds_[id].listed)
    if (Status s = co_await prepare(id); !s.ok()) co_return s;
  if (sleds_[id].renew)
    if (Status s = co_await renew(id); !s.ok()) co_return s;
  if (take(id, slot_bytes, place)) co_return Status();
  if (Status s = co_await claim(id, slot_bytes); !s.ok()) co_return s;
  co_return take(id, slot_bytes, place) ? Status() : Status(Code::no_space, "sled " + std::to_string(id) + " has no free slot");
}

io::Task<Result<std::vector<fbs::ChunkPlace>>> Columns::allocate(Layout layout, std::uint32_t chunk_bytes) {
  auto guard = co_await one_.lock();
  std::uint32_t slot_bytes = coding::chunk_header_bytes(layout, chunk_bytes) + chunk_bytes;
  std::string missing;
  std::vector<fbs::ChunkPlace> places;
  for (NodeId id : candidates(slot_bytes, missing)) {
    if (places.size() == layout.width()) break;
    fbs::ChunkPlace place;
    Status s = co_await take_on(id, slot_bytes, place);
    if (s.ok()) {
      places.push_back(place);
      continue;
    }
    if (s.code() == Code::fenced) co_return s;
    missing += " " + std::to_string(id) + " (" + s.text() + ")";
    avoid(id);
  }
  if (places.size() < layout.k + 1 && places.size() < layout.width())
    co_return Status(Code::degraded, "a stripe of " + to_string(layout) + " needs at least " + std::to_string(layout.k + 1) +
                                         " sleds with free columns, there are " + std::to_string(places.size()) + "; not usable:" + missing);
  if (places.size() < layout.width()) reached(Path::narrow_stripe);
  // Each sled takes its turn at every position: data and parity spread over all of them.
  std::rotate(places.begin(), places.begin() + static_cast<std::ptrdiff_t>(turn_++ % places.size()), places.end());
  places.resize(layout.width());  // the rest have sled = 0
  co_return places;
}

io::Task<Result<std::vector<fbs::ChunkPlace>>> Columns::allocate_missing(StripeRow row) {
  auto guard = co_await one_.lock();
  std::uint32_t slot_bytes = coding::chunk_header_bytes(row.layout, row.chunk_bytes) + row.chunk_bytes;
  std::string missing;
  std::vector<fbs::ChunkPlace> places(row.layout.width());
  std::size_t next = 0, taken = 0;
  for (NodeId id : candidates(slot_bytes, missing)) {
    while (next < places.size() && row.places[next].sled() != 0) ++next;
    if (next == places.size()) break;
    if (std::any_of(row.places.begin(), row.places.end(), [id](const fbs::ChunkPlace& p) { return p.sled() == id; })) continue;
    Status s = co_await take_on(id, slot_bytes, places[next]);
    if (s.code() == Code::fenced) co_return s;
    if (!s.ok()) {
      avoid(id);
      continue;
    }
    ++next;
    ++taken;
  }
  if (taken == 0) co_return Status(Code::degraded, "no other sled has a free column;" + missing);
  co_return places;
}

}  // namespace luge::head
