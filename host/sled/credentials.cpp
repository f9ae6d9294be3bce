#include "sled/credentials.hpp"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>

#include <cstring>

#include "base/check.hpp"
#include "switches/switches.hpp"

namespace luge::sled {
namespace {

constexpr std::size_t kSignedBytes = 56;
static_assert(kSignedBytes + 16 == sizeof(fbs::Credential));

Status refuse(Code code, const std::string& why) { return Status(code, "the credential is refused: " + why); }

}  // namespace

void Refusals::count(Code code) {
  switch (code) {
    case Code::forged: ++forged; break;
    case Code::fenced: ++replayed; break;
    case Code::expired: ++expired; break;
    case Code::wrong_unit: ++other_unit; break;
    case Code::not_permitted: ++not_permitted; break;
    default: break;
  }
}

Credentials::Credentials(std::uint64_t unit, NodeId sled, const Secret& secret) : unit_(unit), sled_(sled), context_(nullptr, EVP_MAC_CTX_free) {
  EVP_MAC* algorithm = EVP_MAC_fetch(nullptr, "HMAC", nullptr);
  LUGE_CHECK(algorithm != nullptr);
  context_.reset(EVP_MAC_CTX_new(algorithm));
  EVP_MAC_free(algorithm);
  char digest[] = "SHA256";
  OSSL_PARAM parameters[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0), OSSL_PARAM_construct_end()};
  LUGE_CHECK(context_ && EVP_MAC_init(context_.get(), secret.data(), secret.size(), parameters) == 1);
}
Credentials::~Credentials() = default;

// Init without a key begins anew under the one that is set: its two hashed blocks are not computed again.
std::array<std::uint64_t, 2> Credentials::mac(const fbs::Credential& c) const {
  unsigned char out[32];
  std::size_t size = 0;
  LUGE_CHECK(EVP_MAC_init(context_.get(), nullptr, 0, nullptr) == 1 &&
             EVP_MAC_update(context_.get(), reinterpret_cast<const unsigned char*>(&c), kSignedBytes) == 1 &&
             EVP_MAC_final(context_.get(), out, &size, sizeof out) == 1 && size == sizeof out);
  std::array<std::uint64_t, 2> mac;
  std::memcpy(mac.data(), out, sizeof mac);
  return mac;
}

fbs::Credential Credentials::issue(NodeId holder, const Opening& o) const {
  auto with = [&](std::uint64_t low, std::uint64_t high) {
    return fbs::Credential(unit_, o.vp, o.epoch, o.generation, sled_, o.column, holder, o.role, o.device, kCredentialVersion, 0, low, high);
  };
  auto [low, high] = mac(with(0, 0));
  return with(low, high);
}

Status Credentials::check(const fbs::Credential* c, const Opening& o) const {
  if (broken(Switch::credentials_unchecked)) return Status();
  if (!c) return refuse(Code::forged, "there is none");
  if (c->unit() != unit_ && c->unit() != 0) return refuse(Code::wrong_unit, "it is of storage unit " + std::to_string(c->unit()));
  if (c->version() != kCredentialVersion && c->version() != 0) return refuse(Code::wrong_version, "its version is " + std::to_string(c->version()));
  auto [low, high] = mac(*c);
  if (((low ^ c->mac_low()) | (high ^ c->mac_high())) != 0) return refuse(Code::forged, "this sled did not make it");
  if (c->sled() != sled_ || c->device() != o.device || c->column() != o.column || c->vp() != o.vp)
    return refuse(Code::not_permitted, "it is for another column or volume partition");
  if (c->epoch() < o.epoch) return Status(Code::fenced, "you have been fenced off: epoch " + std::to_string(o.epoch) + " has begun, the credential is of epoch " + std::to_string(c->epoch()));
  if (c->epoch() > o.epoch) return refuse(Code::not_permitted, "it is of epoch " + std::to_string(c->epoch()) + ", this is epoch " + std::to_string(o.epoch));
  if (c->generation() != o.generation) return refuse(Code::expired, "the column has been given back since, and claimed again");
  if (c->role() != o.role) return refuse(Code::not_permitted, "the column has another role");
  return Status();
}

Status check_role(const wire::Designation& d, NodeId holder, NodeId role) {
  if (broken(Switch::roles_unchecked)) return Status();
  if (holder == d.primary) return Status();
  if (!d.has_member(holder)) return Status(Code::not_permitted, "node " + std::to_string(holder) + " is no member of the designation that it presents");
  if (role == holder) return Status();
  return Status(Code::not_permitted, "a reserve may write its own checkpoints and nothing else: node " + std::to_string(holder) + " asks for " +
                                         (role == 0 ? std::string("data") : "checkpoints of node " + std::to_string(role)));
}

}  // namespace luge::sled
