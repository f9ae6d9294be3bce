#include "control/key_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>

namespace luge::control {
namespace {

Status failed(const std::string& path, const char* what) { return Status(Code::io_error, path + ": " + what + ": " + std::strerror(errno)); }

struct File {
  std::string text;
  mode_t mode = 0;
};

// None: it is not there.
Result<std::optional<File>> read_file(const std::string& path) {
  int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0 && errno == ENOENT) return std::optional<File>();
  if (fd < 0) return failed(path, "open");
  struct stat s {};
  char text[256];
  ssize_t n = ::fstat(fd, &s) == 0 ? ::read(fd, text, sizeof text) : -1;
  Status error = n < 0 ? failed(path, "read") : Status();
  ::close(fd);
  if (!error.ok()) return error;
  return std::optional(File{std::string(text, static_cast<std::size_t>(n)), s.st_mode});
}

// Whole or not at all, and never for others to read, not even for a moment.
Status write_file(const std::string& directory, const std::string& name, const wire::KeyBytes& key, mode_t mode) {
  std::string path = directory + "/" + name, fresh = path + ".new", text = wire::to_hex(key) + "\n";
  ::unlink(fresh.c_str());
  int fd = ::open(fresh.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  if (fd < 0) return failed(fresh, "create");
  bool written = ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()) && ::fsync(fd) == 0;
  Status s = written ? Status() : failed(fresh, "write");
  ::close(fd);
  if (!s.ok()) return s;
  if (::rename(fresh.c_str(), path.c_str()) != 0) return failed(path, "rename");
  int at = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (at < 0 || ::fsync(at) != 0) s = failed(directory, "fsync");
  if (at >= 0) ::close(at);
  return s;
}

Status keep_old(const std::string& path) {
  bool moved = ::rename(path.c_str(), (path + ".old").c_str()) == 0 || errno == ENOENT;
  return moved ? Status() : failed(path, "rename");
}

using SignerPtr = std::shared_ptr<const wire::Signer>;

// The public half last: while it is missing, the private one has not been shown to anybody.
Result<SignerPtr> make(const std::string& directory, const wire::KeyBytes& fresh) {
  for (const char* name : {"/unit.key", "/unit.pub"})
    if (Status s = keep_old(directory + name); !s.ok()) return s;
  auto signer = std::make_shared<const wire::Signer>(fresh);
  if (Status s = write_file(directory, "unit.key", fresh, 0600); !s.ok()) return s;
  if (Status s = write_file(directory, "unit.pub", signer->public_key(), 0644); !s.ok()) return s;
  return SignerPtr(signer);
}

}  // namespace

Result<SignerPtr> open_unit_key(const std::string& directory, const KeyRequest& request) {
  if (request.new_key) return make(directory, request.fresh);
  std::string path = directory + "/unit.key";
  auto file = read_file(path);
  auto shown = read_file(directory + "/unit.pub");
  if (!file.ok()) return file.status();
  if (!shown.ok()) return shown.status();
  if (!*file) {
    if (!request.signed_before && !*shown) return make(directory, request.fresh);
    return Status(Code::not_found, path + " is lost: the sleds obey only what it has signed. Put it back from a backup; or start luge-control once with "
                                          "--new-key, and then each sled once with the --unit-key that it names");
  }
  if (((*file)->mode & 077) != 0) return Status(Code::invalid, path + " can be read by others: chmod 600 it, and if they may have, make another with --new-key");
  auto key = wire::parse_hex_key((*file)->text);
  if (!key.ok()) return key.status().with(path);
  auto signer = std::make_shared<const wire::Signer>(*key);
  std::string hex = wire::to_hex(signer->public_key()) + "\n";
  if (!*shown || (*shown)->text != hex)
    if (Status s = write_file(directory, "unit.pub", signer->public_key(), 0644); !s.ok()) return s;
  return SignerPtr(signer);
}

}  // namespace luge::control
