// The NBD protocol's bytes (fixed newstyle negotiation, simple replies), big-endian as on the wire. Pure functions over
// bytes, no I/O: what a hostile client sends is judged here. Source: the NBD project's doc/proto.md.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/buffer.hpp"
#include "base/status.hpp"

namespace luge::attach::nbd {

inline constexpr std::uint64_t kInitMagic = 0x4e42444d41474943;    // "NBDMAGIC"
inline constexpr std::uint64_t kOptionMagic = 0x49484156454f5054;  // "IHAVEOPT"
inline constexpr std::uint64_t kOptionReplyMagic = 0x0003e889045565a9;
inline constexpr std::uint32_t kRequestMagic = 0x25609513;
inline constexpr std::uint32_t kReplyMagic = 0x67446698;

inline constexpr std::uint32_t kMaxOptionBytes = 16384;
inline constexpr std::uint32_t kMaxRequestBytes = 32u << 20;

enum class Option : std::uint32_t { export_name = 1, abort = 2, list = 3, info = 6, go = 7 };
enum class Command : std::uint16_t { read = 0, write = 1, disconnect = 2, flush = 3, trim = 4, cache = 5, write_zeroes = 6 };
enum CommandFlag : std::uint16_t { flag_fua = 1, flag_no_hole = 2 };  // all that an export without structured replies knows
enum Error : std::uint32_t { ok = 0, eperm = 1, eio = 5, einval = 22, enospc = 28, eshutdown = 108 };

/// What the server says of an export.
struct ExportInfo {
  std::string name;
  std::uint64_t bytes = 0;
  bool read_only = false;
};

/// A server closes on flags it does not know: the client means to go on in a way it would misunderstand.
bool known_client_flags(std::span<const std::byte, 4> flags);

struct OptionHeader {
  std::uint32_t option = 0;
  std::uint32_t length = 0;
};
inline constexpr std::size_t kOptionHeaderBytes = 16;
/// invalid: wrong magic or absurd length.
Result<OptionHeader> parse_option_header(Bytes sixteen);

/// Body of INFO and GO: the export's name and the information items asked for.
struct InfoRequest {
  std::string name;
  std::vector<std::uint16_t> items;
};
Result<InfoRequest> parse_info(Bytes body);

struct Request {
  std::uint16_t flags = 0;
  std::uint16_t type = 0;
  std::uint64_t cookie = 0;
  std::uint64_t offset = 0;
  std::uint32_t length = 0;
};
inline constexpr std::size_t kRequestBytes = 28;
/// invalid: wrong magic, or a write longer than kMaxRequestBytes: the stream cannot be followed any further.
Result<Request> parse_request(Bytes bytes);
/// ok, or the error this request is answered with (its payload, if any, has been taken off the stream). A request of length
/// 0, which the protocol leaves open, is ok inside the export and does nothing, as qemu-nbd has it.
Error judge(const Request& r, const ExportInfo& e);

std::string greeting();
std::string option_reply(std::uint32_t option, std::uint32_t type, std::string_view data);
inline constexpr std::uint32_t kAck = 1, kServer = 2, kInfo = 3;
inline constexpr std::uint32_t kErrUnsupported = 0x80000001, kErrPolicy = 0x80000002, kErrInvalid = 0x80000003,
                               kErrUnknown = 0x80000006, kErrTooBig = 0x80000009;
/// All replies of a successful INFO or GO.
std::string info_replies(std::uint32_t option, const ExportInfo& e, const InfoRequest& asked);
/// Answer to EXPORT_NAME.
std::string export_name_answer(const ExportInfo& e, bool no_zeroes);
std::string list_replies(const std::vector<ExportInfo>& exports);
std::string simple_reply(std::uint64_t cookie, Error error);

}  // namespace luge::attach::nbd
