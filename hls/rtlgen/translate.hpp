// LLVM IR of a step function -> Module. Throws Error for whatever is outside the style.
#pragma once
#include <llvm/IR/Module.h>

#include <memory>

#include "module.hpp"

namespace rtlgen {
// The names of the kernels (HLS_TOP) in the module.
std::vector<std::string> kernels(const llvm::Module &module);
// Runs the passes the translator expects: everything inlined and unrolled.
void prepare(llvm::Module &module);
std::unique_ptr<Module> translate(llvm::Module &module, const std::string &kernel);
}  // namespace rtlgen
