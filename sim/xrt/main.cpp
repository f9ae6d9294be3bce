// A simulator as XRT's emulation shim starts one: connects to the shim's socket and is a card until the host closes.
// Started by simulate.sh of an xclbin (make_xclbin.py), never by hand.
//
// Environment: EMULATION_SOCKETID and USER say where the shim listens; LUGE_CARD_FAULTS, LUGE_CARD_MUTANT, LUGE_CARD_TRACE...: docs/xrt.md.
// LUGE_CARD_FIRMWARE: image for the controller instead of $XILINX_XRT/firmware.bin; "none": no controller.
// Exit code: 0 closed, 2 the host went away or was never there, 1 anything else: then simulate.sh ends the host.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "sim/xrt/model.hpp"
#include "sim/xrt/server.hpp"

namespace {

constexpr std::uint32_t kEmulatedBoard = 1;  // boards/emulated/board.toml

void add_controller(luge::xrt_sim::Machine& machine) {
  const char *named = std::getenv("LUGE_CARD_FIRMWARE"), *tree = std::getenv("XILINX_XRT");
  const std::string image = named ? named : tree ? std::string(tree) + "/firmware.bin" : "";
  if (image == "none") return;
  luge::sim::ControllerSettings settings;
  settings.image = luge::sim::read_image(image), settings.board = kEmulatedBoard;
  if (const char* slot = std::getenv("LUGE_CARD_SLOT")) settings.slot = static_cast<std::uint32_t>(std::strtoul(slot, nullptr, 10));
  settings.owner_hidden = std::getenv("LUGE_CARD_OWNER_HIDDEN") != nullptr;
  machine.add_controller(luge::xrt_sim::make_controller, std::move(settings));
}

// `%p` in the name becomes the process's number: the cards of a unit have one environment.
luge::sim::Trace wanted_trace(std::string path) {
  if (auto at = path.find("%p"); at != std::string::npos) path.replace(at, 2, std::to_string(::getpid()));
  const char *ports = std::getenv("LUGE_CARD_TRACE_PORTS"), *cycles = std::getenv("LUGE_CARD_TRACE_CYCLES");
  return {path, ports != nullptr && *ports != 0, cycles ? std::strtoull(cycles, nullptr, 10) : 0};
}

}  // namespace

int main(int argc, char** argv) {
  using namespace luge::xrt_sim;
  std::uint32_t version = 0;
  for (int i = 1; i + 1 < argc; i += 2)
    if (std::strcmp(argv[i], "--version") == 0) version = static_cast<std::uint32_t>(std::strtoul(argv[i + 1], nullptr, 0));
  const char *faults = std::getenv("LUGE_CARD_FAULTS"), *mutant = std::getenv("LUGE_CARD_MUTANT"), *trace = std::getenv("LUGE_CARD_TRACE");
  try {
    auto card = make_model();
    if (trace && *trace) card->trace(wanted_trace(trace));
    Machine machine(std::move(card), version, mutant ? static_cast<unsigned>(std::strtoul(mutant, nullptr, 10)) : 0);
    add_controller(machine);
    if (faults) machine.watch_faults(faults);
    Connection connection;
    if (!connection.open(20)) {
      std::fprintf(stderr, "no host listens at $EMULATION_SOCKETID\n");
      return 2;
    }
    return Server(connection, machine).run() ? 0 : 2;
  } catch (const std::runtime_error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
