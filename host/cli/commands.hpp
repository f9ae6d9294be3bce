// The commands of `luge`, one function a group: each adds its subcommands to the parser and sets `run`.
#pragma once

#include <boost/json/value.hpp>
#include <functional>
#include <string>
#include <vector>

#include "base/status.hpp"
#include "cli/exit_codes.hpp"
#include "cli/unit.hpp"

namespace CLI {
class App;
}

namespace luge::cli {

struct Context {
  std::string unit;  ///< --unit or LUGE_UNIT: directory of the unit
  std::string api;   ///< --api or LUGE_API: address of the HTTP API, instead of --unit
  bool json = false;
  std::function<int()> run;  ///< the command that was chosen; its exit code

  /// Address of the control plane.
  Result<std::string> address() const;
  Result<boost::json::value> get(const std::string& target) const;
  Result<boost::json::value> request(const std::string& method, const std::string& target,
                                     const boost::json::value& body, int timeout_seconds,
                                     unsigned* http_status = nullptr) const;
};

void add_volume_commands(CLI::App& app, Context& context);
void add_attach_commands(CLI::App& app, Context& context);
void add_status_command(CLI::App& app, Context& context);
void add_control_commands(CLI::App& app, Context& context);
void add_unit_commands(CLI::App& app, Context& context);
/// `luge debug`: rooms with a format of their own add what prints it.
void add_debug_commands(CLI::App& app, Context& context);

/// `luge card`: emulated and real cards by themselves, and what maintains them.
void add_card_commands(CLI::App& app, Context& context);
void add_card_maintenance(CLI::App& card, Context& context);
/// `luge image`
void add_image_commands(CLI::App& app, Context& context);
/// `luge vm`
void add_vm_commands(CLI::App& app, Context& context);

/// GET /v1/status, with pids out of the unit's directory where a daemon names none.
Result<boost::json::value> fetch_status(const Context& context);
void print_status(const boost::json::value& status);
void print_json(const boost::json::value& value);

// Members of answers; 0, "" or empty if they are not there.
std::string text_of(const boost::json::value& v, std::string_view key);
std::uint64_t number_of(const boost::json::value& v, std::string_view key);
const boost::json::array& array_of(const boost::json::value& v, std::string_view key);
std::string joined(const boost::json::array& names);
/// A figure, or "?" for null.
std::string figure(const boost::json::value& v, std::string_view key, bool bytes);

}  // namespace luge::cli
