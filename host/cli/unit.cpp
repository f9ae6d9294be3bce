#include "cli/unit.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
#include <thread>

namespace luge::cli {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

constexpr int kFormat = 1;
constexpr NodeId kControlId = 1, kFirstHead = 11, kFirstSled = 101, kFirstAttach = 901;
constexpr std::size_t kMaxSocketPath = 107;

Status write_file(const std::string& path, const std::string& content) {
  std::ofstream out(path, std::ios::trunc);
  out << content;
  if (!out.flush()) return Status(Code::io_error, path + ": cannot be written: " + std::strerror(errno));
  return Status();
}

// A TOML basic string.
std::string quoted(const std::string& s) {
  std::string out = "\"";
  for (char c : s) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

Status check_directory(const std::string& directory) {
  std::string longest = directory + "/run/control.s";
  if (longest.size() > kMaxSocketPath)
    return Status(Code::invalid, "the directory's path is too long for the sockets in it (" +
                                     std::to_string(directory.size()) + " characters, " +
                                     std::to_string(kMaxSocketPath - longest.size() + directory.size()) +
                                     " are possible): choose a shorter one");
  for (unsigned char c : directory)
    if (c < 0x20 || c == ':') return Status(Code::invalid, "the directory's path must not contain ':' or control characters");
  return Status();
}

std::uint64_t member(const json::object& o, const char* key) {
  const json::value* v = o.if_contains(key);
  boost::system::error_code error;
  std::uint64_t n = v && v->is_number() ? v->to_number<std::uint64_t>(error) : 0;
  return error ? 0 : n;
}

// A unit of before the member was known has what `absent` says.
std::string text_member(const json::object& o, const char* key, const char* absent) {
  const json::value* v = o.if_contains(key);
  return v && v->is_string() ? std::string(v->get_string()) : absent;
}

}  // namespace

void Unit::name_daemons() {
  daemons_ = {{"control-1", "control", kControlId}};
  auto add = [&](const char* role, std::uint32_t count, NodeId first) {
    for (std::uint32_t i = 0; i < count; ++i)
      daemons_.push_back({role + ("-" + std::to_string(i + 1)), role, first + i});
  };
  add("sled", shape_.sleds, kFirstSled);
  add("head", shape_.heads, kFirstHead);
  add("attach", 1, kFirstAttach);
}

Result<Unit> Unit::create(const std::string& directory, const UnitShape& shape, const std::string& bin) {
  Unit u;
  std::error_code error;
  u.directory_ = fs::weakly_canonical(directory, error).string();
  if (error) return Status(Code::invalid, directory + ": " + error.message());
  if (Status s = check_directory(u.directory_); !s.ok()) return s;
  if (Status s = is_free(u.directory_); !s.ok()) return s;
  u.bin_ = bin;
  u.shape_ = shape;
  std::random_device random;
  u.id_ = ((static_cast<std::uint64_t>(random()) << 21) ^ random()) & ((1ull << 53) - 1);
  if (u.id_ == 0) u.id_ = 1;
  u.name_daemons();
  fs::create_directories(u.directory_ + "/run", error);
  if (error) return Status(Code::io_error, directory + ": cannot be made: " + error.message());
  fs::permissions(u.directory_ + "/run", fs::perms::owner_all, error);
  for (const Daemon& d : u.daemons_) {
    fs::create_directories(u.directory_ + "/" + d.name, error);
    if (error) return Status(Code::io_error, u.directory_ + "/" + d.name + ": " + error.message());
  }
  if (Status s = u.write_configs(); !s.ok()) return s;
  if (Status s = u.save(); !s.ok()) return s;  // last: a directory with unit.json is complete
  return u;
}

Status Unit::is_free(const std::string& directory) {
  std::error_code error;
  if (!fs::exists(directory, error)) return Status();
  if (!fs::is_directory(directory, error)) return Status(Code::exists, directory + " is not a directory");
  for (const auto& entry : fs::directory_iterator(directory, error))
    if (entry.path().filename() != "lock")
      return Status(Code::exists, directory + " is not empty and holds no unit: choose another directory, or empty this one");
  return error ? Status(Code::io_error, directory + ": " + error.message()) : Status();
}

std::string Unit::socket(const Daemon& d) const {
  std::string file = d.role == "control" ? "control" : d.role.substr(0, 1) + d.name.substr(d.role.size() + 1);
  return "unix:" + directory_ + "/run/" + file + ".s";
}

std::string Unit::config_of(const Daemon& d) const {
  std::string home = directory_ + "/" + d.name;
  std::ostringstream c;
  c << "# Written by `luge unit up`.\n"
    << "name = " << quoted(d.name) << "\nid = " << d.id << "\ndir = " << quoted(home + "/data") << "\nunit = " << id_
    << "\nlisten = " << quoted(socket(d)) << "\n";
  if (d.role == "control") {
    c << "http = " << quoted(http()) << "\n";
    return c.str();
  }
  c << "control = " << quoted(socket(daemons_.front())) << "\n";
  if (d.role == "head")
    c << "log-bytes = \"" << shape_.log_bytes << "\"\nmeta-bytes = \"" << shape_.meta_bytes
      << "\"\nsegment-bytes = \"" << shape_.segment_bytes << "\"\ncoding = \"" << (shape_.coding == "head" ? "head" : "gateway") << "\"\n";
  if (d.role == "sled") {
    c << "devices = [";
    for (std::uint32_t i = 0; i < shape_.devices; ++i)
      c << (i ? ", " : "") << quoted(home + "/device-" + std::to_string(i) + ":" + std::to_string(shape_.device_bytes));
    c << "]\ncolumn-bytes = \"" << shape_.column_bytes << "\"\ncard = " << quoted(shape_.card) << "\ncoding = " << quoted(shape_.coding == "head" ? "isal" : shape_.coding)
      << "\nverify = " << quoted(shape_.verify) << "\n";
  }
  return c.str();
}

Status Unit::write_configs() const {
  for (const Daemon& d : daemons_)
    if (Status s = write_file(directory_ + "/" + d.name + "/config.toml", config_of(d)); !s.ok()) return s;
  return Status();
}

Status Unit::save() const {
  json::object o{{"format", kFormat}, {"version", LUGE_VERSION}, {"unit", id_}, {"bin", bin_},
                 {"heads", shape_.heads}, {"sleds", shape_.sleds}, {"devices", shape_.devices},
                 {"device_bytes", shape_.device_bytes}, {"log_bytes", shape_.log_bytes},
                 {"meta_bytes", shape_.meta_bytes}, {"column_bytes", shape_.column_bytes},
                 {"segment_bytes", shape_.segment_bytes}, {"card", shape_.card}, {"coding", shape_.coding}, {"verify", shape_.verify}};
  std::string path = directory_ + "/unit.json";
  if (Status s = write_file(path + ".new", json::serialize(o) + "\n"); !s.ok()) return s;
  std::error_code error;
  fs::rename(path + ".new", path, error);
  return error ? Status(Code::io_error, path + ": " + error.message()) : Status();
}

Result<Unit> Unit::open(const std::string& directory) {
  Unit u;
  std::error_code error;
  u.directory_ = fs::weakly_canonical(directory, error).string();
  if (error || !fs::is_directory(u.directory_, error))
    return Status(Code::not_found, directory + ": no such directory; `luge unit up --dir " + directory + "` makes a unit there");
  std::ifstream in(u.directory_ + "/unit.json");
  if (!in)
    return Status(fs::is_empty(u.directory_, error) ? Code::not_found : Code::invalid,
                  directory + " is not the directory of a unit: it has no unit.json");
  std::stringstream text;
  text << in.rdbuf();
  boost::system::error_code bad;
  json::value v = json::parse(text.str(), bad);
  if (bad || !v.is_object()) return Status(Code::corrupt, directory + "/unit.json is damaged: it is not JSON");
  const json::object& o = v.get_object();
  if (member(o, "format") != kFormat)
    return Status(Code::wrong_version, directory + "/unit.json has format " + std::to_string(member(o, "format")) +
                                           ", this program knows format " + std::to_string(kFormat) +
                                           ": use the version that made the unit");
  u.id_ = member(o, "unit");
  const json::value* bin = o.if_contains("bin");
  u.bin_ = bin && bin->is_string() ? std::string(bin->get_string()) : "";
  u.shape_ = {static_cast<std::uint32_t>(member(o, "heads")), static_cast<std::uint32_t>(member(o, "sleds")),
              static_cast<std::uint32_t>(member(o, "devices")), member(o, "device_bytes"), member(o, "log_bytes"),
              member(o, "meta_bytes"), member(o, "column_bytes"), member(o, "segment_bytes"), text_member(o, "card", "none"), text_member(o, "coding", "isal"), text_member(o, "verify", "all")};
  constexpr std::uint32_t kSane = 10'000;
  if (u.id_ == 0 || u.shape_.heads > kSane || u.shape_.sleds > kSane || u.shape_.devices > kSane)
    return Status(Code::corrupt, directory + "/unit.json is damaged");
  u.name_daemons();
  return u;
}

Status Unit::set_bin(const std::string& bin) {
  if (bin == bin_) return Status();
  bin_ = bin;
  return save();
}

const Daemon* Unit::find(const std::string& name) const {
  for (const Daemon& d : daemons_)
    if (d.name == name) return &d;
  return nullptr;
}

std::vector<Daemon> Unit::of_role(const std::string& role) const {
  std::vector<Daemon> out;
  for (const Daemon& d : daemons_)
    if (role.empty() || d.role == role) out.push_back(d);
  return out;
}

pid_t Unit::pid_of(const Daemon& d) const {
  auto p = read_pid_file(directory_ + "/" + d.name + "/pid");
  return p && runs(*p, program(d)) ? p->pid : 0;
}

Status Unit::start(const Daemon& d) const {
  if (pid_of(d) != 0) return Status();
  std::string home = directory_ + "/" + d.name;
  auto p = start_detached(program(d), {"--config", home + "/config.toml"}, log_of(d));
  if (!p.ok()) return p.status().with(d.name);
  return write_pid_file(home + "/pid", *p);
}

Result<bool> Unit::signal(const Daemon& d, int number) const {
  pid_t pid = pid_of(d);
  if (pid == 0) return false;
  if (::kill(pid, number) == 0) return true;
  if (errno == ESRCH) return false;
  return Status(Code::io_error, "signal to " + d.name + " (pid " + std::to_string(pid) + "): " + std::strerror(errno));
}

Status Unit::stop(const std::vector<Daemon>& daemons, std::chrono::milliseconds patience) const {
  auto any = [&] {
    for (const Daemon& d : daemons)
      if (pid_of(d) != 0) return true;
    return false;
  };
  auto wait = [&](std::chrono::milliseconds limit) {
    auto until = std::chrono::steady_clock::now() + limit;
    while (any() && std::chrono::steady_clock::now() < until) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    return !any();
  };
  for (int number : {SIGTERM, SIGKILL}) {
    for (const Daemon& d : daemons) {
      auto sent = signal(d, number);
      if (!sent.ok()) return sent.status();
      // A stopped process would hear the TERM only when it is continued.
      if (*sent && number == SIGTERM) (void)signal(d, SIGCONT).ok();
    }
    if (wait(number == SIGTERM ? patience : std::chrono::milliseconds(10'000))) return Status();
  }
  return Status(Code::timed_out, "a daemon does not end although it was killed");
}

std::string Unit::last_words(const Daemon& d) const {
  std::ifstream in(log_of(d));
  std::string line, last;
  while (std::getline(in, line))
    if (!line.empty()) last = line;
  return last;
}

Unit::Lock::~Lock() {
  if (fd_ >= 0) ::close(fd_);
}

Result<Unit::Lock> Unit::lock(const std::string& directory) {
  std::string path = directory + "/lock";
  int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return Status(Code::io_error, path + ": " + std::strerror(errno));
  if (::flock(fd, LOCK_EX | LOCK_NB) == 0) return Lock(fd);
  ::close(fd);
  return Status(Code::exists, "another `luge unit` command is at work on " + directory + ": wait for it to end");
}

}  // namespace luge::cli
