#include "sim/cluster/simulation.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "base/check.hpp"

namespace luge::sim {

struct Simulation::NodeState {
  Simulation* sim;
  Node index;
  std::string name;
  Boot boot;
  Disk disk;
  std::deque<std::function<void()>> queue;
  bool queued = false;  // stands in runnable_
  bool paused = false;
  std::unique_ptr<SimWorld> world;
  std::shared_ptr<void> daemon;
  // Local time = base_local + (true time - base_true) * rate.
  Duration base_true{0}, base_local{0};
  double rate = 1.0;

  NodeState(Simulation* s, Node i, std::string n, Boot b, Random r)
      : sim(s), index(i), name(std::move(n)), boot(std::move(b)), disk(r) {}

  Duration local() const {
    return base_local + Duration(static_cast<std::int64_t>(static_cast<double>((sim->now() - base_true).count()) * rate));
  }
  Duration true_time(Duration local_time) const {
    return base_true + Duration(static_cast<std::int64_t>(static_cast<double>((local_time - base_local).count()) / rate) + 1);
  }
};

namespace {
Simulation* newest = nullptr;  // for log lines only
}  // namespace

class SimWorld final : public io::World {
 public:
  SimWorld(Simulation& sim, Simulation::NodeState& node, Random random)
      : sim_(sim), node_(node), random_(random),
        network_(*this, sim.fabric(), node.index), files_(*this, node.disk) {}
  ~SimWorld() override { *alive_ = false; }

  io::Time now() override { return io::Time(node_.local()); }
  std::int64_t wall_clock_ns() override { return 1'700'000'000'000'000'000 + node_.local().count(); }
  std::uint64_t random() override { return random_.next(); }
  // Of a copy: a history does not change with who asks for secrets.
  std::array<std::uint8_t, 32> secret() override {
    std::array<std::uint8_t, 32> s;
    Random copy = random_;
    for (std::uint8_t& b : s) b = static_cast<std::uint8_t>(copy.next());
    return s;
  }
  io::Network& network() override { return network_; }
  io::Files& files() override { return files_; }

 protected:
  void has_ready() override {
    sim_.enqueue(node_, [this] {
      if (!run_ready()) has_ready();
    });
  }
  void start(std::coroutine_handle<> task) override { sim_.enqueue(node_, task); }
  // A wake-up is never earlier than a microsecond from now: a loop around yield() must not stop time.
  void wake_at(io::Time t) override {
    Duration at = std::max(node_.true_time(t.time_since_epoch()), sim_.now() + 1us);
    if (wake_ && *wake_ > sim_.now() && *wake_ <= at) return;  // an earlier request stands and will ask again
    wake_ = at;
    std::uint64_t mine = ++request_;
    sim_.after(at - sim_.now(), [this, mine, alive = alive_] {
      if (!*alive || mine != request_) return;
      wake_.reset();
      // Through the node's queue, so that a paused node's timers wait too.
      post([this] { run_timers(); });
    });
  }

 private:
  Simulation& sim_;
  Simulation::NodeState& node_;
  Random random_;
  SimNetwork network_;
  SimFiles files_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  std::optional<Duration> wake_;
  std::uint64_t request_ = 0;
};

Simulation::Simulation(std::uint64_t seed)
    : random_(seed), node_seeds_(random_.fork()), fabric_(*this, random_.fork()) {
  newest = this;
}

Simulation::~Simulation() {
  for (auto& n : nodes_)
    if (n->world) crash(n->index, Crash::power);
  newest = nullptr;
}

Node Simulation::add_node(std::string name, Boot boot) {
  Node index = static_cast<Node>(nodes_.size());
  nodes_.push_back(std::make_unique<NodeState>(this, index, std::move(name), std::move(boot), node_seeds_.fork()));
  // Clocks of different machines have nothing to do with each other.
  nodes_.back()->base_local = Duration(static_cast<std::int64_t>(random_.below(1'000'000'000'000)) + 1'000'000'000);
  restart(index);
  return index;
}

const std::string& Simulation::name(Node n) const { return nodes_.at(n)->name; }
bool Simulation::up(Node n) const { return nodes_.at(n)->world != nullptr; }
bool Simulation::paused(Node n) const { return nodes_.at(n)->paused; }
std::optional<Node> Simulation::current() const { return current_ ? std::optional<Node>(current_->index) : std::nullopt; }
Disk& Simulation::disk(Node n) { return nodes_.at(n)->disk; }

io::World& Simulation::world(Node n) {
  LUGE_CHECK(up(n));
  return *nodes_[n]->world;
}

void Simulation::restart(Node n) {
  NodeState& node = *nodes_.at(n);
  LUGE_CHECK(node.world == nullptr && current_ == nullptr);
  note(0x72657374, n);
  if (tracing_) log("start " + node.name);
  fabric_.node_back(n);
  node.world = std::make_unique<SimWorld>(*this, node, node_seeds_.fork());
  if (node.boot) node.daemon = node.boot(*node.world);
}

void Simulation::crash(Node n, Crash kind) {
  NodeState& node = *nodes_.at(n);
  LUGE_CHECK(node.world != nullptr && current_ == nullptr);
  note(0x63726173, n * 2 + (kind == Crash::power));
  if (tracing_) log(std::string(kind == Crash::power ? "power off " : "kill ") + node.name);
  fabric_.node_gone(n, kind == Crash::power);
  node.world->stop();
  node.paused = false;
  run_handlers(node);
  if (node.world->tasks() != 0) {
    std::fprintf(stderr, "%s: %zu tasks wait for something outside their World after stop()\n", node.name.c_str(),
                 node.world->tasks());
    std::abort();
  }
  node.daemon.reset();
  run_handlers(node);
  node.disk.crash(kind == Crash::power);
  node.world.reset();
}

void Simulation::pause(Node n) {
  note(0x70617573, n);
  if (tracing_) log("pause " + name(n));
  nodes_.at(n)->paused = true;
}

void Simulation::resume(Node n) {
  NodeState& node = *nodes_.at(n);
  note(0x7265736d, n);
  if (tracing_ && node.paused) log("resume " + node.name);
  node.paused = false;
  if (!node.queue.empty() && !node.queued) {
    node.queued = true;
    runnable_.push_back(&node);
  }
}

void Simulation::set_clock(Node n, Duration ahead, double rate) {
  LUGE_CHECK(ahead >= Duration(0) && rate > 0);
  NodeState& node = *nodes_.at(n);
  node.base_local = node.local() + ahead;
  node.base_true = now_;
  node.rate = rate;
}

void Simulation::enqueue(NodeState& n, std::function<void()> f) {
  n.queue.push_back(std::move(f));
  if (n.queued || n.paused) return;
  n.queued = true;
  runnable_.push_back(&n);
}

void Simulation::run_handlers(NodeState& n) {
  NodeState* outer = current_;
  current_ = &n;
  while (!n.queue.empty() && !n.paused) {
    if (++handlers_at_this_time_ > 20'000'000) {
      std::fprintf(stderr, "%s: time does not move any more: a loop without a wait\n", n.name.c_str());
      std::abort();
    }
    std::function<void()> f = std::move(n.queue.front());
    n.queue.pop_front();
    f();
  }
  current_ = outer;
}

void Simulation::drain() {
  while (!runnable_.empty()) {
    NodeState& n = *runnable_.front();
    runnable_.pop_front();
    n.queued = false;
    run_handlers(n);
  }
}

void Simulation::after(Duration d, std::function<void()> f) {
  heap_.push_back({now_ + std::max(d, Duration(0)), sequence_++, std::move(f)});
  std::push_heap(heap_.begin(), heap_.end(), later);
}

bool Simulation::step(Duration limit) {
  drain();
  if (heap_.empty() || heap_.front().time > limit) return false;
  std::pop_heap(heap_.begin(), heap_.end(), later);
  Event e = std::move(heap_.back());
  heap_.pop_back();
  if (e.time > now_) handlers_at_this_time_ = 0;
  now_ = e.time;
  note(static_cast<std::uint64_t>(e.time.count()), e.sequence);
  e.fire();
  return true;
}

void Simulation::run_for(Duration d) {
  Duration limit = now_ + d;
  while (step(limit)) {}
  now_ = limit;
}

bool Simulation::run_until(const std::function<bool()>& done, Duration limit) {
  Duration end = now_ + limit;
  while (!done()) {
    if (step(end)) continue;
    if (done()) break;
    now_ = std::max(now_, end);
    return false;
  }
  return true;
}

void Simulation::run(Node n, io::Task<void> task, Duration limit) {
  auto finished = std::make_shared<bool>(false);
  world(n).spawn("run", [](io::Task<void> t, std::shared_ptr<bool> f) -> io::Task<void> {
    co_await std::move(t);
    *f = true;
  }(std::move(task), finished));
  LUGE_CHECK(run_until([&] { return *finished; }, limit));
}

void Simulation::note(std::uint64_t a, std::uint64_t b) {
  hash_ = (hash_ ^ a) * 0x100000001b3;
  hash_ = (hash_ ^ (hash_ >> 29) ^ b) * 0x9e3779b97f4a7c15;
}

std::string Simulation::here() {
  char text[64];
  const Simulation* s = newest;
  std::snprintf(text, sizeof text, "%12.6f %-10s", s ? static_cast<double>(s->now_.count()) * 1e-9 : 0.0,
                s && s->current_ ? s->current_->name.c_str() : "-");
  return text;
}

void Simulation::log(const std::string& text) { std::printf("%s %s\n", here().c_str(), text.c_str()); }

}  // namespace luge::sim
