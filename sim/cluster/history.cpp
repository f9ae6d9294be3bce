#include "sim/cluster/history.hpp"

#include <algorithm>
#include <cstdio>
#include <unordered_set>

#include "base/check.hpp"

namespace luge::sim {
namespace {

std::uint64_t mix(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

constexpr std::uint64_t kMark = 0x6c75676573696d00;  // so that a sector of a write is never all zeros

void fill_sector(std::uint32_t number, std::uint64_t sector, MutableBytes into) {
  std::uint64_t words[2] = {kMark | (number & 0xff), std::uint64_t{number} << 32 | (sector & 0xffffffff)};
  std::memcpy(into.data(), words, 16);
  std::uint64_t x = mix(words[1]);
  for (std::size_t at = 16; at < into.size(); at += 8, x += 0x9e3779b97f4a7c15) std::memcpy(into.data() + at, &x, 8);
}

std::string seconds(History::Time t) {
  char text[32];
  if (t == History::kNever) return "         ?";
  std::snprintf(text, sizeof text, "%10.6f", static_cast<double>(t.count()) * 1e-9);
  return text;
}

}  // namespace

History::Op History::add(Record r) {
  LUGE_CHECK(r.offset % kSector == 0 && r.length % kSector == 0 && r.length > 0);
  if (auto it = fenced_clients_.find(r.client); it != fenced_clients_.end()) r.fenced = it->second;
  if (r.fenced == kNever) ++open_;
  ops_.push_back(std::move(r));
  return ops_.size() - 1;
}

History::Op History::invoke_write(std::uint32_t client, Time now, std::uint64_t offset, std::uint64_t length) {
  return add({.client = client, .kind = Kind::write, .offset = offset, .length = length, .invoked = now});
}
History::Op History::invoke_zero(std::uint32_t client, Time now, std::uint64_t offset, std::uint64_t length) {
  return add({.client = client, .kind = Kind::zero, .offset = offset, .length = length, .invoked = now});
}
History::Op History::invoke_read(std::uint32_t client, Time now, std::uint64_t offset, std::uint64_t length) {
  return add({.client = client, .kind = Kind::read, .offset = offset, .length = length, .invoked = now});
}

void History::fill(Op op, MutableBytes into) const {
  const Record& r = ops_.at(op);
  LUGE_CHECK(r.kind == Kind::write && into.size() == r.length);
  for (std::uint64_t at = 0; at < r.length; at += kSector)
    fill_sector(static_cast<std::uint32_t>(op + 1), (r.offset + at) / kSector, into.subspan(at, kSector));
}

void History::complete(Op op, Time now) {
  LUGE_CHECK(ops_.at(op).returned == kNever && !ops_[op].failed);
  ops_[op].returned = now;
  if (ops_[op].fenced == kNever) --open_;
  ++completed_;
}

std::uint32_t History::value_at(std::uint64_t sector, Bytes bytes) const {
  if (all_zero(bytes)) return 0;
  std::uint64_t word;
  std::memcpy(&word, bytes.data() + 8, 8);
  auto number = static_cast<std::uint32_t>(word >> 32);
  if (number == 0 || number > ops_.size()) return kGarbage;
  std::array<std::byte, kSector> expected;
  fill_sector(number, sector, expected);
  return std::memcmp(expected.data(), bytes.data(), kSector) == 0 ? number : kGarbage;
}

void History::complete_read(Op op, Time now, Bytes bytes) {
  complete(op, now);
  Record& r = ops_[op];
  LUGE_CHECK(r.kind == Kind::read && bytes.size() == r.length);
  for (std::uint64_t at = 0; at < r.length; at += kSector)
    r.read.push_back(value_at((r.offset + at) / kSector, bytes.subspan(at, kSector)));
}

void History::failed(Op op) {
  LUGE_CHECK(ops_.at(op).returned == kNever);
  ops_[op].failed = true;
  if (ops_[op].fenced == kNever) --open_;
}

void History::fence(std::uint32_t client, Time now) {
  fenced_clients_.emplace(client, now);
  for (Record& r : ops_)
    if (r.client == client && r.returned == kNever && !r.failed && r.fenced == kNever) {
      r.fenced = now;
      --open_;
    }
}

std::vector<History::Op> History::open_ops() const {
  std::vector<Op> r;
  for (Op i = 0; i < ops_.size(); ++i)
    if (ops_[i].returned == kNever && !ops_[i].failed && ops_[i].fenced == kNever) r.push_back(i);
  return r;
}

std::string History::describe(Op op) const {
  const Record& r = ops_.at(op);
  static constexpr const char* names[] = {"write", "zero", "read"};
  return std::string(names[static_cast<int>(r.kind)]) + " #" + std::to_string(op + 1) + " of client " +
         std::to_string(r.client) + ", offset " + std::to_string(r.offset) + ", " + std::to_string(r.length) +
         " bytes, asked at " + seconds(r.invoked);
}

std::map<std::uint64_t, std::vector<History::BlockOp>> History::by_block() const {
  std::map<std::uint64_t, std::vector<BlockOp>> blocks;
  for (Op i = 0; i < ops_.size(); ++i) {
    const Record& r = ops_[i];
    if (r.failed || (r.kind == Kind::read && r.returned == kNever)) continue;
    if (r.returned == kNever && r.fenced < r.invoked) continue;  // without effect; a read that saw it is impossible
    std::uint64_t first = r.offset / kSector, end = (r.offset + r.length) / kSector;
    for (std::uint64_t sector = first; sector < end;) {
      std::uint64_t block = sector / kSectors;
      // A fence ends what a client can change. Reads need no session: a late one may see what came after the fence.
      Time returned = r.kind == Kind::read ? r.returned : std::min(r.returned, r.fenced);
      BlockOp o{i, r.kind, 0, {}, r.invoked, returned, r.returned == kNever};
      for (; sector < end && sector / kSectors == block; ++sector) {
        std::size_t at = sector % kSectors;
        o.mask |= static_cast<std::uint8_t>(1u << at);
        if (r.kind == Kind::write) o.values[at] = static_cast<std::uint32_t>(i + 1);
        if (r.kind == Kind::read) o.values[at] = r.read[sector - first];
      }
      blocks[block].push_back(o);
    }
  }
  return blocks;
}

// Unknown outcomes, as far as the reads decide them.
void History::settle_unknown(std::vector<BlockOp>& ops) {
  if (std::none_of(ops.begin(), ops.end(), [](const BlockOp& o) { return o.optional; })) return;
  std::map<std::uint32_t, Time> seen;  // number of a write -> earliest end of a read that saw it
  for (const BlockOp& o : ops) {
    if (o.kind != Kind::read) continue;
    for (std::uint32_t v : o.values) {
      auto [it, fresh] = seen.emplace(v, o.returned);
      if (!fresh) it->second = std::min(it->second, o.returned);
    }
  }
  auto zero_seen = [&](const BlockOp& z) {
    for (const BlockOp& o : ops) {
      if (o.kind != Kind::read || o.returned < z.invoked) continue;
      for (std::size_t s = 0; s < kSectors; ++s)
        if ((o.mask & z.mask & (1u << s)) != 0 && o.values[s] == 0) return true;
    }
    return false;
  };
  std::erase_if(ops, [&](BlockOp& o) {
    if (!o.optional) return false;
    if (o.kind == Kind::zero) return !zero_seen(o);
    auto it = seen.find(static_cast<std::uint32_t>(o.op + 1));
    if (it == seen.end()) return true;
    o.optional = false;
    o.returned = std::min(o.returned, it->second);
    return false;
  });
}

void History::sort(std::vector<BlockOp>& ops) {
  auto before = [](const BlockOp& a, const BlockOp& b) { return a.invoked != b.invoked ? a.invoked < b.invoked : a.op < b.op; };
  if (!std::is_sorted(ops.begin(), ops.end(), before)) std::sort(ops.begin(), ops.end(), before);
}

// Depth-first over the order of writes. `placed` marks what is in the order so far.
struct History::Search {
  const std::vector<BlockOp>& ops;
  std::vector<std::size_t> optional;
  std::vector<char> placed;
  std::size_t count = 0, mandatory = 0, first = 0;
  Values state{};
  std::uint64_t set_hash = 0;
  std::unordered_set<std::uint64_t> dead;
  std::vector<char> best;
  std::size_t best_count = 0;
  Values best_state{};

  struct Frame {
    std::vector<std::size_t> candidates;
    std::size_t next = 0;
    std::vector<std::size_t> reads;  // placed on entry
    std::size_t write = ~std::size_t{0};  // placed to get here: a write, or a read that shuts an optional one out
    Values before{};
  };
  std::vector<Frame> stack;

  explicit Search(const std::vector<BlockOp>& o) : ops(o), placed(o.size(), 0) {
    for (std::size_t i = 0; i < ops.size(); ++i) {
      if (ops[i].optional)
        optional.push_back(i);
      else
        ++mandatory;
    }
  }

  void place(std::size_t i, bool on) {
    placed[i] = on;
    set_hash ^= mix(i + 0x1234567);
    if (!ops[i].optional) count += on ? 1 : std::size_t(-1);
    if (!on) first = std::min(first, i);
  }
  bool fits(const BlockOp& read) const {
    for (std::size_t s = 0; s < kSectors; ++s)
      if ((read.mask >> s & 1) != 0 && read.values[s] != state[s]) return false;
    return true;
  }
  std::uint64_t hash() const {
    std::uint64_t h = set_hash;
    for (std::uint32_t v : state) h = mix(h + v + 0x9e3779b97f4a7c15);
    return h;
  }

  // Calls f for everything not placed that may come next: asked before the first end among the not placed.
  template <class F>
  void each_next(F f) {
    while (first < ops.size() && (placed[first] || ops[first].optional)) ++first;
    Time end = kNever;
    for (std::size_t i = first; i < ops.size() && ops[i].invoked <= end; ++i)
      if (!placed[i] && !ops[i].optional) end = std::min(end, ops[i].returned);
    for (std::size_t i = first; i < ops.size() && ops[i].invoked <= end; ++i)
      if (!placed[i] && !ops[i].optional) f(i);
    for (std::size_t i : optional) {
      // An optional one that was fenced can no longer come once something asked after the fence has been placed; it
      // is enough to see that nothing not placed ended before: the others are ordered by `end`.
      if (!placed[i] && ops[i].invoked <= end && !later_placed(i)) f(i);
    }
  }
  bool later_placed(std::size_t i) const {
    if (ops[i].returned == kNever) return false;
    for (std::size_t j = ops.size(); j-- > 0 && ops[j].invoked > ops[i].returned;)
      if (placed[j]) return true;
    return false;
  }

  // Placing the read says of some optional one, which may come still, that it never will: it was fenced before the read was asked.
  bool shuts_out(const BlockOp& read) const {
    return std::any_of(optional.begin(), optional.end(), [&](std::size_t i) { return !placed[i] && ops[i].returned < read.invoked && !later_placed(i); });
  }

  bool enter(std::size_t op) {
    Frame f;
    f.before = state;
    f.write = op;
    if (op != ~std::size_t{0}) {
      for (std::size_t s = 0; s < kSectors; ++s)
        if (ops[op].kind != Kind::read && (ops[op].mask >> s & 1) != 0) state[s] = ops[op].values[s];
      place(op, true);
    }
    for (bool more = true; more;) {
      more = false;
      std::vector<std::size_t> now;
      each_next([&](std::size_t i) {
        if (ops[i].kind == Kind::read && fits(ops[i]) && !shuts_out(ops[i])) now.push_back(i);
      });
      for (std::size_t i : now) {
        place(i, true);
        f.reads.push_back(i);
        more = true;
      }
    }
    if (count > best_count || best.empty()) {
      best_count = count;
      best = placed;
      best_state = state;
    }
    bool fresh = dead.insert(hash()).second;  // left in place when it turns out alive: then the search is over
    if (fresh) {
      each_next([&](std::size_t i) {
        if (ops[i].kind != Kind::read || fits(ops[i])) f.candidates.push_back(i);
      });
      std::sort(f.candidates.begin(), f.candidates.end(), [&](std::size_t a, std::size_t b) {
        if (ops[a].optional != ops[b].optional) return ops[b].optional;
        return ops[a].returned != ops[b].returned ? ops[a].returned < ops[b].returned : a < b;
      });
    }
    stack.push_back(std::move(f));
    return fresh;
  }
  void leave() {
    Frame& f = stack.back();
    for (std::size_t i : f.reads) place(i, false);
    if (f.write != ~std::size_t{0}) place(f.write, false);
    state = f.before;
    stack.pop_back();
  }

  enum class Answer { yes, no, unknown };
  Answer run() {
    enter(~std::size_t{0});
    for (std::size_t steps = 0; !stack.empty(); ++steps) {
      if (count == mandatory) return Answer::yes;
      if (steps > 3'000'000) return Answer::unknown;
      Frame& f = stack.back();
      if (f.next == f.candidates.size()) {
        leave();
        continue;
      }
      enter(f.candidates[f.next++]);
    }
    return Answer::no;
  }
};

std::string History::line(const BlockOp& o) const {
  static constexpr const char* names[] = {"write", "zero ", "read "};
  std::string text = seconds(o.invoked) + " " + seconds(ops_[o.op].returned) + "  client " +
                     std::to_string(ops_[o.op].client) + "  " + names[static_cast<int>(o.kind)] + " #" +
                     std::to_string(o.op + 1);
  text.resize(std::max<std::size_t>(text.size(), 48), ' ');
  text += " [";
  for (std::size_t s = 0; s < kSectors; ++s) {
    if (s != 0) text += ' ';
    if ((o.mask >> s & 1) == 0) text += '.';
    else if (o.values[s] == kGarbage) text += "GARBAGE";
    else text += std::to_string(o.values[s]);
  }
  return text + "]" + (ops_[o.op].fenced != kNever ? " fenced at " + seconds(ops_[o.op].fenced) : "");
}

// A read that no order can explain, whatever else happened: says so in one sentence.
std::optional<std::string> History::impossible_read(std::uint64_t block, const std::vector<BlockOp>& ops) const {
  for (const BlockOp& o : ops) {
    if (o.kind != Kind::read) continue;
    for (std::size_t s = 0; s < kSectors; ++s) {
      if ((o.mask >> s & 1) == 0 || o.values[s] == 0) continue;
      auto where = [&] { return "block " + std::to_string(block) + " sector " + std::to_string(s) + ": read #" + std::to_string(o.op + 1); };
      if (o.values[s] == kGarbage) return where() + " returned bytes that no write wrote there";
      const Record& w = ops_[o.values[s] - 1];
      if (w.kind != Kind::write || w.failed || (w.returned == kNever && w.fenced < w.invoked)) return where() + " returned the value of " + describe(o.values[s] - 1) + ", which can have had no effect";
      if (w.invoked > o.returned) return where() + " returned the value of a later write, " + describe(o.values[s] - 1);
    }
  }
  return std::nullopt;
}

std::optional<std::string> History::check_block(std::uint64_t block, const std::vector<BlockOp>& ops) const {
  Search search(ops);
  auto answer = search.run();
  if (answer == Search::Answer::yes) return std::nullopt;
  std::string text = "block " + std::to_string(block);
  text += answer == Search::Answer::no ? ": no order of the operations explains what was read"
                                       : ": undecided, the search for an order was given up";
  text += "\nlongest order found has " + std::to_string(search.best_count) + " of " + std::to_string(search.mandatory) +
          " operations and leaves [";
  for (std::size_t s = 0; s < kSectors; ++s) text += (s ? " " : "") + std::to_string(search.best_state[s]);
  text += "]; '>' marks what fits nowhere after it\n      asked      answered\n";
  std::size_t stuck = 0;
  while (stuck < ops.size() && (search.best[stuck] || ops[stuck].optional)) ++stuck;
  for (std::size_t i = stuck > 25 ? stuck - 25 : 0; i < std::min(ops.size(), stuck + 15); ++i)
    text += (search.best[i] ? "  " : ops[i].optional ? "? " : "> ") + line(ops[i]) + "\n";
  return text;
}

std::optional<std::string> History::check() const {
  for (auto& [block, ops] : by_block()) {
    if (auto bad = impossible_read(block, ops)) return *bad + "\n" + print_block(block);
    settle_unknown(ops);
    sort(ops);
    if (auto bad = check_block(block, ops)) return bad;
  }
  return std::nullopt;
}

std::string History::print_block(std::uint64_t block) const {
  auto blocks = by_block();
  std::string text;
  auto it = blocks.find(block);
  if (it == blocks.end()) return "block " + std::to_string(block) + ": no operations\n";
  std::size_t first = it->second.size() > 60 ? it->second.size() - 60 : 0;
  if (first != 0) text += "  (" + std::to_string(first) + " earlier operations)\n";
  for (std::size_t i = first; i < it->second.size(); ++i) text += "  " + line(it->second[i]) + "\n";
  return text;
}

}  // namespace luge::sim
