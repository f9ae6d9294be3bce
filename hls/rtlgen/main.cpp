// rtlgen KERNEL.cpp -o OUT.sv [--glue OUT.hpp --header INCLUDE] [-I DIR] [-D NAME]: one kernel's step function as SystemVerilog.
#include <llvm/IR/LLVMContext.h>
#include <llvm/IRReader/IRReader.h>
#include <llvm/Support/SourceMgr.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>

#include "error.hpp"
#include "translate.hpp"
#include "writer.hpp"

extern char **environ;

namespace {

int run(const std::vector<std::string> &command) {
  std::vector<char *> argv;
  for (auto &a : command) argv.push_back(const_cast<char *>(a.c_str()));
  argv.push_back(nullptr);
  pid_t pid;
  if (posix_spawnp(&pid, argv[0], nullptr, nullptr, argv.data(), environ) != 0) return 127;
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

bool save(const std::string &path, const std::string &text) {
  std::ofstream f(path, std::ios::binary);
  f << text;
  f.close();
  if (!f) std::cerr << "rtlgen: error: can't write " << path << "; check that its folder exists and has room\n";
  return (bool)f;
}

}  // namespace

int main(int argc, char **argv) {
  std::string source, output, glue, header;
  std::vector<std::string> options;
  for (int i = 1; i < argc; i++) {
    std::string a = argv[i];
    auto value = [&]() -> std::string { return i + 1 < argc ? argv[++i] : ""; };
    if (a == "-o") output = value();
    else if (a == "--glue") glue = value();
    else if (a == "--header") header = value();
    else if (a == "-I" || a == "-D") options.push_back(a), options.push_back(value());
    else if (a.rfind("-", 0) == 0) { std::cerr << "rtlgen: error: unknown option " << a << "\nusage: rtlgen KERNEL.cpp -o OUT.sv [--glue OUT.hpp --header INCLUDE] [-I DIR] [-D NAME]\n"; return 2; }
    else source = a;
  }
  if (source.empty() || output.empty()) { std::cerr << "usage: rtlgen KERNEL.cpp -o OUT.sv [--glue OUT.hpp --header INCLUDE] [-I DIR] [-D NAME]\n"; return 2; }

  std::string ir = output + ".bc";
  std::vector<std::string> command = {CLANG, "-std=c++14", "-O2", "-Xclang", "-disable-llvm-passes", "-g", "-fstandalone-debug", "-fno-exceptions", "-fno-rtti",
                                      "-fno-unwind-tables", "-fno-asynchronous-unwind-tables", "-fno-threadsafe-statics", "-Wno-bit-int-extension", "-DHLS_RTL", "-emit-llvm", "-c", source, "-o", ir};
  command.insert(command.end(), options.begin(), options.end());
  if (int rc = run(command)) { if (rc == 127) std::cerr << "rtlgen: error: " CLANG " does not start; install clang-19\n"; return 1; }

  llvm::LLVMContext context;
  llvm::SMDiagnostic diagnostic;
  auto module = llvm::parseIRFile(ir, diagnostic, context);
  std::remove(ir.c_str());
  if (!module) { std::cerr << "rtlgen: error: " << diagnostic.getMessage().str() << "\n"; return 1; }
  try {
    auto names = rtlgen::kernels(*module);
    if (names.size() != 1) throw rtlgen::Error{{{source, 1, 1}}, names.empty() ? "no kernel in this file" : "more than one kernel in this file", "write HLS_TOP(namespace) once"};
    rtlgen::prepare(*module);
    auto translated = rtlgen::translate(*module, names[0]);
    if (!save(output, rtlgen::write_verilog(*translated))) return 1;
    if (!glue.empty() && !save(glue, rtlgen::write_glue(*translated, header.empty() ? source : header))) return 1;
  } catch (const rtlgen::Error &e) {
    std::cerr << rtlgen::to_string(e);
    return 1;
  }
  return 0;
}
