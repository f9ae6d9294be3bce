// The common main of all daemons: settings, logging, data directory, World, signals, exit codes.
//
// A daemon class D has
//   static std::vector<Option> options();                    its own rows; the common ones are added
//   D(World& world, const DaemonOptions& options);           no I/O yet; `options` outlives it
//   Task<Status> start();                                    an error ends the program
//   Task<void> drain();                                      on SIGTERM or SIGINT: finish what has been accepted
// and its main is: int main(int argc, char** argv) { return luge::io::daemon_main<D>(argc, argv, {"luge-sled", "sled", "..."}); }
//
// Exit codes: 0 drained after a signal; 1 failed while starting or running; 2 bad usage or configuration; 3 the data
// directory cannot be used: in use, not writable, of another unit, node, role or format version.
// A second signal while draining, or one while starting, stops at once: drain() runs only after a start() that went well.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/config.hpp"
#include "base/ids.hpp"
#include "io/world.hpp"

namespace luge::io {

struct DaemonKind {
  std::string program;      ///< "luge-sled"
  std::string role;         ///< "sled": in the identity file, and "sled-ID" is the default name
  std::string description;  ///< first line of --help
  bool needs_directory = true;
  bool needs_id = true;     ///< else id may be 0
};

struct DaemonOptions {
  Settings settings;
  std::string name;
  NodeId id = 0;
  std::uint64_t unit = 0;  ///< of --unit or of the identity file; 0: not known yet, the control plane will say
  std::string directory;   ///< absolute, or empty
  std::uint64_t incarnation = 0;  ///< random, new at each start
  /// Durably writes the unit that the control plane named into the identity file. wrong_unit: it has another.
  std::function<Status(std::uint64_t unit)> remember_unit;
  /// Ends the program with code 1 and this text (3 for wrong_unit and wrong_version); for what cannot be served past.
  std::function<void(Status)> fail;
};

/// What daemon_main needs of D.
struct DaemonCalls {
  std::shared_ptr<void> object;
  std::function<Task<Status>()> start;
  std::function<Task<void>()> drain;
};
int run_daemon(int argc, char** argv, const DaemonKind& kind, std::vector<Option> options,
               const std::function<DaemonCalls(World&, const DaemonOptions&)>& make);

template <class D>
int daemon_main(int argc, char** argv, const DaemonKind& kind) {
  return run_daemon(argc, argv, kind, D::options(), [](World& world, const DaemonOptions& options) {
    auto d = std::make_shared<D>(world, options);
    return DaemonCalls{d, [p = d.get()] { return p->start(); }, [p = d.get()] { return p->drain(); }};
  });
}

/// The options that every daemon has: name, id, dir, unit, log-level, busy-poll, insecure-listen.
std::vector<Option> common_options(const DaemonKind& kind);

}  // namespace luge::io
