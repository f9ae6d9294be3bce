// erasure_coder against ISA-L, native and RTL in lock-step: every k and m, both matrices, every erasure pattern of 4+2, 8+3
// and 10+4, random stripes under random stalls, refused jobs, reset in mid-stripe; then rates.
#include <chrono>
#include <vector>

#include "erasure_coder_glue.hpp"
#include "hls/erasure_coder/stripe_bench.hpp"
#include "hls/lib/lockstep.hpp"

HLS_LOCKSTEP(erasure_coder, Pair);
using namespace erasure_coder;

namespace {

typedef StripeBench<Pair> Bench;

// The RTL alone: several times as fast as the pair.
class Rtl {
 public:
  unsigned long long cycles = 0;
  Rtl() { reset(), cycles = 0; }
  ~Rtl() { model_->final(); }
  void trace(const std::string &) {}  // of runs in lock-step
  void reset() {
    model_->ap_rst_n = 0;
    cycle(In());
    model_->ap_rst_n = 1;
  }
  Out cycle(const In &in) {
    Out out = Out();
    erasure_coder_glue::drive(*model_, in);
    model_->ap_clk = 0, model_->eval();
    erasure_coder_glue::sample(*model_, out);
    model_->ap_clk = 1, model_->eval();
    cycles++;
    return out;
  }

 private:
  std::unique_ptr<erasure_coder_glue::Model> model_ = std::make_unique<erasure_coder_glue::Model>();
};

void every_pattern(Bench &b, int k, int m) {
  std::vector<unsigned char> matrix((k + m) * k);
  gf_gen_cauchy1_matrix(matrix.data(), k + m, k);
  int patterns = 0;
  for (unsigned set = 1; set < 1u << (k + m); set++) {
    if (__builtin_popcount(set) > m) continue;
    std::vector<int> lost;
    for (int i = 0; i < k + m; i++) if (set >> i & 1) lost.push_back(i);
    b.decode(matrix.data(), k, lost, m);
    patterns++;
  }
  std::printf("%d+%d: all %d erasure patterns rebuilt\n", k, m, patterns);
}

void refusals(Bench &b) {
  for (int k : {0, 4, 17, 31})
    for (int rows : {0, 2, 5, 7}) {
      if (k == 4 && rows == 2) continue;
      for (int n = 0; n < 10; n++) {
        In in = In();
        in.job.k = k, in.job.rows = rows, in.s_axis.tvalid = true, in.m_axis.tready = true;
        Out out = b.cycle(in);
        if (out.s_axis.tready || !out.refused) b.fail("a bad job is not refused", b.core.cycles);
      }
    }
}

void rates(Bench &b) {
  unsigned char matrix[20 * 16];
  b.stall_in = b.stall_out = 0;
  for (int k : {1, 2, 3, 4, 5, 6, 8, 10, 16}) {
    gf_gen_cauchy1_matrix(matrix, k + 4, k);
    b.select = 0;
    b.load(0, matrix + k * k, k, 4);
    auto cycles = b.stripe(matrix + k * k, k, 4, 64);  // chunks of 4 KiB
    double used = 64.0 * k / (double)cycles;
    std::printf("k=%-2d m=4, 4 KiB chunks: %llu cycles, %.1f %% of 64 B a cycle\n", k, cycles, 100 * used);
    if (k >= 4 && used < 0.95) b.fail("slower than 95 % of 64 B a cycle", b.core.cycles);
  }
  for (bool rtl : {false, true}) {
    In in = In();
    in.job.k = 8, in.job.rows = 4, in.m_axis.tready = true, in.s_axis.tvalid = true;
    int n = rtl ? 100000 : 2000000;
    auto begin = std::chrono::steady_clock::now();
    if (rtl) {
      for (int i = 0; i < n; i++) b.cycle(in);
    } else {
      State s = State();
      unsigned sum = 0;
      for (int i = 0; i < n; i++) {
        Out out = Out();
        in.s_axis.tdata.lane[i % 64] = i;
        step(s, in, out);
        sum += out.m_axis.tdata.lane[5];
      }
      if (sum == 1) std::printf(" ");
    }
    double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    std::printf("%s: %.3f MHz, %.1f MB/s of source data\n", rtl ? "native and RTL in lock-step" : "native alone", n / seconds / 1e6, n * 64.0 / seconds / 1e6);
  }
}

const int longest = 64;  // columns: chunks of 4 KiB
const char *const lengths[] = {"1", "2-4", "5-16", "17-63", "64"};

// Of ten: seven chunks of up to 4 columns, so that most of the time goes into jobs and not into one.
int any_columns(std::mt19937_64 &random) {
  auto dice = random() % 100;
  return dice < 40 ? 1 : dice < 70 ? 2 + (int)(random() % 3) : dice < 92 ? 5 + (int)(random() % 12) : dice < 98 ? 17 + (int)(random() % 47) : longest;
}

// One stripe of any code: encoded (Cauchy, Vandermonde), decoded after losing any chunks, or with coefficients that are no code's.
template <class B> void any_stripe(B &b, const char *&kind) {
  int k = 1 + (int)(b.random() % 16), m = 1 + (int)(b.random() % 4);
  unsigned char c[20 * 16];
  auto dice = b.random() % 10;
  if (dice < 4) {
    kind = "encode, Cauchy", gf_gen_cauchy1_matrix(c, k + m, k);
    b.job(c + k * k, k, m, any_columns(b.random));
  } else if (dice < 6) {
    kind = "encode, Vandermonde", gf_gen_rs_matrix(c, k + m, k);
    b.job(c + k * k, k, m, any_columns(b.random));
  } else if (dice < 9) {
    kind = "decode, Cauchy", gf_gen_cauchy1_matrix(c, k + m, k);
    std::vector<int> lost;
    for (int left = 1 + (int)(b.random() % m), i = 0; i < k + m && left > 0; i++)
      if (b.random() % (unsigned)(k + m - i) < (unsigned)left) lost.push_back(i), left--;
    b.rebuild(c, k, lost, m, any_columns(b.random));
  } else {
    kind = "any coefficients";
    for (int i = 0; i < k * m; i++) c[i] = (unsigned char)b.random();
    b.job(c, k, m, any_columns(b.random));
  }
}

// Many stripes on the RTL alone. That native code and RTL are the same in every cycle is what the other run shows.
void many_stripes(hls::Bench &which) {
  auto declare = [&](const char *group, int from, int to) { for (int i = from; i <= to; i++) which.coverage.declare(group, {std::to_string(i)}); };
  declare("k", 1, 16), declare("rows", 1, 4), declare("table", 0, 3);
  which.coverage.declare("columns", {lengths[0], lengths[1], lengths[2], lengths[3], lengths[4]});
  which.coverage.declare("work", {"encode, Cauchy", "encode, Vandermonde", "decode, Cauchy", "any coefficients"});
  StripeBench<Rtl> b(which);
  b.column_class = [](int n) { return std::string(lengths[n == 1 ? 0 : n < 5 ? 1 : n < 17 ? 2 : n < longest ? 3 : 4]); };
  const int stalls[] = {0, 0, 0, 10, 30, 60};
  auto begin = std::chrono::steady_clock::now();
  while (b.stripes < which.stripes) {
    b.stall_in = stalls[b.random() % 6], b.stall_out = stalls[b.random() % 6];
    if (which.stall >= 0) b.stall_in = b.stall_out = which.stall;
    if (b.random() % 1000 == 0) b.stall_in = 0, b.stall_out = 98;  // a taker that sleeps
    const char *kind = "";
    any_stripe(b, kind);
    which.coverage.hit("work", kind);
    which.progress(b.stripes);
  }
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  which.figure("stripes of the RTL equal to ISA-L", "%llu", b.stripes);
  which.figure("source bytes", "%llu", b.source_bytes);
  which.figure("cycles of the RTL", "%llu, %.3f MHz", b.core.cycles, (double)b.core.cycles / seconds / 1e6);
}

}  // namespace

void run(hls::Bench &which) {
  if (which.stripes) return many_stripes(which);
#ifdef HLS_MUTANTS
  const bool shortened = true;
#else
  const bool shortened = false;
#endif
  auto declare = [&](const char *group, int from, int to) { for (int i = from; i <= to; i++) which.coverage.declare(group, {std::to_string(i)}); };
  declare("k", 1, 16), declare("rows", 1, 4), declare("table", 0, 3), declare("columns", 1, 5);
  declare("chunks lost of 4+2", 1, 2), declare("chunks lost of 8+3", 1, 3), declare("chunks lost of 10+4", 1, 4);
  declare("chunk of 4+2 rebuilt", 0, 5), declare("chunk of 8+3 rebuilt", 0, 10), declare("chunk of 10+4 rebuilt", 0, 13);
  Bench b(which);
  unsigned char matrix[20 * 16];
  for (int k = 1; k <= 16; k++)
    for (int m = 1; m <= 4; m++) {
      gf_gen_cauchy1_matrix(matrix, k + m, k);
      b.job(matrix + k * k, k, m, 3);
      gf_gen_rs_matrix(matrix, k + m, k);
      b.job(matrix + k * k, k, m, 3);
    }
  std::printf("k 1..16, m 1..4, Cauchy and Vandermonde: equal to ISA-L\n");
  every_pattern(b, 4, 2);
  if (!shortened) every_pattern(b, 8, 3), every_pattern(b, 10, 4);
  refusals(b);
  for (int i = 0; i < 50; i++) {  // reset at any cycle, then the next stripe is right
    In in = In();
    in.job.k = 5, in.job.rows = 3, in.s_axis.tvalid = true;
    for (unsigned n = b.random() % 40; n > 0; n--) b.cycle(in);
    b.core.reset();
    gf_gen_cauchy1_matrix(matrix, 8, 5);
    b.job(matrix + 25, 5, 3, 2);
  }
  for (int i = 0; i < 4; i++) {  // a taker that sleeps while many columns come
    b.stall_in = 0, b.stall_out = 98;
    gf_gen_cauchy1_matrix(matrix, 8, 4);
    b.job(matrix + 16, 4, 4, 30);
  }
  int stalls[] = {0, 30, 60, 98};
  for (long i = 0; shortened ? i < 300 : i < 10000 || b.core.cycles < which.wanted(); i++) {  // at least 10^4 stripes
    if (!which.full() && b.core.cycles >= which.cycles) break;
    b.stall_in = stalls[b.random() % 4], b.stall_out = stalls[b.random() % 4];
    if (which.stall >= 0) b.stall_in = b.stall_out = which.stall;
    int k = 1 + (int)(b.random() % 16), m = 1 + (int)(b.random() % 4);
    unsigned char c[64];
    for (auto &x : c) x = (unsigned char)b.random();
    b.job(c, k, m, 1 + (int)(b.random() % 4));
  }
  which.figure("stripes equal to ISA-L", "%llu", b.stripes);
  which.figure("cycles in lock-step", "%llu, 0 differences", b.core.cycles);
  if (!shortened) rates(b);
}

int main(int argc, char **argv) { return hls::bench_main(argc, argv, {"erasure_coder", 21, 1000000, true}, run); }
