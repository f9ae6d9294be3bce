#include "head/designation.hpp"

namespace luge::head {

Designation Designation::from(const fbs::Designation& d) {
  Designation o;
  o.vp = d.vp();
  o.epoch = d.epoch();
  o.revision = d.revision();
  o.history = d.history();
  o.primary = d.primary();
  if (d.reserves()) o.reserves.assign(d.reserves()->begin(), d.reserves()->end());
  if (d.required()) o.required.assign(d.required()->begin(), d.required()->end());
  o.layout = {d.k(), d.m()};
  o.min_copies = d.min_copies();
  o.blocks = d.blocks();
  return o;
}

flatbuffers::Offset<fbs::Designation> Designation::to(flatbuffers::FlatBufferBuilder& b) const {
  auto reserves_vector = b.CreateVector(reserves);
  auto required_vector = b.CreateVector(required);
  return fbs::CreateDesignation(b, vp, epoch, revision, history, primary, reserves_vector, required_vector,
                                static_cast<std::uint16_t>(layout.k), static_cast<std::uint16_t>(layout.m),
                                static_cast<std::uint16_t>(min_copies), blocks);
}

std::string Designation::serialize() const {
  flatbuffers::FlatBufferBuilder b(256);
  b.Finish(to(b));
  return std::string(reinterpret_cast<const char*>(b.GetBufferPointer()), b.GetSize());
}

bool Designation::parse(std::string_view bytes, Designation& out) {
  std::string aligned(bytes);  // flatbuffers wants alignment; std::string's heap storage has it
  aligned.reserve(64);
  flatbuffers::Verifier v(reinterpret_cast<const std::uint8_t*>(aligned.data()), aligned.size());
  if (!v.VerifyBuffer<fbs::Designation>(nullptr)) return false;
  out = from(*flatbuffers::GetRoot<fbs::Designation>(aligned.data()));
  return true;
}

}  // namespace luge::head
