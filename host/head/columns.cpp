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
  auto fenced = co_await ctx_.connections->call(id, wire::make_frame(wire::Kind::fence, [&](auto& b) {
    return fbs::CreateFence(b, vp, epoch_);
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
    auto listed = co_await ctx_.connections->call(id, wire::make_frame(wire::Kind::list_columns, [&](auto& b) {
      return fbs::CreateListColumns(b, vp, epoch_, from.first, from.second, role_);
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
  auto answer = co_await ctx_.control->call(wire::make_frame(wire::Kind::get_sandbox, [&](auto& b) {
    return fbs::CreateGetSandbox(b, partition_.replica.vp(), 4);
  }), 1s);
  const auto* s = answer.ok() && answer->kind == wire::Kind::sandbox ? answer->as<fbs::Sandbox>() : nullptr;
  if (!s || s->code() != 0 || !s->columns()) co_return;
  for (const fbs::SandboxColumn* c : *s->columns()) partition_.sandbox.push_back(*c);
}

// A column of the sandbox first; outside it only when that has none left on this sled (FL-07..09).
io::Task<Status> Columns::claim(NodeId id, std::uint32_t slot_bytes) {
  for (int round = 0; round < 2; ++round) {
    std::vector<fbs::SandboxColumn> candidates;
    for (const fbs::SandboxColumn& c : partition_.sandbox)
      if (c.sled() == id && !tried_.contains({id, {c.device(), c.column()}}) && !known(id, c)) candidates.push_back(c);
    for (const fbs::SandboxColumn& c : candidates) {
      tried_.insert({id, {c.device(), c.column()}});
      auto answer = co_await ctx_.connections->call(id, wire::make_frame(wire::Kind::claim_column, [&](auto& b) {
        return fbs::CreateClaimColumn(b, partition_.replica.vp(), epoch_, c.device(), c.column(), slot_bytes, role_);
      }), 2s);
      if (!answer.ok()) co_return answer.status();
      const auto* r = answer->as<fbs::ClaimReply>();
      if (answer->kind != wire::Kind::claim_reply || !r) co_return wire::status_of(*answer).ok() ? Status(Code::corrupt, "claim answer does not parse") : wire::status_of(*answer);
      if (r->code() == static_cast<std::uint16_t>(Code::fenced)) co_return wire::make_status(r->code(), r->text());
      if (r->code() != 0 || !r->column()) continue;  // somebody else's: the sled arbitrates
      learn(sleds_[id], *r->column());
      if (!sleds_[id].columns.back().free.empty()) co_return Status();
    }
    if (round == 0) co_await more_sandbox();
  }
  co_return Status(Code::no_space, "sled " + std::to_string(id) + " has no free column to recommend");
}

// The list has it already: what it has free is known, and would be handed out twice if it were learnt again.
bool Columns::known(NodeId id, const fbs::SandboxColumn& c) {
  const std::vector<Column>& columns = sleds_[id].columns;
  return std::any_of(columns.begin(), columns.end(), [&](const Column& own) { return own.device == c.device() && own.number == c.column(); });
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

std::vector<NodeId> Columns::candidates(std::string& missing) const {
  std::vector<NodeId> out;
  for (const auto& [id, node] : ctx_.control->nodes()) {
    if (node.role != "sled") continue;
    auto avoided = avoid_until_.find(id);
    bool usable = node.alive && (avoided == avoid_until_.end() || avoided->second <= ctx_.world.now());
    if (usable) out.push_back(id);
    else missing += " " + node.name;
  }
  // The least used first, so that the stripes spread over all sleds.
  std::sort(out.begin(), out.end(), [this](NodeId a, NodeId b) {
    auto used = [this](NodeId n) {
      auto it = sleds_.find(n);
      return it == sleds_.end() ? 0 : it->second.handed_out;
    };
    return std::make_pair(used(a), a) < std::make_pair(used(b), b);
  });
  return out;
}

io::Task<Status> Columns::take_on(NodeId id, std::uint32_t slot_bytes, fbs::ChunkPlace& place) {
  if (!sleds_[id].listed)
    if (Status s = co_await prepare(id); !s.ok()) co_return s;
  if (take(id, slot_bytes, place)) co_return Status();
  if (Status s = co_await claim(id, slot_bytes); !s.ok()) co_return s;
  co_return take(id, slot_bytes, place) ? Status() : Status(Code::no_space, "sled " + std::to_string(id) + " has no free slot");
}

io::Task<Result<std::vector<fbs::ChunkPlace>>> Columns::allocate(Layout layout, std::uint32_t chunk_bytes) {
  auto guard = co_await one_.lock();
  std::uint32_t slot_bytes = coding::chunk_header_bytes(layout, chunk_bytes) + chunk_bytes;
  std::string missing;
  std::vector<fbs::ChunkPlace> places;
  for (NodeId id : candidates(missing)) {
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
  for (NodeId id : candidates(missing)) {
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
