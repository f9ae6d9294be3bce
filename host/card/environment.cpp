#include "card/environment.hpp"

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace luge::card {
namespace {

namespace fs = std::filesystem;

fs::path beside_program(const char* name) {
  std::error_code e;
  return (fs::read_symlink("/proc/self/exe", e).parent_path() / name).lexically_normal();
}

}  // namespace

std::string card_tree(const CardOptions& o) {
  if (!o.tree.empty()) return fs::absolute(o.tree).lexically_normal();
  if (const char* t = std::getenv("LUGE_XRT"); t && *t) return fs::absolute(t).lexically_normal();
  return beside_program("../xrt");
}

std::string card_program(const CardOptions& o) {
  if (!o.program.empty()) return o.program;
  fs::path p = beside_program("luge-card");
  return fs::exists(p) ? p : beside_program("../bin/luge-card");
}

Result<std::map<std::string, std::string>> card_environment(const CardOptions& o) {
  std::map<std::string, std::string> env;
  if (o.kind == "hw") return env;
  if (o.kind.empty() || o.kind.find('/') != std::string::npos) return Status(Code::invalid, "there is no kind of card '" + o.kind + "'");
  const std::string tree = card_tree(o), file = tree + "/" + o.kind + ".env";
  std::ifstream in(file);
  if (!in)
    return Status(Code::not_found, "there is no " + file + ": " + (o.kind == "rtl" ? "the verilated card is built with -DLUGE_HLS=ON (hls/PACKAGES)" :
                  "no such card was built (native needs libxrt-dev)"));
  for (std::string line; std::getline(in, line);) {
    if (line.empty() || line[0] == '#') continue;
    std::size_t equals = line.find('=');
    if (equals == std::string::npos) return Status(Code::invalid, file + ": '" + line + "' is not KEY=VALUE");
    std::string value = line.substr(equals + 1);
    for (std::size_t at; (at = value.find("@TREE@")) != std::string::npos;) value.replace(at, 6, tree);
    env[line.substr(0, equals)] = value;
  }
  return env;
}

}  // namespace luge::card
