#include "io/daemon.hpp"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <limits>

#include "base/logging.hpp"
#include "io/data_directory.hpp"
#include "io/real_world.hpp"
#include "io/within.hpp"

namespace luge::io {
namespace {

constexpr int kFailed = 1, kBadUsage = 2, kBadDirectory = 3, kNotDrained = 4;

int exit_code_of(const Status& s) {
  return s.code() == Code::wrong_unit || s.code() == Code::wrong_version ? kBadDirectory : kFailed;
}

int complain(const DaemonKind& kind, int code, const std::string& text) {
  std::fprintf(stderr, "%s: %s\n", kind.program.c_str(), text.c_str());
  return code;
}

// start(), then nothing until a signal, then drain().
struct Life {
  RealWorld& world;
  const DaemonKind& kind;
  const DaemonOptions& options;
  DaemonCalls daemon;
  int exit_code = 0;
  int signals = 0;
  bool started = false;

  void fail(const Status& s) {
    logging::error("{}", s.to_string());
    if (exit_code == 0) exit_code = exit_code_of(s);
    world.stop();
  }

  Task<void> start() {
    Status s = co_await daemon.start();
    if (!s.ok()) co_return fail(s);
    started = true;
    logging::info("{} is ready (node {}, version {})", options.name, options.id, LUGE_VERSION);
  }

  Task<bool> drained() {
    co_await daemon.drain();
    co_return true;
  }

  // Somebody waits for the program to end, and will lose patience and kill it without hearing what it waited for.
  Task<void> drain() {
    auto done = co_await within(world, kind.drain_limit, drained());
    if (done) {
      logging::info("{} has drained", options.name);
    } else {
      std::string what = daemon.unfinished ? daemon.unfinished() : "";
      logging::error("{} has not drained within {} s and ends now{}{}", options.name, kind.drain_limit / std::chrono::seconds(1), what.empty() ? "" : "; given up: ", what);
      if (exit_code == 0) exit_code = kNotDrained;
    }
    world.stop();
  }

  void signal(int number) {
    if (++signals > 1 || !started) return world.stop();
    logging::info("signal {}: draining", number);
    world.spawn("drain", drain());
  }
};

}  // namespace

std::vector<Option> common_options(const DaemonKind& kind) {
  using T = Option::Type;
  // A write passes attach and heads one after the other; a rack has many sleds, and one more write is behind each of theirs.
  // What attach waits for is its client, which asks again at once, or an answer, which takes a head longer than is worth looking for it.
  const char* busy_poll = kind.role == "head" ? "100" : kind.role == "attach" ? "20" : "0";
  return {
      {"name", T::text, "", "name of this node in logs and status; default: " + kind.role + "-ID"},
      {"id", T::number, "", "number of this node, unique in the unit, from 1 on", kind.needs_id},
      {"dir", T::text, "", "data directory; made if it is not there", kind.needs_directory},
      {"unit", T::number, "", "storage unit; default: what the data directory or the control plane says"},
      {"log-level", T::text, "info", "trace, debug, info, warn or error"},
      {"busy-poll", T::number, busy_poll, "microseconds that a busy daemon looks for events before it sleeps; 0 saves processor time"},
      {"insecure-listen", T::flag, "false", "listen on addresses beyond loopback, without encryption"},
  };
}

Option control_option() { return {"control", Option::Type::text, "", "address of the control plane", true}; }

Option listen_option(const std::string& whom) {
  return {"listen", Option::Type::text, "", "address for " + whom + ": unix:PATH or tcp:HOST:PORT", true};
}

namespace {

// The text of a setting that not every daemon has.
std::string text_if_any(const Settings& s, const std::vector<Option>& table, std::string_view name) {
  auto row = std::find_if(table.begin(), table.end(), [&](const Option& o) { return o.name == name; });
  return row != table.end() ? s.text(name) : std::string();
}

}  // namespace

namespace {

// The soft limit is of a time when select() was used. Each peer, client and device takes a descriptor.
void raise_descriptor_limit() {
  rlimit l;
  if (::getrlimit(RLIMIT_NOFILE, &l) != 0 || l.rlim_cur >= l.rlim_max) return;
  l.rlim_cur = l.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &l);
}

}  // namespace

int run_daemon(int argc, char** argv, const DaemonKind& kind, std::vector<Option> table,
               const std::function<DaemonCalls(World&, const DaemonOptions&)>& make) {
  std::vector<Option> all = common_options(kind);
  all.insert(all.end(), table.begin(), table.end());
  CommandLine line = parse_command_line(argc, argv, kind.program, kind.description, all);
  if (line.exit_code) {
    std::fputs(line.output.c_str(), *line.exit_code == 0 ? stdout : stderr);
    return *line.exit_code;
  }
  DaemonOptions options;
  options.settings = std::move(line.settings);
  const Settings& s = options.settings;
  if (s.number("id") > std::numeric_limits<NodeId>::max() || (kind.needs_id && s.number("id") == 0))
    return complain(kind, kBadUsage, "--id: must be from 1 to 4294967295");
  options.id = static_cast<NodeId>(s.number("id"));
  options.name = s.text("name").empty() ? kind.role + "-" + std::to_string(options.id) : s.text("name");
  options.unit = s.number("unit");
  options.listen = text_if_any(s, all, "listen");
  options.control = text_if_any(s, all, "control");
  options.pid = static_cast<std::uint32_t>(::getpid());
  if (!logging::setup(options.name, s.text("log-level")))
    return complain(kind, kBadUsage, "--log-level: '" + s.text("log-level") + "' is none of trace, debug, info, warn, error");

  raise_descriptor_limit();
  std::unique_ptr<DataDirectory> directory;
  if (!s.text("dir").empty()) {
    auto opened = DataDirectory::open(s.text("dir"), {kind.role, options.id, options.unit});
    if (!opened.ok()) return complain(kind, kBadDirectory, opened.status().text());
    directory = std::move(*opened);
    options.directory = directory->path();
    options.unit = directory->unit();
  }
  if (s.number("busy-poll") > 1000) return complain(kind, kBadUsage, "--busy-poll: at most 1000 microseconds");
  RealWorld world({.directory = options.directory,
                   .insecure_listen = s.flag("insecure-listen"),
                   .busy_poll = std::chrono::microseconds(s.number("busy-poll"))});
  options.incarnation = world.random() | 1;  // 0 means none
  options.remember_unit = [&directory](std::uint64_t unit) {
    return directory ? directory->remember_unit(unit) : Status();
  };
  Life life{world, kind, options, {}};
  options.fail = [&life](Status why) { life.fail(why); };
  life.daemon = make(world, options);
  world.on_signal([&life](int number) { life.signal(number); });
  world.spawn("start", life.start());
  if (!world.run()) std::_Exit(life.exit_code);
  life.daemon = {};
  return life.exit_code;
}

}  // namespace luge::io
