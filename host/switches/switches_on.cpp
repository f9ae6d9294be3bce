#include <array>
#include <bitset>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "switches/paths.hpp"
#include "switches/switches.hpp"

namespace luge {
namespace {

constexpr auto kCount = static_cast<std::size_t>(Switch::count_);

std::bitset<kCount> from_environment() {
  std::bitset<kCount> on;
  const char* list = std::getenv("LUGE_BREAK");
  for (std::string_view rest = list ? list : ""; !rest.empty();) {
    std::string_view name = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(rest.size(), name.size() + 1));
    bool known = false;
    for (std::size_t i = 0; i < kCount; ++i)
      if (switch_name(static_cast<Switch>(i)) == name) known = on[i] = true;
    if (!known) {
      std::fprintf(stderr, "LUGE_BREAK: no switch is called '%s'\n", std::string(name).c_str());
      std::exit(2);
    }
  }
  return on;
}

std::bitset<kCount>& switches() {
  static std::bitset<kCount> on = from_environment();
  return on;
}

std::array<std::uint64_t, static_cast<std::size_t>(Path::count_)> counts{};
std::function<void(Path)> path_listener;
Witness fact_listener;

}  // namespace

bool broken(Switch s) { return switches()[static_cast<std::size_t>(s)]; }
void set_broken(Switch s, bool on) { switches()[static_cast<std::size_t>(s)] = on; }

void reached(Path p) {
  ++counts[static_cast<std::size_t>(p)];
  if (path_listener) path_listener(p);
}
std::uint64_t times_reached(Path p) { return counts[static_cast<std::size_t>(p)]; }
void on_reached(std::function<void(Path)> f) { path_listener = std::move(f); }

void witnessed(Fact fact, VpId vp, std::uint64_t value, std::uint64_t more) {
  if (fact_listener) fact_listener(fact, vp, value, more);
}
void on_witnessed(Witness f) { fact_listener = std::move(f); }

}  // namespace luge
