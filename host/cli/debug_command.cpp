#include <CLI/CLI.hpp>
#include <fstream>
#include <iostream>
#include <memory>
#include <vector>

#include "cli/commands.hpp"
#include "wire/frame.hpp"

namespace luge::cli {
namespace {

constexpr std::size_t kMaxFile = 256 << 20;

Result<std::vector<std::byte>> read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary | std::ios::ate);
  if (!in) return Status(Code::not_found, path + ": cannot be read");
  auto size = in.tellg();
  if (size < 0 || static_cast<std::size_t>(size) > kMaxFile) return Status(Code::invalid, path + ": larger than 256 MiB");
  std::vector<std::byte> bytes(static_cast<std::size_t>(size));
  in.seekg(0);
  in.read(reinterpret_cast<char*>(bytes.data()), size);
  if (!in) return Status(Code::io_error, path + ": cannot be read");
  return bytes;
}

int print_frames(const std::string& path) {
  auto bytes = read_file(path);
  if (!bytes.ok()) return complain(bytes.status());
  Bytes rest(*bytes);
  std::uint64_t offset = 0;
  while (!rest.empty()) {
    wire::FrameHeader h;
    if (rest.size() < sizeof h) return complain(Status(Code::corrupt, "offset " + std::to_string(offset) + ": half a header"));
    std::memcpy(&h, rest.data(), sizeof h);
    if (Status s = wire::check_header(h, 0); !s.ok()) return complain(s.with("offset " + std::to_string(offset)));
    std::uint64_t length = sizeof h + std::uint64_t{h.body_bytes} + h.payload_bytes;
    if (rest.size() < length) return complain(Status(Code::corrupt, "offset " + std::to_string(offset) + ": the frame is cut short"));
    Bytes body = rest.subspan(sizeof h, h.body_bytes);
    bool good = wire::frame_crc(h, body) == h.crc;
    std::cout << "offset " << offset << ": " << wire::kind_name(static_cast<wire::Kind>(h.kind)) << ", id " << h.id
              << ", unit " << h.unit << ", source " << h.source << ", body " << h.body_bytes << ", payload "
              << h.payload_bytes << ", checksum " << (good ? "good" : "BAD") << "\n";
    rest = rest.subspan(length);
    offset += length;
  }
  return kOk;
}

}  // namespace

void add_debug_commands(CLI::App& app, Context& context) {
  auto* debug = app.add_subcommand("debug", "Print records of files and messages");
  debug->require_subcommand(1);
  auto file = std::make_shared<std::string>();
  auto* frame = debug->add_subcommand("frame", "Frames as they travel between daemons, one after the other");
  frame->add_option("FILE", *file)->required();
  frame->callback([&context, file] { context.run = [file] { return print_frames(*file); }; });
}

}  // namespace luge::cli
