// Ed25519 keys, signatures, and which keys a card trusts.
//
// Private keys are PEM files (PKCS #8, mode 0600), public keys 64 hexadecimal digits in a file of one line. A card's keyring begins with the keys of its
// golden image; an image of kind "keys", signed by a key that is trusted, adds or revokes others. A revoked key stays revoked. The development key is
// known to everybody: its seed is a hash of its name.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "image/manifest.hpp"

namespace luge::image {

class PrivateKey {
 public:
  static Result<PrivateKey> generate();
  static Result<PrivateKey> load(const std::string& path);
  static PrivateKey development();
  Status save(const std::string& path) const;  ///< exists: there is a file already
  std::string public_hex() const;
  /// Puts key id and signature into a file of build_file().
  Status sign(ByteVector& file) const;

 private:
  explicit PrivateKey(std::shared_ptr<void> key) : key_(std::move(key)) {}
  std::shared_ptr<void> key_;
};

struct Keyring {
  std::vector<std::string> trusted, revoked;
  /// `add` and `revoke` of an image that was found to be signed by a trusted key. conflict: it would leave none that is trusted.
  Status apply(const Manifest& keys);
};

/// fenced: signed by no key of the ring, by a revoked one, or the signature is wrong; the text says which.
Status check_signature(const File& f, const Keyring& ring, bool development);

/// What an image is to be flashed onto.
struct Target {
  std::string board;
  std::uint32_t revision = 0, version = 0;  ///< version: of what runs; 0: nothing
  std::string platform;                     ///< UUID of the card's platform; empty: not known or none
  bool development = false;                 ///< board.toml: the development key will do
  bool allow_downgrade = false;
  Keyring keys;
};
/// Every reason not to flash: form, signature, board, revision, platform, downgrade. `bytes` is the whole file.
Result<File> admit(std::span<const std::uint8_t> bytes, const Target& target);

}  // namespace luge::image
