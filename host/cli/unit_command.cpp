#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <csignal>
#include <filesystem>
#include <iostream>
#include <memory>
#include <thread>

#include "base/config.hpp"
#include "cli/commands.hpp"
#include "cli/format.hpp"
#include "cli/http_client.hpp"

namespace luge::cli {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kDrainPatience(10'000);

struct UnitArguments {
  std::string dir, bin, sabotage_bin, device_bytes, log_bytes, meta_bytes, column_bytes, role, signal = "KILL", card, coding, verify;
  std::uint32_t heads = 0, sleds = 0, devices = 0;
  std::vector<std::string> names;
  int timeout = 300;
  bool no_wait = false;
};
using Arguments = std::shared_ptr<UnitArguments>;

std::string own_directory() { return fs::read_symlink("/proc/self/exe").parent_path().string(); }

Status set_bytes(const std::string& text, const char* option, std::uint64_t& out) {
  if (text.empty()) return Status();
  auto n = parse_bytes(text);
  if (!n.ok()) return n.status().with(option);
  if (*n == 0 || *n % kBlockBytes != 0) return Status(Code::invalid, std::string(option) + ": a multiple of 4096, and not 0");
  out = *n;
  return Status();
}

// `shape` with what was asked for.
Status wanted_shape(const UnitArguments& a, UnitShape& shape) {
  if (a.heads) shape.heads = a.heads;
  if (a.sleds) shape.sleds = a.sleds;
  if (a.devices) shape.devices = a.devices;
  if (!a.card.empty()) shape.card = a.card;
  if (!a.coding.empty()) shape.coding = a.coding;
  if (!a.verify.empty()) shape.verify = a.verify;
  if (Status s = set_bytes(a.device_bytes, "--device-bytes", shape.device_bytes); !s.ok()) return s;
  if (Status s = set_bytes(a.log_bytes, "--log-bytes", shape.log_bytes); !s.ok()) return s;
  if (Status s = set_bytes(a.meta_bytes, "--meta-bytes", shape.meta_bytes); !s.ok()) return s;
  return set_bytes(a.column_bytes, "--column-bytes", shape.column_bytes);
}

Result<Unit> open_or_create(const UnitArguments& a) {
  std::string bin = !a.sabotage_bin.empty() ? a.sabotage_bin : !a.bin.empty() ? a.bin : own_directory();
  bin = fs::absolute(bin).string();
  if (!fs::exists(a.dir + "/unit.json")) {
    UnitShape shape;
    if (Status s = wanted_shape(a, shape); !s.ok()) return s;
    return Unit::create(a.dir, shape, bin);
  }
  auto unit = Unit::open(a.dir);
  if (!unit.ok()) return unit;
  UnitShape asked = unit->shape();
  if (Status s = wanted_shape(a, asked); !s.ok()) return s;
  if (asked != unit->shape())
    return Status(Code::conflict, "the unit in " + a.dir + " exists with " + std::to_string(unit->shape().heads) + " heads, " +
                                      std::to_string(unit->shape().sleds) + " sleds with " +
                                      std::to_string(unit->shape().devices) + " devices each, card " + unit->shape().card + ", coding " + unit->shape().coding +
                                      ", verify " + unit->shape().verify + ": leave these options away, or choose another directory");
  // A unit keeps its programs unless it is told of others.
  if (!a.bin.empty() || !a.sabotage_bin.empty() || unit->bin().empty())
    if (Status s = unit->set_bin(bin); !s.ok()) return s;
  return unit;
}

class Progress {
 public:
  explicit Progress(bool quiet) : quiet_(quiet) {}
  void say(const std::string& line) {
    if (line == last_) return;
    last_ = line;
    if (!quiet_) std::fprintf(stderr, "%s\n", line.c_str());
  }

 private:
  bool quiet_;
  std::string last_;
};

Status died(const Unit& unit, const Daemon& d) {
  return Status(Code::unavailable, d.name + " ended: " + unit.last_words(d) + " (" + unit.log_of(d) + ")");
}

// Until the control plane says that all `daemons` are up.
Status wait_healthy(const Unit& unit, const std::vector<Daemon>& daemons, int timeout, Progress& progress) {
  auto deadline = Clock::now() + std::chrono::seconds(timeout);
  while (true) {
    std::vector<std::string> missing;
    auto status = http_request(unit.http(), "GET", "/v1/status", nullptr, std::chrono::seconds(5));
    for (const Daemon& d : daemons) {
      if (unit.pid_of(d) == 0) return died(unit, d);
      bool up = false;
      if (status.ok())
        for (const json::value& n : array_of(*status, "nodes"))
          up = up || (text_of(n, "name") == d.name && text_of(n, "state") == "up");
      if (!up) missing.push_back(d.name);
    }
    if (missing.empty()) return Status();
    std::string names;
    for (const std::string& m : missing) names += " " + m;
    if (Clock::now() >= deadline) return Status(Code::timed_out, "after " + std::to_string(timeout) + " s these are not up yet:" + names);
    progress.say("waiting for" + names);
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}

Status start_all(const Unit& unit, const std::vector<Daemon>& daemons, Progress& progress) {
  for (const Daemon& d : daemons)  // before the first is started
    if (!fs::exists(unit.program(d)))
      return Status(Code::internal, unit.program(d) + ": no such program; build it, or name the directory of the programs with --bin");
  std::string started;
  for (const Daemon& d : daemons) {
    if (unit.pid_of(d) != 0) continue;
    if (Status s = unit.start(d); !s.ok()) return s;
    started += " " + d.name;
  }
  if (!started.empty()) progress.say("started" + started);
  return Status();
}

json::object unit_json(const Unit& unit) {
  json::array daemons;
  bool all = true;
  for (const Daemon& d : unit.daemons()) {
    pid_t pid = unit.pid_of(d);
    all = all && pid != 0;
    daemons.push_back(json::object{{"name", d.name}, {"role", d.role}, {"id", d.id}, {"pid", pid},
                                   {"state", pid != 0 ? "running" : "stopped"}, {"log", unit.log_of(d)}});
  }
  return {{"dir", unit.directory()}, {"unit", unit.id()}, {"api", unit.http()}, {"running", all}, {"daemons", std::move(daemons)}};
}

int up(const Context& c, const UnitArguments& a) {
  std::error_code error;
  bool is_new = !fs::exists(a.dir, error);
  if (!fs::exists(a.dir + "/unit.json", error))  // nothing may be left behind in a directory that is not ours
    if (Status s = Unit::is_free(a.dir); !s.ok()) return complain(s);
  fs::create_directories(a.dir, error);
  if (error) return complain(Status(Code::io_error, a.dir + ": cannot be made: " + error.message()));
  auto lock = Unit::lock(a.dir);
  if (!lock.ok()) return complain(lock.status());
  auto unit = open_or_create(a);
  if (!unit.ok()) {
    if (is_new) fs::remove(a.dir + "/lock", error), fs::remove(a.dir, error);
    return complain(unit.status());
  }
  Progress progress(c.json);
  if (Status s = start_all(*unit, unit->daemons(), progress); !s.ok()) return complain(s);
  if (!a.no_wait)
    if (Status s = wait_healthy(*unit, unit->daemons(), a.timeout, progress); !s.ok()) return complain(s);
  if (c.json) return print_json(unit_json(*unit)), kOk;
  std::cout << "unit up: " << unit->shape().heads << " heads, " << unit->shape().sleds << " sleds with "
            << unit->shape().devices << " devices each; export LUGE_UNIT=" << unit->directory() << "\n";
  return kOk;
}

int down(const Context& c, const UnitArguments& a) {
  auto unit = Unit::open(a.dir);
  if (!unit.ok()) return complain(unit.status());
  auto lock = Unit::lock(unit->directory());
  if (!lock.ok()) return complain(lock.status());
  // Front ends first, what they rest on after them.
  for (const char* role : {"attach", "head", "sled", "control"})
    if (Status s = unit->stop(unit->of_role(role), kDrainPatience); !s.ok()) return complain(s);
  if (c.json) return print_json(unit_json(*unit)), kOk;
  std::cout << "unit down\n";
  return kOk;
}

int unit_status(const Context& c, const UnitArguments& a) {
  auto unit = Unit::open(a.dir);
  if (!unit.ok()) return complain(unit.status());
  json::object o = unit_json(*unit);
  bool running = o["running"].as_bool();
  if (c.json) return print_json(o), running ? kOk : kUnavailable;
  Table table({"DAEMON", "STATE", "PID", "LOG"});
  for (const json::value& d : o["daemons"].as_array())
    table.add({text_of(d, "name"), {text_of(d, "state"), number_of(d, "pid") ? Colour::good : Colour::bad},
               number_of(d, "pid") ? std::to_string(number_of(d, "pid")) : "-", text_of(d, "log")});
  std::cout << table.render();
  return running ? kOk : kUnavailable;
}

// The daemons that NAME... and --role mean.
Result<std::vector<Daemon>> chosen(const Unit& unit, const UnitArguments& a) {
  std::vector<Daemon> out;
  for (const std::string& name : a.names) {
    const Daemon* d = unit.find(name);
    if (d == nullptr) return Status(Code::not_found, "the unit has no daemon " + name + ": `luge unit status` lists them");
    out.push_back(*d);
  }
  if (!a.role.empty())
    for (const Daemon& d : unit.of_role(a.role)) out.push_back(d);
  if (out.empty()) return Status(Code::invalid, "which daemons? Give names, or --role");
  return out;
}

Result<int> signal_number(const std::string& name) {
  std::string bare = name.starts_with("SIG") ? name.substr(3) : name;
  for (auto [known, number] : {std::pair("KILL", SIGKILL), {"TERM", SIGTERM}, {"STOP", SIGSTOP}, {"CONT", SIGCONT},
                               {"INT", SIGINT}, {"HUP", SIGHUP}, {"USR1", SIGUSR1}, {"USR2", SIGUSR2}, {"ABRT", SIGABRT}})
    if (bare == known) return number;
  return Status(Code::invalid, "--signal " + name + ": give KILL, TERM, STOP, CONT, INT, HUP, USR1, USR2 or ABRT");
}

int kill_some(const Context& c, const UnitArguments& a) {
  auto unit = Unit::open(a.dir);
  if (!unit.ok()) return complain(unit.status());
  auto number = signal_number(a.signal);
  if (!number.ok()) return complain(number.status());
  auto daemons = chosen(*unit, a);
  if (!daemons.ok()) return complain(daemons.status());
  for (const Daemon& d : *daemons) {
    auto sent = unit->signal(d, *number);
    if (!sent.ok()) return complain(sent.status());
    if (!*sent) return complain(Status(Code::unavailable, d.name + " does not run"));
  }
  if (*number == SIGKILL)
    for (const Daemon& d : *daemons)
      while (unit->pid_of(d) != 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  if (c.json) print_json(unit_json(*unit));
  return kOk;
}

int start_some(const Context& c, const UnitArguments& a, bool stop_first) {
  auto unit = Unit::open(a.dir);
  if (!unit.ok()) return complain(unit.status());
  auto lock = Unit::lock(unit->directory());
  if (!lock.ok()) return complain(lock.status());
  auto daemons = chosen(*unit, a);
  if (!daemons.ok()) return complain(daemons.status());
  Progress progress(c.json);
  if (stop_first)
    if (Status s = unit->stop(*daemons, kDrainPatience); !s.ok()) return complain(s);
  if (Status s = start_all(*unit, *daemons, progress); !s.ok()) return complain(s);
  if (!a.no_wait)
    if (Status s = wait_healthy(*unit, *daemons, a.timeout, progress); !s.ok()) return complain(s);
  if (c.json) print_json(unit_json(*unit));
  return kOk;
}

}  // namespace

void add_unit_commands(CLI::App& app, Context& context) {
  auto* unit = app.add_subcommand("unit", "A whole storage unit on this machine: up, down, status, start, kill, restart");
  unit->require_subcommand(1);
  auto add = [&](const char* name, const char* text, auto run) {
    auto a = std::make_shared<UnitArguments>();
    auto* sub = unit->add_subcommand(name, text);
    sub->add_option("--dir", a->dir, "directory of the unit; default: --unit or LUGE_UNIT");
    sub->callback([&context, a, run] {
      context.run = [&context, a, run]() -> int {
        if (a->dir.empty()) a->dir = context.unit;
        if (a->dir.empty()) return complain(Status(Code::invalid, "which unit? Give --dir DIR, or set LUGE_UNIT"));
        return run(context, *a);
      };
    });
    return std::pair(sub, a);
  };
  auto wait_options = [](CLI::App* sub, const Arguments& a) {
    sub->add_option("--timeout", a->timeout, "seconds to wait for the daemons; default 300")->check(CLI::Range(1, 86400));
    sub->add_flag("--no-wait", a->no_wait, "do not wait until they are registered");
  };
  auto choice = [](CLI::App* sub, const Arguments& a) {
    sub->add_option("NAME", a->names, "daemons, as head-1 sled-3");
    sub->add_option("--role", a->role, "all daemons of a role")->check(CLI::IsMember({"control", "sled", "head", "attach"}));
  };
  {
    auto [sub, a] = add("up", "Make a unit, or start what does not run of one", up);
    sub->add_option("--heads", a->heads, "default 4")->check(CLI::Range(1, 64));
    sub->add_option("--sleds", a->sleds, "default 8")->check(CLI::Range(1, 256));
    sub->add_option("--devices", a->devices, "mass storage devices per sled; default 2")->check(CLI::Range(1, 64));
    sub->add_option("--device-bytes", a->device_bytes, "size of a device (a sparse file); default 4GiB");
    sub->add_option("--log-bytes", a->log_bytes, "data portion of a head's log, written in full; default 512MiB");
    sub->add_option("--meta-bytes", a->meta_bytes, "metadata portion of a head's log; default 64MiB");
    sub->add_option("--column-bytes", a->column_bytes, "allocation unit on a device; default 16MiB");
    sub->add_option("--card", a->card, "what codes on the sleds; default none")->check(CLI::IsMember({"none", "native", "rtl", "hw"}));
    sub->add_option("--coding", a->coding, "without a card: isal, opencl or opencl:NAME, on the sleds; or head: by the heads' processors; default isal");
    sub->add_option("--verify", a->verify, "parity of a card compared with software's; default all")->check(CLI::IsMember({"all", "sample"}));
    sub->add_option("--bin", a->bin, "directory of the daemons; default: that of this program");
    sub->add_option("--sabotage-bin", a->sabotage_bin, "the same, for builds that break rules on purpose (tests)");
    wait_options(sub, a);
    sub->footer("Example: luge unit up --dir /var/tmp/u1 --heads 4 --sleds 8 --devices 2");
  }
  add("down", "Stop all daemons: SIGTERM, after 10 s SIGKILL. Data stays", down);
  add("status", "Which daemons run. Exit code 6 if not all do", unit_status);
  {
    auto [sub, a] = add("start", "Start daemons that do not run",
                        [](const Context& c, const UnitArguments& a) { return start_some(c, a, false); });
    choice(sub, a);
    wait_options(sub, a);
  }
  {
    auto [sub, a] = add("restart", "Stop daemons and start them again",
                        [](const Context& c, const UnitArguments& a) { return start_some(c, a, true); });
    choice(sub, a);
    wait_options(sub, a);
    sub->footer("Example: luge unit restart --role head     (cold caches)");
  }
  {
    auto [sub, a] = add("kill", "Send a signal to daemons", kill_some);
    choice(sub, a);
    sub->add_option("--signal", a->signal, "default KILL");
    sub->footer("Example: luge unit kill head-1 --signal STOP");
  }
}

}  // namespace luge::cli
