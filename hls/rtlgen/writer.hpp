// Module -> SystemVerilog text, and the C++ header that connects the Verilated module to In, Out and State.
#pragma once
#include <string>

#include "module.hpp"

namespace rtlgen {
std::string write_verilog(Module &module);
// drive(model, In), sample(model, Out), differs(Out, Out) and compare_state(model, State) for the module's Verilator model.
std::string write_glue(const Module &module, const std::string &source);
}  // namespace rtlgen
