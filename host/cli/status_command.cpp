#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <iostream>
#include <map>

#include "cli/commands.hpp"
#include "cli/format.hpp"

namespace luge::cli {
namespace {

namespace json = boost::json;

Colour colour_of(const std::string& state) {
  if (state == "up" || state == "open") return Colour::good;
  if (state == "down" || state == "closed" || state == "silent") return Colour::bad;
  return Colour::warning;
}

// Heads and others in a table; sleds, of which there are many, in one line per state.
void print_nodes(const json::array& nodes) {
  Table table({"NODE", "STATE", "PID", "LOG DATA", "LOG METADATA"});
  std::map<std::string, std::string> sleds;
  std::size_t sled_count = 0;
  for (const json::value& n : nodes) {
    std::string state = text_of(n, "state");
    if (text_of(n, "role") == "sled") {
      ++sled_count;
      std::string& list = sleds[state];
      list += (list.empty() ? "" : " ") + text_of(n, "name");
      if (number_of(n, "pid")) list += "(" + std::to_string(number_of(n, "pid")) + ")";
      continue;
    }
    std::string pid = number_of(n, "pid") ? std::to_string(number_of(n, "pid")) : "-";
    auto fill = [&](const char* used, const char* total) -> std::string {
      const json::value* log = n.get_object().if_contains("log");
      if (log == nullptr || number_of(*log, total) == 0) return "";
      return human_bytes(number_of(*log, used)) + " of " + human_bytes(number_of(*log, total));
    };
    table.add({text_of(n, "name"), {state, colour_of(state)}, pid,
               fill("data_used", "data_bytes"), fill("meta_used", "meta_bytes")});
  }
  std::cout << table.render();
  for (const auto& [state, list] : sleds)
    std::cout << "sleds " << paint(state, colour_of(state)) << ": " << list << "\n";
  if (sled_count == 0) std::cout << "no sleds\n";
}

// Of sleds that have a card or an OpenCL device: how it does; a line per state, and one for each that is not healthy.
void print_coders(const json::array& nodes) {
  struct Group {
    std::uint64_t sleds = 0, jobs = 0, bytes = 0, fallbacks = 0;
  };
  std::map<std::pair<std::string, std::string>, Group> groups;
  std::string faults;
  for (const json::value& n : nodes) {
    const json::value* c = n.get_object().if_contains("coding");
    if (c == nullptr || text_of(*c, "device") == "none") continue;
    std::string state = text_of(*c, "state");
    Group& g = groups[{text_of(*c, "device"), state}];
    ++g.sleds;
    g.jobs += number_of(*c, "device_jobs");
    g.bytes += number_of(*c, "device_bytes");
    g.fallbacks += number_of(*c, "fallbacks");
    if (state == "out" || state == "suspect") faults += "  " + text_of(n, "name") + " " + state + ", " + text_of(n, "coder") + " codes: " + text_of(*c, "last_fault") + "\n";
  }
  for (const auto& [key, g] : groups)
    std::cout << "coder " << key.first << " " << paint(key.second, key.second == "healthy" ? Colour::good : key.second == "out" ? Colour::bad : Colour::warning)
              << " on " << g.sleds << " sled" << (g.sleds == 1 ? "" : "s") << ": " << g.jobs << " jobs, " << human_bytes(g.bytes) << "; by software instead: "
              << g.fallbacks << "\n";
  std::cout << faults;
}

void print_volumes(const json::array& volumes) {
  if (volumes.empty()) {
    std::cout << "\nno volumes: `luge volume create NAME --size 1GiB --layout 4+2` makes one\n";
    return;
  }
  Table table({"VOLUME", "STATE", "SIZE", "LAYOUT", "PRIMARY", "REQUIRED", "COPIES", "UNFLUSHED", "DEGRADED", "NBD"});
  std::string reasons;
  for (const json::value& v : volumes) {
    std::string state = text_of(v, "state"), nbd = text_of(v, "nbd");
    table.add({text_of(v, "name"), {state, colour_of(state)}, human_bytes(number_of(v, "size")), text_of(v, "layout"),
               text_of(v, "primary"), joined(array_of(v, "required")), figure(v, "copies", false),
               figure(v, "unflushed_bytes", true), figure(v, "degraded_stripes", false), nbd.empty() ? "-" : nbd});
    if (state != "open" || !text_of(v, "reason").empty())
      reasons += text_of(v, "name") + ": " + state + (text_of(v, "reason").empty() ? "" : ", " + text_of(v, "reason")) + "\n";
  }
  std::cout << "\n" << table.render() << reasons;
}

}  // namespace

Result<json::value> fetch_status(const Context& context) {
  auto status = context.get("/v1/status");
  if (!status.ok() || context.unit.empty()) return status;
  auto unit = Unit::open(context.unit);
  if (!unit.ok()) return status;
  for (json::value& n : status->as_object()["nodes"].as_array()) {
    const Daemon* d = unit->find(text_of(n, "name"));
    if (d != nullptr && number_of(n, "pid") == 0 && text_of(n, "state") == "up") n.as_object()["pid"] = unit->pid_of(*d);
  }
  return status;
}

void print_status(const json::value& status) {
  print_nodes(array_of(status, "nodes"));
  print_coders(array_of(status, "nodes"));
  print_volumes(array_of(status, "volumes"));
  for (const json::value& a : array_of(status, "alarms")) std::cout << paint("alarm", Colour::bad) << ": " << std::string(a.as_string()) << "\n";
  if (std::uint64_t n = number_of(status, "volumes_being_removed"))
    std::cout << n << " removed volume" << (n > 1 ? "s are" : " is") << " waiting for its heads\n";
}

void add_status_command(CLI::App& app, Context& context) {
  auto* status = app.add_subcommand("status", "The unit on one screen: nodes, volumes, what is degraded and why");
  status->callback([&context] {
    context.run = [&context] {
      auto s = fetch_status(context);
      if (!s.ok()) return complain(s.status());
      context.json ? print_json(*s) : print_status(*s);
      return static_cast<int>(kOk);
    };
  });
  auto* events = app.add_subcommand("events", "What happened lately: nodes lost, primaries designated, volumes made");
  events->callback([&context] {
    context.run = [&context] {
      auto e = context.get("/v1/events");
      if (!e.ok()) return complain(e.status());
      if (context.json) return print_json(*e), static_cast<int>(kOk);
      for (const json::value& event : array_of(*e, "events")) {
        std::uint64_t ns = number_of(event, "wall_ns");
        std::time_t seconds = static_cast<std::time_t>(ns / 1'000'000'000);
        char when[32];
        std::strftime(when, sizeof when, "%H:%M:%S", std::localtime(&seconds));
        std::printf("%s.%03u  %s\n", when, static_cast<unsigned>(ns / 1'000'000 % 1000), text_of(event, "text").c_str());
      }
      return static_cast<int>(kOk);
    };
  });
}

}  // namespace luge::cli
