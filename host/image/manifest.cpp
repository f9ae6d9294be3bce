#include "image/manifest.hpp"

#include <fcntl.h>
#include <openssl/evp.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <charconv>
#include <cstring>
#include <fstream>
#include <iterator>

#include "switches/switches.hpp"

namespace luge::image {
namespace {

namespace json = boost::json;
constexpr char kMagic[9] = "LUGEIMG1";
const Status kBad(Code::invalid, "the manifest is not one");

std::uint32_t u32(std::span<const std::uint8_t> b, std::size_t at) {
  std::uint32_t v;
  std::memcpy(&v, b.data() + at, 4);
  return v;
}

json::array strings(const std::vector<std::string>& v) { return json::array(v.begin(), v.end()); }

// Members that are there are of their kind, and no others are there.
class Members {
 public:
  explicit Members(const json::object& o) : o_(o) {}
  std::string text(const char* name) {
    const json::value* v = take(name);
    if (v && v->is_string()) return std::string(v->as_string());
    good_ = false;
    return "";
  }
  std::uint32_t number(const char* name) { return as_number(take(name)); }
  const json::array& array(const char* name) {
    static const json::array none;
    const json::value* v = take(name);
    if (v && v->is_array()) return v->as_array();
    good_ = false;
    return none;
  }
  std::uint32_t as_number(const json::value* v) {
    if (v && v->is_int64() && v->as_int64() >= 0 && v->as_int64() <= 0xffffffffll) return static_cast<std::uint32_t>(v->as_int64());
    good_ = false;
    return 0;
  }
  std::vector<std::string> texts(const char* name) {
    std::vector<std::string> out;
    for (const json::value& v : array(name))
      if (v.is_string()) out.emplace_back(v.as_string());
      else good_ = false;
    return out;
  }
  bool good() const { return good_ && taken_ == o_.size(); }

 private:
  const json::value* take(const char* name) {
    ++taken_;
    return o_.if_contains(name);
  }
  const json::object& o_;
  std::size_t taken_ = 0;
  bool good_ = true;
};

bool is_digest(const std::string& s) { return s.size() == 64 && std::all_of(s.begin(), s.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); }); }

}  // namespace

std::string to_text(const Manifest& m) {
  json::array parts;
  json::array revisions(m.revisions.begin(), m.revisions.end());
  for (const Part& p : m.parts) parts.push_back(json::object{{"name", p.name}, {"bytes", p.bytes}, {"sha256", p.sha256}});
  return json::serialize(json::object{{"kind", m.kind}, {"board", m.board}, {"revisions", revisions}, {"version", m.version}, {"firmware_version", m.firmware_version},
                                      {"kernels_sha256", m.kernels_sha256}, {"registers_sha256", m.registers_sha256}, {"platform", m.platform}, {"parts", parts},
                                      {"add", strings(m.add)}, {"revoke", strings(m.revoke)}}) + "\n";
}

Result<Manifest> parse_manifest(std::string_view text) {
  boost::system::error_code e;
  const json::value v = json::parse(text, e);
  if (e || !v.is_object()) return kBad;
  Members o(v.as_object());
  Manifest m;
  m.kind = o.text("kind"), m.board = o.text("board"), m.version = o.number("version"), m.firmware_version = o.text("firmware_version");
  for (const json::value& r : o.array("revisions")) m.revisions.push_back(o.as_number(&r));
  m.kernels_sha256 = o.text("kernels_sha256"), m.registers_sha256 = o.text("registers_sha256"), m.platform = o.text("platform");
  for (const json::value& p : o.array("parts")) {
    if (!p.is_object()) return kBad;
    Members q(p.as_object());
    m.parts.push_back({q.text("name"), q.number("bytes"), q.text("sha256")});
    if (!q.good() || !is_digest(m.parts.back().sha256)) return kBad;
  }
  m.add = o.texts("add"), m.revoke = o.texts("revoke");
  if (!o.good() || (m.kind != "card" && m.kind != "keys")) return kBad;
  return m;
}

Result<ByteVector> build_file(Manifest m, const std::vector<ByteVector>& parts) {
  if (parts.size() != m.parts.size()) return Status(Code::internal, "an image's parts are not those of its manifest");
  std::uint64_t payload = 0;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    m.parts[i].bytes = static_cast<std::uint32_t>(parts[i].size()), m.parts[i].sha256 = sha256_hex(parts[i]);
    payload += parts[i].size();
  }
  const std::string text = to_text(m);
  if (text.size() > kLargestManifest || payload > 0xffffffffu) return Status(Code::invalid, "the image is too large");
  ByteVector f(kHeaderBytes, 0);
  const std::uint32_t sizes[] = {static_cast<std::uint32_t>(text.size()), static_cast<std::uint32_t>(payload)};
  std::memcpy(f.data(), kMagic, 8);
  std::memcpy(f.data() + 8, sizes, 8);
  f.insert(f.end(), text.begin(), text.end());
  for (const ByteVector& p : parts) f.insert(f.end(), p.begin(), p.end());
  return f;
}

Result<File> parse_file(std::span<const std::uint8_t> b) {
  if (b.size() < kHeaderBytes || std::memcmp(b.data(), kMagic, 8) != 0) return Status(Code::invalid, "not an image of a card");
  const std::uint64_t text = u32(b, 8), payload = u32(b, 12);
  if (text > kLargestManifest || b.size() != kHeaderBytes + text + payload)
    return Status(Code::invalid, "the image is cut or has something behind it: " + std::to_string(b.size()) + " bytes of " + std::to_string(kHeaderBytes + text + payload));
  File f;
  std::memcpy(f.key_id.data(), b.data() + 16, kKeyBytes);
  std::memcpy(f.signature.data(), b.data() + 48, kSignatureBytes);
  f.signed_bytes.assign(b.begin(), b.begin() + 48);
  f.signed_bytes.insert(f.signed_bytes.end(), b.begin() + kHeaderBytes, b.begin() + static_cast<long>(kHeaderBytes + text));
  auto m = parse_manifest({reinterpret_cast<const char*>(b.data()) + kHeaderBytes, text});
  if (!m.ok()) return m.status();
  f.manifest = std::move(*m);
  std::size_t at = kHeaderBytes + text;
  for (const Part& p : f.manifest.parts) {
    if (p.bytes > b.size() - at) return Status(Code::invalid, "the image's parts are larger than it is");
    f.parts.emplace_back(b.begin() + static_cast<long>(at), b.begin() + static_cast<long>(at + p.bytes));
    at += p.bytes;
    if (sha256_hex(f.parts.back()) != p.sha256 && !broken(Switch::image_digests_unchecked)) return Status(Code::corrupt, "the image's " + p.name + " is not what its manifest says");
  }
  if (at != b.size()) return Status(Code::invalid, "the image has more bytes than its manifest says");
  return f;
}

const ByteVector* part_of(const File& f, std::string_view name) {
  for (std::size_t i = 0; i < f.manifest.parts.size(); ++i)
    if (f.manifest.parts[i].name == name) return &f.parts[i];
  return nullptr;
}

std::string hex(std::span<const std::uint8_t> bytes) {
  std::string s;
  for (std::uint8_t b : bytes) s += "0123456789abcdef"[b >> 4], s += "0123456789abcdef"[b & 15];
  return s;
}

Result<ByteVector> from_hex(std::string_view t) {
  ByteVector out(t.size() / 2);
  for (std::size_t i = 0; i < out.size(); ++i) {
    auto [end, e] = std::from_chars(t.data() + 2 * i, t.data() + 2 * i + 2, out[i], 16);
    if (e != std::errc() || end != t.data() + 2 * i + 2) return Status(Code::invalid, "'" + std::string(t) + "' is not hexadecimal");
  }
  if (t.size() % 2) return Status(Code::invalid, "'" + std::string(t) + "' is not hexadecimal");
  return out;
}

std::string sha256_hex(std::span<const std::uint8_t> bytes) {
  std::uint8_t d[32];
  unsigned n = sizeof d;
  ::EVP_Digest(bytes.data(), bytes.size(), d, &n, ::EVP_sha256(), nullptr);
  return hex(d);
}

std::string version_text(std::uint32_t v) { return std::to_string(v >> 16) + "." + std::to_string(v >> 8 & 255) + "." + std::to_string(v & 255); }

Result<std::uint32_t> parse_version(std::string_view t) {
  unsigned a = 0, b = 0, c = 0;
  char more;
  if (std::sscanf(std::string(t).c_str(), "%u.%u.%u%c", &a, &b, &c, &more) != 3 || a > 65535 || b > 255 || c > 255)
    return Status(Code::invalid, "'" + std::string(t) + "' is not a version: 1.2.3, each but the first below 256");
  return a << 16 | b << 8 | c;
}

Result<ByteVector> read_file(const std::string& path) {
  std::ifstream f(path, std::ios::binary);
  if (!f) return Status(Code::not_found, "cannot read " + path + ": " + std::strerror(errno));
  return ByteVector{std::istreambuf_iterator<char>(f), std::istreambuf_iterator<char>()};
}

Status write_file(const std::string& path, std::span<const std::uint8_t> bytes, unsigned mode) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
  if (fd < 0) return Status(Code::io_error, "cannot write " + path + ": " + std::strerror(errno));
  const bool ok = ::write(fd, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()) && ::fsync(fd) == 0;
  ::close(fd);
  return ok ? Status() : Status(Code::io_error, "cannot write " + path);
}

}  // namespace luge::image
