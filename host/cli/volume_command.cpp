#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <filesystem>
#include <iostream>
#include <memory>

#include "base/config.hpp"
#include "cli/commands.hpp"
#include "cli/format.hpp"

namespace luge::cli {
namespace {

namespace json = boost::json;

constexpr int kTimeout = 30;

struct VolumeArguments {
  std::string name, size, layout, nbd, vhost_user, node, head, to;
  std::uint32_t copies = 0;
  int timeout = 60;
  bool force = false, wait = false, take_over = false, read_only = false, incoming = false;
};
using Arguments = std::shared_ptr<VolumeArguments>;

// A name that the server would refuse anyway must not get into a path.
Status check_path(const std::string& name) {
  bool odd = name.empty() || name.size() > 64 || name[0] == '-' || name[0] == '.';
  for (unsigned char c : name) odd = odd || !(std::isalnum(c) || c == '.' || c == '_' || c == '-');
  if (!odd) return Status();
  return Status(Code::invalid, "'" + name.substr(0, 80) + "' is no volume's name: 1 to 64 letters, digits, '.', '_' or "
                               "'-', the first not '.' or '-'");
}

std::string path_of(const std::string& name, const std::string& action = "") {
  return "/v1/volumes/" + name + (action.empty() ? "" : "/" + action);
}

// Where the flushed data lies: a sled that holds much of it is one whose loss makes much to rebuild.
void show_placement(const json::value& v) {
  Table table({"  SLED", "LIVE DATA", "CHUNKS"});
  for (const json::value& share : array_of(v, "placement"))
    table.add({"  " + text_of(share, "sled"), figure(share, "live_bytes", true), figure(share, "chunks", false)});
  if (!table.empty()) std::cout << table.render();
}

// How far each head reaches, where a partition is closed: what choosing one of them for --accept-loss would mean.
void show_members(const json::value& v) {
  Table table({"  VP", "HEAD", "STATE", "LSN", "COMMITTED", ""});
  for (const json::value& vp : array_of(v, "vps")) {
    if (text_of(vp, "state") != "closed") continue;
    for (const json::value& m : array_of(vp, "members")) {
      const json::value* required = m.get_object().if_contains("required");
      bool all = required != nullptr && required->is_bool() && required->get_bool();
      table.add({"  " + std::to_string(number_of(vp, "vp") & 0xffff), text_of(m, "head"), text_of(m, "state"),
                 std::to_string(number_of(m, "lsn")), std::to_string(number_of(m, "commit")),
                 all ? "had everything" + (text_of(m, "reason").empty() ? "" : ": " + text_of(m, "reason")) : "was behind"});
    }
  }
  if (!table.empty()) std::cout << table.render();
}

// How far each replica's own checkpoint reaches, and what a replica that was built anew was built from.
void show_replicas(const json::value& v) {
  Table table({"  VP", "HEAD", "STATE", "LSN", "CHECKPOINT", "BUILT FROM"});
  for (const json::value& vp : array_of(v, "vps"))
    for (const json::value& m : array_of(vp, "members")) {
      const json::value* own = m.get_object().if_contains("checkpoint");
      const json::value* from = m.get_object().if_contains("put_together_from");
      std::string built;
      if (from && number_of(*from, "checkpoint") != 0)
        built = human_bytes(number_of(*from, "checkpoint")) + " checkpoint of " + text_of(*from, "author") + " to LSN " + std::to_string(number_of(*from, "lsn")) + ", ";
      if (from && number_of(*from, "checkpoint") + number_of(*from, "metadata") + number_of(*from, "unflushed") != 0)
        built += human_bytes(number_of(*from, "metadata")) + " metadata, " + human_bytes(number_of(*from, "unflushed")) + " unflushed";
      table.add({"  " + std::to_string(number_of(vp, "vp") & 0xffff), text_of(m, "head"), text_of(m, "state"), std::to_string(number_of(m, "lsn")),
                 own && number_of(*own, "lsn") != 0 ? std::to_string(number_of(*own, "lsn")) : "none", built});
    }
  if (!table.empty()) std::cout << table.render();
}

int show(const json::value& v) {
  std::cout << text_of(v, "name") << ": " << human_bytes(number_of(v, "size")) << ", layout " << text_of(v, "layout")
            << ", " << text_of(v, "state");
  if (!text_of(v, "reason").empty()) std::cout << " (" << text_of(v, "reason") << ")";
  std::cout << "\n  epoch " << number_of(v, "epoch") << ", revision " << number_of(v, "revision") << ", primary "
            << text_of(v, "primary") << ", reserves " << joined(array_of(v, "reserves")) << ", required "
            << joined(array_of(v, "required")) << "\n  copies " << figure(v, "copies", false) << ", unflushed "
            << figure(v, "unflushed_bytes", true) << ", degraded stripes " << figure(v, "degraded_stripes", false) << "\n";
  for (const char* group : {"read_bytes", "written_bytes"}) {
    const json::value* figures = v.is_object() ? v.get_object().if_contains(group) : nullptr;
    if (!figures || !figures->is_object()) continue;
    std::cout << (group[0] == 'r' ? "  read:   " : "  written:");
    for (const auto& [key, value] : figures->get_object())
      std::cout << " " << key << " " << human_bytes(number_of(*figures, key));
    std::cout << "\n";
  }
  show_placement(v);
  show_replicas(v);
  show_members(v);
  if (array_of(v, "vps").size() > 1) {
    Table table({"  VP", "STATE", "PRIMARY", "REQUIRED", "COPIES", "UNFLUSHED"});
    for (const json::value& vp : array_of(v, "vps"))
      table.add({"  " + std::to_string(number_of(vp, "vp") & 0xffff), text_of(vp, "state"), text_of(vp, "primary"),
                 joined(array_of(vp, "required")), figure(vp, "copies", false), figure(vp, "unflushed_bytes", true)});
    std::cout << table.render();
  }
  return kOk;
}

int create(const Context& c, const Arguments& a) {
  if (Status s = check_path(a->name); !s.ok()) return complain(s);
  auto size = parse_bytes(a->size);
  if (!size.ok()) return complain(size.status().with("--size"));
  json::object body{{"name", a->name}, {"size", *size}, {"layout", a->layout}};
  if (a->copies != 0) body["copies"] = a->copies;
  auto v = c.request("POST", "/v1/volumes", body, kTimeout);
  if (!v.ok()) return complain(v.status());
  if (c.json) return print_json(*v), kOk;
  std::cout << "volume " << a->name << " created: " << human_bytes(*size) << ", " << a->layout << ", primary "
            << text_of(*v, "primary") << ", reserves " << joined(array_of(*v, "reserves")) << "\n";
  return kOk;
}

int remove(const Context& c, const Arguments& a) {
  if (Status s = check_path(a->name); !s.ok()) return complain(s);
  auto v = c.request("DELETE", path_of(a->name) + (a->force ? "?force=true" : ""), json::object(), kTimeout);
  if (!v.ok()) return complain(v.status());
  if (c.json) return print_json(*v), kOk;
  bool complete = v->at("complete").as_bool();
  std::cout << "volume " << a->name << " removed"
            << (complete ? "" : "; heads that are down drop their copies when they are back") << "\n";
  return kOk;
}

int flush(const Context& c, const Arguments& a) {
  if (Status s = check_path(a->name); !s.ok()) return complain(s);
  json::object body{{"wait", a->wait}, {"timeout_ms", static_cast<std::int64_t>(a->timeout) * 1000}};
  auto v = c.request("POST", path_of(a->name, "flush"), body, a->timeout + 5);
  if (!v.ok()) return complain(v.status());
  if (c.json) return print_json(*v), kOk;
  std::cout << "volume " << a->name << " flushed, " << human_bytes(number_of(*v, "unflushed_bytes")) << " unflushed\n";
  return kOk;
}

int move(const Context& c, const Arguments& a) {
  if (Status s = check_path(a->name); !s.ok()) return complain(s);
  json::object body{{"from", a->head}, {"to", a->to}, {"wait", a->wait}, {"timeout_ms", static_cast<std::int64_t>(a->timeout) * 1000}};
  auto v = c.request("POST", path_of(a->name, "move"), body, a->timeout + 5);
  if (!v.ok()) return complain(v.status());
  if (c.json) return print_json(*v), kOk;
  std::cout << "volume " << a->name << ": " << number_of(*v, "vps") << " partition(s) have another copy in place of that of " << a->head
            << (a->wait ? "" : "; luge volume show says how far they are") << "\n";
  return kOk;
}

int recover(const Context& c, const Arguments& a) {
  if (Status s = check_path(a->name); !s.ok()) return complain(s);
  json::object body{{"accept_loss", a->head}, {"force", a->force}};
  auto v = c.request("POST", path_of(a->name, "recover"), body, kTimeout);
  if (!v.ok()) return complain(v.status());
  if (c.json) return print_json(*v), kOk;
  std::cout << "volume " << a->name << ": " << number_of(*v, "vps") << " partition(s) go on from what " << a->head
            << " holds; what only others held is given up.\nBlocks known to be missing read as errors until they are written. "
               "Check the file system before you trust it.\n";
  return kOk;
}

int resize(const Context& c, const Arguments& a) {
  if (Status s = check_path(a->name); !s.ok()) return complain(s);
  auto size = parse_bytes(a->size);
  if (!size.ok()) return complain(size.status().with("--size"));
  auto v = c.request("POST", path_of(a->name, "resize"), json::object{{"size", *size}}, kTimeout);
  if (!v.ok()) return complain(v.status());
  if (c.json) return print_json(*v), kOk;
  std::cout << "volume " << a->name << " has " << human_bytes(*size) << " now; NBD clients see it when they connect again\n";
  return kOk;
}

int list(const Context& c) {
  auto v = c.get("/v1/volumes");
  if (!v.ok()) return complain(v.status());
  if (c.json) return print_json(*v), kOk;
  Table table({"NAME", "SIZE", "LAYOUT", "STATE", "PRIMARY", "COPIES", "UNFLUSHED", "ATTACHED BY"});
  for (const json::value& volume : array_of(*v, "volumes"))
    table.add({text_of(volume, "name"), human_bytes(number_of(volume, "size")), text_of(volume, "layout"),
               text_of(volume, "state"), text_of(volume, "primary"), figure(volume, "copies", false),
               figure(volume, "unflushed_bytes", true),
               text_of(volume, "attached_by").empty() ? "-" : text_of(volume, "attached_by")});
  std::cout << (table.empty() ? "no volumes\n" : table.render());
  return kOk;
}

int attach(const Context& c, const Arguments& a) {
  if (Status s = check_path(a->name); !s.ok()) return complain(s);
  if (a->nbd.empty() == a->vhost_user.empty()) return complain(Status(Code::invalid, "say where: --nbd or --vhost-user, one of them"));
  if (!a->vhost_user.empty()) {
    if (!a->vhost_user.starts_with("unix:") || a->vhost_user.size() < 6) return complain(Status(Code::invalid, "--vhost-user: unix:PATH"));
    a->nbd = "vhost-user:" + std::filesystem::absolute(a->vhost_user.substr(5)).string();
  }
  if (a->nbd.starts_with("unix:") && a->nbd.size() > 5 && a->nbd[5] != '/')
    a->nbd = "unix:" + std::filesystem::absolute(a->nbd.substr(5)).string();
  json::object body{{"nbd", a->nbd}, {"take_over", a->take_over}, {"read_only", a->read_only}};
  if (a->incoming) body["incoming"] = true;
  if (!a->node.empty()) body["node"] = a->node;
  auto v = c.request("POST", path_of(a->name, "attach"), body, 60);
  if (!v.ok()) return complain(v.status());
  if (c.json) return print_json(*v), kOk;
  if (!a->vhost_user.empty()) {
    std::cout << "volume " << a->name << " is the disk of a guest, by " << text_of(*v, "node") << ": vhost-user-blk at " << a->nbd.substr(11) << "\n";
    return kOk;
  }
  std::string uri = a->nbd.starts_with("unix:") ? "nbd+unix:///" + a->name + "?socket=" + a->nbd.substr(5)
                                                : (a->nbd.starts_with("tls:") ? "nbds://" : "nbd://") + a->nbd.substr(4) + "/" + a->name;
  std::cout << "volume " << a->name << " attached by " << text_of(*v, "node") << ": " << uri << "\n";
  return kOk;
}

int detach(const Context& c, const Arguments& a) {
  if (Status s = check_path(a->name); !s.ok()) return complain(s);
  auto v = c.request("POST", path_of(a->name, "detach"), json::object(), 60);
  if (!v.ok()) return complain(v.status());
  if (c.json) return print_json(*v), kOk;
  std::cout << "volume " << a->name << " detached\n";
  return kOk;
}

}  // namespace

void add_volume_commands(CLI::App& app, Context& context) {
  auto* volume = app.add_subcommand("volume", "Volumes: create, ls, show, rm, flush, move, recover");
  volume->require_subcommand(1);
  auto add = [&](const char* name, const char* text, auto run) {
    auto a = std::make_shared<VolumeArguments>();
    auto* sub = volume->add_subcommand(name, text);
    sub->callback([&context, a, run] { context.run = [&context, a, run] { return run(context, a); }; });
    return std::pair(sub, a);
  };
  {
    auto [sub, a] = add("create", "Make a volume", create);
    sub->add_option("NAME", a->name, "1 to 64 letters, digits, '.', '_', '-'")->required();
    sub->add_option("--size", a->size, "as 4096, 64MiB, 10GiB; a multiple of 4096")->required();
    sub->add_option("--layout", a->layout, "K+M: K data and M parity chunks a stripe, on K+M sleds")->required();
    sub->add_option("--copies", a->copies, "replicas of what is not flushed yet, on as many heads; default 3")
        ->check(CLI::Range(2, 8));
    sub->footer("Example: luge volume create disk1 --size 10GiB --layout 4+2");
  }
  {
    auto [sub, a] = add("resize", "Make a volume larger, while it is used", resize);
    sub->add_option("NAME", a->name)->required();
    sub->add_option("--size", a->size, "the new size, not less than now; a multiple of 4096")->required();
    sub->footer("Example: luge volume resize disk1 --size 20GiB");
  }
  {
    auto [sub, a] = add("ls", "List volumes", [](const Context& c, const Arguments&) { return list(c); });
    (void)a;
    sub->alias("list");
  }
  {
    auto [sub, a] = add("show", "One volume: who serves it, where its data lies, bytes read and written by place",
                        [](const Context& c, const Arguments& a) -> int {
                          if (Status s = check_path(a->name); !s.ok()) return complain(s);
                          auto v = c.get(path_of(a->name));
                          if (!v.ok()) return complain(v.status());
                          return c.json ? (print_json(*v), static_cast<int>(kOk)) : show(*v);
                        });
    sub->add_option("NAME", a->name)->required();
  }
  {
    auto [sub, a] = add("rm", "Remove a volume and all its data", remove);
    sub->add_option("NAME", a->name)->required();
    sub->add_flag("--force", a->force, "also while it is attached");
  }
  {
    auto [sub, a] = add("flush", "Write what only the heads hold to the sleds", flush);
    sub->add_option("NAME", a->name)->required();
    sub->add_flag("--wait", a->wait, "until nothing is unflushed, what is written meanwhile included; without it: what is there now");
    sub->add_option("--timeout", a->timeout, "seconds; default 60")->check(CLI::Range(1, 3600));
  }
  {
    auto [sub, a] = add("move", "Let another head hold the copy that a head has, while the volume is used", move);
    sub->add_option("NAME", a->name)->required();
    sub->add_option("--from", a->head, "the head that is to be without it: its machine is to go, or is not trusted")->required();
    sub->add_option("--to", a->to, "the head that takes its place; default: one is chosen");
    sub->add_flag("--wait", a->wait, "until the new copy has caught up");
    sub->add_option("--timeout", a->timeout, "seconds; default 60")->check(CLI::Range(1, 3600));
    sub->footer("Refused when too few whole copies would be left, with what that would cost: a last copy is never given up by this.\n"
                "The copy of a primary is moved after it has handed over. To empty a head, move each of its volumes (luge volume ls).\n"
                "Example: luge volume move disk1 --from head-3 --wait");
  }
  {
    auto [sub, a] = add("recover", "Serve a closed volume again from one head's replica, giving up what that head lacks", recover);
    sub->add_option("NAME", a->name)->required();
    sub->add_option("--accept-loss", a->head, "the head whose replica becomes the truth, complete or not")->required();
    sub->add_flag("--force", a->force, "also if a head that holds everything is up");
    sub->footer("A volume is closed when no head that holds everything is up. `luge volume show NAME` says which heads would open\n"
                "it without any loss, and how far each of the others reaches: start those first. Writes that were acknowledged and\n"
                "that the chosen head lacks are gone for good; heads that come back later are rebuilt from it.\n"
                "Example: luge volume recover disk1 --accept-loss head-3");
  }
}

void add_attach_commands(CLI::App& app, Context& context) {
  {
    auto a = std::make_shared<VolumeArguments>();
    auto* sub = app.add_subcommand("attach", "Export a volume over NBD, or as the disk of a guest");
    sub->add_option("NAME", a->name)->required();
    sub->add_option("--nbd", a->nbd, "where: unix:PATH, tcp:HOST:PORT or tls:HOST:PORT (several volumes may share one)");
    sub->add_option("--vhost-user", a->vhost_user, "unix:PATH: the disk of one guest, for QEMU's vhost-user-blk-pci");
    sub->add_flag("--take-over", a->take_over, "shut out whoever has it attached");
    sub->add_flag("--read-only", a->read_only);
    sub->add_flag("--incoming", a->incoming, "with --vhost-user: a second end, to which QEMU migrates the guest; needs --node, another daemon");
    sub->add_option("--node", a->node, "the attach daemon that shall do it; default: the least busy");
    sub->footer("Example: luge attach disk1 --nbd unix:/tmp/disk1.sock\n"
                "         nbdinfo 'nbd+unix:///disk1?socket=/tmp/disk1.sock'\n"
                "         luge attach disk1 --vhost-user unix:/tmp/disk1.vhost");
    sub->callback([&context, a] { context.run = [&context, a] { return attach(context, a); }; });
  }
  auto a = std::make_shared<VolumeArguments>();
  auto* sub = app.add_subcommand("detach", "End the export of a volume");
  sub->add_option("NAME", a->name)->required();
  sub->callback([&context, a] { context.run = [&context, a] { return detach(context, a); }; });
}

}  // namespace luge::cli
