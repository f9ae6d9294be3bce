// Coverage of a bench: groups of bins, counted. print() shows every group; a bin that was never hit is a hole, and a hole fails.
//
//   Coverage c;  auto &k = c.group("k", 1, 16);  k.hit(in.k);  Handshake h(c, "s_axis");  h.cycle(valid, ready);  return c.print() ? 0 : 1;
#pragma once
#include <cstdint>
#include <cstdio>
#include <deque>
#include <string>
#include <vector>

namespace hls {

struct CoverageGroup {
  std::string name;
  std::vector<std::string> bins;
  std::vector<uint64_t> count;
  int base = 0;
  void hit(int bin) { if (bin >= base && bin - base < (int)count.size()) count[(size_t)(bin - base)]++; }
};

class Coverage {
 public:
  CoverageGroup &group(const std::string &name, const std::vector<std::string> &bins) {
    groups_.push_back({name, bins, std::vector<uint64_t>(bins.size()), 0});
    return groups_.back();
  }
  // Bins `from`..`to`, named by their number.
  CoverageGroup &group(const std::string &name, int from, int to) {
    std::vector<std::string> bins;
    for (int i = from; i <= to; i++) bins.push_back(std::to_string(i));
    groups_.push_back({name, bins, std::vector<uint64_t>(bins.size()), from});
    return groups_.back();
  }
  int holes() const {
    int n = 0;
    for (auto &g : groups_) for (auto c : g.count) n += c == 0;
    return n;
  }
  bool print() const {
    for (auto &g : groups_) {
      std::string line = "  " + g.name + ":";
      for (size_t i = 0; i < g.bins.size(); i++) line += " " + g.bins[i] + "=" + (g.count[i] ? std::to_string(g.count[i]) : "HOLE");
      std::printf("%s\n", line.c_str());
    }
    if (int n = holes()) std::printf("coverage: %d holes\n", n);
    else std::printf("coverage: %zu groups, no hole\n", groups_.size());
    return holes() == 0;
  }

 private:
  std::deque<CoverageGroup> groups_;
};

// A valid/ready port: its four states, and how long valid waited before it was taken.
class Handshake {
 public:
  Handshake(Coverage &c, const std::string &port)
      : states_(c.group(port + " handshake", {"none", "ready-only", "valid-only", "taken"})), stalls_(c.group(port + " waited", {"0", "1", "2-7", "8-63", "64+"})) {}
  void cycle(bool valid, bool ready) {
    states_.hit(2 * valid + ready);
    if (valid && ready) stalls_.hit(waited_ == 0 ? 0 : waited_ == 1 ? 1 : waited_ < 8 ? 2 : waited_ < 64 ? 3 : 4), waited_ = 0;
    else if (valid) waited_++;
    else waited_ = 0;
  }

 private:
  CoverageGroup &states_, &stalls_;
  unsigned waited_ = 0;
};

}  // namespace hls
