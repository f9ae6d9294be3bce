#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iostream>
#include <memory>
#include <vector>

#include "cli/commands.hpp"
#include "base/config.hpp"
#include "base/crc32c.hpp"
#include "cli/debug_log.hpp"
#include "coding/chunk_header.hpp"
#include "wire/frame.hpp"

namespace luge::cli {
namespace {

constexpr std::size_t kMaxFile = 256 << 20;

Result<std::vector<std::byte>> read_file(const std::string& path, std::uint64_t offset, std::size_t limit) {
  std::ifstream in(path, std::ios::binary | std::ios::ate);
  if (!in) return Status(Code::not_found, path + ": cannot be read");
  auto size = static_cast<std::uint64_t>(in.tellg());
  if (offset > size) return Status(Code::invalid, path + ": has only " + std::to_string(size) + " bytes");
  std::vector<std::byte> bytes(std::min<std::uint64_t>(size - offset, limit));
  in.seekg(static_cast<std::streamoff>(offset));
  in.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (!in) return Status(Code::io_error, path + ": cannot be read");
  return bytes;
}

int print_frames(const std::string& path, std::uint64_t offset) {
  auto bytes = read_file(path, offset, kMaxFile);
  if (!bytes.ok()) return complain(bytes.status());
  Bytes rest(*bytes);
  while (!rest.empty()) {
    std::string where = "offset " + std::to_string(offset);
    wire::FrameHeader h;
    if (rest.size() < sizeof h) return complain(Status(Code::corrupt, where + ": half a header"));
    std::memcpy(&h, rest.data(), sizeof h);
    if (Status s = wire::check_header(h, 0); !s.ok()) return complain(s.with(where));
    std::uint64_t length = sizeof h + std::uint64_t{h.body_bytes} + h.payload_bytes;
    if (rest.size() < length) return complain(Status(Code::corrupt, where + ": the frame is cut short"));
    Bytes body = rest.subspan(sizeof h, h.body_bytes);
    bool good = wire::frame_crc(h, body) == h.crc;
    std::cout << where << ": " << wire::kind_name(static_cast<wire::Kind>(h.kind)) << ", id " << h.id << ", unit "
              << h.unit << ", source " << h.source << ", body " << h.body_bytes << ", payload " << h.payload_bytes
              << ", checksum " << (good ? "good" : "BAD") << "\n";
    rest = rest.subspan(length);
    offset += length;
  }
  return kOk;
}

// One chunk slot: the header, and whether each block of the chunk behind it has the CRC that the header names.
int print_chunk(const std::string& path, std::uint64_t offset) {
  constexpr std::uint64_t kPadding = ~0ull;
  auto bytes = read_file(path, offset, 16u << 20);
  if (!bytes.ok()) return complain(bytes.status());
  auto header = coding::parse_chunk_header(*bytes);
  if (header.code() == Code::not_found) return std::cout << "slot never written\n", static_cast<int>(kOk);
  if (!header.ok()) return complain(header.status());
  const coding::ChunkHeaderFields& f = header->fields();
  std::cout << (f.written ? "written" : "freed") << " slot, unit " << f.unit << ", generation " << f.generation << "\n";
  if (!f.written) return kOk;
  bool parity = f.chunk_index >= f.layout.k;
  std::cout << "stripe " << to_string(f.stripe) << ", layout " << to_string(f.layout) << ", chunk " << f.chunk_index
            << (parity ? " (parity)" : " (data)") << " of " << f.chunk_bytes << " bytes, header " << header->header_bytes()
            << " bytes\n";
  for (std::uint32_t i = 0; i < header->blocks_per_chunk(); ++i) {
    fbs::BlockIdentity id = header->identity(f.chunk_index, i);
    std::uint64_t at = header->header_bytes() + std::uint64_t{i} * kBlockBytes;
    const char* verdict = "not in the file";
    if (at + kBlockBytes <= bytes->size())
      verdict = crc32c(Bytes(*bytes).subspan(at, kBlockBytes)) == id.crc() ? "good" : "BAD";
    std::cout << "  block " << i << ": ";
    if (parity) std::cout << "parity";
    else if (id.lba() == kPadding) std::cout << "padding";
    else std::cout << "lba " << id.lba() << ", lsn " << id.lsn();
    std::cout << ", crc " << std::hex << id.crc() << std::dec << ", " << verdict << "\n";
  }
  return kOk;
}

class FileSource final : public ByteSource {
 public:
  static Result<std::unique_ptr<FileSource>> open(const std::string& path) {
    int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return Status(errno == ENOENT ? Code::not_found : Code::io_error, path + ": cannot be read: " + std::strerror(errno));
    std::unique_ptr<FileSource> file(new FileSource(fd, path));
    struct stat s;
    if (::fstat(fd, &s) != 0 || !S_ISREG(s.st_mode)) return Status(Code::invalid, path + " is no regular file");
    file->size_ = static_cast<std::uint64_t>(s.st_size);
    return file;
  }
  ~FileSource() override { ::close(fd_); }
  std::uint64_t size() const override { return size_; }
  Result<Buffer> read(std::uint64_t offset, std::uint64_t length) override {
    Buffer b = Buffer::allocate(length);
    std::uint64_t have = 0;
    while (have < length) {
      ssize_t n = ::pread(fd_, b.data() + have, length - have, static_cast<off_t>(offset + have));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return Status(Code::io_error, path_ + " at " + std::to_string(offset + have) + ": " + std::strerror(errno));
      if (n == 0) break;
      have += static_cast<std::uint64_t>(n);
    }
    return b.slice(0, have);
  }

 private:
  FileSource(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  int fd_;
  std::string path_;
  std::uint64_t size_ = 0;
};

struct LogArguments {
  std::string file, from = "0", segment_bytes = "0";
  std::optional<std::uint32_t> segment;
  bool old = false;
};

int print_log_file(const LogArguments& a, bool as_json) {
  auto from = parse_bytes(a.from), segment_bytes = parse_bytes(a.segment_bytes);
  if (!from.ok()) return complain(from.status().with("--from"));
  if (!segment_bytes.ok()) return complain(segment_bytes.status().with("--segment-bytes"));
  auto file = FileSource::open(a.file);
  if (!file.ok()) return complain(file.status());
  Status s = print_log(**file, {*from, a.segment, *segment_bytes, a.old, as_json}, std::cout);
  std::cout.flush();
  return s.ok() ? static_cast<int>(kOk) : complain(s.with(a.file));
}

void add_log_command(CLI::App& debug, Context& context) {
  auto a = std::make_shared<LogArguments>();
  auto* sub = debug.add_subcommand("log", "Records of a head's log: log-data, log-meta, or its metadata store: meta");
  sub->add_option("FILE", a->file)->required();
  sub->add_option("--segment", a->segment, "only this one, from 0 on");
  sub->add_option("--from", a->from, "offset in the file to begin at; a multiple of 4096, as 16MiB");
  sub->add_option("--segment-bytes", a->segment_bytes, "size of a segment; default: 16MiB of log-data, 4MiB of log-meta");
  sub->add_flag("--old", a->old, "also what earlier uses of a segment, and a superseded half of a metadata store, have left");
  sub->footer("One line a record; with --json one JSON object a line. Exit code 1 if something is damaged: it says where and goes on.\n"
              "A torn end is no damage. Example: luge debug log $LUGE_UNIT/head-1/data/log-meta");
  sub->callback([&context, a] { context.run = [&context, a] { return print_log_file(*a, context.json); }; });
}

// What can be printed. A room with another format adds its row.
struct Printer {
  const char* name;
  const char* help;
  int (*print)(const std::string& path, std::uint64_t offset);
};
constexpr Printer kPrinters[] = {
    {"frame", "Frames as they travel between daemons, one after the other", print_frames},
    {"chunk", "One chunk slot of a sled's device, and the CRCs of its blocks", print_chunk},
};

}  // namespace

void add_debug_commands(CLI::App& app, Context& context) {
  auto* debug = app.add_subcommand("debug", "Print records of files and messages");
  debug->require_subcommand(1);
  add_log_command(*debug, context);
  for (const Printer& p : kPrinters) {
    struct Arguments {
      std::string file;
      std::uint64_t offset = 0;
    };
    auto a = std::make_shared<Arguments>();
    auto* sub = debug->add_subcommand(p.name, p.help);
    sub->add_option("FILE", a->file)->required();
    sub->add_option("--offset", a->offset, "bytes from the beginning of the file");
    sub->callback([&context, a, print = p.print] { context.run = [a, print] { return print(a->file, a->offset); }; });
  }
}

}  // namespace luge::cli
