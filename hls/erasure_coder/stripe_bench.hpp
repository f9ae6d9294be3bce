// Feeds the coder stripes and compares what it makes of them with ISA-L. For benches (C++20).
#pragma once
#include <isa-l/erasure_code.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "hls/erasure_coder/step.hpp"
#include "hls/lib/bench.hpp"

namespace erasure_coder {

// Core: what is fed, a pair in lock-step (hls/lib/lockstep.hpp) or the RTL alone.
template <class Core> struct StripeBench {
  hls::Bench *bench;
  Core core;
  std::mt19937_64 random;
  int stall_in = 0, stall_out = 0;  // percent
  unsigned select = 0;
  unsigned long long stripes = 0, source_bytes = 0;
  std::string (*column_class)(int) = [](int n) { return std::to_string(n < 5 ? n : 5); };
  hls::Handshake source{bench->coverage, "s_axis"}, result{bench->coverage, "m_axis"};
  explicit StripeBench(hls::Bench &b) : bench(&b), random(b.seed) { if (!b.trace.empty()) core.trace(b.trace); }
  [[noreturn]] void fail(const char *what, unsigned long long cycle) { bench->now = cycle, bench->fail("%s", what); }

  Out cycle(In &in) {
    HLS_SET_MUTANT(in, bench->mutant);
    Out out = core.cycle(in);
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
    cover("k", k), cover("rows", rows), cover("table", (int)select), bench->coverage.hit("columns", column_class(columns));
    source_bytes += (unsigned long long)k * length;
    ec_init_tables(k, rows, c.data(), tables.data());
    ec_encode_data((int)length, k, rows, tables.data(), src.data(), dst.data());

    unsigned long long begin = core.cycles;
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
          if (out.m_axis.tdata.lane[i] != want[out_row][out_column * 64 + i]) fail("parity differs from ISA-L", core.cycles);
        if (out.m_axis.tlast != (out_row == rows - 1)) fail("tlast is wrong", core.cycles);
        if (++out_row == rows) out_row = 0, out_column++;
      }
      if (core.cycles - begin > 100000 + 1000ull * columns * k) fail("no progress", core.cycles);
    }
    stripes++;
    return core.cycles - begin;
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
    rebuild(matrix, k, lost, m, 1);
  }

  // The coefficients that make the `lost` chunks of the first k others, as a job of its own.
  void rebuild(const unsigned char *matrix, int k, const std::vector<int> &lost, int m, int columns) {
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
    job(rows.data(), k, (int)lost.size(), columns);
  }
};

}  // namespace erasure_coder
