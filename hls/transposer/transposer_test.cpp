// transposer, native and RTL in lock-step, both ways round: rounds of every shape under stalls on all three ports, resets at any
// cycle. Every word, tlast and shape that leaves is compared with the rounds that came.
#include <array>
#include <deque>
#include <vector>

#include "hls/lib/bench.hpp"
#include "hls/lib/lockstep.hpp"
#include "transposer_glue.hpp"

HLS_LOCKSTEP(transposer, Pair);
using namespace transposer;

namespace {

class Runner {
 public:
  explicit Runner(hls::Bench &b) : bench(b), random(b.seed), round(b.coverage, "round"), in_port(b.coverage, "s_axis"), out_port(b.coverage, "m_axis") {
    for (int i = 1; i <= 16; i++) b.coverage.declare("rows", {std::to_string(i)});
    b.coverage.declare("columns", {"1", "2-15", "16-63", "64"});
    b.coverage.declare("direction", {"to columns", "to rows"});
    b.coverage.declare("banks full", {"none", "one", "both"});
    b.coverage.declare("reset while", {"idle", "filling", "leaving"});
    if (!b.trace.empty()) pair.trace(b.trace);
  }
  void run() {
    rate();
    while (pair.cycles < (bench.mutant ? 150000 : bench.wanted())) {
      episode();
      bench.progress(pair.cycles);
    }
    bench.figure("cycles in lock-step", "%llu, 0 differences", pair.cycles);
    bench.figure("rounds, words", "%llu, %llu", (unsigned long long)rounds, (unsigned long long)words);
  }

 private:
  typedef std::array<uint64_t, 8> Data;
  struct Block { unsigned rows, columns, user; std::vector<Data> arriving, leaving; };
  hls::Bench &bench;
  std::mt19937_64 random;
  hls::Handshake round, in_port, out_port;
  Pair pair;
  bool to_columns = true;
  int stall_round = 0, stall_in = 0, stall_out = 0;
  std::deque<Block> offered, filling, leaving;  // shape not taken; words still to come; words still to leave
  size_t sent = 0, seen = 0;                    // words of the first of `filling`, of `leaving`
  bool round_valid = false, word_valid = false;
  uint64_t rounds = 0, words = 0;

  uint64_t below(uint64_t n) { return random() % n; }
  bool chance(int percent) { return (int)below(100) < percent; }

  Block block() {
    Block b;
    b.rows = chance(20) ? 16 : 1 + (unsigned)below(16), b.columns = chance(15) ? 64 : chance(30) ? 1 : 1 + (unsigned)below(chance(50) ? 8 : 64), b.user = (unsigned)below(256);
    size_t n = b.rows * b.columns;
    for (size_t i = 0; i < n; i++) {
      Data d;
      for (auto &x : d) x = random();
      b.arriving.push_back(d);
    }
    for (size_t i = 0; i < n; i++)  // row r, column c arrive at r * columns + c, or leave there
      b.leaving.push_back(b.arriving[to_columns ? i % b.rows * b.columns + i / b.rows : i % b.columns * b.rows + i / b.columns]);
    auto &c = bench.coverage;
    c.hit("rows", std::to_string(b.rows)), c.hit("columns", b.columns == 1 ? "1" : b.columns < 16 ? "2-15" : b.columns < 64 ? "16-63" : "64");
    c.hit("direction", to_columns ? "to columns" : "to rows");
    return b;
  }

  void cycle() {
    bench.now = pair.cycles;
    In in = In();
    HLS_SET_MUTANT(in, bench.mutant);
    in.to_columns = to_columns;
    round_valid |= !offered.empty() && !chance(stall_round);
    in.round.valid = round_valid;
    if (round_valid) in.round.shape = shape(offered.front());
    // The words of a round may be there before the round is taken.
    const Block *source = !filling.empty() ? &filling.front() : !offered.empty() ? &offered.front() : nullptr;
    word_valid |= source && !chance(stall_in);
    in.s_axis.tvalid = word_valid;
    if (word_valid) for (int i = 0; i < 8; i++) in.s_axis.tdata.lane[i] = source->arriving[sent][(size_t)i];
    in.m_axis.tready = !chance(stall_out);
    Out out = pair.cycle(in);
    round.see(in.round.valid, out.round.ready), in_port.see(in.s_axis.tvalid, out.s_axis.tready), out_port.see(out.m_axis.tvalid, in.m_axis.tready);
    bool quiet = leaving.empty() && filling.empty();
    if (out.idle != quiet) bench.fail("idle is %d with %zu rounds in it", (int)out.idle, leaving.size() + filling.size());
    if (out.m_axis.tvalid && in.m_axis.tready) see_word(out);
    if (word_valid && out.s_axis.tready) {
      if (filling.empty()) bench.fail("a word is taken before its round");
      word_valid = false;
      if (++sent == filling.front().arriving.size()) leaving.push_back(filling.front()), filling.pop_front(), sent = 0;
    }
    if (round_valid && out.round.ready) {
      if (!filling.empty()) bench.fail("a round is taken before the one before has arrived");
      filling.push_back(offered.front()), offered.pop_front(), round_valid = false;
    }
    bench.coverage.hit("banks full", leaving.empty() ? "none" : leaving.size() == 1 ? "one" : "both");
    if (leaving.size() > 3) bench.fail("more rounds than two banks and the words behind them can hold");
  }
  static Round shape(const Block &b) {
    Round r;
    r.rows = b.rows, r.columns = b.columns, r.user = b.user;
    return r;
  }
  void see_word(const Out &out) {
    if (leaving.empty()) bench.fail("a word that nobody has sent");
    const Block &b = leaving.front();
    Round r = shape(b);
    if (out.m_axis.shape.rows != r.rows || out.m_axis.shape.columns != r.columns || out.m_axis.shape.user != r.user) bench.fail("a word carries another round's shape");
    for (int i = 0; i < 8; i++)
      if (out.m_axis.tdata.lane[i] != b.leaving[seen][(size_t)i]) bench.fail("word %zu of a round of %u x %u is wrong", seen, b.rows, b.columns);
    unsigned line = to_columns ? b.rows : b.columns;
    if (out.m_axis.tlast != ((seen + 1) % line == 0)) bench.fail("tlast is wrong on word %zu", seen);
    words++;
    if (++seen == b.leaving.size()) leaving.pop_front(), seen = 0, rounds++;
  }
  void finish() {
    for (int n = 0; !offered.empty() || !filling.empty() || !leaving.empty(); n++) {
      cycle();
      if (n > 400000) bench.fail("no progress");
    }
    for (int n = 0; n < 4; n++) cycle();
  }
  void reset() {
    bench.coverage.hit("reset while", !leaving.empty() ? "leaving" : !filling.empty() ? "filling" : "idle");
    pair.reset();
    offered.clear(), filling.clear(), leaving.clear(), sent = seen = 0, round_valid = word_valid = false;
  }

  void episode() {
    auto any = [&] { return bench.stall >= 0 ? bench.stall : chance(7) ? 95 : (int)below(4) * 25; };
    stall_round = any(), stall_in = any(), stall_out = any();
    for (uint64_t n = 1 + below(6); n > 0; n--) offered.push_back(block());
    if (chance(20)) {
      for (uint64_t n = below(400); n > 0; n--) cycle();
      reset();
    } else {
      finish();
    }
    if (chance(20)) {  // the direction is a constant of each of the two that the card has: only a reset changes it
      reset();
      to_columns = !to_columns;
    }
  }
  // Full rounds back to back: a word a cycle in and out.
  void rate() {
    for (int i = 0; i < 8; i++) {
      Block b = block();
      while (b.rows != 16 || b.columns != 64) b = block();
      offered.push_back(b);
    }
    auto begin = pair.cycles;
    finish();
    double share = 8 * 1024 / (double)(pair.cycles - begin - 1024);
    bench.figure("rounds of 16 x 64 back to back", "%.1f %% of a word a cycle behind the first round", 100 * share);
    if (share < 0.98) bench.fail("slower than 98 %% of a word a cycle");
  }
};

}  // namespace

int main(int argc, char **argv) {
  return hls::bench_main(argc, argv, {"transposer", 22, 1000000}, [](hls::Bench &b) { Runner(b).run(); });
}
