#include "wire/frame.hpp"

#include "base/crc32c.hpp"

namespace luge::wire {

std::size_t Frame::payload_bytes() const {
  std::size_t n = 0;
  for (const Buffer& b : payload) n += b.size();
  return n;
}

Frame finish_frame(Kind kind, flatbuffers::FlatBufferBuilder& b) {
  auto owned = std::make_shared<flatbuffers::DetachedBuffer>(b.Release());
  Frame f;
  f.kind = kind;
  f.body = {reinterpret_cast<const std::byte*>(owned->data()), owned->size()};
  f.body_owner = std::move(owned);
  return f;
}

Frame reply_frame(const Status& status) {
  return make_frame(Kind::reply, [&](auto& b) {
    return fbs::CreateReply(b, static_cast<std::uint16_t>(status.code()), b.CreateString(status.text()));
  });
}

Status make_status(std::uint16_t code, const flatbuffers::String* text) {
  if (code == 0) return Status();
  return Status(static_cast<Code>(code), text ? text->str() : std::string());
}

Status status_of(const Frame& reply) {
  const auto* r = reply.as<fbs::Reply>();
  if (reply.kind != Kind::reply || r == nullptr)
    return Status(Code::corrupt, "unexpected answer of kind " + std::string(kind_name(reply.kind)));
  return make_status(r->code(), r->text());
}

std::string_view kind_name(Kind kind) {
  const char* name = fbs::EnumNameKind(kind);
  return name != nullptr && *name != 0 ? name : "unknown";
}

Status check_header(const FrameHeader& h, std::uint64_t own_unit) {
  if (h.magic != kFrameMagic) return Status(Code::invalid, "not a Luge peer: wrong magic number");
  if (h.version != kFrameVersion)
    return Status(Code::wrong_version, "peer speaks frame version " + std::to_string(h.version) + ", this one " +
                                           std::to_string(kFrameVersion));
  if (h.body_bytes > kMaxBodyBytes || h.payload_bytes > kMaxPayloadBytes)
    return Status(Code::invalid, "frame of absurd size: body " + std::to_string(h.body_bytes) + ", payload " +
                                     std::to_string(h.payload_bytes));
  if (own_unit != 0 && h.unit != 0 && h.unit != own_unit)
    return Status(Code::wrong_unit, "peer belongs to another storage unit");
  return Status();
}

std::uint32_t frame_crc(FrameHeader h, Bytes body) {
  h.crc = 0;
  return crc32c(body, crc32c(Bytes(reinterpret_cast<const std::byte*>(&h), sizeof h)));
}

}  // namespace luge::wire
