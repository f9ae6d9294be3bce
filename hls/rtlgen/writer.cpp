#include "writer.hpp"

#include <llvm/ADT/SmallString.h>

#include <algorithm>
#include <functional>

namespace rtlgen {
namespace {

std::string range(unsigned hi, unsigned lo) {
  return hi == lo ? "[" + std::to_string(hi) + "]" : "[" + std::to_string(hi) + ":" + std::to_string(lo) + "]";
}
std::string type(unsigned width) { return width == 1 ? "" : "[" + std::to_string(width - 1) + ":0] "; }

std::string literal(const llvm::APInt &v) {
  llvm::SmallString<64> s;
  bool small = v.getActiveBits() <= 10;
  v.toString(s, small ? 10 : 16, false);
  std::string digits = s.str().lower();
  return std::to_string(v.getBitWidth()) + (small ? "'d" : "'h") + digits;
}

// Breaks a long line at its operators.
std::string wrap(const std::string &line) {
  std::string out, rest = line;
  while (rest.size() > 118) {
    size_t cut = std::string::npos;
    for (const char *at : {", ", " ^ ", " | ", " & ", " : ", " ? "}) {
      size_t p = rest.rfind(at, 114);
      if (p != std::string::npos && p > 20 && rest.rfind("//", p) == std::string::npos && (cut == std::string::npos || p > cut)) cut = p;
    }
    if (cut == std::string::npos) break;
    out += rest.substr(0, cut + 1) + "\n";
    size_t next = rest.find_first_not_of(' ', cut + 1);
    rest = "      " + rest.substr(next);
  }
  return out + rest;
}

struct Writer {
  Module &m;
  Dag &dag;
  std::vector<int> uses;
  std::vector<bool> sliced, named;
  std::vector<std::string> text;
  std::string out;

  explicit Writer(Module &module) : m(module), dag(module.dag) {}

  // {c ? a : b, c ? d : e} = c ? {a, d} : {b, e}: one enable for a whole word.
  Id regroup(Id x) {
    Node n = dag[x];
    if (n.op == Op::Mux) return dag.mux(n.args[0], regroup(n.args[1]), regroup(n.args[2]));
    if (n.op != Op::Cat) return x;
    Node first = dag[n.args[0]];
    if (first.op != Op::Mux) return x;
    std::vector<Id> t, f;
    for (Id a : n.args) {
      if (dag[a].op != Op::Mux || dag[a].args[0] != first.args[0]) return x;
      t.push_back(dag[a].args[1]), f.push_back(dag[a].args[2]);
    }
    return dag.mux(first.args[0], regroup(dag.cat(t)), regroup(dag.cat(f)));
  }

  struct Assign { std::vector<std::pair<Id, bool>> when; unsigned lo, width; Id value; };

  void assigns(Id now, Id next, unsigned lo, std::vector<std::pair<Id, bool>> when, std::vector<Assign> &to) {
    if (now == next || dag.is_undef(next)) return;
    Node n = dag[next];
    if (n.op == Op::Mux && n.args[2] == now) { when.push_back({n.args[0], true}); return assigns(now, n.args[1], lo, when, to); }
    if (n.op == Op::Mux && n.args[1] == now) { when.push_back({n.args[0], false}); return assigns(now, n.args[2], lo, when, to); }
    if (n.op == Op::Cat) {
      bool apart = false;
      std::vector<Assign> parts;
      unsigned at = n.width;
      for (Id a : n.args) {
        at -= dag[a].width;
        size_t before = parts.size();
        assigns(dag.slice(now, at, dag[a].width), a, lo + at, when, parts);
        if (parts.size() != before + 1 || parts.back().when.size() != when.size()) apart = true;
      }
      if (apart) { to.insert(to.end(), parts.begin(), parts.end()); return; }
    }
    to.push_back({when, lo, n.width, next});
  }

  void mark(Id root) {
    std::vector<Id> stack{root};
    uses[root]++;
    if (uses[root] > 1) return;
    while (!stack.empty()) {
      Id id = stack.back();
      stack.pop_back();
      for (Id a : dag[id].args) {
        if (dag[a].width == 0) continue;
        if (dag[id].op == Op::Slice || dag[id].op == Op::PopCount) sliced[a] = true;
        if (uses[a]++ == 0) stack.push_back(a);
      }
    }
  }

  std::string ref(Id x) { return text[x]; }

  // A word or nothing. Written as a mask it is the same gates, and to a simulator no branch on data: those of a multiplication in
  // GF(2^8) cost it more than all else.
  bool gates(const Node &n) {
    const Node &word = dag[n.args[1]], &otherwise = dag[n.args[2]];
    return n.width > 1 && n.width <= 64 && (word.op == Op::Name || word.op == Op::Slice) && otherwise.op == Op::Const && otherwise.value.isZero();
  }

  std::string expression(Id x) {
    const Node &n = dag[x];
    auto a = [&](int i) { return ref(n.args[i]); };
    auto binary = [&](const char *op) { return "(" + a(0) + " " + op + " " + a(1) + ")"; };
    switch (n.op) {
      case Op::Undef: return std::to_string(n.width) + "'d0";
      case Op::Const: return literal(n.value);
      case Op::Name: return n.name;
      case Op::Slice: return a(0) + range(n.lo + n.width - 1, n.lo);
      case Op::Cat: {
        std::string s = "{";
        for (size_t i = 0; i < n.args.size(); i++) s += (i ? ", " : "") + a((int)i);
        return s + "}";
      }
      case Op::Rep: return "{" + std::to_string(n.width) + "{" + a(0) + "}}";
      case Op::Not:
        if (dag[n.args[0]].op == Op::Eq && !named[n.args[0]])
          return "(" + ref(dag[n.args[0]].args[0]) + " != " + ref(dag[n.args[0]].args[1]) + ")";
        return "~" + a(0);
      case Op::And: return binary("&");
      case Op::Or: return binary("|");
      case Op::Xor: return binary("^");
      case Op::Add:
        if (dag.is_const(n.args[1]) && dag[n.args[1]].value.isNegative())
          return "(" + a(0) + " - " + literal(-dag[n.args[1]].value) + ")";
        return binary("+");
      case Op::Sub: return binary("-");
      case Op::Mul: return binary("*");
      case Op::Mux:
        if (gates(n)) return "({" + std::to_string(n.width) + "{" + a(0) + "}} & " + a(1) + ")";
        return "(" + a(0) + " ? " + a(1) + " : " + a(2) + ")";
      case Op::Eq: return binary("==");
      case Op::Ult: return binary("<");
      case Op::Slt: return "($signed(" + a(0) + ") < $signed(" + a(1) + "))";
      case Op::Shl: return binary("<<");
      case Op::Lshr: return binary(">>");
      case Op::Ashr: return "$signed(" + a(0) + ") >>> " + a(1);
      case Op::RedXor: return "^" + a(0);
      case Op::PopCount: {
        std::string s = "(";
        unsigned w = dag[n.args[0]].width;
        for (unsigned i = 0; i < w; i++)
          s += (i ? " + " : "") + (n.width > 1 ? "{" + std::to_string(n.width - 1) + "'d0, " : "{") + a(0) + (w > 1 ? "[" + std::to_string(i) + "]" : "") + "}";
        return s + ")";
      }
      case Op::RamRead: return m.rams[n.lo].ram.name + "[" + a(1) + "]";
      default: return "?";
    }
  }

  void run() {
    std::vector<std::vector<Assign>> updates;
    for (auto &o : m.outputs) o.value = regroup(o.value);
    for (auto &r : m.registers) {
      r.next = regroup(r.next);
      updates.emplace_back();
      assigns(r.now, r.next, 0, {}, updates.back());
    }
    uses.assign((size_t)dag.size(), 0), sliced.assign((size_t)dag.size(), false), named.assign((size_t)dag.size(), false), text.resize((size_t)dag.size());
    for (auto &o : m.outputs) mark(o.value);
    for (auto &u : updates)
      for (auto &a : u) {
        mark(a.value);
        for (auto &[c, is] : a.when) mark(c);
      }
    for (auto &r : m.rams)
      if (r.enable >= 0) mark(r.enable), mark(r.address), mark(r.data);

    header();
    for (Id x = 0; x < dag.size(); x++)
      if (uses[x]) node(x);
    out += "\n";
    for (auto &o : m.outputs) out += wrap("  assign " + o.name + " = " + ref(o.value) + ";") + "\n";
    out += "\n  always_ff @(posedge ap_clk) begin\n";
    for (size_t i = 0; i < m.registers.size(); i++)
      for (auto &a : updates[i]) {
        std::string condition;
        for (auto &[c, is] : a.when) condition += (condition.empty() ? "" : " & ") + (is ? ref(c) : "~" + ref(c));
        std::string target = m.registers[i].name + (a.width == m.registers[i].width ? "" : range(a.lo + a.width - 1, a.lo));
        out += wrap("    " + (condition.empty() ? "" : "if (" + condition + ") ") + target + " <= " + ref(a.value) + ";") + "\n";
      }
    for (auto &r : m.rams)
      if (r.enable >= 0) out += wrap("    if (" + ref(r.enable) + ") " + r.ram.name + "[" + ref(r.address) + "] <= " + ref(r.data) + ";") + "\n";
    resets();
    out += "  end\nendmodule\n\n`default_nettype wire\n";
  }

  void header() {
    out += "// Generated by rtlgen from the kernel's step(); change the kernel, not this file.\n";
    out += "`default_nettype none\n\nmodule " + m.name + " (\n  input wire ap_clk,\n  input wire ap_rst_n";
    for (auto &p : m.inputs) out += ",\n  input wire " + type(p.width) + p.name;
    for (auto &p : m.outputs) out += ",\n  output wire " + type(p.width) + p.name;
    out += "\n);\n";
    for (auto &r : m.registers) out += "  logic " + type(r.width) + r.name + " /*verilator public_flat_rd*/;\n";
    for (auto &r : m.rams) out += "  logic " + type(r.ram.width) + r.ram.name + " [0:" + std::to_string(r.ram.count - 1) + "];\n";
    out += "\n";
  }

  void node(Id x) {
    const Node &n = dag[x];
    std::string e = expression(x);
    bool trivial = n.op == Op::Name || n.op == Op::Const || n.op == Op::Undef;
    bool own = sliced[x] || n.op == Op::Ashr || (uses[x] > 1 && n.op != Op::Slice) || e.size() > 100;
    if (n.op == Op::RamRead || trivial) own = false;
    if (sliced[x] && (n.op == Op::Const || n.op == Op::Undef)) own = true;
    if (!own) { text[x] = e; return; }
    named[x] = true;
    text[x] = "_n" + std::to_string(x);
    if (e.size() > 2 && e.front() == '(' && balanced(e)) e = e.substr(1, e.size() - 2);
    out += wrap("  wire " + type(n.width) + text[x] + " = " + e + ";" + (n.where.empty() ? "" : "  // " + n.where)) + "\n";
  }

  static bool balanced(const std::string &e) {  // the first parenthesis closes at the end
    int depth = 0;
    for (size_t i = 0; i < e.size(); i++) {
      depth += e[i] == '(' ? 1 : e[i] == ')' ? -1 : 0;
      if (depth == 0) return i + 1 == e.size();
    }
    return false;
  }

  void resets() {
    std::string body;
    for (auto &r : m.registers) {
      for (unsigned lo = 0; lo < r.width;) {
        if (!r.reset_mask[lo]) { lo++; continue; }
        unsigned hi = lo;
        while (hi < r.width && r.reset_mask[hi]) hi++;
        std::string target = lo == 0 && hi == r.width ? r.name : r.name + range(hi - 1, lo);
        body += "      " + target + " <= " + literal(r.reset.extractBits(hi - lo, lo)) + ";\n";
        lo = hi;
      }
    }
    if (!body.empty()) out += "    if (!ap_rst_n) begin\n" + body + "    end\n";
  }
};

}  // namespace

std::string write_verilog(Module &module) {
  Writer w(module);
  w.run();
  return w.out;
}

// The reset of a member of State, or nothing if it has none.
static std::string reset_of(const Module &m, const Cell &c) {
  for (auto &r : m.registers) {
    if (r.name != c.vector || !r.reset_mask[c.vector_lo]) continue;
    std::string s = "  hls::set(s." + c.path + ", {";
    llvm::APInt value = r.reset.extractBits(c.width, c.vector_lo).zext((c.width + 63) / 64 * 64);
    for (unsigned at = 0; at < c.width; at += 64) s += (at ? ", " : "") + std::to_string(value.extractBits(64, at).getZExtValue()) + "ull";
    return s + "});\n";
  }
  return "";
}

std::string write_glue(const Module &m, const std::string &source) {
  std::string s = "// Generated by rtlgen: the Verilated module's ports as In and Out.\n#pragma once\n#include \"" + source + "\"\n#include \"V" + m.name +
                  ".h\"\n#include \"V" + m.name + "___024root.h\"\n#include \"hls/lib/glue.hpp\"\n\nnamespace " + m.name + "_glue {\nusing Model = V" + m.name +
                  ";\nusing namespace " + m.name + ";\nconstexpr const char *name = \"" + m.name + "\";\ninline void drive(Model &m, const In &in) {\n";
  auto lo_w = [](const Cell &c) { return "<" + std::to_string(c.vector_lo) + ", " + std::to_string(c.width) + ">("; };
  for (auto &c : m.in.cells) s += "  hls::put" + lo_w(c) + "m." + c.vector + ", in." + c.path + ");\n";
  s += "}\ninline void sample(const Model &m, Out &out) {\n";
  for (auto &c : m.out.cells) s += "  hls::take" + lo_w(c) + "m." + c.vector + ", out." + c.path + ");\n";
  s += "}\n// The first output that is not equal, or null.\ninline const char *differs(const Out &a, const Out &b) {\n";
  for (auto &c : m.out.cells) s += "  if (!(a." + c.path + " == b." + c.path + ")) return \"" + c.path + "\";\n";
  s += "  return nullptr;\n}\n// Calls f(name, native, rtl) for every register. Only a report needs it: not worth optimising.\ntemplate <class F> [[clang::optnone]] void registers(const Model &m, const State &s, F &&f) {\n";
  for (auto &c : m.state.cells)
    s += "  { auto v = s." + c.path + "; hls::take" + lo_w(c) + "m.rootp->" + m.name + "__DOT__" + c.vector + ", v); f(\"" + c.path + "\", hls::hex<" + std::to_string(c.width) + ">(s." + c.path + "), hls::hex<" + std::to_string(c.width) + ">(v)); }\n";
  s += "}\n// What ap_rst_n sets; the rest of State stays, as in RTL.\n[[clang::optnone]] inline void reset(State &s) {\n";
  for (auto &c : m.state.cells) s += reset_of(m, c);
  return s + "}\n}  // namespace " + m.name + "_glue\n";
}

}  // namespace rtlgen
