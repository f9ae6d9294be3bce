// The common main of all daemons: settings, logging, data directory, World, signals, exit codes. What is the same for all of
// them is read here, once; a daemon's own main has only what differs.
//
// A daemon class D has
//   static std::vector<Option> options();                    its own rows; the common ones are added
//   D(World& world, const DaemonOptions& options);           no I/O yet; `options` outlives it
//   Task<Status> start();                                    an error ends the program
//   Task<void> drain();                                      on SIGTERM or SIGINT: finish what has been accepted
//   std::string unfinished() const;                          (may be left out) what a drain still waits for, for people
// and its main is: int main(int argc, char** argv) { return luge::io::daemon_main<D>(argc, argv, {"luge-sled", "sled", "..."}); }
//
// Exit codes: 0 drained after a signal; 1 failed while starting or running; 2 bad usage or configuration; 3 the data
// directory cannot be used: in use, not writable, of another unit, node, role or format version; 4 the drain did not end
// within its limit, and the log says what was given up.
// A second signal while draining, or one while starting, stops at once: drain() runs only after a start() that went well.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/config.hpp"
#include "io/node_options.hpp"
#include "io/world.hpp"

namespace luge::io {

struct DaemonKind {
  std::string program;      ///< "luge-sled"
  std::string role;         ///< "sled": in the identity file, and "sled-ID" is the default name
  std::string description;  ///< first line of --help
  bool needs_directory = true;
  bool needs_id = true;     ///< else id may be 0
  Duration drain_limit = std::chrono::seconds(30);
};

/// NodeOptions as the settings, the identity file and the process have them; listen and control from the options of these
/// names, where a daemon has them. `fail` ends with code 1, or 3 for wrong_unit and wrong_version.
struct DaemonOptions : NodeOptions {
  Settings settings;
  std::string directory;   ///< absolute, or empty
};

/// What daemon_main needs of D.
struct DaemonCalls {
  std::shared_ptr<void> object;
  std::function<Task<Status>()> start;
  std::function<Task<void>()> drain;
  std::function<std::string()> unfinished;
};
int run_daemon(int argc, char** argv, const DaemonKind& kind, std::vector<Option> options,
               const std::function<DaemonCalls(World&, const DaemonOptions&)>& make);

template <class D>
int daemon_main(int argc, char** argv, const DaemonKind& kind) {
  return run_daemon(argc, argv, kind, D::options(), [](World& world, const DaemonOptions& options) {
    auto d = std::make_shared<D>(world, options);
    DaemonCalls calls{d, [p = d.get()] { return p->start(); }, [p = d.get()] { return p->drain(); }, {}};
    if constexpr (requires { d->unfinished(); }) calls.unfinished = [p = d.get()] { return p->unfinished(); };
    return calls;
  });
}

/// The options that every daemon has: name, id, dir, unit, log-level, busy-poll, insecure-listen.
std::vector<Option> common_options(const DaemonKind& kind);
/// For those that take part in the unit: the control plane's address, and where they listen for others.
Option control_option();
Option listen_option(const std::string& whom);

}  // namespace luge::io
