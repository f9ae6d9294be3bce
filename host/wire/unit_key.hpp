// The key pair of a storage unit's control plane: it signs designations, whoever knows its public half can tell that a designation
// is genuine (architecture A8). Ed25519, of OpenSSL.
//
// Both are values that may be shared between threads once made. Signing is deterministic: one designation, one signature.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/status.hpp"
#include "wire/designation.hpp"

struct evp_pkey_st;

namespace luge::wire {

using KeyBytes = std::array<std::uint8_t, 32>;

/// 64 hexadecimal digits, as the files `unit.key` and `unit.pub` and people have them.
std::string to_hex(const KeyBytes& key);
/// invalid: not 64 hexadecimal digits. White space around them is passed over.
Result<KeyBytes> parse_hex_key(std::string_view text);

/// The public half.
class Verifier {
 public:
  /// invalid: no public key.
  static Result<Verifier> make(const KeyBytes& key);
  const KeyBytes& key() const { return bytes_; }
  /// Is it of `unit`, and signed by this key, every field of it? wrong_unit: it names another. forged: everything else.
  /// About 150 us.
  Status check(std::uint64_t unit, const Designation& d) const;

 private:
  std::shared_ptr<evp_pkey_st> key_;
  KeyBytes bytes_{};
};

/// The private half. Whoever has it can have any sled of the unit do anything.
class Signer {
 public:
  /// Any 32 bytes are a private key.
  explicit Signer(const KeyBytes& seed);
  const KeyBytes& public_key() const { return public_; }
  /// 64 bytes.
  std::string sign(const Designation& d) const;

 private:
  std::shared_ptr<evp_pkey_st> key_;
  KeyBytes public_{};
};

}  // namespace luge::wire
