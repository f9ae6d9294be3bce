// What boards/NAME/board.toml says, as far as programs of the host need it. docs/boards.md has every key.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.hpp"

namespace luge::image {

struct Board {
  std::string name, part, platform, platform_uuid;
  std::uint32_t id = 0;
  std::vector<std::uint32_t> revisions;
  std::string processor;             ///< "microblaze-v" or "none"
  std::string update;                ///< "xclbin" or "qspi"
  std::string tool, tool_board;      ///< xbmgmt, openFPGALoader, none (emulated); what the tool calls the board
  std::uint32_t slot_bytes = 0, sector_bytes = 0;  ///< qspi
  bool development = false;
  std::string after_flash;           ///< what to do then, for people
};

/// Where boards are: $LUGE_BOARDS, else boards/ beside the folder of the running program.
std::string boards_directory();
std::vector<std::string> board_names();
/// not_found: no such board; invalid: its board.toml contradicts itself, the text says where.
Result<Board> load_board(const std::string& name);

}  // namespace luge::image
