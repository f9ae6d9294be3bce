#include "image/tools.hpp"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "image/slot_rules.hpp"

extern char** environ;

namespace luge::image {

std::string to_line(const Command& c) {
  std::string line;
  for (const std::string& word : c) line += (line.empty() ? "" : " ") + word;
  return line;
}

Status run_command(const Command& c) {
  std::vector<char*> argv;
  for (const std::string& word : c) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, 2, 1);
  pid_t pid = 0;
  const int e = ::posix_spawnp(&pid, argv[0], &actions, nullptr, argv.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (e != 0) return Status(Code::not_found, c[0] + " cannot be run: " + std::strerror(e) + "; it is needed for '" + to_line(c) + "'");
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return Status();
  return Status(Code::io_error, "'" + to_line(c) + "' ended with " + (WIFEXITED(status) ? "code " + std::to_string(WEXITSTATUS(status)) : "a signal"));
}

Command examine_command(const std::string& device, const std::string& output) {
  return {"xbmgmt", "examine", "--device", device, "--report", "platform", "--format", "JSON", "--output", output, "--force"};
}

Command platform_command(const Board& board, const std::string& device) { return {"xbmgmt", "program", "--device", device, "--base", "--image", board.platform}; }

Status check_platform(const Board& board, const std::string& device, const std::string& folder) {
  const std::string output = folder + "/platform.json";
  if (Status s = run_command(examine_command(device, output)); !s.ok()) return s;
  auto report = read_file(output);
  if (!report.ok()) return report.status();
  std::string text(report->begin(), report->end()), uuid = board.platform_uuid;
  auto plain = [](std::string& s) {
    std::erase(s, '-');
    std::transform(s.begin(), s.end(), s.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  };
  plain(text), plain(uuid);
  if (uuid.empty() ? text.find(board.platform) != std::string::npos || text.find(to_line({board.platform})) != std::string::npos : text.find(uuid) != std::string::npos)
    return Status();
  // Platforms' names have no hyphens, so that they are found in the plain text, too.
  return Status(Code::fenced, "the card does not have the platform " + board.platform + "; this is not changed here. To change it, with the card out of use:\n  " +
                                  to_line(platform_command(board, device)) + "\nthen reboot cold (power off, not only restart)");
}

Command ToolFlash::dump(std::uint32_t at, std::uint32_t bytes, const std::string& to) const {
  return {"openFPGALoader", "--board", board_.tool_board, "--dump-flash", "--offset", std::to_string(at), "--file-size", std::to_string(bytes), to};
}
Command ToolFlash::write(std::uint32_t at, const std::string& from) const {
  return {"openFPGALoader", "--board", board_.tool_board, "--write-flash", "--file-type", "raw", "--offset", std::to_string(at), from};
}

std::vector<Command> ToolFlash::plan(fw::Slot to, std::uint32_t bytes) const {
  return {dump(layout_.records[0], 2 * layout_.sector, folder_ + "/records"), write(base(to), folder_ + "/slot"), dump(base(to), bytes, folder_ + "/slot.read"),
          write(layout_.records[0], folder_ + "/record"), dump(layout_.records[0], 2 * layout_.sector, folder_ + "/records.read")};
}

// A model of the flash with the card's records in it, and blank slots.
Result<FlashModel> ToolFlash::records() {
  const std::string path = folder_ + "/records";
  if (Status s = run_command(dump(layout_.records[0], 2 * layout_.sector, path)); !s.ok()) return s;
  auto bytes = read_file(path);
  if (!bytes.ok()) return bytes.status();
  if (bytes->size() != 2 * layout_.sector) return Status(Code::io_error, path + ": " + std::to_string(bytes->size()) + " bytes were read, not " + std::to_string(2 * layout_.sector));
  FlashModel model(layout_);
  std::copy(bytes->begin(), bytes->end(), model.bytes().begin() + layout_.records[0]);
  return model;
}

Result<fw::Slot> ToolFlash::next_slot() {
  auto model = records();
  if (!model.ok()) return model.status();
  fw::FlashMedium<FlashModel> medium(*model, layout_, true);
  return Slots<fw::FlashMedium<FlashModel>>(medium).target();
}

// The rules of slots.hpp run on the model; what they change there is written to the card in their order, each part read back before the next.
Status ToolFlash::update(const ByteVector& file, std::uint32_t version, const std::function<void(std::uint32_t, std::uint32_t)>& tell) {
  auto model = records();
  if (!model.ok()) return model.status();
  const std::vector<std::uint8_t> before = model->bytes();
  fw::FlashMedium<FlashModel> medium(*model, layout_, true);
  Slots<fw::FlashMedium<FlashModel>> slots(medium);
  const fw::Slot to = slots.target();
  fw::Sha256 sha;
  sha.add(file.data(), static_cast<std::uint32_t>(file.size()));
  const fw::Image image{static_cast<std::uint32_t>(file.size()), version, sha.end()};
  auto get = [&](std::uint32_t at, std::uint8_t* p, std::uint32_t n) { std::copy_n(file.begin() + at, n, p); };
  if (slots.update(image, get, [](std::uint32_t, std::uint32_t) {}) != fw::UpdateResult::done) return Status(Code::no_space, "the image does not fit into a slot");

  const auto total = static_cast<std::uint32_t>(file.size());
  if (Status s = write_file(folder_ + "/slot", file); !s.ok()) return s;
  tell(0, total);
  if (Status s = run_command(write(base(to), folder_ + "/slot")); !s.ok()) return s;
  tell(total / 2, total);
  if (Status s = run_command(dump(base(to), total, folder_ + "/slot.read")); !s.ok()) return s;
  auto read = read_file(folder_ + "/slot.read");
  if (!read.ok()) return read.status();
  if (*read != file) return Status(Code::corrupt, "what was read back from slot " + std::string(to == fw::kSlotA ? "A" : "B") + " is not what was written; the card boots what it booted");
  for (std::uint32_t sector : layout_.records) {
    if (std::equal(before.begin() + sector, before.begin() + sector + layout_.sector, model->bytes().begin() + sector)) continue;
    ByteVector record(model->bytes().begin() + sector, model->bytes().begin() + sector + layout_.sector);
    if (Status s = write_file(folder_ + "/record", record); !s.ok()) return s;
    if (Status s = run_command(write(sector, folder_ + "/record")); !s.ok()) return s;
    if (Status s = run_command(dump(sector, layout_.sector, folder_ + "/record.read")); !s.ok()) return s;
    auto back = read_file(folder_ + "/record.read");
    if (!back.ok()) return back.status();
    if (*back != record) return Status(Code::corrupt, "the record of the new slot was not written; the card boots what it booted");
  }
  tell(total, total);
  return Status();
}

}  // namespace luge::image
