#include "base/config.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <charconv>
#include <deque>
#include <fstream>
#include <limits>
#include <sstream>
#include <toml.hpp>

#include "base/check.hpp"

namespace luge {
namespace {

constexpr std::uint64_t kMaxNumber = std::numeric_limits<std::int64_t>::max();

struct Unit {
  std::string_view name;
  std::uint64_t factor;
};

// Digits, then one of `units` (the first is meant when there is none).
Result<std::uint64_t> parse_scaled(std::string_view text, std::span<const Unit> units, const char* form) {
  Status bad(Code::invalid, "'" + std::string(text) + "' is not " + form);
  std::uint64_t n = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
  if (error != std::errc{}) return bad;
  std::string_view unit = text.substr(static_cast<std::size_t>(end - text.data()));
  if (unit.starts_with(' ')) unit.remove_prefix(1);
  for (const Unit& u : units) {
    if (u.name != unit) continue;
    if (n > kMaxNumber / u.factor) return Status(Code::invalid, "'" + std::string(text) + "' is too large");
    return n * u.factor;
  }
  return bad;
}

std::string_view type_name(Option::Type t) {
  switch (t) {
    case Option::Type::text: return "TEXT";
    case Option::Type::number: return "NUMBER";
    case Option::Type::flag: return "BOOL";
    case Option::Type::bytes: return "BYTES";
    case Option::Type::duration: return "DURATION";
    case Option::Type::texts: return "TEXT ...";
  }
  return "";
}

}  // namespace

Result<std::uint64_t> parse_bytes(std::string_view text) {
  static constexpr std::uint64_t K = 1024;
  static constexpr std::array<Unit, 14> units{{{"", 1}, {"B", 1}, {"K", K}, {"KiB", K}, {"M", K * K}, {"MiB", K * K},
      {"G", K * K * K}, {"GiB", K * K * K}, {"T", K * K * K * K}, {"TiB", K * K * K * K}, {"P", K * K * K * K * K},
      {"PiB", K * K * K * K * K}, {"k", K}, {"kiB", K}}};
  return parse_scaled(text, units, "a size such as 4096, 64KiB, 16MiB, 2GiB or 1TiB");
}

Result<std::chrono::nanoseconds> parse_duration(std::string_view text) {
  static constexpr std::array<Unit, 6> units{{{"ns", 1}, {"us", 1'000}, {"ms", 1'000'000}, {"s", 1'000'000'000},
      {"min", 60'000'000'000}, {"h", 3'600'000'000'000}}};
  if (text == "0") return std::chrono::nanoseconds(0);
  auto n = parse_scaled(text, units, "a duration such as 500us, 300ms, 2s, 5min or 1h");
  if (!n.ok()) return n.status();
  return std::chrono::nanoseconds(static_cast<std::int64_t>(*n));
}

Result<std::uint64_t> parse_number(std::string_view text) {
  bool hex = text.starts_with("0x");
  std::string_view digits = hex ? text.substr(2) : text;
  std::uint64_t n = 0;
  auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), n, hex ? 16 : 10);
  if (error != std::errc{} || end != digits.data() + digits.size() || n > kMaxNumber)
    return Status(Code::invalid, "'" + std::string(text) + "' is not a whole number from 0 to 2^63-1");
  return n;
}

std::optional<std::string> nearest(std::string_view word, std::span<const std::string> known) {
  std::optional<std::string> best;
  std::size_t best_edits = std::max<std::size_t>(1, word.size() / 3) + 1;
  for (const std::string& k : known) {
    std::vector<std::size_t> row(k.size() + 1);
    for (std::size_t j = 0; j <= k.size(); ++j) row[j] = j;
    for (std::size_t i = 1; i <= word.size(); ++i) {
      std::size_t diagonal = std::exchange(row[0], i);
      for (std::size_t j = 1; j <= k.size(); ++j) {
        std::size_t substituted = diagonal + (word[i - 1] != k[j - 1]);
        diagonal = row[j];
        row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
      }
    }
    if (row[k.size()] < best_edits) {
      best_edits = row[k.size()];
      best = k;
    }
  }
  return best;
}

const Settings::Value& Settings::value(std::string_view name, Option::Type type) const {
  auto it = values_.find(name);
  LUGE_CHECK(it != values_.end() && it->second.type == type);
  return it->second;
}

const std::string& Settings::text(std::string_view name) const {
  static const std::string none;
  const Value& v = value(name, Option::Type::text);
  return v.texts.empty() ? none : v.texts.front();
}
std::uint64_t Settings::number(std::string_view name) const { return value(name, Option::Type::number).number; }
bool Settings::flag(std::string_view name) const { return value(name, Option::Type::flag).number != 0; }
std::uint64_t Settings::bytes(std::string_view name) const { return value(name, Option::Type::bytes).number; }
std::chrono::nanoseconds Settings::duration(std::string_view name) const {
  return std::chrono::nanoseconds(static_cast<std::int64_t>(value(name, Option::Type::duration).number));
}
const std::vector<std::string>& Settings::texts(std::string_view name) const {
  return value(name, Option::Type::texts).texts;
}
bool Settings::given(std::string_view name) const {
  auto it = values_.find(name);
  LUGE_CHECK(it != values_.end());
  return it->second.given;
}

// One use: defaults, then the file, then the flags, then what is required.
class SettingsParser {
 public:
  explicit SettingsParser(std::span<const Option> table) : table_(table) {
    for (const Option& o : table) {
      known_.push_back(o.name);
      settings_.values_[o.name].type = o.type;
      if (o.fallback.empty()) continue;
      Status s = set(o, {o.fallback}, false);
      LUGE_CHECK(s.ok());
    }
  }

  Status read_file(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    if (!in) return Status(Code::not_found, path + ": cannot be opened");
    try {
      toml::value root = toml::parse(in, path);
      for (const auto& [key, value] : root.as_table())
        if (Status s = read_key(key, value); !s.ok())
          return s.with(path + ":" + std::to_string(value.location().line()));
      return Status();
    } catch (const std::exception& e) {
      return Status(Code::invalid, path + ": " + e.what());
    }
  }

  Status set_flag(const Option& o, const std::vector<std::string>& texts) {
    Status s = set(o, texts, true);
    return s.ok() ? s : s.with("--" + o.name);
  }

  Status check_required() const {
    for (const Option& o : table_)
      if (o.required && !settings_.given(o.name))
        return Status(Code::invalid, "'" + o.name + "' is missing: give --" + o.name + " or put it into the file of "
                                     "--config");
    return Status();
  }

  Settings take() { return std::move(settings_); }

 private:
  Status read_key(const std::string& key, const toml::value& value) {
    auto it = std::find_if(table_.begin(), table_.end(), [&](const Option& o) { return o.name == key; });
    if (it == table_.end()) {
      auto close = nearest(key, known_);
      return Status(Code::invalid, "unknown key '" + key + "'" + (close ? "; did you mean '" + *close + "'?" : ""));
    }
    std::vector<std::string> texts;
    bool list = value.is_array() && it->type == Option::Type::texts;
    if (list) {
      for (const toml::value& v : value.as_array())
        if (!add_text(v, texts)) return wrong_kind(*it);
    } else if (!add_text(value, texts)) {
      return wrong_kind(*it);
    }
    Status s = set(*it, texts, true);
    return s.ok() ? s : s.with("'" + key + "'");
  }

  static Status wrong_kind(const Option& o) {
    return Status(Code::invalid, "'" + o.name + "' must be of the kind " + std::string(type_name(o.type)));
  }

  static bool add_text(const toml::value& v, std::vector<std::string>& texts) {
    if (v.is_string()) texts.push_back(v.as_string().str);
    else if (v.is_integer()) texts.push_back(std::to_string(v.as_integer()));
    else if (v.is_boolean()) texts.push_back(v.as_boolean() ? "true" : "false");
    else return false;
    return true;
  }

  Status set(const Option& o, const std::vector<std::string>& texts, bool given) {
    Settings::Value& v = settings_.values_[o.name];
    const std::string& text = texts.empty() ? o.fallback : texts.back();
    switch (o.type) {
      case Option::Type::text: v.texts = {text}; break;
      case Option::Type::texts: v.texts = texts; break;
      case Option::Type::flag:
        if (text != "true" && text != "false")
          return Status(Code::invalid, "'" + text + "' is neither true nor false");
        v.number = text == "true";
        break;
      case Option::Type::number:
        if (auto n = parse_number(text); n.ok()) v.number = *n;
        else return n.status();
        break;
      case Option::Type::bytes:
        if (auto n = parse_bytes(text); n.ok()) v.number = *n;
        else return n.status();
        break;
      case Option::Type::duration:
        if (auto n = parse_duration(text); n.ok()) v.number = static_cast<std::uint64_t>(n->count());
        else return n.status();
        break;
    }
    v.given = given;
    return Status();
  }

  std::span<const Option> table_;
  std::vector<std::string> known_;
  Settings settings_;
};

namespace {

struct Flags {
  explicit Flags(std::span<const Option> table, CLI::App& app) : texts(table.size()), on(table.size()) {
    app.add_option("--config", config, "TOML file with the same names as keys; flags win over it")->type_name("FILE");
    for (std::size_t i = 0; i < table.size(); ++i) {
      const Option& o = table[i];
      std::string help = o.help + (o.fallback.empty() ? "" : " [" + o.fallback + "]");
      if (o.type == Option::Type::flag) {
        on[i] = false;
        options.push_back(app.add_flag("--" + o.name + ",!--no-" + o.name, on[i], help));
      } else {
        auto* added = app.add_option("--" + o.name, texts[i], help)->type_name(std::string(type_name(o.type)));
        added->expected(1)->multi_option_policy(o.type == Option::Type::texts ? CLI::MultiOptionPolicy::TakeAll
                                                                              : CLI::MultiOptionPolicy::TakeLast);
        options.push_back(added);
      }
    }
  }
  std::string config;
  std::vector<std::vector<std::string>> texts;
  std::deque<bool> on;  // a reference to each element is kept
  std::vector<CLI::Option*> options;
};

CommandLine failed(const std::string& program, const std::string& text) {
  CommandLine c;
  c.exit_code = 2;
  c.output = program + ": " + text + "\n" + program + " --help tells more\n";
  return c;
}

std::string unknown_flag_hint(const CLI::App& app, std::span<const Option> table) {
  std::vector<std::string> known{"--config", "--help", "--version"};
  for (const Option& o : table) known.push_back("--" + o.name);
  for (const std::string& word : app.remaining())
    if (word.starts_with("--"))
      if (auto close = nearest(word.substr(0, word.find('=')), known)) return "; did you mean " + *close + "?";
  return "";
}

}  // namespace

CommandLine parse_command_line(int argc, const char* const* argv, const std::string& program,
                               const std::string& description, std::span<const Option> table) {
  CLI::App app(description, program);
  app.set_version_flag("--version", program + " " + LUGE_VERSION);
  app.get_formatter()->column_width(36);
  Flags flags(table, app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ExtrasError& e) {
    return failed(program, std::string(e.what()) + unknown_flag_hint(app, table));
  } catch (const CLI::Success& e) {
    std::ostringstream out;
    app.exit(e, out, out);
    CommandLine c;
    c.exit_code = 0;
    c.output = out.str();
    return c;
  } catch (const CLI::ParseError& e) {
    return failed(program, e.what());
  }
  SettingsParser parser(table);
  if (!flags.config.empty())
    if (Status s = parser.read_file(flags.config); !s.ok()) return failed(program, s.text());
  for (std::size_t i = 0; i < table.size(); ++i) {
    if (flags.options[i]->count() == 0) continue;
    bool is_flag = table[i].type == Option::Type::flag;
    Status s = parser.set_flag(table[i], is_flag ? std::vector<std::string>{flags.on[i] ? "true" : "false"}
                                                 : flags.texts[i]);
    if (!s.ok()) return failed(program, s.text());
  }
  if (Status s = parser.check_required(); !s.ok()) return failed(program, s.text());
  CommandLine c;
  c.settings = parser.take();
  return c;
}

}  // namespace luge
