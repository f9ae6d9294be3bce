// What an image says of itself, and the file that it is: header, manifest (JSON), signature, parts.
//
//   0    8  "LUGEIMG1"
//   8    4  bytes of the manifest, little-endian          12  4  bytes of all parts together
//   16  32  SHA-256 of the public key that signed
//   48  64  Ed25519 signature of bytes 0 .. 47 and the manifest
//   112     manifest, then the parts in its order, and nothing behind them
//
// The manifest holds size and SHA-256 of each part, so the signature covers every byte of the file.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/status.hpp"

namespace luge::image {

using ByteVector = std::vector<std::uint8_t>;
inline constexpr std::size_t kHeaderBytes = 112, kKeyBytes = 32, kSignatureBytes = 64;
inline constexpr std::size_t kLargestManifest = 64u << 10;

struct Part {
  std::string name;  ///< "firmware", "xclbin", "bitstream"
  std::uint32_t bytes = 0;
  std::string sha256;  ///< 64 hexadecimal digits
};

struct Manifest {
  std::string kind = "card";    ///< "card": parts for a slot; "keys": `add` and `revoke`, no parts
  std::string board;            ///< id in board.toml
  std::vector<std::uint32_t> revisions;  ///< of the hardware that it is for
  std::uint32_t version = 0;    ///< major << 16 | minor << 8 | patch: what is compared for a downgrade
  std::string firmware_version, kernels_sha256, registers_sha256;
  std::string platform;         ///< UUID of the parent platform of an xclbin; empty: none
  std::vector<Part> parts;
  std::vector<std::string> add, revoke;  ///< public keys, hexadecimal
};

/// One line of JSON with its members in a fixed order: the same manifest gives the same bytes.
std::string to_text(const Manifest& m);
/// invalid: not one, unknown members, sizes that do not add up.
Result<Manifest> parse_manifest(std::string_view text);

struct File {
  Manifest manifest;
  std::array<std::uint8_t, kKeyBytes> key_id{};
  std::array<std::uint8_t, kSignatureBytes> signature{};
  ByteVector signed_bytes;   ///< what the signature is of
  std::vector<ByteVector> parts;
};

/// invalid: the form is wrong, a part's digest is not the manifest's, or something is left over. Says nothing of the signature.
Result<File> parse_file(std::span<const std::uint8_t> bytes);
/// The file without a signature (zeros), with sizes and digests of `parts` filled in.
Result<ByteVector> build_file(Manifest m, const std::vector<ByteVector>& parts);

const ByteVector* part_of(const File& f, std::string_view name);

std::string hex(std::span<const std::uint8_t> bytes);
/// invalid: other than pairs of hexadecimal digits.
Result<ByteVector> from_hex(std::string_view text);
std::string sha256_hex(std::span<const std::uint8_t> bytes);
std::string version_text(std::uint32_t version);
Result<std::uint32_t> parse_version(std::string_view text);
Result<ByteVector> read_file(const std::string& path);
Status write_file(const std::string& path, std::span<const std::uint8_t> bytes, unsigned mode = 0644);

}  // namespace luge::image
