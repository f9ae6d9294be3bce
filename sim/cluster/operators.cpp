#include "sim/cluster/operators.hpp"

#include <algorithm>
#include <iterator>
#include <utility>

#include "client/volume.hpp"

namespace luge::sim {

using io::Task;

struct Operators::Asked {
  bool done = false;
  Status status{Code::unavailable, "not answered"};
  Duration since{0};
};

struct Operators::Reading {
  std::size_t left = 0;
  bool cut_off = false;  // by another attachment
};

namespace {

constexpr std::uint64_t kPoliteRebuilds = 20;  // of some 200 ms each
constexpr Duration kPause = 200ms;
constexpr Duration kMoveTimeout = 10s;
constexpr Duration kPatience = 15s;  // a request that the control plane took along when it died is asked again after this

std::string in_blocks(std::uint64_t bytes) { return std::to_string(bytes / kBlockBytes) + " blocks"; }

}  // namespace

Operators::Operators(Simulation& sim, Unit& unit, const Tenants& tenants, const Chaos& chaos, bool errors, bool may_grow, Random random)
    : sim_(sim), unit_(unit), chaos_(chaos), errors_(errors), may_grow_(may_grow), random_(random), interval_(random_.spread(100'000'000, 1'600'000'000)) {
  for (const auto& t : tenants) grown_.push_back({.tenant = t.get()});
}

void Operators::start() {
  for (Grown& d : grown_) {
    const control::Volume* v = unit_.store().find_volume(d.tenant->name);
    d.made = d.asked = v ? v->bytes : 0;
  }
  active_ = true;
  schedule();
}

void Operators::schedule() {
  sim_.after(Duration(random_.below(2 * static_cast<std::uint64_t>(interval_.count()))), [this] {
    if (!active_) return;
    act();
    schedule();
  });
}

void Operators::act() {
  Grown& d = grown_[random_.below(grown_.size())];
  double what = random_.unit();
  if (what < 0.4) return write(d);
  if (unit_.control() == nullptr) return;  // nobody to ask
  if (what < 0.7 || !may_grow_) return move(d);
  // By a few blocks, within a partition, or by more than one.
  const std::uint64_t vp = unit_.shape().vp_bytes, most = d.made + 2 * vp;
  const std::uint64_t more = random_.chance(0.5) ? random_.spread(1, 32) * kBlockBytes : random_.between(1, vp / kBlockBytes) * kBlockBytes;
  resize(d, std::min(most, d.asked + more));
}

void Operators::resize(Grown& d, std::uint64_t bytes) {
  ++resizes_;
  d.asked = std::max(d.asked, bytes);
  if (sim_.tracing()) sim_.log("operator: " + d.tenant->name + " is to have " + in_blocks(bytes));
  asking_ = std::make_shared<Asked>();
  asking_->since = sim_.now();
  sim_.world(unit_.control_node()).spawn("resize", ask_resize(*this, d, bytes, asking_));
}

Task<void> Operators::ask_resize(Operators& o, Grown& d, std::uint64_t bytes, std::shared_ptr<Asked> asked) {
  auto r = co_await o.unit_.control()->volumes().resize(d.tenant->name, bytes);
  asked->status = r.status();
  asked->done = true;
  if (o.sim_.tracing()) o.sim_.log("operator: " + d.tenant->name + " with " + in_blocks(bytes) + ": " + (r.ok() ? "done" : r.status().to_string()));
  if (r.ok()) o.served(d, bytes);
}

// Its front end is told, as it is by the control plane where a volume is exported.
void Operators::served(Grown& d, std::uint64_t bytes) {
  if (d.tenant->volume != nullptr) d.tenant->volume->grow(bytes);
}

// From a head that has a copy of one of its partitions, to one that has none or to whom its primary chooses.
void Operators::move(Grown& d) {
  const control::Image& store = unit_.store();
  const control::Volume* v = store.find_volume(d.tenant->name);
  if (v == nullptr) return;
  auto it = store.designations.find(make_vp(v->id, static_cast<std::uint32_t>(random_.below(v->vps()))));
  if (it == store.designations.end()) return;
  std::vector<NodeId> members = it->second.members(), others;
  for (std::size_t i = 0; i < unit_.head_nodes().size(); ++i)
    if (NodeId n = kFirstHead + static_cast<NodeId>(i); !it->second.has_member(n)) others.push_back(n);
  if (others.empty()) return;
  const NodeId from = members[random_.below(members.size())];
  std::string to = random_.chance(0.6) ? "" : sim_.name(unit_.node_of_head(others[random_.below(others.size())]));
  const Duration timeout(random_.spread(500'000'000, 20'000'000'000));
  const bool wait = random_.chance(0.5);
  ask_to_move(d, from, std::move(to), wait, timeout, std::make_shared<Asked>());
}

void Operators::ask_to_move(Grown& d, NodeId from, std::string to, bool wait, Duration timeout, std::shared_ptr<Asked> asked) {
  ++moves_;
  asked->since = sim_.now();
  if (sim_.tracing()) sim_.log("operator: " + sim_.name(unit_.node_of_head(from)) + " is to have no copy of " + d.tenant->name + (to.empty() ? "" : ", but " + to));
  sim_.world(unit_.control_node()).spawn("move", ask_move(*this, d.tenant->name, from, std::move(to), wait, timeout, std::move(asked)));
}

// Who is a member still when it is answered must have left in between, and come back as somebody's replacement: from the first designation
// without it on nothing is said of that partition.
Task<void> Operators::ask_move(Operators& o, std::string volume, NodeId from, std::string to, bool wait, Duration timeout, std::shared_ptr<Asked> asked) {
  struct Watched {
    std::list<Moving>& all;
    std::list<Moving>::iterator m;
    ~Watched() { all.erase(m); }
  } watched{o.moving_, o.moving_.insert(o.moving_.end(), {.from = from})};
  if (const control::Volume* v = o.unit_.store().find_volume(volume))
    for (std::uint32_t i = 0; i < v->vps(); ++i)
      if (VpId vp = make_vp(v->id, i); o.is_member(vp, from)) watched.m->left_with.insert(vp);
  const std::string name = o.sim_.name(o.unit_.node_of_head(from));
  auto r = co_await o.unit_.control()->volumes().move(volume, name, std::move(to), wait, timeout);
  asked->status = r.status();
  asked->done = true;
  if (o.sim_.tracing()) o.sim_.log("operator: " + name + " without a copy of " + volume + ": " + (r.ok() ? std::to_string(*r) + " partitions moved" : r.status().to_string()));
  if (!r.ok()) co_return;
  for (VpId vp : watched.m->left_with)
    if (o.is_member(vp, from)) o.fail("the move of a copy of " + volume + " from " + name + " was answered with success, and it has been a member of VP " + std::to_string(vp) + " all the while");
}

bool Operators::is_member(VpId vp, NodeId head) const {
  auto it = unit_.store().designations.find(vp);
  return it != unit_.store().designations.end() && it->second.has_member(head);
}

bool Operators::has_copy(const Grown& d, NodeId head) const {
  const control::Volume* v = unit_.store().find_volume(d.tenant->name);
  for (std::uint32_t i = 0; v && i < v->vps(); ++i)
    if (is_member(make_vp(v->id, i), head)) return true;
  return false;
}

void Operators::stored(VpId vp) {
  for (Moving& m : moving_)
    if (!is_member(vp, m.from)) m.left_with.erase(vp);
}

// A head with a copy of a partition of it, for each of whose copies of this volume another head is free. 0: there is none.
NodeId Operators::may_leave(const Grown& d) {
  const control::Image& store = unit_.store();
  const control::Volume* v = store.find_volume(d.tenant->name);
  std::set<NodeId> can;
  std::vector<NodeId> live;
  for (const control::Node* n : unit_.control()->registry().alive("head")) live.push_back(n->row.id);
  can.insert(live.begin(), live.end());
  for (std::uint32_t i = 0; v && i < v->vps(); ++i) {
    auto it = store.designations.find(make_vp(v->id, i));
    if (it == store.designations.end()) return 0;
    const bool spare = std::any_of(live.begin(), live.end(), [&](NodeId n) { return !it->second.has_member(n); });
    for (NodeId n : it->second.members())
      if (!spare) can.erase(n);
  }
  std::erase_if(can, [&](NodeId n) { return !has_copy(d, n); });
  return can.empty() ? 0 : *std::next(can.begin(), static_cast<std::ptrdiff_t>(random_.below(can.size())));
}

bool Operators::moved_again() {
  if (unit_.control() == nullptr || !may_ask()) return false;
  for (Grown& d : grown_) {
    if (d.moved) continue;
    if (d.leaver == 0) d.leaver = may_leave(d);
    // Also when it was the last answer that was an error: that the newcomer had not caught up yet.
    if (d.leaver == 0 || !has_copy(d, d.leaver)) {
      d.moved = true;
      continue;
    }
    asking_ = std::make_shared<Asked>();
    ask_to_move(d, d.leaver, "", true, kMoveTimeout, asking_);
    return false;
  }
  return true;
}

// An older copy of the store makes no partitions before it has heard what there are. Of a head that is gone, or has lost its disk, it hears
// nothing: that is accepted when all others have had the time to come back.
void Operators::rebuild() {
  const bool accept_loss = ++rebuilds_ > kPoliteRebuilds;
  if (sim_.tracing()) sim_.log(std::string("operator: control rebuild") + (accept_loss ? " --accept-loss" : ""));
  asking_ = std::make_shared<Asked>();
  asking_->since = sim_.now();
  sim_.world(unit_.control_node()).spawn("rebuild", ask_rebuild(*this, accept_loss, asking_));
}

Task<void> Operators::ask_rebuild(Operators& o, bool accept_loss, std::shared_ptr<Asked> asked) {
  auto r = co_await o.unit_.control()->volumes().rebuild(accept_loss, false);
  std::string left;
  if (r.ok())
    for (const std::string& l : r->left) left += "; " + l;
  if (o.sim_.tracing()) o.sim_.log("operator: control rebuild: " + (r.ok() ? "done" + left : r.status().to_string()));
  asked->status = r.status();
  asked->done = true;
}

void Operators::write(Grown& d) {
  client::Volume* v = d.tenant->volume;
  if (v == nullptr || d.tenant->present == nullptr || d.writing || v->size_bytes() <= d.made) return;
  const std::uint64_t blocks = (v->size_bytes() - d.made) / kBlockBytes;
  const std::uint64_t at = d.made + (random_.chance(0.3) ? blocks - 1 : random_.below(blocks)) * kBlockBytes;
  auto b = std::find_if(d.blocks.begin(), d.blocks.end(), [at](const Block& block) { return block.at == at; });
  if (b == d.blocks.end()) {
    d.blocks.push_back({.at = at});
    b = std::prev(d.blocks.end());
  }
  fills_ = static_cast<std::uint8_t>(fills_ % 255 + 1);
  b->may_be.push_back(fills_);  // from now on, whether it is ever answered or not
  d.writing = true;
  sim_.world(d.tenant->present_node).spawn("write beyond", write_block(*this, d, *b, fills_, *d.tenant->present));
}

// One that is not answered by an attachment that is lost has done nothing after the next one's first request: nothing hides what comes later.
Task<void> Operators::write_block(Operators& o, Grown& d, Block& b, std::uint8_t fill, Target& target) {
  struct Ended {
    bool& writing;
    ~Ended() { writing = false; }
  } ended{d.writing};
  Buffer data = Buffer::allocate(kBlockBytes);
  std::memset(data.data(), fill, data.size());
  Status s = co_await target.write(b.at, data.bytes());
  if (s.ok()) b.may_be = {fill};
  else if (s.code() != Code::closed_session && o.errors_) o.fail("a write of " + d.tenant->name + " at " + std::to_string(b.at) + ", where it has grown: " + s.to_string());
}

bool Operators::as_asked(const Grown& d) const {
  const control::Image& store = unit_.store();
  const control::Volume* v = store.find_volume(d.tenant->name);
  if (v == nullptr || v->bytes < d.asked || d.tenant->volume == nullptr || d.tenant->volume->size_bytes() < d.asked) return false;
  for (std::uint32_t i = 0; i < v->vps(); ++i) {
    auto it = store.designations.find(make_vp(v->id, i));
    if (it == store.designations.end() || it->second.blocks != v->blocks_of(i)) return false;
  }
  return true;
}

// New partitions want as many heads as there are copies; of a unit that has lost some for good no more can be asked.
void Operators::refused() {
  control::Control* control = unit_.control();
  if (control->store().image().older || control->store().image().lost) return rebuild();
  for (Grown& d : grown_) {
    const control::Volume* v = control->store().image().find_volume(d.tenant->name);
    if (v && chaos_.any_given_up() && control->registry().alive("head").size() < v->copies) d.asked = std::max(d.made, v->bytes);
  }
}

// Nothing is under way; what was, and has been refused, is looked into.
bool Operators::may_ask() {
  if (asking_ && !asking_->done && sim_.now() - asking_->since < kPatience) return false;
  if (asking_ && sim_.now() - asking_->since < kPause) return false;
  if (auto last = std::exchange(asking_, nullptr); last && !last->status.ok()) {
    last_error_ = last->status.to_string();
    if (last->done && last->status.code() == Code::degraded) refused();
  }
  return asking_ == nullptr;
}

bool Operators::settled() {
  if (unit_.control() == nullptr || !may_ask()) return false;
  for (Grown& d : grown_) {
    if (as_asked(d)) continue;
    // An attachment of before, or one that was made while the store was older.
    resize(d, d.asked);
    return false;
  }
  // Last: one may wait for a partition that the store does not know any more.
  return std::none_of(grown_.begin(), grown_.end(), [](const Grown& d) { return d.writing; });
}

std::string Operators::unsettled() const {
  std::string text;
  for (const Grown& d : grown_) {
    const control::Volume* v = unit_.store().find_volume(d.tenant->name);
    if (!as_asked(d))
      text += " " + d.tenant->name + " is to have " + in_blocks(d.asked) + ", the store says " + in_blocks(v ? v->bytes : 0) + ", its front end " + (d.tenant->volume ? in_blocks(d.tenant->volume->size_bytes()) : "nothing");
  }
  for (const Grown& d : grown_)
    if (d.leaver != 0 && !d.moved) text += " " + sim_.name(unit_.node_of_head(d.leaver)) + " is to have no copy of " + d.tenant->name + " (" + last_error_ + ")";
  for (const Grown& d : grown_)
    if (d.writing) text += " a write to what " + d.tenant->name + " has grown by is not answered";
  return text + (asking_ ? ": " + asking_->status.to_string() : "");
}

bool Operators::read_back() {
  if (!reading_) {
    if (std::any_of(grown_.begin(), grown_.end(), [](const Grown& d) { return d.tenant->present == nullptr; })) return false;
    reading_ = std::make_shared<Reading>();
    for (Grown& d : grown_) {
      ++reading_->left;
      sim_.world(d.tenant->present_node).spawn("read beyond", read_blocks(*this, d, *d.tenant->present, reading_));
    }
  }
  if (reading_->left == 0 && reading_->cut_off) reading_.reset();
  return reading_ && reading_->left == 0;
}

Task<void> Operators::read_blocks(Operators& o, Grown& d, Target& target, std::shared_ptr<Reading> reading) {
  for (std::uint64_t at = d.made; at < d.asked && o.failure_.empty(); at += kBlockBytes) {
    auto b = std::find_if(d.blocks.begin(), d.blocks.end(), [at](const Block& block) { return block.at == at; });
    std::vector<std::uint8_t> may_be = b == d.blocks.end() ? std::vector<std::uint8_t>{0} : b->may_be;
    Buffer into = Buffer::allocate(kBlockBytes);
    Status s = co_await target.read(at, into.mutable_bytes());
    if (s.code() == Code::closed_session) reading->cut_off = true;
    if (reading->cut_off) break;
    std::string where = d.tenant->name + " at " + std::to_string(at) + ", where it has grown: ";
    if (!s.ok() && o.errors_) o.fail("a read of " + where + s.to_string());
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(into.data());
    bool known = std::find(may_be.begin(), may_be.end(), bytes[0]) != may_be.end() && std::all_of(bytes, bytes + into.size(), [&](std::uint8_t x) { return x == bytes[0]; });
    if (s.ok() && !known) o.fail(where + "neither what was acknowledged last nor a write since then");
    if (s.ok() && b != d.blocks.end()) b->may_be = {bytes[0]};  // and so it stays
  }
  --reading->left;
}

std::string Operators::summary() const {
  return resizes_ + moves_ == 0 ? "" : "; operators: " + std::to_string(resizes_) + " resize, " + std::to_string(moves_) + " move";
}

}  // namespace luge::sim
