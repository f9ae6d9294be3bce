#include "wire/designation.hpp"

#include <algorithm>
#include <cstring>

namespace luge::wire {
namespace {

constexpr std::size_t kMaxMembers = 16;
constexpr std::string_view kSignedPrefix = "luge designation 1\n";  // no signature of anything else is one of a designation

bool contains(const std::vector<NodeId>& v, NodeId n) { return std::find(v.begin(), v.end(), n) != v.end(); }

bool distinct(std::vector<NodeId> v) {
  std::sort(v.begin(), v.end());
  return std::adjacent_find(v.begin(), v.end()) == v.end();
}

}  // namespace

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
  o.unit = d.unit();
  if (d.volume()) o.volume = d.volume()->str();
  o.vp_bytes = d.vp_bytes();
  o.opened = d.opened();
  if (d.signature()) o.signature.assign(d.signature()->begin(), d.signature()->end());
  return o;
}

flatbuffers::Offset<fbs::Designation> Designation::to(flatbuffers::FlatBufferBuilder& b) const {
  auto reserves_vector = b.CreateVector(reserves);
  auto required_vector = b.CreateVector(required);
  auto name = b.CreateString(volume);
  auto signature_bytes = b.CreateVector(reinterpret_cast<const std::uint8_t*>(signature.data()), signature.size());
  return fbs::CreateDesignation(b, vp, epoch, revision, history, primary, reserves_vector, required_vector,
                                static_cast<std::uint16_t>(layout.k), static_cast<std::uint16_t>(layout.m),
                                static_cast<std::uint16_t>(min_copies), blocks, unit, name, vp_bytes, signature_bytes, opened);
}

std::string Designation::serialize() const {
  flatbuffers::FlatBufferBuilder b(256);
  b.Finish(to(b));
  return std::string(reinterpret_cast<const char*>(b.GetBufferPointer()), b.GetSize());
}

Result<Designation> Designation::parse(std::string_view bytes) {
  std::vector<std::uint64_t> aligned((bytes.size() + 7) / 8);
  bytes.copy(reinterpret_cast<char*>(aligned.data()), bytes.size());  // of no bytes data() may be null, which memcpy forbids
  const auto* data = reinterpret_cast<const std::uint8_t*>(aligned.data());
  flatbuffers::Verifier v(data, bytes.size());
  if (bytes.empty() || !v.VerifyBuffer<fbs::Designation>(nullptr))
    return Status(Code::corrupt, "a stored designation does not verify");
  return from(*flatbuffers::GetRoot<fbs::Designation>(data));
}

std::string Designation::signed_bytes() const {
  std::string out(kSignedPrefix);
  auto put = [&out](auto n) {
    for (std::size_t i = 0; i < sizeof n; ++i) out += static_cast<char>(n >> (8 * i));
  };
  for (std::uint64_t n : {unit, vp, epoch, revision, history, blocks, vp_bytes}) put(n);
  for (std::uint32_t n : {layout.k, layout.m, min_copies, primary}) put(n);
  for (const auto* list : {&reserves, &required}) {
    put(static_cast<std::uint32_t>(list->size()));
    for (NodeId n : *list) put(n);
  }
  put(static_cast<std::uint32_t>(volume.size()));
  out += volume;
  if (opened) put(std::uint8_t{1});  // what was signed before there was this is signed still
  return out;
}

std::vector<NodeId> Designation::members() const {
  std::vector<NodeId> m{primary};
  m.insert(m.end(), reserves.begin(), reserves.end());
  return m;
}

bool Designation::has_member(NodeId n) const { return n == primary || contains(reserves, n); }
bool Designation::requires_node(NodeId n) const { return contains(required, n); }

Status Designation::well_formed() const {
  auto wrong = [this](const std::string& what) {
    return Status(Code::invalid, "designation of VP " + std::to_string(vp) + ": " + what);
  };
  if (vp == 0 || epoch == 0 || revision == 0 || primary == 0) return wrong("VP, epoch, revision and primary must not be 0");
  if (reserves.size() >= kMaxMembers || required.size() > kMaxMembers) return wrong("too many members");
  if (contains(reserves, 0) || !distinct(members())) return wrong("a member is named twice or is 0");
  if (!distinct(required)) return wrong("required names a member twice");
  for (NodeId n : required)
    if (!has_member(n)) return wrong("required names node " + std::to_string(n) + ", which is no member");
  if (!requires_node(primary)) return wrong("required does not contain the primary");
  return Status();
}

}  // namespace luge::wire
