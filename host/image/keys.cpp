#include "image/keys.hpp"

#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "switches/switches.hpp"

namespace luge::image {
namespace {

EVP_PKEY* pkey(const std::shared_ptr<void>& k) { return static_cast<EVP_PKEY*>(k.get()); }
std::shared_ptr<void> own(EVP_PKEY* k) { return {k, [](void* p) { ::EVP_PKEY_free(static_cast<EVP_PKEY*>(p)); }}; }

using Context = std::unique_ptr<EVP_MD_CTX, decltype(&::EVP_MD_CTX_free)>;
Context context() { return {::EVP_MD_CTX_new(), ::EVP_MD_CTX_free}; }

ByteVector digest_of_name(std::string_view name) {
  auto d = from_hex(sha256_hex({reinterpret_cast<const std::uint8_t*>(name.data()), name.size()}));
  return *d;
}

bool verifies(const std::string& public_hex, std::span<const std::uint8_t> data, std::span<const std::uint8_t> signature) {
  auto raw = from_hex(public_hex);
  if (!raw.ok() || raw->size() != kKeyBytes) return false;
  auto key = own(::EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, raw->data(), raw->size()));
  auto c = context();
  return key && ::EVP_DigestVerifyInit(c.get(), nullptr, nullptr, nullptr, pkey(key)) == 1 &&
         ::EVP_DigestVerify(c.get(), signature.data(), signature.size(), data.data(), data.size()) == 1;
}

bool has(const std::vector<std::string>& v, const std::string& s) { return std::find(v.begin(), v.end(), s) != v.end(); }

std::string id_of(const std::string& public_hex) {
  auto raw = from_hex(public_hex);
  return raw.ok() ? sha256_hex(*raw) : "";
}

}  // namespace

Result<PrivateKey> PrivateKey::generate() {
  EVP_PKEY* k = ::EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519");
  if (k == nullptr) return Status(Code::internal, "OpenSSL makes no Ed25519 key");
  return PrivateKey(own(k));
}

PrivateKey PrivateKey::development() {
  const ByteVector seed = digest_of_name("luge development key");
  return PrivateKey(own(::EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nullptr, seed.data(), seed.size())));
}

Result<PrivateKey> PrivateKey::load(const std::string& path) {
  FILE* f = std::fopen(path.c_str(), "r");
  if (f == nullptr) return Status(Code::not_found, "cannot read " + path + ": " + std::strerror(errno));
  EVP_PKEY* k = ::PEM_read_PrivateKey(f, nullptr, nullptr, nullptr);
  std::fclose(f);
  if (k == nullptr || ::EVP_PKEY_get_base_id(k) != EVP_PKEY_ED25519) {
    ::EVP_PKEY_free(k);
    return Status(Code::invalid, path + " is not a private key of Ed25519 (PEM)");
  }
  return PrivateKey(own(k));
}

Status PrivateKey::save(const std::string& path) const {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) return Status(errno == EEXIST ? Code::exists : Code::io_error, "cannot make " + path + ": " + std::strerror(errno));
  FILE* f = ::fdopen(fd, "w");
  const bool ok = ::PEM_write_PrivateKey(f, pkey(key_), nullptr, nullptr, 0, nullptr, nullptr) == 1;
  return ((std::fclose(f) == 0) & ok) ? Status() : Status(Code::io_error, "cannot write " + path);
}

std::string PrivateKey::public_hex() const {
  std::uint8_t raw[kKeyBytes];
  std::size_t n = sizeof raw;
  ::EVP_PKEY_get_raw_public_key(pkey(key_), raw, &n);
  return hex(raw);
}

Status PrivateKey::sign(ByteVector& file) const {
  auto id = from_hex(id_of(public_hex()));
  if (!id.ok() || file.size() < kHeaderBytes) return Status(Code::invalid, "not an image of a card");
  std::copy(id->begin(), id->end(), file.begin() + 16);
  auto f = parse_file(file);
  if (!f.ok()) return f.status();
  auto c = context();
  std::size_t n = kSignatureBytes;
  if (::EVP_DigestSignInit(c.get(), nullptr, nullptr, nullptr, pkey(key_)) != 1 ||
      ::EVP_DigestSign(c.get(), file.data() + 48, &n, f->signed_bytes.data(), f->signed_bytes.size()) != 1)
    return Status(Code::internal, "OpenSSL does not sign");
  return Status();
}

Status Keyring::apply(const Manifest& m) {
  Keyring next = *this;
  for (const std::string& k : m.add) {
    if (has(next.revoked, k)) return Status(Code::conflict, "key " + k.substr(0, 16) + "... was revoked and stays so");
    if (!has(next.trusted, k)) next.trusted.push_back(k);
  }
  for (const std::string& k : m.revoke) {
    std::erase(next.trusted, k);
    if (!has(next.revoked, k)) next.revoked.push_back(k);
  }
  if (next.trusted.empty()) return Status(Code::conflict, "no key would be left that the card trusts");
  *this = std::move(next);
  return Status();
}

Status check_signature(const File& f, const Keyring& ring, bool development) {
  const std::string id = hex(f.key_id), dev = PrivateKey::development().public_hex();
  for (const std::string& k : ring.revoked)
    if (id_of(k) == id && !broken(Switch::revoked_key_taken)) return Status(Code::fenced, "the image is signed by a key that was revoked: " + k.substr(0, 16) + "...");
  std::vector<std::string> keys = ring.trusted;
  if (broken(Switch::revoked_key_taken)) keys.insert(keys.end(), ring.revoked.begin(), ring.revoked.end());
  if (id_of(dev) == id && !development)
    return Status(Code::fenced, "the image is signed by the development key, and the board is not one for development (board.toml: development)");
  if (development) keys.push_back(dev);
  for (const std::string& k : keys)
    if (id_of(k) == id)
      return verifies(k, f.signed_bytes, f.signature) || broken(Switch::image_signature_unchecked) ? Status() : Status(Code::fenced, "the image's signature is wrong: it was changed after it was signed");
  return Status(Code::fenced, "the image is signed by a key that the card does not trust: " + id.substr(0, 16) + "...");
}

Result<File> admit(std::span<const std::uint8_t> bytes, const Target& t) {
  auto f = parse_file(bytes);
  if (!f.ok()) return f.status();
  if (Status s = check_signature(*f, t.keys, t.development); !s.ok()) return s;
  const Manifest& m = f->manifest;
  if (broken(Switch::image_target_unchecked)) return f;
  if (m.board != t.board) return Status(Code::fenced, "the image is for board '" + m.board + "', this is '" + t.board + "'");
  if (std::find(m.revisions.begin(), m.revisions.end(), t.revision) == m.revisions.end())
    return Status(Code::fenced, "the image is not for revision " + std::to_string(t.revision) + " of the board");
  if (m.kind == "keys") return f;
  if (!m.platform.empty() && m.platform != t.platform)
    return Status(Code::fenced, "the image needs platform " + m.platform + ", the card has " + (t.platform.empty() ? "none that is known" : t.platform));
  if (m.version < t.version && !t.allow_downgrade)
    return Status(Code::fenced, "version " + version_text(m.version) + " is older than " + version_text(t.version) + ", which the card has (--downgrade allows it)");
  return f;
}

}  // namespace luge::image
