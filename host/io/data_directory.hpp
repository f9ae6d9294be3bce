// A daemon's data directory: one process at a time, and always the same node of the same unit in the same role.
// The file "identity" in it says whose it is (TOML); "lock" is held with flock while a process uses it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/ids.hpp"
#include "base/status.hpp"

namespace luge::io {

inline constexpr std::uint64_t kDirectoryFormat = 1;

class DataDirectory {
 public:
  struct Identity {
    std::string role;
    NodeId id = 0;
    std::uint64_t unit = 0;  ///< 0: not known yet
  };
  /// Makes the directory (not its parents) and the identity file if they are not there. exists: another process
  /// has it. wrong_unit: of another unit. wrong_version: of another format. invalid: of another node or role.
  static Result<std::unique_ptr<DataDirectory>> open(const std::string& path, const Identity& self);
  ~DataDirectory();
  const std::string& path() const { return path_; }
  std::uint64_t unit() const { return identity_.unit; }
  /// Durable when it returns. wrong_unit: another has been written before.
  Status remember_unit(std::uint64_t unit);

 private:
  DataDirectory(std::string path, int lock, Identity identity);
  Status write_identity() const;
  std::string path_;
  int lock_;
  Identity identity_;
};

}  // namespace luge::io
