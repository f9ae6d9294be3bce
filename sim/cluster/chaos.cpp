#include "sim/cluster/chaos.hpp"

namespace luge::sim {

Chaos::Chaos(Simulation& sim, Options options)
    : sim_(sim), options_(std::move(options)), random_(sim.random().fork()) {
  for (int k = 0; k < kinds_; ++k)
    if (random_.chance(0.5)) mix_.push_back(static_cast<Kind>(k));
  if (mix_.empty()) mix_.push_back(kill);
  interval_ = Duration(random_.spread(10'000'000, 640'000'000));
}

void Chaos::start() {
  active_ = true;
  schedule();
}

void Chaos::schedule() {
  sim_.after(Duration(random_.below(2 * static_cast<std::uint64_t>(interval_.count()))), [this] {
    if (!active_) return;
    inject();
    schedule();
  });
}

void Chaos::undo_later(std::function<void()> undo) {
  sim_.after(how_long(), [this, undo = std::move(undo)] {
    if (active_) undo();
  });
}

void Chaos::down(Node n, Crash how, Duration for_how_long) {
  if (!sim_.up(n)) return;
  sim_.crash(n, how);
  sim_.after(for_how_long, [this, n] {
    if (active_ && !sim_.up(n)) sim_.restart(n);
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

void Chaos::inject() {
  Kind kind = mix_[random_.below(mix_.size())];
  static constexpr const char* names[] = {"kill",   "power cut", "power cut of all", "pause",      "cut",       "one-way cut",
                                          "isolation", "bridge", "slow link",        "reset", "slow disk", "clock"};
  ++count_[names[kind]];
  Node a = any(options_.networked), b = any(options_.networked);
  auto& net = sim_.fabric();
  if (sim_.tracing()) sim_.log(std::string("fault: ") + names[kind] + " " + sim_.name(a) + " " + sim_.name(b));
  switch (kind) {
    // Half of them in the short moments that matter most.
    case kill: down_while_writing(any(options_.crashable), Crash::process, random_.chance(0.5) ? 500 : 0); break;
    case power: down_while_writing(any(options_.crashable), Crash::power, random_.chance(0.5) ? 500 : 0); break;
    case power_all:
      // Rare in the field and in the mix: everything at once hides finer faults.
      if (!random_.chance(0.15)) break;
      for (Node n : options_.all_at_once) down(n, Crash::power, how_long());
      break;
    case pause: {
      Node n = any(options_.crashable);
      if (!sim_.up(n)) break;
      sim_.pause(n);
      undo_later([this, n] { sim_.resume(n); });
      break;
    }
    case cut_both:
      net.cut_both(a, b);
      undo_later([&net, a, b] { net.heal(a, b), net.heal(b, a); });
      break;
    case cut_one_way:
      net.cut(a, b);
      undo_later([&net, a, b] { net.heal(a, b); });
      break;
    case isolate:
      for (Node n : options_.networked)
        if (n != a) net.cut_both(a, n);
      undo_later([this, &net, a] {
        for (Node n : options_.networked) net.heal(a, n), net.heal(n, a);
      });
      break;
    case bridge: {
      // Two halves that cannot see each other; one node sees both.
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
      break;
    }
    case slow_link:
      net.slow(a, b, Duration(random_.spread(1'000'000, 400'000'000)));
      undo_later([&net, a, b] { net.slow(a, b, Duration(0)); });
      break;
    case reset_link: net.reset(a, b); break;
    case slow_disk:
      sim_.disk(a).faults.slow = static_cast<double>(random_.between(3, 100));
      undo_later([this, a] { sim_.disk(a).faults.slow = 1; });
      break;
    case clock:  // rates differ by less than 1 %, and a suspended machine's clock has gone on
      sim_.set_clock(a, random_.chance(0.3) ? how_long() : Duration(0), 0.996 + 0.008 * random_.unit());
      break;
    case kinds_: break;
  }
}

void Chaos::heal() {
  active_ = false;
  if (sim_.tracing()) sim_.log("heal: " + summary());
  sim_.fabric().heal_all();
  for (Node n = 0; n < sim_.nodes(); ++n) {
    sim_.disk(n).faults.slow = 1;
    if (sim_.up(n))
      sim_.resume(n);
    else
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
