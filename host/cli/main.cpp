// luge: the command line of a storage unit.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <map>

#include "base/config.hpp"
#include "cli/commands.hpp"

namespace {

// A word in the place of a command that is none, with what may have been meant. Empty: the words are known.
std::string unknown_command(const CLI::App& app, int argc, char** argv) {
  const CLI::App* at = &app;
  for (int i = 1; i < argc; ++i) {
    std::string word = argv[i];
    if (word == "--unit" || word == "--api") ++i;
    if (word.starts_with("-")) continue;
    std::vector<std::string> names;
    const CLI::App* next = nullptr;
    for (const CLI::App* sub : at->get_subcommands({})) {
      names.push_back(sub->get_name());
      if (sub->check_name(word)) next = sub;
    }
    if (names.empty()) return "";
    if (next == nullptr) {
      auto close = luge::nearest(word, names);
      return "there is no command '" + word + "'" + (close ? "; did you mean '" + *close + "'?" : ": --help lists them");
    }
    at = next;
  }
  return "";
}

constexpr const char* kFooter = R"(First steps:
  export LUGE_UNIT=/var/tmp/u1
  luge unit up --dir $LUGE_UNIT            4 heads and 8 sleds, each a process of its own
  luge volume create disk1 --size 1GiB --layout 4+2
  luge attach disk1 --nbd unix:/tmp/disk1.sock
  nbdcopy disk.img 'nbd+unix:///disk1?socket=/tmp/disk1.sock'
  luge volume flush disk1 --wait
  luge status
  luge unit kill sled-3 && luge status     nothing is lost
  luge unit down --dir $LUGE_UNIT

`luge COMMAND --help` says more of each. With --json every command prints one JSON object to standard output
(`debug log`: one a line).

Exit codes: 0 done; 1 failed; 2 wrong usage or argument; 4 no such thing; 5 refused: it exists, is in use, or belongs
to another unit or version; 6 not possible now: something is down or took too long.)";

// `luge bench ...` is the program luge-bench beside this one, which drives fio and qemu-nbd. Returns only if it cannot start.
int run_bench(char** argv) {
  std::error_code e;
  std::string program = std::filesystem::read_symlink("/proc/self/exe", e).parent_path() / "luge-bench";
  ::execv(program.c_str(), argv);
  std::fprintf(stderr, "luge: cannot run %s: %s\n", program.c_str(), std::strerror(errno));
  return luge::cli::kFailed;
}

// `luge cosim KERNEL ...` is the program luge-cosim-KERNEL beside this one, or in hls/bin beside its folder: a co-simulation bench, built
// with -DLUGE_HLS=ON.
int run_cosim(int argc, char** argv) {
  namespace fs = std::filesystem;
  std::error_code e;
  const fs::path here = fs::read_symlink("/proc/self/exe", e).parent_path();
  const std::string prefix = "luge-cosim-";
  std::map<std::string, fs::path> kernels;
  for (const fs::path& folder : {here, here.parent_path() / "hls" / "bin"})
    for (const auto& entry : fs::directory_iterator(folder, e))
      if (std::string name = entry.path().filename(); name.starts_with(prefix)) kernels.emplace(name.substr(prefix.size()), entry.path());
  const bool help = argc > 1 && (std::string_view(argv[1]) == "--help" || std::string_view(argv[1]) == "-h");
  const std::string kernel = argc > 1 && !help ? argv[1] : "";
  if (kernels.contains(kernel)) {
    const std::string program = kernels[kernel];
    ::execv(program.c_str(), argv + 1);
    std::fprintf(stderr, "luge: cannot run %s: %s\n", program.c_str(), std::strerror(errno));
    return luge::cli::kFailed;
  }
  if (help) {
    std::printf(R"(usage: luge cosim KERNEL [OPTIONS]: native kernel and RTL in lock-step, against models and a mix of stalls and faults
  --seed N         what decides the run
  --cycles N       a shorter or longer run
  --allow-holes    tell what the run has not covered, and do not fail for it
  --stripes N      erasure_coder: so many stripes on the RTL alone, against ISA-L
  --stall PERCENT  how often either side of a port waits, instead of a mix
  --faults LIST    card: only these faults, by comma (docs/cosim.md)
  --trace FILE     waveforms of the RTL, FST
  --report FILE    a page with figures, charts and the coverage, HTML
  --case NAME      only this case of the bench, if it has several
kernels:)");
    for (const auto& [k, program] : kernels) std::printf(" %s", k.c_str());
    std::printf("%s\n", kernels.empty() ? " none is built here" : "");
    return luge::cli::kOk;
  }
  if (kernels.empty()) {
    std::fprintf(stderr, "luge: the co-simulation benches are not built here (there is no %s/%sKERNEL). Build them with\n"
                 "  cmake -S . -B build/hls -G Ninja -DCMAKE_CXX_COMPILER=clang++-19 -DCMAKE_BUILD_TYPE=Release -DLUGE_HLS=ON && ninja -C build/hls cosim\n"
                 "hls/PACKAGES lists the packages needed.\n", here.c_str(), prefix.c_str());
    return luge::cli::kUnavailable;
  }
  std::fprintf(stderr, "luge: %s; kernels:", kernel.empty() ? "cosim needs the name of a kernel" : ("no bench for '" + kernel + "'").c_str());
  for (const auto& [k, program] : kernels) std::fprintf(stderr, " %s", k.c_str());
  std::fprintf(stderr, "\n");
  return kernel.empty() ? luge::cli::kUsage : luge::cli::kNotFound;
}

}  // namespace

int main(int argc, char** argv) {
  using namespace luge::cli;
  if (argc > 1 && std::string_view(argv[1]) == "bench") return run_bench(argv + 1);
  if (argc > 1 && std::string_view(argv[1]) == "cosim") return run_cosim(argc - 1, argv + 1);
  CLI::App app("Luge: a block store for a rack. Volumes, the unit that serves them, and their state.", "luge");
  Context context;
  app.set_version_flag("--version", std::string("luge ") + LUGE_VERSION);
  app.add_option("--unit", context.unit, "directory of the unit")->envname("LUGE_UNIT");
  app.add_option("--api", context.api, "address of the control plane's HTTP API, instead of --unit")->envname("LUGE_API");
  app.add_flag("--json", context.json, "print JSON");
  app.require_subcommand(1);
  app.fallthrough();
  app.footer(kFooter);
  add_unit_commands(app, context);
  add_volume_commands(app, context);
  add_attach_commands(app, context);
  add_status_command(app, context);
  add_control_commands(app, context);
  add_debug_commands(app, context);
  add_card_commands(app, context);
  add_image_commands(app, context);
  add_vm_commands(app, context);
  app.add_subcommand("bench", "measure a unit of this machine against qemu-nbd on the same disk (luge bench --help)");
  app.add_subcommand("cosim", "run a co-simulation bench of the card or one of its kernels (luge cosim --help)");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    std::string unknown = e.get_exit_code() != 0 ? unknown_command(app, argc, argv) : "";
    if (!unknown.empty()) {
      std::fprintf(stderr, "luge: %s\n", unknown.c_str());
      return kUsage;
    }
    return app.exit(e) == 0 ? kOk : kUsage;
  }
  return context.run();
}
