// A frame: fixed header, flatbuffer body, raw payload. docs/formats.md has the bytes.
// The header's CRC covers header and body. The payload is covered by the per-block CRCs that the body carries,
// so a payload byte is checksummed once, where it enters the system.
#pragma once

#include <flatbuffers/flatbuffers.h>

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "base/buffer.hpp"
#include "base/ids.hpp"
#include "base/status.hpp"
#include "wire/common_generated.h"

namespace luge::wire {

using Kind = fbs::Kind;

inline constexpr std::uint32_t kFrameMagic = 0x3147554c;  // "LUG1"
inline constexpr std::uint16_t kFrameVersion = 1;
inline constexpr std::uint32_t kMaxBodyBytes = 16u << 20;
inline constexpr std::uint32_t kMaxPayloadBytes = 64u << 20;

struct FrameHeader {
  std::uint32_t magic = kFrameMagic;
  std::uint16_t version = kFrameVersion;
  std::uint16_t kind = 0;
  std::uint32_t body_bytes = 0;
  std::uint32_t payload_bytes = 0;
  std::uint64_t id = 0;      // ties a reply to its request; 0: not a request
  std::uint64_t unit = 0;    // storage unit the sender belongs to
  std::uint32_t source = 0;  // sender's node id, 0 for a tool
  std::uint32_t crc = 0;     // CRC32C of this header with crc = 0, then the body
};
static_assert(sizeof(FrameHeader) == 40);
static_assert(offsetof(FrameHeader, crc) == 36);

struct Frame {
  Kind kind = Kind::none;
  std::uint64_t id = 0;
  NodeId source = 0;
  std::shared_ptr<const void> body_owner;
  Bytes body;
  std::vector<Buffer> payload;  // received frames have at most one part
  std::uint64_t unit = 0;       // received frames: the sender's storage unit, 0 if it named none

  std::size_t payload_bytes() const;
  /// The one payload part of a received frame, or an empty buffer.
  Buffer data() const { return payload.empty() ? Buffer() : payload.front(); }

  /// The body as a T, or null if it does not verify as one. Verification walks the body: call it once.
  template <class T>
  const T* as() const {
    flatbuffers::Verifier v(reinterpret_cast<const std::uint8_t*>(body.data()), body.size(), 64, 10'000'000);
    if (body.empty() || !v.VerifyBuffer<T>(nullptr)) return nullptr;
    return flatbuffers::GetRoot<T>(body.data());
  }
};

/// Takes the finished body out of `b`.
Frame finish_frame(Kind kind, flatbuffers::FlatBufferBuilder& b);

/// make_frame(Kind::fence, [&](auto& b) { return fbs::CreateFence(b, vp, epoch); })
template <class Build>
Frame make_frame(Kind kind, Build build) {
  flatbuffers::FlatBufferBuilder b(256);
  b.Finish(build(b));
  return finish_frame(kind, b);
}

/// A plain Reply with a status.
Frame reply_frame(const Status& status);

/// Status of a frame that should have been `Reply`; of an error text and code of any reply table.
Status status_of(const Frame& reply);
Status make_status(std::uint16_t code, const flatbuffers::String* text);

std::string_view kind_name(Kind kind);

/// Checks magic, version, limits and (unless either is 0) unit. `own_unit` 0 accepts every unit.
Status check_header(const FrameHeader& h, std::uint64_t own_unit);
std::uint32_t frame_crc(FrameHeader h, Bytes body);

}  // namespace luge::wire
