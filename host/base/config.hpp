// Settings of a program: one table of options makes the flags, the TOML keys, the defaults, --help and all checks.
// A flag wins over the file, the file over the default. An unknown key or flag is an error that names the nearest
// known one. No I/O but reading the file that --config names.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.hpp"

namespace luge {

struct Option {
  enum class Type {
    text,
    number,    // 0 .. 2^63-1, decimal or 0x...
    flag,      // true or false; on the command line --name or --no-name
    bytes,     // "64MiB", "4096", "1T": K, M, G, T are powers of 1024
    duration,  // "300ms", "2s": ns, us, ms, s, min, h
    texts,     // any number of texts; on the command line given several times
  };
  std::string name;  ///< "log-level": the flag is --log-level, the TOML key log-level
  Type type = Type::text;
  std::string fallback;  ///< as it would be written; empty: none (text "", number 0, false, no texts)
  std::string help;
  bool required = false;
};

/// Values by name. Asking for a name that is not in the table, or as another type, is a bug and ends the process.
class Settings {
 public:
  const std::string& text(std::string_view name) const;
  std::uint64_t number(std::string_view name) const;
  bool flag(std::string_view name) const;
  std::uint64_t bytes(std::string_view name) const;
  std::chrono::nanoseconds duration(std::string_view name) const;
  const std::vector<std::string>& texts(std::string_view name) const;
  /// Given by flag or file, not by default.
  bool given(std::string_view name) const;

 private:
  friend class SettingsParser;
  struct Value {
    Option::Type type = Option::Type::text;
    std::vector<std::string> texts;
    std::uint64_t number = 0;
    bool given = false;
  };
  const Value& value(std::string_view name, Option::Type type) const;
  std::map<std::string, Value, std::less<>> values_;
};

struct CommandLine {
  /// Leave with this code after printing `output` (0: --help or --version, to stdout; 2: an error, to stderr).
  std::optional<int> exit_code;
  std::string output;
  Settings settings;
};

/// Reads the flags and the file of --config; --help, --version and --config need not be in the table.
CommandLine parse_command_line(int argc, const char* const* argv, const std::string& program,
                               const std::string& description, std::span<const Option> table);

Result<std::uint64_t> parse_bytes(std::string_view text);
Result<std::chrono::nanoseconds> parse_duration(std::string_view text);
Result<std::uint64_t> parse_number(std::string_view text);

/// The one of `known` with the fewest edits to `word`, if that is close enough to be a typing error.
std::optional<std::string> nearest(std::string_view word, std::span<const std::string> known);

}  // namespace luge
