// The circuit as a graph of bit-vector operations. Nodes are hash-consed (equal expressions are one node) and simplified
// when made, so that wiring (slices, concatenation, extension) and enables come out as such.
//
// Invariant: args of a node have smaller ids than the node; every operand of And..Sub, Mul, Eq, Ult, Slt has the same width.
// Undef means "any value": it gives way to the other arm of a mux and becomes 0 when written.
#pragma once
#include <llvm/ADT/APInt.h>

#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

namespace rtlgen {

using Id = int;

enum class Op : uint8_t {
  Undef, Const, Name, Slice, Cat, Rep, Not, And, Or, Xor, Add, Sub, Mul, Mux, Eq, Ult, Slt, Shl, Lshr, Ashr,
  RedXor, PopCount,
  RamInit, RamWrite, RamRead  // a RAM's content as a value: Init | Write(content, address, data); Read(content, address)
};

struct Node {
  Op op;
  unsigned width;        // bits; 0 for a RAM's content
  std::vector<Id> args;  // Cat: most significant first. Mux: condition, then, else.
  unsigned lo = 0;       // Slice: lowest bit taken. Ram*: number of the RAM.
  llvm::APInt value;     // Const
  std::string name;      // Name: register or port
  std::string where;     // file:line that first asked for it
};

class Dag {
 public:
  std::string here;  // file:line attached to new nodes

  const Node &operator[](Id id) const { return nodes_[id]; }
  int size() const { return (int)nodes_.size(); }

  Id undef(unsigned width);
  Id constant(const llvm::APInt &value);
  Id constant(unsigned width, uint64_t value) { return constant(llvm::APInt(width, value)); }
  Id zero(unsigned width) { return constant(width, 0); }
  Id name(const std::string &name, unsigned width);

  Id slice(Id x, unsigned lo, unsigned width);
  Id cat(const std::vector<Id> &msb_first);
  Id zext(Id x, unsigned width);
  Id sext(Id x, unsigned width);
  Id bnot(Id x);
  Id band(Id a, Id b);
  Id bor(Id a, Id b);
  Id bxor(Id a, Id b);
  Id add(Id a, Id b);
  Id sub(Id a, Id b);
  Id mul(Id a, Id b);
  Id mux(Id c, Id t, Id f);
  Id eq(Id a, Id b);
  Id ult(Id a, Id b);
  Id slt(Id a, Id b);
  Id shift(Op op, Id x, Id amount);
  Id popcount(Id x);
  Id ram(Op op, int number, unsigned width, const std::vector<Id> &args);

  bool is_const(Id x) const { return nodes_[x].op == Op::Const; }
  bool is_zero(Id x) const { return is_const(x) && nodes_[x].value.isZero(); }
  bool is_ones(Id x) const { return is_const(x) && nodes_[x].value.isAllOnes(); }
  bool is_undef(Id x) const { return nodes_[x].op == Op::Undef; }
  unsigned leading_zeros(Id x) const;

 private:
  Id make(Op op, unsigned width, std::vector<Id> args, unsigned lo = 0);
  Id masked(Id x, const llvm::APInt &mask);
  bool wiring(Id x) const;
  Id or_of_parts(Id a, Id b);

  std::vector<Node> nodes_;
  std::unordered_map<std::string, Id> known_;
  mutable std::vector<int> zeros_;  // leading_zeros by node, -1: not asked yet
  unsigned count_leading_zeros(Id x) const;
};

}  // namespace rtlgen
