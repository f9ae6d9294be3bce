#include "io/meta_format.hpp"

#include <cstring>

#include "base/crc32c.hpp"
#include "base/ids.hpp"

namespace luge::io {
namespace {

std::uint64_t round_up(std::uint64_t n) { return (n + kBlockBytes - 1) / kBlockBytes * kBlockBytes; }

// Is `h` what goes on behind what `half` has so far?
bool continues(const MetaHalf& half, const MetaBatchHeader& h) {
  if (!half.readable) return h.kind == kMetaSnapshot;
  return h.kind == kMetaChanges && h.sequence == half.last + 1 && h.previous_crc == half.last_crc;
}

// False: the pairs do not parse, or a snapshot erases.
bool apply(Bytes pairs, bool may_erase, MetaState& state) {
  bool erases = false;
  bool parsed = for_each_meta_pair(pairs, [&](std::string_view key, std::optional<std::string_view> value) {
    erases = erases || !value;
    if (value) state.insert_or_assign(std::string(key), std::string(*value));
    else if (auto it = state.find(key); it != state.end()) state.erase(it);
  });
  return parsed && (may_erase || !erases);
}

}  // namespace

std::uint32_t meta_batch_crc(MetaBatchHeader h, Bytes pairs) {
  h.crc = 0;
  return crc32c(pairs, crc32c(Bytes(reinterpret_cast<const std::byte*>(&h), sizeof h)));
}

// The header is copied: `at` may hold anything.
std::optional<MetaBatchHeader> meta_batch_at(Bytes at) {
  MetaBatchHeader h;
  if (at.size() < sizeof h) return std::nullopt;
  std::memcpy(&h, at.data(), sizeof h);
  if (h.magic != kMetaMagic || h.bytes > at.size() - sizeof h) return std::nullopt;
  if (meta_batch_crc(h, at.subspan(sizeof h, h.bytes)) != h.crc) return std::nullopt;
  return h;
}

bool for_each_meta_pair(Bytes pairs, const std::function<void(std::string_view, std::optional<std::string_view>)>& f) {
  while (!pairs.empty()) {
    MetaPairHeader p;
    if (pairs.size() < sizeof p) return false;
    std::memcpy(&p, pairs.data(), sizeof p);
    pairs = pairs.subspan(sizeof p);
    bool erase = p.value_bytes == kMetaErased;
    std::size_t value = erase ? 0 : p.value_bytes;
    if (p.key_bytes > pairs.size() || value > pairs.size() - p.key_bytes) return false;
    auto* text = reinterpret_cast<const char*>(pairs.data());
    std::optional<std::string_view> taken;
    if (!erase) taken.emplace(text + p.key_bytes, value);
    f(std::string_view(text, p.key_bytes), taken);
    pairs = pairs.subspan(p.key_bytes + value);
  }
  return true;
}

MetaHalf replay_meta_half(Bytes bytes, const MetaBatchSeen& seen) {
  MetaHalf half;
  for (std::uint64_t at = 0; at < bytes.size();) {
    std::optional<MetaBatchHeader> h = meta_batch_at(bytes.subspan(at));
    if (!h) break;
    if (h->version != kMetaVersion && (at == 0 || h->sequence == half.last + 1)) half.unknown_version = h->version;
    if (h->version != kMetaVersion || !continues(half, *h)) break;
    Bytes pairs = bytes.subspan(at + sizeof *h, h->bytes);
    if (!apply(pairs, half.readable, half.state)) break;
    if (seen) seen(at, *h, pairs);
    if (!half.readable) half.first = h->sequence;
    half.readable = true;
    half.last = h->sequence;
    half.last_crc = h->crc;
    half.end = at = at + round_up(sizeof *h + h->bytes);
  }
  return half;
}

std::uint64_t greatest_meta_sequence(Bytes half, std::uint64_t from, std::uint64_t to) {
  std::uint64_t greatest = 0;
  for (std::uint64_t at = from; at < to; at += kBlockBytes)
    if (auto h = meta_batch_at(half.subspan(at))) greatest = std::max(greatest, h->sequence);
  return greatest;
}

std::optional<int> counting_half(const MetaHalf& a, const MetaHalf& b) {
  if (!a.readable && !b.readable) return std::nullopt;
  return !a.readable || (b.readable && b.first > a.first) ? 1 : 0;
}

}  // namespace luge::io
