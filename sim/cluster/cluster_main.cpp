// luge-sim: runs seeds of the simulated unit, and the mutants that show that it would notice.
#include <poll.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <map>

#include "base/logging.hpp"
#include "sim/cluster/cluster.hpp"
#include "sim/cluster/simulation.hpp"
#include "switches/switches.hpp"

namespace {

using namespace luge;
using namespace luge::sim;

// The time and node of the simulation in front of each line of the product's log.
class WhenAndWhere final : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg&, const std::tm&, spdlog::memory_buf_t& out) override {
    std::string text = Simulation::here();
    out.append(text.data(), text.data() + text.size());
  }
  std::unique_ptr<custom_flag_formatter> clone() const override { return std::make_unique<WhenAndWhere>(); }
};

void log_to_stdout(bool on) {
  auto logger = std::make_shared<spdlog::logger>("sim", std::make_shared<spdlog::sinks::stdout_sink_st>());
  auto formatter = std::make_unique<spdlog::pattern_formatter>();
  formatter->add_flag<WhenAndWhere>('*').set_pattern("%* %l: %v");
  logger->set_formatter(std::move(formatter));
  logger->set_level(on ? spdlog::level::debug : spdlog::level::off);
  spdlog::set_default_logger(std::move(logger));
}

struct Overrides {
  std::uint64_t seconds = 0, requests = 0;
  std::uint32_t heads = 0, sleds = 0;
  bool trace = false, no_faults = false, no_flush = false;
  std::string broken;

  void apply(ClusterOptions& o) const {
    if (seconds) o.seconds = std::chrono::seconds(seconds);
    if (requests) o.requests = requests;
    if (heads) o.heads = heads;
    if (sleds) o.sleds = sleds;
    if (no_faults) o.faults = false;
    if (no_flush) o.flush = false;
    o.trace = trace;
  }
  std::string arguments() const {
    std::string s;
    if (seconds) s += " --seconds " + std::to_string(seconds);
    if (requests) s += " --ops " + std::to_string(requests);
    if (heads) s += " --heads " + std::to_string(heads);
    if (sleds) s += " --sleds " + std::to_string(sleds);
    if (no_faults) s += " --no-faults";
    if (no_flush) s += " --no-flush";
    if (!broken.empty()) s += " --break " + broken;
    return s;
  }
};

std::optional<Switch> find_switch(const std::string& name) {
  for (std::size_t i = 0; i < static_cast<std::size_t>(Switch::count_); ++i)
    if (switch_name(static_cast<Switch>(i)) == name) return static_cast<Switch>(i);
  return std::nullopt;
}

bool break_rule(const std::string& name) {
  if (name.empty()) return true;
  auto s = find_switch(name);
  if (!s) {
    std::fprintf(stderr, "luge-sim: no switch is called '%s'\n", name.c_str());
    return false;
  }
  set_broken(*s, true);
  return true;
}

ClusterResult run_seed(std::uint64_t seed, const Overrides& overrides) {
  ClusterOptions options = ClusterOptions::from_seed(seed);
  overrides.apply(options);
  return run_cluster(options);
}

void print_result(std::uint64_t seed, const Overrides& overrides, const ClusterResult& r) {
  std::printf("seed %llu: %s  trace %016llx, %llu events, %.1f s virtual, %llu answered, faults: %s\n",
              static_cast<unsigned long long>(seed), r.failure.empty() ? "ok" : "FAILED",
              static_cast<unsigned long long>(r.trace_hash), static_cast<unsigned long long>(r.events),
              r.virtual_seconds, static_cast<unsigned long long>(r.answered), r.fault_summary.c_str());
  if (!r.failure.empty())
    std::printf("%s\nagain: luge-sim run --seed %llu%s\n", r.failure.c_str(), static_cast<unsigned long long>(seed),
                overrides.arguments().c_str());
}

// A seed in a process of its own, so that a failed check or a hang of one is one failed seed.
struct Child {
  pid_t pid = 0;
  int out = -1;
  std::uint64_t seed = 0;
  std::string text;
  std::chrono::steady_clock::time_point start;
};

Child start_child(std::uint64_t seed, const Overrides& overrides, unsigned limit) {
  int fds[2];
  if (pipe(fds) != 0) std::exit(3);
  std::fflush(nullptr);
  Child c;
  c.seed = seed;
  c.start = std::chrono::steady_clock::now();
  c.pid = fork();
  if (c.pid == 0) {
    dup2(fds[1], 1);
    dup2(fds[1], 2);
    close(fds[0]);
    close(fds[1]);
    alarm(limit);
    if (!break_rule(overrides.broken)) _exit(2);
    ClusterResult r = run_seed(seed, overrides);
    print_result(seed, overrides, r);
    std::fflush(nullptr);
    _exit(r.failure.empty() ? 0 : 1);
  }
  close(fds[1]);
  c.out = fds[0];
  return c;
}

// Reads to its end; true: it passed.
bool finish_child(Child& c, const Overrides& overrides) {
  char buffer[4096];
  for (ssize_t n; (n = read(c.out, buffer, sizeof buffer)) > 0;) c.text.append(buffer, static_cast<std::size_t>(n));
  close(c.out);
  int status = 0;
  waitpid(c.pid, &status, 0);
  if (WIFEXITED(status)) return WEXITSTATUS(status) == 0;
  c.text += "seed " + std::to_string(c.seed) + ": FAILED, ended by signal " + std::to_string(WTERMSIG(status)) +
            (WTERMSIG(status) == SIGALRM ? " (took too long)" : "") + "\nagain: luge-sim run --seed " +
            std::to_string(c.seed) + overrides.arguments() + "\n";
  return false;
}

/// Runs the seeds, `jobs` at a time, in order. `done` gets each result in order; false: stop.
void run_seeds(const std::vector<std::uint64_t>& seeds, const Overrides& overrides, std::size_t jobs, unsigned limit,
               const std::function<bool(Child&, bool)>& done) {
  std::deque<Child> running;
  std::size_t next = 0;
  bool go = true;
  while (!running.empty() || (go && next < seeds.size())) {
    while (go && next < seeds.size() && running.size() < jobs) running.push_back(start_child(seeds[next++], overrides, limit));
    Child c = std::move(running.front());
    running.pop_front();
    bool ok = finish_child(c, overrides);
    if (go) go = done(c, ok);
  }
}

int many(std::vector<std::uint64_t> seeds, const Overrides& overrides, std::size_t jobs, bool verbose) {
  auto start = std::chrono::steady_clock::now();
  std::vector<std::uint64_t> failed;
  run_seeds(seeds, overrides, jobs, 300, [&](Child& c, bool ok) {
    if (!ok || verbose) std::fputs(c.text.c_str(), stdout);
    if (!ok) failed.push_back(c.seed);
    std::fflush(stdout);
    return true;
  });
  double s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::printf("%zu seeds, %zu failed, %.1f s (%.2f s a seed)\n", seeds.size(), failed.size(), s,
              s / static_cast<double>(seeds.size()));
  if (!failed.empty()) {
    std::printf("failed:");
    for (auto f : failed) std::printf(" %llu", static_cast<unsigned long long>(f));
    std::printf("\n");
  }
  return failed.empty() ? 0 : 1;
}

int mutants(const std::string& only, std::uint64_t limit, std::size_t jobs) {
  int missed = 0;
  for (std::size_t i = 0; i < static_cast<std::size_t>(Switch::count_); ++i) {
    Overrides overrides;
    overrides.broken = std::string(switch_name(static_cast<Switch>(i)));
    if (!only.empty() && only != overrides.broken) continue;
    std::vector<std::uint64_t> seeds;
    for (std::uint64_t s = 1; s <= limit; ++s) seeds.push_back(s);
    std::uint64_t found = 0;
    std::string how;
    run_seeds(seeds, overrides, jobs, 300, [&](Child& c, bool ok) {
      if (ok) return true;
      found = c.seed;
      how = c.text;
      return false;
    });
    if (found == 0) {
      ++missed;
      std::printf("%-32s NOT caught within %llu seeds\n", overrides.broken.c_str(), static_cast<unsigned long long>(limit));
    } else {
      auto line_end = how.find('\n', how.find('\n') + 1);
      auto line_start = how.find('\n') + 1;
      std::printf("%-32s caught by seed %-4llu %s\n", overrides.broken.c_str(), static_cast<unsigned long long>(found),
                  how.substr(line_start, std::min<std::size_t>(line_end - line_start, 100)).c_str());
    }
    std::fflush(stdout);
  }
  return missed == 0 ? 0 : 1;
}

/// Each seed twice, in processes with their own addresses: the histories must be the same to the last event.
int repeat(const std::vector<std::uint64_t>& seeds, const Overrides& overrides) {
  int differ = 0;
  for (std::uint64_t seed : seeds) {
    Child a = start_child(seed, overrides, 300), b = start_child(seed, overrides, 300);
    finish_child(a, overrides);
    finish_child(b, overrides);
    if (a.text == b.text) continue;
    ++differ;
    std::printf("seed %llu differs:\n%s%s", static_cast<unsigned long long>(seed), a.text.c_str(), b.text.c_str());
  }
  std::printf("%zu seeds run twice, %d differ\n", seeds.size(), differ);
  return differ == 0 ? 0 : 1;
}

/// Seeds of fixed bugs: "SEED  text" a line, '#' begins a comment.
std::vector<std::uint64_t> read_table(const std::string& path) {
  std::vector<std::uint64_t> seeds;
  std::ifstream in(path);
  if (!in) {
    std::fprintf(stderr, "luge-sim: cannot read %s\n", path.c_str());
    std::exit(2);
  }
  for (std::string line; std::getline(in, line);)
    if (!line.empty() && line[0] != '#') seeds.push_back(std::stoull(line));
  return seeds;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Runs a whole storage unit in virtual time, with faults, from a seed.");
  app.require_subcommand(1);
  Overrides overrides;
  std::uint64_t seed = 1, from = 1, count = 100, limit = 500;
  std::size_t jobs = 1;
  bool verbose = false;
  std::string only, table;
  auto common = [&](CLI::App* c) {
    c->add_option("--seconds", overrides.seconds, "virtual seconds under faults");
    c->add_option("--ops", overrides.requests, "requests per volume");
    c->add_option("--heads", overrides.heads);
    c->add_option("--sleds", overrides.sleds);
    c->add_flag("--no-faults", overrides.no_faults);
    c->add_flag("--no-flush", overrides.no_flush, "do not end with a flush and reads from the sleds");
    c->add_option("--break", overrides.broken, "a rule to break (host/switches)");
  };
  auto* run = app.add_subcommand("run", "one seed");
  common(run);
  run->add_option("--seed", seed)->required();
  run->add_flag("--trace", overrides.trace, "print every fault and every line of the daemons' logs");
  auto* all = app.add_subcommand("many", "several seeds, each in a process of its own");
  common(all);
  all->add_option("--from", from);
  all->add_option("--count", count);
  all->add_option("--jobs", jobs)->check(CLI::Range(1, 64));
  all->add_option("--table", table, "file with seeds to run first");
  all->add_flag("--verbose", verbose, "a line for each seed");
  auto* twice = app.add_subcommand("repeat", "each seed twice: are the histories the same?");
  common(twice);
  twice->add_option("--from", from);
  twice->add_option("--count", count);
  auto* mutant = app.add_subcommand("mutants", "breaks each rule in turn and looks for the seed that notices");
  mutant->add_option("--only", only, "just this switch");
  mutant->add_option("--limit", limit, "seeds to try");
  mutant->add_option("--jobs", jobs)->check(CLI::Range(1, 64));
  CLI11_PARSE(app, argc, argv);

  log_to_stdout(overrides.trace);
  if (*run) {
    if (!break_rule(overrides.broken)) return 2;
    ClusterResult r = run_seed(seed, overrides);
    print_result(seed, overrides, r);
    return r.failure.empty() ? 0 : 1;
  }
  std::vector<std::uint64_t> range;
  for (std::uint64_t s = from; s < from + count; ++s) range.push_back(s);
  if (*twice) return repeat(range, overrides);
  if (*all) {
    if (!overrides.broken.empty() && !find_switch(overrides.broken)) return break_rule(overrides.broken), 2;
    std::vector<std::uint64_t> seeds;
    if (!table.empty()) seeds = read_table(table);
    seeds.insert(seeds.end(), range.begin(), range.end());
    return many(std::move(seeds), overrides, jobs, verbose);
  }
  if (!only.empty() && !find_switch(only)) return break_rule(only), 2;
  return mutants(only, limit, jobs);
}
