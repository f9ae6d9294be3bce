#include "vmstate/daemon.hpp"

#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <thread>

#include "base/logging.hpp"
#include "vmstate/live_target.hpp"
#include "vmstate/store.hpp"
#include "vmstate/transfer.hpp"
#include "vmstate/volume_store.hpp"

namespace luge::vmstate {
namespace {

namespace json = boost::json;
constexpr std::size_t kMostLine = 1u << 20;

std::string text(const json::object& o, std::string_view key) {
  const json::value* v = o.if_contains(key);
  return v && v->is_string() ? std::string(v->as_string()) : "";
}

json::object checkpoint_json(const StoredCheckpoint& c) {
  return {{"checkpoint", c.sequence}, {"parent", c.parent}, {"pages", c.entries}, {"bytes", c.bytes}, {"created_ns", c.created_ns},
          {"memory_bytes", c.shape.memory_pages * kPage}, {"disk_bytes", c.shape.disk_pages * kPage}};
}

// Whether a QEMU waits in this directory for its state. conflict: one does that may run in the memory that is there.
Result<bool> waits_in(const std::string& directory) {
  const std::string path = directory + "/qmp.sock";
  auto qmp = Qmp::open(path, std::chrono::milliseconds(0));
  if (qmp.code() == Code::not_found) return false;
  auto is = qmp.ok() ? qemu_status(**qmp) : Result<std::string>(qmp.status());
  if (is.ok() && *is == "inmigrate") return true;
  return Status(Code::conflict, "the QEMU at " + path + " may run in " + directory + "/memory: " + (is.ok() ? "it is '" + *is + "'" : is.status().text()) + "; end it first, or restore elsewhere with --to");
}

// False: it has been given another file since that QEMU was started. Where that can't be seen it is taken on trust.
bool has_mapped(int process, const std::string& path) {
  struct stat st {};
  std::ifstream maps("/proc/" + std::to_string(process) + "/maps");
  if (!maps || ::stat(path.c_str(), &st) != 0) return true;
  bool any = false;
  for (std::string line; std::getline(maps, line);) {
    unsigned long long inode;
    if (std::sscanf(line.c_str(), "%*s %*s %*s %*s %llu", &inode) != 1) continue;
    any = true;
    if (inode == st.st_ino) return true;  // not the device: some file systems show another there
  }
  return !any;
}

Result<json::object> run_restored(const std::string& name, const std::string& directory, const std::string& path) {
  auto qmp = Qmp::open(path);
  if (!qmp.ok()) return qmp.status();
  std::ifstream file(directory + "/state", std::ios::binary);
  if (!file) return Status(Code::not_found, directory + "/state: restore the checkpoint first, without --qmp");
  if (!has_mapped((*qmp)->pid(), directory + "/memory"))
    return Status(Code::conflict, "the QEMU at " + path + " doesn't have " + directory + "/memory, or had it before the checkpoint was restored: start it anew");
  const std::string state{std::istreambuf_iterator<char>(file), {}};
  if (Status s = QemuMachine::load(**qmp, state, directory); !s.ok()) return s;
  if (auto r = (*qmp)->run("cont"); !r.ok()) return r.status();
  return json::object{{"machine", name}, {"state", "running"}};
}

Result<StoredCheckpoint> restore_from_volume(const std::string& address, const std::string& machine, std::uint64_t number, const Store::Files& files) {
  auto file = open_nbd(address);
  if (!file.ok()) return file.status();
  auto store = VolumeStore::open(std::move(*file));
  if (!store.ok()) return store.status();
  return (*store)->restore(machine, number, files);
}

}  // namespace

std::vector<Option> Daemon::options() {
  using T = Option::Type;
  return {
      {"listen", T::text, "", "where other hosts' luge-vmstated send to: tcp:HOST:PORT or unix:PATH; nowhere by default"},
      {"socket", T::text, "", "unix socket for `luge vm`; control.sock in the directory by default"},
      {"keep", T::number, "4", "checkpoints kept of each machine of another host"},
      {"durable", T::flag, "true", "a checkpoint is on the disk before its sender is told so; without, it survives the daemon but not this host"},
  };
}

Daemon::Daemon(io::World&, const io::DaemonOptions& options) : settings_(options.settings), directory_(options.directory) {}

Daemon::~Daemon() {
  {
    std::lock_guard lock(mutex_);
    ending_ = true;
    for (int fd : listeners_) ::shutdown(fd, SHUT_RDWR);
    for (Connection& c : connections_)
      if (!c.ended) ::shutdown(c.fd, SHUT_RDWR);
    for (auto& [name, p] : machines_) p->give_up();
  }
  for (std::thread& t : threads_) t.join();
  for (Connection& c : connections_) c.thread.join();
  for (int fd : listeners_) ::close(fd);
}

io::Task<Status> Daemon::start() {
  std::string ignored;
  for (PauseNote& n : PauseNotes(directory_).all()) left_.emplace(n.machine, n);
  if (!left_.empty()) threads_.emplace_back([this] { settle_all(); });
  const std::string socket = settings_.text("socket").empty() ? directory_ + "/control.sock" : settings_.text("socket");
  if (Status s = listen("unix:" + socket, [this](int fd) { serve_people(fd); }, ignored); !s.ok()) co_return s;
  if (!settings_.text("listen").empty())
    if (Status s = listen(settings_.text("listen"), [this](int fd) { serve_host(fd); }, listening_); !s.ok()) co_return s;
  logging::info("ready at {}{}", socket, listening_.empty() ? "" : ", for other hosts at " + listening_);
  co_return Status();
}

io::Task<void> Daemon::drain() {
  std::map<std::string, std::shared_ptr<Protection>> machines;
  {
    std::lock_guard lock(mutex_);
    machines.swap(machines_);
  }
  for (auto& [name, p] : machines)
    if (Status s = p->stop(); !s.ok()) logging::warn("{}: {}", name, s.to_string());
  co_return;
}

Status Daemon::listen(const std::string& address, Handler handler, std::string& bound) {
  auto fd = listen_at(address, settings_.flag("insecure-listen"), bound);
  if (!fd.ok()) return fd.status();
  listeners_.push_back(*fd);
  threads_.emplace_back([this, fd = *fd, handler = std::move(handler)] { accept(fd, handler); });
  return Status();
}

void Daemon::accept(int listener, const Handler& handler) {
  while (true) {
    const int fd = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) std::this_thread::sleep_for(std::chrono::milliseconds(50));  // no descriptor is left, say
    std::lock_guard lock(mutex_);
    if (ending_) {
      if (fd >= 0) ::close(fd);
      return;
    }
    if (fd < 0) continue;
    for (auto it = connections_.begin(); it != connections_.end();) {
      if (!it->ended) { ++it; continue; }
      it->thread.join();
      it = connections_.erase(it);
    }
    Connection& c = connections_.emplace_back();
    c.fd = fd;
    c.thread = std::thread([this, &c, &handler] {
      handler(c.fd);
      std::lock_guard lock(mutex_);
      ::close(c.fd);
      c.ended = true;
    });
  }
}

void Daemon::serve_host(int fd) {
  Status s = serve_transfer(fd, [this](const std::string& machine, bool live) -> Result<std::unique_ptr<Target>> {
    if (live) {
      auto claim = claim_live(machine);
      if (!claim.ok()) return claim.status();
      return std::unique_ptr<Target>(new LiveTarget(live_directory(machine), std::move(*claim)));
    }
    return std::unique_ptr<Target>(new StoreTarget(directory_ + "/store", {settings_.number("keep"), settings_.flag("durable")}));
  });
  if (!s.ok()) logging::warn("a connection of another host ends: {}", s.to_string());
}

// ---- what was left paused ----

// QEMU's monitor may have another client for a while.
void Daemon::settle_all() {
  while (true) {
    std::map<std::string, PauseNote> left;
    {
      std::lock_guard lock(mutex_);
      if (ending_) return;
      left = left_;
    }
    bool again = false;
    for (auto& [name, note] : left) again = settle_of(name, note.qmp).code() == Code::unavailable || again;
    if (!again) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
  }
}

// ok: nothing is left of it. conflict: a person decides.
Status Daemon::settle(const PauseNote& note) {
  Status s;
  if (note.lives()) s = note.kind == PauseNote::Kind::handing_over ? undecided(note.machine) : let_run(note);
  if (!s.ok()) return s;
  PauseNotes(directory_).remove(note.machine);
  std::lock_guard lock(mutex_);
  left_.erase(note.machine);
  return Status();
}

// Before anything is done with a machine: of that name, or of that QEMU.
Status Daemon::settle_of(const std::string& machine, const std::string& qmp) {
  std::lock_guard one(settling_);
  std::map<std::string, PauseNote> left;
  {
    std::lock_guard lock(mutex_);
    left = left_;
  }
  for (auto& [name, note] : left)
    if (name == machine || note.qmp == qmp)
      if (Status s = settle(note); !s.ok()) return s;
  return Status();
}

Result<std::unique_ptr<Qmp>> Daemon::monitor_of(const PauseNote& note) const {
  auto qmp = Qmp::open(note.qmp, std::chrono::milliseconds(0));
  if (!qmp.ok()) return Status(Code::unavailable, note.machine + " was left paused, and its monitor doesn't answer: " + qmp.status().text());
  if (note.process > 0 && (*qmp)->pid() != note.process)
    return Status(Code::unavailable, note.machine + " was left paused in process " + std::to_string(note.process) + ", and " + note.qmp + " is another's: let it run, or end it");
  return qmp;
}

// Only what stands still because we had it stand still.
Status Daemon::let_run(const PauseNote& note) {
  auto qmp = monitor_of(note);
  if (!qmp.ok()) return qmp.status();
  auto is = qemu_status(**qmp);
  if (!is.ok()) return Status(Code::unavailable, is.status().text());
  if (*is == "finish-migrate" || *is == "save-vm") return Status(Code::unavailable, note.machine + " is still being saved");
  if (*is != "paused" && *is != "postmigrate") return Status();
  if (auto r = (*qmp)->run("cont"); !r.ok()) return Status(Code::unavailable, r.status().text());
  logging::warn("{} was left paused by a luge-vmstated that has ended: it goes on", note.machine);
  QemuMachine::memory_belongs(**qmp);
  return Status();
}

Result<std::unique_ptr<Protection>> Daemon::open(ProtectionOptions options) {
  if (Status s = settle_of(options.machine, options.qmp); !s.ok()) return s;
  return Protection::open(std::move(options), directory_);
}

// Two migrations into one machine's memory would both write it.
Result<std::shared_ptr<void>> Daemon::claim_live(const std::string& machine) {
  std::lock_guard lock(mutex_);
  if (!arriving_.insert(machine).second) return Status(Code::conflict, machine + " is arriving over another connection");
  return std::shared_ptr<void>(nullptr, [this, machine](void*) {
    std::lock_guard lock(mutex_);
    arriving_.erase(machine);
  });
}

void Daemon::serve_people(int fd) {
  std::string heard;
  char part[4096];
  while (heard.size() <= kMostLine) {
    const std::size_t end = heard.find('\n');
    if (end == std::string::npos) {
      const ssize_t n = ::recv(fd, part, sizeof part, 0);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return;
      heard.append(part, static_cast<std::size_t>(n));
      continue;
    }
    boost::system::error_code e;
    json::value v = json::parse(std::string_view(heard).substr(0, end), e);
    heard.erase(0, end + 1);
    json::object reply = e || !v.is_object() ? json::object{{"code", code_name(Code::invalid)}, {"error", "not a JSON object"}} : answer(v.as_object());
    const std::string line = json::serialize(reply) + "\n";
    for (std::size_t sent = 0; sent < line.size();) {
      const ssize_t n = ::send(fd, line.data() + sent, line.size() - sent, MSG_NOSIGNAL);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return;
      sent += static_cast<std::size_t>(n);
    }
  }
}

json::object Daemon::answer(const json::object& request) {
  auto r = perform(request);
  if (r.ok()) return std::move(*r);
  return {{"code", code_name(r.code())}, {"error", r.status().text()}};
}

Result<json::object> Daemon::perform(const json::object& request) {
  const std::string what = text(request, "do");
  if (what == "protect") return protect(request);
  if (what == "checkpoint") return checkpoint(request);
  if (what == "migrate") return migrate(request);
  if (what == "release") return release(request);
  if (what == "status") return status();
  if (what == "restore") return restore(request);
  return Status(Code::invalid, "'" + what + "' is nothing that luge-vmstated does");
}

Result<std::shared_ptr<Protection>> Daemon::find(const std::string& machine) const {
  std::lock_guard lock(mutex_);
  auto it = machines_.find(machine);
  if (it == machines_.end()) return Status(Code::not_found, machine + " is not protected here");
  return it->second;
}

Result<json::object> Daemon::protect(const json::object& request) {
  auto options = parse_protection(request);
  if (!options.ok()) return options.status();
  const std::string name = options->machine;
  if (find(name).ok()) return Status(Code::exists, name + " is protected already");
  auto opened = open(std::move(*options));
  if (!opened.ok()) return opened.status();
  std::shared_ptr<Protection> p = std::move(*opened);
  {
    std::lock_guard lock(mutex_);
    if (ending_ || !machines_.emplace(name, p).second) return Status(Code::exists, name + " is protected already");
  }
  p->run();
  return p->status();
}

// Of a protected machine, or once of another.
Result<json::object> Daemon::checkpoint(const json::object& request) {
  const json::value* stay = request.if_contains("stay_paused");
  const bool stay_paused = stay && stay->is_bool() && stay->as_bool();
  if (auto p = find(text(request, "machine")); p.ok()) return (*p)->checkpoint(stay_paused);
  if (text(request, "qmp").empty()) return find(text(request, "machine")).status();
  auto options = parse_protection(request);
  if (!options.ok()) return options.status();
  auto p = open(std::move(*options));
  if (!p.ok()) return p.status();
  auto r = (*p)->checkpoint(stay_paused);
  Status off = (*p)->stop();
  if (r.ok() && !off.ok()) return off;
  return r;
}

Result<json::object> Daemon::migrate(const json::object& request) {
  const std::string name = text(request, "machine"), to = text(request, "to");
  if (to.empty()) return Status(Code::invalid, "where to? Name the other host's luge-vmstated with --to");
  if (auto p = find(name); p.ok()) {
    auto r = (*p)->migrate(to);
    if (r.ok()) {
      (void)(*p)->stop();
      std::lock_guard lock(mutex_);
      machines_.erase(name);
    }
    return r;
  }
  auto options = parse_protection(request);
  if (!options.ok()) return options.status();
  options->target.clear();
  auto opened = open(std::move(*options));
  if (!opened.ok()) return opened.status();
  std::shared_ptr<Protection> p = std::move(*opened);
  {
    std::lock_guard lock(mutex_);  // so that `release` can give it up
    if (!machines_.emplace(name, p).second) return Status(Code::exists, name + " is protected already");
  }
  auto r = p->migrate(to);
  // Not known whether it runs over there: it stays here, paused, until a person knows.
  if (r.code() == Code::timed_out) return r;
  (void)p->stop();
  std::lock_guard lock(mutex_);
  machines_.erase(name);
  return r;
}

Result<json::object> Daemon::release(const json::object& request) {
  const std::string name = text(request, "machine");
  auto p = find(name);
  if (!p.ok()) return release_left(name, p.status());
  Status off = (*p)->release();
  if ((*p)->waits_for_a_person()) return off;
  // What its disks didn't answer ends with the connections to them; kept here, the machine could neither be released nor protected anew.
  if (!off.ok()) logging::warn("{}: {}", name, off.to_string());
  std::lock_guard lock(mutex_);
  machines_.erase(name);
  return json::object{{"machine", name}, {"state", "released"}};
}

// A person says that it doesn't run on the other host.
Result<json::object> Daemon::release_left(const std::string& name, const Status& unknown) {
  std::lock_guard one(settling_);
  std::optional<PauseNote> note;
  {
    std::lock_guard lock(mutex_);
    if (auto it = left_.find(name); it != left_.end()) note = it->second;
  }
  if (!note) return unknown;
  note->kind = PauseNote::Kind::goes_on;
  if (Status s = settle(*note); !s.ok()) return s;
  return json::object{{"machine", name}, {"state", "released"}};
}

Result<json::object> Daemon::status() const {
  std::map<std::string, std::shared_ptr<Protection>> machines;
  std::map<std::string, PauseNote> left;
  {
    std::lock_guard lock(mutex_);
    machines = machines_, left = left_;
  }
  json::array here, kept;
  for (auto& [name, note] : left) {
    const bool goes_on = note.kind == PauseNote::Kind::goes_on;
    here.push_back(json::object{{"machine", name}, {"state", goes_on ? "paused" : "unknown"}, {"error", goes_on ? "it goes on when its monitor answers" : undecided(name).text()}});
  }
  for (auto& [name, p] : machines) here.push_back(p->status());
  const Store store(directory_ + "/store");
  auto names = store.machines();
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) {
    json::array checkpoints;
    auto list = store.list(name);
    if (!list.ok()) {
      kept.push_back(json::object{{"machine", name}, {"error", list.status().text()}});
      continue;
    }
    for (const StoredCheckpoint& c : *list) checkpoints.push_back(checkpoint_json(c));
    kept.push_back(json::object{{"machine", name}, {"checkpoints", std::move(checkpoints)}});
  }
  return json::object{{"listen", listening_}, {"protected", std::move(here)}, {"kept", std::move(kept)}};
}

// Files for a QEMU of this host; with `qmp`, that QEMU, which waits, gets its devices' state and runs.
Result<json::object> Daemon::restore(const json::object& request) {
  const std::string name = text(request, "machine"), to = text(request, "to").empty() ? live_directory(name) : text(request, "to"), qmp_path = text(request, "qmp");
  if (Status s = check_machine_name(name); !s.ok()) return s;
  if (!qmp_path.empty()) return run_restored(name, to, qmp_path);
  std::error_code e;
  std::filesystem::create_directories(to, e);
  if (e) return Status(Code::io_error, to + ": " + e.message());
  const std::string from = text(request, "from").empty() ? directory_ + "/store" : text(request, "from");
  auto checkpoint = number_of(request, "checkpoint", 0, ~std::uint64_t{0});
  if (!checkpoint.ok()) return checkpoint.status();
  const std::uint64_t number = *checkpoint;
  auto waits = waits_in(to);
  if (!waits.ok()) return waits.status();
  const Store::Files files{to + "/memory", to + "/state", to + "/description.json", to + "/disk", *waits};
  auto r = is_nbd(from) ? restore_from_volume(from, name, number, files) : Store(from).restore(name, number, files);
  if (!r.ok()) return r.status();
  json::object o = checkpoint_json(*r);
  o["directory"] = to;
  o["qemu"] = "-object memory-backend-file,id=ID,size=" + std::to_string(r->shape.memory_pages * kPage) + ",mem-path=" + to + "/memory,share=on -incoming defer";
  return o;
}

}  // namespace luge::vmstate
