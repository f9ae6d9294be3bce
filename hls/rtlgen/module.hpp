// A translated kernel: what the writer needs.
#pragma once
#include <string>
#include <vector>

#include "dag.hpp"
#include "layout.hpp"

namespace rtlgen {
struct Register {
  std::string name;
  unsigned width;
  Id now, next;
  llvm::APInt reset, reset_mask;  // only bits in the mask are reset
};
struct RamPort {
  Ram ram;
  Id enable = -1, address = -1, data = -1;  // the write port; -1: none
};
struct Port {
  std::string name;
  unsigned width;
  Id value = -1;  // outputs
};
struct Module {
  std::string name;
  Dag dag;
  Layout state, in, out;
  std::vector<Port> inputs, outputs;
  std::vector<Register> registers;
  std::vector<RamPort> rams;
};
}  // namespace rtlgen
