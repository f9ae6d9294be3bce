// Programs of others that program cards: xbmgmt (XRT) and openFPGALoader. What is run is said beforehand, word by word; nothing goes through a shell.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "image/board.hpp"
#include "image/flash_model.hpp"
#include "image/keys.hpp"

namespace luge::image {

using Command = std::vector<std::string>;
std::string to_line(const Command& c);
/// Runs it with this process's environment, output to standard error. not_found: no such program on PATH; io_error: it ended with another code than 0.
Status run_command(const Command& c);

/// Whether the platform on the card is the one that the board says. fenced: another one; the text has the line to run. `device`: its PCI address.
Status check_platform(const Board& board, const std::string& device, const std::string& scratch_folder);
Command examine_command(const std::string& device, const std::string& output);
Command platform_command(const Board& board, const std::string& device);

/// A real flash behind openFPGALoader, in whole sectors: read the records, write the slot, read it back, and only then write the other record sector.
class ToolFlash {
 public:
  ToolFlash(const Board& board, std::string folder) : board_(board), layout_(flash_layout(board.slot_bytes, board.sector_bytes)), folder_(std::move(folder)) {}
  /// The commands of update() for a card whose slot `to` is next.
  std::vector<Command> plan(fw::Slot to, std::uint32_t bytes) const;
  Result<fw::Slot> next_slot();
  /// As CardStore::update().
  Status update(const ByteVector& file, std::uint32_t version, const std::function<void(std::uint32_t, std::uint32_t)>& tell);

 private:
  Command dump(std::uint32_t at, std::uint32_t bytes, const std::string& to) const;
  Command write(std::uint32_t at, const std::string& from) const;
  Result<FlashModel> records();
  std::uint32_t base(fw::Slot s) const { return s == fw::kSlotA ? layout_.a : layout_.b; }

  Board board_;
  fw::FlashLayout layout_;
  std::string folder_;
};

}  // namespace luge::image
