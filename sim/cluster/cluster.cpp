#include "sim/cluster/cluster.hpp"

#include <algorithm>

#include "client/volume.hpp"
#include "control/control.hpp"
#include "control/store.hpp"
#include "head/head.hpp"
#include "sim/cluster/chaos.hpp"
#include "sim/cluster/workload.hpp"
#include "sled/sled.hpp"

namespace luge::sim {
namespace {

using io::Task;

constexpr std::uint64_t kUnit = 0x10c6e;
constexpr const char* kControlAddress = "tcp:control:1";
constexpr NodeId kFirstHead = 10, kFirstSled = 40, kFirstClient = 80;
constexpr std::uint64_t kDeviceBytes = 64 << 20;

struct Tenant;

class Cluster {
 public:
  explicit Cluster(const ClusterOptions& o);
  ~Cluster() {
    for (Node n = 0; n < sim_.nodes(); ++n)
      if (sim_.up(n)) sim_.crash(n, Crash::power);
  }
  ClusterResult run();
  void fail(const std::string& why);
  bool failed() const { return !failure_.empty(); }
  Simulation& sim() { return sim_; }
  const ClusterOptions& options() const { return o_; }
  bool rivalry() const { return rivalry_; }

  // The present objects; null while their node is down.
  control::Control* control = nullptr;
  std::vector<head::Head*> heads;

 private:
  void start_unit();
  void make_volumes();
  void work();
  void settle();
  void read_back(const char* when);
  void flush();
  void replicas_agree();
  void cold_start();
  void lose_sleds();
  bool until(const std::function<bool()>& done, Duration limit, const std::string& what);
  std::string disagreement() const;
  std::string open_requests() const;

  ClusterOptions o_;
  Simulation sim_;
  std::shared_ptr<control::Image> image_;  // the control plane's disk
  Node control_node_ = 0;
  std::vector<Node> head_nodes_, sled_nodes_;
  std::vector<std::unique_ptr<Tenant>> tenants_;
  std::unique_ptr<Chaos> chaos_;
  head::Options head_options_;
  std::string failure_;
  bool rivalry_ = false;
};

/// A volume and those who use it.
struct Tenant {
  std::string name;
  std::unique_ptr<Workload> load;
  std::vector<Node> clients;
  Target* present = nullptr;  // of the attachment that holds the volume
  Node present_node = 0;
  std::uint64_t incarnation = 0;  // its own
};

struct ControlDaemon {
  ControlDaemon(io::World& w, Cluster& c, std::shared_ptr<control::Image> image)
      : cluster(c), control(w, options(c.options()), std::make_unique<control::MemoryStore>(std::move(image))) {
    w.spawn("control", run());
  }
  ~ControlDaemon() { cluster.control = nullptr; }
  Task<void> run() {
    Status s = co_await control.start();
    if (!s.ok()) cluster.fail("the control plane does not start: " + s.to_string());
    cluster.control = &control;
  }
  static control::Options options(const ClusterOptions& o) {
    control::Options c;
    c.listen = kControlAddress;
    c.vp_bytes = o.volume_bytes / o.partitions;
    return c;
  }
  Cluster& cluster;
  control::Control control;
};

struct HeadDaemon {
  HeadDaemon(io::World& w, Cluster& c, std::size_t i, head::Options o) : cluster(c), index(i), name(o.name), head(w, std::move(o)) {
    cluster.heads[index] = &head;
    w.spawn("head", run());
  }
  ~HeadDaemon() { cluster.heads[index] = nullptr; }
  Task<void> run() {
    Status s = co_await head.start();
    if (!s.ok()) cluster.fail(name + " does not start: " + s.to_string());
  }
  Cluster& cluster;
  std::size_t index;
  std::string name;
  head::Head head;
};

struct SledDaemon {
  SledDaemon(io::World& w, Cluster& c, sled::Options o) : cluster(c), name(o.name), sled(w, std::move(o)) { w.spawn("sled", run()); }
  Task<void> run() {
    Status s = co_await sled.start();
    if (!s.ok()) cluster.fail(name + " does not start: " + s.to_string());
  }
  Cluster& cluster;
  std::string name;
  sled::Sled sled;
};

// Attaches the volume, works, attaches again when it has been taken away.
class ClientDaemon final : public Target {
 public:
  ClientDaemon(io::World& w, Cluster& c, Tenant& t, Node node, NodeId id, bool rival)
      : world_(w), cluster_(c), tenant_(t), node_(node), id_(id), rival_(rival), changed_(w),
        control_(w, identity_, kControlAddress,
                 {.id = id, .name = "client-" + std::to_string(id), .role = "attach",
                  .address = "tcp:client-" + std::to_string(id) + ":1", .incarnation = w.random()}, {}) {
    identity_.node = id;
    control_.start();
    w.spawn("client", run());
  }
  ~ClientDaemon() override { forget(); }

  Task<Status> read(std::uint64_t offset, MutableBytes into) override {
    auto r = co_await client::read(world_, *volume_, offset, static_cast<std::uint32_t>(into.size()));
    if (!r.ok()) co_return r.status();
    if (r->size() != into.size()) co_return Status(Code::internal, "a read returned another length than asked");
    std::memcpy(into.data(), r->data(), into.size());
    co_return Status();
  }
  Task<Status> write(std::uint64_t offset, Bytes bytes) override {
    co_return co_await client::write(world_, *volume_, offset, Buffer::copy_of(bytes));
  }
  Task<Status> trim(std::uint64_t offset, std::uint64_t bytes) override {
    co_return co_await client::trim(world_, *volume_, offset, static_cast<std::uint32_t>(bytes));
  }
  Task<Status> zero(std::uint64_t offset, std::uint64_t bytes) override {
    co_return co_await client::zero(world_, *volume_, offset, static_cast<std::uint32_t>(bytes));
  }

 private:
  void forget() {
    if (tenant_.present != this) return;
    tenant_.present = nullptr;
    tenant_.load->detached();
  }

  Task<void> run() {
    while (true) {
      if (rival_) {
        co_await world_.sleep(Duration(world_.random_below(4'000'000'000)));
        if (!cluster_.rivalry()) continue;
      }
      lost_ = false;
      Status s = co_await attach();
      if (!s.ok()) {
        if (s.code() == Code::invalid || s.code() == Code::corrupt) cluster_.fail("attach: " + s.to_string());
        co_await world_.sleep(100ms);
        continue;
      }
      // One that has no requests learns of the loss from nobody; when the other is gone too, somebody must come back.
      auto orphaned = [this] { return tenant_.present == nullptr && volume_->incarnation() < tenant_.incarnation; };
      while (!lost_ && !orphaned()) co_await changed_.wait_for(1s);
      forget();
      co_await world_.sleep(Duration(world_.random_below(1'500'000'000)));
    }
  }

  Task<Status> attach() {
    auto v = co_await client::Volume::attach(world_, identity_, control_, tenant_.name, id_, cluster_.options().rival);
    if (!v.ok()) co_return v.status();
    if (volume_) retired_.push_back(std::move(volume_));
    volume_ = std::move(*v);
    volume_->on_lost([this](const Status&) {
      lost_ = true;
      changed_.notify_all();
    });
    // A session must be open everywhere before older attachments are fenced for certain: one read from each end.
    for (std::uint64_t at : {std::uint64_t{0}, volume_->size_bytes() - kBlockBytes}) {
      auto r = co_await client::read(world_, *volume_, at, kBlockBytes);
      if (!r.ok()) co_return r.status();
    }
    // Reads need no session, so one that was overtaken meanwhile can get here.
    if (lost_ || volume_->incarnation() < tenant_.incarnation) co_return Status(Code::closed_session, "lost at once");
    tenant_.incarnation = volume_->incarnation();
    tenant_.present = this;
    tenant_.present_node = node_;
    tenant_.load->attach(world_, *this);
    co_return Status();
  }

  io::World& world_;
  Cluster& cluster_;
  Tenant& tenant_;
  Node node_;
  NodeId id_;
  bool rival_;
  bool lost_ = false;
  io::Event changed_;
  wire::Identity identity_;
  wire::ControlLink control_;
  std::unique_ptr<client::Volume> volume_;
  std::vector<std::unique_ptr<client::Volume>> retired_;  // requests may still be open on them
};

Cluster::Cluster(const ClusterOptions& o) : o_(o), sim_(o.seed), image_(control::MemoryStore::make_image(kUnit)) {
  sim_.trace(o.trace);
  Random r = sim_.random().fork();
  head_options_.control = kControlAddress;
  head_options_.segment_bytes = 512 << 10;
  head_options_.log_bytes = r.between(8, 32) * head_options_.segment_bytes;
  if (!o.flush) head_options_.log_bytes = 64 << 20;  // nothing will make room
  head_options_.meta_segment_bytes = 256 << 10;
  head_options_.meta_bytes = r.between(8, 24) * head_options_.meta_segment_bytes;
  head_options_.chunk_bytes = static_cast<std::uint32_t>(8192u << r.below(4));
  head_options_.memory_bytes = r.chance(0.5) ? 1 << 20 : 64 << 20;
  head_options_.flush_bytes = r.spread(64 << 10, 4 << 20);
  head_options_.flush_age = Duration(r.spread(200'000'000, 20'000'000'000));
  head_options_.flush_idle = Duration(r.spread(50'000'000, 3'000'000'000));
}

void Cluster::fail(const std::string& why) {
  if (failure_.empty()) failure_ = why;
  if (sim_.tracing()) sim_.log("FAILED: " + why);
}

bool Cluster::until(const std::function<bool()>& done, Duration limit, const std::string& what) {
  if (failed()) return false;
  bool ok = sim_.run_until([&] { return failed() || done(); }, limit);
  if (!ok) fail("not live: " + what + " after " + std::to_string(limit.count() / 1'000'000'000) + " s" + open_requests());
  return !failed();
}

std::string Cluster::open_requests() const {
  std::string text;
  for (auto& t : tenants_)
    for (auto op : t->load->history().open_ops())
      if (text.size() < 2000) text += "\n  open: " + t->load->history().describe(op);
  for (std::size_t i = 0; i < heads.size(); ++i)
    if (heads[i]) text += "\n  head " + std::to_string(kFirstHead + i) + ": " + heads[i]->report();
  return text;
}

void Cluster::start_unit() {
  control_node_ = sim_.add_node("control", [this](io::World& w) { return std::make_shared<ControlDaemon>(w, *this, image_); });
  heads.resize(o_.heads);
  for (std::uint32_t i = 0; i < o_.heads; ++i) {
    head::Options h = head_options_;
    h.id = kFirstHead + i;
    h.name = "head-" + std::to_string(i + 1);
    h.listen = "tcp:" + h.name + ":1";
    head_nodes_.push_back(sim_.add_node(h.name, [this, i, h](io::World& w) { return std::make_shared<HeadDaemon>(w, *this, i, h); }));
  }
  for (std::uint32_t i = 0; i < o_.sleds; ++i) {
    sled::Options s;
    s.id = kFirstSled + i;
    s.name = "sled-" + std::to_string(i + 1);
    s.listen = "tcp:" + s.name + ":1";
    s.control = kControlAddress;
    s.column_bytes = 2 << 20;
    auto first = std::make_shared<bool>(true);
    for (std::uint32_t d = 0; d < o_.devices; ++d) s.devices.push_back({"/dev/disk" + std::to_string(d)});
    Node next = static_cast<Node>(sim_.nodes());
    sled_nodes_.push_back(sim_.add_node(s.name, [this, next, s, first](io::World& w) {
      if (std::exchange(*first, false))
        for (auto& d : s.devices) sim_.disk(next).make_file(d.path, kDeviceBytes);
      return std::make_shared<SledDaemon>(w, *this, s);
    }));
  }
  NodeId client = kFirstClient;
  for (std::uint32_t v = 0; v < o_.volumes; ++v) {
    auto t = std::make_unique<Tenant>();
    t->name = "volume-" + std::to_string(v + 1);
    Random& r = sim_.random();
    t->load = std::make_unique<Workload>(sim_, Workload::Options{
        .volume_bytes = o_.volume_bytes, .hot_blocks = r.spread(4, 128), .workers = static_cast<std::uint32_t>(r.between(2, 8)),
        .requests = o_.requests, .pause = Duration(r.spread(1'000'000, 60'000'000))});
    for (int rival = 0; rival <= (o_.rival ? 1 : 0); ++rival) {
      Node node = static_cast<Node>(sim_.nodes());
      Tenant& tenant = *t;
      NodeId id = client++;
      t->clients.push_back(sim_.add_node("client-" + std::to_string(id), [this, &tenant, node, id, rival](io::World& w) {
        return std::make_shared<ClientDaemon>(w, *this, tenant, node, id, rival != 0);
      }));
    }
    tenants_.push_back(std::move(t));
  }
}

void Cluster::make_volumes() {
  for (auto& t : tenants_) {
    auto registered = [&] {
      return control->registry().alive("head").size() == o_.heads && control->registry().alive("sled").size() == o_.sleds;
    };
    bool ok = sim_.run_until([&] { return failed() || (control && registered()); }, 20s);
    if (!ok) return fail("not live: not all daemons have registered after 20 s");
    if (failed()) return;
    auto v = control->volumes().create({.name = t->name, .bytes = o_.volume_bytes, .layout = o_.layout,
                                        .copies = std::min<std::uint32_t>(3, o_.heads)});
    if (!v.ok()) return fail("volume create: " + v.status().to_string());
  }
}

void Cluster::work() {
  auto all = [&](auto f) { return std::all_of(tenants_.begin(), tenants_.end(), [&](auto& t) { return f(*t); }); };
  if (!until([&] { return all([](Tenant& t) { return t.present != nullptr; }); }, 20s, "volumes are not open at the start")) return;
  rivalry_ = o_.rival;
  if (o_.faults) chaos_->start();
  // Some time under faults even if the clients are quick.
  Duration least = sim_.now() + o_.seconds / 5;
  sim_.run_until([&] { return failed() || (sim_.now() > least && all([](Tenant& t) { return t.load->done(); })); }, o_.seconds);
  rivalry_ = false;
  chaos_->heal();
}

// All requests are answered, also those that had to wait for the heal.
void Cluster::settle() {
  for (auto& t : tenants_) {
    t->load->stop();
    until([&] { return t->load->open() == 0 && t->present != nullptr; }, 60s, t->name + " has open requests");
    if (!t->load->error().empty()) fail("a client saw an error: " + t->load->error());
  }
}

void Cluster::read_back(const char* when) {
  if (failed()) return;
  for (auto& t : tenants_) {
    if (!until([&] { return t->present != nullptr; }, 60s, std::string("attached again ") + when)) return;
    bool done = false;
    sim_.world(t->present_node).spawn("read back", [](Workload& l, Target& target, bool& done) -> Task<void> {
      co_await l.read_back(target);
      done = true;
    }(*t->load, *t->present, done));
    if (!until([&] { return done; }, 60s, t->name + " cannot be read " + when)) return;
    if (!t->load->error().empty()) return fail(std::string("a client saw an error ") + when + ": " + t->load->error());
    if (auto bad = t->load->history().check()) return fail(t->name + ", seen " + when + ": " + *bad);
  }
}

void Cluster::flush() {
  for (auto& t : tenants_) {
    if (failed()) return;
    Duration end = sim_.now() + 60s;
    std::string last;
    while (true) {
      bool done = false;
      Result<std::uint64_t> left(Code::internal, "not asked");
      sim_.world(control_node_).spawn("flush", [](Cluster& c, std::string name, Result<std::uint64_t>& out, bool& done) -> Task<void> {
        out = co_await c.control->volumes().flush(name, 20s);
        done = true;
      }(*this, t->name, left, done));
      if (!until([&] { return done; }, 30s, "flush does not end")) return;
      if (left.ok() && *left == 0) break;
      last = left.ok() ? std::to_string(*left) + " bytes left" : left.status().to_string();
      if (sim_.now() > end) return fail("not live: flush of " + t->name + ": " + last + open_requests());
      sim_.run_for(200ms);
    }
  }
}

std::string Cluster::disagreement() const {
  for (auto& [vp, d] : image_->designations) {
    std::optional<head::Head::Digest> first;
    for (NodeId n : d.required) {
      head::Head* h = heads.at(n - kFirstHead);
      auto digest = h ? h->digest(vp) : std::nullopt;
      std::string who = "VP " + std::to_string(vp) + " on head " + std::to_string(n);
      if (!digest) return who + ": no replica";
      if (digest->epoch != d.epoch) return who + ": epoch " + std::to_string(digest->epoch) + ", the store says " + std::to_string(d.epoch);
      if (digest->suspect) return who + ": suspect";
      if (!first) first = digest;
      if (first->commit != digest->commit || first->index != digest->index)
        return who + ": commit " + std::to_string(digest->commit) + " index " + std::to_string(digest->index) + ", head " +
               std::to_string(d.required[0]) + ": commit " + std::to_string(first->commit) + " index " + std::to_string(first->index);
    }
  }
  return "";
}

void Cluster::replicas_agree() {
  if (failed()) return;
  if (!sim_.run_until([&] { return disagreement().empty(); }, 20s)) fail("replicas disagree: " + disagreement() + open_requests());
}

void Cluster::cold_start() {
  if (failed()) return;
  for (Node n : head_nodes_) sim_.crash(n, Crash::power);
  sim_.run_for(100ms);
  for (Node n : head_nodes_) sim_.restart(n);
}

void Cluster::lose_sleds() {
  if (failed()) return;
  // A stripe written while sleds were down may have no more than k+1 chunks; with all sleds back it gets the others (8.5).
  auto narrow = [&] { return std::any_of(heads.begin(), heads.end(), [](head::Head* h) { return h && h->narrow_stripes() != 0; }); };
  if (o_.sleds >= o_.layout.width() && !until([&] { return !narrow(); }, 60s, "stripes stay narrow")) return;
  std::vector<Node> up = sled_nodes_;
  std::vector<Node> gone;
  // With fewer sleds than a stripe is wide they stay so.
  bool degraded = std::any_of(heads.begin(), heads.end(), [](head::Head* h) {
    std::string report = h ? h->report() : std::string();
    std::size_t narrow = 0;
    for (auto at = report.find("degraded_stripes\":"); at != std::string::npos; at = report.find("degraded_stripes\":", at + 1))
      narrow += report[at + 18] != '0';
    return narrow != 0;
  });
  std::uint32_t loss = degraded ? 1 : o_.layout.m;
  for (std::uint32_t i = 0; i < loss && up.size() > o_.layout.k; ++i) {
    std::size_t pick = sim_.random().below(up.size());
    gone.push_back(up[pick]);
    up.erase(up.begin() + static_cast<std::ptrdiff_t>(pick));
  }
  for (Node n : gone) sim_.crash(n, Crash::power);
  read_back(degraded ? "with a sled gone" : "with m sleds gone");
  for (Node n : gone) sim_.restart(n);
}

ClusterResult Cluster::run() {
  start_unit();
  std::vector<Node> all;
  for (Node n = 0; n < sim_.nodes(); ++n) all.push_back(n);
  std::vector<Node> storage = head_nodes_;
  storage.insert(storage.end(), sled_nodes_.begin(), sled_nodes_.end());
  storage.push_back(control_node_);
  // Heads are what the protocol is about: they fail more often than the others.
  std::vector<Node> crashable = all;
  for (int i = 0; i < 3; ++i) crashable.insert(crashable.end(), head_nodes_.begin(), head_nodes_.end());
  chaos_ = std::make_unique<Chaos>(sim_, Chaos::Options{.crashable = crashable, .networked = all, .all_at_once = storage});
  make_volumes();
  if (!failed()) work();
  settle();
  read_back("after the heal");
  replicas_agree();
  if (o_.flush) {
    flush();
    read_back("after a flush");
    replicas_agree();
  }
  cold_start();
  read_back("after a cold start of all heads");
  replicas_agree();
  if (o_.flush) lose_sleds();
  ClusterResult r;
  r.failure = failure_;
  if (!failure_.empty()) r.failure = o_.describe() + "\n" + failure_;
  r.trace_hash = sim_.trace_hash();
  r.events = sim_.events();
  for (auto& t : tenants_) r.answered += t->load->answered();
  r.faults = chaos_->faults();
  r.virtual_seconds = static_cast<double>(sim_.now().count()) * 1e-9;
  r.fault_summary = chaos_->summary();
  return r;
}

}  // namespace

ClusterOptions ClusterOptions::from_seed(std::uint64_t seed) {
  ClusterOptions o;
  o.seed = seed;
  Random r(seed ^ 0x746f706f6c6f6779);
  static constexpr Layout layouts[] = {{4, 2}, {4, 2}, {2, 1}, {2, 2}, {3, 2}};
  o.heads = static_cast<std::uint32_t>(r.between(3, 5));
  o.layout = layouts[r.below(5)];
  o.sleds = o.layout.width() + static_cast<std::uint32_t>(r.below(3));
  o.devices = static_cast<std::uint32_t>(r.between(1, 2));
  o.volumes = r.chance(0.3) ? 2 : 1;
  o.volume_bytes = r.between(1, 4) << 20;
  o.partitions = r.chance(0.3) ? 2 : 1;
  o.requests = r.between(200, 800) / o.volumes;
  o.rival = r.chance(0.25);
  return o;
}

std::string ClusterOptions::describe() const {
  return std::to_string(heads) + " heads, " + std::to_string(sleds) + " sleds of " + std::to_string(devices) + " devices, " +
         std::to_string(volumes) + " volumes of " + std::to_string(partitions) + " partitions, " + to_string(layout) + " of " + std::to_string(volume_bytes >> 20) + " MiB, " +
         std::to_string(requests) + " requests each" + (rival ? ", a rival client" : "");
}

ClusterResult run_cluster(const ClusterOptions& options) {
  Cluster cluster(options);
  return cluster.run();
}

}  // namespace luge::sim
