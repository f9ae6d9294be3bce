#include "wire/unit_key.hpp"

#include <openssl/evp.h>

#include "base/check.hpp"

namespace luge::wire {
namespace {

constexpr std::size_t kSignatureBytes = 64;

using Context = std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)>;
Context context() { return Context(EVP_MD_CTX_new(), EVP_MD_CTX_free); }

const unsigned char* bytes_of(const std::string& s) { return reinterpret_cast<const unsigned char*>(s.data()); }

int digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

}  // namespace

std::string to_hex(const KeyBytes& key) {
  std::string out;
  for (std::uint8_t b : key) {
    out += "0123456789abcdef"[b >> 4];
    out += "0123456789abcdef"[b & 15];
  }
  return out;
}

Result<KeyBytes> parse_hex_key(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  text.remove_prefix(std::min(text.find_first_not_of(kSpace), text.size()));
  text = text.substr(0, text.find_last_not_of(kSpace) + 1);
  KeyBytes key{};
  Status bad(Code::invalid, "a key is 64 hexadecimal digits");
  if (text.size() != 2 * key.size()) return bad;
  for (std::size_t i = 0; i < key.size(); ++i) {
    int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
    if (high < 0 || low < 0) return bad;
    key[i] = static_cast<std::uint8_t>(high << 4 | low);
  }
  return key;
}

Result<Verifier> Verifier::make(const KeyBytes& key) {
  Verifier v;
  v.bytes_ = key;
  v.key_.reset(EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, key.data(), key.size()), EVP_PKEY_free);
  if (!v.key_) return Status(Code::invalid, "that is no public key");
  return v;
}

Status Verifier::check(std::uint64_t unit, const Designation& d) const {
  if (d.unit != unit && !d.signature.empty()) return Status(Code::wrong_unit, "the designation is of storage unit " + std::to_string(d.unit));
  if (d.signature.size() != kSignatureBytes) return Status(Code::forged, "the designation is not signed");
  std::string text = d.signed_bytes();
  Context c = context();
  bool good = c && EVP_DigestVerifyInit(c.get(), nullptr, nullptr, nullptr, key_.get()) == 1 &&
              EVP_DigestVerify(c.get(), bytes_of(d.signature), d.signature.size(), bytes_of(text), text.size()) == 1;
  return good ? Status() : Status(Code::forged, "the designation was not signed by this unit's control plane");
}

Signer::Signer(const KeyBytes& seed) : key_(EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nullptr, seed.data(), seed.size()), EVP_PKEY_free) {
  std::size_t size = public_.size();
  LUGE_CHECK(key_ && EVP_PKEY_get_raw_public_key(key_.get(), public_.data(), &size) == 1 && size == public_.size());
}

std::string Signer::sign(const Designation& d) const {
  std::string text = d.signed_bytes(), out(kSignatureBytes, 0);
  std::size_t size = out.size();
  Context c = context();
  LUGE_CHECK(c && EVP_DigestSignInit(c.get(), nullptr, nullptr, nullptr, key_.get()) == 1 &&
             EVP_DigestSign(c.get(), reinterpret_cast<unsigned char*>(out.data()), &size, bytes_of(text), text.size()) == 1 && size == out.size());
  return out;
}

}  // namespace luge::wire
