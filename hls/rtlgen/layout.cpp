#include "layout.hpp"

#include <llvm/BinaryFormat/Dwarf.h>
#include <llvm/IR/Constants.h>

#include <algorithm>
#include <cstdlib>

#include "error.hpp"

namespace rtlgen {
using namespace llvm;
namespace {

struct Walker {
  Layout out;
  bool ports;

  [[noreturn]] void refuse(DIDerivedType *member, const std::string &what, const std::string &advice) {
    Error e{{}, what, advice};
    if (member) e.places.push_back({member->getFilename().str(), member->getLine(), 1});
    throw e;
  }

  static DIType *strip(DIType *t) {
    while (auto *d = dyn_cast_or_null<DIDerivedType>(t)) {
      unsigned tag = d->getTag();
      if (tag != dwarf::DW_TAG_typedef && tag != dwarf::DW_TAG_const_type && tag != dwarf::DW_TAG_volatile_type) break;
      t = d->getBaseType();
    }
    return t;
  }

  // Width of a scalar; 0 when the type is none.
  unsigned scalar(DIType *t, bool &is_signed, DIDerivedType *member) {
    is_signed = false;
    if (auto *b = dyn_cast<DIBasicType>(t)) {
      switch (b->getEncoding()) {
        case dwarf::DW_ATE_boolean: return 1;
        case dwarf::DW_ATE_float:
          refuse(member, "member '" + member->getName().str() + "' is a floating point number",
                 "use ap_int with a fixed point of your own");
        case dwarf::DW_ATE_signed: case dwarf::DW_ATE_signed_char: is_signed = true; break;
        default: break;
      }
      return (unsigned)b->getSizeInBits();
    }
    auto *c = dyn_cast<DICompositeType>(t);
    if (!c) return 0;
    if (c->getTag() == dwarf::DW_TAG_enumeration_type) {
      unsigned width = 1;
      for (auto *e : c->getElements())
        if (auto *en = dyn_cast<DIEnumerator>(e)) {
          if (!en->isUnsigned() && en->getValue().isNegative())
            refuse(member, "enumerator '" + en->getName().str() + "' is negative", "number the states from 0");
          width = std::max(width, en->getValue().getActiveBits());
        }
      return width;
    }
    StringRef name = c->getName();
    if (name.consume_front("ap_uint<")) return (unsigned)std::atoi(name.str().c_str());
    if (name.consume_front("ap_int<")) { is_signed = true; return (unsigned)std::atoi(name.str().c_str()); }
    return 0;
  }

  std::string join(const std::string &a, const std::string &b) {
    if (b.empty()) return a;
    return a.empty() ? b : a + "_" + b;
  }

  std::vector<DIDerivedType *> members(DICompositeType *c) {
    std::vector<DIDerivedType *> m;
    for (auto *e : c->getElements())
      if (auto *d = dyn_cast<DIDerivedType>(e))
        if ((d->getTag() == dwarf::DW_TAG_member && !d->isStaticMember()) || d->getTag() == dwarf::DW_TAG_inheritance) m.push_back(d);
    return m;
  }

  // State a.b and a_b would share a name: the later one gets a number. (Ports are refused instead.)
  std::string vector(std::string name, unsigned width) {
    auto taken = [&](const std::string &n) {
      for (auto &v : out.vectors) if (v.name == n) return true;
      return false;
    };
    if (!ports)
      for (int n = 2; taken(name); n++) name = name.substr(0, name.rfind("_v")) + "_v" + std::to_string(n);
    out.vectors.push_back({name, width});
    return name;
  }

  void leaf(const std::string &path, const std::string &vec, unsigned lo, int64_t off, unsigned storage, unsigned width, bool sg, DIDerivedType *m) {
    out.cells.push_back({path, vec, lo, off, storage, width, sg, m ? m->getLine() : 0});
  }

  void walk(DIType *type, int64_t off, const std::string &path, const std::string &name, DIDerivedType *member) {
    DIType *t = strip(type);
    std::string what = member ? "member '" + member->getName().str() + "'" : "it";
    if (auto *d = dyn_cast_or_null<DIDerivedType>(t)) {
      unsigned tag = d->getTag();
      if (tag == dwarf::DW_TAG_pointer_type || tag == dwarf::DW_TAG_reference_type || tag == dwarf::DW_TAG_rvalue_reference_type || tag == dwarf::DW_TAG_ptr_to_member_type)
        refuse(member, what + " is a pointer or reference", "keep an index into an array of State instead");
    }
    if (!t) refuse(member, what + " has a type without size", "give it a type");
    bool sg;
    if (unsigned w = scalar(t, sg, member)) {
      unsigned storage = (unsigned)t->getSizeInBits();
      if (member && member->isBitField()) storage = w = (unsigned)member->getSizeInBits();
      leaf(path, vector(name, w), 0, off, storage, w, sg, member);
      return;
    }
    auto *c = dyn_cast<DICompositeType>(t);
    if (!c) refuse(member, what + " has a type that is not hardware", "use ap_uint, bool, enum class, structs and arrays of them");
    if (c->getTag() == dwarf::DW_TAG_array_type) {
      uint64_t n = 1;
      std::vector<uint64_t> dims;
      for (auto *e : c->getElements())
        if (auto *s = dyn_cast<DISubrange>(e)) {
          auto *ci = dyn_cast_if_present<ConstantInt *>(s->getCount());
          dims.push_back(ci ? ci->getZExtValue() : 0);
          n *= dims.back();
        }
      DIType *el = strip(c->getBaseType());
      int64_t stride = n ? (int64_t)(c->getSizeInBits() / n) : 0;
      uint64_t inner = n;
      for (uint64_t d : dims) {  // every dimension may be indexed on its own
        uint64_t row = d ? inner / d : 0;
        for (uint64_t at = 0; row && at < n; at += inner) out.arrays.push_back({off + (int64_t)at * stride, (int64_t)row * stride, d});
        inner = row;
      }
      auto suffix = [&](uint64_t i) {
        std::string s;
        uint64_t rest = n;
        for (uint64_t d : dims) { rest /= d; s += "[" + std::to_string(i / rest % d) + "]"; }
        return s;
      };
      if (unsigned w = scalar(el, sg, member)) {
        std::string v = vector(name, w * (unsigned)n);
        for (uint64_t i = 0; i < n; i++) leaf(path + suffix(i), v, w * (unsigned)i, off + (int64_t)i * stride, (unsigned)el->getSizeInBits(), w, sg, member);
      } else {
        for (uint64_t i = 0; i < n; i++) walk(el, off + (int64_t)i * stride, path + suffix(i), join(name, std::to_string(i)), member);
      }
      return;
    }
    if (c->getTag() == dwarf::DW_TAG_union_type) refuse(member, what + " is a union", "use a struct, or ap_uint and range()");
    if (c->isForwardDecl()) refuse(member, what + " has an incomplete type in the debug information", "include its definition");
    auto ms = members(c);
    if (c->getName().starts_with("ram<")) { ram(c, ms, off, path, name, member); return; }
    for (auto *m : ms) {
      if (m->getName().starts_with("_vptr"))
        refuse(member ? member : m, "type '" + c->getName().str() + "' has virtual functions", "use templates or a switch");
      bool single = ms.size() == 1 && isa<DICompositeType>(strip(m->getBaseType())) &&
                    cast<DICompositeType>(strip(m->getBaseType()))->getTag() == dwarf::DW_TAG_array_type;
      bool base = m->getTag() == dwarf::DW_TAG_inheritance;
      std::string n = m->getName().str();
      int64_t at = off + (int64_t)m->getOffsetInBits();
      walk(m->getBaseType(), at, base || n.empty() ? path : path.empty() ? n : path + "." + n, (base || single) ? name : join(name, n), m);
    }
  }

  void ram(DICompositeType *, const std::vector<DIDerivedType *> &ms, int64_t off, const std::string &path, const std::string &name, DIDerivedType *member) {
    for (auto *m : ms) {
      DIType *t = strip(m->getBaseType());
      if (m->getName() == "mem") {
        auto *a = cast<DICompositeType>(t);
        Ram r;
        auto *range = cast<DISubrange>(a->getElements()[0]);
        r.count = (unsigned)cast<ConstantInt *>(range->getCount())->getZExtValue();
        DIType *el = strip(a->getBaseType());
        r.width = scalar(el, r.is_signed, m);
        if (!r.width) refuse(member, "ram '" + name + "' holds a struct", "pack its fields into one ap_uint");
        r.storage = (unsigned)el->getSizeInBits();
        r.offset = off + (int64_t)m->getOffsetInBits();
        r.name = name, r.path = path;
        out.rams.push_back(r);
      } else {
        walk(m->getBaseType(), off + (int64_t)m->getOffsetInBits(), path + "." + m->getName().str(), join(name, m->getName().str()), m);
      }
    }
  }
};

}  // namespace

Layout make_layout(DIType *type, bool ports) {
  Walker w{{}, ports};
  DIType *t = Walker::strip(type);
  if (auto *r = dyn_cast<DIDerivedType>(t)) t = Walker::strip(r->getBaseType());  // the parameter is a reference
  w.out.size = (int64_t)t->getSizeInBits();
  w.walk(t, 0, "", "", nullptr);
  std::stable_sort(w.out.cells.begin(), w.out.cells.end(), [](const Cell &a, const Cell &b) { return a.offset < b.offset; });
  return std::move(w.out);
}

}  // namespace rtlgen
