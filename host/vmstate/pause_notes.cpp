#include "vmstate/pause_notes.hpp"

#include <unistd.h>

#include <boost/json.hpp>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/logging.hpp"
#include "vmstate/store.hpp"

namespace luge::vmstate {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;
constexpr const char* kSuffix = ".json";

bool parse(const std::string& text, PauseNote& note) {
  boost::system::error_code e;
  const json::value v = json::parse(text, e);
  if (e || !v.is_object()) return false;
  const json::object& o = v.as_object();
  const json::value *qmp = o.if_contains("qmp"), *process = o.if_contains("process"), *started = o.if_contains("started"), *kind = o.if_contains("state");
  if (!qmp || !qmp->is_string() || !process || !process->is_number() || !started || !started->is_number() || !kind || !kind->is_string()) return false;
  note.qmp = qmp->as_string(), note.process = process->to_number<int>(), note.started = started->to_number<std::uint64_t>();
  note.kind = kind->as_string() == "paused" ? PauseNote::Kind::goes_on : PauseNote::Kind::handing_over;
  return true;
}

}  // namespace

// The 22nd field; the second is a name in parentheses, with anything in it.
std::uint64_t started(int process) {
  std::ifstream file("/proc/" + std::to_string(process) + "/stat");
  std::string line;
  std::getline(file, line);
  const std::size_t name_end = line.rfind(')');
  if (name_end == std::string::npos) return 0;
  std::size_t at = name_end + 1;
  for (int field = 2; field < 22 && at != std::string::npos; ++field) at = line.find(' ', at) == std::string::npos ? std::string::npos : line.find(' ', at) + 1;
  return at == std::string::npos ? 0 : std::strtoull(line.c_str() + at, nullptr, 10);
}

bool PauseNote::lives() const { return process <= 0 || vmstate::started(process) == started; }

Status PauseNotes::write(const PauseNote& n) const {
  std::error_code e;
  fs::create_directory(directory_, e);
  const std::string path = directory_ + "/" + n.machine + kSuffix, fresh = path + ".new";
  const std::string_view state = n.kind == PauseNote::Kind::goes_on ? "paused" : "handing over";
  std::ofstream(fresh, std::ios::trunc) << json::object{{"qmp", n.qmp}, {"process", n.process}, {"started", n.started}, {"state", state}} << '\n';
  fs::rename(fresh, path, e);
  return e ? Status(Code::io_error, path + ": " + e.message()) : Status();
}

void PauseNotes::remove(const std::string& machine) const {
  std::error_code e;
  fs::remove(directory_ + "/" + machine + kSuffix, e);
}

std::vector<PauseNote> PauseNotes::all() const {
  std::vector<PauseNote> out;
  std::error_code e;
  for (const auto& entry : fs::directory_iterator(directory_, e)) {
    if (entry.path().extension() != kSuffix) continue;
    PauseNote n;
    n.machine = entry.path().stem();
    std::ifstream file(entry.path());
    if (check_machine_name(n.machine).ok() && parse({std::istreambuf_iterator<char>(file), {}}, n)) out.push_back(std::move(n));
    else logging::error("{}: not a note of a paused machine", entry.path().string());
  }
  return out;
}

}  // namespace luge::vmstate
