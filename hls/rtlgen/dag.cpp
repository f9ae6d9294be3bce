#include "dag.hpp"

#include <algorithm>
#include <functional>

namespace rtlgen {
using llvm::APInt;

Id Dag::make(Op op, unsigned width, std::vector<Id> args, unsigned lo) {
  std::string key;
  auto put = [&](uint32_t v) { key.append(reinterpret_cast<char *>(&v), 4); };
  put((uint32_t)op), put(width), put(lo);
  for (Id a : args) put((uint32_t)a);
  auto [it, fresh] = known_.try_emplace(key, (Id)nodes_.size());
  if (fresh) nodes_.push_back(Node{op, width, std::move(args), lo, APInt(1, 0), "", here});
  return it->second;
}

Id Dag::undef(unsigned width) { return make(Op::Undef, width, {}); }

Id Dag::constant(const APInt &value) {
  std::string key = "c";
  key += std::to_string(value.getBitWidth()) + ":";
  for (unsigned i = 0; i < value.getNumWords(); i++) key += std::to_string(value.getRawData()[i]) + ",";
  auto [it, fresh] = known_.try_emplace(key, (Id)nodes_.size());
  if (fresh) nodes_.push_back(Node{Op::Const, value.getBitWidth(), {}, 0, value, "", here});
  return it->second;
}

Id Dag::name(const std::string &name, unsigned width) {
  auto [it, fresh] = known_.try_emplace("n" + name, (Id)nodes_.size());
  if (fresh) nodes_.push_back(Node{Op::Name, width, {}, 0, APInt(1, 0), name, here});
  return it->second;
}

bool Dag::wiring(Id x) const {
  Op op = nodes_[x].op;
  return op == Op::Undef || op == Op::Const || op == Op::Name || op == Op::Slice || op == Op::Cat || op == Op::Rep;
}

unsigned Dag::leading_zeros(Id x) const {
  if ((int)zeros_.size() <= x) zeros_.resize(nodes_.size(), -1);
  if (zeros_[x] < 0) {
    int z = (int)count_leading_zeros(x);
    zeros_[x] = z;
  }
  return (unsigned)zeros_[x];
}

unsigned Dag::count_leading_zeros(Id x) const {
  const Node &n = nodes_[x];
  switch (n.op) {
    case Op::Const: return n.value.countl_zero();
    case Op::Cat: {
      unsigned total = 0;
      for (Id a : n.args) {
        unsigned z = leading_zeros(a);
        total += z;
        if (z < nodes_[a].width) break;
      }
      return total;
    }
    case Op::Mux: {
      unsigned t = is_undef(n.args[1]) ? n.width : leading_zeros(n.args[1]);
      return t == 0 ? 0 : std::min(t, leading_zeros(n.args[2]));
    }
    case Op::And: return std::max(leading_zeros(n.args[0]), leading_zeros(n.args[1]));
    case Op::Or: case Op::Xor: return std::min(leading_zeros(n.args[0]), leading_zeros(n.args[1]));
    case Op::Lshr: return leading_zeros(n.args[0]);
    case Op::Add: {
      unsigned z = std::min(leading_zeros(n.args[0]), leading_zeros(n.args[1]));
      return z ? z - 1 : 0;
    }
    default: return 0;
  }
}

Id Dag::slice(Id x, unsigned lo, unsigned width) {
  Node n = nodes_[x];
  if (lo == 0 && width == n.width) return x;
  switch (n.op) {
    case Op::Undef: return undef(width);
    case Op::Const: return constant(n.value.extractBits(width, lo));
    case Op::Slice: return slice(n.args[0], n.lo + lo, width);
    case Op::Rep: return make(Op::Rep, width, {n.args[0]});
    case Op::Cat: {
      std::vector<Id> parts;
      unsigned at = n.width;
      for (Id a : n.args) {
        unsigned w = nodes_[a].width, base = at - w;
        unsigned from = std::max(base, lo), to = std::min(at, lo + width);
        if (from < to) parts.push_back(slice(a, from - base, to - from));
        at = base;
      }
      return cat(parts);
    }
    case Op::Not:
      if (wiring(n.args[0])) return bnot(slice(n.args[0], lo, width));
      break;
    case Op::And: case Op::Or: case Op::Xor: {
      auto narrow = [&](Id a) { return is_const(a) || nodes_[a].op == Op::Cat || nodes_[a].op == Op::Rep; };
      if ((wiring(n.args[0]) && wiring(n.args[1])) || narrow(n.args[0]) || narrow(n.args[1])) {
        Id a = slice(n.args[0], lo, width), b = slice(n.args[1], lo, width);
        return n.op == Op::And ? band(a, b) : n.op == Op::Or ? bor(a, b) : bxor(a, b);
      }
      break;
    }
    case Op::Add: case Op::Sub: case Op::Mul:
      if (lo == 0) {
        Id a = slice(n.args[0], 0, width), b = slice(n.args[1], 0, width);
        return n.op == Op::Add ? add(a, b) : n.op == Op::Sub ? sub(a, b) : mul(a, b);
      }
      break;
    case Op::Mux:
      if (wiring(n.args[1]) && wiring(n.args[2]))
        return mux(n.args[0], slice(n.args[1], lo, width), slice(n.args[2], lo, width));
      break;
    case Op::Shl:
      if (lo == 0 && width >= nodes_[n.args[1]].width) {
        // Only when the amount still fits: a shift past the narrow width gives 0 either way.
        Id big = ult(n.args[1], constant(nodes_[n.args[1]].width, width));
        if (is_ones(big)) return shift(Op::Shl, slice(n.args[0], 0, width), n.args[1]);
      }
      break;
    case Op::PopCount:
      if (lo == 0 && width == 1) return make(Op::RedXor, 1, {n.args[0]});
      break;
    default: break;
  }
  return make(Op::Slice, width, {x}, lo);
}

Id Dag::cat(const std::vector<Id> &in) {
  std::vector<Id> parts;
  auto push = [&](Id p) {
    if (!parts.empty()) {
      Id last = parts.back();
      const Node &a = nodes_[last], &b = nodes_[p];
      if (a.op == Op::Const && b.op == Op::Const) { parts.back() = constant(a.value.concat(b.value)); return; }
      if (a.op == Op::Undef && b.op == Op::Undef) { parts.back() = undef(a.width + b.width); return; }
      if (a.op == Op::Slice) {
        Id base = a.args[0];
        if (b.op == Op::Slice && b.args[0] == base && b.lo + b.width == a.lo) {
          parts.back() = slice(base, b.lo, a.width + b.width);
          return;
        }
      }
      if (a.op == Op::Rep && b.op == Op::Rep && a.args[0] == b.args[0]) {
        parts.back() = make(Op::Rep, a.width + b.width, {a.args[0]});
        return;
      }
    }
    parts.push_back(p);
  };
  std::function<void(Id)> flatten = [&](Id p) {
    if (nodes_[p].op == Op::Cat) {
      std::vector<Id> args = nodes_[p].args;
      for (Id q : args) flatten(q);
    } else {
      push(p);
    }
  };
  for (Id p : in) flatten(p);
  if (parts.size() == 1) return parts[0];
  unsigned width = 0;
  for (Id p : parts) width += nodes_[p].width;
  return make(Op::Cat, width, parts);
}

Id Dag::zext(Id x, unsigned width) {
  unsigned w = nodes_[x].width;
  if (w == width) return x;
  return cat({zero(width - w), x});
}

Id Dag::sext(Id x, unsigned width) {
  unsigned w = nodes_[x].width;
  if (w == width) return x;
  if (is_undef(x)) return undef(width);
  Id sign = slice(x, w - 1, 1);
  if (is_const(sign)) return cat({is_zero(sign) ? zero(width - w) : constant(APInt::getAllOnes(width - w)), x});
  return cat({make(Op::Rep, width - w, {sign}), x});
}

Id Dag::bnot(Id x) {
  const Node n = nodes_[x];
  if (n.op == Op::Const) return constant(~n.value);
  if (n.op == Op::Undef) return x;
  if (n.op == Op::Not) return n.args[0];
  return make(Op::Not, n.width, {x});
}

// x & mask as wiring: the kept runs of x and zeros between them.
Id Dag::masked(Id x, const APInt &mask) {
  std::vector<Id> parts;
  unsigned at = mask.getBitWidth();
  while (at > 0) {
    unsigned lo = at;
    bool bit = mask[at - 1];
    while (lo > 0 && mask[lo - 1] == bit) lo--;
    parts.push_back(bit ? slice(x, lo, at - lo) : zero(at - lo));
    at = lo;
  }
  return cat(parts);
}

Id Dag::band(Id a, Id b) {
  if (is_const(a)) std::swap(a, b);
  if (a == b) return a;
  if (is_zero(b) || is_ones(a)) return b;
  if (is_ones(b) || is_zero(a)) return a;
  if (is_undef(a) || is_undef(b)) return zero(nodes_[a].width);
  if (is_const(b)) {
    APInt v = nodes_[b].value;
    if (is_const(a)) return constant(nodes_[a].value & v);
    return masked(a, v);
  }
  if (bnot(a) == b) return zero(nodes_[a].width);
  // Known zeros on top narrow the operation.
  unsigned w = nodes_[a].width, z = std::max(leading_zeros(a), leading_zeros(b));
  if (z > 0 && z < w) return zext(band(slice(a, 0, w - z), slice(b, 0, w - z)), w);
  if (nodes_[a].op == Op::And && (nodes_[a].args[0] == b || nodes_[a].args[1] == b)) return a;
  if (nodes_[b].op == Op::And && (nodes_[b].args[0] == a || nodes_[b].args[1] == a)) return b;
  return make(Op::And, w, {std::min(a, b), std::max(a, b)});
}

// a | b where each has constant zeros where the other has content: wiring, or -1.
Id Dag::or_of_parts(Id a, Id b) {
  auto has_zeros = [&](Id x) {
    if (nodes_[x].op != Op::Cat) return false;
    for (Id p : nodes_[x].args) if (is_zero(p)) return true;
    return false;
  };
  if (!has_zeros(a) || !has_zeros(b)) return -1;
  std::vector<unsigned> cuts;
  for (Id x : {a, b}) {
    unsigned at = 0;
    for (auto it = nodes_[x].args.rbegin(); it != nodes_[x].args.rend(); ++it) cuts.push_back(at += nodes_[*it].width);
  }
  std::sort(cuts.begin(), cuts.end());
  cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
  std::vector<Id> parts;
  unsigned at = 0;
  for (unsigned c : cuts) {
    Id p = slice(a, at, c - at), q = slice(b, at, c - at);
    if (is_zero(p)) parts.push_back(q);
    else if (is_zero(q)) parts.push_back(p);
    else return -1;
    at = c;
  }
  std::reverse(parts.begin(), parts.end());
  return cat(parts);
}

Id Dag::bor(Id a, Id b) {
  if (is_const(a)) std::swap(a, b);
  if (a == b) return a;
  if (is_zero(b) || is_ones(a)) return a;
  if (is_ones(b) || is_zero(a)) return b;
  if (is_undef(a) || is_undef(b)) return constant(APInt::getAllOnes(nodes_[a].width));
  if (is_const(b) && is_const(a)) return constant(nodes_[a].value | nodes_[b].value);
  if (bnot(a) == b) return constant(APInt::getAllOnes(nodes_[a].width));
  if (Id wires = or_of_parts(a, b); wires >= 0) return wires;
  unsigned w = nodes_[a].width, z = std::min(leading_zeros(a), leading_zeros(b));
  if (z > 0 && z < w) return zext(bor(slice(a, 0, w - z), slice(b, 0, w - z)), w);
  // (c & x) | (!c & x) = x, as diamonds of the control flow make it.
  if (nodes_[a].op == Op::And && nodes_[b].op == Op::And && w == 1)
    for (int i : {0, 1})
      for (int j : {0, 1})
        if (nodes_[a].args[i] == nodes_[b].args[j] && bnot(nodes_[a].args[1 - i]) == nodes_[b].args[1 - j])
          return nodes_[a].args[i];
  if (w == 1)
    for (auto [x, y] : {std::pair{a, b}, std::pair{b, a}})
      if (nodes_[y].op == Op::And)
        for (int i : {0, 1}) {
          Id p = nodes_[y].args[i], q = nodes_[y].args[1 - i];
          if (p == x) return x;
          if (bnot(p) == x) return bor(x, q);
        }
  return make(Op::Or, w, {std::min(a, b), std::max(a, b)});
}

Id Dag::bxor(Id a, Id b) {
  if (is_const(a)) std::swap(a, b);
  if (a == b) return zero(nodes_[a].width);
  if (is_zero(b)) return a;
  if (is_undef(a) || is_undef(b)) return undef(nodes_[a].width);
  if (is_ones(b)) return bnot(a);
  if (is_const(b) && is_const(a)) return constant(nodes_[a].value ^ nodes_[b].value);
  unsigned w = nodes_[a].width, z = std::min(leading_zeros(a), leading_zeros(b));
  if (z > 0 && z < w) return zext(bxor(slice(a, 0, w - z), slice(b, 0, w - z)), w);
  if (Id wires = or_of_parts(a, b); wires >= 0) return wires;
  return make(Op::Xor, w, {std::min(a, b), std::max(a, b)});
}

Id Dag::add(Id a, Id b) {
  if (is_const(a)) std::swap(a, b);
  if (is_undef(a) || is_undef(b)) return undef(nodes_[a].width);
  if (is_zero(b)) return a;
  if (nodes_[a].width == 1) return bxor(a, b);
  if (is_const(b)) {
    if (is_const(a)) return constant(nodes_[a].value + nodes_[b].value);
    if (nodes_[a].op == Op::Add && is_const(nodes_[a].args[1]))
      return add(nodes_[a].args[0], constant(nodes_[nodes_[a].args[1]].value + nodes_[b].value));
    return make(Op::Add, nodes_[a].width, {a, b});
  }
  // Known zeros on top: add one bit wider than the operands, then extend.
  unsigned w = nodes_[a].width, z = std::min(leading_zeros(a), leading_zeros(b));
  if (z > 1) return zext(add(slice(a, 0, w - z + 1), slice(b, 0, w - z + 1)), w);
  return make(Op::Add, w, {std::min(a, b), std::max(a, b)});
}

Id Dag::sub(Id a, Id b) {
  if (is_undef(a) || is_undef(b)) return undef(nodes_[a].width);
  if (is_const(b)) return add(a, constant(-nodes_[b].value));
  if (a == b) return zero(nodes_[a].width);
  if (nodes_[a].width == 1) return bxor(a, b);
  unsigned w = nodes_[a].width, z = std::min(leading_zeros(a), leading_zeros(b));
  if (z > 1) return sext(sub(slice(a, 0, w - z + 1), slice(b, 0, w - z + 1)), w);
  return make(Op::Sub, w, {a, b});
}

Id Dag::mul(Id a, Id b) {
  if (is_const(a)) std::swap(a, b);
  unsigned w = nodes_[a].width;
  if (is_undef(a) || is_undef(b) || is_zero(b)) return zero(w);
  if (w == 1) return band(a, b);
  if (is_const(b)) {
    if (is_const(a)) return constant(nodes_[a].value * nodes_[b].value);
    if (nodes_[b].value.isPowerOf2()) return shift(Op::Shl, a, constant(w, nodes_[b].value.logBase2()));
  }
  unsigned active = 2 * w - leading_zeros(a) - leading_zeros(b);
  if (active > 0 && active < w) return zext(mul(slice(a, 0, active), slice(b, 0, active)), w);
  return make(Op::Mul, w, is_const(b) ? std::vector<Id>{a, b} : std::vector<Id>{std::min(a, b), std::max(a, b)});
}

Id Dag::mux(Id c, Id t, Id f) {
  if (is_const(c)) return is_zero(c) ? f : t;
  if (t == f || is_undef(t)) return f;
  if (is_undef(f) || is_undef(c)) return t;
  if (nodes_[c].op == Op::Not) return mux(nodes_[c].args[0], f, t);
  unsigned w = nodes_[t].width;
  if (nodes_[t].op == Op::Mux && nodes_[t].args[0] == c) return mux(c, nodes_[t].args[1], f);
  if (nodes_[f].op == Op::Mux && nodes_[f].args[0] == c) return mux(c, t, nodes_[f].args[2]);
  if (w == 1) {
    if (is_ones(t) || t == c) return bor(c, f);
    if (is_zero(t)) return band(bnot(c), f);
    if (is_zero(f) || f == c) return band(c, t);
    if (is_ones(f)) return bor(bnot(c), t);
  }
  // An enable on top of a read: c1 ? ram[a1] : c2 ? ram[a2] : q is one read as well.
  if (nodes_[t].op == Op::RamRead && nodes_[f].op == Op::Mux && nodes_[nodes_[f].args[1]].op == Op::RamRead &&
      nodes_[nodes_[f].args[1]].args[0] == nodes_[t].args[0])
    return mux(bor(c, nodes_[f].args[0]), mux(c, t, nodes_[f].args[1]), nodes_[f].args[2]);
  // Reads of one RAM in two branches are one read with a chosen address.
  if (nodes_[t].op == Op::RamRead && nodes_[f].op == Op::RamRead && nodes_[t].args[0] == nodes_[f].args[0])
    return ram(Op::RamRead, (int)nodes_[t].lo, w,
               {nodes_[t].args[0], mux(c, nodes_[t].args[1], nodes_[f].args[1])});
  if (nodes_[f].op == Op::Mux && nodes_[f].args[1] == t) return mux(bor(c, nodes_[f].args[0]), t, nodes_[f].args[2]);
  if (nodes_[f].op == Op::Mux && nodes_[f].args[2] == t)
    return mux(band(bnot(c), nodes_[f].args[0]), nodes_[f].args[1], t);
  if (nodes_[t].op == Op::Mux && nodes_[t].args[2] == f) return mux(band(c, nodes_[t].args[0]), nodes_[t].args[1], f);
  if (nodes_[t].op == Op::Mux && nodes_[t].args[1] == f)
    return mux(band(c, bnot(nodes_[t].args[0])), nodes_[t].args[2], f);
  if (w > 1) {
    unsigned z = std::min(leading_zeros(t), leading_zeros(f));
    if (z > 0 && z < w) return zext(mux(c, slice(t, 0, w - z), slice(f, 0, w - z)), w);
  }
  return make(Op::Mux, w, {c, t, f});
}

Id Dag::eq(Id a, Id b) {
  if (is_const(a)) std::swap(a, b);
  if (a == b) return constant(1, 1);
  if (is_undef(a) || is_undef(b)) return undef(1);
  unsigned w = nodes_[a].width;
  if (is_const(b)) {
    if (is_const(a)) return zero(1);
    if (w == 1) return is_zero(b) ? bnot(a) : a;
    if (nodes_[a].op == Op::Cat) {  // constant parts decide or drop out
      std::vector<Id> rest_a, rest_b;
      unsigned at = w;
      bool dropped = false;
      for (Id p : std::vector<Id>(nodes_[a].args)) {
        at -= nodes_[p].width;
        Id q = slice(b, at, nodes_[p].width);
        if (is_const(p)) {
          if (p != q) return zero(1);
          dropped = true;
        } else {
          rest_a.push_back(p), rest_b.push_back(q);
        }
      }
      if (dropped) return eq(cat(rest_a), cat(rest_b));
    }
    if (nodes_[a].op == Op::Add && is_const(nodes_[a].args[1]))
      return eq(nodes_[a].args[0], constant(nodes_[b].value - nodes_[nodes_[a].args[1]].value));
    if (nodes_[a].op == Op::Mux && is_const(nodes_[a].args[1]) && is_const(nodes_[a].args[2])) {
      bool t = nodes_[a].args[1] == b, f = nodes_[a].args[2] == b;
      return t ? (f ? constant(1, 1) : nodes_[a].args[0]) : (f ? bnot(nodes_[a].args[0]) : zero(1));
    }
  } else {
    if (w == 1) return bnot(bxor(a, b));
    unsigned z = std::min(leading_zeros(a), leading_zeros(b));
    if (z > 0 && z < w) return eq(slice(a, 0, w - z), slice(b, 0, w - z));
  }
  return make(Op::Eq, 1, is_const(b) ? std::vector<Id>{a, b} : std::vector<Id>{std::min(a, b), std::max(a, b)});
}

Id Dag::ult(Id a, Id b) {
  if (a == b || is_zero(b)) return zero(1);
  if (is_undef(a) || is_undef(b)) return undef(1);
  if (is_const(a) && is_const(b)) return constant(1, nodes_[a].value.ult(nodes_[b].value));
  unsigned w = nodes_[a].width, za = leading_zeros(a), zb = leading_zeros(b);
  if (is_const(b) && za > zb) return constant(1, 1);
  if (is_const(a) && zb > za) return zero(1);
  unsigned z = std::min(za, zb);
  if (z > 0 && z < w) return ult(slice(a, 0, w - z), slice(b, 0, w - z));
  if (w == 1) return band(bnot(a), b);
  if (is_zero(a)) return bnot(eq(b, a));
  if (is_const(b) && nodes_[b].value == 1) return eq(a, zero(w));
  // a < 2^n tests the upper bits alone.
  if (is_const(b) && nodes_[b].value.isPowerOf2()) {
    unsigned n = nodes_[b].value.logBase2();
    return eq(slice(a, n, w - n), zero(w - n));
  }
  if (is_const(a) && (nodes_[a].value + 1).isPowerOf2()) {
    unsigned n = (nodes_[a].value + 1).logBase2();
    return bnot(eq(slice(b, n, w - n), zero(w - n)));
  }
  return make(Op::Ult, 1, {a, b});
}

Id Dag::slt(Id a, Id b) {
  if (is_undef(a) || is_undef(b)) return undef(1);
  if (a == b) return zero(1);
  if (is_const(a) && is_const(b)) return constant(1, nodes_[a].value.slt(nodes_[b].value));
  if (leading_zeros(a) > 0 && leading_zeros(b) > 0) return ult(a, b);
  unsigned w = nodes_[a].width;
  if (is_zero(b)) return slice(a, w - 1, 1);
  if (w > 1 && leading_zeros(b) > 0 && is_ones(slice(a, w - 1, 1))) return constant(1, 1);
  return make(Op::Slt, 1, {a, b});
}

Id Dag::shift(Op op, Id x, Id amount) {
  unsigned w = nodes_[x].width;
  if (is_undef(x) || is_undef(amount)) return undef(w);
  if (is_const(amount)) {
    uint64_t n = nodes_[amount].value.getLimitedValue(w);
    if (n == 0) return x;
    if (n >= w) return op == Op::Ashr ? sext(slice(x, w - 1, 1), w) : zero(w);
    unsigned k = (unsigned)n;
    if (op == Op::Shl) return cat({slice(x, 0, w - k), zero(k)});
    Id top = slice(x, k, w - k);
    return op == Op::Lshr ? zext(top, w) : sext(top, w);
  }
  if (is_zero(x)) return x;
  unsigned z = leading_zeros(amount), aw = nodes_[amount].width;
  if (z == aw) return x;
  if (z > 0) amount = slice(amount, 0, aw - z);
  if (op == Op::Ashr && leading_zeros(x) > 0) op = Op::Lshr;
  if (unsigned zx = leading_zeros(x); op == Op::Lshr && zx > 0 && zx < w)
    return zext(shift(op, slice(x, 0, w - zx), amount), w);
  return make(op, w, {x, amount});
}

Id Dag::popcount(Id x) {
  if (is_const(x)) return constant(nodes_[x].width, nodes_[x].value.popcount());
  return make(Op::PopCount, nodes_[x].width, {x});
}

Id Dag::ram(Op op, int number, unsigned width, const std::vector<Id> &args) { return make(op, width, args, (unsigned)number); }

}  // namespace rtlgen
