// luge-sim: runs seeds of the simulated unit, and the mutants that show that it would notice.
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <sstream>

#include "base/logging.hpp"
#include "sim/cluster/growth.hpp"
#include "sim/cluster/memory.hpp"
#include "sim/cluster/mutants.hpp"
#include "sim/cluster/path_table.hpp"
#include "sim/cluster/runner.hpp"
#include "sim/cluster/schedules.hpp"
#include "sim/cluster/simulation.hpp"

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

/// Seeds of fixed bugs: "SEED  text" a line, '#' begins a comment. A line with "long" behind the seed is for --long, the others are not.
std::vector<std::uint64_t> read_table(const std::string& path, bool is_long) {
  std::vector<std::uint64_t> seeds;
  std::ifstream in(path);
  if (!in) {
    std::fprintf(stderr, "luge-sim: cannot read %s\n", path.c_str());
    std::exit(2);
  }
  for (std::string line; std::getline(in, line);)
    if (!line.empty() && line[0] != '#') {
      std::istringstream words(line);
      std::uint64_t seed;
      std::string kind;
      if (words >> seed >> kind && (kind == "long") == is_long) seeds.push_back(seed);
    }
  return seeds;
}

int one(std::uint64_t seed, const Overrides& overrides) {
  if (!break_rule(overrides.broken)) return 2;
  SeedResult r = run_here(seed, overrides);
  std::fputs(r.text.c_str(), stdout);
  std::printf("%.1f s of the simulation in %.2f s of CPU time: %.0fx\n", r.virtual_seconds, r.cpu_seconds, r.virtual_seconds / r.cpu_seconds);
  return r.ok ? 0 : 1;
}

struct Many {
  bool verbose = false, require_paths = false;
  std::uint64_t each_schedule = 0;
  std::size_t jobs = 1;
};

int many(const std::vector<std::uint64_t>& seeds, const Overrides& overrides, const Many& how) {
  auto start = std::chrono::steady_clock::now();
  std::vector<std::uint64_t> failed;
  PathTable paths;
  double simulated = 0, spent = 0;
  std::size_t ran = 0;
  auto take = [&](const SeedResult& r) {
    if (!r.ok || how.verbose) std::fputs(r.text.c_str(), stdout);
    if (!r.ok) failed.push_back(r.seed);
    ++ran;
    paths.add(r);
    simulated += r.virtual_seconds;
    spent += r.cpu_seconds;
    std::fflush(stdout);
    return true;
  };
  run_seeds(seeds, overrides, how.jobs, overrides.is_long ? 1200 : 300, take);
  std::vector<std::uint64_t> more;
  for (std::uint64_t n = 1; n <= how.each_schedule; ++n) more.push_back(n);
  for (const std::string& name : Schedules::names()) {
    Overrides directed = overrides;
    directed.schedule = name;
    run_seeds(more, directed, how.jobs, 300, take);
  }
  double s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  paths.print();
  std::printf("\n%zu seeds, %zu failed, %.1f s (%.2f s a seed), %.0f s simulated, %.0fx the CPU time\n", ran, failed.size(), s,
              s / static_cast<double>(ran), simulated, simulated / std::max(spent, 1e-3));
  if (!failed.empty()) std::printf("failed:");
  for (auto f : failed) std::printf(" %llu", static_cast<unsigned long long>(f));
  if (!failed.empty()) std::printf("\n");
  bool came = !how.require_paths || paths.enough();
  return failed.empty() && came ? 0 : 1;
}

/// Each seed twice, in processes with their own addresses: the histories must be the same to the last event.
int repeat(const std::vector<std::uint64_t>& seeds, const Overrides& overrides) {
  int differ = 0;
  for (std::uint64_t seed : seeds) {
    std::vector<std::string> texts;
    run_seeds({seed, seed}, overrides, 2, 300, [&](const SeedResult& r) {
      texts.push_back(r.text);
      return true;
    });
    if (texts[0] == texts[1]) continue;
    ++differ;
    std::printf("seed %llu differs:\n%s%s", static_cast<unsigned long long>(seed), texts[0].c_str(), texts[1].c_str());
  }
  std::printf("%zu seeds run twice, %d differ\n", seeds.size(), differ);
  return differ == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Runs a whole storage unit in virtual time, with faults, from a seed.");
  app.require_subcommand(1);
  Overrides overrides;
  Many how;
  MutantRun mutants;
  std::uint64_t seed = 1, from = 1, count = 100;
  std::string table;
  bool quick = false;
  auto common = [&](CLI::App* c) {
    c->add_flag("--long", overrides.is_long, "60 s and more under faults, 5000 requests and more, up to 9 heads and 24 sleds");
    c->add_option("--seconds", overrides.seconds, "virtual seconds under faults, at most");
    c->add_option("--ops", overrides.requests, "requests in all, at least");
    c->add_option("--heads", overrides.heads);
    c->add_option("--sleds", overrides.sleds);
    c->add_flag("--operators", overrides.operators, "operators make volumes larger and move copies meanwhile, whatever the seed draws");
    c->add_flag("--no-faults", overrides.no_faults);
    c->add_flag("--quiet", overrides.quiet, "no faults, and then none may be suspected: no take-over, no smaller set, no long wait");
    c->add_flag("--no-flush", overrides.no_flush, "do not end with a flush and reads from the sleds");
    c->add_flag("--heads-code", overrides.heads_code, "stripes are coded by the heads (coding = head) instead of by sleds");
    c->add_option("--schedule", overrides.schedule, "a directed fault, instead of what the seed draws")->check(CLI::IsMember(Schedules::names()));
    c->add_option("--break", overrides.broken, "a rule to break (host/switches)");
  };
  auto* run = app.add_subcommand("run", "one seed");
  common(run);
  run->add_option("--seed", seed)->required();
  run->add_flag("--trace", overrides.trace, "tell the story: every phase, every fault, every line of the daemons' logs");
  auto* all = app.add_subcommand("many", "several seeds, each in a process of its own");
  common(all);
  all->add_option("--from", from);
  all->add_option("--count", count);
  all->add_option("--jobs", how.jobs)->check(CLI::Range(1, 64));
  all->add_option("--table", table, "file with seeds to run first");
  all->add_flag("--verbose", how.verbose, "a line for each seed");
  all->add_option("--each-schedule", how.each_schedule, "as many seeds of each directed schedule, too");
  all->add_flag("--require-paths", how.require_paths, "fail if too few seeds came to a rare path");
  auto* twice = app.add_subcommand("repeat", "each seed twice: are the histories the same?");
  common(twice);
  twice->add_option("--from", from);
  twice->add_option("--count", count);
  auto* mutant = app.add_subcommand("mutants", "breaks each rule in turn and looks for the seed that notices");
  mutant->add_option("--only", mutants.only, "just this switch");
  mutant->add_option("--limit", mutants.limit, "seeds to try");
  mutant->add_option("--wanted", mutants.wanted, "catching seeds to look for");
  mutant->add_option("--table", mutants.table, "file with seeds that noticed, tried first");
  mutant->add_flag("--write", mutants.write, "write the table anew");
  mutant->add_flag("--known", mutants.known_only, "just those that the table has a seed for");
  mutant->add_flag("--quick", quick, "few seeds beyond the table's");
  mutant->add_option("--jobs", mutants.jobs)->check(CLI::Range(1, 64));
  auto* growth = app.add_subcommand("growth", "what more heads, more volumes and more mapped data cost");
  CLI11_PARSE(app, argc, argv);
  if (*growth) {
    log_to_stdout(false);
    return run_growth();
  }
  keep_freed_memory();
  log_to_stdout(overrides.trace);
  if (*run) return one(seed, overrides);
  if (*mutant) {
    if (quick) mutants.limit = std::min<std::uint64_t>(mutants.limit, 60);
    if (mutants.write && mutants.table.empty()) return std::fprintf(stderr, "luge-sim: --write needs --table\n"), 2;
    if (!mutants.only.empty() && !break_rule(mutants.only)) return 2;
    return run_mutants(mutants);
  }
  if (!overrides.broken.empty() && !break_rule(overrides.broken)) return 2;
  std::vector<std::uint64_t> seeds;
  if (!table.empty()) seeds = read_table(table, overrides.is_long);
  for (std::uint64_t s = from; s < from + count; ++s) seeds.push_back(s);
  return *twice ? repeat(seeds, overrides) : many(seeds, overrides, how);
}
