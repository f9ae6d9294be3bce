#include "image/board.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <toml.hpp>

namespace luge::image {

namespace fs = std::filesystem;

std::string boards_directory() {
  if (const char* b = std::getenv("LUGE_BOARDS"); b && *b) return b;
  std::error_code e;
  return (fs::read_symlink("/proc/self/exe", e).parent_path() / "../boards").lexically_normal();
}

std::vector<std::string> board_names() {
  std::vector<std::string> names;
  std::error_code e;
  for (const auto& entry : fs::directory_iterator(boards_directory(), e))
    if (entry.path().filename() != "template" && fs::exists(entry.path() / "board.toml")) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

Result<Board> load_board(const std::string& name) {
  const std::string path = boards_directory() + "/" + name + "/board.toml";
  if (name.empty() || name.find('/') != std::string::npos || !fs::exists(path)) {
    std::string known;
    for (const std::string& n : board_names()) known += " " + n;
    return Status(Code::not_found, "there is no board '" + name + "' in " + boards_directory() + ":" + (known.empty() ? " none at all" : known));
  }
  Board b;
  try {
    const toml::value t = toml::parse(path);
    b.name = toml::find<std::string>(t, "name"), b.id = toml::find<std::uint32_t>(t, "id"), b.revisions = toml::find<std::vector<std::uint32_t>>(t, "revisions");
    b.part = toml::find<std::string>(t, "part"), b.platform = toml::find_or<std::string>(t, "platform", ""), b.platform_uuid = toml::find_or<std::string>(t, "platform_uuid", "");
    b.processor = toml::find<std::string>(t, "processor"), b.development = toml::find_or<bool>(t, "development", false);
    const toml::value& u = toml::find(t, "update");
    b.update = toml::find<std::string>(u, "kind"), b.tool = toml::find<std::string>(u, "tool"), b.tool_board = toml::find_or<std::string>(u, "tool_board", "");
    b.slot_bytes = toml::find_or<std::uint32_t>(u, "slot_bytes", 0), b.sector_bytes = toml::find_or<std::uint32_t>(u, "sector_bytes", 0);
    b.after_flash = toml::find_or<std::string>(u, "after", "");
  } catch (const std::exception& e) {
    std::string text = e.what();
    std::replace(text.begin(), text.end(), '\n', ' ');
    return Status(Code::invalid, path + ": " + text);
  }
  if (b.name != name) return Status(Code::invalid, path + ": its name is '" + b.name + "'");
  if (b.update != "xclbin" && b.update != "qspi") return Status(Code::invalid, path + ": update.kind is xclbin or qspi, not '" + b.update + "'");
  if (b.update == "qspi" && (b.slot_bytes == 0 || b.sector_bytes == 0 || b.slot_bytes % b.sector_bytes != 0))
    return Status(Code::invalid, path + ": update.slot_bytes is a multiple of update.sector_bytes");
  return b;
}

}  // namespace luge::image
