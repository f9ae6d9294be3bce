// The wrappers for Vitis HLS with our own stand-ins for Xilinx's headers: each is given what the bench of its kernel gives, and must give what
// ISA-L, a memory or the descriptors say. The configurations must name what is there.
#include <isa-l/crc.h>
#include <isa-l/erasure_code.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <sstream>
#include <vector>

#include "hls/dma_mover/vitis.h"
#include "hls/dma_write_log/record.h"
#include "hls/dma_write_log/vitis.h"
#include "hls/job_queue/step.hpp"
#include "hls/job_queue/vitis.h"
#include "sim/card/jobs.hpp"

using vitis::Beat, vitis::Port, vitis::Wide;
extern "C" {
void luge_crc32c(hls::stream<Beat> &, hls::stream<ap_uint<32>> &, ap_uint<32>);
void luge_erasure_coder(hls::stream<Beat> &, hls::stream<Beat> &, const ap_uint<8> *, ap_uint<5>, ap_uint<3>, ap_uint<32>);
void luge_transposer(hls::stream<transposer::Round> &, hls::stream<Beat> &, hls::stream<Beat> &, bool, ap_uint<32>);
void luge_dma_reader(Port, hls::stream<vitis::Move> &, hls::stream<Beat> &, hls::stream<ap_uint<3>> &, ap_uint<32>);
void luge_dma_writer(Port, hls::stream<vitis::Move> &, hls::stream<Beat> &, hls::stream<ap_uint<3>> &, ap_uint<32>);
void luge_job_queue(Port, hls::stream<job_queue::Move> &, hls::stream<job_queue::Move> &, hls::stream<transposer::Round> &, hls::stream<transposer::Round> &, hls::stream<vitis::Coefficient> &, hls::stream<vitis::Fail> &,
                    hls::stream<vitis::Fail> &, hls::stream<vitis::Crc> &, hls::stream<vitis::Crc> &, ap_uint<64>, ap_uint<64>, ap_uint<4>, ap_uint<64>, ap_uint<64>, ap_uint<32>);
void luge_dma_write_log(Port, hls::stream<vitis::Write> &, hls::stream<vitis::Data> &, hls::stream<vitis::Answer> &, hls::stream<vitis::Window> &, hls::stream<ap_uint<32>> &, ap_uint<64>, ap_uint<5>, ap_uint<24>, bool,
                        ap_uint<32>, ap_uint<32>);
}

namespace {

std::mt19937_64 random_bits(11);
uint64_t below(uint64_t n) { return random_bits() % n; }
void check(bool good, const char *what) {
  if (!good) std::fprintf(stderr, "vitis: %s\n", what), std::exit(1);
}
Wide wide(const unsigned char *p) {
  Wide w = 0;
  for (int i = 0; i < 64; i++) w.range(8 * i + 7, 8 * i) = ap_uint<8>(p[i]);
  return w;
}
unsigned char byte_of(const Wide &w, int i) { return (unsigned char)ap_uint<8>(w.range(8 * i + 7, 8 * i)).to_uint(); }
void scramble(std::vector<unsigned char> &v) { for (auto &b : v) b = (unsigned char)random_bits(); }

// Bytes as a memory port sees them.
struct Bytes {
  std::vector<Wide> lines;
  explicit Bytes(size_t size) : lines(size / 64) { for (auto &l : lines) { unsigned char b[64]; for (auto &x : b) x = (unsigned char)random_bits(); l = wide(b); } }
  unsigned char at(uint64_t a) const { return byte_of(lines[a / 64], (int)(a % 64)); }
  void put(uint64_t a, const void *from, size_t n) { for (size_t i = 0; i < n; i++) lines[(a + i) / 64].range(8 * (int)((a + i) % 64) + 7, 8 * (int)((a + i) % 64)) = ap_uint<8>(((const unsigned char *)from)[i]); }
  void get(uint64_t a, void *to, size_t n) const { for (size_t i = 0; i < n; i++) ((unsigned char *)to)[i] = at(a + i); }
  Port port() { return Port(lines.data()); }
};

void crcs() {
  hls::stream<Beat> words;
  hls::stream<ap_uint<32>> got;
  std::vector<unsigned> want;
  for (int n = 0; n < 200; n++) {
    std::vector<unsigned char> block(64 * (1 + below(64)));
    scramble(block);
    for (size_t at = 0; at < block.size(); at += 64) words.write(vitis::beat(wide(&block[at]), at + 64 == block.size()));
    want.push_back(~crc32_iscsi(block.data(), (int)block.size(), ~0u));
  }
  luge_crc32c(words, got, 200);
  for (unsigned w : want) check(got.read() == w, "a CRC differs from ISA-L");
}

void code(const unsigned char *rows_of, int k, int rows, size_t columns) {
  std::vector<std::vector<unsigned char>> data((size_t)k, std::vector<unsigned char>(64 * columns)), want((size_t)rows, data[0]);
  std::vector<unsigned char *> from, to;
  for (auto &d : data) scramble(d), from.push_back(d.data());
  for (auto &w : want) to.push_back(w.data());
  std::vector<unsigned char> c(rows_of, rows_of + k * rows), tables(32ull * (size_t)(k * rows));
  ec_init_tables(k, rows, c.data(), tables.data());
  ec_encode_data((int)(64 * columns), k, rows, tables.data(), from.data(), to.data());
  ap_uint<8> coefficients[64];
  for (int i = 0; i < 64; i++) coefficients[i] = i / 16 < rows && i % 16 < k ? rows_of[i / 16 * k + i % 16] : 0;
  hls::stream<Beat> sources, destinations;
  for (size_t at = 0; at < columns; at++) for (auto &d : data) sources.write(vitis::beat(wide(&d[64 * at]), false));
  luge_erasure_coder(sources, destinations, coefficients, k, rows, (unsigned)columns);
  for (size_t at = 0; at < columns; at++)
    for (int r = 0; r < rows; r++) {
      Beat b = destinations.read();
      check(b.last == (r == rows - 1), "tlast of a column is wrong");
      for (int i = 0; i < 64; i++) check(byte_of(b.data, i) == want[(size_t)r][64 * at + (size_t)i], "parity differs from ISA-L");
    }
  check(destinations.empty() && sources.empty(), "words are left");
}
void coder() {
  unsigned char matrix[20 * 16];
  for (int k = 1; k <= 16; k++)
    for (int m = 1; m <= 4; m++) {
      gf_gen_cauchy1_matrix(matrix, k + m, k), code(matrix + k * k, k, m, 3);
      gf_gen_rs_matrix(matrix, k + m, k), code(matrix + k * k, k, m, 2);
    }
  for (int k : {0, 17}) {
    hls::stream<Beat> none, got;
    ap_uint<8> c[64];
    luge_erasure_coder(none, got, c, k, 2, 1);
    check(got.empty(), "a job of no or too many sources gives something");
  }
}

void transposers() {
  for (bool to_columns : {true, false}) {
    hls::stream<transposer::Round> rounds;
    hls::stream<Beat> in, out;
    std::vector<std::pair<Wide, bool>> want;
    for (int n = 0; n < 40; n++) {
      transposer::Round r;
      unsigned rows = 1 + (unsigned)below(16), columns = 1 + (unsigned)below(64);
      r.rows = rows, r.columns = columns, r.user = 0;
      rounds.write(r);
      std::vector<Wide> words;
      for (unsigned i = 0; i < rows * columns; i++) {
        unsigned char b[64];
        for (auto &x : b) x = (unsigned char)random_bits();
        words.push_back(wide(b)), in.write(vitis::beat(words.back(), false));
      }
      for (unsigned i = 0; i < rows * columns; i++)
        want.push_back({words[to_columns ? i % rows * columns + i / rows : i % columns * rows + i / columns], (i + 1) % (to_columns ? rows : columns) == 0});
    }
    luge_transposer(rounds, in, out, to_columns, 40);
    for (auto &[data, last] : want) {
      Beat b = out.read();
      check(b.data == data && (b.last != 0) == last, "a word of a round is wrong");
    }
    check(out.empty(), "a word too many leaves");
  }
}

vitis::Move move(uint64_t address, uint32_t length) {
  vitis::Move m;
  m.address = address, m.length = length;
  return m;
}
void movers() {
  Bytes memory(1 << 18);
  hls::stream<vitis::Move> commands;
  hls::stream<Beat> words;
  hls::stream<ap_uint<3>> fails;
  std::vector<std::pair<uint64_t, uint32_t>> list;
  for (int n = 0; n < 100; n++) {
    uint32_t length = 1 + (uint32_t)below(n % 3 ? 9000 : 130);
    uint64_t address = below((1 << 18) - 16384);
    list.push_back({address, length}), commands.write(move(address, length));
  }
  luge_dma_reader(memory.port(), commands, words, fails, 100);
  for (auto &[address, length] : list) {
    check(fails.read() == 0, "a read fails");
    for (uint32_t at = 0; at < length; at += 64) {
      Beat b = words.read();
      check((b.last != 0) == (at + 64 >= length), "tlast of a read is wrong");
      for (uint32_t i = 0; i < 64; i++) check(byte_of(b.data, (int)i) == (at + i < length ? memory.at(address + at + i) : 0), "a byte that was read is wrong");
    }
  }
  check(words.empty(), "a read gives too much");

  std::vector<unsigned char> mirror(1 << 18);
  memory.get(0, mirror.data(), mirror.size());
  for (auto &[address, length] : list) {
    commands.write(move(address, length));
    for (uint32_t at = 0; at < length; at += 64) {
      unsigned char b[64];
      for (auto &x : b) x = (unsigned char)random_bits();
      for (uint32_t i = 0; i < 64 && at + i < length; i++) mirror[address + at + i] = b[i];
      words.write(vitis::beat(wide(b), at + 64 >= length));
    }
  }
  luge_dma_writer(memory.port(), commands, words, fails, 100);
  for (size_t i = 0; i < list.size(); i++) check(fails.read() == 0, "a write fails");
  for (size_t i = 0; i < mirror.size(); i++) check(memory.at(i) == mirror[i], "a byte of the memory is wrong");
}

// Good and bad jobs: what they ask for, their completions and CRC lines.
void queue() {
  using namespace luge_card;
  constexpr uint64_t ring = 0, completions = 0x10000, lines = 0x20000, window = 0x20000, end = 1ull << 32;
  constexpr unsigned count = 48;  // of a ring of 64
  Bytes memory(1 << 19);
  std::vector<unsigned char> nothing(64 * 64);
  memory.put(completions, nothing.data(), nothing.size());
  hls::Coverage unused;
  luge::sim::Jobs jobs({window, end, 0x1000000, 0x2000000, 0x10000000, 0x8000, lines, 0x1000}, random_bits, unused);
  hls::stream<job_queue::Move> reads, writes;
  hls::stream<transposer::Round> gathers, scatters;
  hls::stream<vitis::Coefficient> coefficients;
  hls::stream<vitis::Fail> read_fails, write_fails;
  hls::stream<vitis::Crc> crc_in, crc_out;
  struct Line { uint64_t at; std::vector<uint32_t> crcs; };
  std::vector<Line> expected_lines;
  std::vector<luge::sim::Job> list;
  std::vector<std::pair<uint64_t, uint32_t>> want_reads, want_writes;
  std::vector<int> status;
  std::vector<unsigned char> want_coefficients;
  for (unsigned n = 0; n < count; n++) {
    auto j = n < 4 ? jobs.load((int)n) : n % 4 == 3 ? jobs.bad(n) : jobs.code(n);
    memory.put(ring + 256 * n, &j.d, 256);
    list.push_back(j), status.push_back(j.expected);
    if (n < 4) want_coefficients.insert(want_coefficients.end(), (unsigned char *)&j.d + 64, (unsigned char *)&j.d + 128);
    if (j.d.op != Op::code || j.expected != JobStatus::ok) continue;
    bool fails = n % 5 == 0;
    for (uint32_t at = 0, r = 0; at < j.d.length; at += 4096, r++) {
      uint32_t size = std::min<uint32_t>(4096, j.d.length - at);
      Line in{j.d.crc_address + 128ull * r, {}}, out{j.d.crc_address + 128ull * r + 64, {}};
      for (int i = 0; i < j.d.sources; i++) {
        want_reads.push_back({j.d.source[i] + at, size});
        read_fails.write(fails && at == 0 && i == 0 ? 2 : 0), in.crcs.push_back((uint32_t)random_bits()), crc_in.write(in.crcs.back());
      }
      for (int i = 0; i < j.d.rows; i++) want_writes.push_back({j.d.destination[i] + at, size}), write_fails.write(0), out.crcs.push_back((uint32_t)random_bits()), crc_out.write(out.crcs.back());
      if (j.with_crc) expected_lines.push_back(in), expected_lines.push_back(out);
    }
    if (fails) status.back() = JobStatus::read_decode;
  }
  luge_job_queue(memory.port(), reads, writes, gathers, scatters, coefficients, read_fails, write_fails, crc_in, crc_out, ring, completions, 6, window, end, count);
  for (auto &[a, n] : want_reads) { auto m = reads.read(); check(m.address == a && m.length == n, "a read command is wrong"); }
  for (auto &[a, n] : want_writes) { auto m = writes.read(); check(m.address == a && m.length == n, "a write command is wrong"); }
  for (unsigned char c : want_coefficients) check(coefficients.read().value == c, "a coefficient is wrong");
  check(reads.empty() && writes.empty() && coefficients.empty(), "the queue asks for too much");
  for (unsigned n = 0; n < count; n++) {
    Completion c;
    memory.get(completions + 64 * n, &c, sizeof c);
    check(c.phase == 1 && c.index == n && c.cookie == list[n].d.cookie && c.status == status[n], "a completion is wrong");
  }
  for (auto &l : expected_lines)
    for (size_t i = 0; i < 16; i++) {
      uint32_t got;
      memory.get(l.at + 4 * i, &got, 4);
      check(got == (i < l.crcs.size() ? l.crcs[i] : 0), "a line of CRCs is wrong");
    }
}

// Every write is in memory and in a record of its function, and the marker comes last.
void log(bool at_scheduling) {
  constexpr uint64_t ring = 0x80000;
  constexpr unsigned slots_log2 = 10, count = 200;
  Bytes memory(1 << 20);
  std::vector<unsigned char> zeros(16 << slots_log2), mirror(0x80000);
  memory.put(ring, zeros.data(), zeros.size()), memory.get(0, mirror.data(), mirror.size());
  hls::stream<vitis::Write> writes;
  hls::stream<vitis::Data> data;
  hls::stream<vitis::Answer> answers;
  hls::stream<vitis::Window> windows;
  hls::stream<ap_uint<32>> examined;
  vitis::Window w;
  w.function = 3, w.record = true, w.first_page = 0, w.last_page = 0x3f;  // the lower half is recorded
  windows.write(w);
  std::map<uint64_t, bool> lines;  // written within the window: recorded
  for (unsigned n = 0; n < count; n++) {
    unsigned beats = 1 + (unsigned)below(20);
    uint64_t page = below(0x80), first = below(65 - beats);
    vitis::Write a;
    a.address = page * 4096 + first * 64, a.beats_less_one = beats - 1, a.function = 3;
    writes.write(a);
    for (unsigned i = 0; i < beats; i++) {
      unsigned char b[64];
      for (auto &x : b) x = (unsigned char)random_bits();
      vitis::Data d;
      d.data = wide(b), d.strobes = ~ap_uint<64>(0), d.last = i + 1 == beats;
      data.write(d);
      uint64_t at = page * 4096 + (first + i) * 64;
      std::memcpy(&mirror[at], b, 64);
      if (page < 0x40) lines[at] = false;
    }
  }
  luge_dma_write_log(memory.port(), writes, data, answers, windows, examined, ring, slots_log2, 0, at_scheduling, 1, count);
  check(answers.size() == count, "a write has no answer");
  for (size_t i = 0; i < mirror.size(); i++) check(memory.at(i) == mirror[i], "a byte of the memory is wrong");
  bool marker = false;
  for (uint32_t n = 1;; n++) {
    luge_card::dma_record r;
    memory.get(ring + 16 * (n % (1u << slots_log2)), &r, sizeof r);
    if (r.sequence != n) break;
    check(!marker, "a record behind the marker");
    marker = r.kind == luge_card::DMA_SUSPENDED;
    if (r.kind != luge_card::DMA_WRITTEN) continue;
    check(r.function == 3, "a record of another function");
    for (uint64_t at = r.address; at < r.address + r.last + 1; at += 64) { check(lines.count(at), "a record of what was not written"); lines[at] = true; }
  }
  check(marker, "no marker at the end");
  for (auto &[at, seen] : lines) check(seen, "a write is in no record");
}

// hls_config.cfg: keys that are known, a file and a top function that are there.
int configurations(const std::filesystem::path &root) {
  const std::vector<std::string> keys = {"part", "clock", "flow_target", "syn.file", "syn.cflags", "syn.top", "package.output.format", "package.output.syn"};
  int n = 0;
  for (auto &e : std::filesystem::recursive_directory_iterator(root / "hls")) {
    if (!e.path().filename().string().ends_with("hls_config.cfg")) continue;
    std::ifstream f(e.path());
    std::string line, file, top;
    for (; std::getline(f, line);) {
      if (line.empty() || line[0] == '#' || line[0] == '[') continue;
      auto key = line.substr(0, line.find('=')), value = line.substr(line.find('=') + 1);
      check(std::find(keys.begin(), keys.end(), key) != keys.end(), ("an unknown key in " + e.path().string()).c_str());
      if (key == "syn.file") file = value;
      if (key == "syn.top") top = value;
    }
    std::ifstream source(e.path().parent_path() / file);
    std::stringstream text;
    text << source.rdbuf();
    check(!top.empty() && text.str().find("extern \"C\" void " + top + "(") != std::string::npos, ("no top function in the source of " + e.path().string()).c_str());
    n++;
  }
  return n;
}

}  // namespace

int main(int, char **argv) {
  alarm(250);  // a wrapper that waits for ever
  crcs(), coder(), transposers(), movers(), queue(), log(false), log(true);
  int n = configurations(argv[1]);
  check(n == 7, "there is not a configuration for every wrapper");
  std::printf("7 wrappers: equal to ISA-L, memory and descriptors; %d configurations\n", n);
}
