// `luge vm`: asks the luge-vmstated of this host.
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <memory>

#include "base/config.hpp"
#include "cli/commands.hpp"
#include "cli/format.hpp"

namespace luge::cli {
namespace {

namespace json = boost::json;

struct VmArguments {
  std::string socket, machine, qmp, to, from, every, writes, mode;
  std::vector<std::string> disks;
  std::uint64_t keep = 0, checkpoint = 0, slots = 0;
  bool not_durable = false, no_throttle = false, stay_paused = false, with_disk = false;
};

Result<json::value> ask(const VmArguments& a, const json::object& request) {
  if (a.socket.empty()) return Status(Code::invalid, "which luge-vmstated? Give --vmstated SOCKET, or set LUGE_VMSTATED");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (a.socket.size() >= sizeof address.sun_path) return Status(Code::invalid, a.socket + ": too long for the name of a socket");
  std::memcpy(address.sun_path, a.socket.data(), a.socket.size());
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  auto closer = std::shared_ptr<void>(nullptr, [fd](void*) { ::close(fd); });
  if (::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) return Status(Code::unavailable, a.socket + ": " + std::strerror(errno) + "; does luge-vmstated run?");
  std::string line = json::serialize(request) + "\n", heard;
  if (::send(fd, line.data(), line.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(line.size())) return Status(Code::unavailable, a.socket + ": " + std::strerror(errno));
  char part[4096];
  while (!heard.ends_with('\n')) {
    const ssize_t n = ::recv(fd, part, sizeof part, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return Status(Code::unavailable, a.socket + ": luge-vmstated has gone");
    heard.append(part, static_cast<std::size_t>(n));
  }
  boost::system::error_code e;
  json::value v = json::parse(heard, e);
  if (e || !v.is_object()) return Status(Code::corrupt, a.socket + ": an answer that is no JSON");
  if (const json::value* error = v.as_object().if_contains("error"); error && v.as_object().contains("code"))
    return Status(code_of_name(text_of(v, "code")), std::string(error->as_string()));
  return v;
}

Result<json::object> request_of(const char* what, const VmArguments& a) {
  json::object r{{"do", what}};
  if (!a.machine.empty()) r["machine"] = a.machine;
  auto absolute = [](const std::string& p) { return std::filesystem::absolute(p).string(); };
  if (!a.qmp.empty()) r["qmp"] = absolute(a.qmp);
  if (!a.to.empty()) {
    const bool directory = a.to.starts_with("dir:") || !(a.to.starts_with("tcp:") || a.to.starts_with("unix:") || a.to.starts_with("nbd+unix:"));
    std::string path = a.to.starts_with("dir:") ? a.to.substr(4) : a.to;
    r["to"] = !directory ? a.to : std::string_view(what) == "restore" ? absolute(path) : "dir:" + absolute(path);
  }
  if (!a.from.empty()) r["from"] = a.from.starts_with("nbd+unix:") ? a.from : absolute(a.from);
  if (!a.disks.empty()) {
    json::array disks;
    for (const std::string& d : a.disks) disks.push_back(json::value(absolute(d)));
    r["disks"] = std::move(disks);
  }
  if (!a.every.empty()) {
    auto d = parse_duration(a.every);
    if (!d.ok()) return d.status().with("--every");
    r["every_ms"] = std::chrono::duration_cast<std::chrono::milliseconds>(*d).count();
  }
  if (!a.writes.empty()) r["writes"] = a.writes;
  if (!a.mode.empty()) r["at_scheduling"] = a.mode == "scheduled";
  if (a.keep != 0) r["keep"] = a.keep;
  if (a.slots != 0) {
    if ((a.slots & (a.slots - 1)) != 0) return Status(Code::invalid, "--slots: a power of two");
    r["slots_log2"] = __builtin_ctzll(a.slots);
  }
  if (a.checkpoint != 0) r["checkpoint"] = a.checkpoint;
  if (a.not_durable) r["durable"] = false;
  if (a.with_disk) r["with_disk"] = true;
  if (a.stay_paused) r["stay_paused"] = true;
  if (a.no_throttle) r["throttle"] = false;
  return r;
}

double real(const json::value& v, std::string_view key) {
  const json::value* p = v.is_object() ? v.as_object().if_contains(key) : nullptr;
  return p && p->is_number() ? p->to_number<double>() : 0;
}
std::string milliseconds(const json::value& v, std::string_view key) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f ms", real(v, key));
  return text;
}

void print_report(const json::value& r) {
  Table table({"PASS", "PAGES", "PROCESSOR", "DEVICE", "BOTH", "DISK", "SENT", "TIME"});
  const json::array& passes = array_of(r, "passes");
  for (std::size_t i = 0; i < passes.size(); ++i) {
    const json::value& p = passes[i];
    auto n = [&](const char* key) { return std::to_string(number_of(p, key)); };
    table.add({i + 1 == passes.size() ? "paused" : std::to_string(i + 1), n("pages"), n("by_processor"), n("by_device"), n("by_both"), n("disk"),
               human_bytes(number_of(p, "bytes")), milliseconds(p, "ms")});
  }
  std::cout << table.render() << number_of(r, "records") << " records; paused " << milliseconds(r, "pause_ms") << ", of it " << milliseconds(r, "device_state_ms")
            << " for the devices' state";
  if (number_of(r, "throttled_to") != 0) std::cout << "; the disk was slowed to " << human_bytes(number_of(r, "throttled_to")) << "/s";
  std::cout << "\n";
}

void print_status_of(const json::value& s) {
  Table here({"MACHINE", "STATE", "TO", "CHECKPOINTS", "LAST", "PAUSE", "WORST", "EXPECTED", "RECORDS"});
  for (const json::value& m : array_of(s, "protected")) {
    const json::value* last = m.as_object().if_contains("last");
    const json::value* records = m.as_object().if_contains("records");
    here.add({text_of(m, "machine"), {text_of(m, "state"), text_of(m, "error").empty() ? Colour::good : Colour::bad}, text_of(m, "to").empty() ? "-" : text_of(m, "to"),
              std::to_string(number_of(m, "checkpoints")), last ? std::to_string(number_of(*last, "checkpoint")) : "-", milliseconds(m, "pause_median_ms"),
              milliseconds(m, "pause_worst_ms"), milliseconds(m, "expected_pause_ms"), records ? std::to_string(number_of(*records, "count")) : "-"});
  }
  if (!here.empty()) std::cout << here.render();
  for (const json::value& m : array_of(s, "protected")) {
    if (!m.as_object().contains("under_way")) continue;
    std::uint64_t pages = 0;
    for (const json::value& p : array_of(m, "under_way")) pages += number_of(p, "pages");
    std::cout << text_of(m, "machine") << ": a checkpoint is under way: pass " << array_of(m, "under_way").size() + 1 << ", " << pages << " pages so far; a pause now would take "
              << milliseconds(m, "expected_pause_ms") << "\n";
  }
  for (const json::value& m : array_of(s, "protected"))
    if (!text_of(m, "error").empty()) std::cout << text_of(m, "machine") << ": " << text_of(m, "error") << "\n";
  Table kept({"KEPT", "CHECKPOINT", "UPON", "PAGES", "FILE"});
  for (const json::value& m : array_of(s, "kept"))
    for (const json::value& c : array_of(m, "checkpoints"))
      kept.add({text_of(m, "machine"), std::to_string(number_of(c, "checkpoint")), number_of(c, "parent") == 0 ? "-" : std::to_string(number_of(c, "parent")),
                std::to_string(number_of(c, "pages")), human_bytes(number_of(c, "bytes"))});
  if (!kept.empty()) std::cout << kept.render();
  for (const json::value& m : array_of(s, "kept"))
    if (!text_of(m, "error").empty()) std::cout << text_of(m, "machine") << ": " << text_of(m, "error") << "\n";
  if (here.empty() && kept.empty()) std::cout << "no machine is protected here, and none of another host is kept\n";
}

int run(const Context& c, const char* what, const VmArguments& a) {
  auto request = request_of(what, a);
  if (!request.ok()) return complain(request.status());
  auto answer = ask(a, *request);
  if (!answer.ok()) return complain(answer.status());
  if (c.json) return print_json(*answer), kOk;
  const std::string_view w = what;
  if (w == "status") print_status_of(*answer);
  else if (w == "checkpoint" || w == "migrate") print_report(*answer);
  else if (w == "protect") std::cout << a.machine << " is protected: recording is on; its processors' writes by " << text_of(*answer, "writes") << "\n";
  else if (w == "restore" && a.qmp.empty())
    std::cout << "checkpoint " << number_of(*answer, "checkpoint") << " of " << a.machine << " is in " << text_of(*answer, "directory") << "; start QEMU with\n  "
              << text_of(*answer, "qemu") << "\nand then: luge vm restore " << a.machine << " --to " << text_of(*answer, "directory") << " --qmp SOCKET\n";
  else std::cout << a.machine << ": " << text_of(*answer, "state") << "\n";
  return kOk;
}

}  // namespace

void add_vm_commands(CLI::App& app, Context& context) {
  auto* vm = app.add_subcommand("vm", "The state of virtual machines: protect, checkpoint, migrate, restore, status, release");
  vm->require_subcommand(1);
  auto add = [&](const char* name, const char* text) {
    auto a = std::make_shared<VmArguments>();
    auto* sub = vm->add_subcommand(name, text);
    sub->add_option("--vmstated", a->socket, "control socket of this host's luge-vmstated")->envname("LUGE_VMSTATED");
    sub->callback([&context, a, name] { context.run = [&context, a, name] { return run(context, name, *a); }; });
    return std::pair(sub, a);
  };
  auto source = [](CLI::App* sub, const std::shared_ptr<VmArguments>& a) {
    sub->add_option("--qmp", a->qmp, "socket of QEMU's monitor");
    sub->add_option("--disk", a->disks, "vhost-user socket of a disk of the machine; several times for several");
    sub->add_option("--writes", a->writes, "how the processors' writes are found: auto, pagemap or compare")->check(CLI::IsMember({"auto", "pagemap", "compare"}));
    sub->add_option("--mode", a->mode, "records come when a write is completed (default) or scheduled")->check(CLI::IsMember({"completed", "scheduled"}));
    sub->add_option("--slots", a->slots, "slots of the ring of records; default 16384")->check(CLI::Range(1, 1 << 20));
    sub->add_flag("--no-throttle", a->no_throttle, "never slow the disk");
  };
  auto keep = [](CLI::App* sub, const std::shared_ptr<VmArguments>& a) {
    sub->add_option("--to", a->to, "a directory, a volume (nbd+unix:///NAME?socket=PATH), or another host's luge-vmstated (tcp:HOST:PORT, unix:PATH)");
    sub->add_flag("--with-disk", a->with_disk, "the disk's blocks belong to the checkpoints: one consistent point of memory and disk");
    sub->add_option("--keep", a->keep, "checkpoints kept in a directory; default 4")->check(CLI::Range(1, 1000));
    sub->add_flag("--not-durable", a->not_durable, "checkpoints in a directory needn't survive this host");
  };
  auto machine = [](CLI::App* sub, const std::shared_ptr<VmArguments>& a) { sub->add_option("MACHINE", a->machine, "name of the machine")->required(); };
  {
    auto [sub, a] = add("protect", "Record a machine's writes from now on, and make a checkpoint of it every so often");
    machine(sub, a), source(sub, a), keep(sub, a);
    sub->add_option("--every", a->every, "a checkpoint each; 200ms makes a standby. Without: only when asked for");
    sub->footer("Example: luge vm protect web --qmp web.qmp --disk web.sock --to tcp:127.0.0.1:7800 --every 200ms");
  }
  {
    auto [sub, a] = add("checkpoint", "One checkpoint, of a protected machine (what changed) or of another (everything)");
    machine(sub, a), source(sub, a), keep(sub, a);
    sub->add_flag("--stay-paused", a->stay_paused, "leave the machine paused; QEMU's monitor lets it go on");
  }
  {
    auto [sub, a] = add("migrate", "Move a running machine to the QEMU that waits at another host");
    machine(sub, a), source(sub, a);
    sub->add_option("--to", a->to, "the other host's luge-vmstated: tcp:HOST:PORT or unix:PATH")->required();
  }
  {
    auto [sub, a] = add("restore", "Write a checkpoint as files for QEMU; with --qmp, run the QEMU that was started on them");
    machine(sub, a);
    sub->add_option("--checkpoint", a->checkpoint, "its number; default: the newest")->check(CLI::PositiveNumber);
    sub->add_option("--from", a->from, "directory of checkpoints, or a volume (nbd+unix:///NAME?socket=PATH); default: what other hosts have sent here");
    sub->add_option("--to", a->to, "directory for the files; default: live/MACHINE in luge-vmstated's");
    sub->add_option("--qmp", a->qmp, "monitor of a QEMU that waits (-incoming defer)");
  }
  {
    auto [sub, a] = add("release", "Recording off, no more checkpoints; one under way is given up. The machine goes on");
    machine(sub, a);
  }
  add("status", "Machines protected here, and the checkpoints kept");
}

}  // namespace luge::cli
