#include "sim/cluster/runner.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <deque>
#include <optional>

#include "switches/switches.hpp"

namespace luge::sim {

ClusterOptions Overrides::options(std::uint64_t seed) const {
  ClusterOptions o = ClusterOptions::from_seed(seed, is_long);
  if (seconds) o.most = std::chrono::seconds(seconds);
  if (requests) o.requests = requests;
  if (heads) o.heads = heads;
  if (sleds) o.sleds = sleds;
  if (!schedule.empty()) o.direct(schedule);
  if (operators) o.operators = true;
  if (no_faults) o.faults = false;
  if (quiet) o.be_quiet();
  if (no_flush) o.flush = false;
  o.heads_code = heads_code;
  o.trace = trace;
  return o;
}

std::string Overrides::arguments() const {
  std::string s;
  if (is_long) s += " --long";
  if (seconds) s += " --seconds " + std::to_string(seconds);
  if (requests) s += " --ops " + std::to_string(requests);
  if (heads) s += " --heads " + std::to_string(heads);
  if (sleds) s += " --sleds " + std::to_string(sleds);
  if (operators) s += " --operators";
  if (no_faults) s += " --no-faults";
  if (quiet) s += " --quiet";
  if (no_flush) s += " --no-flush";
  if (heads_code) s += " --heads-code";
  if (!schedule.empty()) s += " --schedule " + schedule;
  if (!broken.empty()) s += " --break " + broken;
  return s;
}

std::string SeedResult::reason() const {
  // The line after the result's own line and the description; "seed N: FAILED, ended by signal" has nothing behind it.
  std::size_t at = text.find('\n');
  if (text.starts_with("seed ") && text.find("FAILED, ended", 0) < at) return text.substr(0, at);
  if (at != std::string::npos) at = text.find('\n', at + 1);
  if (at == std::string::npos) return text.substr(0, text.find('\n'));
  return text.substr(at + 1, text.find('\n', at + 1) - at - 1);
}

bool break_rule(const std::string& name) {
  if (name.empty()) return true;
  for (std::size_t i = 0; i < static_cast<std::size_t>(Switch::count_); ++i)
    if (switch_name(static_cast<Switch>(i)) == name) {
      set_broken(static_cast<Switch>(i), true);
      return true;
    }
  std::fprintf(stderr, "luge-sim: no switch is called '%s'\n", name.c_str());
  return false;
}

namespace {

std::string again(std::uint64_t seed, const Overrides& o) {
  return "again: luge-sim run --seed " + std::to_string(seed) + o.arguments() + "\n";
}

std::string result_text(std::uint64_t seed, const Overrides& o, const ClusterResult& r) {
  char line[256];
  std::snprintf(line, sizeof line, "seed %llu: %s  trace %016llx, %llu events, %.1f s virtual, %llu answered, faults: ",
                static_cast<unsigned long long>(seed), r.failure.empty() ? "ok" : "FAILED",
                static_cast<unsigned long long>(r.trace_hash), static_cast<unsigned long long>(r.events), r.virtual_seconds,
                static_cast<unsigned long long>(r.answered));
  std::string text = line + r.fault_summary + "\n";
  if (!r.failure.empty()) text += r.failure + "\n" + again(seed, o);
  return text;
}

// What a child says to its parent: this, then the text.
struct Report {
  bool ok;
  double virtual_seconds, cpu_seconds;
  PathCounts paths;
};

struct Child {
  pid_t pid = 0;
  int out = -1, report = -1;
  std::uint64_t seed = 0;
};

Child start_child(std::uint64_t seed, const Overrides& overrides, unsigned limit) {
  int out[2], report[2];
  if (pipe(out) != 0 || pipe(report) != 0) {
    std::perror("luge-sim: pipe");
    std::exit(3);
  }
  std::fflush(nullptr);
  Child c{fork(), out[0], report[0], seed};
  if (c.pid == 0) {
    dup2(out[1], 1);
    dup2(out[1], 2);
    close(out[0]);
    close(report[0]);
    alarm(limit);
    if (!break_rule(overrides.broken)) _exit(2);
    SeedResult r = run_here(seed, overrides);
    std::fputs(r.text.c_str(), stdout);
    std::fflush(nullptr);
    Report say{r.ok, r.virtual_seconds, r.cpu_seconds, r.paths};
    if (write(report[1], &say, sizeof say) != sizeof say) _exit(3);
    _exit(0);
  }
  close(out[1]);
  close(report[1]);
  return c;
}

std::string how_it_ended(int status) {
  if (!WIFSIGNALED(status)) return "ended with exit code " + std::to_string(WEXITSTATUS(status));
  int signal = WTERMSIG(status);
  return "ended by signal " + std::to_string(signal) + " (" + (signal == SIGALRM ? "took too long" : strsignal(signal)) + ")";
}

// What others do on the machine is not the simulator's speed.
double cpu_now() {
  timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

SeedResult finish(const Child& c, const Overrides& overrides) {
  SeedResult r;
  r.seed = c.seed;
  char buffer[4096];
  for (ssize_t n; (n = read(c.out, buffer, sizeof buffer)) > 0;) r.text.append(buffer, static_cast<std::size_t>(n));
  Report said{};
  bool complete = read(c.report, &said, sizeof said) == sizeof said;
  close(c.out);
  close(c.report);
  int status = 0;
  waitpid(c.pid, &status, 0);
  if (complete) {
    r.ok = said.ok;
    r.virtual_seconds = said.virtual_seconds;
    r.cpu_seconds = said.cpu_seconds;
    r.paths = said.paths;
    return r;
  }
  r.text = "seed " + std::to_string(c.seed) + ": FAILED, " + how_it_ended(status) + "\n" + r.text + again(c.seed, overrides);
  return r;
}

}  // namespace

SeedResult run_here(std::uint64_t seed, const Overrides& overrides) {
  double start = cpu_now();
  ClusterResult c = run_cluster(overrides.options(seed));
  SeedResult r;
  r.seed = seed;
  r.ok = c.failure.empty();
  r.text = result_text(seed, overrides, c);
  r.virtual_seconds = c.virtual_seconds;
  r.cpu_seconds = cpu_now() - start;
  for (std::size_t p = 0; p < r.paths.size(); ++p) r.paths[p] = times_reached(static_cast<Path>(p));
  return r;
}

void run_seeds(const std::vector<std::uint64_t>& seeds, const Overrides& overrides, std::size_t jobs, unsigned limit,
               const std::function<bool(const SeedResult&)>& done) {
  std::deque<Child> running;
  std::size_t next = 0;
  bool go = true;
  while (!running.empty() || (go && next < seeds.size())) {
    while (go && next < seeds.size() && running.size() < jobs) running.push_back(start_child(seeds[next++], overrides, limit));
    SeedResult r = finish(running.front(), overrides);
    running.pop_front();
    if (go) go = done(r);
  }
}

}  // namespace luge::sim
