#include "translate.hpp"

#include <llvm/ADT/PostOrderIterator.h>
#include <llvm/Analysis/LoopInfo.h>
#include <llvm/Demangle/Demangle.h>
#include <llvm/IR/CFG.h>
#include <llvm/IR/Constants.h>
#include <llvm/IR/DebugInfo.h>
#include <llvm/IR/Dominators.h>
#include <llvm/IR/Instructions.h>
#include <llvm/IR/IntrinsicInst.h>
#include <llvm/Passes/PassBuilder.h>
#include <llvm/Support/CommandLine.h>

#include <algorithm>
#include <functional>
#include <map>
#include <set>

#include "error.hpp"
#include "memory.hpp"

namespace rtlgen {
using namespace llvm;

std::string to_string(const Error &e) {
  auto place = [](const Place &p) { return p.file + ":" + std::to_string(p.line) + ":" + std::to_string(p.column); };
  std::string s = (e.places.empty() ? std::string("rtlgen") : place(e.places[0])) + ": error: " + e.what + "\n";
  for (size_t i = 1; i < e.places.size(); i++) s += "  inlined at " + place(e.places[i]) + "\n";
  return s + "  instead: " + e.advice + "\n";
}

std::vector<std::string> kernels(const llvm::Module &m) {
  std::vector<std::string> names;
  for (auto &f : m)
    if (f.getName().starts_with("hls_step__")) names.push_back(f.getName().substr(10).str());
  return names;
}

void prepare(llvm::Module &m) {
  const char *options[] = {"rtlgen", "-unroll-threshold=1000000", "-inline-threshold=1000000",
                           "-unroll-max-percent-threshold-boost=100000", "-sink-common-insts=false",
                           "-unroll-full-max-count=100000", "-unroll-max-iteration-count-to-analyze=0"};
  cl::ParseCommandLineOptions((int)std::size(options), options);
  // The inliner refuses calls it takes for cold (a case of a large switch), whatever its threshold.
  for (auto &f : m)
    if (!f.isDeclaration() && !f.hasFnAttribute(Attribute::NoInline)) f.addFnAttr(Attribute::AlwaysInline);
  PassBuilder pb;
  LoopAnalysisManager lam;
  FunctionAnalysisManager fam;
  CGSCCAnalysisManager cam;
  ModuleAnalysisManager mam;
  pb.registerModuleAnalyses(mam), pb.registerCGSCCAnalyses(cam), pb.registerFunctionAnalyses(fam), pb.registerLoopAnalyses(lam);
  pb.crossRegisterProxies(lam, fam, cam, mam);
  ModulePassManager pm;
  auto error = pb.parsePassPipeline(
      pm,
      "always-inline,cgscc(inline),globaldce,function(sroa,early-cse,simplifycfg,instcombine<no-verify-fixpoint>,"
      "loop-simplify,lcssa,loop(loop-rotate,indvars,loop-deletion,loop-unroll-full),sroa,early-cse,"
      "instcombine<no-verify-fixpoint>,simplifycfg,loop-simplify,lcssa,loop(loop-rotate,indvars,loop-deletion,loop-unroll-full),"
      "sroa,early-cse,instcombine<no-verify-fixpoint>,simplifycfg,gvn,instcombine<no-verify-fixpoint>,dse,adce,mergereturn)");
  if (error) throw Error{{}, "LLVM refuses the pass pipeline: " + llvm::toString(std::move(error)), "use LLVM 19"};
  // No cost decides: what is called is part of the step.
  for (auto &f : m)
    if (!f.isDeclaration() && !f.hasFnAttribute(Attribute::NoInline) && !f.getName().starts_with("hls_")) f.addFnAttr(Attribute::AlwaysInline);
  pm.run(m, mam);
}

namespace {

constexpr int64_t most_elements = 1024;  // behind a variable index

struct Index {  // a variable part of an address: index * stride, index in [least, most]
  Id index;
  int64_t stride, least, most;
};
struct Target {
  Id condition;
  int object;
  int64_t offset;
  std::vector<Index> indices;
};
struct Value {
  Id bits = -1;
  bool is_pointer = false;
  std::vector<Target> targets;
  std::vector<Value> fields;
};

std::vector<Place> places(const DebugLoc &loc) {
  std::vector<Place> out;
  for (const DILocation *l = loc.get(); l; l = l->getInlinedAt()) {
    std::string dir = l->getDirectory().str(), file = l->getFilename().str();
    out.push_back({file, l->getLine(), l->getColumn()});
  }
  return out;
}
bool in_library(const std::string &file) { return file.find("lib/ap_int.h") != std::string::npos || file.find("lib/ram.h") != std::string::npos || file.find("lib/top.h") != std::string::npos; }

// The kernel's own line that an instruction belongs to, not the library's.
std::string kernel_line(const DebugLoc &loc) {
  for (auto &p : places(loc))
    if (!in_library(p.file) && p.line) return p.file.substr(p.file.find_last_of('/') + 1) + ":" + std::to_string(p.line);
  return "";
}

class Translator {
 public:
  Translator(Dag &dag, const DataLayout &dl) : dag(dag), dl(dl) {}

  Dag &dag;
  const DataLayout &dl;
  Memory memory;
  std::vector<std::vector<Array>> arrays;  // per object
  std::vector<std::string> names;          // per object, for messages
  std::vector<bool> writable;
  std::vector<Ram> rams;  // of object 0
  std::map<Id, std::vector<Place>> ram_places;

  int add_object(const std::string &name, Object object, std::vector<Array> a, bool may_write) {
    memory.push_back(std::make_shared<Object>(std::move(object)));
    arrays.push_back(std::move(a)), names.push_back(name), writable.push_back(may_write);
    return (int)memory.size() - 1;
  }

  [[noreturn]] void refuse(const Instruction &i, const std::string &what, const std::string &advice) {
    throw Error{places(i.getDebugLoc()), what, advice};
  }

  Memory run(Function &f, const std::vector<int> &argument_objects) {
    values_.clear();
    for (size_t i = 0; i < argument_objects.size(); i++)
      values_[f.getArg((unsigned)i)] = pointer_to(argument_objects[i]);
    DominatorTree dt(f);
    LoopInfo loops(dt);
    std::vector<BasicBlock *> order;
    for (auto *b : ReversePostOrderTraversal<Function *>(&f)) {
      number_[b] = (int)order.size();
      order.push_back(b);
    }
    std::map<const BasicBlock *, Memory> after;
    for (auto *b : order) {
      std::vector<BasicBlock *> from;
      for (auto *p : predecessors(b))
        if (number_.count(p) && std::find(from.begin(), from.end(), p) == from.end()) from.push_back(p);
      std::sort(from.begin(), from.end(), [&](auto *x, auto *y) { return number_[x] < number_[y]; });
      for (auto *p : from)
        if (number_[p] >= number_[b]) {
          DebugLoc at;
          if (Loop *l = loops.getLoopFor(b)) at = l->getStartLoc();
          if (!at) at = p->getTerminator()->getDebugLoc();
          throw Error{places(at), "this loop was not fully unrolled", "give the loop a constant bound (at most 100000 steps in all) and leave it by break"};
        }
      std::vector<Id> conditions;
      if (!from.empty()) {
        BasicBlock *dom = dt.getNode(b)->getIDom()->getBlock();
        for (auto *p : from) conditions.push_back(dag.band(reach(p, dom, dt), edge(p, b)));
        join_memory(from, conditions, after);
      }
      for (auto &i : *b) {
        if (auto where = kernel_line(i.getDebugLoc()); !where.empty()) dag.here = where;
        if (auto *phi = dyn_cast<PHINode>(&i)) values_[phi] = join_phi(*phi, from, conditions);
        else instruction(i);
      }
      after[b] = memory;
    }
    for (auto *b : order)
      if (isa<ReturnInst>(b->getTerminator())) return after[b];
    throw Error{places(order[0]->getTerminator()->getDebugLoc()), "step() never returns", "remove the endless loop, or the access through a null or unset pointer, which is undefined"};
  }

 private:
  std::map<const llvm::Value *, Value> values_;
  std::map<const BasicBlock *, int> number_;
  std::map<std::pair<int, int>, Id> reach_;
  std::map<const GlobalVariable *, int> globals_;

  Value pointer_to(int object) { Value v; v.is_pointer = true; v.targets = {{dag.constant(1, 1), object, 0, {}}}; return v; }
  Value bits(Id id) { Value v; v.bits = id; return v; }

  // ---- control flow ----
  Id edge(BasicBlock *from, BasicBlock *to) {
    auto *t = from->getTerminator();
    if (auto *br = dyn_cast<BranchInst>(t)) {
      if (br->isUnconditional() || br->getSuccessor(0) == br->getSuccessor(1)) return dag.constant(1, 1);
      Id c = get(br->getCondition(), *t).bits;
      return br->getSuccessor(0) == to ? c : dag.bnot(c);
    }
    auto *sw = cast<SwitchInst>(t);
    Id x = get(sw->getCondition(), *t).bits, taken = dag.zero(1), any = dag.zero(1);
    for (auto &c : sw->cases()) {
      Id hit = dag.eq(x, dag.constant(c.getCaseValue()->getValue()));
      any = dag.bor(any, hit);
      if (c.getCaseSuccessor() == to) taken = dag.bor(taken, hit);
    }
    if (sw->getDefaultDest() == to) taken = dag.bor(taken, dag.bnot(any));
    return taken;
  }

  // Condition of being in b, given that its dominator d was passed.
  Id reach(BasicBlock *b, BasicBlock *d, DominatorTree &dt) {
    if (b == d) return dag.constant(1, 1);
    auto key = std::pair{number_[b], number_[d]};
    if (auto it = reach_.find(key); it != reach_.end()) return it->second;
    BasicBlock *idom = dt.getNode(b)->getIDom()->getBlock();
    Id c;
    if (idom != d) {
      c = dag.band(reach(idom, d, dt), reach(b, idom, dt));
    } else {
      c = dag.zero(1);
      std::set<int> seen;
      for (auto *p : predecessors(b))
        if (number_.count(p) && seen.insert(number_[p]).second) c = dag.bor(c, dag.band(reach(p, d, dt), edge(p, b)));
    }
    return reach_[key] = c;
  }

  void join_memory(const std::vector<BasicBlock *> &from, const std::vector<Id> &conditions, std::map<const BasicBlock *, Memory> &after) {
    size_t objects = 0;
    for (auto *p : from) objects = std::max(objects, after[p].size());
    // Objects that one side has not seen yet (allocas, tables) are only used where they are known.
    Memory merged(std::max(objects, memory.size()));
    for (size_t o = 0; o < merged.size(); o++) {
      std::vector<Id> c;
      std::vector<std::shared_ptr<const Object>> v;
      bool same = true;
      for (size_t i = 0; i < from.size(); i++) {
        auto &m = after[from[i]];
        if (o >= m.size()) continue;
        if (!v.empty() && v[0] != m[o]) same = false;
        c.push_back(conditions[i]), v.push_back(m[o]);
      }
      if (v.empty()) merged[o] = memory[o];
      else merged[o] = same ? v[0] : merge(dag, c, v);
    }
    memory = merged;
  }

  Value join_phi(PHINode &phi, const std::vector<BasicBlock *> &from, const std::vector<Id> &conditions) {
    Value out;
    for (size_t i = from.size(); i-- > 0;) {
      Value v = get(phi.getIncomingValueForBlock(from[i]), phi);
      if (i + 1 == from.size()) out = v;
      else out = choose(conditions[i], v, out);
    }
    return out;
  }

  Value choose(Id c, const Value &t, const Value &f) {
    Value v;
    if (t.is_pointer || f.is_pointer) {
      v.is_pointer = true;
      for (auto x : t.targets) { x.condition = dag.band(c, x.condition); if (!dag.is_zero(x.condition)) v.targets.push_back(x); }
      for (auto x : f.targets) { x.condition = dag.band(dag.bnot(c), x.condition); if (!dag.is_zero(x.condition)) v.targets.push_back(x); }
      return v;
    }
    if (!t.fields.empty()) {
      for (size_t i = 0; i < t.fields.size(); i++) v.fields.push_back(choose(c, t.fields[i], f.fields[i]));
      return v;
    }
    return bits(dag.mux(c, t.bits, f.bits));
  }

  // ---- values ----
  unsigned width(Type *t, const Instruction &i) {
    if (auto *it = dyn_cast<IntegerType>(t)) return it->getBitWidth();
    if (t->isFloatingPointTy()) refuse(i, "floating point is not supported", "use ap_int with a fixed point of your own");
    if (t->isPointerTy()) refuse(i, "a pointer is kept in a variable that does not fold away", "use an index instead");
    refuse(i, "a value of this type is not supported", "use ap_uint, bool, enum class or builtin integers");
  }

  Value get(llvm::Value *v, const Instruction &i) {
    if (auto it = values_.find(v); it != values_.end()) return it->second;
    if (auto *c = dyn_cast<ConstantInt>(v)) return bits(dag.constant(c->getValue()));
    if (isa<ConstantPointerNull>(v)) { Value n; n.is_pointer = true; return n; }
    if (isa<UndefValue>(v)) {
      if (v->getType()->isPointerTy()) { Value n; n.is_pointer = true; return n; }
      if (auto *st = dyn_cast<StructType>(v->getType())) {
        Value n;
        for (auto *e : st->elements()) n.fields.push_back(get(UndefValue::get(e), i));
        return n;
      }
      return bits(dag.undef(width(v->getType(), i)));
    }
    if (auto *g = dyn_cast<GlobalVariable>(v)) return global(*g, i);
    if (auto *ce = dyn_cast<ConstantExpr>(v)) {
      if (auto *gep = dyn_cast<GEPOperator>(ce)) return address(*gep, i);
    }
    if (isa<Function>(v)) refuse(i, "the address of a function is used", "call it directly, or use a template parameter");
    refuse(i, "this value is not supported", "write it with ap_uint operations");
  }

  Value global(GlobalVariable &g, const Instruction &i) {
    if (auto it = globals_.find(&g); it != globals_.end()) return pointer_to(it->second);
    std::string name = demangle(g.getName().str());
    if (!g.isConstant() || !g.hasInitializer())
      refuse(i, "variable '" + name + "' lives outside State", "put it into State; only constant tables may be global or static");
    Object o;
    int64_t size = (int64_t)dl.getTypeAllocSizeInBits(g.getValueType());
    o.pieces.push_back({0, size, dag.undef((unsigned)size)});
    fill(o, 0, g.getInitializer(), i);
    std::vector<Array> a;
    find_arrays(g.getValueType(), 0, a);
    int n = add_object(name, o, a, false);
    globals_[&g] = n;
    return pointer_to(n);
  }

  void fill(Object &o, int64_t at, Constant *c, const Instruction &i) {
    Type *t = c->getType();
    if (isa<UndefValue>(c)) return;
    if (auto *ci = dyn_cast<ConstantInt>(c)) {
      store(dag, o, at, dag.constant(ci->getValue().zext((unsigned)dl.getTypeStoreSizeInBits(t))));
    } else if (auto *st = dyn_cast<StructType>(t)) {
      for (unsigned e = 0; e < st->getNumElements(); e++)
        fill(o, at + (int64_t)dl.getStructLayout(st)->getElementOffsetInBits(e), c->getAggregateElement(e), i);
    } else if (auto *ar = dyn_cast<ArrayType>(t)) {
      for (unsigned e = 0; e < ar->getNumElements(); e++)
        fill(o, at + (int64_t)e * (int64_t)dl.getTypeAllocSizeInBits(ar->getElementType()), c->getAggregateElement(e), i);
    } else {
      refuse(i, "a constant table holds something other than integers", "use tables of integers");
    }
  }

  void find_arrays(Type *t, int64_t at, std::vector<Array> &out) {
    if (auto *st = dyn_cast<StructType>(t)) {
      for (unsigned e = 0; e < st->getNumElements(); e++)
        find_arrays(st->getElementType(e), at + (int64_t)dl.getStructLayout(st)->getElementOffsetInBits(e), out);
    } else if (auto *ar = dyn_cast<ArrayType>(t)) {
      int64_t stride = (int64_t)dl.getTypeAllocSizeInBits(ar->getElementType());
      out.push_back({at, stride, ar->getNumElements()});
      if (ar->getElementType()->isAggregateType())
        for (uint64_t e = 0; e < ar->getNumElements(); e++) find_arrays(ar->getElementType(), at + (int64_t)e * stride, out);
    }
  }

  // ---- addresses ----
  Value address(GEPOperator &gep, const Instruction &i) {
    Value v = get(gep.getPointerOperand(), i);
    if (!v.is_pointer) refuse(i, "an address made from an integer", "use an index into an array of State");
    Type *t = gep.getSourceElementType();
    bool first = true;
    for (auto &op : gep.indices()) {
      int64_t stride;
      if (first) {
        stride = (int64_t)dl.getTypeAllocSizeInBits(t), first = false;
      } else if (auto *st = dyn_cast<StructType>(t)) {
        unsigned field = (unsigned)cast<ConstantInt>(op)->getZExtValue();
        for (auto &x : v.targets) x.offset += (int64_t)dl.getStructLayout(st)->getElementOffsetInBits(field);
        t = st->getElementType(field);
        continue;
      } else {
        t = cast<ArrayType>(t)->getElementType();
        stride = (int64_t)dl.getTypeAllocSizeInBits(t);
      }
      if (std::vector<std::pair<Id, int64_t>> cases; constants(op, dag.constant(1, 1), cases, i)) {  // a choice between members: c ? a.x : b.y
        std::vector<Target> all;
        for (auto &x : v.targets)
          for (auto &[condition, n] : cases) {
            Target t2 = x;
            t2.condition = dag.band(x.condition, condition), t2.offset += n * stride;
            if (!dag.is_zero(t2.condition)) all.push_back(t2);
          }
        v.targets = all;
        continue;
      }
      Id index = get(op, i).bits;
      if (dag.is_undef(index)) index = dag.zero(dag[index].width);
      for (auto &x : v.targets) {
        if (dag.is_const(index)) x.offset += dag[index].value.getSExtValue() * stride;
        else x.indices.push_back(variable(x, index, stride, i));
      }
    }
    return v;
  }

  // The constants that selects choose between, each with its condition; false if there is anything else.
  bool constants(llvm::Value *v, Id condition, std::vector<std::pair<Id, int64_t>> &out, const Instruction &i) {
    if (auto *c = dyn_cast<ConstantInt>(v)) {
      out.push_back({condition, c->getSExtValue()});
      return true;
    }
    auto *s = dyn_cast<SelectInst>(v);
    if (!s || !isa<ConstantInt, SelectInst>(s->getTrueValue()) || !isa<ConstantInt, SelectInst>(s->getFalseValue())) return false;
    Id c = get(s->getCondition(), i).bits;
    return constants(s->getTrueValue(), dag.band(condition, c), out, i) && constants(s->getFalseValue(), dag.band(condition, dag.bnot(c)), out, i);
  }

  // Which values an index can have, from the array it runs over and from the bits it has.
  Index variable(const Target &x, Id index, int64_t stride, const Instruction &i) {
    for (auto &r : rams)
      if (x.object == 0 && x.offset >= r.offset && x.offset < r.offset + (int64_t)r.storage * r.count) return {index, stride, 0, r.count - 1};
    int64_t least = INT64_MIN, most = 0;
    for (auto &a : arrays[x.object])
      if (a.stride == stride && x.offset >= a.offset && x.offset < a.offset + a.stride * (int64_t)a.count) {
        int64_t element = (x.offset - a.offset) / stride;
        least = -element, most = (int64_t)a.count - 1 - element;
        break;
      }
    if (least == INT64_MIN) {
      auto &last = memory[x.object]->pieces.back();
      least = -(x.offset / stride), most = (last.offset + last.size - x.offset) / stride - 1;
    }
    unsigned zeros = dag.leading_zeros(index), active = dag[index].width - zeros;
    if (zeros > 0) least = std::max<int64_t>(least, 0);
    if (zeros > 0 && active < 40) most = std::min(most, ((int64_t)1 << active) - 1);
    if (most - least + 1 > most_elements)
      refuse(i, "variable index over " + std::to_string(most - least + 1) + " elements of " + names[x.object] + " would be that many registers",
             "use ram<T, N>, or at most " + std::to_string(most_elements) + " elements");
    return {index, stride, least, most};
  }

  static unsigned bits_for(int64_t least, int64_t most) {
    unsigned n = 0;
    while (((int64_t)1 << n) < most - least + 1 || (least >= 0 && ((int64_t)1 << n) <= most)) n++;
    return n;
  }

  Id low_bits(const Index &x, unsigned n) { return n <= dag[x.index].width ? dag.slice(x.index, 0, n) : dag.zext(x.index, n); }

  void check_range(int object, int64_t offset, int64_t size, const Instruction &i) {
    auto &last = memory[object]->pieces.back();
    if (offset < 0 || offset + size > last.offset + last.size)
      refuse(i, "this access is outside " + names[object], "check the index against the array's size");
  }
  bool inside(int object, int64_t offset, int64_t size) {
    auto &last = memory[object]->pieces.back();
    return offset >= 0 && offset + size <= last.offset + last.size;
  }

  const Ram *ram_of(const Target &x) {
    if (x.object == 0)
      for (auto &r : rams)
        if (x.offset >= r.offset && x.offset < r.offset + (int64_t)r.storage * r.count) return &r;
    return nullptr;
  }

  Id ram_address(const Target &x, const Ram &r, const Instruction &i) {
    unsigned n = std::max(1u, bits_for(0, r.count - 1));
    Id a = dag.constant(n, (uint64_t)((x.offset - r.offset) / r.storage));
    for (auto &ix : x.indices) {
      if (ix.stride != r.storage) refuse(i, "ram '" + r.path + "' is not accessed by whole elements", "use read() and write()");
      a = dag.add(a, low_bits(ix, n));
    }
    return a;
  }

  Id load_at(const Target &x, int64_t size, size_t level, int64_t offset, const Instruction &i) {
    if (level == x.indices.size()) {
      check_range(x.object, offset, size, i);
      return load(dag, *memory[x.object], offset, size);
    }
    auto &ix = x.indices[level];
    unsigned n = bits_for(ix.least, ix.most);
    std::vector<Id> slots((size_t)1 << n, dag.undef((unsigned)size));
    for (int64_t k = ix.least; k <= ix.most; k++)
      if (inside(x.object, offset + k * ix.stride, size) || level + 1 < x.indices.size())
        slots[(size_t)k & (slots.size() - 1)] = load_at(x, size, level + 1, offset + k * ix.stride, i);
    for (unsigned b = 0; b < n; b++) {
      Id bit = dag.slice(low_bits(ix, n), b, 1);
      for (size_t s = 0; 2 * s < slots.size(); s++) slots[s] = dag.mux(bit, slots[2 * s + 1], slots[2 * s]);
      slots.resize(slots.size() / 2);
    }
    return slots[0];
  }

  Id load_from(const Value &p, int64_t size, const Instruction &i) {
    if (p.targets.empty()) refuse(i, "this reads through a null or unknown pointer", "use references to members of State");
    Id out = -1;
    for (size_t n = p.targets.size(); n-- > 0;) {
      auto &x = p.targets[n];
      Id v;
      if (const Ram *r = ram_of(x)) {
        Id content = load(dag, *memory[0], r->offset, 8);
        if (dag[content].op != Op::RamInit)
          refuse(i, "ram '" + r->path + "' is read after it may have been written in the same cycle", "call read() before write()");
        Id raw = dag.ram(Op::RamRead, (int)(r - rams.data()), r->width, {content, ram_address(x, *r, i)});
        ram_places[raw] = places(i.getDebugLoc());
        if (size < (int64_t)r->width) refuse(i, "a part of an element of ram '" + r->path + "' is read", "read() whole elements");
        v = r->is_signed ? dag.sext(raw, (unsigned)size) : dag.zext(raw, (unsigned)size);
      } else {
        v = load_at(x, size, 0, x.offset, i);
      }
      out = out < 0 ? v : dag.mux(x.condition, v, out);
    }
    return out;
  }

  void store_at(const Target &x, Object &o, Id value, Id condition, size_t level, int64_t offset, const Instruction &i) {
    if (level == x.indices.size()) {
      check_range(x.object, offset, dag[value].width, i);
      store(dag, o, offset, dag.mux(condition, value, load(dag, o, offset, dag[value].width)));
      return;
    }
    auto &ix = x.indices[level];
    unsigned n = bits_for(ix.least, ix.most);
    for (int64_t k = ix.least; k <= ix.most; k++) {
      if (!inside(x.object, offset + k * ix.stride, dag[value].width) && level + 1 == x.indices.size()) continue;
      Id hit = n == 0 ? dag.constant(1, 1) : dag.eq(low_bits(ix, n), dag.constant(APInt(n, (uint64_t)k & (((uint64_t)1 << n) - 1))));
      store_at(x, o, value, dag.band(condition, hit), level + 1, offset + k * ix.stride, i);
    }
  }

  void store_to(const Value &p, Id value, const Instruction &i) {
    if (p.targets.empty()) refuse(i, "this writes through a null or unknown pointer", "use references to members of State");
    for (auto &x : p.targets) {
      if (!writable[x.object]) refuse(i, "this writes to " + names[x.object] + ", which is constant", "write to State or Out");
      Object o = *memory[x.object];
      Id condition = p.targets.size() == 1 ? dag.constant(1, 1) : x.condition;
      if (const Ram *r = ram_of(x)) {
        Id content = load(dag, o, r->offset, 8);
        if (dag[value].width < r->width) refuse(i, "a part of an element of ram '" + r->path + "' is written", "write() whole elements");
        Id written = dag.ram(Op::RamWrite, (int)(r - rams.data()), 0, {content, ram_address(x, *r, i), dag.slice(value, 0, r->width)});
        ram_places[written] = places(i.getDebugLoc());
        store(dag, o, r->offset, dag.mux(condition, written, content));
      } else {
        store_at(x, o, value, condition, 0, x.offset, i);
      }
      memory[x.object] = std::make_shared<Object>(std::move(o));
    }
  }

  Value moved(Value p, int64_t bits_on) {
    for (auto &x : p.targets) x.offset += bits_on;
    return p;
  }

  // Where pieces begin in [0, size) behind the first target, at bytes.
  void cuts(const Value &p, int64_t size, std::set<int64_t> &out) {
    if (p.targets.empty()) return;
    auto &x = p.targets[0];
    for (auto &piece : memory[x.object]->pieces) {
      int64_t at = piece.offset - x.offset;
      if (at > 0 && at < size && at % 8 == 0) out.insert(at);
    }
  }

  void copy(const Value &to, const Value &from, int64_t size, const Instruction &i) {
    std::set<int64_t> at{0, size};
    bool element = (to.targets.size() == 1 && ram_of(to.targets[0])) || (from.targets.size() == 1 && ram_of(from.targets[0]));
    if (!element) cuts(from, size, at), cuts(to, size, at);  // an element of a ram moves as a whole
    std::vector<std::pair<int64_t, Id>> loaded;
    for (auto it = at.begin(); std::next(it) != at.end(); ++it) loaded.push_back({*it, load_from(moved(from, *it), *std::next(it) - *it, i)});
    for (auto &[offset, value] : loaded) store_to(moved(to, offset), value, i);
  }

  // ---- instructions ----
  void instruction(Instruction &i) {
    if (isa<DbgInfoIntrinsic>(i) || i.isTerminator()) {
      if (isa<InvokeInst>(i)) refuse(i, "exceptions are not supported", "report errors through an output");
      return;
    }
    if (auto *a = dyn_cast<AllocaInst>(&i)) return local(*a);
    if (auto *l = dyn_cast<LoadInst>(&i)) {
      if (l->isVolatile() || l->isAtomic()) refuse(i, "volatile and atomic accesses are not supported", "every State member is a register already; drop the qualifier");
      unsigned w = width(l->getType(), i);
      Id v = load_from(get(l->getPointerOperand(), i), (int64_t)dl.getTypeStoreSizeInBits(l->getType()), i);
      values_[&i] = bits(dag.slice(v, 0, w));
      return;
    }
    if (auto *s = dyn_cast<StoreInst>(&i)) {
      if (s->isVolatile() || s->isAtomic()) refuse(i, "volatile and atomic accesses are not supported", "every State member is a register already; drop the qualifier");
      Value v = get(s->getValueOperand(), i);
      if (v.is_pointer) refuse(i, "a pointer is stored", "store an index instead");
      unsigned size = (unsigned)dl.getTypeStoreSizeInBits(s->getValueOperand()->getType());
      width(s->getValueOperand()->getType(), i);
      store_to(get(s->getPointerOperand(), i), dag.zext(v.bits, size), i);
      return;
    }
    if (auto *c = dyn_cast<CallBase>(&i)) return call(*c);
    values_[&i] = compute(i);
  }

  void local(AllocaInst &a) {
    auto size = a.getAllocationSizeInBits(dl);
    if (!size || !size->isFixed()) refuse(a, "a local array has a variable size", "give it a constant size");
    Object o;
    int64_t n = (int64_t)size->getFixedValue();
    o.pieces.push_back({0, n, dag.undef((unsigned)n)});
    std::vector<Array> arr;
    find_arrays(a.getAllocatedType(), 0, arr);
    values_[&a] = pointer_to(add_object("a local variable", o, arr, true));
  }

  Value compute(Instruction &i) {
    auto op = [&](unsigned n) { return get(i.getOperand(n), i).bits; };
    if (auto *g = dyn_cast<GetElementPtrInst>(&i)) return address(*cast<GEPOperator>(g), i);
    if (auto *s = dyn_cast<SelectInst>(&i)) {
      if (!s->getCondition()->getType()->isIntegerTy(1)) refuse(i, "vector operations are not supported", "use loops over arrays");
      return choose(op(0), get(s->getTrueValue(), i), get(s->getFalseValue(), i));
    }
    if (auto *x = dyn_cast<ExtractValueInst>(&i)) {
      Value v = get(x->getAggregateOperand(), i);
      for (unsigned n : x->indices()) { Value f = v.fields[n]; v = f; }
      return v;
    }
    if (auto *x = dyn_cast<InsertValueInst>(&i)) {
      Value v = get(x->getAggregateOperand(), i);
      if (x->getNumIndices() != 1) refuse(i, "nested aggregate values are not supported", "return a flat struct");
      v.fields[x->getIndices()[0]] = get(x->getInsertedValueOperand(), i);
      return v;
    }
    if (isa<FreezeInst>(i)) return get(i.getOperand(0), i);
    if (i.getOpcode() == Instruction::PtrToInt || i.getOpcode() == Instruction::IntToPtr)
      refuse(i, "a pointer is used as a number", "use an index into an array of State");
    unsigned w = width(i.getType(), i);
    if (auto *c = dyn_cast<ICmpInst>(&i)) return bits(compare(*c));
    switch (i.getOpcode()) {
      case Instruction::Trunc: return bits(dag.slice(op(0), 0, w));
      case Instruction::ZExt: return bits(dag.zext(op(0), w));
      case Instruction::SExt: return bits(dag.sext(op(0), w));
      case Instruction::BitCast: return bits(op(0));
      case Instruction::Add: return bits(dag.add(op(0), op(1)));
      case Instruction::Sub: return bits(dag.sub(op(0), op(1)));
      case Instruction::Mul: return bits(dag.mul(op(0), op(1)));
      case Instruction::And: return bits(dag.band(op(0), op(1)));
      case Instruction::Or: return bits(dag.bor(op(0), op(1)));
      case Instruction::Xor: return bits(dag.bxor(op(0), op(1)));
      case Instruction::Shl: return bits(dag.shift(Op::Shl, op(0), op(1)));
      case Instruction::LShr: return bits(dag.shift(Op::Lshr, op(0), op(1)));
      case Instruction::AShr: return bits(dag.shift(Op::Ashr, op(0), op(1)));
      case Instruction::UDiv: case Instruction::URem: case Instruction::SDiv: case Instruction::SRem: return bits(divide(i, op(0), op(1)));
      default: break;
    }
    if (i.getType()->isFloatingPointTy() || (i.getNumOperands() && i.getOperand(0)->getType()->isFloatingPointTy()))
      refuse(i, "floating point is not supported", "use ap_int with a fixed point of your own");
    refuse(i, std::string("instruction '") + i.getOpcodeName() + "' is not supported", "write it with ap_uint operations");
  }

  Id compare(ICmpInst &c) {
    Value x = get(c.getOperand(0), c), y = get(c.getOperand(1), c);
    if (x.is_pointer || y.is_pointer) refuse(c, "pointers are compared", "compare indices instead");
    Id a = x.bits, b = y.bits;
    switch (c.getPredicate()) {
      case ICmpInst::ICMP_EQ: return dag.eq(a, b);
      case ICmpInst::ICMP_NE: return dag.bnot(dag.eq(a, b));
      case ICmpInst::ICMP_ULT: return dag.ult(a, b);
      case ICmpInst::ICMP_UGT: return dag.ult(b, a);
      case ICmpInst::ICMP_UGE: return dag.bnot(dag.ult(a, b));
      case ICmpInst::ICMP_ULE: return dag.bnot(dag.ult(b, a));
      case ICmpInst::ICMP_SLT: return dag.slt(a, b);
      case ICmpInst::ICMP_SGT: return dag.slt(b, a);
      case ICmpInst::ICMP_SGE: return dag.bnot(dag.slt(a, b));
      default: return dag.bnot(dag.slt(b, a));
    }
  }

  Id absolute(Id x) { return dag.mux(dag.slice(x, dag[x].width - 1, 1), dag.sub(dag.zero(dag[x].width), x), x); }

  // By a constant: compare and subtract, bit by bit.
  Id divide(Instruction &i, Id a, Id b) {
    if (!dag.is_const(b)) refuse(i, "division by a variable", "divide by a constant, shift, or keep a counter");
    if (dag.is_zero(b)) refuse(i, "division by zero", "divide by something else");
    bool is_signed = i.getOpcode() == Instruction::SDiv || i.getOpcode() == Instruction::SRem;
    bool remainder = i.getOpcode() == Instruction::URem || i.getOpcode() == Instruction::SRem;
    unsigned w = dag[a].width;
    Id n = is_signed ? absolute(a) : a;
    APInt d = is_signed ? dag[b].value.abs() : dag[b].value;
    unsigned active = w - dag.leading_zeros(n), dw = d.getActiveBits() + 1;
    Id r = dag.zero(dw), q = -1;
    for (unsigned k = active; k-- > 0;) {
      r = dag.cat({dag.slice(r, 0, dw - 1), dag.slice(n, k, 1)});
      Id ge = dag.bnot(dag.ult(r, dag.constant(d.zextOrTrunc(dw))));
      r = dag.mux(ge, dag.sub(r, dag.constant(d.zextOrTrunc(dw))), r);
      q = q < 0 ? ge : dag.cat({q, ge});
    }
    Id quotient = q < 0 ? dag.zero(w) : dag.zext(q, w);
    Id rest = dw > w ? dag.slice(r, 0, w) : dag.zext(r, w);
    if (!is_signed) return remainder ? rest : quotient;
    Id minus = dag.slice(a, w - 1, 1);
    if (remainder) return dag.mux(minus, dag.sub(dag.zero(w), rest), rest);
    if (dag[b].value.isNegative()) minus = dag.bnot(minus);
    return dag.mux(minus, dag.sub(dag.zero(w), quotient), quotient);
  }

  void call(CallBase &c) {
    auto *intrinsic = dyn_cast<IntrinsicInst>(&c);
    if (!intrinsic) {
      if (c.isInlineAsm()) refuse(c, "inline assembly", "write it in C++");
      auto *f = c.getCalledFunction();
      if (!f) refuse(c, "a call through a pointer", "call the function directly, or use a template parameter");
      refuse(c, "call of '" + demangle(f->getName().str()) + "' could not be inlined", f->isDeclaration() ? "define the function in a header of the kernel; the C library is not there" : "make it a loop with a constant bound; recursion and noinline are not hardware");
    }
    auto arg = [&](unsigned n) { return get(c.getArgOperand(n), c).bits; };
    auto set = [&](Id v) { values_[&c] = bits(v); };
    switch (intrinsic->getIntrinsicID()) {
      case Intrinsic::lifetime_start: case Intrinsic::lifetime_end: case Intrinsic::assume:
      case Intrinsic::experimental_noalias_scope_decl: case Intrinsic::donothing: return;
      case Intrinsic::memcpy: case Intrinsic::memmove: case Intrinsic::memset: return bulk(c);
      case Intrinsic::umin: return set(dag.mux(dag.ult(arg(0), arg(1)), arg(0), arg(1)));
      case Intrinsic::umax: return set(dag.mux(dag.ult(arg(1), arg(0)), arg(0), arg(1)));
      case Intrinsic::smin: return set(dag.mux(dag.slt(arg(0), arg(1)), arg(0), arg(1)));
      case Intrinsic::smax: return set(dag.mux(dag.slt(arg(1), arg(0)), arg(0), arg(1)));
      case Intrinsic::abs: return set(absolute(arg(0)));
      case Intrinsic::usub_sat: return set(dag.mux(dag.ult(arg(0), arg(1)), dag.zero(dag[arg(0)].width), dag.sub(arg(0), arg(1))));
      case Intrinsic::uadd_sat: {
        unsigned w = dag[arg(0)].width;
        Id sum = dag.add(dag.zext(arg(0), w + 1), dag.zext(arg(1), w + 1));
        return set(dag.mux(dag.slice(sum, w, 1), dag.constant(APInt::getAllOnes(w)), dag.slice(sum, 0, w)));
      }
      case Intrinsic::uadd_with_overflow: case Intrinsic::usub_with_overflow: {
        unsigned w = dag[arg(0)].width;
        Id a = dag.zext(arg(0), w + 1), b = dag.zext(arg(1), w + 1);
        Id r = intrinsic->getIntrinsicID() == Intrinsic::uadd_with_overflow ? dag.add(a, b) : dag.sub(a, b);
        Value v;
        v.fields = {bits(dag.slice(r, 0, w)), bits(dag.slice(r, w, 1))};
        values_[&c] = v;
        return;
      }
      case Intrinsic::ctpop: return set(dag.popcount(arg(0)));
      case Intrinsic::ctlz: case Intrinsic::cttz: {
        Id x = arg(0);
        unsigned w = dag[x].width;
        Id n = dag.constant(w, w);
        bool leading = intrinsic->getIntrinsicID() == Intrinsic::ctlz;
        for (unsigned k = 0; k < w; k++) {
          unsigned bit = leading ? k : w - 1 - k;
          n = dag.mux(dag.slice(x, bit, 1), dag.constant(w, leading ? w - 1 - bit : bit), n);
        }
        return set(n);
      }
      case Intrinsic::bswap: case Intrinsic::bitreverse: {
        Id x = arg(0);
        unsigned step = intrinsic->getIntrinsicID() == Intrinsic::bswap ? 8 : 1;
        std::vector<Id> parts;
        for (unsigned k = 0; k < dag[x].width; k += step) parts.push_back(dag.slice(x, k, step));
        return set(dag.cat(parts));
      }
      case Intrinsic::fshl: case Intrinsic::fshr: {
        unsigned w = dag[arg(0)].width;
        Id n = arg(2), both = dag.cat({arg(0), arg(1)});
        if (!dag.is_const(n) && (w & (w - 1))) refuse(c, "rotation by a variable of a width that is no power of two", "rotate in steps by constants");
        n = dag.is_const(n) ? dag.constant(dag[n].value.urem(APInt(w, w))) : dag.band(n, dag.constant(w, w - 1));
        Id wide = dag.zext(n, 2 * w);
        if (intrinsic->getIntrinsicID() == Intrinsic::fshl) return set(dag.slice(dag.shift(Op::Shl, both, wide), w, w));
        return set(dag.slice(dag.shift(Op::Lshr, both, wide), 0, w));
      }
      case Intrinsic::ucmp: case Intrinsic::scmp: {
        bool s = intrinsic->getIntrinsicID() == Intrinsic::scmp;
        Id lt = s ? dag.slt(arg(0), arg(1)) : dag.ult(arg(0), arg(1)), gt = s ? dag.slt(arg(1), arg(0)) : dag.ult(arg(1), arg(0));
        unsigned w = width(c.getType(), c);
        return set(dag.mux(lt, dag.constant(APInt::getAllOnes(w)), dag.zext(gt, w)));
      }
      default:
        refuse(c, "'" + intrinsic->getCalledFunction()->getName().str() + "' is not supported", "write it with ap_uint operations");
    }
  }

  void bulk(CallBase &c) {
    auto *length = dyn_cast<ConstantInt>(c.getArgOperand(2));
    if (!length) refuse(c, "a copy of variable length", "copy with a loop of constant bound");
    int64_t size = (int64_t)length->getZExtValue() * 8;
    if (size == 0) return;
    Value to = get(c.getArgOperand(0), c);
    if (cast<IntrinsicInst>(c).getIntrinsicID() != Intrinsic::memset) return copy(to, get(c.getArgOperand(1), c), size, c);
    Id byte = get(c.getArgOperand(1), c).bits;
    std::set<int64_t> at{0, size};
    cuts(to, size, at);
    for (auto it = at.begin(); std::next(it) != at.end(); ++it)
      store_to(moved(to, *it), dag.cat(std::vector<Id>((size_t)(*std::next(it) - *it) / 8, byte)), c);
  }
};

Object make_object(Dag &dag, const Layout &layout, const std::function<Id(const Cell &)> &initial) {
  Object o;
  int64_t at = 0;
  std::vector<std::pair<int64_t, Piece>> pieces;
  for (auto &c : layout.cells) pieces.push_back({c.offset, {c.offset, c.storage, initial(c)}});
  for (size_t r = 0; r < layout.rams.size(); r++) {
    auto &ram = layout.rams[r];
    pieces.push_back({ram.offset, {ram.offset, (int64_t)ram.storage * ram.count, dag.ram(Op::RamInit, (int)r, 0, {})}});
  }
  std::sort(pieces.begin(), pieces.end(), [](auto &a, auto &b) { return a.first < b.first; });
  auto gap = [&](int64_t to) { if (to > at) o.pieces.push_back({at, to - at, dag.undef((unsigned)(to - at))}); };
  for (auto &[offset, p] : pieces) {
    gap(offset);
    o.pieces.push_back(p);
    at = offset + p.size;
  }
  gap(layout.size);
  return o;
}

Id joined(Dag &dag, const Layout &layout, const std::string &vector, const std::function<Id(const Cell &)> &value) {
  std::vector<const Cell *> cells;
  for (auto &c : layout.cells) if (c.vector == vector) cells.push_back(&c);
  std::sort(cells.begin(), cells.end(), [](auto *a, auto *b) { return a->vector_lo > b->vector_lo; });
  std::vector<Id> parts;
  for (auto *c : cells) parts.push_back(value(*c));
  return dag.cat(parts);
}

const std::set<std::string> keywords = {"always", "assign", "begin", "bit", "byte", "case", "clk", "default", "do", "edge", "else", "end", "event", "final", "first_match", "for", "force", "function", "if", "initial", "inout", "input", "int", "integer", "join", "logic", "module", "output", "packed", "priority", "real", "reg", "release", "repeat", "signed", "static", "string", "struct", "table", "tagged", "task", "this", "time", "tri", "type", "typedef", "union", "unique", "unsigned", "var", "void", "wait", "while", "wire", "with", "within", "xor", "and", "or", "not", "buf", "new", "ref", "local", "rand", "config", "cell", "design", "use", "library", "include", "context", "property", "sequence", "strong", "weak", "small", "large", "medium", "scalared", "vectored", "specify", "strength", "super", "extends", "import", "export", "interface", "modport", "class", "const", "cover", "assume", "assert", "expect", "before", "bind", "bins", "binsof", "break", "continue", "return", "chandle", "checker", "clocking", "constraint", "cross", "covergroup", "coverpoint", "disable", "dist", "enum", "foreach", "forever", "fork", "generate", "genvar", "global", "iff", "inside", "intersect", "longint", "shortint", "let", "matches", "negedge", "posedge", "null", "package", "parameter", "localparam", "program", "protected", "pure", "randc", "randcase", "randsequence", "restrict", "shortreal", "solve", "throughout", "timeprecision", "timeunit", "uwire", "virtual", "wand", "wor"};

struct RamWritePort { Id enable, address, data; };
RamWritePort resolve(Dag &dag, Id content, const Ram &r, const std::map<Id, std::vector<Place>> &where, unsigned address_bits) {
  Node n = dag[content];
  if (n.op == Op::RamInit) return {dag.zero(1), dag.undef(address_bits), dag.undef(r.width)};
  if (n.op == Op::RamWrite) {
    auto inner = resolve(dag, n.args[0], r, where, address_bits);
    if (!dag.is_zero(inner.enable))
      throw Error{where.at(content), "ram '" + r.path + "' may be written twice in a cycle", "choose address and data first, then call write() once"};
    return {dag.constant(1, 1), n.args[1], n.args[2]};
  }
  auto t = resolve(dag, n.args[1], r, where, address_bits), f = resolve(dag, n.args[2], r, where, address_bits);
  auto pick = [&](Id x, Id y) { return dag.mux(n.args[0], x, y); };
  return {pick(t.enable, f.enable), pick(t.address, f.address), pick(t.data, f.data)};
}

void check_ram_reads(const Module &m, const std::map<Id, std::vector<Place>> &where) {
  std::vector<Id> stack;
  std::set<Id> seen;
  for (auto &r : m.registers) stack.push_back(r.next);
  for (auto &o : m.outputs) stack.push_back(o.value);
  for (auto &r : m.rams) if (r.enable >= 0) for (Id x : {r.enable, r.address, r.data}) stack.push_back(x);
  std::map<unsigned, Id> first;
  auto refuse = [&](Id id, const std::string &what, const std::string &advice) {
    auto it = where.find(id);
    throw Error{it == where.end() ? std::vector<Place>{} : it->second, "ram '" + m.rams[m.dag[id].lo].ram.path + "' " + what, advice};
  };
  for (auto &o : m.outputs) if (m.dag[o.value].op == Op::RamRead) refuse(o.value, "is used in the cycle of its read()", "use q in the next cycle");
  while (!stack.empty()) {
    Id id = stack.back();
    stack.pop_back();
    if (!seen.insert(id).second) continue;
    auto &n = m.dag[id];
    for (Id a : n.args) {
      if (m.dag[a].width == 0) continue;
      if (m.dag[a].op == Op::RamRead && n.op != Op::Mux) refuse(a, "is used in the cycle of its read()", "use q in the next cycle");
      stack.push_back(a);
    }
    if (n.op == Op::RamRead) {
      auto [it, fresh] = first.try_emplace(n.lo, id);
      if (!fresh) refuse(id, "is read at two addresses in a cycle", "choose the address first, then call read() once");
    }
  }
}

}  // namespace

std::unique_ptr<Module> translate(llvm::Module &module, const std::string &kernel) {
  auto *step = module.getFunction("hls_step__" + kernel);
  auto *reset = module.getFunction("hls_reset__" + kernel);
  if (!step || !reset) throw Error{{}, "there is no kernel '" + kernel + "'", "name a namespace given to HLS_TOP"};
  auto types = step->getSubprogram()->getType()->getTypeArray();
  auto out = std::make_unique<Module>();
  Module &m = *out;
  m.name = kernel;
  m.state = make_layout(types[1], false), m.in = make_layout(types[2], true), m.out = make_layout(types[3], true);
  Dag &dag = m.dag;

  std::set<std::string> ports{"ap_clk", "ap_rst_n"};
  std::string file = step->getSubprogram()->getFilename().str();
  auto claim = [&](const std::string &name) {
    if (keywords.count(name)) throw Error{{{file, step->getSubprogram()->getLine(), 1}}, "port '" + name + "' is a keyword of SystemVerilog", "rename the member"};
    if (!ports.insert(name).second)
      throw Error{{{file, step->getSubprogram()->getLine(), 1}}, "two ports are called '" + name + "'", "give members of In and Out different paths (s_axis.tvalid in, s_axis.tready out)"};
  };
  for (auto &v : m.in.vectors) claim(v.name), m.inputs.push_back({v.name, v.width});
  for (auto &v : m.out.vectors) claim(v.name), m.outputs.push_back({v.name, v.width});
  auto register_name = [&](const std::string &n) { return ports.count(n) || keywords.count(n) ? n + "_r" : n; };
  for (auto &c : m.state.cells) c.vector = register_name(c.vector);
  for (auto &r : m.state.rams) r.name += "_ram";

  auto extended = [&](Id x, const Cell &c) { return c.is_signed ? dag.sext(x, c.storage) : dag.zext(x, c.storage); };
  std::map<std::string, unsigned> widths;
  for (auto &v : m.state.vectors) v.name = register_name(v.name), widths[v.name] = v.width;
  for (auto &v : m.in.vectors) widths[v.name] = v.width;
  auto from_vector = [&](const Cell &c) { return extended(dag.slice(dag.name(c.vector, widths[c.vector]), c.vector_lo, c.width), c); };

  Translator t(dag, module.getDataLayout());
  t.rams = m.state.rams;
  int state = t.add_object("State", make_object(dag, m.state, from_vector), m.state.arrays, true);
  int in = t.add_object("In", make_object(dag, m.in, from_vector), m.in.arrays, false);
  int outputs = t.add_object("Out", make_object(dag, m.out, [&](const Cell &c) { return dag.zero(c.storage); }), m.out.arrays, true);
  Memory end = t.run(*step, {state, in, outputs});

  Translator start(dag, module.getDataLayout());
  start.rams = m.state.rams;
  int fresh = start.add_object("State", make_object(dag, m.state, [&](const Cell &c) { return dag.undef(c.storage); }), m.state.arrays, true);
  Memory reset_memory = start.run(*reset, {fresh});

  auto final_of = [&](const Memory &mem, int object) {
    return [&, object](const Cell &c) { return dag.slice(load(dag, *mem[object], c.offset, c.storage), 0, c.width); };
  };
  for (auto &v : m.state.vectors) {
    Register r;
    r.name = v.name, r.width = v.width;
    r.now = dag.name(v.name, v.width);
    r.next = joined(dag, m.state, v.name, final_of(end, state));
    r.reset = APInt(v.width, 0), r.reset_mask = APInt(v.width, 0);
    for (auto &c : m.state.cells) {
      if (c.vector != v.name) continue;
      Id value = final_of(reset_memory, fresh)(c);
      if (dag.is_undef(value)) continue;
      if (!dag.is_const(value)) throw Error{{{file, c.line, 1}}, "the reset value of '" + c.path + "' is not a constant", "give it a constant initialiser, or none"};
      r.reset.insertBits(dag[value].value, c.vector_lo);
      r.reset_mask.setBits(c.vector_lo, c.vector_lo + c.width);
    }
    m.registers.push_back(r);
  }
  for (size_t n = 0; n < m.outputs.size(); n++) m.outputs[n].value = joined(dag, m.out, m.outputs[n].name, final_of(end, outputs));
  for (auto &r : m.state.rams) {
    RamPort p{r};
    Id content = load(dag, *end[state], r.offset, 8);
    unsigned bits = 1;
    while ((1u << bits) < r.count) bits++;
    auto w = resolve(dag, content, r, t.ram_places, bits);
    if (!dag.is_zero(w.enable)) p.enable = w.enable, p.address = w.address, p.data = w.data;
    m.rams.push_back(p);
  }
  check_ram_reads(m, t.ram_places);
  return out;
}

}  // namespace rtlgen
