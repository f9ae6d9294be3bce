#include "attach/attach.hpp"

#include <spdlog/fmt/fmt.h>

#include "base/json_text.hpp"
#include "base/logging.hpp"
#include "wire/control_generated.h"

namespace luge::attach {

using namespace std::chrono_literals;

namespace {
constexpr std::uint64_t kStoreBytes = 256 << 10;
}

Attach::Attach(io::World& world, Options options)
    : world_(world), options_(std::move(options)), identity_{options_.unit, options_.id}, changing_(world) {}
Attach::~Attach() = default;

io::Task<Status> Attach::start() {
  auto file = co_await world_.files().open("exports", {.create = true, .size = kStoreBytes, .prewrite = true});
  if (!file.ok()) co_return file.status();
  file_ = std::move(*file);
  auto store = co_await io::MetaStore::open(world_, *file_, 0, kStoreBytes);
  if (!store.ok()) co_return store.status();
  store_ = std::move(*store);
  wire::ControlLink::Self self{options_.id, options_.name, "attach", "", world_.random() | 1, options_.pid};
  wire::ControlLink::Callbacks callbacks;
  callbacks.report = [this] { return report(); };
  callbacks.request = [this](const std::shared_ptr<wire::Channel>& c, wire::Frame f) { on_control(c, std::move(f)); };
  control_ = std::make_unique<wire::ControlLink>(world_, identity_, options_.control, std::move(self), std::move(callbacks));
  control_->start();
  world_.spawn("restore exports", restore());
  co_return Status();
}

// Exports of before the restart come back as they were, as soon as the control plane grants the attachment again.
io::Task<void> Attach::restore() {
  std::vector<std::pair<std::string, std::string>> rows;
  for (auto [key, value] : store_->list("export/")) rows.emplace_back(std::string(key.substr(7)), std::string(value));
  for (auto& [name, value] : rows) {
    while (true) {
      while (!co_await control_->wait_registered(10s)) {
      }
      bool read_only = value.starts_with("ro ");
      Status s = co_await open_export(name, value.substr(3), false, read_only);
      if (s.ok() || s.code() == Code::exists || s.code() == Code::not_found) {
        if (!s.ok()) logging::error("export '{}' is not restored: {}", name, s.to_string());
        break;
      }
      logging::warn("export '{}': {}; trying again", name, s.to_string());
      co_await world_.sleep(500ms);
    }
  }
}

void Attach::on_control(const std::shared_ptr<wire::Channel>& channel, wire::Frame frame) {
  if (frame.kind == wire::Kind::export_volume) {
    const auto* m = frame.as<fbs::ExportVolume>();
    if (!m || !m->name() || !m->nbd()) return channel->close();
    std::string name = m->name()->str(), nbd = m->nbd()->str();
    bool take_over = m->take_over(), read_only = m->read_only();
    world_.spawn("export", export_and_reply(channel, std::move(frame), name, nbd, take_over, read_only));
  } else if (frame.kind == wire::Kind::unexport_volume) {
    const auto* m = frame.as<fbs::UnexportVolume>();
    if (!m || !m->name()) return channel->close();
    std::string name = m->name()->str();
    world_.spawn("unexport", unexport_and_reply(channel, std::move(frame), name));
  } else {
    channel->reply(frame, wire::reply_frame(Status(Code::invalid, "an attach daemon does not answer '" + std::string(wire::kind_name(frame.kind)) + "'")));
  }
}

io::Task<void> Attach::export_and_reply(std::shared_ptr<wire::Channel> channel, wire::Frame frame, std::string name, std::string nbd, bool take_over, bool read_only) {
  Status s = co_await open_export(name, nbd, take_over, read_only);
  if (s.ok()) s = co_await store_->put("export/" + name, (read_only ? "ro " : "rw ") + nbd);
  channel->reply(frame, wire::reply_frame(s));
}

io::Task<void> Attach::unexport_and_reply(std::shared_ptr<wire::Channel> channel, wire::Frame frame, std::string name) {
  Status s = co_await close_export(name, true);
  if (s.ok()) {
    std::vector<io::MetaStore::Change> change;
    change.emplace_back("export/" + name, std::nullopt);
    s = co_await store_->put(std::move(change));
  }
  channel->reply(frame, wire::reply_frame(s));
}

io::Task<Status> Attach::open_export(std::string name, std::string nbd, bool take_over, bool read_only) {
  auto guard = co_await changing_.lock();
  if (auto it = exports_.find(name); it != exports_.end()) {
    if (it->second->nbd == nbd) co_return Status();
    co_return Status(Code::exists, "volume '" + name + "' is exported already, at " + it->second->nbd);
  }
  // The address first: a volume that cannot be reached need not be attached.
  auto listener = world_.network().listen(nbd);
  if (!listener.ok()) co_return listener.status();
  auto volume = co_await client::Volume::attach(world_, identity_, *control_, name, options_.id, take_over);
  if (!volume.ok()) {
    (*listener)->close();
    co_return volume.status();
  }
  auto e = std::make_shared<Export>();
  e->volume_name = name;
  e->nbd = nbd;
  e->volume = std::move(*volume);
  e->listener = std::move(*listener);
  e->served = std::make_shared<NbdExport>();
  e->served->info = {name, e->volume->size_bytes(), read_only};
  e->served->target = e->volume.get();
  e->volume->on_lost([this, name](const Status& s) {
    logging::error("volume '{}': {}; the export is closed", name, s.text());
    world_.spawn("lost export", [](Attach& a, std::string n) -> io::Task<void> {
      Status closed = co_await a.close_export(n, false);
      if (!closed.ok()) co_return;
      // Else a restart would export what somebody else has taken over and perhaps given up since.
      std::vector<io::MetaStore::Change> change;
      change.emplace_back("export/" + n, std::nullopt);
      Status forgotten = co_await a.store_->put(std::move(change));
      if (!forgotten.ok()) logging::error("export '{}' is still remembered: {}", n, forgotten.to_string());
    }(*this, name));
  });
  exports_[name] = e;
  world_.spawn("nbd accept", accept_loop(e));
  logging::info("volume '{}' is served at {}", name, nbd);
  co_return Status();
}

io::Task<void> Attach::accept_loop(ExportPtr e) {
  while (!e->closing) {
    auto stream = co_await e->listener->accept();
    if (!stream) break;
    auto connection = std::make_shared<NbdConnection>(world_, std::move(stream), e->served);
    std::erase_if(e->connections, [](const auto& w) { return w.expired(); });
    e->connections.push_back(connection);
    world_.spawn("nbd connection", connection->serve(connection));
  }
}

io::Task<Status> Attach::close_export(std::string name, bool detach) {
  auto guard = co_await changing_.lock();
  auto it = exports_.find(name);
  if (it == exports_.end()) co_return Status(Code::not_found, "volume '" + name + "' is not exported here");
  ExportPtr e = it->second;
  exports_.erase(it);
  ended_.push_back(e);
  e->closing = true;
  e->listener->close();
  Status s;
  if (detach) s = co_await e->volume->detach();
  else e->volume->close();
  for (auto& w : e->connections)
    if (auto c = w.lock()) c->close();
  co_return s;
}

io::Task<void> Attach::drain() {
  for (auto& [name, e] : exports_) {
    e->listener->close();
    for (int i = 0; i < 100 && e->volume->open_requests() != 0; ++i) co_await world_.sleep(20ms);
    for (auto& w : e->connections)
      if (auto c = w.lock()) c->close();
    e->volume->close();
  }
  control_->stop();
  co_await world_.sleep(20ms);
}

std::string Attach::report() const {
  std::string s = R"({"exports":[)";
  bool first = true;
  for (const auto& [name, e] : exports_) {
    if (!std::exchange(first, false)) s += ',';
    const NbdStats& n = e->served->stats;
    const client::Volume::Stats& v = e->volume->stats();
    s += fmt::format(R"({{"volume":"{}","nbd":"{}","connections":{},"reads":{},"writes":{},"read_bytes":{},"written_bytes":{},"errors":{},)"
                     R"("longest_pause_ms":{},"resent":{},"batches":{},"paused":{}}})",
                     json_text(name), json_text(e->nbd), n.connections, n.reads, n.writes, n.read_bytes, n.written_bytes, n.errors,
                     v.longest_pause / 1ms, v.resent, v.batches, e->volume->paused());
  }
  return s + "]}";
}

}  // namespace luge::attach
