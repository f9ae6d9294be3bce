// A survivor, or a primary that has restarted, stands for a new epoch (protocol 4.1, 4.5, 4.7; architecture A5).
#include "base/logging.hpp"
#include "head/partition.hpp"
#include "head/primary.hpp"
#include "switches/paths.hpp"
#include "switches/switches.hpp"

namespace luge::head {

using namespace std::chrono_literals;

// The first in the designation's order acts at once, the others a little later each; the store's swap breaks ties.
bool Partition::should_stand(io::Time now, io::Duration& wait) const {
  const Designation& d = designation();
  if (d.epoch == 0 || (!d.requires_node(ctx.options.id) && !broken(Switch::anybody_stands))) return false;
  if (broken(Switch::no_survivor_stands) && d.primary != ctx.options.id) return false;
  if (replica.suspect && !broken(Switch::suspect_promoted)) return false;
  if (!ctx.control->connected()) {
    wait = 200ms;
    return false;
  }
  if (d.primary == ctx.options.id) return true;  // restarted: only a new epoch makes it primary again
  bool failed = !ctx.alive(d.primary);
  io::Duration silence = now - heard_primary;
  io::Duration rank_delay{};
  for (NodeId n : d.required) {
    if (n == ctx.options.id) break;
    if (n != d.primary && ctx.alive(n)) rank_delay += 300ms;
  }
  // An alive head that does not act as primary (lost disk, suspect) must not leave the VP without one.
  io::Duration patience = failed ? 0ns : 3s;
  wait = failed ? 50ms : 500ms;
  return silence >= patience + rank_delay && silence >= 3 * ctx.options.heartbeat;
}

// Does all that only the log has read back?
io::Task<bool> Partition::sound() {
  Unreadable bad = co_await unreadable_blocks(false);
  if (bad.blocks.empty() && bad.failed_read.ok()) co_return true;
  if (bad.blocks.empty()) {  // nothing is known to be bad: it stands again
    waits.set(Wait::promotion, "this head's log cannot be read: " + bad.failed_read.text());
    co_return false;
  }
  replica.suspect = true;
  replica.suspect_reason = "LSN " + std::to_string(bad.blocks.front().second) + " does not read back from this head's log";
  logging::error("VP {:x}: {}; it does not open the VP alone", replica.vp(), replica.suspect_reason);
  co_return false;
}

io::Task<void> Partition::stand() {
  Designation d = designation();
  struct Answers {
    std::vector<NodeId> good;
    bool primary_alive = false;
    Designation newest;
  } answers;
  answers.newest = d;
  io::TaskGroup asking(ctx.world);
  auto ask = [](Partition& p, NodeId n, Designation d, Answers& out) -> io::Task<void> {
    auto reply = co_await p.ctx.connections->call(n, wire::make_frame(wire::Kind::alive_query, [&](auto& b) {
      return fbs::CreateAliveQuery(b, d.vp, d.epoch, d.revision);
    }), 400ms);
    if (!reply.ok()) co_return;
    const auto* a = reply->as<fbs::AliveReply>();
    if (reply->kind != wire::Kind::alive_reply || !a) co_return;
    if (a->designation()) {
      Designation theirs = Designation::from(*a->designation());
      if (theirs.vp == d.vp && theirs.newer_than(out.newest)) out.newest = theirs;
    }
    bool suspect = a->text() && a->text()->str() == "suspect";
    if (!suspect) out.good.push_back(n);
    if (a->primary_alive() && a->epoch() == d.epoch) out.primary_alive = true;
  };
  std::vector<NodeId> members = d.reserves;
  members.push_back(d.primary);
  for (NodeId n : members)
    if (n != ctx.options.id && !(n == d.primary && !ctx.alive(n))) asking.spawn("alive query", ask(*this, n, d, answers));
  co_await asking.join();
  if (answers.newest.newer_than(designation())) {
    Status s = co_await adopt(answers.newest);
    (void)s;
    co_return;
  }
  if (designation().newer_than(d)) co_return;
  bool restarted = d.primary == ctx.options.id;
  if (answers.primary_alive && !restarted) co_return;

  Designation next = d;
  next.epoch = d.epoch + 1;
  next.revision = d.revision + 1;
  next.primary = ctx.options.id;
  next.reserves.clear();
  for (NodeId n : d.reserves)
    if (n != ctx.options.id) next.reserves.push_back(n);
  if (!restarted) next.reserves.push_back(d.primary);
  next.required = {ctx.options.id};
  for (NodeId n : d.required)
    if (n != ctx.options.id && std::find(answers.good.begin(), answers.good.end(), n) != answers.good.end())
      next.required.push_back(n);
  // An empty disk in place of the one that held everything: what the others hold must be waited for. They are all here, and
  // empty too, only before the VP is opened for the first time.
  if (replica.blank() && next.required.size() < d.required.size() && !broken(Switch::blank_promoted)) {
    reached(Path::blank_waits);
    std::string why = "this head holds nothing of the VP and waits for the others that held everything: nodes";
    for (NodeId n : d.required)
      if (n != ctx.options.id) why += " " + std::to_string(n);
    waits.set(Wait::promotion, std::move(why));
    co_return;
  }
  // Each member of `required` holds everything, so one is enough to open; writes wait for a second copy (protocol 3.3).
  // The others get a moment to come back first: after a power cut of all, heads start one by one.
  if (next.required.size() >= d.min_copies) alone_since_.reset();
  else if (!alone_since_) alone_since_ = ctx.world.now();
  if (alone_since_ && ctx.world.now() - *alone_since_ < kAlonePatience) {
    std::string why = "a new primary waits for the other members that held everything; reachable are " +
                      std::to_string(next.required.size()) + " of nodes";
    for (NodeId n : d.required) why += " " + std::to_string(n);
    waits.set(Wait::promotion, std::move(why));
    co_return;
  }
  // Alone, it is the only copy that counts from here on: one that has gone bad is found before, while the others count.
  if (std::exchange(alone_since_, std::nullopt) && !co_await sound()) co_return;
  if (designation().newer_than(d)) co_return;
  auto reply = co_await ctx.control->call(wire::make_frame(wire::Kind::propose, [&](auto& b) {
    auto offset = next.to(b);
    return fbs::CreatePropose(b, d.revision, offset);
  }), 1s);
  if (!reply.ok()) co_return;
  const auto* p = reply->as<fbs::ProposeReply>();
  if (reply->kind != wire::Kind::propose_reply || !p) co_return;
  if (p->code() == 0 || p->current()) waits.clear(Wait::promotion);
  if (p->code() == 0) {
    logging::info("VP {:x}: designated primary in epoch {}", d.vp, next.epoch);
    Designation stored = p->current() ? Designation::from(*p->current()) : next;  // signed
    Status s = co_await adopt(stored.vp == d.vp ? stored : next);
    if (!s.ok()) logging::error("VP {:x}: cannot persist the designation: {}", d.vp, s.to_string());
  } else if (p->current()) {
    Designation current = Designation::from(*p->current());
    if (current.vp == d.vp && !current.has_member(ctx.options.id)) reached(Path::replacement_learned);
    if (current.vp == d.vp) {
      if (Status s = co_await adopt(current); !s.ok()) waits.set(Wait::promotion, s.text());
    }
  } else {
    std::string why = "the control plane refuses the promotion: " + std::string(p->text() ? p->text()->str() : "");
    if (waits.of(Wait::promotion) != why) logging::warn("VP {:x}: {}", d.vp, why);
    waits.set(Wait::promotion, std::move(why));
  }
}

}  // namespace luge::head
