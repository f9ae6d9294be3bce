// How a VP's session finds its primary and notices that it has moved. Rules (wire/client.fbs, protocol 2.3, 6):
// connection lost, unavailable, fenced, no answer -> ask the control plane where the primary is; when that cannot be
// reached, try the members last known in turn. Between attempts 10 ms doubling to 100 ms, after 2 s to 500 ms.
#include <algorithm>

#include "base/logging.hpp"
#include "client/volume_state.hpp"
#include "client/vp_session.hpp"
#include "switches/switches.hpp"

namespace luge::client {
namespace {

constexpr io::Duration kFirstBackOff = std::chrono::milliseconds(10);
constexpr io::Duration kShortBackOff = std::chrono::milliseconds(100);
constexpr io::Duration kLongBackOff = std::chrono::milliseconds(500);
constexpr io::Duration kShortPause = std::chrono::seconds(2);
constexpr io::Duration kLookupTimeout = std::chrono::seconds(1);
constexpr io::Duration kOpenTimeout = std::chrono::seconds(2);
constexpr io::Duration kConnectNew = std::chrono::milliseconds(500);
constexpr io::Duration kConnectAgain = std::chrono::milliseconds(50);
constexpr io::Duration kTick = std::chrono::milliseconds(200);
constexpr io::Duration kStall = std::chrono::milliseconds(600);  // a little more than the failure agent's patience
constexpr io::Duration kAskAgain = std::chrono::seconds(10);
constexpr io::Duration kWorthSaying = std::chrono::seconds(1);

}  // namespace

void VpSession::learn(const fbs::VpView* view) {
  const fbs::Designation* d = view != nullptr && view->code() == 0 ? view->designation() : nullptr;
  if (d == nullptr) {
    look_up_first_ = true;
    if (view != nullptr && view->text() != nullptr && view->text()->size() != 0) reason_ = view->text()->str();
    return;
  }
  look_up_first_ = false;
  turn_ = 0;
  if (std::pair(d->epoch(), d->revision()) < std::pair(epoch_, revision_)) return;
  epoch_ = d->epoch();
  revision_ = d->revision();
  primary_ = d->primary();
  members_.assign(1, primary_);
  if (d->reserves() != nullptr)
    for (NodeId n : *d->reserves())
      if (n != primary_) members_.push_back(n);
  for (NodeId n : members_)
    if (const wire::NodeRecord* r = v_.control.node(n); r != nullptr && !r->address.empty()) addresses_[n] = r->address;
  if (view->primary_address() != nullptr && view->primary_address()->size() != 0)
    addresses_[primary_] = view->primary_address()->str();
}

io::Task<bool> VpSession::look_up() {
  if (!v_.control.connected()) co_return false;
  auto request = wire::make_frame(wire::Kind::lookup_vp, [&](auto& b) { return fbs::CreateLookupVp(b, vp_); });
  auto answer = co_await v_.control.call(std::move(request), kLookupTimeout);
  if (!answer.ok() || answer->kind != wire::Kind::vp_view) co_return false;
  const auto* view = answer->as<fbs::VpView>();
  if (view == nullptr) co_return false;
  if (view->designation() != nullptr && view->designation()->vp() != vp_) co_return false;
  learn(view);
  co_return !look_up_first_;
}

// Leaves the address to try in address_; empty if none is known.
io::Task<void> VpSession::find_primary() {
  if (look_up_first_ && !co_await look_up() && !members_.empty() && !broken(Switch::only_the_primary_asked)) {
    // Whoever is primary answers; the others say that they are not.
    NodeId n = members_[turn_++ % members_.size()];
    if (const wire::NodeRecord* r = v_.control.node(n); r != nullptr && !r->address.empty()) addresses_[n] = r->address;
    address_ = addresses_[n];
    co_return;
  }
  address_ = addresses_[primary_];
}

io::Task<bool> VpSession::open() {
  Epoch before = epoch_;
  co_await find_primary();
  if (v_.ended()) co_return false;
  look_up_first_ = true;  // unless this attempt succeeds
  if (address_.empty()) {
    if (reason_.empty()) reason_ = "nobody is known to serve the partition";
    co_return false;
  }
  bool is_new = false;
  // A new epoch may mean that the head has come back: do not sit out the old link's back-off.
  auto link = v_.link_to(address_, epoch_ != before, is_new);
  if (!link->connected() && !co_await link->wait_connected(is_new ? kConnectNew : kConnectAgain)) {
    reason_ = "head " + std::to_string(primary_) + " at " + address_ + " cannot be reached";
    co_return false;
  }
  auto channel = link->channel();
  if (!channel || v_.ended()) co_return false;
  auto request = wire::make_frame(wire::Kind::open_session, [&](auto& b) {
    return fbs::CreateOpenSession(b, vp_, epoch_, v_.attachment, v_.incarnation);
  });
  Epoch asked = epoch_;
  auto answer = co_await channel->call(std::move(request), kOpenTimeout);
  if (v_.ended()) co_return false;
  if (!answer.ok()) {
    reason_ = answer.status().to_string();
    co_return false;
  }
  const auto* reply = answer->kind == wire::Kind::session_reply ? answer->as<fbs::SessionReply>() : nullptr;
  if (reply == nullptr) {
    Status s = wire::status_of(*answer);
    reason_ = s.ok() ? "the head's answer does not verify" : s.to_string();
    co_return false;
  }
  Status s = wire::make_status(reply->code(), reply->text());
  if (s.code() == Code::closed_session) {
    v_.fail(Status(Code::closed_session, "volume '" + v_.name + "' has been attached elsewhere; this attachment is closed"));
    co_return false;
  }
  seen_epoch_ = std::max(seen_epoch_, reply->epoch());
  epoch_ = std::max(epoch_, reply->epoch());
  if (!s.ok()) {
    reason_ = s.to_string();
    co_return false;
  }
  // The session is open in the epoch that was asked for; a head that knows a newer one will not take our requests.
  if (epoch_ != asked || !channel->open()) co_return false;
  channel_ = channel;
  look_up_first_ = false;
  ++v_.stats.sessions;
  opened_ = v_.world.now();
  unsent_ = low_;
  delayed_reads_.clear();
  unsent_reads_.clear();
  for (auto& [tag, p] : reads_) unsent_reads_.push_back(p);
  std::sort(unsent_reads_.begin(), unsent_reads_.end(), [](Part* a, Part* b) { return a->id < b->id; });
  send();
  co_return true;
}

bool VpSession::stalled(io::Time now) const {
  Part* oldest = low_ != next_ ? window_[low_ % kSessionWindow] : nullptr;
  if (oldest != nullptr && now - oldest->sent > kStall) return true;
  return std::any_of(reads_.begin(), reads_.end(), [&](const auto& r) {
    return r.second->attempts != 0 && now - r.second->sent > kStall;
  });
}

// Waits for something to happen or for the tick, and acts on it.
io::Task<void> VpSession::watch_once() {
  std::uint64_t submitted = submitted_;
  if (outstanding() == 0) {
    // A busy volume is looked at by ticks, so that single requests need not wake this task.
    bool woken = co_await wake_.wait_for(kTick);
    if (!woken && outstanding() == 0 && submitted == submitted_ && channel_ && channel_->open() && !v_.ended()) {
      sleeping_ = true;
      struct Awake {
        bool& flag;
        ~Awake() { flag = false; }
      } awake{sleeping_};
      co_await wake_.wait();
    }
    co_return;
  }
  io::Time next = v_.world.now() + kTick;
  for (Part* p : delayed_reads_) next = std::min(next, p->due);
  co_await wake_.wait_until(next);
  io::Time now = v_.world.now();
  if (!delayed_reads_.empty()) release_delayed_reads(now);
  if (channel_ && stalled(now)) {
    if (reason_.empty()) reason_ = "head " + std::to_string(primary_) + " at " + address_ + " does not answer";
    say_if_long();
    Epoch epoch = epoch_;
    NodeId primary = primary_;
    co_await look_up();
    // The same primary, silent for so long: an answer may have gone to a connection that is no more. Sending again
    // does no harm (protocol 2.3), and waiting for ever would.
    bool ask_again = v_.world.now() - last_progress_ > kAskAgain && v_.world.now() - opened_ > kAskAgain;
    if (channel_ && (epoch_ != epoch || primary_ != primary || ask_again)) channel_.reset();
  }
}

io::Task<void> VpSession::watch() {
  while (channel_ && channel_->open() && !v_.ended()) co_await watch_once();
  if (channel_ && reason_.empty()) reason_ = "the connection to head " + std::to_string(primary_) + " was lost";
  if (channel_ && !channel_->open()) look_up_first_ = true;
  channel_.reset();
}

io::Task<void> VpSession::back_off() {
  io::Time now = v_.world.now();
  if (attempts_ != 0) {
    io::Duration limit = now - last_progress_ < kShortPause ? kShortBackOff : kLongBackOff;
    io::Duration d = std::min(kFirstBackOff * (1 << std::min(attempts_ - 1, 6u)), limit);
    io::Time until = now + d / 2 + io::Duration(v_.world.random_below(d.count()));
    while (!v_.ended() && co_await wake_.wait_until(until)) {
    }
  }
  ++attempts_;
}

void VpSession::say_if_long() {
  if (said_ || outstanding() == 0 || v_.world.now() - last_progress_ < kWorthSaying) return;
  said_ = true;
  logging::warn("volume {}: partition {}: {} requests wait: {}", v_.name, index_of(vp_), outstanding(), reason_);
}

io::Task<void> VpSession::run(std::shared_ptr<VolumeState> volume, VpSession& s) {
  while (!volume->ended()) {
    while (s.outstanding() == 0 && !volume->ended()) {
      s.sleeping_ = true;
      struct Awake {
        bool& flag;
        ~Awake() { flag = false; }
      } awake{s.sleeping_};
      co_await s.wake_.wait();
    }
    if (volume->ended()) break;
    co_await s.back_off();
    if (volume->ended()) break;
    if (co_await s.open()) co_await s.watch();
    s.say_if_long();
  }
}

}  // namespace luge::client
