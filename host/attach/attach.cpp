#include "attach/attach.hpp"

#include <sys/resource.h>

#include <spdlog/fmt/fmt.h>

#include <algorithm>

#include "base/json_text.hpp"
#include "base/logging.hpp"
#include "wire/control_generated.h"

namespace luge::attach {

using namespace std::chrono_literals;

namespace {
constexpr std::string_view kVhostUser = "vhost-user:";
constexpr std::size_t kOtherDescriptors = 256;  // heads, control plane, listeners, disks and what guests pass
constexpr io::Duration kDiskCloseTime = 2s;  // for what is in flight
}  // namespace

Attach::Attach(io::World& world, Options options)
    : world_(world), options_(std::move(options)), identity_{options_.unit, options_.id}, changing_(world), registered_(world) {}
Attach::~Attach() = default;

io::Task<Status> Attach::start() {
  if (options_.tls.any()) {  // wrong files are said now, not when somebody wants to be served
    auto context = TlsContext::load(options_.tls);
    if (!context.ok()) co_return context.status();
  }
  std::uint64_t incarnation = options_.incarnation != 0 ? options_.incarnation : world_.random() | 1;
  wire::ControlLink::Self self{options_.id, options_.name, "attach", "", incarnation, options_.pid};
  wire::ControlLink::Callbacks callbacks;
  callbacks.report = [this] { return report(); };
  callbacks.request = [this](const std::shared_ptr<wire::Channel>& c, wire::Frame f) { on_control(c, std::move(f)); };
  callbacks.registered = [this] {
    ++registrations_;
    registered_.notify_all();
  };
  control_ = std::make_unique<wire::ControlLink>(world_, identity_, options_.control, std::move(self), std::move(callbacks));
  control_->start();
  world_.spawn("join unit", join_unit());
  world_.spawn("follow control", follow_control());
  co_return Status();
}

io::Task<void> Attach::join_unit() {
  while (true) {
    bool known = co_await control_->wait_registered(10s);
    Status s = control_->refused();
    if (s.ok() && known && options_.remember_unit) s = options_.remember_unit(identity_.unit);
    if (!s.ok() && options_.fail) options_.fail(s);
    if (!s.ok() || known) co_return;
    logging::warn("waiting for the control plane at {}", options_.control);
  }
}

// What cannot be opened yet (an address that is still in use, an attachment that another still has) is tried again until
// it can, or until the control plane wants something else.
io::Task<void> Attach::follow_control() {
  std::uint64_t settled = 0;
  while (true) {
    while (settled == registrations_) co_await registered_.wait();
    std::uint64_t now = registrations_;
    bool all = co_await settle();
    if (all) settled = now;
    else co_await registered_.wait_for(500ms);
  }
}

// False: something is left to do.
io::Task<bool> Attach::settle() {
  // Only what was there before the question: what is exported meanwhile is newer than the answer.
  std::vector<std::string> before;
  for (const auto& [name, e] : exports_) before.push_back(name);
  if (Status s = co_await ask_wanted(); !s.ok()) {
    complain("", s);
    co_return false;
  }
  complaints_.erase("");
  for (const std::string& name : before) {
    auto w = wanted_.find(name);
    auto e = exports_.find(name);
    if (e == exports_.end()) continue;
    if (w != wanted_.end() && w->second.nbd == e->second->nbd && w->second.read_only == e->second->read_only) continue;
    logging::warn("volume '{}' is not to be exported at {} any more: it was detached or moved while the control plane could not be heard", name, e->second->nbd);
    Status s = co_await close_export(name, true);
    (void)s;  // the attachment may well be another's by now
  }
  bool all = true;
  const std::map<std::string, Wanted> now = wanted_;
  for (const auto& [name, w] : now) {
    if (!wanted_.contains(name)) continue;  // withdrawn meanwhile
    Status s = co_await open_export(name, w.nbd, false, w.read_only, w.bytes);
    if (s.ok()) s = resize_export(name, w.bytes);  // it may have grown while this daemon could not be told
    if (s.ok()) complaints_.erase(name);
    else complain(name, s);
    all = all && s.ok();
  }
  co_return all;
}

io::Task<Status> Attach::ask_wanted() {
  auto answer = co_await control_->call(wire::make_frame(wire::Kind::list_exports, [](auto& b) { return fbs::CreateListExports(b); }), 5s);
  if (!answer.ok()) co_return answer.status();
  const auto* m = answer->kind == wire::Kind::exports ? answer->as<fbs::Exports>() : nullptr;
  Status s = m ? wire::make_status(m->code(), m->text()) : wire::status_of(*answer);
  if (s.ok() && !m) s = Status(Code::corrupt, "the list of exports does not parse");
  if (!s.ok()) co_return s;
  wanted_.clear();
  if (m->exports())
    for (const fbs::ExportVolume* e : *m->exports())
      if (e->name() && e->nbd()) wanted_[e->name()->str()] = {e->nbd()->str(), e->read_only(), e->bytes()};
  co_return Status();
}

void Attach::complain(const std::string& name, const Status& s) {
  if (std::exchange(complaints_[name], s.text()) == s.text()) return;
  if (name.empty()) logging::warn("asking the control plane what to export: {}; trying again", s.to_string());
  else logging::warn("export '{}': {}; trying again", name, s.to_string());
}

void Attach::on_control(const std::shared_ptr<wire::Channel>& channel, wire::Frame frame) {
  if (frame.kind == wire::Kind::export_volume) {
    const auto* m = frame.as<fbs::ExportVolume>();
    if (!m || !m->name() || !m->nbd()) return channel->close();
    std::string name = m->name()->str(), nbd = m->nbd()->str();
    bool take_over = m->take_over(), read_only = m->read_only();
    std::uint64_t bytes = m->bytes();
    world_.spawn("export", export_and_reply(channel, std::move(frame), name, nbd, take_over, read_only, bytes));
  } else if (frame.kind == wire::Kind::resize_export) {
    const auto* m = frame.as<fbs::ResizeExport>();
    if (!m || !m->name()) return channel->close();
    channel->reply(frame, wire::reply_frame(resize_export(m->name()->str(), m->bytes())));
  } else if (frame.kind == wire::Kind::unexport_volume) {
    const auto* m = frame.as<fbs::UnexportVolume>();
    if (!m || !m->name()) return channel->close();
    std::string name = m->name()->str();
    wanted_.erase(name);
    world_.spawn("unexport", unexport_and_reply(channel, std::move(frame), name));
  } else {
    channel->reply(frame, wire::reply_frame(Status(Code::invalid, "an attach daemon does not answer '" + std::string(wire::kind_name(frame.kind)) + "'")));
  }
}

io::Task<void> Attach::export_and_reply(std::shared_ptr<wire::Channel> channel, wire::Frame frame, std::string name, std::string nbd, bool take_over, bool read_only, std::uint64_t bytes) {
  Status s = co_await open_export(name, nbd, take_over, read_only, bytes);
  channel->reply(frame, wire::reply_frame(s));
}

io::Task<void> Attach::unexport_and_reply(std::shared_ptr<wire::Channel> channel, wire::Frame frame, std::string name) {
  Status s = co_await close_export(name, true);
  channel->reply(frame, wire::reply_frame(s));
}

io::Task<Status> Attach::open_export(std::string name, std::string nbd, bool take_over, bool read_only, std::uint64_t bytes) {
  auto guard = co_await changing_.lock();
  if (draining_) co_return Status(Code::unavailable, "the attach daemon is going down");
  if (auto it = exports_.find(name); it != exports_.end()) {
    if (it->second->nbd == nbd) co_return Status();
    co_return Status(Code::exists, "volume '" + name + "' is exported already, at " + it->second->nbd);
  }
  if (nbd.starts_with(kVhostUser)) co_return open_disk(name, nbd, take_over, read_only, bytes);
  // The address first: a volume that cannot be reached need not be attached.
  auto portal = portal_at(nbd);
  if (!portal.ok()) co_return portal.status();
  auto volume = co_await client::Volume::attach(world_, identity_, *control_, name, options_.id, take_over);
  if (!volume.ok()) {
    leave_portal(nbd, nullptr);
    co_return volume.status();
  }
  auto e = std::make_shared<Export>();
  e->volume_name = name;
  e->nbd = nbd;
  e->read_only = read_only;
  e->volume = std::move(*volume);
  e->served = std::make_shared<NbdExport>();
  e->served->info = {name, e->volume->size_bytes(), read_only};
  e->served->target = e->volume.get();
  e->volume->on_lost([this, name](const Status& s) {
    logging::error("volume '{}': {}; the export is closed", name, s.text());
    world_.spawn("lost export", [](Attach& a, std::string n) -> io::Task<void> {
      Status closed = co_await a.close_export(n, false);
      if (!closed.ok()) logging::warn("{}", closed.to_string());
    }(*this, name));
  });
  exports_[name] = e;
  (*portal)->served->exports[name] = e->served;
  logging::info("volume '{}' is served at {}", name, nbd);
  co_return Status();
}

// The volume is taken when the guest's rings run, and given back when they stop.
Status Attach::open_disk(const std::string& name, const std::string& address, bool take_over, bool read_only, std::uint64_t bytes) {
  auto* world = dynamic_cast<io::RealWorld*>(&world_);
  if (world == nullptr) return Status(Code::invalid, "vhost-user needs real sockets");
  auto e = std::make_shared<Export>();
  e->volume_name = name, e->nbd = address, e->read_only = read_only;
  VhostDisk::Options o;
  o.name = name, o.path = address.substr(kVhostUser.size()), o.bytes = bytes, o.read_only = read_only, o.card = options_.card;
  std::vector<bool> used(card::DmaPath::kFunctions, false);
  for (const auto& [n, other] : exports_)
    if (other->disk) used[other->disk->function()] = true;
  auto free = std::find(used.begin(), used.end(), false);
  if (free == used.end()) return Status(Code::no_space, "this attach daemon serves " + std::to_string(used.size()) + " guests' disks already: start another");
  o.function = static_cast<unsigned>(free - used.begin());
  VhostDisk::Lease lease;
  std::weak_ptr<Export> weak = e;
  // An operator has said so once: later, who has been shut out waits.
  lease.take = [this, weak, take_over](bool first) -> io::Task<Result<client::BlockTarget*>> {
    auto e = weak.lock();
    if (!e) co_return Status(Code::unavailable, "the disk is closed");
    co_return co_await take_volume(e, take_over && first);
  };
  lease.give = [this, weak]() -> io::Task<void> {
    auto e = weak.lock();
    if (!e || !e->volume) co_return;
    e->volume->on_lost({});
    std::shared_ptr<client::Volume> volume = std::move(e->volume);
    Status s = co_await volume->detach();
    if (s.ok()) co_return;
    // Until it is given back nobody else gets it without taking it over.
    logging::warn("{}; trying again", s.to_string());
    auto over = [this, weak, taken = e->taken] {
      auto e = weak.lock();
      return draining_ || (e && e->taken != taken);
    };
    world_.spawn("give back", client::Volume::give_back(world_, std::move(volume), over));
  };
  auto disk = VhostDisk::serve(*world, std::move(o), std::move(lease));
  if (!disk.ok()) return disk.status();
  e->disk = std::move(*disk);
  exports_[name] = e;
  logging::info("volume '{}' is served at {}", name, address);
  return Status();
}

io::Task<Result<client::BlockTarget*>> Attach::take_volume(ExportPtr e, bool take_over) {
  auto volume = co_await client::Volume::attach(world_, identity_, *control_, e->volume_name, options_.id, take_over);
  if (!volume.ok()) co_return volume.status();
  e->volume = std::move(*volume);
  ++e->taken;
  e->disk->resize(e->volume->size_bytes());
  std::weak_ptr<Export> weak = e;
  e->volume->on_lost([weak](const Status& s) {
    auto e = weak.lock();
    if (!e) return;
    logging::error("volume '{}': {}; its guest waits", e->volume_name, s.text());
    e->disk->lost();
  });
  co_return e->volume.get();
}

// The portal of an address, made when it is the first export there.
Result<Attach::PortalPtr> Attach::portal_at(const std::string& nbd) {
  if (auto it = portals_.find(nbd); it != portals_.end()) return it->second;
  auto p = std::make_shared<Portal>();
  p->served = std::make_shared<NbdPortal>();
  p->served->address = nbd;
  constexpr std::string_view kTls = "tls:";
  bool tls = nbd.starts_with(kTls);
  if (tls) {
    auto context = TlsContext::load(options_.tls);
    if (!context.ok()) return context.status().with(nbd);
    p->served->tls = std::move(*context);
  }
  auto listener = world_.network().listen(tls ? "tcp:" + nbd.substr(kTls.size()) : nbd, tls);
  if (!listener.ok()) return listener.status();
  p->listener = std::move(*listener);
  portals_[nbd] = p;
  world_.spawn("nbd accept", accept_loop(p));
  return p;
}

// With its last export a portal ends; who is still in his handshake has nothing to choose from any more.
void Attach::leave_portal(const std::string& nbd, const Export* e) {
  auto it = portals_.find(nbd);
  if (it == portals_.end()) return;
  PortalPtr p = it->second;
  if (e != nullptr) p->served->exports.erase(e->volume_name);
  if (!p->served->exports.empty()) return;
  portals_.erase(it);
  p->listener->close();
  for (auto& w : p->connections)
    if (auto c = w.lock(); c && c->served() == nullptr) c->close();
}

// Clients open as many connections as they like; the way to the heads and to the control plane needs descriptors, too.
bool Attach::crowded() const {
  rlimit limit;
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return false;
  std::size_t connections = 0;
  for (const auto& [address, portal] : portals_) connections += portal->connections.size();
  return connections + kOtherDescriptors > limit.rlim_cur;
}

io::Task<void> Attach::accept_loop(PortalPtr p) {
  while (auto stream = co_await p->listener->accept()) {
    std::erase_if(p->connections, [](const auto& w) { return w.expired(); });
    if (crowded()) {
      logging::warn("{}: more connections than this process has descriptors for; the newest is closed", p->listener->address());
      continue;
    }
    auto connection = std::make_shared<NbdConnection>(world_, std::move(stream), p->served);
    p->connections.push_back(connection);
    world_.spawn("nbd connection", connection->serve(connection));
  }
}

std::vector<std::shared_ptr<NbdConnection>> Attach::connections_of(const Export& e) const {
  std::vector<std::shared_ptr<NbdConnection>> all;
  if (auto it = portals_.find(e.nbd); it != portals_.end())
    for (const auto& w : it->second->connections)
      if (auto c = w.lock(); c && c->served() == e.served.get()) all.push_back(c);
  return all;
}

// A client learns the size in its handshake; one that is connected goes on with the old one.
Status Attach::resize_export(const std::string& name, std::uint64_t bytes) {
  auto it = exports_.find(name);
  if (it == exports_.end()) return Status(Code::not_found, "volume '" + name + "' is not exported here");
  if (it->second->volume) it->second->volume->grow(bytes);
  if (it->second->disk) {
    it->second->disk->resize(bytes);
    return Status();
  }
  it->second->served->info.bytes = it->second->volume->size_bytes();
  return Status();
}

// A disk's tasks hold it, its session and its requests refer to it.
bool Attach::Ended::in_use() const {
  if (closed->disk) return closed->disk.use_count() > 1 || closed->disk->connected() || closed->disk->disk().in_flight() != 0;
  return std::any_of(connections.begin(), connections.end(), [](const auto& c) { return !c.expired(); });
}

io::Task<Status> Attach::close_export(std::string name, bool detach) {
  auto guard = co_await changing_.lock();
  auto it = exports_.find(name);
  if (it == exports_.end()) co_return Status(Code::not_found, "volume '" + name + "' is not exported here");
  std::erase_if(ended_, [](const Ended& x) { return !x.in_use(); });
  ExportPtr e = it->second;
  exports_.erase(it);
  if (e->disk) {
    co_await e->disk->close(kDiskCloseTime);
    if (e->volume) e->volume->close();
    ended_.push_back({e, {}});  // the answer to a take that is on its way finds it, and gives back; a guest's memory it no longer has
    co_return Status();
  }
  auto connections = connections_of(*e);
  ended_.push_back({e, {connections.begin(), connections.end()}});
  leave_portal(e->nbd, e.get());
  e->volume->on_lost({});  // it is not lost, it is given back
  Status s;
  if (detach) s = co_await e->volume->detach();
  else e->volume->close();
  for (auto& c : connections) c->close();
  co_return s;
}

io::Task<void> Attach::drain() {
  draining_ = true;
  for (auto& [address, p] : portals_) p->listener->close();
  io::TaskGroup group(world_);
  for (auto& [address, p] : portals_)
    for (auto& w : p->connections)
      if (auto c = w.lock()) group.spawn("drain connection", c->drain(c));
  for (auto& [name, e] : exports_)
    if (e->disk) group.spawn("drain disk", e->disk->close(kDiskCloseTime));
  co_await group.join();
  for (auto& [name, e] : exports_)
    if (e->volume) e->volume->close();
  control_->stop();
  co_await world_.sleep(20ms);
}

std::string Attach::unfinished() const {
  std::string s;
  for (const auto& [name, e] : exports_) {
    std::size_t open = e->disk ? e->disk->disk().in_flight() : 0;
    for (const auto& c : connections_of(*e)) open += c->unanswered();
    if (open == 0) continue;
    s += (s.empty() ? "" : ", ") + std::to_string(open) + " requests of volume '" + name + "'";
    if (std::string why = e->volume ? e->volume->pause_reason() : std::string(); !why.empty()) s += " (" + why + ")";
  }
  return s;
}

std::string Attach::report() const {
  std::string s = R"({"exports":[)";
  bool first = true;
  for (const auto& [name, e] : exports_) {
    if (!std::exchange(first, false)) s += ',';
    if (e->disk) {
      s += report_disk(*e);
      continue;
    }
    const NbdStats& n = e->served->stats;
    const client::Volume::Stats& v = e->volume->stats();
    s += fmt::format(R"({{"volume":"{}","nbd":"{}","read_only":{},"connections":{},"reads":{},"writes":{},"read_bytes":{},"written_bytes":{},"errors":{},)"
                     R"("longest_pause_ms":{},"resent":{},"batches":{},"paused":{}}})",
                     json_text(name), json_text(e->nbd), e->read_only, n.connections, n.reads, n.writes, n.read_bytes, n.written_bytes, n.errors,
                     v.longest_pause / 1ms, v.resent, v.batches, e->volume->paused());
  }
  return s + "]}";
}

// The same figures as of an export over NBD, and those of the DMA path.
std::string Attach::report_disk(const Export& e) const {
  const VirtioBlk::Stats& n = e.disk->disk().stats();
  const client::Volume::Stats v = e.volume ? e.volume->stats() : client::Volume::Stats();
  return fmt::format(R"({{"volume":"{}","nbd":"{}","read_only":{},"connections":{},"reads":{},"writes":{},"read_bytes":{},"written_bytes":{},"errors":{},)"
                     R"("longest_pause_ms":{},"resent":{},"batches":{},"paused":{},"attached":{},"replayed":{}}})",
                     json_text(e.volume_name), json_text(e.nbd), e.read_only, e.disk->connected() ? 1 : 0, n.reads, n.writes, n.read_bytes, n.written_bytes, n.errors,
                     v.longest_pause / 1ms, v.resent, v.batches, e.volume && e.volume->paused(), e.volume != nullptr, n.replayed);
}

}  // namespace luge::attach
