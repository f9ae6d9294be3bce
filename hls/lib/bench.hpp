// What every bench of a kernel has in common: options, failing, coverage, mutants, the report. For benches (C++20), not kernels.
//
//   int main(int argc, char **argv) { return hls::bench_main(argc, argv, {"crc32c", 20, 1000000}, run); }
//   void run(hls::Bench &b) { ... b.mutant goes into In::mutant ... if (wrong) b.fail("block differs"); ... b.progress(cycles, bytes); }
//
// A run is decided by its seed. `--case` and, in a bench with mutants, `--mutant` choose one case and one fault: what tests/requirements.py runs. A coverage bin that was declared and never hit fails the run (a hole), unless
// --allow-holes says that the run is too short for it, or it is of one case.
#pragma once
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "hls/lib/last_words.hpp"
#include "hls/lib/report.hpp"

namespace hls {

// Bins by group, in the order declared.
class Coverage {
 public:
  void declare(const std::string &group, const std::vector<std::string> &bins) {
    for (auto &b : bins) find(group, b);
  }
  void hit(const std::string &group, const std::string &bin, uint64_t n = 1) { *find(group, bin) += n; }
  uint64_t *find(const std::string &group, const std::string &bin) {
    auto [it, is_new] = index_.try_emplace({group, bin}, counts_.size());
    if (is_new) counts_.push_back(std::make_unique<Count>(Count{group, bin, 0}));
    return &counts_[it->second]->hits;
  }
  struct Count { std::string group, bin; uint64_t hits; };
  const std::vector<std::unique_ptr<Count>> &counts() const { return counts_; }
  std::vector<std::string> holes() const {
    std::vector<std::string> h;
    for (auto &c : counts_) if (!c->hits) h.push_back(c->group + ": " + c->bin);
    return h;
  }

 private:
  std::map<std::pair<std::string, std::string>, size_t> index_;
  std::vector<std::unique_ptr<Count>> counts_;
};

// The four states of a handshake and classes of how long a valid waits. Not every port has all of them: a ready may follow its
// valid (never ready alone), always be high (never waiting), or come within a few cycles.
enum class ReadyIs { free, after_valid, always, soon };
class Handshake {
 public:
  Handshake(Coverage &c, const std::string &name, ReadyIs ready = ReadyIs::free) {
    const char *states[] = {"idle", "ready alone", "waiting", "transfer"}, *stalls[] = {"0", "1", "2-7", "8-63", "64 and more"};
    for (int i = 0; i < 4; i++) {
      bool never = (ready == ReadyIs::after_valid && i == 1) || (ready == ReadyIs::always && i % 2 == 0);
      state_[i] = never ? &never_ : c.find(name, states[i]);
    }
    for (int i = 0; i < 5; i++) stall_[i] = (ready == ReadyIs::always && i) || (ready == ReadyIs::soon && i == 4) ? &never_ : c.find(name + " waits", stalls[i]);
  }
  Handshake(const Handshake &) = delete;
  void see(bool valid, bool ready) {
    ++*state_[valid * 2 + ready];
    if (valid && !ready) waited_++;
    if (valid && ready) ++*stall_[waited_ == 0 ? 0 : waited_ == 1 ? 1 : waited_ < 8 ? 2 : waited_ < 64 ? 3 : 4], waited_ = 0;
  }
  uint64_t transfers() const { return *state_[3]; }
  uint64_t waiting() const { return *state_[2]; }
  uint64_t starving() const { return *state_[1]; }

 private:
  uint64_t *state_[4], *stall_[5];
  uint64_t waited_ = 0, never_ = 0;
};

struct BenchInfo {
  const char *name;
  int mutants;          // seeded in the kernel, 1..mutants
  uint64_t cycles;      // of a full run
  bool stripes = false; // has a run of --stripes
};

class Bench {
 public:
  BenchInfo info;
  uint64_t seed = 1, cycles = 0;  // cycles 0: a full run
  uint64_t stripes = 0;           // not 0: RTL alone against the model, so many
  bool allow_holes = false;
  int stall = -1;                 // percent; -1: the bench's own mix
  std::string trace, report, faults;
  std::string only;               // the one case to run; empty: all
  unsigned mutant = 0;
  Coverage coverage;
  std::vector<std::pair<std::string, std::string>> figures;        // of the report, in order
  Charts charts;
  uint64_t now = 0;  // cycle, for messages

  bool full() const { return cycles == 0 && only.empty(); }
  // Is the case of that name to be run? A bench asks before each of those that can be run alone.
  bool wants(const std::string &name) {
    if (!only.empty() && only != name) return false;
    any_case = true;
    return true;
  }
  bool any_case = false;
  uint64_t wanted() const { return cycles ? cycles : info.cycles; }

  [[noreturn]] void fail(const char *format, ...) const {
    va_list a;
    va_start(a, format);
    std::fprintf(stderr, "%s: ", info.name);
    std::vfprintf(stderr, format, a);
    std::fprintf(stderr, " (cycle %llu, seed %llu)\n", (unsigned long long)now, (unsigned long long)seed);
    va_end(a);
    say_last_words();
    std::fflush(nullptr);
    std::_Exit(1);
  }
  void figure(const std::string &name, const char *format, ...) {
    char text[200];
    va_list a;
    va_start(a, format);
    std::vsnprintf(text, sizeof text, format, a);
    va_end(a);
    figures.push_back({name, text});
    if (!mutant) std::printf("%s: %s\n", name.c_str(), text);
  }
  // On a terminal a line that moves; else, of a run of --stripes, a line a minute.
  void progress(uint64_t at) {
    auto t = std::chrono::steady_clock::now();
    bool terminal = isatty(2);
    if (mutant || (!terminal && !stripes) || t - shown_ < std::chrono::seconds(terminal ? 1 : 60)) return;
    shown_ = t;
    uint64_t all = stripes ? stripes : wanted();
    double seconds = std::chrono::duration<double>(t - begin_).count(), share = all ? std::min(1.0, (double)at / (double)all) : 1;
    std::string bar(20, '.');
    for (size_t i = 0; i < (size_t)(20 * share); i++) bar[i] = '#';
    std::fprintf(stderr, "%s%s: [%s] %llu of %llu %s, %.0f s to go%s", terminal ? "\r" : "", info.name, bar.c_str(), (unsigned long long)at, (unsigned long long)all,
                 stripes ? "stripes" : "cycles", share > 0 ? seconds / share - seconds : 0.0, terminal ? "  " : "\n");
  }

 private:
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now(), shown_{};
};

inline bool write_report(const Bench &b, double seconds) {
  Report r;
  auto holes = b.coverage.holes();
  r.title = std::string("luge cosim ") + b.info.name;
  char text[200];
  std::snprintf(text, sizeof text, "%s Coverage: %zu bins, %zu not met. Seed %llu, %.1f s.",
                b.stripes ? "RTL compared with the model." : "Native kernel and RTL compared in every cycle: no difference.", b.coverage.counts().size(), holes.size(), (unsigned long long)b.seed, seconds);
  r.verdict = text, r.figures = b.figures, r.charts = b.charts;
  for (auto &c : b.coverage.counts()) r.bins.push_back({c->group, c->bin, c->hits});
  return r.write(b.report);
}

// Runs the bench with each mutant in a process of its own; a bench that ends with 0 has not noticed its mutant.
inline int run_mutants(const Bench &b, const std::function<void(Bench &)> &run) {
  int missed = 0;
  for (int n = 0; n <= b.info.mutants; n++) {
    std::fflush(nullptr);
    pid_t child = fork();
    if (child == 0) {
      if (!std::freopen("/dev/null", "w", stdout)) std::_Exit(3);
      if (n) { if (!std::freopen("/dev/null", "w", stderr)) std::_Exit(3); }
      alarm(400);  // a bench that hangs has noticed, too
      Bench own;
      own.info = b.info, own.seed = b.seed, own.cycles = b.cycles, own.mutant = (unsigned)n;
      run(own);
      std::fflush(nullptr);
      std::_Exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    bool passed = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (passed != (n == 0)) missed++, std::printf("%s: %s\n", b.info.name, n == 0 ? "fails without a mutant" : ("mutant " + std::to_string(n) + " is not caught").c_str());
  }
  std::printf("%s: %d of %d mutants caught\n", b.info.name, b.info.mutants - missed, b.info.mutants);
  return missed ? 1 : 0;
}

inline int bench_usage(const char *name, FILE *f) {
  std::fprintf(f, "usage: luge cosim %s [--seed N] [--cycles N] [--allow-holes] [--stall PERCENT] [--faults LIST] [--trace OUT.fst] [--report OUT.html]\n"
      "  --seed N         what decides the run (1)\n  --cycles N       a shorter or longer run\n"
      "  --allow-holes    tell what the run has not covered, and do not fail for it\n  --stripes N      erasure_coder: so many stripes on the RTL alone, against ISA-L\n"
      "  --stall PERCENT  how often either side of a port waits, instead of a mix\n  --faults LIST    card: which faults, by comma (see docs/cosim.md)\n"
      "  --trace FILE     waveforms of the RTL, for GTKWave\n  --report FILE    a page with figures, charts and the coverage\n  --case NAME      only this case of the bench, if it has several\n", name);
  return f == stderr ? 2 : 0;
}

inline int bench_main(int argc, char **argv, BenchInfo info, const std::function<void(Bench &)> &run) {
  Bench b;
  b.info = info;
  bool mutants = false;
  for (int i = 1; i < argc; i++) {
    std::string a = argv[i];
    if (a == "--help" || a == "-h") return bench_usage(info.name, stdout);
    if (a == "--mutants") { mutants = true; continue; }
    if (a == "--allow-holes") { b.allow_holes = true; continue; }
    if (i + 1 >= argc) { std::fprintf(stderr, "%s: %s needs a value, or is unknown\n", info.name, a.c_str()); return bench_usage(info.name, stderr); }
    std::string v = argv[++i];
    char *end = nullptr;
    uint64_t n = std::strtoull(v.c_str(), &end, 0);
    bool number = !v.empty() && *end == 0 && v[0] != '-';
    if (a == "--seed" && number) b.seed = n;
    else if (a == "--cycles" && number && n) b.cycles = n;
    else if (a == "--stripes" && number && n && info.stripes) b.stripes = n;
    else if (a == "--stall" && number && n < 100) b.stall = (int)n;
    else if (a == "--trace") b.trace = v;
    else if (a == "--report") b.report = v;
    else if (a == "--faults") b.faults = v;
    else if (a == "--case") b.only = v;
#ifdef HLS_MUTANTS
    else if (a == "--mutant" && number && n <= (uint64_t)info.mutants) b.mutant = (unsigned)n;
#endif
    else { std::fprintf(stderr, "%s: %s %s is not understood\n", info.name, a.c_str(), v.c_str()); return bench_usage(info.name, stderr); }
  }
  if (mutants) return run_mutants(b, run);
  auto begin = std::chrono::steady_clock::now();
  run(b);
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  if (!b.only.empty() && !b.any_case) { std::fprintf(stderr, "%s: there is no case '%s'\n", info.name, b.only.c_str()); return 2; }
  auto holes = b.coverage.holes();
  std::printf("%s: coverage %zu of %zu bins\n", info.name, b.coverage.counts().size() - holes.size(), b.coverage.counts().size());
  if (b.only.empty()) for (auto &h : holes) std::printf("  hole: %s\n", h.c_str());
  const bool holes_fail = b.only.empty() && !b.allow_holes && b.mutant == 0;
  if (!holes.empty() && holes_fail) std::printf("%s: a hole fails the run: make it longer, or say --allow-holes\n", info.name);
  if (!b.report.empty() && !write_report(b, seconds)) { std::fprintf(stderr, "%s: can't write %s\n", info.name, b.report.c_str()); return 1; }
  return !holes.empty() && holes_fail ? 1 : 0;
}

}  // namespace hls
