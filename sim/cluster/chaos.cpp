#include "sim/cluster/chaos.hpp"

#include <algorithm>

namespace luge::sim {

// How many kinds a seed has is log-uniform: a single kind shows a bug undisturbed, many meet each other.
Chaos::Chaos(Simulation& sim, Options options) : sim_(sim), options_(std::move(options)), random_(sim.random().fork()) {
  std::vector<Fault> all = own_faults();
  std::move(options_.more.begin(), options_.more.end(), std::back_inserter(all));
  std::size_t kinds = std::min<std::size_t>(random_.spread(1, 16), all.size());
  while (mix_.size() < kinds) {
    std::size_t i = random_.below(all.size());
    mix_.push_back(std::move(all[i]));
    all.erase(all.begin() + static_cast<std::ptrdiff_t>(i));
  }
  if (options_.directed) {
    bool others = random_.chance(0.25);
    mix_.resize(others ? std::min<std::size_t>(mix_.size(), 2) : 0);
    for (std::size_t i = 0, share = 2 * mix_.size() + 1; i < share; ++i) mix_.push_back(*options_.directed);
    interval_ = options_.interval != Duration(0) ? options_.interval : Duration(random_.between(4'500'000'000, 9'000'000'000));
    return;
  }
  interval_ = options_.interval != Duration(0) ? options_.interval : Duration(random_.spread(20'000'000, 1'280'000'000));
}

std::vector<Chaos::Fault> Chaos::own_faults() {
  auto& net = sim_.fabric();
  auto node = [this] { return any(options_.networked); };
  auto crash = [this](Crash how) {
    return [this, how](Chaos&) { down_while_writing(any(options_.crashable), how, random_.chance(0.5) ? 500 : 0); };
  };
  std::vector<Fault> faults;
  faults.push_back({"kill", crash(Crash::process)});
  faults.push_back({"power cut", crash(Crash::power)});
  faults.push_back({"power cut of all", [this](Chaos&) {
    // Rare in the field and in the mix: everything at once hides finer faults.
    if (!random_.chance(0.15)) return;
    for (Node n : options_.all_at_once) down(n, Crash::power, how_long());
  }});
  faults.push_back({"pause", [this](Chaos&) { pause(any(options_.crashable), how_long()); }});
  faults.push_back({"long pause", [this](Chaos&) {
    // Longer than any time-out: who wakes up finds that the world has gone on without it.
    if (random_.chance(0.3)) pause(any(options_.crashable), Duration(random_.spread(3'000'000'000, 80'000'000'000)));
  }});
  faults.push_back({"cut", [this, &net](Chaos&) {
    auto [a, b] = pair();
    net.cut_both(a, b);
    undo_later([&net, a = a, b = b] { net.heal(a, b), net.heal(b, a); });
  }});
  faults.push_back({"one-way cut", [this, &net](Chaos&) {
    auto [a, b] = pair();
    net.cut(a, b);
    undo_later([&net, a = a, b = b] { net.heal(a, b); });
  }});
  faults.push_back({"isolation", [this, node](Chaos&) { isolate(node()); }});
  faults.push_back({"bridge", [this, node](Chaos&) { bridge(node()); }});
  faults.push_back({"slow link", [this, &net](Chaos&) {
    auto [a, b] = pair();
    net.slow(a, b, Duration(random_.spread(1'000'000, 400'000'000)));
    undo_later([&net, a = a, b = b] { net.slow(a, b, Duration(0)); });
  }});
  faults.push_back({"reset", [this, &net](Chaos&) {
    auto [a, b] = pair();
    net.reset(a, b);
  }});
  faults.push_back({"late messages", [this](Chaos&) {
    auto [a, b] = pair();
    late_messages(a, b);
  }});
  faults.push_back({"slow disk", [this, node](Chaos&) {
    Node a = node();
    sim_.disk(a).faults.slow = static_cast<double>(random_.between(3, 100));
    undo_later([this, a] { sim_.disk(a).faults.slow = 1; });
  }});
  faults.push_back({"clock", [this, node](Chaos&) {
    // Rates differ by less than 1 %, as lease reads ask for; nothing else rests on that, nor on a clock that does not jump.
    sim_.set_clock(node(), options_.clocks_jump && random_.chance(0.3) ? how_long() : Duration(0), 0.996 + 0.008 * random_.unit());
  }});
  return faults;
}

void Chaos::start() {
  active_ = true;
  schedule();
}

void Chaos::schedule() {
  auto mean = static_cast<std::uint64_t>(interval_.count());
  Duration next(random_.below(2 * mean));
  if (options_.directed) next = Duration(injected_++ == 0 ? random_.below(mean / 4) : mean * 3 / 4 + random_.below(mean / 2));
  sim_.after(next, [this] {
    if (!active_) return;
    inject();
    schedule();
  });
}

void Chaos::inject() {
  Fault& fault = mix_[random_.below(mix_.size())];
  ++count_[fault.name];
  if (sim_.tracing()) sim_.log("fault: " + fault.name);
  fault.inject(*this);
}

void Chaos::undo_after(Duration d, std::function<void()> undo) {
  sim_.after(d, [this, undo = std::move(undo)] {
    if (active_) undo();
  });
}

void Chaos::down(Node n, Crash how, Duration for_how_long) {
  if (!sim_.up(n)) return;
  sim_.crash(n, how);
  undo_after(for_how_long, [this, n] {
    if (!sim_.up(n) && !given_up(n)) sim_.restart(n);
  });
}

void Chaos::down_while_writing(Node n, Crash how, int patience) {
  if (!active_ || !sim_.up(n)) return;
  if (sim_.disk(n).writing() || patience == 0) {
    down(n, how, how_long());
    return;
  }
  sim_.after(20us, [this, n, how, patience] { down_while_writing(n, how, patience - 1); });
}

void Chaos::pause(Node n, Duration for_how_long) {
  if (!sim_.up(n)) return;
  sim_.pause(n);
  undo_after(for_how_long, [this, n] { sim_.resume(n); });
}

std::pair<Node, Node> Chaos::pair() {
  if (options_.pair) return options_.pair(random_);
  Node a = any(options_.networked);
  return {a, any(options_.networked)};
}

// The link slows down until something is on its way, then the connection breaks: what was sent over it arrives after what
// is sent again over the next one.
void Chaos::late_messages(Node a, Node b) {
  auto& net = sim_.fabric();
  Duration slow = Duration(random_.spread(1'000'000, 200'000'000));
  net.slow(a, b, 2 * slow);
  undo_after(slow, [this, &net, a, b] {
    net.slow(a, b, Duration(0));
    net.strand(a, b, how_long());
  });
}

void Chaos::isolate(Node a) {
  auto& net = sim_.fabric();
  for (Node n : options_.networked)
    if (n != a) net.cut_both(a, n);
  undo_later([this, &net, a] {
    for (Node n : options_.networked) net.heal(a, n), net.heal(n, a);
  });
}

// Two halves that cannot see each other; one node sees both.
void Chaos::bridge(Node a) {
  auto& net = sim_.fabric();
  std::vector<std::pair<Node, Node>> pairs;
  std::vector<bool> half(sim_.nodes());
  for (Node n : options_.networked) half[n] = random_.chance(0.5);
  for (Node x : options_.networked)
    for (Node y : options_.networked)
      if (x != a && y != a && half[x] != half[y]) pairs.emplace_back(x, y);
  for (auto [x, y] : pairs) net.cut(x, y);
  undo_later([&net, pairs] {
    for (auto [x, y] : pairs) net.heal(x, y);
  });
}

void Chaos::give_up(Node n) {
  if (sim_.tracing()) sim_.log(sim_.name(n) + " is gone for good");
  given_up_.push_back(n);
  if (sim_.up(n)) sim_.crash(n, Crash::power);
}

bool Chaos::given_up(Node n) const { return std::find(given_up_.begin(), given_up_.end(), n) != given_up_.end(); }

void Chaos::heal() {
  active_ = false;
  if (sim_.tracing()) sim_.log("heal: " + summary());
  sim_.fabric().heal_all();
  for (Node n = 0; n < sim_.nodes(); ++n) sim_.disk(n).faults.slow = 1;
  if (options_.healing) options_.healing();
  for (Node n = 0; n < sim_.nodes(); ++n) {
    if (sim_.up(n))
      sim_.resume(n);
    else if (!given_up(n))
      sim_.restart(n);
  }
}

std::uint64_t Chaos::faults() const {
  std::uint64_t sum = 0;
  for (auto& [name, n] : count_) sum += n;
  return sum;
}

std::string Chaos::summary() const {
  std::string text;
  for (auto& [name, n] : count_) text += (text.empty() ? "" : ", ") + std::to_string(n) + " " + name;
  return text.empty() ? "no faults" : text;
}

}  // namespace luge::sim
