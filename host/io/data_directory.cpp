#include "io/data_directory.hpp"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "base/config.hpp"

namespace luge::io {
namespace {

Status failed(const std::string& path, const char* what) {
  return Status(Code::io_error, path + ": " + what + ": " + std::strerror(errno));
}

struct Found {
  std::string role;
  std::uint64_t format = 0, id = 0, unit = 0;
};

// "key = value" lines, as write_identity() makes them.
Result<Found> read_identity(const std::string& file) {
  std::ifstream in(file);
  if (!in) return failed(file, "open");
  Found found;
  std::string line;
  while (std::getline(in, line)) {
    std::istringstream words(line);
    std::string key, equals, value;
    if (line.empty() || line[0] == '#') continue;
    words >> key >> equals >> value;
    if (key == "role" && value.size() > 2) {
      found.role = value.substr(1, value.size() - 2);
      continue;
    }
    auto n = parse_number(value);
    if (equals != "=" || !n.ok()) return Status(Code::corrupt, file + ": cannot read the line '" + line + "'");
    if (key == "format") found.format = *n;
    if (key == "id") found.id = *n;
    if (key == "unit") found.unit = *n;
  }
  if (found.format == 0) return Status(Code::corrupt, file + ": has no format number");
  return found;
}

Status check_identity(const std::string& path, const Found& f, const DataDirectory::Identity& self) {
  if (f.format != kDirectoryFormat)
    return Status(Code::wrong_version, path + " has format version " + std::to_string(f.format) +
                                           ", this program knows " + std::to_string(kDirectoryFormat));
  if (f.role != self.role)
    return Status(Code::invalid, path + " belongs to a " + f.role + ", this is a " + self.role);
  if (f.id != self.id)
    return Status(Code::invalid, path + " belongs to node " + std::to_string(f.id) + ", this is node " +
                                     std::to_string(self.id));
  if (f.unit != 0 && self.unit != 0 && f.unit != self.unit)
    return Status(Code::wrong_unit, path + " belongs to storage unit " + std::to_string(f.unit) + ", this is " +
                                        std::to_string(self.unit));
  return Status();
}

}  // namespace

DataDirectory::DataDirectory(std::string path, int lock, Identity identity)
    : path_(std::move(path)), lock_(lock), identity_(std::move(identity)) {}

DataDirectory::~DataDirectory() { ::close(lock_); }

Result<std::unique_ptr<DataDirectory>> DataDirectory::open(const std::string& path, const Identity& self) {
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return failed(path, "make directory");
  char* absolute = ::realpath(path.c_str(), nullptr);
  if (absolute == nullptr) return failed(path, "resolve");
  std::string full = absolute;
  ::free(absolute);
  int lock = ::open((full + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock < 0) return failed(full, "open lock");
  std::unique_ptr<DataDirectory> d(new DataDirectory(full, lock, self));
  if (::flock(lock, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) return Status(Code::exists, full + " is in use by another process");
    return failed(full, "lock");
  }
  std::string file = full + "/identity";
  if (::access(file.c_str(), F_OK) != 0) {
    if (errno != ENOENT) return failed(file, "access");
    if (Status s = d->write_identity(); !s.ok()) return s;
    return d;
  }
  auto found = read_identity(file);
  if (!found.ok()) return found.status();
  if (Status s = check_identity(full, *found, self); !s.ok()) return s;
  if (found->unit != 0) d->identity_.unit = found->unit;
  else if (self.unit != 0)
    if (Status s = d->write_identity(); !s.ok()) return s;
  return d;
}

Status DataDirectory::remember_unit(std::uint64_t unit) {
  if (identity_.unit == unit) return Status();
  if (identity_.unit != 0)
    return Status(Code::wrong_unit, path_ + " belongs to storage unit " + std::to_string(identity_.unit) + ", not " +
                                        std::to_string(unit));
  identity_.unit = unit;
  Status s = write_identity();
  if (!s.ok()) identity_.unit = 0;
  return s;
}

Status DataDirectory::write_identity() const {
  std::string text = "# Whose data this is. Do not edit.\nformat = " + std::to_string(kDirectoryFormat) +
                     "\nrole = \"" + identity_.role + "\"\nid = " + std::to_string(identity_.id) +
                     "\nunit = " + std::to_string(identity_.unit) + "\n";
  std::string file = path_ + "/identity", fresh = file + ".new";
  int fd = ::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return failed(fresh, "create");
  bool written = ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()) && ::fsync(fd) == 0;
  Status s = written ? Status() : failed(fresh, "write");
  ::close(fd);
  if (!s.ok()) return s;
  if (::rename(fresh.c_str(), file.c_str()) != 0) return failed(file, "rename");
  int directory = ::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return failed(path_, "open");
  if (::fsync(directory) != 0) s = failed(path_, "fsync");
  ::close(directory);
  return s;
}

}  // namespace luge::io
