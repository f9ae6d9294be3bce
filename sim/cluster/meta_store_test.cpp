// io::MetaStore under power cuts: what is found again is some prefix of the puts that holds every acknowledged one.
#include "io/meta_store.hpp"

#include <gtest/gtest.h>

#include "base/logging.hpp"
#include "sim/cluster/simulation.hpp"

namespace luge::sim {
namespace {

using io::Task;
using State = std::map<std::string, std::string>;

struct Script {
  std::vector<State> after;   // state after each put begun, in order; [0]: before any
  std::size_t acknowledged = 0;
  std::string failure;
};

constexpr std::uint64_t kRegion = 128 << 10;

Task<void> life(io::World& w, Script& script) {
  auto file = co_await w.files().open("meta", {.create = true, .size = kRegion + 8192});
  auto store = co_await io::MetaStore::open(w, **file, 8192, kRegion);
  if (!store.ok()) {
    script.failure = store.status().to_string();
    co_return;
  }
  State found;
  for (auto& [k, v] : (*store)->list("")) found.emplace(k, v);
  bool known = false;
  for (std::size_t i = script.acknowledged; i < script.after.size(); ++i) known = known || script.after[i] == found;
  if (!known) script.failure = "found a state that is no prefix with all acknowledged puts";
  script.after = {found};
  script.acknowledged = 0;
  while (true) {
    std::vector<io::MetaStore::Change> changes;
    State next = script.after.back();
    for (std::uint64_t n = 1 + w.random_below(3); n > 0; --n) {
      std::string key = "key" + std::to_string(w.random_below(12));
      if (w.random_below(5) == 0) {
        changes.emplace_back(key, std::nullopt);
        next.erase(key);
      } else {
        std::string value(w.random_below(3000), static_cast<char>('a' + w.random_below(26)));
        changes.emplace_back(key, value);
        next[key] = value;
      }
    }
    script.after.push_back(next);
    std::size_t mine = script.after.size() - 1;
    Status s = co_await (*store)->put(std::move(changes));
    if (!s.ok()) {
      script.failure = s.to_string();
      co_return;
    }
    script.acknowledged = mine;
  }
}

TEST(MetaStore, KeepsAcknowledgedPutsThroughPowerCuts) {
  logging::setup("test", "error");
  std::uint64_t puts = 0;
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    Simulation sim(seed);
    Script script;
    script.after = {State()};
    Node n = sim.add_node("n", [&](io::World& w) -> std::shared_ptr<void> {
      w.spawn("life", life(w, script));
      return nullptr;
    });
    for (int i = 0; i < 15 && script.failure.empty(); ++i) {
      sim.run_for(Duration(sim.random().spread(100'000, 100'000'000)));
      sim.crash(n, sim.random().chance(0.5) ? Crash::power : Crash::process);
      puts += script.acknowledged;
      sim.restart(n);
    }
    EXPECT_EQ(script.failure, "") << "seed " << seed;
  }
  EXPECT_GT(puts, 10'000u);
}

}  // namespace
}  // namespace luge::sim
