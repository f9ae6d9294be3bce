// The NBD protocol's bytes (fixed newstyle negotiation, simple and structured replies), big-endian as on the wire. Pure functions over
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
inline constexpr std::uint32_t kChunkMagic = 0x668e33ef;

inline constexpr std::uint32_t kMaxOptionBytes = 16384;
inline constexpr std::uint32_t kMaxRequestBytes = 32u << 20;
inline constexpr std::uint32_t kMaxStatusBytes = 256u << 20;  ///< how far one answer to BLOCK_STATUS goes

enum class Option : std::uint32_t { export_name = 1, abort = 2, list = 3, starttls = 5, info = 6, go = 7, structured_reply = 8, list_meta_context = 9, set_meta_context = 10 };
enum class Command : std::uint16_t { read = 0, write = 1, disconnect = 2, flush = 3, trim = 4, cache = 5, write_zeroes = 6, block_status = 7 };
enum CommandFlag : std::uint16_t { flag_fua = 1, flag_no_hole = 2, flag_dont_fragment = 4, flag_request_one = 8, flag_fast_zero = 16 };
enum Error : std::uint32_t { ok = 0, eperm = 1, eio = 5, einval = 22, enospc = 28, eshutdown = 108 };

/// What the server says of an export.
struct ExportInfo {
  std::string name;
  std::uint64_t bytes = 0;
  bool read_only = false;
};

/// What a connection has agreed upon beside the export.
struct Agreed {
  bool structured = false;  ///< structured replies
  bool allocation = false;  ///< metadata context base:allocation, of the export it was asked for
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

inline constexpr const char* kAllocationContext = "base:allocation";
inline constexpr std::uint32_t kAllocationId = 1;
/// Body of LIST_META_CONTEXT and SET_META_CONTEXT.
struct MetaRequest {
  std::string name;                  ///< of the export
  std::vector<std::string> queries;
};
Result<MetaRequest> parse_meta_request(Bytes body);
/// Does a query mean base:allocation? LIST takes a namespace ("base:") and no query at all for everything, SET does not.
bool selects_allocation(const MetaRequest& r, bool list);

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
Error judge(const Request& r, const ExportInfo& e, const Agreed& agreed);

std::string greeting();
std::string option_reply(std::uint32_t option, std::uint32_t type, std::string_view data);
inline constexpr std::uint32_t kAck = 1, kServer = 2, kInfo = 3, kMetaContext = 4;
inline constexpr std::uint32_t kErrUnsupported = 0x80000001, kErrPolicy = 0x80000002, kErrInvalid = 0x80000003, kErrTlsRequired = 0x80000005,
                               kErrUnknown = 0x80000006, kErrTooBig = 0x80000009;
/// All replies of a successful INFO or GO.
std::string info_replies(std::uint32_t option, const ExportInfo& e, const InfoRequest& asked, const Agreed& agreed);
/// Answer to EXPORT_NAME.
std::string export_name_answer(const ExportInfo& e, bool no_zeroes, const Agreed& agreed);
/// All replies of a successful LIST_META_CONTEXT or SET_META_CONTEXT: base:allocation or nothing, and the end.
std::string meta_replies(std::uint32_t option, bool allocation);
std::string list_replies(const std::vector<ExportInfo>& exports);
std::string simple_reply(std::uint64_t cookie, Error error);

// Chunks of structured replies. `done`: it is the reply's last.
enum class ChunkType : std::uint16_t { none = 0, offset_data = 1, offset_hole = 2, block_status = 5, error = 0x8001 };
/// Header, to be followed by `length` bytes of data.
std::string data_chunk(std::uint64_t cookie, std::uint64_t offset, std::uint32_t length, bool done);
std::string hole_chunk(std::uint64_t cookie, std::uint64_t offset, std::uint32_t length, bool done);
std::string none_chunk(std::uint64_t cookie);  ///< the end of a reply, and nothing else
std::string error_chunk(std::uint64_t cookie, Error error, std::string_view text);
/// base:allocation of runs that follow one another.
struct StatusRun {
  std::uint32_t bytes = 0;
  bool data = false;
};
std::string status_chunk(std::uint64_t cookie, std::span<const StatusRun> runs);

}  // namespace luge::attach::nbd
