#include "control/volumes.hpp"

#include <algorithm>

#include "control/loss.hpp"
#include "switches/paths.hpp"
#include "switches/switches.hpp"

namespace luge::control {
namespace {

constexpr std::uint64_t kMaxVolumeBytes = 1ull << 50;
constexpr std::uint32_t kMaxVps = 1 << 16;
constexpr std::uint32_t kMaxCopies = 8;
// Counts the primary (protocol 3.3). With fewer, what is acknowledged would be on one head only; so a volume of two copies
// waits while one of its heads is away.
constexpr std::uint32_t kMinCopies = 2;
constexpr std::uint32_t kMaxSandboxRequest = 4096;
constexpr io::Duration kFreshReport = std::chrono::seconds(1);
constexpr io::Duration kDropTimeout = std::chrono::seconds(10);
constexpr io::Duration kExportTimeout = std::chrono::seconds(30);
constexpr io::Duration kUnexportTimeout = std::chrono::seconds(30);
constexpr io::Duration kGrowTime = std::chrono::seconds(20);

std::string text(const flatbuffers::String* s) { return s ? s->str() : std::string(); }

template <class Reply>
wire::Frame refusal(wire::Kind kind, const Status& s) {
  return wire::make_frame(kind, [&](flatbuffers::FlatBufferBuilder& b) {
    auto message = b.CreateString(s.text());
    typename Reply::Builder reply(b);
    reply.add_code(static_cast<std::uint16_t>(s.code()));
    reply.add_text(message);
    return reply.Finish();
  });
}

Status bad_request(const char* what) { return Status(Code::invalid, std::string("the ") + what + " does not verify"); }

Status check_nbd(const std::string& nbd) {
  constexpr std::size_t kMaxUnixPath = 107;
  if (nbd.find_first_of(std::string("\n\r\0", 3)) != std::string::npos)
    return Status(Code::invalid, "the NBD address has control characters");
  constexpr std::string_view kVhostUser = "vhost-user:", kRecorder = ".recorder";  // beside the disk's socket
  if (nbd.starts_with(kVhostUser)) {
    if (nbd.size() < 13 || nbd[kVhostUser.size()] != '/') return Status(Code::invalid, "vhost-user: wants an absolute path");
    if (nbd.size() - kVhostUser.size() + kRecorder.size() > kMaxUnixPath) return Status(Code::invalid, "a vhost-user socket's path has at most 98 characters");
    return Status();
  }
  if (nbd.starts_with("unix:")) {
    if (nbd.size() < 7 || nbd[5] != '/') return Status(Code::invalid, "NBD address: unix: wants an absolute path");
    if (nbd.size() - 5 > kMaxUnixPath) return Status(Code::invalid, "NBD address: a socket's path has at most 107 characters");
    return Status();
  }
  if ((nbd.starts_with("tcp:") || nbd.starts_with("tls:")) && nbd.find(':', 4) != std::string::npos && nbd.size() < 300) return Status();
  return Status(Code::invalid, "NBD address '" + nbd.substr(0, 80) + "': give unix:PATH, tcp:HOST:PORT, tls:HOST:PORT or vhost-user:PATH");
}

}  // namespace

Volumes::Volumes(io::World& world, Store& store, Registry& registry, Events& events, Options options)
    : world_(world), store_(store), registry_(registry), events_(events), options_(options), removal_(world) {}

// Known at the start: a copy of the database alone, found by its mark.
void Volumes::start() {
  if (!store_.image().doubted.empty())
    events_.note("the store was restored from an older copy: nothing is proposed for " + std::to_string(store_.image().doubted.size()) +
                 " VPs before all their heads have said what they know");
  world_.spawn("volume removal", removals());
}

void Volumes::stop() {
  running_ = false;
  removal_.notify_all();
}

std::uint64_t Volumes::usable_bytes(Layout layout) const {
  std::uint64_t raw = 0;
  for (const Node* s : registry_.alive("sled"))
    for (const DeviceInfo& d : s->devices)
      if (d.ok()) raw += d.bytes;
  return static_cast<std::uint64_t>(static_cast<unsigned __int128>(raw) * layout.k / layout.width());
}

Status Volumes::check_size(std::uint64_t bytes) const {
  if (bytes == 0) return Status(Code::invalid, "the size is 0: give at least 4096 bytes");
  if (bytes % kBlockBytes != 0)
    return Status(Code::invalid, "the size, " + std::to_string(bytes) + " bytes, is not a multiple of 4096");
  if (bytes > kMaxVolumeBytes || (bytes - 1) / options_.vp_bytes >= kMaxVps)
    return Status(Code::invalid, "the size, " + std::to_string(bytes) + " bytes, is beyond what a volume may have");
  return Status();
}

Status Volumes::check_room(std::uint64_t bytes, Layout layout) const {
  if (std::uint64_t fits = usable_bytes(layout); bytes > fits)
    return Status(Code::invalid, "the size, " + std::to_string(bytes) + " bytes, is larger than the unit: layout " + to_string(layout) + " has room for " + std::to_string(fits) + " bytes");
  return Status();
}

Status Volumes::check(const Create& r) const {
  if (Status s = check_name(r.name); !s.ok()) return s.with("volume");
  if (Status s = check_size(r.bytes); !s.ok()) return s;
  if (r.layout.k < 1 || r.layout.k > 16 || r.layout.m < 1 || r.layout.m > 4)
    return Status(Code::invalid, "layout " + to_string(r.layout) + ": k is 1 to 16, m is 1 to 4");
  if (r.copies < kMinCopies || r.copies > kMaxCopies)
    return Status(Code::invalid, "copies is " + std::to_string(r.copies) + ": give 2 to 8");
  if (store_.image().find_volume(r.name))
    return Status(Code::exists, "there is a volume " + r.name + " already");
  std::size_t sleds = registry_.alive("sled").size(), heads = registry_.alive("head").size();
  if (sleds < r.layout.width())
    return Status(Code::degraded, "layout " + to_string(r.layout) + " needs " + std::to_string(r.layout.width()) +
                                      " sleds, " + std::to_string(sleds) + " are up: start more, or choose a narrower layout");
  if (heads < r.copies)
    return Status(Code::degraded, std::to_string(r.copies) + " copies need " + std::to_string(r.copies) +
                                      " heads, " + std::to_string(heads) + " are up: start more, or choose fewer copies");
  return check_room(r.bytes, r.layout);
}

// Designations and columns of the partitions from `first` on.
void Volumes::place(const Volume& v, std::uint32_t first, Change& c) {
  auto sleds = registry_.alive("sled");
  auto heads = registry_.alive("head");
  auto placed = store_.image().designations;
  Sandboxes more;
  for (std::uint32_t i = first; i < v.vps(); ++i) {
    Designation d;
    d.vp = make_vp(v.id, i);
    d.epoch = d.revision = 1;
    d.history = world_.random() | 1;
    d.layout = v.layout;
    d.min_copies = std::min(kMinCopies, v.copies);
    d.blocks = v.blocks_of(i);
    d.required = place_replicas(placed, heads, v.copies);
    d.primary = d.required.front();
    d.reserves.assign(d.required.begin() + 1, d.required.end());
    placed[d.vp] = d;
    c.swaps.push_back({d.vp, 0});
    auto columns = recommend_columns(store_.image().sandboxes, more, sleds, d.vp, initial_columns(d.blocks * kBlockBytes, v.layout, sleds));
    for (const SandboxRow& r : columns) more.insert(r);
    c.sandboxes.insert(c.sandboxes.end(), columns.begin(), columns.end());
    c.designations.push_back(std::move(d));
  }
}

Result<Volume> Volumes::create(const Create& request) {
  Create r = request;
  if (r.copies == 0) r.copies = options_.copies;
  if (Status s = check(r); !s.ok()) return s;
  auto id = store_.take_volume_id();
  if (!id.ok()) return id.status();
  Volume v{*id, r.name, r.bytes, options_.vp_bytes, r.layout, r.copies, false};
  Change c;
  c.volumes.push_back(v);
  c.attachments.push_back({v.id, 0, 0});
  place(v, 0, c);
  if (Status s = store_.commit(c); !s.ok()) return s;
  events_.note("volume " + v.name + " created, primary " + registry_.name(c.designations.front().primary));
  for (const Designation& d : c.designations) push(d.vp);
  return v;
}

// What is written beyond the old end must find a primary that knows the new one: the front end is told last.
io::Task<Result<Volume>> Volumes::resize(std::string name, std::uint64_t bytes) {
  const Volume* v = store_.image().find_volume(name);
  if (v == nullptr) co_return Status(Code::not_found, "there is no volume " + name);
  // Partitions that this store does not know may be there already, with data in them.
  if (store_.image().lost) co_return Status(Code::degraded, "the store is not the one that the unit had: `luge control rebuild` first");
  if (bytes < v->bytes)
    co_return Status(Code::invalid, "volume " + name + " has " + std::to_string(v->bytes) + " bytes: it can only be made larger");
  if (Status s = check_size(bytes); !s.ok()) co_return s;
  if (Status s = check_room(bytes, v->layout); !s.ok()) co_return s;
  Volume grown = *v;
  grown.bytes = bytes;
  Change c;
  c.volumes.push_back(grown);
  if (store_.image().older && grown.vps() > v->vps() && !broken(Switch::older_store_makes_partitions))
    co_return Status(Code::degraded, "the store is an older copy: it may not know of partitions that " + name + " has got since. Start all heads, then `luge control rebuild`");
  if (registry_.alive("head").size() < grown.copies && grown.vps() > v->vps())
    co_return Status(Code::degraded, "new partitions need " + std::to_string(grown.copies) + " heads that are up");
  place(grown, v->vps(), c);
  if (Status s = store_.commit(c); !s.ok()) co_return s;
  for (const Designation& d : c.designations) push(d.vp);
  io::Time deadline = world_.now() + kGrowTime;
  for (std::uint32_t i = 0; i < grown.vps(); ++i) {
    Status s = co_await grow_vp(make_vp(grown.id, i), grown.blocks_of(i), deadline);
    if (!s.ok()) co_return s.with("volume " + name + " is not served at its new size yet, ask again");
  }
  events_.note("volume " + name + " has grown to " + std::to_string(bytes) + " bytes");
  auto e = store_.image().exports.find(grown.id);
  if (e == store_.image().exports.end()) co_return grown;
  Status s = co_await ask(e->second.node, wire::make_frame(wire::Kind::resize_export, [&](auto& b) { return fbs::CreateResizeExport(b, b.CreateString(name), bytes); }), std::chrono::seconds(5));
  if (!s.ok()) logging::warn("{} has grown; {} learns of it when it registers: {}", name, registry_.name(e->second.node), s.to_string());
  co_return grown;
}

io::Task<Status> Volumes::grow_vp(VpId vp, std::uint64_t blocks, io::Time deadline) {
  while (true) {
    auto it = store_.image().designations.find(vp);
    if (it == store_.image().designations.end()) co_return Status(Code::not_found, "VP " + std::to_string(vp) + " has been removed");
    if (it->second.blocks >= blocks) co_return Status();
    NodeId primary = it->second.primary;
    Status s = co_await ask(primary, wire::make_frame(wire::Kind::grow_vp, [&](auto& b) { return fbs::CreateGrowVp(b, vp, blocks); }), std::chrono::seconds(6));
    it = store_.image().designations.find(vp);
    if (s.ok() && it != store_.image().designations.end() && it->second.blocks >= blocks) co_return s;
    if (world_.now() >= deadline) co_return (s.ok() ? Status(Code::timed_out, "the store has not heard of it") : s).with(registry_.name(primary));
    co_await world_.sleep(std::chrono::milliseconds(200));  // it may be about to move
  }
}

bool Volumes::has_copy(VpId vp, NodeId n) const {
  auto it = store_.image().designations.find(vp);
  return it != store_.image().designations.end() && it->second.has_member(n);
}

io::Task<Result<std::uint32_t>> Volumes::move(std::string name, std::string from, std::string to, bool wait, io::Duration timeout) {
  const Volume* found = store_.image().find_volume(name);
  if (found == nullptr) co_return Status(Code::not_found, "there is no volume " + name);
  const Node* source = registry_.find_name(from);
  if (source == nullptr || !source->is("head")) co_return Status(Code::not_found, "there is no head " + from);
  const Node* target = to.empty() ? nullptr : registry_.find_name(to);
  if (!to.empty() && (target == nullptr || !target->is("head"))) co_return Status(Code::not_found, "there is no head " + to);
  NodeId source_id = source->row.id, target_id = target ? target->row.id : 0;
  VolumeId id = found->id;
  auto partitions = [&] {  // it may grow meanwhile
    auto it = store_.image().volumes.find(id);
    return it == store_.image().volumes.end() ? 0 : it->second.vps();
  };
  io::Time deadline = world_.now() + timeout;
  std::map<VpId, std::vector<NodeId>> moved;  // and who was a member before
  for (std::uint32_t i = 0; i < partitions(); ++i) {
    VpId vp = make_vp(id, i);
    if (!has_copy(vp, source_id)) continue;
    std::vector<NodeId> before = store_.image().designations.at(vp).members();
    Status s = co_await move_vp(vp, source_id, target_id, deadline);
    if (!s.ok()) co_return s.with(from + (s.code() == Code::timed_out ? " may keep" : " keeps") + " its copy of partition " + std::to_string(i) + " of " + name);
    events_.note("VP " + std::to_string(vp) + ": another head takes the place of " + from + ", as an operator wants it");
    moved.emplace(vp, std::move(before));
  }
  if (moved.empty()) co_return Status(Code::conflict, from + " has no copy of volume " + name);
  auto whole = [&](const auto& entry) {
    auto it = store_.image().designations.find(entry.first);
    if (it == store_.image().designations.end()) return true;
    for (NodeId n : it->second.members())
      if (std::find(entry.second.begin(), entry.second.end(), n) == entry.second.end() && !it->second.requires_node(n)) return false;
    return true;
  };
  while (wait && !std::all_of(moved.begin(), moved.end(), whole)) {
    if (world_.now() >= deadline) co_return Status(Code::timed_out, from + " has no copy of " + name + " any more, but the new one has not caught up yet");
    co_await world_.sleep(std::chrono::milliseconds(50));
  }
  co_return static_cast<std::uint32_t>(moved.size());
}

// A primary that has moved, or moves because it is itself the one to go, is what asking again is for.
io::Task<Status> Volumes::move_vp(VpId vp, NodeId from, NodeId to, io::Time deadline) {
  while (has_copy(vp, from)) {
    NodeId primary = store_.image().designations.at(vp).primary;
    Status s = co_await ask(primary, wire::make_frame(wire::Kind::move_vp, [&](auto& b) { return fbs::CreateMoveVp(b, vp, from, to); }), deadline - world_.now());
    if (!has_copy(vp, from) || broken(Switch::moves_unconfirmed)) break;
    bool again = s.ok() || s.code() == Code::unavailable || s.code() == Code::fenced;
    if (!again) co_return s;
    if (world_.now() >= deadline) co_return Status(Code::timed_out, registry_.name(primary) + ": " + (s.ok() ? "the store does not know of it yet" : s.text()));
    co_await world_.sleep(std::chrono::milliseconds(100));
  }
  co_return Status();
}

wire::Frame Volumes::designate(const Designation& d) const {
  return wire::make_frame(wire::Kind::designate, [&](flatbuffers::FlatBufferBuilder& b) {
    std::vector<fbs::SandboxColumn> columns;
    if (!broken(Switch::sandbox_not_sent))
      for (const SandboxRow& r : store_.image().sandboxes.of(d.vp)) columns.emplace_back(r.sled, r.column, r.device, 0);
    auto designation = d.to(b);
    return fbs::CreateDesignate(b, designation, b.CreateVectorOfStructs(columns));
  });
}

void Volumes::push(VpId vp) {
  const Designation& d = store_.image().designations.at(vp);
  wire::Frame frame = designate(d);
  for (NodeId n : d.members())
    if (is_told(n, vp)) registry_.send(n, frame);
}

// A head that has not said that it holds a VP that is doubted is not told of its part in it: it would begin it with nothing.
bool Volumes::is_told(NodeId member, VpId vp) const {
  if (!store_.doubted(vp) || broken(Switch::nothing_is_an_answer)) return true;
  auto it = answered_.find(vp);
  return it != answered_.end() && it->second.contains(member);
}

// What a node was told of the store tells an older copy from the one before, if the mark beside the store was set back as well.
void Volumes::look_at_store_of(const Node& node, const fbs::RegisterNode& r) {
  if (r.sequence() <= store_.image().sequence) return;
  if (store_.image().volumes.empty() && store_.image().next_volume == 1) note_lost(node.row.name + " was told of later changes than this store holds, and it is empty");
  else events_.note(node.row.name + " was told of later changes than this store holds: it is an older copy");
  Status s = store_.doubt_everything(world_.random() >> 11 | 1, {r.store(), r.sequence()}, true);
  if (!s.ok()) return logging::error("{}", s.to_string());
  answered_.clear();
  // What the others hold they say when they register again.
  for (const Node* other : registry_.alive("head"))
    if (other->row.id != node.row.id && other->connected()) other->channel->close();
}

void Volumes::note_lost(const std::string& why) {
  if (store_.image().lost) return;
  events_.note(why + ": the store is not the one that the unit had. `luge control rebuild` makes it anew of what heads and sleds hold");
  Change c;
  c.lost = true;
  if (Status s = store_.commit(c); !s.ok()) logging::error("{}", s.to_string());
}

io::Task<Result<Volumes::Rebuilt>> Volumes::rebuild(bool accept_loss, bool other_key) {
  Findings found = co_await gather_findings(world_, registry_);
  std::optional<wire::Verifier> verifier;
  if (store_.signer() && !other_key)
    if (auto v = wire::Verifier::make(store_.signer()->public_key()); v.ok()) verifier = *v;
  Plan plan = plan_rebuild(registry_, store_.image(), found, verifier ? &*verifier : nullptr, accept_loss);
  if (Status s = store_.commit(plan.change); !s.ok()) co_return s;
  Rebuilt out{static_cast<std::uint32_t>(plan.change.volumes.size()), static_cast<std::uint32_t>(plan.change.designations.size()), 0, plan.left};
  for (const auto& [node, held] : found.heads) {
    std::set<VpId> named;
    for (const auto& [vp, what] : held) named.insert(vp);
    if (const Node* n = registry_.find(node)) answered(*n, named, false);
  }
  for (const Designation& d : plan.change.designations) {
    out.doubted += store_.doubted(d.vp);
    push(d.vp);
  }
  for (const Volume& v : plan.change.volumes) events_.note("volume " + v.name + " taken up from what heads hold");
  for (const std::string& why : plan.left) events_.note("rebuild: " + why);
  for (const auto& [id, e] : store_.image().exports) {
    (void)id;
    have_it_ask(e.node);
  }
  co_return out;
}

std::vector<NodeId> Volumes::doubting(VpId vp) const {
  if (!store_.doubted(vp)) return {};
  std::vector<NodeId> missing = store_.image().designations.at(vp).members();
  if (auto it = answered_.find(vp); it != answered_.end()) std::erase_if(missing, [&](NodeId n) { return it->second.contains(n); });
  return missing;
}

// What it holds, and what it has given up, is all that it has ever known since this copy of the store was made.
bool Volumes::forgets_nothing(const Node& node) const {
  auto it = store_.image().recollections.find(node.row.id);
  return it != store_.image().recollections.end() && it->second != 0 && (it->second == node.recollection || broken(Switch::other_disk_believed));
}

// Not while the store may know less than heads do: what a head has forgotten since must not look as if it had never been.
void Volumes::note_recollections() {
  if (!store_.image().doubted.empty() || store_.image().older || store_.image().lost) return;
  Change c;
  for (const Node* n : registry_.alive("head")) {
    auto it = store_.image().recollections.find(n->row.id);
    if (n->heard && (it == store_.image().recollections.end() || it->second != n->recollection)) c.recollections.emplace_back(n->row.id, n->recollection);
  }
  if (c.recollections.empty()) return;
  if (Status s = store_.commit(c); !s.ok()) logging::error("{}", s.to_string());
}

// All that it knows has been adopted, where that could be; all of it if it has registered just now.
void Volumes::answered(const Node& node, const std::set<VpId>& named, bool registers) {
  const std::set<VpId> doubted = store_.image().doubted;
  for (VpId vp : doubted) {
    const Designation& d = store_.image().designations.at(vp);
    if (!d.has_member(node.row.id)) continue;
    // A head that knows nothing of it may have given it up to others since, whom this copy does not know, and have forgotten that. Who was
    // required has known of it; who was to become so may have been switched off before it heard of that.
    const bool never_heard = registers && !d.requires_node(node.row.id) && forgets_nothing(node);
    if (!named.contains(vp) && !never_heard && !broken(Switch::nothing_is_an_answer)) continue;
    // What could not be adopted is not known here, whatever was said.
    if (auto it = unheard_.find({vp, node.row.id}); it != unheard_.end() && it->second.newer_than(store_.image().designations.at(vp))) {
      if (store_.adopt(it->second).ok()) push(vp);
      else if (!broken(Switch::unheard_counts_as_heard)) continue;
    }
    answered_[vp].insert(node.row.id);
    if (!doubting(vp).empty()) continue;
    if (Status s = store_.clear_doubt(vp); !s.ok()) logging::error("{}", s.to_string());
    else events_.note("VP " + std::to_string(vp) + ": all its heads have said what they know; the restored store is trusted"), push(vp);
  }
}

void Volumes::joined(const Node& node, const fbs::RegisterNode& r) {
  look_at_store_of(node, r);
  if (node.is("head")) {
    std::erase_if(unheard_, [&](const auto& u) { return u.first.second == node.row.id; });
    std::set<VpId> named;
    if (r.left())  // what has been settled without it, by a loss that was accepted, stays so
      for (const fbs::Designation* d : *r.left())
        if (store_.doubted(d->vp())) adopt(node, *d);
    if (r.designations())
      for (const fbs::Designation* d : *r.designations()) {
        named.insert(d->vp());
        adopt(node, *d);
      }
    answered(node, named, true);
    note_recollections();
    for (const auto& [vp, d] : store_.image().designations)
      if (d.has_member(node.row.id) && is_told(node.row.id, vp)) registry_.send(node.row.id, designate(d));
    // One that has been replaced while it was away learns it now.
    if (r.designations())
      for (const fbs::Designation* held : *r.designations()) {
        auto it = store_.image().designations.find(held->vp());
        if (it != store_.image().designations.end() && !it->second.has_member(node.row.id)) registry_.send(node.row.id, designate(it->second));
      }
    removal_.notify_all();
  }
}

void Volumes::adopt(const Node& node, const fbs::Designation& found) {
  Designation d = Designation::from(found);
  auto it = store_.image().designations.find(d.vp);
  if (it == store_.image().designations.end()) {
    if (!store_.image().unheard_of(d.vp)) return;
    auto v = store_.image().volumes.find(volume_of(d.vp));
    std::string what = v == store_.image().volumes.end() ? "VP " + std::to_string(d.vp) : "partition " + std::to_string(index_of(d.vp)) + " of volume " + v->second.name;
    note_lost(node.row.name + " holds " + what + ", which this store has never known");
    if (volume_of(d.vp) < store_.image().next_volume) return;
    Change c;  // at least no id may be given out twice
    c.next_volume = volume_of(d.vp) + 1;
    if (Status s = store_.commit(c); !s.ok()) logging::error("{}", s.to_string());
    return;
  }
  if (d.made_anew_beside(it->second))
    events_.note("VP " + std::to_string(d.vp) + " has been made anew while " + node.row.name + " was away: that head keeps what it holds of it, and serves nothing of it");
  if (!d.newer_than(it->second)) return;
  reached(Path::newer_than_store);
  Status s = store_.adopt(d);
  events_.note("VP " + std::to_string(d.vp) + ": " + node.row.name + " knows epoch " + std::to_string(d.epoch) +
               ", revision " + std::to_string(d.revision) + (s.ok() ? "; adopted" : "; not adopted: " + s.text()));
  if (s.ok()) push(d.vp);
  else unheard_[{d.vp, node.row.id}] = d;
}

wire::Frame Volumes::propose(const Node& from, const wire::Frame& request) {
  const auto* r = request.as<fbs::Propose>();
  if (r == nullptr || r->designation() == nullptr)
    return refusal<fbs::ProposeReply>(wire::Kind::propose_reply, bad_request("proposal"));
  Designation d = Designation::from(*r->designation());
  auto stored = store_.image().designations.find(d.vp);
  for (NodeId n : d.members()) {
    // A member that a store which was made anew has never seen is a member all the same.
    if (stored != store_.image().designations.end() && stored->second.has_member(n)) continue;
    const Node* member = registry_.find(n);
    if (member == nullptr || !member->is("head"))
      return refusal<fbs::ProposeReply>(wire::Kind::propose_reply,
                                        Status(Code::invalid, registry_.name(n) + " is no head of this unit"));
  }
  auto before = store_.image().designations.find(d.vp);
  NodeId old_primary = before == store_.image().designations.end() ? 0 : before->second.primary;
  std::vector<NodeId> old_members = before == store_.image().designations.end() ? d.members() : before->second.members();
  SwapAnswer answer = store_.propose(from.row.id, r->expected(), d);
  if (answer.status.ok()) {
    std::string what = "VP " + std::to_string(d.vp) + ": epoch " + std::to_string(d.epoch) + ", revision " +
                       std::to_string(d.revision) + ", primary " + registry_.name(d.primary);
    if (old_primary != d.primary) what += " after " + registry_.name(old_primary);
    what += ", required";
    for (NodeId n : d.required) what += " " + registry_.name(n);
    for (NodeId n : d.members())
      if (std::find(old_members.begin(), old_members.end(), n) == old_members.end()) what += "; " + registry_.name(n) + " takes the place of another reserve";
    events_.note(what);
  } else {
    logging::warn("proposal of {}: {}", from.row.name, answer.status.to_string());
  }
  auto frame = wire::make_frame(wire::Kind::propose_reply, [&](flatbuffers::FlatBufferBuilder& b) {
    auto message = b.CreateString(answer.status.text());
    flatbuffers::Offset<fbs::Designation> current;
    if (answer.current) current = answer.current->to(b);
    return fbs::CreateProposeReply(b, static_cast<std::uint16_t>(answer.status.code()), message, current);
  });
  if (answer.status.ok()) {
    push(d.vp);
    for (NodeId n : old_members)
      if (!d.has_member(n)) registry_.send(n, designate(d));
  }
  return frame;
}

wire::Frame Volumes::get_sandbox(const Node& from, const wire::Frame& request) {
  const auto* r = request.as<fbs::GetSandbox>();
  Status status = r ? Status() : bad_request("request for columns");
  VpId vp = r ? r->vp() : 0;
  auto it = store_.image().designations.find(vp);
  if (status.ok() && (it == store_.image().designations.end() || !it->second.has_member(from.row.id)))
    status = Status(Code::not_found, from.row.name + " takes no part in VP " + std::to_string(vp));
  if (!status.ok()) return refusal<fbs::Sandbox>(wire::Kind::sandbox, status);

  std::uint32_t wanted = std::clamp<std::uint32_t>(r->columns(), 1, kMaxSandboxRequest);
  Change c;
  c.sandboxes = recommend_columns(store_.image().sandboxes, {}, registry_.alive("sled"), vp, wanted);
  if (c.sandboxes.empty())
    status = Status(Code::no_space, "every column of every sled that is up has been recommended to VP " +
                                        std::to_string(vp) + " already: add sleds or devices");
  else
    status = store_.commit(c);
  if (!status.ok()) return refusal<fbs::Sandbox>(wire::Kind::sandbox, status);
  return wire::make_frame(wire::Kind::sandbox, [&](flatbuffers::FlatBufferBuilder& b) {
    std::vector<fbs::SandboxColumn> columns;
    for (const SandboxRow& s : c.sandboxes) columns.emplace_back(s.sled, s.column, s.device, 0);
    return fbs::CreateSandbox(b, 0, 0, b.CreateVectorOfStructs(columns));
  });
}

flatbuffers::Offset<fbs::VpView> Volumes::view(flatbuffers::FlatBufferBuilder& b, VpId vp) const {
  const Designation& d = store_.image().designations.at(vp);
  const Node* primary = registry_.find(d.primary);
  auto designation = d.to(b);
  auto address = b.CreateString(primary ? primary->row.address : std::string());
  return fbs::CreateVpView(b, 0, 0, designation, address);
}

bool Volumes::gone(VolumeId id) const {
  auto it = store_.image().volumes.find(id);
  return it == store_.image().volumes.end() || it->second.removing;
}

wire::Frame Volumes::lookup_vp(const Node& from, const wire::Frame& request) {
  const auto* r = request.as<fbs::LookupVp>();
  if (r == nullptr) return refusal<fbs::VpView>(wire::Kind::vp_view, bad_request("look-up"));
  // Whoever hears not_found forgets what it has of it.
  if (store_.image().unheard_of(r->vp()))
    return refusal<fbs::VpView>(wire::Kind::vp_view, Status(Code::unavailable, "this store has not heard of VP " + std::to_string(r->vp()) + ": the one that had was lost"));
  if (gone(volume_of(r->vp())) || !store_.image().designations.contains(r->vp()))
    return refusal<fbs::VpView>(wire::Kind::vp_view,
                                Status(Code::not_found, "no VP " + std::to_string(r->vp()) + " in this unit"));
  return wire::make_frame(wire::Kind::vp_view, [&](flatbuffers::FlatBufferBuilder& b) { return view(b, r->vp()); });
}

// Whom its export names, or whom an operator has export it just now. A daemon that was shut out and has not heard of it asks all the same, for
// a guest that waits: it would get the volume when the guest that has it stops.
Status Volumes::may_attach(const Volume& v, NodeId asker) const {
  NodeId named = 0;
  if (auto e = store_.image().exports.find(v.id); e != store_.image().exports.end()) named = e->second.node;
  if (auto next = store_.image().incoming.find(v.id); next != store_.image().incoming.end() && next->second.node == asker) named = asker;
  if (auto a = arriving_.find(v.id); a != arriving_.end()) named = a->second;
  if (named == 0 || named == asker || broken(Switch::taken_over_disk_returns)) return Status();
  return Status(Code::exists, "volume " + v.name + " is exported by " + registry_.name(named) + ", and not by " + registry_.name(asker) + " any more");
}

// Up to the first partition that has not grown yet. A front end that offered more would give errors beyond.
std::uint64_t Volumes::served_bytes(const Volume& v) const {
  if (broken(Switch::grown_size_told_early)) return v.bytes;
  for (std::uint32_t i = 0; i < v.vps(); ++i) {
    auto d = store_.image().designations.find(make_vp(v.id, i));
    std::uint64_t blocks = d == store_.image().designations.end() ? 0 : d->second.blocks;
    if (blocks < v.blocks_of(i)) return i * v.vp_bytes + blocks * kBlockBytes;
  }
  return v.bytes;
}

wire::Frame Volumes::attach_volume(const Node& from, const wire::Frame& request) {
  auto refuse = [](Status s) { return refusal<fbs::VolumeView>(wire::Kind::volume_view, s); };
  const auto* r = request.as<fbs::AttachVolume>();
  if (r == nullptr) return refuse(bad_request("attachment"));
  if (r->holder() != 0 && r->holder() != from.row.id)
    return refuse(Status(Code::invalid, from.row.name + " cannot attach in another node's name"));
  std::string name = text(r->name());
  const Volume* v = store_.image().find_volume(name);
  if (v == nullptr) return refuse(Status(Code::not_found, "there is no volume " + name));
  Attachment a = store_.image().attachments.at(v->id);
  if (Status s = may_attach(*v, from.row.id); !s.ok()) return refuse(s);
  if (a.holder != 0 && a.holder != from.row.id && !r->take_over())
    return refuse(Status(Code::exists, "volume " + name + " is attached by " + registry_.name(a.holder) +
                                           ": detach it there, or take it over"));
  if (a.holder != from.row.id) events_.note("volume " + name + " attached by " + from.row.name);
  a.incarnation = store_.next_incarnation(a, world_.random());
  a.holder = from.row.id;
  Change c;
  c.attachments.push_back(a);
  // A guest's disk runs where it was to be moved to: from now on that is its export.
  std::optional<Export> moved;
  if (auto next = store_.image().incoming.find(v->id); next != store_.image().incoming.end() && next->second.node == from.row.id) {
    c.exports.push_back(next->second);
    c.erase_incoming.push_back(v->id);
    if (auto old = store_.image().exports.find(v->id); old != store_.image().exports.end()) moved = old->second;
  }
  Volume served = *v;
  served.bytes = served_bytes(*v);
  if (Status s = store_.commit(c); !s.ok()) return refuse(s);
  if (moved) world_.spawn("moved export", end_moved(name, *moved, from.row.name));
  return wire::make_frame(wire::Kind::volume_view, [&](flatbuffers::FlatBufferBuilder& b) {
    auto volume_name = b.CreateString(v->name);
    std::vector<flatbuffers::Offset<fbs::VpView>> vps;
    for (std::uint32_t i = 0; i < served.vps(); ++i) vps.push_back(view(b, make_vp(v->id, i)));
    auto vector = b.CreateVector(vps);
    // One writer attachment a volume: the volume's id names it.
    return fbs::CreateVolumeView(b, 0, 0, volume_name, v->id, served.bytes, v->vp_bytes,
                                 static_cast<std::uint16_t>(v->layout.k), static_cast<std::uint16_t>(v->layout.m), v->id,
                                 a.incarnation, vector);
  });
}

wire::Frame Volumes::detach_volume(const Node& from, const wire::Frame& request) {
  const auto* r = request.as<fbs::DetachVolume>();
  if (r == nullptr) return wire::reply_frame(bad_request("detachment"));
  auto it = store_.image().attachments.find(r->volume());
  if (it == store_.image().attachments.end())
    return wire::reply_frame(Status(Code::not_found, "no volume " + std::to_string(r->volume())));
  Attachment a = it->second;
  if (a.holder != from.row.id || a.incarnation != r->incarnation())
    return wire::reply_frame(Status(Code::closed_session, "the volume has been attached anew since"));
  a.holder = 0;
  Change c;
  c.attachments.push_back(a);
  return wire::reply_frame(store_.commit(c));
}

wire::Frame Volumes::list_exports(const Node& from) const {
  // What is not in the list is detached.
  if (store_.image().lost) return refusal<fbs::Exports>(wire::Kind::exports, Status(Code::unavailable, "the store was lost: luge control rebuild"));
  return wire::make_frame(wire::Kind::exports, [&](flatbuffers::FlatBufferBuilder& b) {
    std::vector<flatbuffers::Offset<fbs::ExportVolume>> rows;
    for (const auto* all : {&store_.image().exports, &store_.image().incoming})
      for (const auto& [id, e] : *all) {
        if (e.node != from.row.id || gone(id)) continue;
        auto taker = arriving_.find(id);
        if (taker != arriving_.end() && taker->second != e.node && !broken(Switch::taken_over_disk_returns)) continue;
        const Volume& v = store_.image().volumes.at(id);
        auto name = b.CreateString(v.name), nbd = b.CreateString(e.nbd);
        rows.push_back(fbs::CreateExportVolume(b, name, nbd, false, e.read_only, served_bytes(v)));
      }
    return fbs::CreateExports(b, 0, 0, b.CreateVector(rows));
  });
}

io::Task<Status> Volumes::ask(NodeId node, wire::Frame request, io::Duration timeout) {
  auto answer = co_await registry_.call(node, std::move(request), timeout);
  co_return answer.ok() ? wire::status_of(*answer) : answer.status();
}

io::Task<Result<std::string>> Volumes::attach(Attach request) {
  if (Status s = check_nbd(request.nbd); !s.ok()) co_return s;
  const Volume* v = store_.image().find_volume(request.name);
  if (v == nullptr) co_return Status(Code::not_found, "there is no volume " + request.name);
  const VolumeId id = v->id;
  auto daemons = registry_.alive("attach");
  if (!request.node.empty()) std::erase_if(daemons, [&](const Node* n) { return n->row.name != request.node; });
  if (daemons.empty())
    co_return Status(Code::unavailable, request.node.empty() ? "no attach daemon is up: start one"
                                                             : "no attach daemon " + request.node + " is up");
  // The least busy one.
  auto load = [&](const Node* n) {
    std::size_t exports = 0;
    for (const auto& [volume, e] : store_.image().exports) exports += e.node == n->row.id;
    return std::pair(exports, n->row.id);
  };
  const Node* target = *std::min_element(daemons.begin(), daemons.end(),
                                         [&](const Node* a, const Node* b) { return load(a) < load(b); });
  if (auto other = arriving_.find(id); other != arriving_.end())
    co_return Status(Code::conflict, "volume " + request.name + " is just being attached by " + registry_.name(other->second) + ": ask again");
  auto old = store_.image().exports.find(id);
  const bool exported = old != store_.image().exports.end();
  if (request.incoming && !exported) co_return Status(Code::invalid, "volume " + request.name + " is no guest's disk: there is nothing to move");
  if (request.incoming) co_return co_await attach_incoming(std::move(request), old->second, *target);
  if (exported && !request.take_over)
    co_return Status(Code::exists, "volume " + request.name + " is attached by " + registry_.name(old->second.node) + " at " +
                                       old->second.nbd + ": detach it first, or use --take-over");
  const NodeId node = target->row.id;
  arriving_[id] = node;
  auto answer = co_await attach_at(std::move(request), id, node);
  arriving_.erase(id);
  co_return answer;
}

io::Task<Result<std::string>> Volumes::attach_at(Attach request, VolumeId id, NodeId node) {
  const std::string node_name = registry_.name(node);
  const std::vector<NodeId> unheard = co_await shut_out(request.name, id);
  auto volume = store_.image().volumes.find(id);
  if (volume == store_.image().volumes.end()) co_return Status(Code::not_found, "the volume was removed meanwhile");
  Status s = co_await ask(node, export_volume(request, served_bytes(volume->second)), kExportTimeout);
  if (!s.ok()) co_return s;
  if (gone(id)) co_return Status(Code::not_found, "the volume was removed meanwhile");
  Change c;
  c.erase_incoming.push_back(id);
  c.exports.push_back({id, node, request.nbd, request.read_only});
  if (Status stored = store_.commit(c); !stored.ok()) co_return stored;
  for (NodeId n : unheard)
    if (n != node && !broken(Switch::taken_over_disk_returns)) have_it_ask(n);
  events_.note("volume " + request.name + " exported by " + node_name + " at " + request.nbd);
  co_return node_name;
}

// An attach daemon asks what it is to export when it registers again.
void Volumes::have_it_ask(NodeId daemon) {
  if (const Node* n = registry_.find(daemon); n && n->connected()) n->channel->close();
}

// Best effort: the new attachment's higher incarnation shuts the old one out wherever it is. Those that have not answered.
io::Task<std::vector<NodeId>> Volumes::shut_out(std::string name, VolumeId id) {
  std::vector<NodeId> ends, unheard;
  for (const auto* all : {&store_.image().exports, &store_.image().incoming})
    if (auto e = all->find(id); e != all->end()) ends.push_back(e->second.node);
  for (NodeId n : ends) {
    Status s = co_await unexport(n, name, std::chrono::seconds(2));
    if (s.ok() || s.code() == Code::not_found) continue;
    logging::warn("taking {} over: {}", name, s.to_string());
    unheard.push_back(n);
  }
  co_return unheard;
}

wire::Frame Volumes::export_volume(const Attach& request, std::uint64_t bytes) {
  return wire::make_frame(wire::Kind::export_volume, [&](auto& b) {
    auto name = b.CreateString(request.name), nbd = b.CreateString(request.nbd);
    return fbs::CreateExportVolume(b, name, nbd, request.take_over, request.read_only, bytes);
  });
}

io::Task<Status> Volumes::unexport(NodeId node, std::string name, io::Duration timeout) {
  co_return co_await ask(node, wire::make_frame(wire::Kind::unexport_volume, [&](auto& b) { return fbs::CreateUnexportVolume(b, b.CreateString(name)); }), timeout);
}

// The second end of a guest's disk, for its live migration. It gets the volume when the first has given it back (or is taken over).
io::Task<Result<std::string>> Volumes::attach_incoming(Attach request, Export from, const Node& to) {
  constexpr std::string_view kVhostUser = "vhost-user:";
  const NodeId node = to.row.id;
  const std::string node_name = to.row.name;
  if (!from.nbd.starts_with(kVhostUser) || !request.nbd.starts_with(kVhostUser))
    co_return Status(Code::invalid, "only a guest's disk (vhost-user) can be moved while it is used");
  if (node == from.node) co_return Status(Code::invalid, "the guest's disk is at " + node_name + " now: name another attach daemon with --node");
  if (auto next = store_.image().incoming.find(from.volume); next != store_.image().incoming.end())
    co_return Status(Code::exists, "volume " + request.name + " is being moved to " + registry_.name(next->second.node) + " at " + next->second.nbd);
  Change c;
  c.incoming.push_back({from.volume, node, request.nbd, request.read_only});
  if (Status s = store_.commit(c); !s.ok()) co_return s;
  Status s = co_await ask(node, export_volume(request, served_bytes(store_.image().volumes.at(from.volume))), kExportTimeout);
  if (s.ok()) {
    events_.note("volume " + request.name + " may move to " + node_name + " at " + request.nbd);
    co_return node_name;
  }
  Change undo;
  undo.erase_incoming.push_back(from.volume);
  if (Status u = store_.commit(undo); !u.ok()) logging::warn("{}", u.to_string());
  co_return s;
}

io::Task<void> Volumes::end_moved(std::string name, Export old, std::string to) {
  events_.note("volume " + name + " has moved from " + registry_.name(old.node) + " to " + to);
  Status s = co_await unexport(old.node, name, std::chrono::seconds(10));
  if (!s.ok()) logging::warn("ending the export of {} that has moved: {}", name, s.to_string());  // it asks when it is back
}

io::Task<Status> Volumes::detach(std::string name) {
  const Volume* v = store_.image().find_volume(name);
  if (v == nullptr) co_return Status(Code::not_found, "there is no volume " + name);
  VolumeId id = v->id;
  auto it = store_.image().exports.find(id);
  const Attachment held = store_.image().attachments.at(id);
  NodeId node = it != store_.image().exports.end() ? it->second.node : held.holder;
  if (node == 0) co_return Status(Code::not_found, "volume " + name + " is not attached");
  if (auto next = store_.image().incoming.find(id); next != store_.image().incoming.end()) {
    Status s = co_await unexport(next->second.node, name, kUnexportTimeout);
    if (!s.ok()) logging::warn("detaching {} where it was to be moved to: {}", name, s.to_string());
  }
  Status s = co_await unexport(node, name, kUnexportTimeout);
  // A daemon that is not there exports nothing: it will not be asked to when it is back.
  bool away = s.code() == Code::unavailable && !(registry_.find(node) && registry_.find(node)->connected());
  if (!s.ok() && s.code() != Code::not_found && !away) co_return s;
  if (gone(id)) co_return Status();
  if (auto now = store_.image().exports.find(id); now != store_.image().exports.end() && now->second.node != node)
    co_return Status(Code::conflict, "volume " + name + " has been taken over by " + registry_.name(now->second.node) + " meanwhile");
  Change c;
  c.erase_exports.push_back(id);
  Attachment a = store_.image().attachments.at(id);
  if (a.holder == node) {
    a.holder = 0;
    c.attachments.push_back(a);
  }
  if (Status stored = store_.commit(c); !stored.ok()) co_return stored;
  events_.note("volume " + name + " detached from " + registry_.name(node));
  co_return Status();
}

io::Task<Result<std::uint64_t>> Volumes::flush(std::string name, io::Duration timeout) {
  const Volume* v = store_.image().find_volume(name);
  if (v == nullptr) co_return Status(Code::not_found, "there is no volume " + name);
  io::Time deadline = world_.now() + timeout;
  VolumeId id = v->id;
  std::vector<Result<std::uint64_t>> left(v->vps(), Status(Code::unavailable, "not asked"));
  io::TaskGroup group(world_);
  for (std::size_t i = 0; i < left.size(); ++i)
    group.spawn("flush", flush_vp(make_vp(id, static_cast<std::uint32_t>(i)), deadline, &left[i]));
  co_await group.join();
  std::uint64_t sum = 0;
  for (const auto& l : left) {
    if (!l.ok()) co_return l.status();
    sum += *l;
  }
  co_return sum;
}

io::Task<void> Volumes::fresh_reports() {
  io::TaskGroup group(world_);
  for (const Node* n : registry_.alive("head")) group.spawn("ping", registry_.ping(n->row.id, kFreshReport));
  co_await group.join();
}

Result<std::uint32_t> Volumes::accept_loss(const std::string& name, const std::string& head, bool force) {
  const Volume* v = store_.image().find_volume(name);
  if (v == nullptr) return Status(Code::not_found, "there is no volume " + name);
  const Node* node = registry_.find_name(head);
  if (node == nullptr || !node->is("head")) return Status(Code::not_found, "there is no head " + head);
  Reports reports(world_, registry_);
  Change c;
  std::string served;
  for (std::uint32_t i = 0; i < v->vps(); ++i) {
    const Designation& d = store_.image().designations.at(make_vp(v->id, i));
    auto members = reach_of(registry_, reports, d);
    auto serving = std::find_if(members.begin(), members.end(), [](const Reach& m) { return m.serving; });
    if (serving != members.end() && !(force && serving->state == "opening")) {
      served = registry_.name(serving->node) + " serves it (" + serving->state + (serving->reason.empty() ? "" : ": " + serving->reason) + ")";
      continue;
    }
    if (Status s = check_loss(registry_, d, members, node->row.id, force || store_.doubted(d.vp)); !s.ok()) return s;
    c.swaps.push_back({d.vp, d.revision});
    c.erase_doubts.push_back(d.vp);
    c.designations.push_back(control::accept_loss(d, node->row.id, world_.random(), world_.random()));
  }
  if (c.designations.empty()) return Status(Code::conflict, "volume " + name + " is not closed: " + served);
  if (Status s = store_.commit(c); !s.ok()) return s;
  for (const Designation& d : c.designations) {
    events_.note("VP " + std::to_string(d.vp) + ": loss accepted, a new history begins with " + head + " in epoch " + std::to_string(d.epoch));
    push(d.vp);
  }
  return static_cast<std::uint32_t>(c.designations.size());
}

io::Task<void> Volumes::flush_vp(VpId vp, io::Time deadline, Result<std::uint64_t>* out) {
  io::Duration pause = std::chrono::milliseconds(20);
  while (true) {
    auto it = store_.image().designations.find(vp);
    if (it == store_.image().designations.end()) {
      *out = Status(Code::not_found, "VP " + std::to_string(vp) + " has been removed");
      co_return;
    }
    NodeId primary = it->second.primary;
    auto request = wire::make_frame(wire::Kind::flush_vp, [&](auto& b) { return fbs::CreateFlushVp(b, vp); });
    auto answer = co_await registry_.call(primary, std::move(request), deadline - world_.now());
    Status s = answer.status();
    if (answer.ok()) {
      const auto* r = answer->kind == wire::Kind::flush_reply ? answer->as<fbs::FlushReply>() : nullptr;
      s = r ? wire::make_status(r->code(), r->text()) : wire::status_of(*answer);
      if (s.ok() && r == nullptr) s = Status(Code::corrupt, "unexpected answer to a flush");
      if (s.ok()) {
        *out = r->unflushed_bytes();
        // Who asks for the status next is to see what the flush has done, not the report from before it.
        co_await registry_.ping(primary, kFreshReport);
        co_return;
      }
    }
    // A primary that has moved, or is not there yet, is what waiting helps against.
    bool moved = s.code() == Code::unavailable || s.code() == Code::fenced;
    *out = s.with("flush of VP " + std::to_string(vp) + " by " + registry_.name(primary));
    if (!moved || world_.now() + pause >= deadline) co_return;
    co_await world_.sleep(pause);
    pause = std::min<io::Duration>(pause * 2, std::chrono::milliseconds(500));
  }
}

io::Task<Result<bool>> Volumes::remove(std::string name, bool force, io::Duration wait) {
  const Volume* v = store_.image().find_volume(name);
  if (v == nullptr) co_return Status(Code::not_found, "there is no volume " + name);
  Volume removed = *v;
  const Attachment a = store_.image().attachments.at(removed.id);
  auto e = store_.image().exports.find(removed.id);
  bool exported = e != store_.image().exports.end();
  if ((a.holder != 0 || exported) && !force)
    co_return Status(Code::exists, "volume " + name + " is attached by " +
                                       registry_.name(exported ? e->second.node : a.holder) +
                                       ": detach it first, or use --force");
  if (exported || a.holder != 0) {
    Status s = co_await detach(name);
    if (!s.ok()) logging::warn("removing {}: {}", name, s.to_string());
    if (gone(removed.id)) co_return Status(Code::not_found, "there is no volume " + name);
    removed = store_.image().volumes.at(removed.id);  // it may have grown meanwhile
  }
  removed.removing = true;
  Change c;
  c.volumes.push_back(removed);
  c.erase_exports.push_back(removed.id);
  if (Status s = store_.commit(c); !s.ok()) co_return s;
  events_.note("volume " + name + " removed");
  removal_.notify_all();
  io::Time deadline = world_.now() + wait;
  auto finished = [&] {
    if (store_.image().volumes.contains(removed.id)) return false;
    return std::none_of(store_.image().removals.begin(), store_.image().removals.end(),
                        [&](const Removal& r) { return volume_of(r.vp) == removed.id; });
  };
  while (!finished())
    if (!co_await removal_.wait_until(deadline)) break;
  co_return finished();
}

io::Task<void> Volumes::removals() {
  while (running_) {
    co_await drop_all();
    if (!running_) break;
    // What could not be reached is tried again when a node registers, and now and then.
    co_await removal_.wait_for(std::chrono::seconds(1));
  }
}

// The primary goes first, because it gives the columns back; as long as it has not, the VP keeps its designation, so
// that the survivors of a dead primary can still make another one.
io::Task<void> Volumes::drop_all() {
  std::vector<Volume> removing;
  for (const auto& [id, v] : store_.image().volumes)
    if (v.removing) removing.push_back(v);
  for (const Volume& v : removing) {
    bool all = true;
    for (std::uint32_t i = 0; i < v.vps() && running_; ++i) {
      VpId vp = make_vp(v.id, i);
      auto it = store_.image().designations.find(vp);
      if (it == store_.image().designations.end()) continue;
      Designation d = it->second;
      Change c;
      if (!co_await drop(vp, d.primary, d.epoch)) {
        all = false;
        continue;
      }
      it = store_.image().designations.find(vp);  // it may have been swapped meanwhile
      for (NodeId n : it->second.members())
        if (n != d.primary) c.removals.push_back({vp, n, it->second.epoch});
      c.erase_designations.push_back(vp);
      c.erase_sandboxes.push_back(vp);
      if (Status s = store_.commit(c); !s.ok()) all = false;
    }
    Change c;
    c.erase_volumes.push_back(v.id);
    if (all && running_ && !store_.commit(c).ok()) logging::error("volume {} stays on the list of removals", v.name);
  }
  const std::set<Removal> pending = store_.image().removals;
  for (const Removal& r : pending) {
    if (!running_) co_return;
    Change c;
    c.erase_removals.push_back(r);
    if (co_await drop(r.vp, r.node, r.epoch)) {
      if (Status s = store_.commit(c); !s.ok()) logging::error("{}", s.to_string());
    }
  }
  if (!removing.empty() || !pending.empty()) removal_.notify_all();
}

io::Task<bool> Volumes::drop(VpId vp, NodeId node, Epoch epoch) {
  const Node* n = registry_.find(node);
  if (n == nullptr || !n->connected() || !n->alive) co_return false;
  Status s = co_await ask(node, wire::make_frame(wire::Kind::drop_vp, [&](auto& b) {
                              auto d = store_.image().designations.find(vp);
                              return fbs::CreateDropVp(b, vp, epoch, d != store_.image().designations.end() ? d->second.to(b) : flatbuffers::Offset<fbs::Designation>());
                            }),
                          kDropTimeout);
  if (!s.ok() && s.code() != Code::not_found)
    logging::warn("{} does not drop VP {} yet: {}", registry_.name(node), vp, s.to_string());
  co_return s.ok() || s.code() == Code::not_found;
}

}  // namespace luge::control
