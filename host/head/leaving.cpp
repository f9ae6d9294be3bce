// A replica that is not needed any more: its volume was removed, or another head has its place (replacement.cpp).
#include "base/logging.hpp"
#include "head/partition.hpp"
#include "head/primary.hpp"
#include "head/recollection.hpp"
#include "head/server.hpp"
#include "switches/paths.hpp"

namespace luge::head {

using namespace std::chrono_literals;

// Durably, then in memory; its log space goes back. The columns on the sleds are the VP's, not the replica's.
io::Task<Status> HeadServer::forget(Partition& p, std::string why, bool removed) {
  VpId vp = p.replica.vp();
  auto guard = co_await p.adopting();  // a designation that is being stored would outlive this
  if (!removed && p.designation().has_member(ctx_.options.id)) co_return Status();  // it has brought this head back
  std::vector<io::MetaStore::Change> changes;
  changes.emplace_back("designation/" + std::to_string(vp), std::nullopt);
  changes.emplace_back(unsound_key(vp), std::nullopt);
  Status s = removed || p.designation().epoch == 0 ? co_await ctx_.meta_store->put(std::move(changes)) : co_await put_left(ctx_, std::move(changes), p.designation());
  if (!s.ok() || p.dropped) co_return s;
  if (p.primary) p.primary->depose(why);
  p.primary.reset();
  witnessed(Fact::rebuild_begun, vp, p.designation().epoch);  // should the VP ever come here again, what is left of it in the log is not the whole
  p.dropped = true;  // its tasks end by themselves; the object stays until the head does
  p.forget_incoming_image();
  p.replica.release_everything();
  p.durable_changed.notify_all();
  ctx_.data_log->recheck();
  p.wake();
  acks_.erase(vp);
  co_return s;
}

// Who has been replaced keeps what it has until its successors hold everything: until then it may be asked back, or be the last
// to know something. It asks how things stand, for nobody tells one who is no member.
io::Task<void> HeadServer::leave_partitions() {
  if (ctx_.world.now() < ask_again_ || !ctx_.control->connected()) co_return;  // each would be waited for
  ask_again_ = ctx_.world.now() + 1s;
  std::vector<VpId> left;
  for (auto& [vp, p] : ctx_.partitions)
    if (!p->dropped && p->designation().epoch != 0 && !p->designation().has_member(ctx_.options.id)) left.push_back(vp);
  for (VpId vp : left) {
    if (!ctx_.control->connected()) co_return;
    bool removed = co_await ask_about(vp) == Code::not_found;
    Partition* p = ctx_.partition(vp);
    if (!p || p->designation().has_member(ctx_.options.id)) continue;
    const Designation& d = p->designation();
    if (!removed && d.required.size() != d.members().size()) continue;
    reached(Path::left_for_good);
    logging::info("VP {:x}: {}; this replica is given up", vp,
                  removed ? "the volume was removed" : fmt::format("the members of epoch {}, revision {}, hold everything", d.epoch, d.revision));
    if (Status s = co_await forget(*p, "another head has this one's place", removed); !s.ok()) logging::warn("VP {:x}: {}", vp, s.to_string());
  }
}

// Adopts what the control plane says of it. not_found: there is no such VP any more.
io::Task<Code> HeadServer::ask_about(VpId vp) {
  auto answer = co_await ctx_.control->call(wire::make_frame(wire::Kind::lookup_vp, [&](auto& b) { return fbs::CreateLookupVp(b, vp); }), 1s);
  const auto* view = answer.ok() && answer->kind == wire::Kind::vp_view ? answer->as<fbs::VpView>() : nullptr;
  if (!view) co_return Code::unavailable;
  if (!view->designation()) co_return static_cast<Code>(view->code());
  Designation d = Designation::from(*view->designation());
  Partition* p = ctx_.partition(vp);
  if (!p || d.vp != vp) co_return Code::unavailable;
  Status s = co_await p->adopt(std::move(d));
  if (!s.ok()) logging::warn("VP {:x}: {}", vp, s.to_string());
  co_return s.code();
}

}  // namespace luge::head
