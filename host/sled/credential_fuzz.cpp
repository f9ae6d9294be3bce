// Any bytes as a designation that is presented and as a credential that is carried: nothing but what was signed, or issued, passes.
#include <cstring>
#include <string>

#include "base/check.hpp"
#include "sled/credentials.hpp"
#include "wire/unit_key.hpp"

namespace {

using namespace luge;

constexpr std::uint64_t kUnit = 5;

wire::Designation genuine(const wire::Signer& signer) {
  wire::Designation d;
  d.unit = kUnit;
  d.vp = 0x30001;
  d.epoch = d.revision = 4;
  d.history = 1;
  d.primary = 10;
  d.reserves = {11, 12};
  d.required = {10, 11};
  d.volume = "v";
  d.signature = signer.sign(d);
  return d;
}

// The input over some of the bytes of what is genuine: what no fuzzer would find from nothing.
std::string over(std::string bytes, const std::uint8_t* data, std::size_t size) {
  for (std::size_t i = 0; i + 1 < size; i += 2)
    if (!bytes.empty()) bytes[(data[i] | data[i + 1] << 8) % bytes.size()] ^= static_cast<char>(data[i + 1] | 1);
  return bytes;
}

void presented(const std::string& bytes, const wire::Designation& real, const wire::Verifier& verifier) {
  auto d = wire::Designation::parse(bytes);
  if (!d.ok()) return;
  bool same = d->signed_bytes() == real.signed_bytes();
  LUGE_CHECK(verifier.check(kUnit, *d).ok() == (same && d->signature == real.signature));
  if (!same) return;
  wire::Designation unsigned_one = *d;  // one text, one designation
  unsigned_one.signature = real.signature;
  LUGE_CHECK(unsigned_one == real);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const wire::Signer signer(wire::KeyBytes{1});
  static const wire::Verifier verifier = *wire::Verifier::make(signer.public_key());
  static const wire::Designation real = genuine(signer);
  static const sled::Credentials credentials(kUnit, 41, {1});
  const sled::Opening opening{0x30001, 4, 2, 7, 0, 0};
  if (size < 1) return 0;
  std::string_view in(reinterpret_cast<const char*>(data) + 1, size - 1);
  bool raw = data[0] % 2 == 0;
  presented(raw ? std::string(in) : over(real.serialize(), data + 1, size - 1), real, verifier);

  fbs::Credential issued = credentials.issue(10, opening), c;
  std::string bytes(reinterpret_cast<const char*>(&issued), sizeof issued);
  bytes = raw ? std::string(in) : over(bytes, data + 1, size - 1);
  bytes.resize(sizeof c);
  std::memcpy(static_cast<void*>(&c), bytes.data(), sizeof c);
  LUGE_CHECK(credentials.check(&c, opening).ok() == (std::memcmp(&c, &issued, sizeof c) == 0));
  (void)wire::parse_hex_key(in);
  return 0;
}
