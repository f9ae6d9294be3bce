#include "sim/cluster/cluster.hpp"

#include <algorithm>

#include "sim/cluster/judge.hpp"
#include "sim/cluster/operators.hpp"
#include "sim/cluster/quiet.hpp"
#include "sim/cluster/schedules.hpp"
#include "sim/cluster/tenant.hpp"
#include "sim/cluster/unit_faults.hpp"
#include "switches/paths.hpp"

namespace luge::sim {
namespace {

using io::Task;

class Cluster {
 public:
  explicit Cluster(const ClusterOptions& o);
  ~Cluster();
  ClusterResult run();

 private:
  void make_tenants();
  void make_chaos();
  void make_volumes();
  void work();
  void settle();
  void quiet_kept();
  void as_operators_want(const char* when);
  void move_again();
  void read_back(const char* when);
  void flush();
  void flush(Tenant& t);
  void promises_kept();
  void replicas_agree();
  void stripes_whole();
  void cold_start();
  void work_again(const char* when);
  void everything_again();
  void all_copies(const char* when);
  void cold_start_of_everything();
  void lose_sleds();
  void could_not_start(Node n, const std::string& who, const Status& s);
  void fail(const std::string& why);
  bool failed() const { return !failure_.empty(); }
  /// Liveness: false, and a failure unless the damage is beyond what must be survived, when it takes longer than `limit`.
  bool until(const std::function<bool()>& done, Duration limit, const std::string& what);
  void phase(const std::string& name);
  bool all(const std::function<bool(Tenant&)>& f) const;
  std::string open_requests() const;
  ClusterResult result() const;

  ClusterOptions o_;
  Simulation sim_;
  Unit unit_;
  Media media_;
  std::vector<std::size_t> full_;  // heads that meet a full disk at first
  std::vector<std::unique_ptr<Tenant>> tenants_;
  std::unique_ptr<Damage> damage_;
  Traps traps_{sim_};
  std::unique_ptr<UnitFaults> unit_faults_;
  std::unique_ptr<Schedules> schedules_;
  std::unique_ptr<Judge> judge_;
  std::unique_ptr<Chaos> chaos_;
  std::unique_ptr<Operators> operators_;
  std::optional<Quiet> quiet_;  // while nothing may disturb the unit
  Duration longest_wait_{0};    // of a request while clients worked
  std::string failure_;
  bool rivalry_ = false;
};

Unit::Shape shape_of(const ClusterOptions& o, Random r) {
  Unit::Shape s{o.heads, o.sleds, o.devices, o.volume_bytes / o.partitions, {}, o.device_bytes};
  if (o.operators) s.device_bytes *= 2;  // more partitions, each with columns of its own
  head::Options& h = s.head;
  s.column_bytes = o.column_bytes;
  h.segment_bytes = o.segment_bytes;
  h.meta_store_bytes = 256 << 10;  // so that its halves change often; each start reads it whole
  h.log_bytes = r.between(8, 32) * h.segment_bytes;
  if (!o.flush) h.log_bytes = 64 << 20;  // nothing will make room
  h.meta_segment_bytes = 256 << 10;
  h.meta_bytes = r.between(8, 24) * h.meta_segment_bytes;
  if (o.schedule == "trim-storm") h.meta_bytes = 8 * h.meta_segment_bytes;
  h.chunk_bytes = static_cast<std::uint32_t>(8192u << r.below(4));
  h.memory_bytes = r.chance(0.5) ? 1 << 20 : 64 << 20;
  h.codes_itself = o.heads_code;
  h.lease_reads = r.chance(0.7);
  h.flush_bytes = r.spread(64 << 10, 4 << 20);
  h.flush_age = Duration(r.spread(200'000'000, 20'000'000'000));
  h.flush_idle = Duration(r.spread(50'000'000, 3'000'000'000));
  h.replace_after = o.schedule.empty() ? h.flush_age / 2 : Duration(std::chrono::hours(1));  // who leads to the brink counts on who is there
  // With the product's own limits a short fault would seldom be long enough to be seen as slowness.
  if (r.chance(0.7) || o.schedule.starts_with("slow-")) h.latency = {.floor = 3ms, .gap = 1s, .window = 200ms, .samples = 12, .windows = 2};
  if (o.quiet) h.latency = {}, s.cards_fail = false;
  if (o.schedule == "replaced-returns") h.replace_after = 800ms;
  if (o.schedule == "late-answers" || o.schedule == "restart-in-lease") h.lease_reads = true;
  if (o.schedule == "rotten-log") h.memory_bytes = 64 << 10, h.flush_idle = h.flush_age = 20s, h.flush_bytes = 4 << 20;
  using Checkpoints = head::Options::Checkpoints;
  h.checkpoints = r.chance(0.4) ? Checkpoints::none : r.chance(0.2) ? Checkpoints::primary : Checkpoints::all;
  h.checkpoint_chunk_bytes = r.chance(0.5) ? 4096 : 8192;
  h.checkpoint_growth = r.spread(1, 256 << 10);
  h.checkpoint_age = Duration(r.spread(200'000'000, 20'000'000'000));
  h.checkpoint_chain = static_cast<std::uint32_t>(r.below(7));
  if (o.schedule == "lost-disk") h.checkpoints = Checkpoints::all, h.checkpoint_age = 300ms, h.checkpoint_growth = 4 << 10;
  h.checkpoint_percent = o.schedule != "lost-disk" && r.chance(0.3) ? 200 : 1'000'000;  // of the few metadata records that such a volume has
  // In most seeds the metadata portion stays as it is, so that what rests on its fill is come to; in the others it soon has to grow.
  h.meta_bytes_most = 0;
  if (r.chance(0.3)) h.meta_bytes = 4 * h.meta_segment_bytes, h.meta_bytes_most = 64 << 20;
  h.io_timeout = Duration(r.spread(6'000'000'000, 30'000'000'000));  // above what a stall of the slowest disk takes
  if (r.chance(0.5)) h.stuck_member = h.io_timeout / 2;
  return s;
}

Cluster::Cluster(const ClusterOptions& o)
    : o_(o), sim_(o.seed), unit_(sim_, shape_of(o, sim_.random().fork()),
                                 [this](Node n, const std::string& who, const Status& s) { could_not_start(n, who, s); }),
      media_(sim_, unit_) {
  sim_.trace(o.trace);
  on_witnessed([this](Fact f, VpId vp, std::uint64_t value, std::uint64_t more) {
    if (judge_) judge_->witness(f, vp, value, more);
    if (operators_ && f == Fact::stored) operators_->stored(vp);
    if (quiet_) quiet_->witness(f, vp, value);
  });
  on_reached([this](Path p) {
    traps_.on_path(p);
    if (quiet_) quiet_->on_path(p);
  });
}

Cluster::~Cluster() {
  for (Node n = 0; n < sim_.nodes(); ++n)
    if (sim_.up(n)) sim_.crash(n, Crash::power);
  on_witnessed({});
  on_reached({});
}

void Cluster::fail(const std::string& why) {
  if (failure_.empty()) failure_ = why;
  if (sim_.tracing()) sim_.log("FAILED: " + why);
}

void Cluster::phase(const std::string& name) {
  if (sim_.tracing() && !failed()) sim_.log("== " + name);
}

bool Cluster::all(const std::function<bool(Tenant&)>& f) const {
  return std::all_of(tenants_.begin(), tenants_.end(), [&](auto& t) { return f(*t); });
}

void Cluster::could_not_start(Node n, const std::string& who, const Status& s) {
  bool full = unit_.is_head(n) && std::find(full_.begin(), full_.end(), n - unit_.head_nodes()[0]) != full_.end();
  if (sim_.tracing()) sim_.log(who + " does not start: " + s.to_string());
  if (unit_faults_ && unit_faults_->ailing(n)) return;  // started again when its errors end
  if (damage_ && damage_->bad(n) && (s.code() == Code::corrupt || s.code() == Code::io_error || s.code() == Code::invalid))
    return damage_->could_not_start(n);
  if (!full || s.code() != Code::no_space) return fail(who + " does not start: " + s.to_string());
  sim_.after(1s, [this, n] {
    sim_.disk(n).faults.capacity = ~std::uint64_t{0};
    sim_.crash(n, Crash::process);
    sim_.restart(n);
  });
}

bool Cluster::until(const std::function<bool()>& done, Duration limit, const std::string& what) {
  if (failed()) return false;
  bool ok = sim_.run_until([&] { return failed() || done(); }, limit);
  if (!ok && !damage_->beyond_help())
    fail("not live: " + what + " after " + std::to_string(limit.count() / 1'000'000'000) + " s" + open_requests());
  return ok && !failed();
}

std::string Cluster::open_requests() const {
  std::string text;
  for (auto& t : tenants_) {
    for (auto op : t->load->history().open_ops())
      if (text.size() < 2000) text += "\n  open: " + t->load->history().describe(op);
    if (t->present) text += "\n  " + t->name + ": " + t->present->waiting();
  }
  for (std::size_t i = 0; i < unit_.heads().size(); ++i)
    if (head::Head* h = unit_.heads()[i]) text += "\n  head " + std::to_string(kFirstHead + i) + ": " + h->report();
  return text;
}

void Cluster::make_tenants() {
  NodeId client = kFirstClient;
  for (std::uint32_t v = 0; v < o_.volumes; ++v) {
    auto t = std::make_unique<Tenant>();
    t->name = "volume-" + std::to_string(v + 1);
    t->partition_bytes = o_.volume_bytes / o_.partitions;
    t->rivals = o_.rival;
    t->rivalry = [this] { return rivalry_; };
    t->fail = [this](const std::string& why) { if (!damage_->reckless()) fail(why); };
    Random& r = sim_.random();
    t->load = std::make_unique<Workload>(sim_, Workload::Options{
        .volume_bytes = o_.volume_bytes, .hot_blocks = o_.schedule == "two-views" ? 160 : r.spread(4, 128), .workers = static_cast<std::uint32_t>(r.between(2, 8)),
        .pause = o_.calm ? Duration(r.spread(20'000'000, 80'000'000)) : Duration(r.spread(1'000'000, 60'000'000)),
        .linger = o_.rival, .wide = o_.wide, .widest = o_.segment_bytes < 2 << 20 ? 64u : kMaxOpBlocks, .partition_bytes = o_.volume_bytes / o_.partitions});
    if (o_.schedule == "trim-storm") t->load->storm();
    for (int rival = 0; rival <= (o_.rival ? 1 : 0); ++rival) add_client(sim_, *t, client++, rival != 0);
    tenants_.push_back(std::move(t));
  }
}

void Cluster::make_chaos() {
  std::vector<Node> all;
  for (Node n = 0; n < sim_.nodes(); ++n) all.push_back(n);
  std::vector<Node> storage = unit_.head_nodes();
  storage.insert(storage.end(), unit_.sled_nodes().begin(), unit_.sled_nodes().end());
  storage.push_back(unit_.control_node());
  // Heads are what the protocol is about: they fail more often than the others.
  std::vector<Node> crashable = all;
  for (int i = 0; i < 3; ++i) crashable.insert(crashable.end(), unit_.head_nodes().begin(), unit_.head_nodes().end());
  unit_faults_ = std::make_unique<UnitFaults>(sim_, unit_, *damage_, traps_);
  schedules_ = std::make_unique<Schedules>(sim_, unit_, *damage_, traps_, tenants_);
  std::vector<Node> clients;
  for (auto& t : tenants_) clients.insert(clients.end(), t->clients.begin(), t->clients.end());
  Chaos::Options c{.crashable = crashable, .networked = all, .all_at_once = storage};
  c.pair = [this, clients](Random& r) { return unit_.talking(r, clients); };
  c.more = damage_->faults();
  for (Chaos::Fault& f : unit_faults_->faults()) c.more.push_back(std::move(f));
  c.healing = [this] { traps_.clear(), damage_->heal(), unit_faults_->heal(); };
  if (!o_.schedule.empty()) c.directed = schedules_->fault(o_.schedule);
  if (o_.schedule == "log-reused" || o_.schedule == "trim-storm") c.interval = 1500ms;
  else if (o_.least >= 60s) c.interval = Duration(sim_.random().spread(40'000'000, 10'000'000'000));
  c.clocks_jump = !unit_.shape().head.lease_reads;
  chaos_ = std::make_unique<Chaos>(sim_, std::move(c));
}

void Cluster::make_volumes() {
  phase("start");
  auto registered = [this] {
    control::Control* c = unit_.control();
    return c && c->registry().alive("head").size() == o_.heads && c->registry().alive("sled").size() == o_.sleds;
  };
  if (!sim_.run_until([&] { return failed() || registered(); }, 20s)) return fail("not live: not all daemons have registered after 20 s");
  for (auto& t : tenants_) {
    if (failed()) return;
    auto v = unit_.control()->volumes().create({.name = t->name, .bytes = o_.volume_bytes, .layout = o_.layout,
                                                .copies = std::min<std::uint32_t>(3, o_.heads)});
    if (!v.ok()) return fail("volume create: " + v.status().to_string());
  }
}

void Cluster::work() {
  if (!until([&] { return all([](Tenant& t) { return t.present != nullptr; }); }, 20s, "volumes are not open at the start")) return;
  phase("clients work, faults come and go");
  rivalry_ = o_.rival;
  if (o_.quiet) quiet_.emplace();
  if (o_.faults) chaos_->start();
  if (o_.operators) {
    operators_ = std::make_unique<Operators>(sim_, unit_, tenants_, *chaos_, !damage_->reckless(), !damage_->bad_head(), Random(o_.seed ^ 0x6f70657261746f72));
    operators_->start();
  }
  Duration begin = sim_.now(), remember = begin;
  auto enough = [&] {
    if (sim_.now() >= remember) {
      unit_.remember_store();
      remember = sim_.now() + 200ms;
    }
    std::uint64_t started = 0;
    for (auto& t : tenants_) started += t->load->started();
    return sim_.now() - begin >= o_.least && started >= o_.requests;
  };
  const bool came = sim_.run_until([&] { return failed() || enough(); }, o_.most);
  if (!came && quiet_) fail("no fault, and yet fewer than " + std::to_string(o_.requests) + " requests were begun in " + std::to_string(o_.most.count() / 1'000'000'000) + " s" + open_requests());
  rivalry_ = false;
  if (operators_) operators_->stop();
  chaos_->heal();
  sim_.run_until([&] { return unit_.control() != nullptr; }, 5s);  // it starts again just now, if it was down
  schedules_->heal();
}

// All requests are answered, also those that had to wait for the heal.
void Cluster::settle() {
  phase("healed: everything is answered");
  for (auto& t : tenants_) t->load->stop();
  for (auto& t : tenants_) {
    auto quiet = [&] { return t->load->open() == 0 && t->present != nullptr; };
    auto error = [&] { return !t->load->error().empty() && !damage_->reckless(); };
    until([&] { return error() || quiet(); }, 60s, t->name + " has open requests");
    if (error()) return fail("a client saw an error: " + t->load->error());
  }
}

// Asked when all has been answered: what hung when clients stopped has waited, too.
void Cluster::quiet_kept() {
  for (auto& t : tenants_) {
    longest_wait_ = std::max(longest_wait_, t->waited());
    if (quiet_) quiet_->waited(t->name, t->waited());
  }
  if (quiet_ && !quiet_->disturbance().empty()) fail(quiet_->disturbance());
  quiet_.reset();
}

// All volumes are as large as was asked for, to their ends.
void Cluster::as_operators_want(const char* when) {
  if (!operators_ || failed()) return;
  phase(std::string("what has been asked for is so ") + when);
  bool ok = sim_.run_until([&] { return failed() || operators_->settled(); }, 90s);
  if (!ok && !damage_->beyond_help()) return fail(std::string("not live: not as operators want it ") + when + ":" + operators_->unsettled() + open_requests());
  operators_->begin_read_back();
  if (ok) until([&] { return !operators_->failure().empty() || operators_->read_back(); }, 60s, std::string("what volumes have grown by cannot be read ") + when);
  if (!operators_->failure().empty()) fail(operators_->failure());
}

// With no fault in the way an operator gets a copy moved.
void Cluster::move_again() {
  if (!operators_ || failed() || damage_->reckless()) return;
  phase("a copy of each volume is moved");
  bool ok = sim_.run_until([&] { return failed() || !operators_->failure().empty() || operators_->moved_again(); }, 60s);
  if (!operators_->failure().empty()) return fail(operators_->failure());
  if (!ok && !damage_->beyond_help()) fail("not live: a copy cannot be moved after the heal:" + operators_->unsettled() + open_requests());
}

void Cluster::read_back(const char* when) {
  phase(std::string("read back ") + when);
  for (auto& t : tenants_) {
    if (failed() || !until([&] { return t->present != nullptr; }, 60s, std::string("attached again ") + when)) return;
    auto done = std::make_shared<bool>(false);
    sim_.world(t->present_node).spawn("read back", [](io::World& w, Workload& l, Target& target, std::shared_ptr<bool> done) -> Task<void> {
      co_await l.read_back(w, target);
      *done = true;
    }(sim_.world(t->present_node), *t->load, *t->present, done));
    auto error = [&] { return !t->load->error().empty() && !damage_->reckless(); };
    until([&] { return error() || *done; }, 60s, t->name + " cannot be read " + when);
    if (error()) return fail(std::string("a client saw an error ") + when + ": " + t->load->error());
    if (failed()) return;
    if (auto bad = t->load->history().check()) return fail(t->name + ", seen " + when + ": " + *bad);
  }
}

void Cluster::flush() {
  phase("flush");
  for (auto& t : tenants_)
    if (!failed()) flush(*t);
}

void Cluster::flush(Tenant& t) {
  struct Answer {
    Result<std::uint64_t> left{Status(Code::internal, "not asked")};
    bool done = false;
  };
  std::string last;
  bool flushed = false;
  auto ask = [](Unit& u, std::string name, std::shared_ptr<Answer> a) -> Task<void> {
    a->left = co_await u.control()->volumes().flush(name, 20s);
    a->done = true;
  };
  for (Duration end = sim_.now() + 60s; !flushed && sim_.now() < end; sim_.run_for(200ms)) {
    auto a = std::make_shared<Answer>();
    if (!until([&] { return unit_.control() != nullptr; }, 10s, "no control plane")) return;
    sim_.world(unit_.control_node()).spawn("flush", ask(unit_, t.name, a));
    if (!until([&] { return a->done; }, 30s, "flush does not end")) return;
    flushed = a->left.ok() && *a->left == 0;
    last = a->left.ok() ? std::to_string(*a->left) + " bytes left" : a->left.status().to_string();
  }
  if (!flushed && !damage_->reckless()) fail("not live: flush of " + t.name + ": " + last + open_requests());
}

void Cluster::promises_kept() {
  if (!judge_->broken_promise().empty()) fail(judge_->broken_promise());
}

void Cluster::replicas_agree() {
  promises_kept();
  if (failed()) return;
  bool ok = sim_.run_until([&] { return judge_->disagreement().empty(); }, 20s);
  if (!ok && !damage_->reckless()) fail("replicas disagree: " + judge_->disagreement() + open_requests());
  if (failed()) return;
  if (std::string lacks = judge_->not_in_log(); !lacks.empty()) fail(lacks);
}

void Cluster::stripes_whole() {
  if (failed()) return;
  if (std::string bad = judge_->bad_stripe(); !bad.empty()) fail(bad);
}

void Cluster::cold_start() {
  if (failed()) return;
  phase("cold start of all heads");
  for (Node n : unit_.head_nodes())
    if (sim_.up(n)) sim_.crash(n, Crash::power);
  sim_.run_for(100ms);
  for (Node n : unit_.head_nodes())
    if (!chaos_->given_up(n) && !sim_.up(n)) sim_.restart(n);
}

// As many as the layout allows, or as damage and stripes that stay narrower (protocol 8.5) have left.
void Cluster::lose_sleds() {
  if (failed() || damage_->reckless()) return;
  // A stripe written while sleds were down may have no more than k + 1 chunks; with enough sleds back it gets the others.
  auto is_up = [this](Node n) { return sim_.up(n); };
  auto narrow = [](head::Head* h) { return h && h->narrow_stripes() != 0; };
  if (std::count_if(unit_.sled_nodes().begin(), unit_.sled_nodes().end(), is_up) >= o_.layout.width())
    until([&] { return std::none_of(unit_.heads().begin(), unit_.heads().end(), narrow); }, 60s, "stripes stay narrow");
  // What a sled holds that cannot start counts below until its disk has been replaced.
  if (!failed()) until([&] { return !damage_->replacing(); }, 60s, "a disk is to be replaced");
  if (failed()) return;
  std::vector<Node> gone, candidates = unit_.sled_nodes();
  while (gone.size() < o_.layout.m && !candidates.empty()) {
    std::size_t pick = sim_.random().below(candidates.size());
    gone.push_back(candidates[pick]);
    candidates.erase(candidates.begin() + static_cast<std::ptrdiff_t>(pick));
    if (!sim_.up(gone.back()) || !judge_->can_lose(gone)) gone.pop_back();
  }
  for (Node n : gone) sim_.crash(n, Crash::power);
  read_back("with sleds gone");
  for (Node n : gone) sim_.restart(n);
}

// What has come through all that must still be of use: the unit takes writes, and keeps them.
void Cluster::work_again(const char* when) {
  constexpr std::uint64_t kRequests = 40;
  phase(std::string("clients work ") + when);
  for (auto& t : tenants_) {
    if (failed() || !until([&] { return t->present != nullptr; }, 60s, t->name + " attached " + when)) return;
    t->load->go_on(sim_.world(t->present_node), *t->present, kRequests);
  }
  until([&] { return all([](Tenant& t) { return (t.load->done() && t.load->open() == 0) || !t.load->error().empty(); }); }, 60s, std::string("requests are open ") + when);
  settle();
}

void Cluster::cold_start_of_everything() {
  if (failed()) return;
  phase("cold start of everything");
  for (Node n = 0; n < sim_.nodes(); ++n)
    if (sim_.up(n)) sim_.crash(n, Crash::power);
  sim_.run_for(100ms);
  for (Node n = 0; n < sim_.nodes(); ++n)
    if (!chaos_->given_up(n) && !sim_.up(n)) sim_.restart(n);
}

// Once all is well again nothing is missing: whoever was let go is back, or another has taken the place. To be asked for before anything begins
// anew, too: members that get into each other's way for ever start over with the next epoch.
void Cluster::all_copies(const char* when) {
  if (failed() || damage_->reckless()) return;
  phase(std::string("no copy is missing ") + when);
  const auto& heads = unit_.head_nodes();
  const auto left = static_cast<std::size_t>(std::count_if(heads.begin(), heads.end(), [this](Node n) { return !chaos_->given_up(n); }));
  if (left < heads.size() && !o_.schedule.empty()) return;  // nobody takes a lost one's place there (shape_of)
  const std::size_t wanted = std::min<std::size_t>(3, left);
  until([&] {
    const auto& all = unit_.store().designations;
    return std::all_of(all.begin(), all.end(), [wanted](const auto& d) { return d.second.required.size() >= wanted; });
  }, 60s, std::string("copies are missing ") + when);
}

void Cluster::everything_again() {
  if (failed() || damage_->reckless()) return;
  if (o_.flush) flush();
  work_again("when all is back");
  cold_start_of_everything();
  read_back("after a cold start of everything");
  work_again("after a cold start of everything");
  if (o_.flush) flush();
  read_back("at the end");
  all_copies("at the end");
  replicas_agree();
  if (o_.flush) stripes_whole();
}

ClusterResult Cluster::run() {
  if (sim_.random().chance(0.1)) full_.push_back(sim_.random().below(o_.heads));
  if (o_.quiet) full_.clear();
  unit_.start(full_);
  make_tenants();
  damage_ = std::make_unique<Damage>(sim_, unit_, media_, o_.layout, o_.schedule == "rotten-log" || o_.schedule == "lost-disk");
  judge_ = std::make_unique<Judge>(sim_, unit_, media_, *damage_);
  make_chaos();
  make_volumes();
  if (!failed()) work();
  settle();
  quiet_kept();
  read_back("after the heal");
  as_operators_want("after the heal");
  all_copies("after the heal");
  move_again();
  replicas_agree();
  if (o_.flush) {
    flush();
    read_back("after a flush");
    replicas_agree();
    if (o_.faults && sim_.random().chance(0.5)) damage_->rot_chunks();
    stripes_whole();
  }
  cold_start();
  read_back("after a cold start of all heads");
  as_operators_want("after a cold start");
  replicas_agree();
  if (o_.flush) lose_sleds();
  everything_again();
  promises_kept();
  return result();
}

ClusterResult Cluster::result() const {
  ClusterResult r;
  if (failed()) r.failure = o_.describe() + "\n" + failure_;
  r.trace_hash = sim_.trace_hash();
  r.events = sim_.events();
  for (auto& t : tenants_) r.answered += t->load->answered();
  r.faults = chaos_->faults();
  r.virtual_seconds = static_cast<double>(sim_.now().count()) * 1e-9;
  r.fault_summary = chaos_->summary() + (o_.quiet ? "; longest wait " + std::to_string(longest_wait_.count() / 1'000'000) + " ms" : "") + (operators_ ? operators_->summary() : "") + (damage_->reckless() ? " (reckless)" : "");
  return r;
}

}  // namespace

ClusterOptions ClusterOptions::from_seed(std::uint64_t seed, bool is_long) {
  ClusterOptions o;
  o.seed = seed;
  Random r(seed ^ 0x746f706f6c6f6779);
  static constexpr Layout layouts[] = {{4, 2}, {4, 2}, {2, 1}, {2, 2}, {3, 2}};
  o.heads = static_cast<std::uint32_t>(r.between(3, is_long ? 9 : 5));
  o.layout = layouts[r.below(5)];
  o.sleds = o.layout.width() + static_cast<std::uint32_t>(r.below(3));
  if (is_long) o.sleds = static_cast<std::uint32_t>(r.between(6, 24));
  o.devices = static_cast<std::uint32_t>(r.between(1, 2));
  o.volumes = r.chance(0.3) ? 2 : 1;
  o.volume_bytes = r.between(1, 4) << 20;
  o.partitions = r.chance(0.3) ? 2 : 1;
  o.requests = r.between(200, 800);
  o.least = 4s;
  o.rival = r.chance(0.25);
  if (r.chance(0.45)) {
    const auto& names = Schedules::names();
    o.direct(names[r.below(Schedules::kDrawnAlike)]);
  } else if (r.chance(0.08)) {
    o.direct("lost-disk");
  }
  Random later(seed ^ 0x6c61746572);  // what has been thought of later: it leaves the seeds that it does not touch as they were
  if (o.schedule.empty() && later.chance(0.06)) o.direct("replaced-returns");
  if (o.schedule.empty() && later.chance(0.4)) o.operators = true;
  if (is_long) {
    o.volumes = static_cast<std::uint32_t>(r.between(1, 3));
    o.requests = 5000;
    o.calm = r.chance(0.8);  // some thousand requests a minute; the others as many as the unit can
    o.least = 60s;
    o.most = 240s;
    o.device_bytes = o.calm ? 128 << 20 : 512 << 20;  // space on sleds is not used again: what is written in a minute must fit
  }
  o.widen(seed, is_long);
  return o;
}

// A third of the seeds have partitions of more than two pages of the index, requests of up to 1 MiB, most of them segments that those fit
// into, and half of them columns that soon are full and are claimed anew. Drawn apart from all else, and with a number for which none of
// the seeds is one that seeds.txt and mutants.txt had when this came: what those were kept for would be another history.
void ClusterOptions::widen(std::uint64_t seed, bool is_long) {
  Random r(seed ^ 0x6d70d677696465);
  if (!r.chance(0.33)) return;
  partitions = static_cast<std::uint32_t>(r.between(1, 3));
  if (schedule == "two-views") partitions = 1;
  volume_bytes = partitions * (r.between(5, 7) << 20);
  if (r.chance(0.6)) segment_bytes = 2 << 20;
  if (r.chance(0.5)) column_bytes = 256 << 10;
  wide = !is_long ? 0.04 : calm ? 0.01 : 0.001;
  device_bytes = std::max<std::uint64_t>(device_bytes, 256 << 20);
}

// These take some seconds each and want to be tried several times.
void ClusterOptions::direct(const std::string& name) {
  bool storm = name == "log-reused" || name == "trim-storm";
  schedule = name;
  operators = false;  // whom it counts on must be there
  least = std::max<io::Duration>(least, storm ? 6s : 18s);
  most = std::max<io::Duration>(most, 30s);
  calm = !storm;
  if (name == "two-views") rival = true, partitions = 1;
  if (name == "replaced-returns") heads = std::max(heads, 4u);  // one to take the place
}

void ClusterOptions::be_quiet() {
  quiet = true;
  faults = rival = operators = false;
  schedule.clear();
}

std::string ClusterOptions::describe() const {
  return std::to_string(heads) + " heads, " + std::to_string(sleds) + " sleds of " + std::to_string(devices) + " devices, " +
         std::to_string(volumes) + " volumes of " + std::to_string(partitions) + " partitions, " + to_string(layout) + " of " + std::to_string(volume_bytes >> 20) + " MiB, " +
         std::to_string(requests) + " requests" + (wide > 0 ? ", long ones among them" : "") + (rival ? ", a rival client" : "") + (operators ? ", operators" : "") + (quiet ? ", quiet" : "") +
         (schedule.empty() ? "" : ", schedule " + schedule);
}

ClusterResult run_cluster(const ClusterOptions& options) {
  Cluster cluster(options);
  return cluster.run();
}

}  // namespace luge::sim
