// Descriptors for benches: good ones of every shape, and bad ones of every kind with the code that they must be refused with.
#pragma once
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "hls/lib/bench.hpp"
#include "hls/registers/card.h"

namespace luge::sim {

struct Job {
  luge_card::Descriptor d;
  int expected;  // status without faults
  bool with_crc;
};

// Where jobs may read and write. `destinations` and `lines` have a place of their own for every entry of the ring, 4 * `place` and `line_place` bytes.
struct JobSpace {
  uint64_t window, end;
  uint64_t sources, source_bytes;
  uint64_t destinations, place;
  uint64_t lines, line_place;
};

class Jobs {
 public:
  static constexpr int BAD_KINDS = 21, BAD_FORMS = 6;  // forms: after so many turns of all kinds each has been in every one
  unsigned functions = 64;     // that jobs name
  uint32_t longest = 13192;    // bytes of a chunk

  Jobs(const JobSpace &space, std::mt19937_64 &random, hls::Coverage &coverage) : space_(space), random_(random), coverage_(coverage) {
    std::vector<std::string> ks;
    for (int k = 1; k <= 16; k++) ks.push_back(std::to_string(k));
    coverage.declare("k", ks), coverage.declare("m", {"1", "2", "3", "4"});
    coverage.declare("length", {"1-63", "64", "65-4095", "4096", "up to 8192", "more"});
    coverage.declare("offset of a chunk", {"0", "other"});
    coverage.declare("CRC", {"with", "without"});
    std::vector<std::string> kinds;
    for (auto *n : bad_names) kinds.push_back(n);
    coverage.declare("bad descriptor", kinds), coverage.declare("fence of a job", {"its epoch", "refused", "beyond"});
  }

  luge_card::Descriptor blank(int op) {
    luge_card::Descriptor d;
    std::memset((void *)&d, 0, sizeof d);
    d.version = 1, d.op = (uint8_t)op, d.cookie = cookie_++;
    return d;
  }
  Job nothing() { return {blank(luge_card::Op::nothing), luge_card::JobStatus::ok, false}; }
  // A job whose results lie at the places of `entry`.
  Job code(uint32_t entry) {
    Job j;
    auto &d = j.d;
    d = blank(luge_card::Op::code), j.expected = luge_card::JobStatus::ok;
    d.sources = (uint8_t)(1 + below(16)), d.rows = (uint8_t)(1 + below(4)), d.table = (uint8_t)below(4), d.function = (uint8_t)below(functions);
    d.length = any_length();
    j.with_crc = chance(50);
    if (j.with_crc) d.length = (d.length + 63) / 64 * 64, d.flags = luge_card::FLAG_CRC;
    bool aligned = chance(40);
    for (int i = 0; i < d.sources; i++) d.source[i] = space_.sources + below((space_.source_bytes - d.length - 64) / 64) * 64 + (aligned ? 0 : below(64));
    for (int r = 0; r < d.rows; r++) d.destination[r] = space_.destinations + (entry * 4 + (uint32_t)r) * space_.place + 64 + (aligned ? 0 : below(64));
    d.crc_address = j.with_crc ? space_.lines + entry * space_.line_place : below(~0ull);
    for (int i = d.sources; i < 16; i++) d.source[i] = random_();
    for (int i = d.rows; i < 8; i++) d.destination[i] = random_();
    cover(d, aligned, j.with_crc);
    return j;
  }
  // The same behind a fence that stands at `fence`: under it, before it, or beyond it.
  Job fenced(Job j, unsigned fence_entry, uint64_t fence) {
    unsigned how = (unsigned)below(4);
    j.d.fence = (uint8_t)fence_entry;
    j.d.epoch = how == 0 ? fence : how == 1 ? fence - 1 : how == 2 ? fence + 1 : random_();
    if (j.expected == luge_card::JobStatus::ok && j.d.epoch < fence) j.expected = luge_card::JobStatus::fenced, j.with_crc = false;
    coverage_.hit("fence of a job", j.d.epoch == fence ? "its epoch" : j.d.epoch < fence ? "refused" : "beyond");
    return j;
  }
  Job load(int table) {
    Job j{blank(luge_card::Op::load_table), luge_card::JobStatus::ok, false};
    j.d.table = (uint8_t)table;
    for (int i = 0; i < 64; i++) reinterpret_cast<uint8_t *>(&j.d)[64 + i] = (uint8_t)random_();
    return j;
  }
  // A descriptor that must be refused; each kind in turn, and of numbers of rows each.
  Job bad(uint32_t entry) {
    using luge_card::JobStatus;
    Job j = code(entry);
    auto &d = j.d;
    auto crc = [&] { d.flags = luge_card::FLAG_CRC, d.length = 4096, d.crc_address = space_.lines; };
    unsigned kind = bads_ % BAD_KINDS, form = bads_ / BAD_KINDS % BAD_FORMS;
    bads_++;
    coverage_.hit("bad descriptor", bad_names[kind]);
    switch (kind) {
      case 0: d.version = (uint8_t)(below(2) ? 0 : 2 + below(200)), j.expected = JobStatus::bad_version; break;
      case 1: d.op = (uint8_t)(below(2) ? 0 : 4 + below(200)), j.expected = JobStatus::bad_op; break;
      case 2: d.flags = (uint8_t)(2 << below(7)), j.expected = JobStatus::bad_op; break;
      case 3: d.sources = (uint8_t)(below(2) ? 0 : 17 + below(200)), j.expected = JobStatus::bad_sources; break;
      case 4: d.rows = (uint8_t)(form < 4 ? 5 + form : form == 4 ? 0 : 9 + below(200)), j.expected = JobStatus::bad_rows; break;
      case 5: d.table = (uint8_t)(4 + below(252)), j.expected = JobStatus::bad_table; break;
      case 6: d.length = 0, j.expected = JobStatus::bad_length; break;
      case 7: d.length = luge_card::MAX_LENGTH + 1 + (uint32_t)below(1 << 30), j.expected = JobStatus::bad_length; break;
      case 8: crc(), d.length = 4096 - (uint32_t)(1 + below(63)), j.expected = JobStatus::bad_length; break;
      case 9: crc(), d.crc_address += 1 + below(127), j.expected = JobStatus::misaligned; break;
      case 10: crc(), d.crc_address = chance(50) ? space_.window - 128 : space_.end, j.expected = JobStatus::outside; break;
      case 11: d.source[below(d.sources)] = space_.window - 1 - below(1000), j.expected = JobStatus::outside; break;
      case 12: d.source[below(d.sources)] = space_.end - d.length + 1 + below(1000), j.expected = JobStatus::outside; break;
      case 13: d.destination[below(d.rows)] = chance(50) ? ~0ull - below(100) : space_.window - d.length, j.expected = JobStatus::outside; break;
      case 14: d.source[below(d.sources)] = d.destination[below(d.rows)] + (chance(50) ? 0 : below(d.length)), j.expected = JobStatus::overlap; break;
      case 15: d.rows = 2, d.destination[0] = space_.destinations + 100000, d.destination[1] = d.destination[0] + d.length - 1, j.expected = JobStatus::overlap; break;
      case 16:
        d.rows = 4, d.length = 100, d.flags = 0, j.expected = JobStatus::overlap;
        for (int r = 0; r < 3; r++) d.destination[r] = space_.destinations + 200u * (unsigned)r;
        d.destination[3] = space_.destinations + 99;
        break;
      case 17: d.function = (uint8_t)(64 + below(192)), j.expected = JobStatus::bad_function; break;
      case 18: d.fence = (uint8_t)(64 + below(192)), j.expected = JobStatus::bad_fence; break;
      case 19: d = blank(luge_card::Op::load_table), d.table = 4, j.expected = JobStatus::bad_table; break;
      default: d = blank(luge_card::Op::nothing), d.flags = 1, j.expected = JobStatus::bad_op; break;
    }
    j.with_crc = false;
    return j;
  }

 private:
  static constexpr const char *bad_names[BAD_KINDS] = {"version", "op", "flag", "k of 0 or above 16", "m of 0 or above the rows", "no such table", "length 0", "length above 16 MiB",
                                                       "length with CRCs no multiple of 64", "CRC address misaligned", "CRCs outside", "source below the window", "source above the window", "destination outside",
                                                       "source over a destination", "destination over the next", "last destination over the first", "function", "fence", "no such table to load", "flag of another op"};
  JobSpace space_;
  std::mt19937_64 &random_;
  hls::Coverage &coverage_;
  uint64_t cookie_ = 1;
  unsigned bads_ = 0;

  uint64_t below(uint64_t n) { return random_() % n; }
  bool chance(int percent) { return (int)below(100) < percent; }
  uint32_t any_length() {
    switch (below(7)) {
      case 0: return 1 + (uint32_t)below(63);
      case 1: return 64;
      case 2: return 65 + (uint32_t)below(4031);
      case 3: return 4096;
      case 4: return 4097 + (uint32_t)below(4096);
      case 5: return 64 * (1 + (uint32_t)below(100));
      default: return 8193 + (uint32_t)below(longest - 8192);
    }
  }
  void cover(const luge_card::Descriptor &d, bool aligned, bool with_crc) {
    auto &c = coverage_;
    uint32_t n = d.length;
    c.hit("k", std::to_string(d.sources)), c.hit("m", std::to_string(d.rows)), c.hit("offset of a chunk", aligned ? "0" : "other"), c.hit("CRC", with_crc ? "with" : "without");
    c.hit("length", n < 64 ? "1-63" : n == 64 ? "64" : n < 4096 ? "65-4095" : n == 4096 ? "4096" : n <= 8192 ? "up to 8192" : "more");
  }
};

}  // namespace luge::sim
