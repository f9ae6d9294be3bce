// erasure_coder against ISA-L, native and RTL in lock-step: every k and m, both matrices, every erasure pattern of 4+2, 8+3
// and 10+4, random stripes under random stalls, refused jobs, reset in mid-stripe; then rates.
#include <isa-l/erasure_code.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "erasure_coder_glue.hpp"
#include "hls/lib/bench.hpp"
#include "hls/lib/lockstep.hpp"

HLS_LOCKSTEP(erasure_coder, Pair);
using namespace erasure_coder;

namespace {

hls::Bench *bench;
[[noreturn]] void fail(const char *what, unsigned long long cycle) { bench->now = cycle, bench->fail("%s", what); }

struct Bench {
  Pair pair;
  std::mt19937_64 random;
  int stall_in = 0, stall_out = 0;  // percent
  unsigned select = 0;
  unsigned long long stripes = 0;
  hls::Handshake source{bench->coverage, "s_axis"}, result{bench->coverage, "m_axis"};
  explicit Bench(uint64_t seed) : random(seed) { if (!bench->trace.empty()) pair.trace(bench->trace); }

  Out cycle(In &in) {
    HLS_SET_MUTANT(in, bench->mutant);
    Out out = pair.cycle(in);
    source.see(in.s_axis.tvalid, out.s_axis.tready), result.see(out.m_axis.tvalid, in.m_axis.tready);
    return out;
  }
  void cover(const char *group, int bin) { bench->coverage.hit(group, std::to_string(bin)); }

  void load(unsigned table, const unsigned char *coefficients, int k, int rows) {
    for (int r = 0; r < rows; r++)
      for (int j = 0; j < k; j++) {
        In in = In();
        in.load.valid = true, in.load.select = table, in.load.row = r, in.load.source = j, in.load.value = coefficients[r * k + j];
        cycle(in);
      }
  }

  // Codes `columns` columns and compares with ISA-L. Gives the cycles from the first word offered to the last taken.
  unsigned long long stripe(const unsigned char *coefficients, int k, int rows, int columns) {
    size_t length = (size_t)columns * 64;
    std::vector<std::vector<unsigned char>> data(k, std::vector<unsigned char>(length)), want(rows, std::vector<unsigned char>(length));
    for (auto &d : data)
      for (size_t i = 0; i < length; i += 8) { uint64_t v = random(); std::memcpy(&d[i], &v, 8); }
    std::vector<unsigned char> tables(32 * k * rows), c(coefficients, coefficients + k * rows);
    std::vector<unsigned char *> src, dst;
    for (auto &d : data) src.push_back(d.data());
    for (auto &w : want) dst.push_back(w.data());
    cover("k", k), cover("rows", rows), cover("table", (int)select), cover("columns", columns < 5 ? columns : 5);
    ec_init_tables(k, rows, c.data(), tables.data());
    ec_encode_data((int)length, k, rows, tables.data(), src.data(), dst.data());

    unsigned long long begin = pair.cycles;
    int in_column = 0, in_source = 0, out_column = 0, out_row = 0;
    bool offered = false, can_take = false;
    while (out_column < columns) {
      In in = In();
      in.job.k = k, in.job.rows = rows, in.job.select = select;
      offered = in_column < columns && (offered || (int)(random() % 100) >= stall_in);
      can_take = (int)(random() % 100) >= stall_out;
      in.s_axis.tvalid = offered;
      if (offered)
        for (int i = 0; i < 64; i++) in.s_axis.tdata.lane[i] = data[in_source][in_column * 64 + i];
      in.m_axis.tready = can_take;
      Out out = cycle(in);
      if (offered && out.s_axis.tready) {
        offered = false;
        if (++in_source == k) in_source = 0, in_column++;
      }
      if (out.m_axis.tvalid && can_take) {
        for (int i = 0; i < 64; i++)
          if (out.m_axis.tdata.lane[i] != want[out_row][out_column * 64 + i]) fail("parity differs from ISA-L", pair.cycles);
        if (out.m_axis.tlast != (out_row == rows - 1)) fail("tlast is wrong", pair.cycles);
        if (++out_row == rows) out_row = 0, out_column++;
      }
      if (pair.cycles - begin > 100000 + 1000ull * columns * k) fail("no progress", pair.cycles);
    }
    stripes++;
    return pair.cycles - begin;
  }

  void job(const unsigned char *coefficients, int k, int rows, int columns) {
    select = (select + 1) % TABLES;
    load(select, coefficients, k, rows);
    stripe(coefficients, k, rows, columns);
  }

  // Rebuilds `lost` chunks of a k+m code with the kernel.
  void decode(const unsigned char *matrix, int k, const std::vector<int> &lost, int m) {
    cover(m == 2 ? "chunks lost of 4+2" : m == 3 ? "chunks lost of 8+3" : "chunks lost of 10+4", (int)lost.size());
    for (int l : lost) cover(m == 2 ? "chunk of 4+2 rebuilt" : m == 3 ? "chunk of 8+3 rebuilt" : "chunk of 10+4 rebuilt", l);
    std::vector<int> kept;
    for (int i = 0; i < k + m && (int)kept.size() < k; i++)
      if (std::find(lost.begin(), lost.end(), i) == lost.end()) kept.push_back(i);
    std::vector<unsigned char> survivors(k * k), inverse(k * k), rows;
    for (int i = 0; i < k; i++) std::memcpy(&survivors[i * k], &matrix[kept[i] * k], k);
    if (gf_invert_matrix(survivors.data(), inverse.data(), k) != 0) fail("survivor matrix is singular", 0);
    for (int chunk : lost)
      for (int j = 0; j < k; j++) {  // row of the lost chunk in terms of the survivors
        unsigned char v = 0;
        for (int i = 0; i < k; i++) v ^= gf_mul(matrix[chunk * k + i], inverse[i * k + j]);
        rows.push_back(v);
      }
    job(rows.data(), k, (int)lost.size(), 1);
  }
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
        if (out.s_axis.tready || !out.refused) fail("a bad job is not refused", b.pair.cycles);
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
    if (k >= 4 && used < 0.95) fail("slower than 95 % of 64 B a cycle", b.pair.cycles);
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

}  // namespace

void run(hls::Bench &which) {
  bench = &which;
#ifdef HLS_MUTANTS
  const bool shortened = true;
#else
  const bool shortened = false;
#endif
  auto declare = [&](const char *group, int from, int to) { for (int i = from; i <= to; i++) which.coverage.declare(group, {std::to_string(i)}); };
  declare("k", 1, 16), declare("rows", 1, 4), declare("table", 0, 3), declare("columns", 1, 5);
  declare("chunks lost of 4+2", 1, 2), declare("chunks lost of 8+3", 1, 3), declare("chunks lost of 10+4", 1, 4);
  declare("chunk of 4+2 rebuilt", 0, 5), declare("chunk of 8+3 rebuilt", 0, 10), declare("chunk of 10+4 rebuilt", 0, 13);
  Bench b(which.seed);
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
    b.pair.reset();
    gf_gen_cauchy1_matrix(matrix, 8, 5);
    b.job(matrix + 25, 5, 3, 2);
  }
  for (int i = 0; i < 4; i++) {  // a taker that sleeps while many columns come
    b.stall_in = 0, b.stall_out = 98;
    gf_gen_cauchy1_matrix(matrix, 8, 4);
    b.job(matrix + 16, 4, 4, 30);
  }
  int stalls[] = {0, 30, 60, 98};
  for (long i = 0; shortened ? i < 300 : i < 10000 || b.pair.cycles < which.wanted(); i++) {  // at least 10^4 stripes
    if (!which.full() && b.pair.cycles >= which.cycles) break;
    b.stall_in = stalls[b.random() % 4], b.stall_out = stalls[b.random() % 4];
    if (which.stall >= 0) b.stall_in = b.stall_out = which.stall;
    int k = 1 + (int)(b.random() % 16), m = 1 + (int)(b.random() % 4);
    unsigned char c[64];
    for (auto &x : c) x = (unsigned char)b.random();
    b.job(c, k, m, 1 + (int)(b.random() % 4));
  }
  which.figure("stripes equal to ISA-L", "%llu", b.stripes);
  which.figure("cycles in lock-step", "%llu, 0 differences", b.pair.cycles);
  if (!shortened) rates(b);
}

int main(int argc, char **argv) { return hls::bench_main(argc, argv, {"erasure_coder", 21, 1000000}, run); }
