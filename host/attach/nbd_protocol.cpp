#include "attach/nbd_protocol.hpp"

#include <algorithm>

namespace luge::attach::nbd {
namespace {

template <class T>
void put(std::string& s, T v) {
  for (int shift = static_cast<int>(sizeof(T)) * 8 - 8; shift >= 0; shift -= 8) s += static_cast<char>(v >> shift & 0xff);
}

template <class T>
T take(Bytes& b) {
  T v = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i) v = static_cast<T>(v << 8 | static_cast<std::uint8_t>(b[i]));
  b = b.subspan(sizeof(T));
  return v;
}

// Transmission flags. Flush and FUA cost nothing (every answered write is durable on all required heads), and all
// connections of an export share one session, so several connections see each other's writes.
std::uint16_t flags_of(const ExportInfo& e, const Agreed& agreed) {
  enum : std::uint16_t { has_flags = 1, read_only = 2, flush = 4, fua = 8, trim = 32, zeroes = 64, dont_fragment = 128, multi_conn = 256, fast_zero = 2048 };
  unsigned f = has_flags | flush | fua | trim | zeroes | multi_conn | fast_zero;  // zeroes are one record, whatever their length
  return static_cast<std::uint16_t>(f | (e.read_only ? read_only : 0) | (agreed.structured ? dont_fragment : 0));
}

std::string chunk_header(std::uint64_t cookie, ChunkType type, std::uint32_t length, bool done) {
  std::string s;
  put(s, kChunkMagic);
  put(s, std::uint16_t{done});
  put(s, static_cast<std::uint16_t>(type));
  put(s, cookie);
  put(s, length);
  return s;
}

// A text behind its length, off the front of `b`.
bool take_text(Bytes& b, std::size_t limit, std::string& out) {
  if (b.size() < 4) return false;
  std::uint32_t n = take<std::uint32_t>(b);
  if (n > b.size() || n > limit) return false;
  out.assign(reinterpret_cast<const char*>(b.data()), n);
  b = b.subspan(n);
  return true;
}

constexpr std::uint16_t kInfoExport = 0, kInfoName = 1, kInfoBlockSize = 3;

}  // namespace

std::string greeting() {
  std::string s;
  put(s, kInitMagic);
  put(s, kOptionMagic);
  put(s, std::uint16_t{3});  // fixed newstyle, no zeroes
  return s;
}

bool known_client_flags(std::span<const std::byte, 4> f) {
  return f[0] == std::byte{0} && f[1] == std::byte{0} && f[2] == std::byte{0} && (f[3] & ~std::byte{3}) == std::byte{0};
}

Result<OptionHeader> parse_option_header(Bytes b) {
  if (b.size() < kOptionHeaderBytes) return Status(Code::invalid, "option is cut short");
  if (take<std::uint64_t>(b) != kOptionMagic) return Status(Code::invalid, "option has a wrong magic number");
  OptionHeader h;
  h.option = take<std::uint32_t>(b);
  h.length = take<std::uint32_t>(b);
  if (h.length > kMaxOptionBytes) return Status(Code::invalid, "option of absurd length " + std::to_string(h.length));
  return h;
}

Result<InfoRequest> parse_info(Bytes b) {
  auto bad = [] { return Status(Code::invalid, "information request does not parse"); };
  InfoRequest r;
  if (!take_text(b, 4096, r.name)) return bad();
  if (b.size() < 2) return bad();
  std::uint16_t n = take<std::uint16_t>(b);
  if (b.size() != std::size_t{n} * 2) return bad();
  for (std::uint16_t i = 0; i < n; ++i) r.items.push_back(take<std::uint16_t>(b));
  return r;
}

Result<MetaRequest> parse_meta_request(Bytes b) {
  Status bad(Code::invalid, "request for metadata contexts does not parse");
  MetaRequest r;
  if (!take_text(b, 4096, r.name) || b.size() < 4) return bad;
  std::uint32_t n = take<std::uint32_t>(b);
  if (n > b.size() / 4) return bad;
  r.queries.resize(n);
  for (std::string& q : r.queries)
    if (!take_text(b, 4096, q)) return bad;
  if (!b.empty()) return bad;
  return r;
}

bool selects_allocation(const MetaRequest& r, bool list) {
  if (list && r.queries.empty()) return true;
  return std::any_of(r.queries.begin(), r.queries.end(), [&](const std::string& q) { return q == kAllocationContext || (list && q == "base:"); });
}

Result<Request> parse_request(Bytes b) {
  if (b.size() < kRequestBytes) return Status(Code::invalid, "request is cut short");
  if (take<std::uint32_t>(b) != kRequestMagic) return Status(Code::invalid, "request has a wrong magic number");
  Request r;
  r.flags = take<std::uint16_t>(b);
  r.type = take<std::uint16_t>(b);
  r.cookie = take<std::uint64_t>(b);
  r.offset = take<std::uint64_t>(b);
  r.length = take<std::uint32_t>(b);
  if (r.type == static_cast<std::uint16_t>(Command::write) && r.length > kMaxRequestBytes)
    return Status(Code::invalid, "write of absurd length " + std::to_string(r.length));
  return r;
}

namespace {

// A server that offers FUA takes it on every command. A flag that it does not know changes what the request means.
unsigned known_flags(Command command, const Agreed& agreed) {
  switch (command) {
    case Command::read: return flag_fua | (agreed.structured ? flag_dont_fragment : 0);
    case Command::write_zeroes: return flag_fua | flag_no_hole | flag_fast_zero;
    case Command::block_status: return flag_fua | flag_request_one;
    default: return flag_fua;
  }
}

}  // namespace

Error judge(const Request& r, const ExportInfo& e, const Agreed& agreed) {
  auto command = static_cast<Command>(r.type);
  if ((r.flags & ~known_flags(command, agreed)) != 0) return einval;
  if (command == Command::block_status) return agreed.allocation && r.length != 0 && r.offset < e.bytes && r.length <= e.bytes - r.offset ? ok : einval;
  if (command == Command::flush) return r.offset == 0 && r.length == 0 ? ok : einval;
  bool changes = command == Command::write || command == Command::trim || command == Command::write_zeroes;
  if (!changes && command != Command::read && command != Command::cache) return einval;
  if (changes && e.read_only) return eperm;
  if (r.offset > e.bytes || r.length > e.bytes - r.offset)
    return command == Command::write || command == Command::write_zeroes ? enospc : einval;
  if (command == Command::read && r.length > kMaxRequestBytes) return einval;
  return ok;
}

std::string option_reply(std::uint32_t option, std::uint32_t type, std::string_view data) {
  std::string s;
  put(s, kOptionReplyMagic);
  put(s, option);
  put(s, type);
  put(s, static_cast<std::uint32_t>(data.size()));
  s += data;
  return s;
}

std::string info_replies(std::uint32_t option, const ExportInfo& e, const InfoRequest& asked, const Agreed& agreed) {
  std::string body;
  put(body, kInfoExport);
  put(body, e.bytes);
  put(body, flags_of(e, agreed));
  std::string all = option_reply(option, kInfo, body);
  body.clear();
  put(body, kInfoBlockSize);
  put(body, std::uint32_t{1});  // sub-block writes are right, if slower
  put(body, std::uint32_t{4096});
  put(body, kMaxRequestBytes);
  all += option_reply(option, kInfo, body);
  for (std::uint16_t item : asked.items) {
    if (item != kInfoName) continue;
    body.clear();
    put(body, kInfoName);
    body += e.name;
    all += option_reply(option, kInfo, body);
  }
  return all + option_reply(option, kAck, "");
}

std::string meta_replies(std::uint32_t option, bool allocation) {
  std::string all;
  if (allocation) {
    std::string body;
    put(body, static_cast<Option>(option) == Option::set_meta_context ? kAllocationId : std::uint32_t{0});
    all = option_reply(option, kMetaContext, body + kAllocationContext);
  }
  return all + option_reply(option, kAck, "");
}

std::string export_name_answer(const ExportInfo& e, bool no_zeroes, const Agreed& agreed) {
  std::string s;
  put(s, e.bytes);
  put(s, flags_of(e, agreed));
  if (!no_zeroes) s.append(124, '\0');
  return s;
}

std::string list_replies(const std::vector<ExportInfo>& exports) {
  std::string all;
  for (const ExportInfo& e : exports) {
    std::string body;
    put(body, static_cast<std::uint32_t>(e.name.size()));
    all += option_reply(static_cast<std::uint32_t>(Option::list), kServer, body + e.name);
  }
  return all + option_reply(static_cast<std::uint32_t>(Option::list), kAck, "");
}

std::string simple_reply(std::uint64_t cookie, Error error) {
  std::string s;
  put(s, kReplyMagic);
  put(s, static_cast<std::uint32_t>(error));
  put(s, cookie);
  return s;
}

std::string data_chunk(std::uint64_t cookie, std::uint64_t offset, std::uint32_t length, bool done) {
  std::string s = chunk_header(cookie, ChunkType::offset_data, 8 + length, done);
  put(s, offset);
  return s;
}

std::string hole_chunk(std::uint64_t cookie, std::uint64_t offset, std::uint32_t length, bool done) {
  std::string s = chunk_header(cookie, ChunkType::offset_hole, 12, done);
  put(s, offset);
  put(s, length);
  return s;
}

std::string none_chunk(std::uint64_t cookie) { return chunk_header(cookie, ChunkType::none, 0, true); }

std::string error_chunk(std::uint64_t cookie, Error error, std::string_view text) {
  text = text.substr(0, 4096);
  std::string s = chunk_header(cookie, ChunkType::error, static_cast<std::uint32_t>(6 + text.size()), true);
  put(s, static_cast<std::uint32_t>(error));
  put(s, static_cast<std::uint16_t>(text.size()));
  s += text;
  return s;
}

std::string status_chunk(std::uint64_t cookie, std::span<const StatusRun> runs) {
  enum : std::uint32_t { hole = 1, reads_zero = 2 };
  std::string s = chunk_header(cookie, ChunkType::block_status, static_cast<std::uint32_t>(4 + 8 * runs.size()), true);
  put(s, kAllocationId);
  for (const StatusRun& r : runs) {
    put(s, r.bytes);
    put(s, r.data ? std::uint32_t{0} : static_cast<std::uint32_t>(hole | reads_zero));
  }
  return s;
}

}  // namespace luge::attach::nbd
